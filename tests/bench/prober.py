"""Our engine at work for a while, measured from within its own process.

Arguments: protocol, the server's port, how many streams, their interval, seconds to warm up, seconds to measure.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass

import uvloop

from exporters.identity import identify
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.settings import Stream

from .measure import cpu_seconds, tell
from .server import ADDRESSES


def streams(protocol: str, port: int, count: int, interval: float) -> list[Stream]:
    return [
        Stream(
            source="bench",
            target=f"target-{number}",
            path="pod",
            protocol=protocol,
            family=4,
            host=ADDRESSES[number % len(ADDRESSES)],
            port=port,
            interval=interval,
            prompt=min(0.6 * interval, 0.15),
            patience=3.0,
        )
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Tally:
    """Successful probes, and those that failed but for a stall of ours."""

    well: int
    failed: int


def tally(record: Record) -> Tally:
    shapes = {id(stats.shape): stats.shape for stats in record.stats.values()}.values()
    well = sum(int(shape.durations.buckets()[0][-1][1]) for shape in shapes)
    return Tally(well, sum(sum(shape.failures.values()) for shape in shapes))


async def probe(protocol: str, port: int, count: int, interval: float, warm: float, seconds: float) -> None:
    identity = identify("bench", "", "")
    specs = streams(protocol, port, count, interval)
    record = Record(specs, identity)
    engine = Engine(specs, identity, record, asyncio.get_running_loop())
    engine.start()
    await asyncio.sleep(warm)
    before, first = cpu_seconds(os.getpid()), tally(record)
    await asyncio.sleep(seconds)
    last = tally(record)
    tell(os.getpid(), before, last.well - first.well, count / interval * seconds, last.failed - first.failed)
    await engine.stop()


if __name__ == "__main__":
    _protocol, _port, _count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _interval, _warm, _seconds = map(float, sys.argv[4:7])
    uvloop.run(probe(_protocol, _port, _count, _interval, _warm, _seconds))
