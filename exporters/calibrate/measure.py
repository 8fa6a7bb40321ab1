"""Injects into many places at once while probers watch, and judges what they saw: by relays, or between namespaces."""

import contextlib
import functools
import json
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import ceil
from typing import NamedTuple

from exporters.calibrate import faults, relayed
from exporters.calibrate.carry import Done, Job, Place, Tell, carry_out
from exporters.calibrate.injection import Bracket, Injection
from exporters.calibrate.judge import Event, Table, judge
from exporters.calibrate.namespaces import lanes
from exporters.calibrate.plan import Seconds, Step, log_uniform, steps
from exporters.calibrate.processes import ANSWER, PROBE, Prober
from exporters.calibrate.relay import Address
from exporters.settings import Stream
from exporters.targets import PORTS, PROMPT_MOST, PROMPT_SHARE, Protocol

LENGTHS = log_uniform(0.1, 10.0)  # seconds of an interruption
STREAMS = 20  # at least, in parallel
RELAYS = 8
LANES = 10  # of two families each
FAMILIES = (4, 6)
PATIENCE = 3.0
WARM = 1.0  # seconds that every stream has been up before the first interruption
# Differs between installations, is the same in each run: a crash is cleared by the next.
PREFIX = f"owc{zlib.crc32(__file__.encode()):08x}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure. `injections`: of each fault, at least; `limit`: seconds; one of them may be None."""

    protocols: tuple[Protocol, ...]
    faults: tuple[str, ...]
    intervals: Mapping[Protocol, float]
    seed: int
    injections: int | None = None
    limit: float | None = None
    lengths: Seconds = LENGTHS


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it. `stalled`: the share of the time in which the probers did not run."""

    table: Table
    streams: int
    seconds: float
    stalled: float
    failed: tuple[str, ...]  # attempts to interrupt that had no effect


class Way(NamedTuple):
    """A place, how to interrupt it, and the streams through it."""

    place: Place
    inject: Callable[[str, float], list[Injection]]
    streams: tuple[Stream, ...]


class Watch(NamedTuple):
    """A prober, and the ways it watches."""

    prober: Prober
    ways: tuple[Way, ...]


class Method(NamedTuple):
    """How to build what is interrupted and watched, and what can be done to it."""

    build: Callable[[Wanted, contextlib.ExitStack], list[Watch]]
    faults: tuple[str, ...]


def prompt(interval: float) -> float:
    """The prompt limit R of a stream that probes so often, as a peer has it."""
    return min(PROMPT_SHARE * interval, PROMPT_MOST)


def measure(method: str, wanted: Wanted, tell: Tell = lambda _: None) -> Measured:
    """Build, wait until all is up, interrupt, judge, and remove all again, whatever happens.

    Raises RuntimeError or OSError for what cannot be built, or does not come up.
    """
    with contextlib.ExitStack() as stack:
        watches = METHODS[method].build(wanted, stack)
        for watch in watches:
            watch.prober.wait_until_ready()
        time.sleep(WARM)
        ways = [way for watch in watches for way in watch.ways]
        begun = time.monotonic()
        jobs = [Job(way.place, way.inject, _steps(wanted, number, len(ways))) for number, way in enumerate(ways)]
        done = carry_out(jobs, limit=wanted.limit, tell=tell)
        seconds = time.monotonic() - begun
        told = [watch.prober.finish() for watch in watches]
    return _judged(watches, told, done, seconds)


def _steps(wanted: Wanted, number: int, ways: int) -> Iterator[Step]:
    every = steps(wanted.faults, wanted.lengths, seed=wanted.seed * 1000 + number)
    if wanted.injections is None:
        return every
    return islice(every, ceil(wanted.injections / ways) * len(wanted.faults))


def _judged(
    watches: Sequence[Watch], told: Sequence[Sequence[Event]], done: Sequence[Done], seconds: float
) -> Measured:
    table, stalled, count = Table((), ()), 0.0, 0
    by_way = iter(done)
    for watch, lines in zip(watches, told, strict=True):
        stalls = [Bracket(each["begin"], each["end"]) for each in lines if each["kind"] == "stall"]
        stalled += sum(end - begin for begin, end in stalls)
        for way in watch.ways:
            into, keys = next(by_way), [each.key for each in way.streams]
            seen = [each for each in lines if each.get("stream") in keys]
            table += judge(into.injections, seen, keys, into.voids, stalls)
            count += len(keys)
    failed = tuple(reason for each in done for reason in each.reasons)
    return Measured(table, count, seconds, stalled / (seconds * len(watches)), failed)


def _stream(wanted: Wanted, ends: tuple[str, str], protocol: Protocol, family: int, address: Address) -> Stream:
    interval = wanted.intervals[protocol]
    return Stream(*ends, "pod", protocol, family, *address, interval, prompt(interval), PATIENCE)


def _probe(streams: Sequence[Stream]) -> list[str]:
    return [*PROBE, json.dumps([asdict(each) for each in streams])]


def _relays(wanted: Wanted, stack: contextlib.ExitStack) -> list[Watch]:
    """One prober for all relays."""
    count = max(RELAYS, ceil(STREAMS / len(wanted.protocols)))
    ways = []
    for place in stack.enter_context(relayed.relayed(count)):
        streams = [_stream(wanted, ("prober", place.name), each, 4, place.addresses[each]) for each in wanted.protocols]
        ways.append(Way(place, place.inject, tuple(streams)))
    argv = _probe([each for way in ways for each in way.streams])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    stack.callback(_end, process)
    return [Watch(Prober(process), tuple(ways))]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _namespaces(wanted: Wanted, stack: contextlib.ExitStack) -> list[Watch]:
    """A prober and a server in each lane."""
    watches = []
    for lane in stack.enter_context(lanes(PREFIX, LANES)):
        lane.start_server([*ANSWER, "", *(str(PORTS[each]) for each in ("http", "tcp", "ws"))], list(PORTS.values()))
        streams = tuple(
            _stream(wanted, (lane.name, "server"), each, family, (lane.addresses["server", family], PORTS[each]))
            for each in wanted.protocols
            for family in FAMILIES
        )
        process = lane.popen(_probe(streams), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        watches.append(Watch(Prober(process), (Way(lane, functools.partial(faults.inject, lane), streams),)))
    return watches


METHODS: dict[str, Method] = {
    "relay": Method(_relays, tuple(relayed.FAULTS)),
    "namespaces": Method(_namespaces, tuple(faults.FAULTS)),
}
