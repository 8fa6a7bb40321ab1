"""`ovnwatch calibrate`: inject known interruptions, compare them with what our own prober measured, give a verdict."""

import contextlib
import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TextIO

from exporters import options
from exporters.calibrate import report
from exporters.calibrate.carry import Done
from exporters.calibrate.injection import NotInjectedError
from exporters.calibrate.measure import METHODS, Wanted, measure, prompt
from exporters.calibrate.namespaces import lacking
from exporters.calibrate.promises import Times, broken, verdict
from exporters.options import Option
from exporters.strictyaml import Problem
from exporters.targets import PROTOCOLS, Protocol

EXIT = {"pass": 0, "fail": 2, "inconclusive": 1}
DURATION = 300.0  # seconds, when nothing else bounds it
LINE_EVERY = 30.0  # seconds between two lines of progress where lines are not overwritten
INTERVALS: dict[Protocol, float] = {"http": 0.5, "tcp": 0.1, "ws": 0.1}  # a peer's
USAGE = """usage: ovnwatch calibrate [flags]

Interrupts echo servers of its own in known ways, for 0.1 to 10 s, while probers watch, and compares. Exit code: 0 every
promise was kept, 2 one was not, 1 it could not be found out. Nothing outside of what it builds is touched."""


def _words(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
        for word in words:
            if word not in known:
                raise ValueError(f"want some of {', '.join(known)}, with commas: {text!r}")
        return words

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = options.number(text)
        if not low <= value <= high:  # nan too
            raise ValueError(f"must be from {low:g} to {high:g} seconds: {text!r}")
        return value

    return read


def _interval(text: str) -> float:
    value = _seconds(0.05, 2.0)(text)  # two interruptions are at least 3.2 s apart: a probe must fit between
    if not math.isclose(value * 1000, round(value * 1000)):
        raise ValueError(f"want whole milliseconds: {text!r}")
    return value


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"want a whole number from 0 to 999999999: {text!r}")
    return int(text)


