"""What was injected against what was measured and alerted: which stream had to see what, and was it right? Pure.

1. An outage of the path must be seen by every stream whose interval it reaches, a frozen peer by every stream whose
   interval and prompt limit it outlasts, a break by every stream that keeps a connection. Shorter ones may be seen.
2. What is seen is held when its kind is right, its length lies between its bounds, and so do its start and its end.
   The truth is itself known only to within brackets: it holds if any moment of the bracket does.
3. A stream has one entry for an interruption, and none besides.
4. A break is over for a stream as soon as its new connection works, so only its start is compared.
5. A machine that holds up relays or peers interrupts too (held.py): what that explains is listed, and is no fault. An
   interruption that ran into such a hold-up, or thawed slowly, may have another kind, and ends when that did.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from exporters.calibrate.injection import Bracket, Expectation, Truth
from exporters.settings import Stream
from exporters.verdict.compare import MESH
from lab.held import Held, Span, drawn_out, explain, on_way, within
from lab.script import Way

PERSISTENT = ("tcp", "ws")  # they keep a connection that can break
KINDS: dict[Expectation, tuple[str, ...]] = {"path": ("outage", "blip"), "frozen": ("frozen",), "break": ("break",)}
EVENTS = {kind for kinds in KINDS.values() for kind in kinds}  # what is judged of a history
WIDTH_SLACK = 0.05  # seconds beside two intervals that bounds may be apart, in the median
SLOW_END = 0.3  # seconds: a thaw that did not come in one go cannot be told from an outage's end
NEW = 0.3  # seconds; the relays' breaks spare connections younger than 0.2 s, and an entry brings a new one
FAR = 1.5  # times the promised width: what a busy machine does not explain


class Entry(NamedTuple):
    """An entry of a peer's history; times are monotonic seconds. Until it is closed end_latest is None."""

    id: str
    stream: str
    kind: str
    cause: str
    start_earliest: float
    start_latest: float
    end_earliest: float
    end_latest: float | None
    lower: float
    estimate: float
    upper: float
    detected: float
    stalled: bool


def entry(item: Mapping[str, Any]) -> Entry:
    """What the judge needs of an item of /history."""
    mono, length = item["mono"], item["duration"]
    return Entry(
        id=item["id"],
        stream=item["stream"],
        kind=item["kind"],
        cause=item["cause"],
        start_earliest=mono["start_earliest"],
        start_latest=mono["start_latest"],
        end_earliest=mono["end_earliest"],
        end_latest=None if item["state"] == "open" else mono["end_latest"],  # ended, its kind may change still
        lower=length["lower"],
        estimate=length["estimate"],
        upper=length["upper"],
        detected=mono["detected"],
        stalled=item["stall_overlap"],
    )


@dataclass(frozen=True, slots=True)
class Injected:
    """One interruption that was made, and its truth for each stream that it hit, by the stream's key."""

    number: int
    title: str
    expectation: Expectation
    truths: Mapping[str, Truth]
    killed: str = ""  # the peer whose process ended
    target: str = ""  # the peer it is about
    named: str = ""  # what the bastion must say of it, see script.Scene


class Row(NamedTuple):
    """One interruption as the streams of one protocol, from inside or from outside, measured it.

    Seconds, the widest of all that the streams say.
    """

    number: int
    title: str
    expectation: Expectation
    outside: bool
    protocol: str
    true: float  # at least, in the median of the streams
    streams: int
    must: int
    seen: int
    held: int
    disturbed: bool
    lower: float
    estimate: float
    upper: float
    width: float
    error: float | None  # of the estimate, from the nearest true length; None for a break, which is the stream's own
    delay: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The table's rows; what was wrong, and what is missing (it may yet come); what a busy machine explains."""

    rows: list[Row]
    wrong: list[str]
    missing: list[str]
    explained: list[str]
    open: bool  # something is not over yet


def shortest(truth: Truth) -> float:
    """Seconds it lasted at least."""
    return max(0.0, truth[1].before - truth[0].after)


def longest(truth: Truth) -> float:
    """Seconds it lasted at most."""
    return truth[1].after - truth[0].before


def must_see(expectation: Expectation, stream: Stream, seconds: float) -> bool:
    """Had a stream that was hit to see an interruption that lasted at least `seconds` (rule 1)?"""
    if expectation == "path":
        return seconds >= stream.interval
    if expectation == "frozen":
        return seconds >= stream.interval + stream.prompt
    return stream.protocol in PERSISTENT and (seconds == 0 or seconds >= stream.interval + stream.prompt)


