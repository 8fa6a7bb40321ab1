"""A page of metrics against prometheus_client's own way to make one; and what a scrape does to the event loop.

Reference: a registry of prometheus_client's counters with as many labelled series, rendered by its generate_latest.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from time import monotonic, thread_time

import uvloop
from prometheus_client import CollectorRegistry, Counter, generate_latest

from exporters.exposition import Exposition, encoded, make_registry
from exporters.identity import identify
from exporters.probing.metrics import PER_STREAM
from exporters.probing.record import Record
from exporters.probing.saved import Last

from .measure import Effort, Result, module, result, told_by
from .prober import streams

SAMPLES = 10_000
STREAMS = 10_000
GOAL = 0.15
HELD_GOAL = 0.010  # seconds
TICK = 0.002


def lively(count: int) -> Record:
    """The record of so many streams, of which everything is known."""
    specs = streams("tcp", 8081, count, 0.1)
    record = Record(specs, identify("bench", "node", "zone"))
    for number, stats in enumerate(record.stats.values()):
        stats.state("up")
        stats.probes = number
        stats.outage_seconds = number * 0.1234567
        stats.succeeded(1.7e9 + number, 0.001, {"node": "there", "zone": "z"})
        stats.last_outage = Last(0.1, 0.2, 0.3, 1.7e9, 1.7e9 + 0.2)
    return record


def families(count: int) -> CollectorRegistry:
    """So many series of prometheus_client's own, with the labels that a stream's have."""
    registry = CollectorRegistry()
    names = ["source", "target", "path", "protocol", "family"]
    for family in range(len(PER_STREAM)):
        counter = Counter(f"bench_{family}", "One of many.", names, registry=registry)
        for number in range(count // len(PER_STREAM)):
            counter.labels("bench", f"target-{number}", "pod", "tcp", "4").inc(number * 0.1234567)
    return registry


def cost(work: Callable[[], bytes], seconds: float) -> float:
    """CPU seconds of one call."""
    work()
    calls, began = 0, thread_time()
    while (spent := thread_time() - began) < seconds:
        work()
        calls += 1
    return spent / calls


async def held(seconds: float) -> float:
    """The longest that a loop was held, in seconds, while STREAMS streams were scraped one time after another."""
    exposition = Exposition(make_registry(lively(STREAMS)))
    gc.collect()
    gc.freeze()  # as the engine does
    longest, scraping = 0.0, asyncio.create_task(_scrapes(exposition))
    end = monotonic() + seconds
    last = monotonic()
    while last < end:
        await asyncio.sleep(TICK)
        now = monotonic()
        longest, last = max(longest, now - last - TICK), now
    scraping.cancel()
    exposition.close()
    return longest


async def _scrapes(exposition: Exposition) -> None:
    while True:
        await exposition.render()
        await asyncio.sleep(0.05)


def metrics(effort: Effort) -> list[Result]:
    """Two lines: CPU against generate_latest, and seconds that the loop was held."""
    record = lively(SAMPLES // len(PER_STREAM))
    registry = make_registry(record)
    reference = families(SAMPLES)
    ours, theirs = [], []
    for _ in range(effort.repeats):
        theirs.append(cost(lambda: generate_latest(reference), effort.window / 2))
        ours.append(cost(lambda: encoded(registry, generate_latest), effort.window / 2))
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    detail = {"ms": round(min(ours) * 1e3, 2), "generate_latest_ms": round(min(theirs) * 1e3, 2)}
    waits = [told_by(module("metrics", effort.window)) for _ in range(effort.repeats)]
    return [
        result(f"/metrics, {SAMPLES} samples / generate_latest", ratios, GOAL, detail),
        result(f"/metrics of {STREAMS} streams: seconds the event loop was held", waits, HELD_GOAL, {}),
    ]


if __name__ == "__main__":
    print(uvloop.run(held(float(sys.argv[1]))))
