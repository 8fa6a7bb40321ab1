"""The streams as pages and scripts are told of them: an earlier system's words, and ours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import monotonic
from typing import Any

from exporters.probing.stats import Stats
from exporters.times import iso


def connections(everyone: Iterable[Stats]) -> dict[str, dict[str, str]]:
    """An earlier system's view: {target: {http, tcp, ws, last_change}}, words connected|disconnected|unknown."""
    words = {"up": "connected", "unknown": "unknown"}
    view: dict[str, dict[str, str]] = {}
    changed: dict[str, float] = {}
    for stats in everyone:
        target = view.setdefault(stats.spec.target, {"ws": "unknown", "tcp": "unknown", "http": "unknown"})
        word = words.get(stats.now_state, "disconnected")
        if word == "disconnected" or target[stats.spec.protocol] == "unknown":  # several paths: the worst is told
            target[stats.spec.protocol] = word
        changed[stats.spec.target] = max(changed.get(stats.spec.target, 0.0), stats.since)
    for name, target in view.items():
        target["last_change"] = iso(changed[name])
    return view


def status(everyone: Iterable[Stats]) -> list[dict[str, Any]]:
    """One dictionary for each stream: what it is, its state and since when, and its sums."""
    now = monotonic()
    return [_of(stats, now) for stats in everyone]


def _of(stats: Stats, now: float) -> dict[str, Any]:
    spec = stats.spec
    event = stats.current(now)
    return {
        "stream": spec.key,
        "source": spec.source,
        "target": spec.target,
        "path": spec.path,
        "protocol": spec.protocol,
        "family": spec.family,
        "state": stats.now_state,
        "since": iso(stats.since),
        "cause": stats.cause,
        "observed": stats.watching(now),
        "coverage": {
            "last_15m": _rounded(stats.coverage(now)),
            "since_start": _rounded(stats.coverage_since(now)),
        },
        "slow": stats.slow,
        "last_success": iso(stats.last_success) if stats.last_success else None,
        "reached_since": iso(stats.reached) if stats.reached else None,
        "round_trip_seconds": round(stats.round_trip, 6) if stats.last_success else None,
        "probes": stats.probes,
        "outages": stats.outages,
        "outage_seconds": round(stats.outage_seconds, 6),
        "observed_seconds": round(stats.observed_seconds, 3),
        "connection_breaks": stats.breaks,
        "peer_frozen_seconds": round(stats.frozen_seconds, 6),
        "peer": stats.peer,
        "open": None if event is None else stats.item(event, 0, state="open"),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else math.floor(share * 1e6) / 1e6  # never up: all is all
