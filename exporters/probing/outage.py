"""Evidence in, events out: when did a path stop carrying a stream's probes, for how long, and how wrong may we be?

Everything here is pure: times come in as float seconds of one monotonic clock, nothing is read. The rules were found
and proved by injecting some twenty thousand known interruptions; each says what a probe may and may not claim.

 1. Up evidence [s, e]: a probe that started at s and was answered promptly (e - s <= R) proves the path up at some
    moment of [s, e], nothing sharper.
 2. The deadline decides verdict and delay of detection, never a bound: a probe that got no answer proves only that its
    first transmission was lost. So R stays below the kernel's first retransmission (0.2 s on Linux).
 3. Down evidence [s, hi]: not answered by s + R. hi is the moment of an explicit error (RST, ICMP, refused), else the
    end of the last write plus delta, the ceiling of a first round trip.
 4. A probe answered after R is both: down at its start, up at its reply. It is never a good probe.
 5. Only a probe that put a first packet on the wire is down evidence: a new connection, or a heartbeat on a connection
    with nothing outstanding. (The stream keeps the others to itself.)
 6. The start lies in [start of the last good probe whose reply came before the first failure, least hi]; the end in
    [start of the last failure, first proof of life: the reply of a probe started at or after that failure, or a late
    reply more than 2 delta after it].
 7. lower = max(0, end earliest - start latest), upper = end latest - start earliest.
 8. Failures belong to one outage unless a proof of life lies between them; the next outage cannot have begun before
    the last failure of the one before it.
 9. Our own stalls move verdicts (the stream does that) and are marked on the outage.
10. Path, flow and peer are separate books. An established connection lost while a fresh one works at once is a break.
    If the old connection is answered by its first retransmission, it cannot be told from a path outage shorter than
    the deadline: a blip, marked unconfirmed. If it is answered even before a retransmission could leave, nothing was
    lost: the peer was slow (marked likewise). So it was if the other kernel had the request though it was sent once,
    and the answer, by the peer's clock, came sooner than a retransmission of it could have; and, whenever, if a new
    connection that waited was answered with it. Connections that shake hands, lose nothing and are all answered
    together are a frozen peer; where others could not even shake hands, one alone was caught by a path that broke
    just then. Where connections get no handshake any more and nobody waits any longer, the peer that froze is gone,
    and it is an outage; so it is where connections are left half answered or half asked, for then packets are lost
    that are bigger than others. One alone shows neither.
11. Estimate = T x failed grid points, less the ordinary latency: unbiased in total. Where a close or a thaw gives a
    sharper edge, that edge; where grid points were skipped, the middles of the two intervals.
12. Evidence is taken in the order of its times, whatever the order it was decided in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import Literal, NamedTuple

Scope = Literal["path", "peer", "flow"]
Ledger = Literal["path", "peer", "flow"]
Kind = Literal["outage", "blip", "frozen", "break"]

NEVER = float("inf")
# Linux' least retransmission timeout is 0.2 s; an answer that comes sooner was not rescued by a retransmission.
UNTOUCHED = 0.19
# A first retransmission leaves 0.2 s (plus the smoothed round trip) after the packet, the second 0.4 s later.
RESCUED = 0.3
# Late answers of several connections this close together were released by one event.
THAW = 0.005
# A new connection answered promptly, but after this long and four ordinary round trips, waited for something.
WAITED = 0.02
# The cause of a probe that connected and heard nothing; on an established flow it becomes "stalled".
SILENCE = "response_timeout"
# How long after the first proof of life late answers still tell which kind of event it was: a moment, or, for
# connections that shook hands and wait, as long as a thawing peer may take to begin with them.
SETTLE = 0.05
ANSWER_ALL = 0.6
# One connection may have been caught between two of its packets.
STRANGE = 2
# Answers of a thawed peer come within this time. Lost ones, by then between retransmissions that double from 0.2 s
# on, are further apart.
TOGETHER = 0.3


class Up(NamedTuple):
    """A probe on connection `conn`, started at s and answered promptly at e."""

    s: float
    e: float
    conn: int


class Late(NamedTuple):
    """An answer at e, after its probe (started at s) had been judged lost.

    resent: the kernel had to send something on this connection again, so the path lost it. way: the most seconds that
    the answer was on its way, by the peer's clock.
    """

    s: float
    e: float
    conn: int
    resent: bool = False
    way: float = NEVER


class Down(NamedTuple):
    """A probe that failed: the path was down at some moment of [s, hi].

    scope says what the failure touches: "path" (no handshake, or an explicit error), "peer" (handshake done, no reply),
    "flow" (a heartbeat on an established connection). grid: it started at a point of the grid. arrived: the kernel at
    the other end had the request all the same, which had been sent once.
    """

    s: float
    hi: float
    scope: Scope
    cause: str
    grid: bool
    conn: int
    arrived: bool = False


class Closed(NamedTuple):
    """An established connection with nothing outstanding was closed by somebody else at f.

    sharp is False where f may be late (the close was read after a stall of our own).
    """

    f: float
    cause: str
    sharp: bool
    conn: int


Evidence = Up | Late | Down | Closed


@dataclass(slots=True)
class Event:
    """One outage, blip, break or frozen peer. Times are monotonic seconds; end_latest is None while it is open."""

    number: int
    kind: Kind
    start_earliest: float
    start_latest: float
    end_earliest: float
    end_latest: float | None
    lower: float
    estimate: float
    upper: float
    detected: float
    cause: str
    causes: dict[str, int]
    grid_points: int
    unconfirmed: bool
    likely_start: float | None = None  # None: the middle of both; else we began to look just before it

    @property
    def start(self) -> float:
        """The point estimate of its start."""
        middle = (self.start_earliest + self.start_latest) / 2
        return middle if self.likely_start is None else self.likely_start


class Opened(NamedTuple):
    """A run of failures began; its kind is not known yet."""

    number: int
    detected: float


class Counted(NamedTuple):
    """`seconds` of an open event are certain enough to be counted in a ledger; they never move again."""

    ledger: Ledger
    seconds: float


class Finished(NamedTuple):
    """An event with its final kind and bounds, and the seconds of it that were not counted before."""

    event: Event
    ledger: Ledger
    seconds: float


Change = Opened | Counted | Finished


@dataclass(slots=True)
class Run:
    """A run of failures that is open, or ended and waiting to be told apart (rule 10)."""

    number: int
    detected: float
    start_earliest: float
    first: float  # start of the first failure
    start_latest: float = NEVER
    end_earliest: float = 0.0
    end_latest: float | None = None
    closed_at: float | None = None  # a sharp close opened the run (rule 11)
    flow_closed: bool = False
    points: int = 0
    first_point: float = 0.0
    last_point: float = 0.0
    point_ledger: Ledger = "path"
    counted: dict[Ledger, float] = field(default_factory=dict)
    causes: Counter[str] = field(default_factory=Counter)
    fresh: Scope | None = None  # what the first fresh connection lost, unless it turned out not to be the peer
    lost: dict[int, float] = field(default_factory=dict)  # connection -> start of its lost heartbeat
    arrived: set[int] = field(default_factory=set)  # those of them whose heartbeat arrived all the same
    unreached: bool = False  # a fresh connection failed without a handshake
    shaken: int = 0  # how many fresh connections shook hands and got no reply in time
    waiting: set[int] = field(default_factory=set)  # those of them that may still get one
    released: set[int] = field(default_factory=set)  # those of them that did
    late: list[Late] = field(default_factory=list)
    strange: int = 0  # connections that no frozen peer would have lost
    cut: int = 0  # those of them that shook hands
    resent: bool = False  # on one of these: its silence was loss, the peer's kernel was not reached
    waited: list[Up] = field(default_factory=list)  # good, but not ordinary
    likely_start: float | None = None  # where nobody looked before

    def start(self) -> float:
        """The point estimate of the start (rule 11)."""
        if self.likely_start is not None:
            return self.likely_start
        return self.closed_at if self.closed_at is not None else (self.start_earliest + self.first) / 2


class Book:
    """The outages of one stream. Feed it evidence in any order within a horizon; it decides in the order of times.

    interval is the stream's T in seconds. `good`, where the target was reached by somebody before: the start of their
    last good probe, or any time before it. Every method that takes `horizon` means by it: no evidence with an earlier
    time can still come (the start of the oldest undecided probe, or infinity).
    """

    __slots__ = ("_before", "_good", "_last_down", "_numbers", "_queue", "_run", "_seen", "_settling", "interval")

    def __init__(self, interval: float, good: float | None = None) -> None:
        self.interval = interval
        self._good = self._before = -NEVER if good is None else good  # start of the last good probe
        self._last_down = -NEVER  # start of the last failure of the run before (rule 8)
        self._numbers = 0
        self._queue: list[tuple[float, int, Evidence]] = []
        self._run: Run | None = None
        self._settling: list[Run] = []
        self._seen = good is not None

    @property
    def seen(self) -> bool:
        """Is it known how the target is? Before it was ever reached, failures are no outage: the state is unknown."""
        return self._good > self._before or self._run is not None or self._last_down > -NEVER

    @property
    def failing(self) -> bool:
        """Is a run of failures open?"""
        return self._run is not None

    @property
    def cut(self) -> bool:
        """Are connections made by the open run, and what is said on them lost in part?"""
        run = self._run
        return run is not None and run.cut >= STRANGE and not run.unreached

    @property
    def idle(self) -> bool:
        """Nothing open, nothing waiting: only the last good probe is remembered."""
        return self._run is None and not self._settling and not self._queue

    def wake(self) -> float:
        """When `advance` should be called at the latest, though no evidence comes."""
        return min((_settled_at(run) for run in self._settling), default=NEVER)

    def good(self, s: float, e: float, horizon: float) -> bool:
        """Take a prompt answer if it changes nothing else: the common case, kept short. False: it is for `add`."""
        if self._run is not None or self._settling or self._queue or horizon < e:
            return False
        self._seen = True
        self._good = max(self._good, s)
        return True

    def add(self, evidence: Evidence, now: float, horizon: float, delta: float, latency: float = 0.0) -> list[Change]:
        """Take one piece of evidence; return what it changed.

        delta: ceiling of a first round trip on this stream; latency: its median (both seconds).
        """
        if type(evidence) is Up and self.good(evidence.s, evidence.e, horizon):
            return []
        key = evidence.f if isinstance(evidence, Closed) else evidence.s if isinstance(evidence, Down) else evidence.e
        self._numbers += 1
        heappush(self._queue, (key, self._numbers, evidence))
        return self.advance(now, horizon, delta, latency)

    def advance(self, now: float, horizon: float, delta: float, latency: float = 0.0) -> list[Change]:
        """Decide what time has made decidable."""
        changes: list[Change] = []
        while self._queue and self._queue[0][0] <= horizon:
            at, _, evidence = heappop(self._queue)
            changes += self._settle(at, latency)
            match evidence:
                case Up():
                    self._up(evidence, latency)
                case Late():
                    self._late(evidence, delta)
                case Down() | Closed():
                    changes.extend(self._down(evidence, now))
        changes += self._settle(min(now, horizon), latency)
        return changes

    def _settle(self, at: float, latency: float) -> list[Change]:
        """Finish the runs that evidence from `at` on tells nothing about."""
        settled = [run for run in self._settling if _settled_at(run) <= at]
        self._settling = [run for run in self._settling if _settled_at(run) > at]
        return [_finish(run, self.interval, latency) for run in settled]

    def forget(self, conn: int, *, cut: bool = False) -> None:
        """Connection `conn` is watched no longer: its silence from now on says nothing.

        cut: it shook hands, and a part of what was said on it then did not get through, which is the path's doing.
        """
        for run in self._open_runs():
            if cut and conn in run.waiting:
                run.cut += 1
                _no_peer(run)
            run.waiting.discard(conn)

    def open_event(self, now: float) -> Event | None:
        """The open event as it stands at `now` (end_latest None, upper and estimate still growing), if there is one."""
        run = self._run
        return None if run is None else _so_far(run, now)

    def unfinished(self, now: float) -> list[Event]:
        """What is open, and what has ended (its end_latest says when) but is not told apart yet."""
        return [_so_far(run, now) for run in self._open_runs()]

    def _open_runs(self) -> Iterator[Run]:
        run = self._run  # once: a scrape looks from another thread, and finds either none or a whole one
        if run is not None:
            yield run
        yield from self._settling

    def _up(self, up: Up, latency: float) -> None:
        self._seen = True
        run = self._run
        if run is not None and up.s >= run.end_earliest:
            self._end(run, up.e)
        self._good = max(self._good, up.s)
        if up.e - up.s > max(WAITED, 4 * latency):
            for each in self._open_runs():
                each.waited.append(up)

    def _late(self, late: Late, delta: float) -> None:
        for run in self._open_runs():
            if late.conn in run.waiting or late.conn in run.lost or run.end_latest is None:
                run.late.append(late)
            if late.conn in run.waiting:
                run.waiting.remove(late.conn)
                run.released.add(late.conn)
                run.resent = run.resent or late.resent
        run_open = self._run
        if run_open is not None and late.e > run_open.end_earliest + 2 * delta:
            self._end(run_open, late.e)

    def _end(self, run: Run, at: float) -> None:
        run.end_latest = at
        self._last_down = run.end_earliest
        self._settling.append(run)
        self._run = None

    def _down(self, down: Down | Closed, now: float) -> Iterator[Change]:
        if not self._seen:
            return
        begin = down.f if isinstance(down, Closed) else down.s
        run = self._run or self._new(begin, now)
        run.end_earliest = max(run.end_earliest, begin)
        run.causes[down.cause] += 1
        if self._run is None:
            self._numbers = run.number
            self._run = run
            yield Opened(run.number, now)
        if isinstance(down, Closed):
            run.flow_closed = True
            if run.first == begin and down.sharp:
                run.closed_at = begin
            return
        if down.grid:
            if run.points:
                yield from self._count(run, run.points)
            else:
                run.first_point = begin
            run.points += 1
            run.last_point = begin
            run.point_ledger = "path"
        run.start_latest = min(run.start_latest, down.hi)
        if down.scope == "flow":
            if down.cause == SILENCE:
                run.lost[down.conn] = down.s
                if down.arrived:
                    run.arrived.add(down.conn)
            return
        _fresh_lost(run, down)
        yield from self._count(run, run.points - 1)

    def _new(self, begin: float, now: float) -> Run:
        run = Run(self._numbers + 1, now, max(self._good, self._last_down), begin)
        if run.start_earliest == self._before:  # what we did not look at is a gap, of which bounds alone may have more
            run.likely_start = max(begin - self.interval / 2, self._before)
        return run

    def _count(self, run: Run, points: int) -> Iterator[Counted]:
        """So many grid points; of an outage no less than its lower bound, which grows between points and over gaps."""
        certain = _least(run) if run.fresh == "path" else 0.0  # any other may yet be of another book
        due = max(points * self.interval, certain) - sum(run.counted.values())
        if due > 0:
            ledger: Ledger = "path" if run.fresh == "path" else run.point_ledger
            run.counted[ledger] = run.counted.get(ledger, 0.0) + due
            yield Counted(ledger, due)


def _fresh_lost(run: Run, down: Down) -> None:
    """A fresh connection failed (rule 10)."""
    run.fresh = run.fresh or down.scope
    run.point_ledger = down.scope
    if down.scope == "peer":
        run.shaken += 1
        run.waiting.add(down.conn)
        return
    run.unreached = True
    if not run.waiting and not _answers(run):
        _no_peer(run)


def _no_peer(run: Run) -> None:
    """A connection was not lost to a frozen peer; STRANGE of them show that there is none."""
    run.strange += 1
    if run.strange >= STRANGE:
        run.fresh = "path"


def _least(run: Run) -> float:
    """The lower bound so far (rule 7)."""
    return max(0.0, run.end_earliest - min(run.start_latest, run.end_earliest))


def _so_far(run: Run, now: float) -> Event:
    """A run as it stands at `now`, with the kind it looks like."""
    lower = _least(run)
    kind: Kind = "outage" if _is_path(run) else "frozen" if run.fresh == "peer" else "break"
    until = now if run.end_latest is None else run.end_latest
    upper = until - run.start_earliest
    estimate = min(max(until - run.start(), lower), upper)
    return _event(run, kind, (lower, estimate, upper), unconfirmed=False)


def _is_path(run: Run) -> bool:
    return run.fresh == "path" or (run.unreached and run.shaken < 2)


def _answers(run: Run) -> dict[int, float]:
    """When connections that shook hands, or were established, were answered after all, after the last failure."""
    held = run.released | run.lost.keys()
    return {late.conn: late.e for late in run.late if late.e > run.end_earliest and late.conn in held}


def _settled_at(run: Run) -> float:
    """When enough is known of an ended run to name its kind."""
    assert run.end_latest is not None
    at = run.end_latest + (ANSWER_ALL if run.waiting else SETTLE)
    if run.fresh is None and not run.flow_closed:
        answered = {late.conn for late in run.late}
        at = max([at, *(s + RESCUED for conn, s in run.lost.items() if conn not in answered)])
    return at


def _kind(run: Run) -> tuple[Ledger, bool]:
    """Which book an ended run belongs in (rule 10), and whether that is a guess ("unconfirmed")."""
    assert run.end_latest is not None
    if run.fresh is None:
        rescued = [late for late in run.late if late.conn in run.lost]
        if any(up.s <= late.e <= up.e + THAW for up in run.waited for late in rescued):
            return "peer", False
        soonest = min((late.e - late.s for late in rescued), default=NEVER)
        if run.flow_closed or soonest > RESCUED:
            return "flow", False
        kept = all(late.conn in run.arrived and late.way <= UNTOUCHED for late in rescued)
        slow = (soonest <= UNTOUCHED or kept) and not run.counted  # counted seconds never move
        return ("peer" if slow else "path"), True
    answers = _answers(run)
    together = bool(answers) and max(answers.values()) - min(answers.values()) <= TOGETHER and not run.waiting
    alone = run.unreached and len(answers) < 2
    frozen = run.fresh == "peer" and together and not alone and not run.resent
    return ("peer" if frozen else "path"), False


def _thaw(run: Run, *, frozen: bool) -> float | None:
    """When late answers were released, if they were: the end is right there.

    Of a frozen peer the first is one, otherwise two connections must be answered together. After the first proof of
    life there is none: then something else held them up.
    """
    assert run.end_latest is not None
    latest = run.end_latest + THAW
    late = sorted((each.e, each.conn) for each in run.late if run.end_earliest < each.e <= latest)
    if frozen:
        return late[0][0] if late else None
    return next((e for (e, conn), (after, other) in pairwise(late) if after - e <= THAW and conn != other), None)


def _finish(run: Run, interval: float, latency: float) -> Finished:
    """Name an ended run, compute its bounds and estimate (rules 6, 7, 11)."""
    assert run.end_latest is not None
    ledger, unconfirmed = _kind(run)
    # A run that only a close opened has no down evidence; the flow was surely broken at the close.
    run.start_latest = min(run.start_latest, run.end_earliest) if run.start_latest == NEVER else run.start_latest
    lower = max(0.0, run.end_earliest - run.start_latest)
    upper = run.end_latest - run.start_earliest
    thaw = _thaw(run, frozen=ledger == "peer")
    end = (run.end_earliest + run.end_latest) / 2 if thaw is None else thaw
    whole = round((run.last_point - run.first_point) / interval) + 1 == run.points
    if ledger == "flow":
        estimate = run.end_latest - run.start()  # the stream was back exactly when the fresh connection answered
    elif whole and run.closed_at is None and thaw is None:
        estimate = interval * run.points - latency
    else:
        estimate = end - run.start()
    counted = sum(run.counted.values())
    estimate = min(max(estimate, lower, counted), upper)  # counted seconds never move, though latency is left out
    kinds: dict[Ledger, Kind] = {"flow": "break", "peer": "frozen", "path": "blip" if run.points <= 1 else "outage"}
    event = _event(run, kinds[ledger], (lower, estimate, upper), unconfirmed=unconfirmed)
    return Finished(event, ledger, max(0.0, estimate - counted))


def _event(run: Run, kind: Kind, bounds: tuple[float, float, float], *, unconfirmed: bool) -> Event:
    lower, estimate, upper = bounds
    cause = max(run.causes, key=run.causes.__getitem__)
    if kind == "frozen":
        cause = "peer_frozen"
    elif kind == "break" and cause == SILENCE:
        cause = "stalled"
    start_latest = min(run.start_latest, run.end_latest) if run.end_latest is not None else run.start_latest
    if start_latest == NEVER:
        start_latest = run.first
    return Event(
        number=run.number,
        kind=kind,
        start_earliest=run.start_earliest,
        start_latest=start_latest,
        end_earliest=run.end_earliest,
        end_latest=run.end_latest,
        lower=lower,
        estimate=estimate,
        upper=upper,
        detected=run.detected,
        cause=cause,
        causes=dict(run.causes),
        grid_points=run.points,
        unconfirmed=unconfirmed,
        likely_start=run.likely_start,
    )
