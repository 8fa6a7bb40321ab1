"""The scheduler alone: 10 000 streams that do nothing but come up once a second, on the engine's own wheel and tick.

As a program (arguments: seconds to warm up, seconds to measure) it tells what the process spent on them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tracemalloc
from time import monotonic

import uvloop

from exporters.identity import identify
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.probing.schedule import SLOT, Wheel, first_point, next_point, phase

from .measure import Effort, Result, cpu_seconds, each_us, module, result, rss_mb, tell, window_of

STREAMS = 10_000
INTERVAL = 1.0
CPU_GOAL = 0.02  # of a core
STATE_GOAL = 200  # bytes for each stream


class Idle:
    """A stream's grid, and no stream."""

    __slots__ = ("fired", "point", "wheel")

    def __init__(self, wheel: Wheel, number: int, now: float) -> None:
        self.wheel = wheel
        self.fired = 0
        self.point = first_point(phase(f"bench|target-{number}|pod|http|4", INTERVAL), INTERVAL, now)
        wheel.at(self.point, self.on_point)

    def on_point(self, now: float) -> None:
        self.point, _missed = next_point(self.point, INTERVAL, now)
        self.wheel.at(self.point, self.on_point)
        self.fired += 1


async def spend(warm: float, seconds: float) -> None:
    identity = identify("bench", "", "")
    engine = Engine([], identity, Record([], identity), asyncio.get_running_loop())
    idle = [Idle(engine.wheel, number, monotonic()) for number in range(STREAMS)]
    engine.start()
    await asyncio.sleep(warm)
    before, fired = cpu_seconds(os.getpid()), sum(stream.fired for stream in idle)
    await asyncio.sleep(seconds)
    done = sum(stream.fired for stream in idle) - fired
    tell(os.getpid(), before, done, STREAMS / INTERVAL * seconds)
    await engine.stop()


def weigh() -> float:
    """Bytes for each stream after all came up twice: by then the wheel is filled as it will be for ever."""
    gc.collect()
    tracemalloc.start()
    now = monotonic()
    wheel = Wheel(now)
    idle = [Idle(wheel, number, now) for number in range(STREAMS)]
    for tick in range(int(2 * INTERVAL / SLOT)):
        for call in wheel.due(now + tick * SLOT):
            call(now + tick * SLOT)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / len(idle)


def scheduler(effort: Effort) -> list[Result]:
    """Two lines: the share of a core, and the bytes for each stream."""
    turns = [window_of(module("scheduler", effort.warm, effort.window), effort) for _ in range(effort.repeats)]
    name = f"scheduler, {STREAMS} idle streams at {1 / INTERVAL:g} Hz"
    shares = [window.each * STREAMS / INTERVAL for window in turns]
    return [
        result(f"{name}: share of a core", shares, CPU_GOAL, {"us_each": each_us(turns), "rss_mb": rss_mb(turns)}),
        result(f"{name}: bytes each", [weigh()], STATE_GOAL, {}),
    ]


if __name__ == "__main__":
    uvloop.run(spend(*map(float, sys.argv[1:3])))