def faults_of(seen: Entry, expectation: Expectation, truth: Truth, *, disturbed: bool = False) -> Iterator[str]:
    """Why an entry does not hold (rule 2); nothing when it does. disturbed: a hold-up drew the interruption out."""
    start, end = truth
    if seen.kind not in KINDS[expectation] and not disturbed:
        yield f"recorded as {seen.kind}"
    if seen.start_earliest > start.after or seen.start_latest < start.before:
        yield f"starts {_off(seen.start_earliest, seen.start_latest, start)} off"
    if seen.lower > longest(truth):
        yield f"lower bound {seen.lower:.3f} s, true at most {longest(truth):.3f} s"
    if expectation == "break":
        return
    if seen.upper < shortest(truth):
        yield f"upper bound {seen.upper:.3f} s, true at least {shortest(truth):.3f} s"
    if seen.end_latest is not None and (seen.end_earliest > end.after or seen.end_latest < end.before):
        yield f"ends {_off(seen.end_earliest, seen.end_latest, end)} off"


def _off(earliest: float, latest: float, truth: Bracket) -> str:
    gap = earliest - truth.after if earliest > truth.after else latest - truth.before
    return f"{gap:+.3f} s"


class Case(NamedTuple):
    """One interruption as it hit one stream, and what the stream recorded of it."""

    injected: Injected
    stream: Stream
    truth: Truth
    disturbed: bool
    spared: bool  # a break that may have passed the stream by: its connection was new
    entry: Entry | None

    def faults(self) -> list[str]:
        """Why the entry does not hold."""
        if self.entry is None:
            return []
        return list(faults_of(self.entry, self.injected.expectation, self.truth, disturbed=self.disturbed))

    def length(self) -> float:
        return 0.0 if self.entry is None else self.entry.estimate

    def must(self) -> bool:
        return must_see(self.injected.expectation, self.stream, shortest(self.truth))


def judge(made: Sequence[Injected], history: Iterable[Entry], streams: Mapping[str, Stream], held: Held) -> Judgement:
    """Compare all that was made with all that was recorded; `streams` by their keys."""
    entries = [_ended(each, streams[each.stream], made) for each in history]
    spans = {key: on_way(held, stream) for key, stream in streams.items()}
    cases = [_case(each, streams[key], entries, spans[key]) for each in made for key in each.truths]
    taken = {case.entry.id for case in cases if case.entry is not None}
    missing = [text for case in cases for text in _missing(case, held)]
    wrong = [f"{_where(case)} {fault}" for case in cases for fault in case.faults()]
    explained = []
    for each in entries:
        said = f"{name(streams[each.stream])} recorded {_told(each)}"
        if each.id in taken:
            continue
        if each.end_latest is None:
            missing.append(f"{said} that is not over yet")
        elif _explained(each, streams[each.stream], spans[each.stream]):
            explained.append(said)
        else:
            wrong.append(f"{said} that nobody made")
    rows = [row for each in made for row in _rows([case for case in cases if case.injected is each])]
    still = any(each.end_latest is None for each in entries)
    return Judgement(rows, wrong + list(_too_wide(cases)), missing, explained, still)


def _ended(seen: Entry, stream: Stream, made: Iterable[Injected]) -> Entry:
    """What was open when its peer was killed is never closed: it ended then at the latest, as far as is known."""
    for injected in made:
        if injected.killed == stream.source and seen.end_latest is None:
            killed = next(iter(injected.truths.values()))[0].after
            if seen.start_earliest <= killed:
                return seen._replace(end_latest=killed)
    return seen


def _case(injected: Injected, stream: Stream, entries: Sequence[Entry], spans: Sequence[Span]) -> Case:
    """What a stream recorded of an interruption: the entry that fits best, if not all are a busy machine's."""
    made = injected.truths[stream.key]
    truth = drawn_out(made, stream, spans)
    slow = injected.expectation == "frozen" and made[1].after - made[1].before > SLOW_END
    disturbed = truth != made or slow
    found = [
        Case(injected, stream, truth, disturbed, False, each)
        for each in entries
        if each.stream == stream.key and _touches(each, made)
    ]
    own = [case for case in found if not case.faults() or not _explained(case.entry, stream, spans)]
    spared = injected.expectation == "break" and any(
        each.start_earliest <= made[0].after and (each.end_latest or made[0].after) >= made[0].before - NEW
        for each in entries
        if each.stream == stream.key
    )
    nothing = Case(injected, stream, truth, disturbed, spared, None)
    return min(own, key=lambda case: (len(case.faults()), -case.length()), default=nothing)


