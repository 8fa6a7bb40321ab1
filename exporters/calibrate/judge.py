"""What a prober's events are worth, held against what was injected: one row for each stream and injection. Pure.

1. An event belongs to the injection whose truth it overlaps most, each taken at its widest. One that overlaps none is
   false, unless nothing is known there: an attempt failed, or a busy machine let the server wait for a processor,
   which is a true interruption that nobody injected. Those are listed as excused.
2. An injection is seen when an event of the right kind belongs to it: an outage or a blip for a path, `frozen` for a
   frozen peer, `break` for established flows.
3. Some kinds may stand beside: a break during a cut path, for an established connection is lost in it; and an
   unconfirmed blip wherever one heartbeat was lost, for nobody can tell. So may, of a cut path, a frozen peer of one
   probe: cut between its handshake and its answer. Any other kind is false.
4. It is held when exactly one event saw it and [lower, upper] is compatible with its duration, which is itself only
   known to within the brackets. The edges hold when both intervals meet theirs.
5. Of a break only the start is judged: it ends when the prober has a new connection, and that is no truth of ours.
6. A row is known unless its truth is not: an edge is less sharp than SHARP, or something else happened meanwhile. What
   is not known is left out whatever was measured of it, so that leaving out makes nothing better.
"""

import dataclasses
import itertools
import math
import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from exporters.calibrate.injection import Bracket, Expectation, Injection

K = TypeVar("K")
Event = Mapping[str, Any]  # an entry of the exporter's history

RIGHT: dict[Expectation, set[str]] = {"path": {"outage", "blip"}, "frozen": {"frozen"}, "break": {"break"}}
BESIDE: dict[Expectation, set[str]] = {"path": {"break"}, "frozen": {"break"}, "break": set()}
JUDGED = {"outage", "blip", "frozen", "break"}
SHARP = 0.05  # seconds an edge of the truth may be uncertain
AFTERMATH = 1.0  # seconds after an interruption in which a busy server still makes it look longer


@dataclasses.dataclass(frozen=True)
class Row:
    """One injection as one stream saw it."""

    stream: str
    injection: Injection
    events: tuple[Event, ...]  # of the right kind, in order
    beside: tuple[Event, ...]
    wrong: tuple[Event, ...] = ()
    known: bool = True  # rule 6
    stalls: tuple[Bracket, ...] = ()  # of the prober's own, meanwhile
    deadline: float = 0.0  # seconds, the longest one of a stream that ever took its path for slow

    @property
    def protocol(self) -> str:
        return self.stream.split("|")[3]

    @property
    def slow(self) -> bool:
        """Whether the deadline was another than the promised one."""
        return self.deadline > 0

    @property
    def seen(self) -> bool:
        return bool(self.events)

    @property
    def held(self) -> bool:
        """Whether the bounds hold the truth (rules 4 and 5)."""
        if len(self.events) != 1:
            return False
        if self.injection.expectation == "break":
            return self.edges
        bounds = self.events[0]["duration"]
        within = self.closed and bounds["lower"] <= self.injection.longest
        return within and bool(bounds["upper"] >= self.injection.shortest)

    @property
    def closed(self) -> bool:
        """Whether the first event that saw it has an end."""
        return self.events[0]["duration"]["upper"] is not None

    @property
    def edges(self) -> bool:
        """Whether the start and, but for a break, the end lie where they are said to."""
        if len(self.events) != 1:
            return False
        start = _meet(_span(self.events[0], "start"), self.injection.start)
        return start and (
            self.injection.expectation == "break" or _meet(_span(self.events[0], "end"), self.injection.end)
        )

    @property
    def width(self) -> float:
        """Seconds between the bounds."""
        bounds = self.events[0]["duration"]
        return float(bounds["upper"] - bounds["lower"])

    @property
    def error(self) -> float:
        """Seconds measured too much; a duration that nobody saw was measured as 0."""
        truth = (self.injection.shortest + self.injection.longest) / 2
        return sum(float(each["duration"]["estimate"]) for each in self.events) - truth

    @property
    def watched(self) -> float:
        """Seconds of the longest time within the interruption in which the prober did not stall."""
        begin, longest = self.injection.start.after, 0.0
        for stall in self.stalls:
            longest, begin = max(longest, stall.before - begin), max(begin, stall.after)
        return max(longest, self.injection.end.before - begin)

    @property
    def delay(self) -> float:
        """Seconds from the earliest true start to the detection."""
        return float(self.events[0]["mono"]["detected"]) - self.injection.start.before


class Cell(NamedTuple):
    """Rows in numbers, all but `n` of those known. Seconds are None where nothing was seen, or is not measured."""

    n: int
    known: int
    seen: int
    held: int
    edges: int
    split: int
    beside: int
    wrong: int
    bias: tuple[float, float] | None  # mean of all errors, and its standard error; None for a break
    error: tuple[float, float] | None  # median, p95 of those seen, without their sign
    width: tuple[float, float] | None  # median, p95
    delay: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Table:
    """What was seen, and what was seen that was not there."""

    rows: tuple[Row, ...]
    false: tuple[Event, ...]
    excused: tuple[Event, ...] = ()

    def __add__(self, other: "Table") -> "Table":
        return Table(self.rows + other.rows, self.false + other.false, self.excused + other.excused)

    def by(self, key: Callable[[Row], K]) -> dict[K, list[Row]]:
        """The rows by a key, in its order."""
        ordered = sorted(self.rows, key=lambda row: str(key(row)))
        return {name: list(rows) for name, rows in itertools.groupby(ordered, key)}

    def cells(self) -> dict[tuple[str, str], Cell]:
        """The numbers per fault and protocol."""
        return {name: _cell(rows) for name, rows in self.by(lambda row: (row.injection.kind, row.protocol)).items()}


