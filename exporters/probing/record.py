"""Outcomes and events -> metrics, status and history. The streams write into it, scrapes and pages read from it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import uuid
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from threading import Lock
from time import monotonic, time
from typing import Any, NamedTuple

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from exporters import catalog
from exporters.api import KEY, fits
from exporters.exposition import Labels, Table
from exporters.gentle import lots
from exporters.identity import Identity
from exporters.journal import SAVE_SECONDS, Journal, Row
from exporters.probing.egress import Addresses
from exporters.probing.offset import Offset
from exporters.probing.outage import Counted, Event, Finished, Opened
from exporters.probing.protocols import CAUSES
from exporters.probing.throttling import Throttling
from exporters.settings import Stream as Spec
from exporters.times import seconds

UNKNOWN = ("descriptors", "memory", "ports", "socket", "shutdown", "suspended")
SKIPPED = ("late", "unresolved")
# Why the exporter as a whole did not observe; no second is in two of them. A stream that cannot be probed by itself (no
# address yet, no descriptor left) lowers its own coverage.
GAPS = ("stall", "throttled", "suspended", "restart")
LOT = 25  # streams: a fifth of a millisecond
LISTED = 1.0  # seconds; a shorter gap is counted and not listed
ALIVE = 1.0  # seconds after the last tick in which streams may pass for observed
MARK_SECONDS = 10.0
MARKS = 90  # of them is the window of coverage
COVERAGE_WINDOW = MARKS * MARK_SECONDS
CLEARED = "json_extract(item, '$.cause') = 'cleared'"  # of a window: it is where somebody cleared, and has no length
MOST_NODES = 10_000  # whose boots are remembered
MOST_BOOTS = 32  # of one node

log = logging.getLogger(__name__)


class Histogram:
    """Counts by bucket; an observation costs a bisection and two additions."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """(cumulative counts by upper edge, sum of the values), as prometheus_client wants them."""
        total = 0
        cumulated: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            cumulated.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
        return cumulated, self._sum

    def saved(self) -> list[float]:
        """What `resume` takes."""
        return [self._sum, *self._counts]

    def resume(self, saved: Sequence[float]) -> None:
        """Go on from there, unless the buckets are others now."""
        if len(saved) == 1 + len(self._counts):
            self._sum = max(self._sum, saved[0])
            self._counts = [max(int(then), now) for then, now in zip(saved[1:], self._counts, strict=True)]


class Last(NamedTuple):
    """A stream's last outage: bounds and estimate in seconds; start and end in Unix time."""

    lower: float
    estimate: float
    upper: float
    start: float
    end: float


class SavedStream(msgspec.Struct, array_like=True):
    """A stream's counters, in the order of COUNTERS, and by id what of it was open; `entered`: its last entry's seq."""

    counters: list[float]
    last: Last | None = None
    events: dict[str, SavedEvent] = {}
    entered: int = 0


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


@dataclass(slots=True)
class Shape:
    """What all streams of one path and protocol share: these metrics carry no target."""

    durations: Histogram
    outages: Histogram
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    unknown: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNKNOWN, 0))


