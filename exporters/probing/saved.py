"""What of the counters stands in the journal, packed: so that they go on where they were after a restart."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Last(NamedTuple):
    """A stream's last outage: bounds and estimate in seconds; start and end in Unix time."""

    lower: float
    estimate: float
    upper: float
    start: float
    end: float


class SavedStream(msgspec.Struct, array_like=True):
    """A stream's counters, in the order of COUNTERS, and by id what of it was open.

    `entered`: its last entry's seq; `reached`: Unix time since which its target is known to have been there; 0: never,
    or not noted.
    """

    counters: list[float]
    last: Last | None = None
    events: dict[str, SavedEvent] = {}
    entered: int = 0
    reached: float = 0.0


class SavedShape(msgspec.Struct, array_like=True):
    """What the streams of one path and protocol share."""

    path: str
    protocol: str
    durations: list[float]
    outages: list[float]
    failures: dict[str, int]
    unknown: dict[str, int]


class SavedEvent(msgspec.Struct, array_like=True):
    """An open event as it stood: the seconds of it that were counted, what it looked like and bounds, if that is known.

    It is not while the event is being finished.
    """

    counted: float
    kind: str = ""
    lower: float = 0.0
    estimate: float = 0.0


class Totals(msgspec.Struct, array_like=True):
    """What stands beside each event in the journal: the counters of its stream after it, and its shape's lengths."""

    stream: SavedStream
    outages: list[float]


class Saved(msgspec.Struct):
    """All counters of one exporter."""

    streams: dict[str, SavedStream]
    shapes: list[SavedShape]
    lag: list[float]
    skipped: dict[str, int]
    gaps: dict[str, float]
    stall_seconds: float
    beside: bytes = b""  # what whoever has the record wants kept with it
    gaps_seq: int = 0  # gaps up to this entry of the history are in `gaps`; they are taken after the streams


# Of a stream: what only ever rises, so that of two accounts the higher one is the later.
COUNTERS = (
    "probes",
    "outages",
    "outage_seconds",
    "lower_seconds",
    "upper_seconds",
    "observed_seconds",
    "breaks",
    "break_seconds",
    "frozen",
    "frozen_seconds",
    "last_success",
)
