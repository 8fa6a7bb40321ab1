"""The bench of the fault tests: random interruptions on many lanes at once, and what a prober's events are worth.

How `judge` counts, per stream and injection:
1. An event belongs to the injection whose truth it overlaps most, each taken at its widest. One that overlaps none is
   false, unless nothing is known there: an attempt failed, or a busy machine let the server wait for a processor,
   which is a true interruption that nobody injected. Those are listed as excused.
2. An injection is seen when an event of the right kind belongs to it: an outage or a blip for a path, `frozen` for a
   frozen peer, `break` for established flows.
3. Some kinds may stand beside: a break during a cut path, for an established connection is lost in it; and an
   unconfirmed blip wherever one heartbeat was lost, for nobody can tell. Any other kind is false.
4. It is held when exactly one event saw it and [lower, upper] is compatible with its duration, which is itself only
   known to within the brackets. The edges hold when both intervals meet theirs.
5. Of a break only the start is judged: it ends when the prober has a new connection, and that is no truth of ours.
"""

import dataclasses
import itertools
import json
import math
import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from exporters.calibrate.faults import inject
from exporters.calibrate.injection import Bracket, Expectation, Injection, NotInjectedError
from exporters.calibrate.namespaces import Lane

Event = Mapping[str, Any]  # an entry of the exporter's history

RIGHT: dict[Expectation, set[str]] = {"path": {"outage", "blip"}, "frozen": {"frozen"}, "break": {"break"}}
BESIDE: dict[Expectation, set[str]] = {"path": {"break"}, "frozen": {"break"}, "break": set()}
JUDGED = {"outage", "blip", "frozen", "break"}
LOOK = 0.02  # seconds between looks at how long the server waited
WAIT = 0.02  # seconds of waiting that can make a probe late
SETTLE = 4.0  # seconds after the last injection: the patience for late answers, and some

Seconds = Callable[[random.Random], float]


def any_of(*values: float) -> Seconds:
    """One of these durations."""
    return lambda rng: rng.choice(values)


def log_uniform(low: float, high: float) -> Seconds:
    """As many short ones as long ones."""
    return lambda rng: math.exp(rng.uniform(math.log(low), math.log(high)))


class Step(NamedTuple):
    """Wait `pause` seconds, then interrupt for `seconds`."""

    kind: str
    seconds: float
    pause: float


def plan(
    kinds: Iterable[str], repeats: int, seconds: Seconds, *, seed: int, pause: Seconds | None = None
) -> list[Step]:
    """Each kind `repeats` times in random order; pauses are random, so no phase of a prober's clock is preferred."""
    rng = random.Random(seed)
    steps = [kind for kind in kinds for _ in range(repeats)]
    rng.shuffle(steps)
    between = pause or (lambda rng: rng.uniform(3.2, 4.4))  # after the patience of 3 s nothing is on its way any more
    return [Step(kind, seconds(rng), between(rng)) for kind in steps]


@dataclasses.dataclass
class Done:
    """What was injected on one lane; in `voids` other things may have happened to it as well."""

    injections: list[Injection] = dataclasses.field(default_factory=list)
    voids: list[Bracket] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)  # of the attempts that failed


def carry_out(plans: Sequence[tuple[Lane, Sequence[Step]]], *, limit: float) -> list[Done]:
    """Carry all plans out at once, one thread a lane; after `limit` seconds no further step begins."""
    done = [Done() for _ in plans]
    deadline = time.monotonic() + limit
    over = threading.Event()
    with ThreadPoolExecutor(2 * len(plans)) as pool:
        watches = [pool.submit(_watch_waits, lane, into, over) for (lane, _), into in zip(plans, done, strict=True)]
        work = [pool.submit(_carry_out, *each, into, deadline) for each, into in zip(plans, done, strict=True)]
        try:
            for each in work:
                each.result()
            time.sleep(SETTLE)
        finally:
            over.set()
    for each in watches:
        each.result()
    return done


def _watch_waits(lane: Lane, into: Done, over: threading.Event) -> None:
    """Note when the server waited for a processor; the kernel adds a wait to its sum when it is over."""
    pid, waited, looked = 0, 0.0, 0.0
    while not over.wait(LOOK):
        before, (pid_before, waited_before) = looked, (pid, waited)
        looked = time.monotonic()
        pid = lane.serving.process.pid if lane.serving else 0
        waited = _waited(pid)
        if pid == pid_before and waited - waited_before > WAIT:
            into.voids.append(Bracket(before - (waited - waited_before), looked))