def judge(
    injections: Sequence[Injection],
    events: Iterable[Event],
    streams: Iterable[str],
    voids: Sequence[Bracket] = (),
    stalls: Sequence[Bracket] = (),
) -> Table:
    """The events of one prober's streams against what was injected there.

    `voids`: when other things may have happened too. `stalls`: when the prober did not run, in order.
    """
    rows: list[Row] = []
    unasked: list[Event] = []
    told = list(events)
    slow: dict[str, float] = defaultdict(float)
    for each in told:
        if each["kind"] == "slow":
            slow[each["stream"]] = max(slow[each["stream"]], each["deadline"])
    everything = sorted((each for each in told if each["kind"] in JUDGED), key=lambda each: each["mono"]["detected"])
    for stream in streams:
        meant = [each for each in injections if each.family in {None, int(stream.split("|")[4])}]
        belonging: dict[int | None, list[Event]] = defaultdict(list)
        for event in everything:
            if event["stream"] == stream:
                belonging[_belongs_to(event, meant)].append(event)
        unasked += belonging[None]
        for number, injection in enumerate(meant):
            right, beside, wrong = _sort(injection.expectation, belonging[number])
            known, stalled = _known(injection, voids), tuple(_during(injection, stalls))
            rows.append(
                Row(stream, injection, right, beside, tuple(_without(wrong, voids)), known, stalled, slow[stream])
            )
            unasked += wrong
    false = tuple(_without(unasked, voids))
    return Table(tuple(rows), false, tuple(event for event in unasked if event not in false))


def _without(events: Iterable[Event], voids: Sequence[Bracket]) -> list[Event]:
    return [event for event in events if not any(_meet(_whole(event), void) for void in voids)]


def _known(injection: Injection, voids: Sequence[Bracket]) -> bool:
    start, end = injection.start, injection.end
    if max(start.after - start.before, end.after - end.before) > SHARP:
        return False
    wide = Bracket(start.before, end.after + AFTERMATH)
    # What happened between the edges made no difference; a server that starts again is slow all by itself.
    return not any(_meet(wide, void) and not start.after < void.before <= void.after < end.before for void in voids)


def _during(injection: Injection, stalls: Sequence[Bracket]) -> Sequence[Bracket]:
    """Those of the stalls, which are in order, that met the injection."""
    first = bisect_left(stalls, injection.start.before, key=lambda each: each.after)
    return stalls[first : bisect_right(stalls, injection.end.after, key=lambda each: each.before)]


def _belongs_to(event: Event, injections: Sequence[Injection]) -> int | None:
    whole = _whole(event)
    overlaps = [
        (min(whole.after, each.end.after) - max(whole.before, each.start.before), -number)
        for number, each in enumerate(injections)
        if _meet(whole, Bracket(each.start.before, each.end.after))
    ]
    return -max(overlaps)[1] if overlaps else None


def _sort(
    expectation: Expectation, events: Sequence[Event]
) -> tuple[tuple[Event, ...], tuple[Event, ...], tuple[Event, ...]]:
    """Events of the right kind, those that may stand beside, the wrong ones."""
    right = tuple(event for event in events if event["kind"] in RIGHT[expectation])
    others = [event for event in events if event["kind"] not in RIGHT[expectation]]
    beside = tuple(
        event
        for event in others
        if event["kind"] in BESIDE[expectation]
        or (event["kind"] == "blip" and event["unconfirmed"])
        or (expectation == "path" and _cut_within(event))
    )
    return right, beside, tuple(event for event in others if event not in beside)


def _cut_within(event: Event) -> bool:
    return bool(event["kind"] == "frozen" and sum(event["causes"].values()) == 1)


def _span(event: Event, edge: str) -> Bracket:
    earliest, latest = event["mono"][f"{edge}_earliest"], event["mono"][f"{edge}_latest"]
    return Bracket(earliest, math.inf if latest is None else latest)


def _whole(event: Event) -> Bracket:
    return Bracket(_span(event, "start").before, _span(event, "end").after)


def _meet(one: Bracket, other: Bracket) -> bool:
    return one.before <= other.after and other.before <= one.after


def _cell(rows: Sequence[Row]) -> Cell:
    known = [row for row in rows if row.known]
    seen = [row for row in known if row.seen]
    lasting = rows[0].injection.expectation != "break"
    return Cell(
        n=len(rows),
        known=len(known),
        seen=len(seen),
        held=sum(row.held for row in seen),
        edges=sum(row.edges for row in seen),
        split=sum(len(row.events) > 1 for row in seen),
        beside=sum(bool(row.beside) for row in known),
        wrong=sum(len(row.wrong) for row in known),
        bias=mean([row.error for row in known]) if lasting else None,
        error=middle([abs(row.error) for row in seen]) if lasting else None,
        width=middle([row.width for row in seen if row.closed]) if lasting else None,
        delay=middle([row.delay for row in seen]),
    )


def middle(values: Sequence[float]) -> tuple[float, float] | None:
    """Median and 95th percentile, by the nearest rank."""
    ranked = sorted(values)
    if not ranked:
        return None
    return ranked[math.ceil(0.5 * len(ranked)) - 1], ranked[math.ceil(0.95 * len(ranked)) - 1]


def mean(values: Sequence[float]) -> tuple[float, float] | None:
    """The mean and its standard error; None for fewer than two values, which have none."""
    if len(values) < 2:
        return None
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
