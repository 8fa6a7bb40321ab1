"""What every benchmark shares: how long to look, a process' CPU time and memory, medians, and the result they make.

1. Cost is CPU time (user and system, all threads) of the measured process for each unit of work; never wall time.
2. Measured and reference take turns within one run; each turn gives one ratio, and the median of the turns' is told.
3. A window that missed its rate, or in which much failed, is no measurement: it is tried again, then an error. Both
   sides alike: a probe costs more at a lower rate, so a reference that fell behind would flatter us.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 6
MOST_FAILED = 0.01  # of what was done: a busy machine is late now and then
CHILD_TIMEOUT = 60.0  # seconds, more than any window lasts


class BenchError(Exception):
    """A benchmark could not be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many turns, how many seconds each (not measured, then measured), and what share of the work must be done."""

    repeats: int
    warm: float
    window: float
    share: float


FULL = Effort(repeats=5, warm=1.0, window=2.0, share=0.95)
SHORT = Effort(repeats=1, warm=0.2, window=0.5, share=0.0)  # shows that a benchmark runs; its numbers mean little


@dataclass(frozen=True, slots=True)
class Window:
    """One turn of one process: units of work done well, asked for, failed; CPU seconds; resident bytes at its end."""

    work: int
    wanted: float
    failed: int
    cpu: float
    rss: int

    @property
    def each(self) -> float:
        """CPU seconds for one unit."""
        return self.cpu / self.work


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table. ratio and goal are what the name says: a share of a reference, of a core, or bytes."""

    name: str
    ratio: float
    goal: float
    ok: bool
    detail: Mapping[str, Any]


def result(name: str, ratios: Sequence[float], goal: float, detail: Mapping[str, Any]) -> Result:
    """The median of the turns' ratios against the goal, with the least and the greatest of them."""
    ratio = median(ratios)
    spread = [round(min(ratios), 4), round(max(ratios), 4)]
    return Result(name, round(ratio, 4), goal, ratio <= goal, {"spread": spread, "repeats": len(ratios), **detail})


def each_us(windows: Iterable[Window]) -> float:
    """Microseconds of CPU for one unit of work, the median of the windows'."""
    return round(median(window.each for window in windows) * 1e6, 1)


def done(windows: Iterable[Window]) -> float:
    """The least share of the wanted work that a window saw done."""
    return round(min(window.work / window.wanted for window in windows), 2)


def rss_mb(windows: Iterable[Window]) -> float:
    return round(max(window.rss for window in windows) / 1e6, 1)


def cpu_seconds(pid: int) -> float:
    """CPU seconds a process has used so far, in nanosecond steps.

    The kernel forms the clock of a process from its id: the inverted id, shifted by three, and 2 for scheduled time
    (man 3 clock_getcpuclockid); the C library's own function is not in Python.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def tell(pid: int, before: float, work: int, wanted: float, failed: int = 0) -> None:
    """How a child tells its parent of a window that began at CPU time `before`."""
    print(json.dumps(asdict(Window(work, wanted, failed, cpu_seconds(pid) - before, resident(pid)))))


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", f"tests.bench.{name}", *map(str, arguments)]


def window_of(command: Sequence[str], effort: Effort) -> Window:
    """Run a child to its end and read the window it tells of. Raises BenchError if it failed or did too little."""
    for _ in range(ATTEMPTS):
        try:
            child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CHILD_TIMEOUT, check=True)
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{' '.join(command)}: {error.stderr.strip()}") from None
        except subprocess.TimeoutExpired:
            raise BenchError(f"{' '.join(command)}: no end after {CHILD_TIMEOUT:.0f} s") from None
        window = Window(**json.loads(child.stdout))
        enough = window.work >= effort.share * window.wanted and window.failed <= MOST_FAILED * window.work
        if window.work and (enough or not effort.share):
            return window
    what = f"{window.work} of {window.wanted:.0f} were done, {window.failed} failed"
    raise BenchError(f"{' '.join(command)}: {what}: the machine is too busy to measure")


def told_by(command: Sequence[str]) -> float:
    """The number that a child prints. Raises BenchError if it failed."""
    try:
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CHILD_TIMEOUT, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{' '.join(command)}: {error.stderr!r}") from None
    return float(child.stdout)


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process in the background with its output in a pipe; ended when the block is left. Raises BenchError."""
    try:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed") from None
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=CHILD_TIMEOUT)