def _waited(pid: int) -> float:
    """Seconds the process has waited for a processor, `<run time> <wait> <slices>` in nanoseconds; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _carry_out(lane: Lane, steps: Sequence[Step], into: Done, deadline: float) -> None:
    for step in steps:
        time.sleep(step.pause)
        before = time.monotonic()
        if before > deadline:
            return
        try:
            into.injections += inject(lane, step.kind, step.seconds)
        except NotInjectedError as error:
            into.voids.append(Bracket(before, time.monotonic()))
            into.reasons.append(f"{step.kind}: {error}")


class Prober:
    """A process on a lane's client side that prints finished events as JSON lines until its stdin ends."""

    def __init__(self, lane: Lane, argv: Sequence[str]) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = lane.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def finish(self) -> list[dict[str, Any]]:
        """End it; returns everything it printed. Raises when it did not end well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(timeout=30)
        self._reader.join()
        if code:
            raise RuntimeError(f"the prober ended with {code}")
        return self.lines


@dataclasses.dataclass(frozen=True)
class Row:
    """One injection as one stream saw it."""

    stream: str
    injection: Injection
    events: tuple[Event, ...]  # of the right kind, in order
    beside: tuple[Event, ...]

    @property
    def protocol(self) -> str:
        return self.stream.split("|")[3]

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
        closed = bounds["upper"] is not None and bounds["lower"] is not None
        return closed and bounds["lower"] <= self.injection.longest and bounds["upper"] >= self.injection.shortest

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
    def delay(self) -> float:
        """Seconds from the earliest true start to the detection."""
        return float(self.events[0]["mono"]["detected"]) - self.injection.start.before


class Cell(NamedTuple):
    """Rows in numbers. Shares are of those seen, seconds are None where nothing was seen."""

    n: int
    seen: int
    held: int
    edges: int
    split: int
    beside: int
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

    def where(self, condition: Callable[[Row], bool]) -> "Table":
        """Only the rows that meet the condition; what is false or excused stays."""
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if condition(row)))

    def cells(self, key: Callable[[Row], Hashable] | None = None) -> dict[Hashable, Cell]:
        """The numbers per fault and protocol, or by another key."""
        by: Callable[[Row], Hashable] = key or (lambda row: (row.injection.kind, row.protocol))
        ordered = sorted(self.rows, key=lambda row: str(by(row)))
        return {name: _cell(list(rows)) for name, rows in itertools.groupby(ordered, by)}

    def __str__(self) -> str:
        head = f"{'fault, stream':28} {'n':>4} {'seen':>5} {'held':>5} {'edges':>5} {'split':>5} {'beside':>6}"
        lines = [f"{head}  width p50/p95 ms  detected p50/p95 ms"]
        for name, cell in self.cells().items():
            label = " ".join(map(str, name)) if isinstance(name, tuple) else str(name)
            counts = f"{cell.n:4} {cell.seen:5} {cell.held:5} {cell.edges:5} {cell.split:5} {cell.beside:6}"
            lines.append(f"{label:28} {counts}  {_ms(cell.width):>16}  {_ms(cell.delay):>18}")
        lines.append(f"false: {len(self.false)}, excused: {len(self.excused)}")
        return "\n".join([*lines, *(json.dumps(dict(event)) for event in self.false[:10])])


def judge(
    injections: Sequence[Injection], events: Iterable[Event], streams: Iterable[str], voids: Sequence[Bracket] = ()
) -> Table:
    """The events of one lane's streams against what was injected there; pure. Streams that saw nothing count too."""
    rows: list[Row] = []
    unasked: list[Event] = []
    everything = sorted((each for each in events if each["kind"] in JUDGED), key=lambda each: each["mono"]["detected"])
    for stream in streams:
        meant = [each for each in injections if each.family in {None, int(stream.split("|")[4])}]
        belonging: dict[int | None, list[Event]] = defaultdict(list)
        for event in everything:
            if event["stream"] == stream:
                belonging[_belongs_to(event, meant)].append(event)
        unasked += belonging[None]
        for number, injection in enumerate(meant):
            right, beside, wrong = _sort(injection.expectation, belonging[number])
            rows.append(Row(stream, injection, right, beside))
            unasked += wrong
    excused = [event for event in unasked if any(_meet(_whole(event), void) for void in voids)]
    return Table(tuple(rows), tuple(event for event in unasked if event not in excused), tuple(excused))


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
        if event["kind"] in BESIDE[expectation] or (event["kind"] == "blip" and event["unconfirmed"])
    )
    return right, beside, tuple(event for event in others if event not in beside)


def _span(event: Event, edge: str) -> Bracket:
    earliest, latest = event["mono"][f"{edge}_earliest"], event["mono"][f"{edge}_latest"]
    return Bracket(earliest, math.inf if latest is None else latest)


def _whole(event: Event) -> Bracket:
    return Bracket(_span(event, "start").before, _span(event, "end").after)


def _meet(one: Bracket, other: Bracket) -> bool:
    return one.before <= other.after and other.before <= one.after


def _cell(rows: Sequence[Row]) -> Cell:
    seen = [row for row in rows if row.seen]
    return Cell(
        n=len(rows),
        seen=len(seen),
        held=sum(row.held for row in seen),
        edges=sum(row.edges for row in seen),
        split=sum(len(row.events) > 1 for row in seen),
        beside=sum(bool(row.beside) for row in rows),
        width=_middle([row.width for row in seen]),
        delay=_middle([row.delay for row in seen]),
    )


def _middle(values: Sequence[float]) -> tuple[float, float] | None:
    """Median and 95th percentile, by the nearest rank."""
    ranked = sorted(values)
    if not ranked:
        return None
    return ranked[math.ceil(0.5 * len(ranked)) - 1], ranked[math.ceil(0.95 * len(ranked)) - 1]


def _ms(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{pair[0] * 1e3:.0f}/{pair[1] * 1e3:.0f}"
