"""What is known of one stream: its counters and state, how much of it was observed, and its events as entries."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import Any, Protocol

from exporters.exposition import Labels
from exporters.identity import Identity
from exporters.probing.histogram import Histogram
from exporters.probing.offset import Offset
from exporters.probing.outage import Counted, Event, Finished, Opened
from exporters.probing.protocols import CAUSES
from exporters.probing.saved import COUNTERS, Last, SavedEvent, SavedStream
from exporters.settings import Stream as Spec
from exporters.times import iso

UNKNOWN = ("descriptors", "memory", "ports", "socket", "shutdown", "suspended")
ALIVE = 1.0  # seconds after the last tick in which streams may pass for observed
MARK_SECONDS = 10.0
MARKS = 90  # of them is the window of coverage
COVERAGE_WINDOW = MARKS * MARK_SECONDS
SOON = 1.0  # seconds beyond an interval within which a target answers that was there when we began
LATELY = 86400.0  # seconds; a target that has not answered the process before us for longer counts as never reached

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """What a stream's stats use of the record that keeps them all."""

    identity: Identity
    reported_as: str
    journal_id: str
    run: int
    lag: Histogram
    skipped: dict[str, int]
    stall_seconds: float
    ticked: Callable[[], float]
    troubled: set[Stats]

    @property
    def oldest_mark(self) -> tuple[float, int]: ...
    def clock(self, now: float) -> float: ...
    def next_serial(self) -> int: ...
    def met(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None: ...
    def put(
        self, stats: Stats, number: int, event: Event | None, *, state: str = "closed", stall_overlap: bool = False
    ) -> None: ...


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
    record: Keeper
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
    reached: float = 0.0  # Unix time since which the target is known to have been there
    round_trip: float = 0.0
    cause: str = ""
    now_state: str = "unknown"
    since: float = field(default_factory=time)  # Unix time
    peer: dict[str, str] = field(default_factory=dict)
    unfinished: Callable[[float], list[Event]] = lambda _now: []
    last_outage: Last | None = None
    left_open: dict[str, SavedEvent] = field(default_factory=dict)  # by the process before us
    truncated_at: float = -math.inf  # monotonic: until then may have lasted what was ended without being over
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
        self.record.lag.observe(lag)
        if missed:
            self.record.skipped["late"] += missed
            self._missed += missed

    def unresolved(self) -> None:
        """A grid point came, and the first look-up of the name is still under way."""
        self.record.skipped["unresolved"] += 1

    def begin(self, now: float) -> None:
        """It is probed from now on."""
        if self._began is None:
            if time() - self.last_success > LATELY:
                self.last_success = self.reached = 0.0
            elif not self.reached:  # the process before us did not note it, and took all it observed for known
                self.reached = self.last_success - self.observed_seconds
            self._began = self.record.clock(now), self.observed_seconds
            self._stalled = self.record.stall_seconds
            self._marks = array("d", [math.nan]) * (MARKS + 1)

    def reached_before(self, now: float) -> float | None:
        """Since when (monotonic) a target may be out that answered before we were restarted or slept; None: it did not.

        Without it what is out over a restart would be as unknown as what never was there, for as long as it is out.
        """
        if not self.last_success:
            return None
        asked = now - max(time() - self.last_success, 0.0) - self.spec.patience  # at the earliest, for that answer
        return max(asked, self.truncated_at)

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
        if self.reached > wall:  # our clock was set back
            self.reached = wall
        elif not self.reached:
            self.reached = wall
            if self._began is not None:
                since = self.record.clock(monotonic()) - self._began[0]
                self.reached -= since if since <= self.spec.interval + SOON else 0.0
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
        self.unfinished = unfinished
        self._begun[change.number] = self.peer, time() - monotonic()
        self._counted[change.number] = 0.0
        self.record.troubled.add(self)
        self.record.put(self, change.number, None)

    def counted(self, change: Counted) -> None:
        self._add(change.ledger, change.seconds)
        self._counted[max(self._counted)] += change.seconds  # only the newest can be failing still

    def finished(self, change: Finished, *, stall_overlap: bool) -> None:
        event = change.event
        del self._counted[event.number]
        self._add(change.ledger, change.seconds)
        if change.ledger == "path":
            self.outages += 1
            self.lower_seconds += event.lower
            self.upper_seconds += event.upper
            self.shape.outages.observe(event.estimate)
            begin = event.start + self._begun[event.number][1]
            self.last_outage = Last(event.lower, event.estimate, event.upper, begin, begin + event.estimate)
        elif change.ledger == "peer":
            self.frozen += 1
        else:
            self.breaks += 1
        self.record.put(self, event.number, event, stall_overlap=stall_overlap)
        del self._begun[event.number]
        if not self._begun:
            self.record.troubled.discard(self)

    def saved(self) -> SavedStream:
        """What `resume` takes."""
        counters = [getattr(self, name) for name in COUNTERS]
        return SavedStream(counters, self.last_outage, dict(self._open_events()), max(self.entered, 0), self.reached)

    def resume(self, saved: SavedStream) -> None:
        """Go on from there: what happened since then, by our count, is in it."""
        if len(saved.counters) != len(COUNTERS):
            return
        for name, then in zip(COUNTERS, saved.counters, strict=True):
            now = getattr(self, name)
            setattr(self, name, max(type(now)(then), now))
        self.reached = min(filter(None, (self.reached, saved.reached)), default=0.0)
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
        self.truncated_at = monotonic()
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
        """We slept for so long: what is open may have ended in it."""
        for event in self.unfinished(monotonic()):
            event = replace(event, upper=event.upper + slept)  # noqa: PLW2901 - the same one, as it is known now
            lengths = {"lower": event.lower, "estimate": event.estimate, "upper": event.upper}
            self.truncated({"kind": event.kind, "duration": lengths}, self._counted.pop(event.number))
            self.record.put(self, event.number, event, state="truncated", stall_overlap=True)
        self.unfinished = lambda _now: []
        self._begun.clear()
        self.record.troubled.discard(self)
        self._counted.clear()
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
        begin = event.start + offset
        end_offset = time() - monotonic()
        end = event.start + event.estimate  # of a length, which need not end where the end lies
        if event.end_latest is not None:
            end = min(max(end, event.end_earliest), event.end_latest)
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
            "end_time": None if is_open else iso(end + offset),
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


def _labels(spec: Spec) -> dict[str, str]:
    return {
        "source": spec.source,
        "target": spec.target,
        "path": spec.path,
        "protocol": spec.protocol,
        "family": str(spec.family),
    }