@dataclass(slots=True, eq=False)
class Stats:
    """What is known of one stream. Its stream calls the methods; times are monotonic seconds unless said otherwise."""

    spec: Spec
    record: Record
    shape: Shape
    serial: int  # of all streams this record ever had, which number this one is
    probes: int = 0
    outages: int = 0
    outage_seconds: float = 0.0
    lower_seconds: float = 0.0
    upper_seconds: float = 0.0
    observed_seconds: float = 0.0
    breaks: int = 0
    break_seconds: float = 0.0
    frozen: int = 0
    frozen_seconds: float = 0.0
    slow: bool = False
    deadline: float = 0.0  # seconds after which an answer was late, where it is slow
    decided: float = 0.0
    last_success: float = 0.0  # Unix time
    round_trip: float = 0.0
    cause: str = ""
    now_state: str = "unknown"
    since: float = field(default_factory=time)  # Unix time
    peer: dict[str, str] = field(default_factory=dict)
    unfinished: Callable[[float], list[Event]] = lambda _now: []
    last_outage: Last | None = None
    left_open: dict[str, SavedEvent] = field(default_factory=dict)  # by the process before us
    entered: int = -1  # the `seq` of our last entry in the history; of the process before us, until we have one
    # Of each event that is not finished: the peer before it, and wall minus monotonic clock when it began. An event may
    # begin while the one before it still waits for its kind.
    _begun: dict[int, tuple[dict[str, str], float]] = field(default_factory=dict)
    _counted: dict[int, float] = field(default_factory=dict)  # seconds of each of these that are in our counters
    # For the coverage: when it began and when it was cleared last, and what was observed by then (Record.clock); what
    # was observed by each mark, round and round.
    _began: tuple[float, float] | None = None
    _cleared: tuple[float, float] | None = None
    _stalled: float = math.inf  # of our stalls, the seconds that were taken off what is observed
    _missed: int = 0  # grid points since
    _marks: array[float] = field(default_factory=lambda: array("d"))
    offset: Offset = field(default_factory=Offset)  # of the peer's clock
    _labels: Labels | None = None
    _ends: tuple[str, str, Labels] | None = None

    def scheduled(self, lag: float, missed: int) -> None:
        self.record.lag.observe(max(lag, 0.0))
        if missed:
            self.record.skipped["late"] += missed
            self._missed += missed

    def unresolved(self) -> None:
        """A grid point came, and the first look-up of the name is still under way."""
        self.record.skipped["unresolved"] += 1

    def begin(self, now: float) -> None:
        """It is probed from now on."""
        if self._began is None:
            self._began = self.record.clock(now), self.observed_seconds
            self._stalled = self.record.stall_seconds
            self._marks = array("d", [math.nan]) * (MARKS + 1)

    @property
    def began(self) -> tuple[float, float] | None:
        """When (Record.clock) it began to be probed, and the seconds that were observed by then."""
        return self._began

    def mark(self, number: int) -> None:
        """Remember how much was observed by the mark of that number."""
        if self._began is not None:
            self._marks[number % (MARKS + 1)] = self.observed_seconds

    def clear(self, now: float) -> None:
        if self._began is not None:
            self._cleared = self.record.clock(now), self.observed_seconds

    def coverage(self, now: float) -> float | None:
        """The share of the last COVERAGE_WINDOW that was observed, or of the time since it began; None: too early."""
        if self._began is None:
            return None
        at, number = self.record.oldest_mark
        if at <= self._began[0] or math.isnan(before := self._marks[number % (MARKS + 1)]):
            return self._share(self._began, now)
        return self._share((at, before), now)

    def coverage_since(self, now: float) -> float | None:
        """The same of all the time since it began or the history was cleared."""
        since = self._cleared or self._began
        return None if since is None else self._share(since, now)

    def _share(self, since: tuple[float, float], now: float) -> float | None:
        # The first point may come an interval after the beginning, and the last ones are not decided yet.
        length = self.record.clock(now) - since[0] - self.spec.interval - self.spec.prompt
        return None if length <= 0 else min(max(self.observed_seconds - since[1], 0.0) / length, 1.0)

    def observed(self, now: float, seconds: float) -> None:
        """The outcome of a grid point was decided, which stands for so many seconds less what we stalled in them."""
        self.decided = now
        stalled = self.record.stall_seconds
        if stalled > self._stalled:
            # Points that were missed are not observed anyhow; no point can stand for less than nothing.
            seconds -= min(max(stalled - self._stalled - self._missed * seconds, 0.0), seconds)
            self._stalled = stalled
            self._missed = 0
        self.observed_seconds += seconds

    def failed(self, cause: str) -> None:
        self.cause = cause
        self.shape.failures[cause] += 1

    def unknown(self, reason: str, probes: int) -> None:
        self.shape.unknown[reason] += probes

    def succeeded(self, wall: float, round_trip: float, peer: dict[str, str], told: float = 0.0) -> None:
        """A prompt answer came at `wall`: what the peer says of itself, and what its clock `told` (0.0: nothing)."""
        if peer and peer is not self.peer:  # else it said the same as in its last answer
            self.record.met(self, peer, wall)
            self.peer = peer
        if told and peer:
            moved = self.offset.read(wall, round_trip, told, peer.get("instance", ""))
            if moved:
                log.warning("the clock of %s was set by %+.3f s, or ours was", self.spec.target, moved)
        self.last_success = wall
        self.round_trip = round_trip
        self.shape.durations.observe(round_trip)

    def state(self, word: str) -> None:
        """unknown, up, down or frozen."""
        if word != self.now_state:
            self.now_state = word
            self.since = time()
            if word == "up":
                self.cause = ""

    def opened(self, change: Opened, unfinished: Callable[[float], list[Event]]) -> None:
        """An event began; `unfinished` tells of it, at any time, as it stands then."""
        with self.record.changing:
            self.unfinished = unfinished
            self._begun[change.number] = self.peer, time() - monotonic()
            self._counted[change.number] = 0.0
            self.record.put(self, change.number, None)

    def counted(self, change: Counted) -> None:
        with self.record.changing:
            self._add(change.ledger, change.seconds)
            self._counted[max(self._counted)] += change.seconds  # only the newest can be failing still

    def finished(self, change: Finished, *, stall_overlap: bool) -> None:
        with self.record.changing:
            self._finish(change, stall_overlap=stall_overlap)

    def _finish(self, change: Finished, *, stall_overlap: bool) -> None:
        event = change.event
        del self._counted[event.number]
        self._add(change.ledger, change.seconds)
        if change.ledger == "path":
            self.outages += 1
            self.lower_seconds += event.lower
            self.upper_seconds += event.upper
            self.shape.outages.observe(event.estimate)
            begin = (event.start_earliest + event.start_latest) / 2 + self._begun[event.number][1]
            self.last_outage = Last(event.lower, event.estimate, event.upper, begin, begin + event.estimate)
        elif change.ledger == "peer":
            self.frozen += 1
        else:
            self.breaks += 1
        self.record.put(self, event.number, event, stall_overlap=stall_overlap)
        del self._begun[event.number]

    def saved(self) -> SavedStream:
        """What `resume` takes."""
        counters = [getattr(self, name) for name in COUNTERS]
        return SavedStream(counters, self.last_outage, dict(self._open_events()), max(self.entered, 0))

    def resume(self, saved: SavedStream) -> None:
        """Go on from there: what happened since then, by our count, is in it."""
        if len(saved.counters) != len(COUNTERS):
            return
        for name, then in zip(COUNTERS, saved.counters, strict=True):
            now = getattr(self, name)
            setattr(self, name, max(type(now)(then), now))
        if saved.entered > self.entered:  # else an account that we have is later
            self.entered, self.left_open = saved.entered, saved.events
        if saved.last and (self.last_outage is None or saved.last.start >= self.last_outage.start):
            self.last_outage = saved.last

    def _open_events(self) -> Iterator[tuple[str, SavedEvent]]:
        """What our counters do not have whole, by id."""
        if not self._counted:
            return
        now = {event.number: event for event in self.unfinished(monotonic())}
        for number, counted in self._counted.items():
            event = now.get(number)
            bounds = () if event is None else (event.kind, event.lower, event.estimate)
            yield self.event_id(number), SavedEvent(counted, *bounds)

    @property
    def labels(self) -> Labels:
        """Those of all its series."""
        if self._labels is None:
            self._labels = Labels(_labels(self.spec))
        return self._labels

    def ends(self, ours: Identity) -> Labels:
        """These, and where the stream begins and ends, as far as that is known."""
        node = self.spec.target_node or self.peer.get("node", "")
        zone = self.spec.target_zone or self.peer.get("zone", "")
        if self._ends is None or self._ends[:2] != (node, zone):
            nodes = {"source_node": ours.node, "target_node": node, "source_zone": ours.zone, "target_zone": zone}
            self._ends = node, zone, Labels({**_labels(self.spec), **nodes})
        return self._ends[2]

    def event_id(self, number: int) -> str:
        record = self.record
        return f"{record.journal_id[:8]}-{record.run}-{self.serial}-{number}"

    def truncated(self, item: Mapping[str, Any], counted: float) -> None:
        """The process before us ended while this was open: what is known of it counts."""
        length = item["duration"]
        ledger = {"frozen": "peer", "break": "flow"}.get(item["kind"], "path")
        self._add(ledger, max(0.0, length["estimate"] - counted))
        if ledger == "path":
            self.outages += 1
            self.lower_seconds += length["lower"]
            self.upper_seconds += length["upper"]
        elif ledger == "peer":
            self.frozen += 1
        else:
            self.breaks += 1

    def cut(self, slept: float) -> None:
        """We slept for so long: what is open may have ended in it, and nothing is known of the target now."""
        for event in self.unfinished(monotonic()):
            event = replace(event, upper=event.upper + slept)  # noqa: PLW2901 - the same one, as it is known now
            lengths = {"lower": event.lower, "estimate": event.estimate, "upper": event.upper}
            self.truncated({"kind": event.kind, "duration": lengths}, self._counted[event.number])
            self.record.put(self, event.number, event, state="truncated", stall_overlap=True)
        self.unfinished = lambda _now: []
        self._begun.clear()
        self.serial = self.record.next_serial()  # the numbers of events begin anew
        self.state("unknown")

    def _add(self, ledger: str, seconds: float) -> None:
        if ledger == "path":
            self.outage_seconds += seconds
        elif ledger == "peer":
            self.frozen_seconds += seconds
        else:
            self.break_seconds += seconds

    def current(self, now: float) -> Event | None:
        """The open event as it stands, if there is one."""
        return next((event for event in self.unfinished(now) if event.end_latest is None), None)

    def troubled(self) -> bool:
        """Is any event of it not finished?"""
        return bool(self._begun)

    def seen(self) -> bool:
        return self.now_state != "unknown"

    def watching(self, now: float) -> bool:
        """Was a grid point decided as lately as it should have been, and are we not stuck?"""
        if now - self.record.ticked() > ALIVE:
            return False
        return bool(self.decided) and now - self.decided < 3 * self.spec.interval + 1.0

    def item(self, event: Event, seq: int, *, state: str, stall_overlap: bool = False) -> dict[str, Any]:
        """One entry of the history, with an earlier system's fields and ours.

        state: open (until its kind is known), closed, or truncated (the stream ended before the event did).
        """
        before, offset = self._begun[event.number]
        spec = self.spec
        is_open = state != "closed"
        begin = (event.start_earliest + event.start_latest) / 2 + offset
        end_offset = time() - monotonic()
        return {
            "seq": seq,
            "id": self.event_id(event.number),
            "kind": event.kind,
            "state": state,
            "stream": spec.key,
            "name": spec.shown or spec.target,
            "protocol": spec.protocol.upper(),
            "source": self.record.reported_as,
            "reporter": self.record.identity.pod,
            "start_time": iso(begin),
            "end_time": None if is_open else iso(begin + event.estimate),
            "duration_sec": round(event.estimate, 2),
            "start": {"earliest": iso(event.start_earliest + offset), "latest": iso(event.start_latest + offset)},
            "end": {
                "earliest": None if is_open else iso(event.end_earliest + end_offset),
                "latest": None if event.end_latest is None else iso(event.end_latest + end_offset),
            },
            "duration": {
                "lower": round(event.lower, 6),
                "estimate": round(event.estimate, 6),
                "upper": round(event.upper, 6),
            },
            "cause": event.cause,
            "causes": event.causes,
            "before": before,
            "after": {} if is_open else self.peer,
            "unconfirmed": event.unconfirmed,
            "stall_overlap": stall_overlap,
            "mono": {
                "start_earliest": event.start_earliest,
                "start_latest": event.start_latest,
                "end_earliest": event.end_earliest,
                "end_latest": event.end_latest,
                "detected": event.detected,
            },
        }


