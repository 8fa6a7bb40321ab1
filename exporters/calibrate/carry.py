"""Carry out plans on many places at once, and note when a busy machine got in the way."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from exporters.calibrate.injection import Bracket, Injection, NotInjectedError
from exporters.calibrate.plan import Step

LOOK = 0.02  # seconds between looks at how long servers waited
WAIT = 0.02  # seconds of waiting that can make a probe late
SETTLE = 4.0  # seconds after the last injection: the patience for late answers, and some
TELL = 1.0  # seconds between two words on how far it is


class Place(Protocol):
    """What is interrupted."""

    @property
    def stop(self) -> threading.Event: ...

    def schedstats(self) -> list[Path]:
        """Files that say how long what answers here waited for a processor."""

    def held_up(self) -> list[Bracket]:
        """When what is in between did not run, as it knows itself."""


class Job(NamedTuple):
    """A place, how to interrupt it, and with what."""

    place: Place
    inject: Callable[[str, float], list[Injection]]
    steps: Iterable[Step]


@dataclass
class Done:
    """What was injected in one place; in `voids` other things may have happened to it as well."""

    injections: list[Injection] = field(default_factory=list)
    voids: list[Bracket] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # of the attempts that failed


Tell = Callable[[Sequence[Done]], None]


def carry_out(jobs: Sequence[Job], *, limit: float | None, tell: Tell = lambda _: None) -> list[Done]:
    """Carry all out at once, one thread each; after `limit` seconds no further step begins.

    `tell` is called about every second. When it is interrupted, every fault ends at once.
    """
    done = [Done() for _ in jobs]
    deadline = time.monotonic() + limit if limit is not None else float("inf")
    over = threading.Event()
    with futures.ThreadPoolExecutor(len(jobs) + 1) as pool:
        try:
            watch = pool.submit(_watch_waits, list(zip(jobs, done, strict=True)), over)
            work = [pool.submit(_carry_out, job, into, deadline) for job, into in zip(jobs, done, strict=True)]
            while futures.wait(work, TELL, futures.FIRST_EXCEPTION).not_done and not _failed([watch, *work]):
                tell(done)
            for each in work:
                each.result()
            time.sleep(SETTLE)
        except BaseException:
            for job in jobs:
                job.place.stop.set()
            raise
        finally:
            over.set()
    watch.result()
    for job, into in zip(jobs, done, strict=True):
        into.voids += [each for each in job.place.held_up() if each.after - each.before > WAIT]
    return done


def _failed(work: "Sequence[futures.Future[None]]") -> bool:
    return any(each.done() and each.exception() is not None for each in work)


def _carry_out(job: Job, into: Done, deadline: float) -> None:
    again: deque[Step] = deque()  # what did not take effect has one more chance
    for step in job.steps:
        if not _take(job, step, into, deadline, again):
            return
    for step in list(again):
        if not _take(job, step, into, deadline, again):
            return


def _take(job: Job, step: Step, into: Done, deadline: float, again: "deque[Step]") -> bool:
    """Wait and interrupt; False when it is time to end."""
    if job.place.stop.wait(step.pause):
        return False
    before = time.monotonic()
    if before > deadline:
        return False
    try:
        into.injections += job.inject(step.kind, step.seconds)
    except NotInjectedError as error:
        into.voids.append(Bracket(before, time.monotonic()))
        into.reasons.append(f"{step.kind}: {error}")
        again.append(step)
    return True


def _watch_waits(places: Sequence[tuple[Job, Done]], over: threading.Event) -> None:
    """Note when what answers waited for a processor; the kernel adds a wait to its sum when it is over."""
    waited: dict[Path, float] = {}
    looked = time.monotonic()
    while not over.wait(LOOK):
        before, looked = looked, time.monotonic()
        sums = {stat: (_waited(stat), into) for job, into in places for stat in job.place.schedstats()}
        for stat, (seconds, into) in sums.items():
            more = seconds - waited.get(stat, seconds)
            if more > WAIT:
                into.voids.append(Bracket(before - more, looked))
        waited = {stat: seconds for stat, (seconds, _) in sums.items()}


def _waited(schedstat: Path) -> float:
    """Seconds its process has waited for a processor, `<run time> <wait> <slices>` in ns; 0 if it is gone."""
    try:
        return int(schedstat.read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
