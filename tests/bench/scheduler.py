"""The scheduler alone: 10 000 streams that do nothing but come up once a second, on the engine's own wheel and tick.

As a program (arguments: how many streams, seconds to warm up, seconds to measure) it tells what the process spent on
them; with no streams, what a process costs that an event loop's timer wakes as often as the tick does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tracemalloc
from itertools import chain
from time import monotonic
from typing import NamedTuple

import uvloop

from exporters.identity import identify
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.probing.schedule import SLOT, Wheel, first_point, serve, turn

from .measure import Effort, Result, cpu_seconds, each_us, module, result, rss_mb, tell, window_of

STREAMS = 10_000
INTERVAL = 1.0
CPU_GOAL = 0.02  # of a core
STATE_GOAL = 200  # bytes for each stream


class Idle:
    """A stream's grid, and no stream."""

    __slots__ = ("fired", "first")

    def __init__(self, wheel: Wheel, grid: Grid, now: float) -> None:
        self.fired = 0
        self.first = first_point(turn(grid), grid.interval, now)
        wheel.every(self.first, INTERVAL, self.on_point)

    def on_point(self, now: float) -> None:
        _lag, missed = serve(self.first, INTERVAL, self.fired, now)
        self.fired += 1 + missed


class Grid(NamedTuple):
    key: str
    interval: float


def idle(wheel: Wheel, streams: int, now: float) -> list[Idle]:
    """So many, made in the order in which the engine makes its own."""
    grids = [Grid(f"bench|target-{number}|pod|http|4", INTERVAL) for number in range(streams)]
    return [Idle(wheel, grid, now) for grid in sorted(grids, key=turn)]


async def spend(streams: int, warm: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    identity = identify("bench", "", "")
    engine = Engine([], identity, Record([], identity), loop)
    made = idle(engine.wheel, streams, monotonic())
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        loop.call_later(SLOT, tick)

    if made:
        engine.start()
    else:
        tick()
    await asyncio.sleep(warm)
    before, fired = cpu_seconds(os.getpid()), ticks + sum(stream.fired for stream in made)
    await asyncio.sleep(seconds)
    done = ticks + sum(stream.fired for stream in made) - fired
    tell(os.getpid(), before, done, (streams / INTERVAL if streams else 0.9 / SLOT) * seconds)
    await engine.stop()


def weigh() -> float:
    """Bytes for each stream after all came up twice: by then the wheel is filled as it will be for ever."""
    gc.collect()
    tracemalloc.start()
    now = monotonic()
    wheel = Wheel(now)
    made = idle(wheel, STREAMS, now)
    for tick in range(int(2 * INTERVAL / SLOT)):
        for call in chain(*wheel.due(now + tick * SLOT)):
            call(now + tick * SLOT)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / len(made)


def scheduler(effort: Effort) -> list[Result]:
    """Two lines: the share of a core, and the bytes for each stream."""
    turns, bare = [], []
    for _ in range(effort.repeats):
        turns.append(window_of(module("scheduler", STREAMS, effort.warm, effort.window), effort))
        bare.append(window_of(module("scheduler", 0, effort.warm, effort.window), effort))
    name = f"scheduler, {STREAMS} idle streams at {1 / INTERVAL:g} Hz"
    shares = [window.each * STREAMS / INTERVAL for window in turns]
    detail = {
        "us_each": each_us(turns),
        "rss_mb": rss_mb(turns),
        "share_of_a_timer_that_does_nothing": round(each_us(bare) * 1e-6 / SLOT, 4),
    }
    return [
        result(f"{name}: share of a core", shares, CPU_GOAL, detail),
        result(f"{name}: bytes each", [weigh()], STATE_GOAL, {}),
    ]


if __name__ == "__main__":
    uvloop.run(spend(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