class Entry(NamedTuple):
    """A line of the history; item is None while the event is open. (A window that is open has one all the same.)"""

    seq: int
    number: int
    stats: Stats | None  # None: of an earlier run
    item: dict[str, Any] | None

    @property
    def over(self) -> bool:
        return self.item is not None and self.item["state"] != "open"


def _open(stats: Stats, number: int, now: float) -> list[Event]:
    """The event of that number as it stands, if it is not finished."""
    return [event for event in stats.unfinished(now) if event.number == number]


def _saved(journal: Journal) -> Saved | None:
    """The counters as they were saved last; None if there are none, or none that we can read."""
    saved = journal.saved()
    if saved is None:
        return None
    try:
        return msgspec.msgpack.decode(saved.value, type=Saved)
    except msgspec.DecodeError as error:
        log.warning("journal %s: the counters begin at 0: %s", journal.path, error)
        return None


def iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds")


class Record:
    """All streams of one exporter. `reported_as` is what an earlier system's `source` field says: pod or bastion."""

    def __init__(
        self,
        streams: Sequence[Spec],
        identity: Identity,
        max_history: int = 200,
        reported_as: str = "pod",
        journal: Journal | None = None,
    ) -> None:
        self.identity = identity
        self.self_source = identity.source
        self.reported_as = reported_as
        self.journal = journal
        self.journal_id = journal.id if journal else uuid.uuid4().hex
        self.run = journal.run if journal else 1
        self.max_history = max_history
        self.catalog = catalog.exported()
        self.lag = self._histogram("ovnwatch_schedule_lag_seconds")
        self.skipped = dict.fromkeys(SKIPPED, 0)
        self.gaps = dict.fromkeys(GAPS, 0.0)
        self.stall_seconds = 0.0
        self.throttling: Throttling | None = None
        self.ticked: Callable[[], float] = monotonic  # when the loop of the streams was alive last
        self._slept = 0.0  # seconds, of this run
        self._marked = (0.0,) * (MARKS + 1)
        self._mark = 0  # number of the last one
        self._boots: dict[str, list[str]] = {}  # that each node told
        self._seen: dict[str, Addresses] = {}  # by key, of streams whose address outside has changed
        self._shapes: dict[tuple[str, str], Shape] = {}
        self._seq = journal.seq if journal else 0
        self._items: OrderedDict[str, Entry] = OrderedDict()  # by id
        self._over: OrderedDict[str, None] = OrderedDict()  # ids of those that are
        self._cleared = 0
        self.cleared_at = 0.0
        self._added = 0
        self.stats: dict[str, Stats] = {}
        self.changing = Lock()  # held while an event and the counters change, so that both are saved as of one moment
        self._saved = _saved(journal) if journal else None
        self.beside = self._saved.beside if self._saved else b""  # saved with the counters, and there after a restart
        for spec in streams:
            self.add(spec)
        if journal:
            journal.snapshot = self.snapshot
            self._resume(journal)

    def _histogram(self, name: str) -> Histogram:
        return Histogram(self.catalog.metric(name).buckets)

    def add(self, spec: Spec) -> None:
        """A stream is probed from now on; its series begin."""
        serial = self.next_serial()
        shape = self._shapes.get((spec.path, spec.protocol))
        if shape is None:
            shape = Shape(
                self._histogram("ovnwatch_probe_duration_seconds"), self._histogram("ovnwatch_outage_duration_seconds")
            )
            self._shapes[spec.path, spec.protocol] = shape
        stats = self.stats[spec.key] = Stats(spec, self, shape, serial)
        if self._saved and spec.key in self._saved.streams:
            stats.resume(self._saved.streams.pop(spec.key))

    def next_serial(self) -> int:
        self._added += 1
        return self._added

    # -- what we did not observe

    def stalled(self, seconds: float) -> None:
        """We did not run for so long; as far as our cgroup was throttled meanwhile, that is why."""
        throttled = min(self.throttling.grown(), seconds) if self.throttling else 0.0
        self.stall_seconds += seconds
        self.gaps["throttled"] += throttled
        self.gaps["stall"] += seconds - throttled
        reason = "throttled" if throttled > seconds / 2 else "stall"
        if seconds > LISTED:
            log.warning("did not run for %.1f s (%s); nothing was observed meanwhile", seconds, reason)
        self._gap_until_now(reason, seconds)

    def suspended(self, seconds: float) -> None:
        """The machine slept for so long, which the monotonic clock does not know."""
        self._slept += seconds
        self.gaps["suspended"] += seconds
        self._gap_until_now("suspended", seconds)

    def _gap_until_now(self, reason: str, seconds: float) -> None:
        if seconds > LISTED:
            now = time()
            self.gap(reason, now - seconds, now)

    def gap(self, reason: str, start: float, end: float, spec: Spec | None = None, slack: float = 0.0) -> None:
        """List a gap, in Unix times; of one target if `spec` is given, else of all that we observe.

        slack: it may have begun by so many seconds later.
        """
        self._seq += 1
        item = self._own_item("gap", reason, start, end, self._seq)
        if slack:
            item["start"]["latest"] = iso(start + slack)
            item["duration"]["lower"] = round(end - start - slack, 6)
        if spec is not None:
            item |= {"stream": spec.key, "name": spec.shown or spec.target}
        self._enter(Entry(self._seq, 0, None, item), item["id"])
        if self.journal is not None:
            self._write(item)

    def met(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None:
        """A peer answered that is another one than before, or says other things of itself or us: did its node boot?

        By an egress it tells which address we have outside; on other paths that is nobody's to watch.
        """
        if stats.spec.path == "egress":
            self._seen_as(stats, peer, wall)
        node, boot = peer.get("node") or peer.get("source", ""), peer.get("boot_id", "")
        if not node or not boot:
            return
        known = self._boots.get(node)
        if known is None:
            if len(self._boots) < MOST_NODES:
                self._boots[node] = [boot]
        elif boot not in known and len(known) < MOST_BOOTS:  # two nodes of one name would boot for ever
            known.append(boot)
            before = stats.peer.get("node") or stats.peer.get("source", "")
            start = stats.last_success if before == node else wall
            self.gap("peer_reboot", min(start, wall), wall, stats.spec)

    def _seen_as(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None:
        before, after = stats.peer.get("address", ""), peer.get("address", "")
        if before and after and before != after:
            seen = self._seen.setdefault(stats.spec.key, Addresses())
            if seen.change(before, after, stats.last_success, wall):
                self._target_change(stats, peer, wall)

    def _target_change(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None:
        """List a moment: after the last answer of the old, before the first of the new."""
        self._seq += 1
        spec = stats.spec
        item = self._own_item("target_change", "address", wall, wall, self._seq)
        item["start"]["earliest"] = iso(min(stats.last_success, wall))
        item |= {"stream": spec.key, "name": spec.shown or spec.target, "protocol": spec.protocol}
        item |= {"before": dict(stats.peer), "after": dict(peer)}
        self._enter(Entry(self._seq, 0, None, item), item["id"])
        if self.journal is not None:
            self._write(item)

    # -- coverage

    def clock(self, now: float) -> float:
        """Monotonic time, and what we slept: time that passed for those whom we should observe."""
        return now + self._slept

    @property
    def oldest_mark(self) -> tuple[float, int]:
        """When (see `clock`) the oldest mark of the window was made, and its number; the time is 0 if there is none."""
        number = self._mark - MARKS + 1
        return self._marked[number % (MARKS + 1)] if number > 0 else 0.0, number

    def mark(self, now: float) -> None:
        """Every MARK_SECONDS, from whatever thread: remember what was observed by now. Sooner calls do nothing."""
        at, number = self.clock(now), self._mark + 1
        if self._mark and at - self._marked[self._mark % (MARKS + 1)] < MARK_SECONDS:
            return
        for stats in list(self.stats.values()):
            stats.mark(number)
        self._marked = tuple(at if place == number % (MARKS + 1) else was for place, was in enumerate(self._marked))
        self._mark = number

    def remove(self, key: str) -> None:
        """A stream is probed no longer; its series end. What it saw stays in the history, what is open as truncated."""
        self._seen.pop(key, None)
        stats = self.stats.pop(key, None)
        if stats is not None:
            for event in stats.unfinished(monotonic()):
                self.put(stats, event.number, event, state="truncated")

    # -- history

    @property
    def seq(self) -> int:
        """Of the newest change."""
        return self._seq

    @property
    def served(self) -> int:
        """Changes up to this `seq` may be told: the journal has them, or has trouble."""
        return self._seq if self.journal is None else self.journal.served

    def put(
        self,
        stats: Stats,
        number: int,
        event: Event | None,
        *,
        state: str = "closed",
        stall_overlap: bool = False,
    ) -> None:
        """Enter an event, or what became of it; each change gets the next `seq`. None: it is open, ask the stream."""
        self._seq += 1
        now = monotonic()
        stats.entered = self._seq
        item = stats.item(event, self._seq, state=state, stall_overlap=stall_overlap) if event is not None else None
        self._enter(Entry(self._seq, number, stats, item), stats.event_id(number))
        if self.journal is not None:
            as_it_stands = (stats.item(each, self._seq, state="open") for each in _open(stats, number, now))
            known = item or next(as_it_stands, None)
            if known is not None:
                self._write(known, Totals(stats.saved(), stats.shape.outages.saved()))

    def _enter(self, entry: Entry, key: str) -> None:
        self._items.pop(key, None)
        self._items[key] = entry
        self._over.pop(key, None)
        if entry.over:
            self._over[key] = None
        while len(self._items) > self.max_history:
            # What is over goes before what is open, the oldest first.
            if self._over:
                del self._items[self._over.popitem(last=False)[0]]
            else:
                self._items.popitem(last=False)

    def _write(self, item: dict[str, Any], totals: Totals | None = None) -> None:
        assert self.journal is not None
        parts = item["stream"].split("|")
        target, path = parts[1:3] if len(parts) == len(KEY) else ("", "")
        text, packed = json.dumps(item), msgspec.msgpack.encode(totals) if totals else b""
        place = (item["stream"], target, path)
        self.journal.put(Row(item["seq"], item["id"], item["kind"], item["state"], *place, time(), text, packed))

    def history(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        """Entries changed after `since`, the oldest change first, at most `limit`; open ones as they stand now.

        Of what is over only the newest `max_history` are known here, and none that the journal does not have yet.
        """
        now, served = monotonic(), self.served
        found: list[dict[str, Any]] = []
        for entry in self._items.values():
            if not since < entry.seq <= served or (entry.over and entry.seq <= self._cleared):
                continue
            if len(found) == limit:
                break
            if entry.item is not None:
                found.append(entry.item)
            elif entry.stats is not None:
                stats = entry.stats
                found += [stats.item(each, entry.seq, state="open") for each in _open(stats, entry.number, now)]
        return found

    async def find(self, since: int, limit: int, wanted: Mapping[str, str], *, cleared: bool) -> list[tuple[int, str]]:
        """(seq, JSON) of entries as `history` gives them, but of all there ever were; `cleared` ones only if asked for.

        `wanted`: values of kind, state, target and path that they must have.
        """
        if self.journal is None:
            items = [item for item in self.history(since, self.max_history) if fits(item, wanted)]
            return [(item["seq"], json.dumps(item)) for item in items[:limit]]
        found = await self.journal.find(since, limit, wanted, 0 if cleared else self._cleared)
        live = {item["id"]: item for item in self.history() if item["state"] == "open"} if found else {}
        return [(seq, json.dumps(live[key]) if key in live else text) for seq, key, text in found]

    def note(self, kind: str, cause: str, start: float, end: float, more: Mapping[str, Any]) -> dict[str, Any]:
        """Enter a window or a note that somebody made, in Unix times; `more` is what else its item says.

        With the `id` of an earlier one it is what became of that.
        """
        self._seq += 1
        item = {**self._own_item(kind, cause, start, end, self._seq), **more}
        self._enter(Entry(self._seq, 0, None, item), item["id"])
        if self.journal is not None:
            self._write(item)
        return item

    def clear(self, now: float) -> dict[str, Any]:
        """Set a marker at `now` (Unix time): what ended before is listed no longer. It stays, and so do the numbers.

        Returns its item, which only the journal lists.
        """
        self.cleared_at = now
        self._cleared = self._seq
        for stats in self.stats.values():
            stats.clear(monotonic())
        self._seq += 1
        marker = self._own_item("window", "cleared", now, now, self._seq)
        if self.journal is not None:
            self._write(marker)
        return marker

    # -- over restarts

    async def save(self) -> None:
        """Wait until everything that was told so far is in the journal."""
        if self.journal is not None:
            await self.journal.save()

    async def save_now_and_then(self) -> None:
        """For ever: so that the journal says when we were last alive."""
        while True:
            await self.save()
            await asyncio.sleep(SAVE_SECONDS)

    def snapshot(self) -> bytes:
        """All counters, packed; may be asked from another thread."""
        streams = {}
        for lot in lots(list(self.stats.items()), LOT):
            for key, stats in lot:
                streams[key] = self._saved_stream(stats)
        saved = Saved(
            streams,
            [
                SavedShape(
                    path,
                    protocol,
                    shape.durations.saved(),
                    shape.outages.saved(),
                    dict(shape.failures),
                    dict(shape.unknown),
                )
                for (path, protocol), shape in list(self._shapes.items())
            ],
            self.lag.saved(),
            dict(self.skipped),
            dict(self.gaps),
            self.stall_seconds,
            self.beside,
        )
        return msgspec.msgpack.encode(saved)

    def _saved_stream(self, stats: Stats) -> SavedStream:
        with self.changing:
            return stats.saved()

    def _resume(self, journal: Journal) -> None:
        """Go on where the process before us ended: its counters, its history, and what it left open."""
        before = journal.saved()
        if self._saved is not None:
            self._resume_shared(self._saved)
        since = before.seq if before else 0
        for row in journal.rows("seq > ? AND length(totals) > 0", (since,)):
            self._add_totals(row)
        for row in journal.rows(f"kind = 'window' AND {CLEARED}", newest=1):
            self._cleared, self.cleared_at = row.seq, row.at
        marks = journal.rows(f"kind IN ('window', 'phase') AND state = 'open' AND NOT {CLEARED}")
        over = journal.rows(f"state <> 'open' AND NOT (kind = 'window' AND {CLEARED})", newest=self.max_history)
        for row in sorted([*marks, *over]):
            self._enter(Entry(row.seq, 0, None, json.loads(row.item)), row.id)
        now = time()
        for row in journal.rows("state = 'open' AND kind NOT IN ('window', 'phase')"):
            self._truncate(row, now)
        alive = before.at if before else max((row.at for row in journal.rows(newest=1)), default=now)
        for row in journal.rows("seq > ? AND kind = 'gap'", (since,)):  # told by a process that ended before it saved
            item = json.loads(row.item)
            if item["cause"] in self.gaps:  # else it is one of a peer
                self.gaps[item["cause"]] += item["duration"]["estimate"]
            alive = max(alive, row.at)
        if now > alive:
            self.gaps["restart"] += round(now - alive, 6)
            self.gap("restart", alive, now, slack=min(SAVE_SECONDS, now - alive))

    def _resume_shared(self, saved: Saved) -> None:
        self.lag.resume(saved.lag)
        self.stall_seconds = saved.stall_seconds
        self.skipped |= {key: count for key, count in saved.skipped.items() if key in self.skipped}
        self.gaps |= {key: length for key, length in saved.gaps.items() if key in self.gaps}
        for each in saved.shapes:
            shape = self._shapes.get((each.path, each.protocol))
            if shape is not None:
                shape.durations.resume(each.durations)
                shape.outages.resume(each.outages)
                shape.failures.update({key: count for key, count in each.failures.items() if key in shape.failures})
                shape.unknown.update({key: count for key, count in each.unknown.items() if key in shape.unknown})

    def _add_totals(self, row: Row) -> None:
        """What happened after the counters were saved last."""
        stats = self.stats.get(row.stream)
        if stats is None:
            return
        try:
            totals = msgspec.msgpack.decode(row.totals, type=Totals)
        except msgspec.DecodeError:
            return
        stats.resume(totals.stream)
        stats.shape.outages.resume(totals.outages)

    def _truncate(self, row: Row, now: float) -> None:
        """End an event that was open when the process before us ended; it may have lasted until now."""
        self._seq += 1
        item, stats = json.loads(row.item), self.stats.get(row.stream)
        known = stats.left_open.get(row.id) if stats else None
        length = item["duration"]
        if known is not None and known.kind:
            item["kind"] = known.kind
            length |= {"lower": round(known.lower, 6), "estimate": round(known.estimate, 6)}
        if known is not None:  # counted seconds never move
            length["estimate"] = max(length["estimate"], known.counted)
        length["upper"] = max(round(now - seconds(item["start"]["earliest"]), 6), length["estimate"])
        item |= {"seq": self._seq, "state": "truncated", "duration_sec": round(length["estimate"], 2)}
        self._enter(Entry(self._seq, 0, None, item), row.id)
        if stats is None:
            self._write(item)
            return
        stats.entered = self._seq
        stats.truncated(item, known.counted if known else 0.0)
        self._write(item, Totals(stats.saved(), stats.shape.outages.saved()))

    def _own_item(self, kind: str, cause: str, start: float, end: float, seq: int) -> dict[str, Any]:
        """An entry about ourselves, of the same form as all; times are Unix times."""
        length = round(end - start, 6)
        return {
            "seq": seq,
            "id": f"{self.journal_id[:8]}-{self.run}-0-{seq}",
            "kind": kind,
            "state": "closed",
            "stream": "",
            "name": self.self_source,
            "protocol": "",
            "source": self.reported_as,
            "reporter": self.identity.pod,
            "start_time": iso(start),
            "end_time": iso(end),
            "duration_sec": round(length, 2),
            "start": {"earliest": iso(start), "latest": iso(start)},
            "end": {"earliest": iso(end), "latest": iso(end)},
            "duration": {"lower": length, "estimate": length, "upper": length},
            "cause": cause,
            "causes": {},
            "before": {},
            "after": {},
            "unconfirmed": False,
            "stall_overlap": False,
        }

    # -- status

    def connections(self) -> dict[str, dict[str, str]]:
        """An earlier system's view: {target: {http, tcp, ws, last_change}}, words connected|disconnected|unknown."""
        words = {"up": "connected", "unknown": "unknown"}
        view: dict[str, dict[str, str]] = {}
        changed: dict[str, float] = {}
        for stats in self.stats.values():
            target = view.setdefault(stats.spec.target, {"ws": "unknown", "tcp": "unknown", "http": "unknown"})
            word = words.get(stats.now_state, "disconnected")
            if word == "disconnected" or target[stats.spec.protocol] == "unknown":  # several paths: the worst is told
                target[stats.spec.protocol] = word
            changed[stats.spec.target] = max(changed.get(stats.spec.target, 0.0), stats.since)
        for name, target in view.items():
            target["last_change"] = iso(changed[name])
        return view

    def status(self) -> list[dict[str, Any]]:
        """One dictionary for each stream: what it is, its state and since when, and its sums."""
        now = monotonic()
        return [self._status(stats, now) for stats in self.stats.values()]

    def _status(self, stats: Stats, now: float) -> dict[str, Any]:
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

    # -- metrics

    def collect(self) -> Iterator[Metric]:
        """All families; safe to call from another thread (counts may be a probe apart from each other)."""
        now = monotonic()
        everyone = list(self.stats.values())
        events = {stats.spec.key: stats.current(now) for stats in everyone if stats.troubled()}
        for name, read in PER_STREAM.items():
            metric = self.catalog.metric(name)
            yield Table(name, metric.help, metric.kind, partial(_rows, everyone, read, events, now))
        yield self._info(everyone)
        yield from self._clocks(everyone)
        yield from self._by_shape()
        yield from self._of_ourselves()

    def _family(self, name: str) -> CounterMetricFamily | GaugeMetricFamily:
        metric = self.catalog.metric(name)
        if metric.kind == "counter":
            return CounterMetricFamily(name, metric.help, labels=metric.labels)
        return GaugeMetricFamily(name, metric.help, labels=metric.labels)

    def _info(self, everyone: Sequence[Stats]) -> Metric:
        metric = self.catalog.metric("ovnwatch_stream_info")
        ours = self.identity
        return Table(
            "ovnwatch_stream_info", metric.help, "info", lambda: ((stats.ends(ours), 1.0) for stats in everyone)
        )

    def _by_shape(self) -> Iterator[Metric]:
        failures = self._family("ovnwatch_probe_failures_total")
        unknown = self._family("ovnwatch_probe_unknown_total")
        tables: dict[str, HistogramMetricFamily] = {}
        for name in ("ovnwatch_probe_duration_seconds", "ovnwatch_outage_duration_seconds"):
            metric = self.catalog.metric(name)
            tables[name] = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for (path, protocol), shape in self._shapes.items():
            labels = [self.self_source, path, protocol]
            for cause, count in shape.failures.items():
                failures.add_metric([*labels, cause], count)
            for reason, count in shape.unknown.items():
                unknown.add_metric([*labels, reason], count)
            tables["ovnwatch_probe_duration_seconds"].add_metric(labels, *shape.durations.buckets())
            tables["ovnwatch_outage_duration_seconds"].add_metric(labels, *shape.outages.buckets())
        yield failures
        yield unknown
        yield from tables.values()

    def _clocks(self, everyone: Sequence[Stats]) -> Iterator[Metric]:
        """Of each target that tells its time, by the stream that knows best."""
        best: dict[str, Offset] = {}
        for stats in everyone:
            known = best.get(stats.spec.target)
            if stats.offset.error < (known.error if known else inf):
                best[stats.spec.target] = stats.offset
        offset = self._family("ovnwatch_clock_offset_seconds")
        error = self._family("ovnwatch_clock_offset_error_seconds")
        for target, found in best.items():
            offset.add_metric([self.self_source, target], found.seconds)
            error.add_metric([self.self_source, target], found.error)
        yield from (offset, error)

    def _of_ourselves(self) -> Iterator[Metric]:
        source = self.self_source
        skipped = self._family("ovnwatch_probes_skipped_total")
        for reason, count in self.skipped.items():
            skipped.add_metric([source, reason], count)
        gaps = self._family("ovnwatch_observation_gap_seconds_total")
        for reason, length in self.gaps.items():
            gaps.add_metric([source, reason], length)
        stalls = self._family("ovnwatch_stall_seconds_total")
        stalls.add_metric([source], self.stall_seconds)
        throttled = self._family("ovnwatch_cpu_throttled_seconds_total")
        counted = self.throttling.seconds() if self.throttling else None
        if counted is not None:
            throttled.add_metric([source], counted)
        coverage = self._family("ovnwatch_coverage_ratio")
        for path, share in self._least_coverage().items():
            coverage.add_metric([source, path], share)
        errors = self._family("ovnwatch_journal_errors_total")
        errors.add_metric([source], self.journal.errors if self.journal else 0)
        lag = self.catalog.metric("ovnwatch_schedule_lag_seconds")
        lags = HistogramMetricFamily(lag.name, lag.help, labels=lag.labels)
        lags.add_metric([source], *self.lag.buckets())
        yield from (skipped, gaps, stalls, throttled, coverage, errors, lags)

    def _least_coverage(self) -> dict[str, float]:
        """By path, of the stream that was observed least."""
        now = monotonic()
        least: dict[str, float] = {}
        for stats in list(self.stats.values()):
            share = stats.coverage(now)
            if share is not None:
                least[stats.spec.path] = min(share, least.get(stats.spec.path, 1.0))
        return least


def _rounded(share: float | None) -> float | None:
    return None if share is None else math.floor(share * 1e6) / 1e6  # never up: all is all


def _labels(spec: Spec) -> dict[str, str]:
    return {
        "source": spec.source,
        "target": spec.target,
        "path": spec.path,
        "protocol": spec.protocol,
        "family": str(spec.family),
    }


def _rows(
    everyone: Sequence[Stats], read: Reader, events: Mapping[str, Event | None], now: float
) -> Iterator[tuple[Labels, float]]:
    """A metric of every stream of which it is known."""
    for stats in everyone:
        value = read(stats, events.get(stats.spec.key) if events else None, now)
        if value is not None:
            yield stats.labels, value


Reader = Callable[[Stats, Event | None, float], float | None]


def _outage_open(stats: Stats, event: Event | None, _now: float) -> float | None:
    if not stats.seen():
        return None
    return 1.0 if event is not None and event.kind == "outage" else 0.0


def _last_outage(read: Callable[[Event | Last], float]) -> Reader:
    def value(stats: Stats, event: Event | None, _now: float) -> float | None:
        last = event if event is not None and event.kind == "outage" else stats.last_outage
        return None if last is None else read(last)

    return value


def _last_start(stats: Stats, event: Event | None, _now: float) -> float | None:
    if event is not None and event.kind == "outage":
        return (event.start_earliest + event.start_latest) / 2 + (time() - monotonic())
    return stats.last_outage.start if stats.last_outage else None


# To add a metric of a stream: an entry in metrics.yaml, and a line here. None means that nothing is known (no series).
PER_STREAM: dict[str, Reader] = {
    "ovnwatch_probes_total": lambda stats, _event, _now: stats.probes,
    "ovnwatch_stream_up": lambda stats, _event, _now: float(stats.now_state == "up") if stats.seen() else None,
    "ovnwatch_stream_observed": lambda stats, _event, now: float(stats.watching(now)),
    "ovnwatch_observed_seconds_total": lambda stats, _event, _now: stats.observed_seconds,
    "ovnwatch_path_slow": lambda stats, _event, _now: float(stats.slow),
    "ovnwatch_outages_total": lambda stats, _event, _now: stats.outages,
    "ovnwatch_outage_seconds_total": lambda stats, _event, _now: stats.outage_seconds,
    "ovnwatch_outage_seconds_lower_total": lambda stats, _event, _now: stats.lower_seconds,
    "ovnwatch_outage_seconds_upper_total": lambda stats, _event, _now: stats.upper_seconds,
    "ovnwatch_outage_open": _outage_open,
    "ovnwatch_last_outage_lower_seconds": _last_outage(lambda event: event.lower),
    "ovnwatch_last_outage_estimate_seconds": _last_outage(lambda event: event.estimate),
    "ovnwatch_last_outage_upper_seconds": _last_outage(lambda event: event.upper),
    "ovnwatch_last_outage_start_timestamp_seconds": _last_start,
    "ovnwatch_last_outage_end_timestamp_seconds": lambda stats, _event, _now: (
        stats.last_outage.end if stats.last_outage else None
    ),
    "ovnwatch_last_success_timestamp_seconds": lambda stats, _event, _now: stats.last_success or None,
    "ovnwatch_connection_breaks_total": lambda stats, _event, _now: stats.breaks,
    "ovnwatch_connection_break_seconds_total": lambda stats, _event, _now: stats.break_seconds,
    "ovnwatch_peer_frozen_total": lambda stats, _event, _now: stats.frozen,
    "ovnwatch_peer_frozen_seconds_total": lambda stats, _event, _now: stats.frozen_seconds,
}