FAULTS = tuple(dict.fromkeys(fault for method in METHODS.values() for fault in method.faults))
OPTIONS = (
    Option("method", options.one_of("auto", *METHODS), "auto", "--method", "", "",
           "auto, relay (no privileges) or namespaces (root; also loses, rejects and cuts); auto: the best there is"),
    Option("protocol", _words(PROTOCOLS), ",".join(PROTOCOLS), "--protocol", "", "", "which, with commas"),
    Option("fault", _words(FAULTS), "", "--fault", "", "", "which, with commas; all of the method if not given: "
           + "; ".join(f"{name}: {', '.join(method.faults)}" for name, method in METHODS.items())),
    Option("duration", _seconds(1, 86400), "", "--duration", "", "",
           f"seconds after which no interruption begins; {DURATION:g} if --injections is not given either"),
    Option("injections", options.count, "", "--injections", "", "",
           "interruptions of each fault, at least, unless --duration is over before"),
    Option("interval", _interval, "", "--interval", "", "",
           "seconds between probes; if not given a peer's: "
           + ", ".join(f"{protocol} {seconds:g}" for protocol, seconds in INTERVALS.items())),
    Option("seed", _seed, "", "--seed", "", "", "repeat the lengths, order and pauses of the run that printed it"),
    Option("output", options.one_of("table", "json"), "table", "--output", "", "", "table or json"),
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """0: every promise was kept; 2: one was not; 1: everything else."""
    if {"-h", "--help"} & set(argv):
        print(options.help_text(OPTIONS, USAGE))
        return 0
    try:
        method, output, wanted = _wanted(argv)
        with _interruptible():
            return _calibrate(method, output, wanted)
    except _BadFlagsError as bad:
        for problem in bad.problems:
            print(f"ovnwatch calibrate: {problem.place}: {problem.message}", file=sys.stderr)
    except KeyboardInterrupt:
        print("ovnwatch calibrate: asked to end; nothing is left behind", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has gone, and shall not hear of the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (RuntimeError, OSError, NotInjectedError, subprocess.SubprocessError) as error:
        print(f"ovnwatch calibrate: {error}", file=sys.stderr)
    return 1


class _BadFlagsError(Exception):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = problems


def _wanted(argv: Sequence[str]) -> tuple[str, str, Wanted]:
    """Method, form of the output, and what is to be measured. Raises _BadFlagsError."""
    problems: list[Problem] = []
    given = options.resolve(OPTIONS, dict(options.read_flags(OPTIONS, argv, problems)), {}, lambda _: None, problems)
    value = {name: each.value for name, each in given.items()}
    if problems:
        raise _BadFlagsError(problems)
    method = value["method"]
    missing = lacking() if method != "relay" else ""
    if method == "auto":
        method = "relay" if missing else "namespaces"
    elif missing:
        raise _BadFlagsError([Problem("--method", f"namespaces need {missing}")])
    faults = value["fault"] or METHODS[method].faults
    for fault in faults:
        if fault not in METHODS[method].faults:
            known = ", ".join(METHODS[method].faults)
            raise _BadFlagsError([Problem("--fault", f"{fault} is not for --method={method}, which has {known}")])
    bounded = value["duration"] or value["injections"]
    seed = value["seed"]
    wanted = Wanted(
        protocols=value["protocol"],
        faults=faults,
        intervals={each: value["interval"] or INTERVALS[each] for each in value["protocol"]},
        seed=secrets.randbelow(10_000) if seed is None else seed,
        injections=value["injections"],
        limit=value["duration"] if bounded else DURATION,
    )
    return method, value["output"], wanted


def _calibrate(method: str, output: str, wanted: Wanted) -> int:
    show = Progress(sys.stderr, wanted)
    show.say(f"ovnwatch calibrate --method={method} --seed={wanted.seed}: building")
    measured = measure(method, wanted, show)
    show.clear()
    times: dict[str, Times] = {each: Times(interval, prompt(interval)) for each, interval in wanted.intervals.items()}
    said = report.Said(method, wanted, measured, times, broken(measured.table, times, measured.stalled))
    print(json.dumps(report.data(said), indent=2) if output == "json" else report.text(said))
    sys.stdout.flush()
    return EXIT[verdict(said.broken)]


class Progress:
    """One line that is overwritten on a terminal, a line now and then elsewhere."""

    def __init__(self, out: TextIO, wanted: Wanted) -> None:
        self._out = out
        self._wanted = wanted
        self._terminal = out.isatty()
        self._begun = time.monotonic()
        self._last = 0.0

    def __call__(self, done: Sequence[Done]) -> None:
        """Tell how far it is."""
        now = time.monotonic()
        if not self._last:
            self._begun = now
        elif not self._terminal and now - self._last < LINE_EVERY:
            return
        self._last = now
        self.say(progress(done, self._wanted, now - self._begun))

    def say(self, line: str) -> None:
        """Show a line."""
        print(f"\r\033[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=self._out)
        self._out.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal:
            print("\r\033[K", end="", file=self._out, flush=True)


def progress(done: Sequence[Done], wanted: Wanted, elapsed: float) -> str:
    """How far it is, in a line."""
    counts = dict.fromkeys(wanted.faults, 0)
    for each in done:
        for injection in list(each.injections):
            counts[injection.kind] += injection.family in (None, 4)
    of_time = f"{elapsed:.0f} s" + (f" of {wanted.limit:.0f}" if wanted.limit else "")
    of_count = f" of {wanted.injections} each" if wanted.injections else ""
    failed = sum(len(each.reasons) for each in done)
    least = min(counts, key=lambda kind: counts[kind])
    injected = f"{sum(counts.values())} interruptions, {least} {counts[least]}{of_count}"
    return f"{of_time}: {injected}" + (f", {failed} without effect" if failed else "")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A first signal raises KeyboardInterrupt, later ones do not disturb what clears up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def asked(_number: int, _frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before: Mapping[int, object] = {each: signal.signal(each, asked) for each in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
