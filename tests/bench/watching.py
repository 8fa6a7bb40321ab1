"""A cluster's nodes watched: ours, with all other watches and judging, against the official client's own informer."""

from __future__ import annotations

import os
import sys
from statistics import median

from .measure import (
    ROOT,
    SHORT,
    BenchError,
    Effort,
    Result,
    Window,
    each_us,
    module,
    result,
    rss_mb,
    running,
    window_of,
)

NODES, EVENTS = 1000, 20_000  # what 20 000 pods' coming and going means to who does not watch pods, and much more
COMPARED = 2000  # events that both are told: the informer takes milliseconds for each
SPAN = 600.0  # seconds in which so many events come, at worst
GOAL, CORE_GOAL, MEMORY_GOAL = 0.25, 0.05, 150e6  # of the informer; of a core; bytes


def watching(effort: Effort) -> list[Result]:
    short = effort == SHORT
    nodes, events, compared = (50, 200, 100) if short else (NODES, EVENTS, COMPARED)
    pairs = [
        (_turn("ours", nodes, compared, effort), _turn("informer", nodes, compared, effort))
        for _ in range(min(effort.repeats, 3))
    ]
    mine, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    many = [_turn("ours", nodes, events, effort) for _ in range(min(effort.repeats, 3))]
    told = {"nodes": nodes, "events": events, "cpu_seconds": round(median(each.cpu for each in many), 2)}
    return [
        result(
            "node events, of the client's informer",
            [one.each / other.each for one, other in pairs],
            GOAL,
            {
                "us": each_us(mine),
                "reference_us": each_us(theirs),
                "rss_mb": rss_mb(mine),
                "reference_rss_mb": rss_mb(theirs),
            },
        ),
        result(
            "many events, of a core in 10 min",
            [each.cpu / SPAN for each in many],
            CORE_GOAL,
            told | {"us": each_us(many)},
        ),
        result("many events, bytes", [float(each.rss) for each in many], MEMORY_GOAL, told | {"rss_mb": rss_mb(many)}),
    ]


def _turn(kind: str, nodes: int, events: int, effort: Effort) -> Window:
    """One of both, with a server of its own."""
    command = [sys.executable, str(ROOT / "tests" / "many_nodes.py"), str(nodes), str(events)]
    with running(command, {**os.environ, "PYTHONPATH": str(ROOT / "tests")}) as server:
        assert server.stdout is not None
        config = server.stdout.readline().strip()
        if not config.startswith("/"):
            raise BenchError(f"the server does not start: {config}")
        return window_of(module("watcher", kind, config, events), effort)