def _explained(seen: Entry | None, stream: Stream, spans: Sequence[Span]) -> bool:
    if seen is None or seen.end_latest is None:
        return False
    return explain(seen.start_earliest, seen.end_latest, seen.lower, stream, spans)


def _missing(case: Case, held: Held) -> Iterator[str]:
    if case.entry is None and not case.spared:
        # While its source does not run, a stream does not probe.
        begin, end = case.truth[0].after, case.truth[1].before
        unwatched = within(on_way(held, case.stream) + list(held.get(case.stream.source, ())), begin, end)
        if must_see(case.injected.expectation, case.stream, max(0.0, end - begin - unwatched)):
            yield f"{_where(case)} did not see it"
    elif case.entry is not None and case.entry.end_latest is None:
        yield f"{_where(case)} is not over yet"


def _where(case: Case) -> str:
    return f"#{case.injected.number} {case.injected.title}: {name(case.stream)}"


def _touches(seen: Entry, truth: Truth) -> bool:
    return seen.start_earliest <= truth[1].after and (seen.end_latest is None or seen.end_latest >= truth[0].before)


def _told(seen: Entry) -> str:
    stalled = ", while its source was stalled" if seen.stalled else ""
    return f"a {seen.kind} ({seen.cause}) of {seen.lower:.3f} to {seen.upper:.3f} s{stalled}"


def name(stream: Stream) -> str:
    """A stream in few letters: `a>b tcp`, `bastion>b-lb tcp`."""
    return f"{Way(stream.source, stream.target, stream.path)} {stream.protocol}"


def width_promised(expectation: Expectation, stream: Stream) -> float:
    """How far apart the bounds should be in the median: two intervals, for a frozen peer a prompt limit more."""
    return 2 * stream.interval + WIDTH_SLACK + (stream.prompt if expectation == "frozen" else 0)


def _too_wide(cases: Iterable[Case]) -> Iterator[str]:
    """Bounds that are too wide: judged over all entries without a stall, which widens them rightly."""
    widths = [
        (case.entry.upper - case.entry.lower) / width_promised(case.injected.expectation, case.stream)
        for case in cases
        if case.entry is not None and case.injected.expectation != "break"
        if not case.entry.stalled and not case.disturbed
    ]
    if widths and (times := median(widths)) > FAR:
        yield f"bounds are {times:.1f} times as wide as promised, median of {len(widths)} entries without a stall"


def _rows(cases: Sequence[Case]) -> Iterator[Row]:
    for kind in sorted({_kind(case) for case in cases}):
        yield _row([case for case in cases if _kind(case) == kind])


def _kind(case: Case) -> tuple[bool, str]:
    return case.stream.path not in MESH, case.stream.protocol


def _row(cases: Sequence[Case]) -> Row:
    injected = cases[0].injected
    seen = [(case.entry, case) for case in cases if case.entry is not None]
    errors = [_error(each.estimate, case.truth) for each, case in seen]
    return Row(
        number=injected.number,
        title=injected.title,
        expectation=injected.expectation,
        outside=_kind(cases[0])[0],
        protocol=cases[0].stream.protocol,
        true=median(shortest(injected.truths[case.stream.key]) for case in cases),
        streams=len(cases),
        must=sum(case.must() for case in cases),
        seen=len(seen),
        held=sum(not case.faults() for _, case in seen),
        disturbed=any(case.disturbed for case in cases),
        lower=min((each.lower for each, _ in seen), default=0.0),
        estimate=median([each.estimate for each, _ in seen] or [0.0]),
        upper=max((each.upper for each, _ in seen), default=0.0),
        width=max((each.upper - each.lower for each, _ in seen), default=0.0),
        error=None if injected.expectation == "break" else max(errors, key=abs, default=0.0),
        delay=max((each.detected - case.truth[0].before for each, case in seen), default=0.0),
    )


def _error(estimate: float, truth: Truth) -> float:
    return estimate - min(max(estimate, shortest(truth)), longest(truth))
