"""A prober in a box: an engine, its record and whatever a test sets it on, on one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from exporters.identity import identify
from exporters.journal import Snapshot
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.settings import Stream

PATIENCE = 60.0  # seconds; only something broken needs them
OURSELVES = identify("here", "node-here", "zone-here")

Result = TypeVar("Result")


def run(scenario: Coroutine[Any, Any, Result], factory: Callable[[], Any] = uvloop.new_event_loop) -> Result:
    """The result of `scenario` on a loop of its own; a bug in a callback fails it, and so do descriptors left open."""
    bugs: list[dict[str, Any]] = []
    before = open_files()

    async def watched() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
        return await asyncio.wait_for(scenario, 3 * PATIENCE)

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(watched())
    for bug in bugs:
        raise bug.get("exception") or AssertionError(bug)
    left = open_files() - before
    assert not left, f"{left} descriptors left open"
    return result


def open_files() -> int:
    """How many sockets and epoll sets this process has open. Pipes are left out: libuv keeps two for ever."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(str(each.readlink()))
    return sum("socket" in each or "eventpoll" in each for each in found)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `condition` holds; it failing is told by the assertion."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition() and loop.time() < deadline:  # noqa: ASYNC110 - what is waited for knows no events
        await asyncio.sleep(0.01)
    assert condition()


# --- the prober


def stream(port: int, protocol: str = "tcp", **changes: Any) -> Stream:
    """A stream to `port` of this machine: T 0.1 s, R 0.06 s, patience 3 s unless `changes` say otherwise."""
    plain = Stream("here", "there", "service", protocol, 4, "127.0.0.1", port, 0.1, 0.06, 3.0)
    return replace(plain, **changes)


class Probed(Record):
    """A record that knows its engine; its history has no gaps of ours, for any machine may stall for a second."""

    engine: Engine

    def history(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        return [item for item in super().history(since, limit) if item["kind"] != "gap"]


@contextlib.asynccontextmanager
async def probing(*streams: Stream, descriptors: int = 1024) -> AsyncIterator[Probed]:
    """Probe `streams` meanwhile."""
    record = Probed(streams, OURSELVES, max_history=10_000)
    record.engine = Engine(streams, OURSELVES, record, asyncio.get_running_loop(), descriptors)
    record.engine.start()
    try:
        yield record
    finally:
        await record.engine.stop()
        if len(record.engine.poller):
            raise AssertionError("the engine left connections open")


def only(record: Record) -> Stats:
    """The stream of a record that has one."""
    (stats,) = record.stats.values()
    return stats


def failures(stats: Stats) -> dict[str, int]:
    """Failed probes by cause, of all streams that share path and protocol."""
    return {cause: count for cause, count in stats.shape.failures.items() if count}


def successes(stats: Stats) -> int:
    return int(stats.shape.durations.buckets()[0][-1][1])


def kinds(record: Record) -> list[str]:
    return [item["kind"] for item in record.history()]


def telling(read: Callable[[], bytes]) -> Snapshot:
    """What a journal saves as counters."""

    async def snapshot() -> bytes:
        return read()

    return snapshot
