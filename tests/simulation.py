"""A network, a server and a prober on simulated time, so that the rules of `outage` meet a truth that is known exactly.

The prober is written from the rules, not from `exporters.probing.stream`: the two agree only if both are right.

 1. A packet crosses the place of the fault half way. Lost ones go again as Linux sends them: a SYN after 1, 3 and 7 s,
    data 0.2 s after the first time, then after twice as long again.
 2. drop, drop_request, drop_reply lose packets (both ways, or one); refuse answers them with a RST, to either end;
    established loses those of connections older than the fault; reset closes the connections that are open.
 3. frozen: the kernel shakes hands and acknowledges, the process answers when it goes on; full: likewise, but only two
    connections find room in its queue. kill: the process is gone, its connections with it; another listens at the end.
 4. The prober may sleep: then its reads and timers wait, reads first, while the kernels go on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from statistics import median
from typing import Literal

from exporters.probing.outage import NEVER, Book, Change, Closed, Counted, Down, Evidence, Finished, Late, Up
from exporters.probing.schedule import SLOT

Kind = Literal["drop", "drop_request", "drop_reply", "refuse", "established", "reset", "frozen", "full", "kill"]
Protocol = Literal["http", "tcp", "ws"]
Way = Literal["request", "reply"]

SYN = (0.0, 1.0, 3.0, 7.0)
DATA = (0.0, 0.2, 0.6, 1.4, 3.0, 6.2)
PATIENCE = 3.0
RETRY = 0.1
ROOM = 2  # connections in the queue of a server that is full
READ, TIMER = 0, 1


@dataclass(frozen=True)
class Fault:
    """What is broken in [begin, end); seconds."""

    kind: Kind
    begin: float
    end: float


@dataclass(frozen=True)
class Setting:
    """A stream (interval T, prompt limit R) and around it: one-way latency, time to answer, sleeps of its own."""

    protocol: Protocol = "tcp"
    interval: float = 0.1
    prompt: float = 0.06
    phase: float = 0.0
    latency: float = 0.0002
    answer: float = 0.0001
    sleeps: Sequence[tuple[float, float]] = ()
    acknowledge: float = 0.04  # after which Linux does so alone; big messages at once


@dataclass(eq=False)
class Probe:
    """started, and the last write of its request (0.0: none yet)."""

    started: float
    grid: bool
    fresh: bool
    wrote: float = 0.0
    decided: bool = False


@dataclass(eq=False)
class Connection:
    """A connection as both ends know it. probe: what waits for an answer on it; gone: when the server forgot it."""

    number: int
    probe: Probe | None
    connected: float = 0.0
    upgraded: bool = False
    closed: bool = False
    accepted: float = NEVER
    gone: float = NEVER
    resent: bool = False  # did the client's kernel send anything again?
    arrived: float = NEVER  # when it was told that the request had arrived that it sent last, and once
    written: float = 0.0  # when the server wrote its last answer


class Clock:
    """Calls in the order of their times; at one time, reads before timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, when: float, call: Callable[[], None], rank: int = READ) -> None:
        self._number += 1
        heappush(self._calls, (when, rank, self._number, call))

    def run(self, until: float) -> None:
        while self._calls and self._calls[0][0] <= until:
            self.now, _, _, call = heappop(self._calls)
            call()


class Network:
    """Carries what a prober sends to a server and back, as the faults let it. No two faults overlap."""

    def __init__(self, clock: Clock, setting: Setting, faults: Iterable[Fault]) -> None:
        self._clock = clock
        self._setting = setting
        self._faults = sorted(faults, key=lambda fault: fault.begin)
        self._begins = [fault.begin for fault in self._faults]
        self._endings = [fault for fault in self._faults if fault.kind in {"kill", "reset"}]
        self._queued: Counter[Fault] = Counter()

    def connect(self, prober: Prober, conn: Connection) -> None:
        latency = self._setting.latency
        for wait in SYN:
            conn.resent = conn.resent or wait > 0
            leaves = self._clock.now + wait
            arrives = leaves + latency
            fate = self._fate(leaves, "request", NEVER)
            fault = self._fault(arrives)
            if fault is not None and fault.kind == "full" and fate == "pass":
                self._queued[fault] += 1
                fate = "drop" if self._queued[fault] > ROOM else fate
            if fate == "pass" and self._fate(arrives, "reply", NEVER) == "pass":
                back = arrives + latency
                if fault is not None and fault.kind == "kill":
                    prober.hears(back, lambda: prober.ended(conn, "refused"))
                else:
                    conn.accepted = arrives
                    prober.hears(back, lambda: self._connected(prober, conn))
                return
            if fate == "refuse":
                prober.hears(arrives, lambda: prober.ended(conn, "refused"))
                return

    def _connected(self, prober: Prober, conn: Connection) -> None:
        following = bisect_right(self._endings, conn.accepted, key=lambda fault: fault.begin)
        for fault in self._endings[following : following + 1]:
            if fault.kind == "kill":
                conn.gone = min(conn.gone, fault.begin)
                prober.hears(fault.begin + self._setting.latency, lambda: prober.ended(conn, "closed"))
            else:
                prober.hears(fault.begin, lambda: prober.ended(conn, "reset"))
        prober.opened(conn)

    def send(self, prober: Prober, conn: Connection, probe: Probe | None) -> None:
        """Carry a request; probe None is a ws upgrade."""
        self._request(prober, conn, probe, [self._clock.now + wait for wait in DATA])

    def _request(self, prober: Prober, conn: Connection, probe: Probe | None, attempts: list[float]) -> None:
        latency = self._setting.latency
        for index, leaves in enumerate(attempts):
            conn.resent = conn.resent or index > 0
            arrives = leaves + latency
            fate = self._fate(leaves, "request", conn.accepted)
            if index == 0:
                # With the reply, if that comes soon.
                told = min(self._served(arrives), arrives + self._setting.acknowledge)
                passes = fate == "pass" and max(arrives, told) < conn.gone
                passes = passes and self._fate(told, "reply", conn.accepted) == "pass"
                conn.arrived = told + latency if passes else NEVER
            if fate == "refuse" or (fate == "pass" and arrives >= conn.gone):
                prober.hears(arrives + (latency if fate == "pass" else 0.0), lambda: prober.ended(conn, "reset"))
                return
            if fate == "pass":
                again = attempts[index + 1 :]
                self._clock.at(self._served(arrives), partial(self._reply, prober, conn, probe, again))
                return

    def _reply(self, prober: Prober, conn: Connection, probe: Probe | None, again: list[float]) -> None:
        conn.written = self._clock.now
        for wait in DATA:
            conn.resent = conn.resent or wait > 0  # for the acknowledgement was lost with the reply
            leaves = self._clock.now + wait
            if leaves >= conn.gone:
                return
            fate = self._fate(leaves, "reply", conn.accepted)
            if fate == "pass":
                prober.hears(leaves + self._setting.latency, lambda: prober.answered(conn, probe))
                return
            if fate == "refuse":  # the server forgets the connection, the client learns it when it sends again
                conn.gone = leaves
                self._request(prober, conn, probe, [attempt for attempt in again if attempt > leaves])
                return

    def _fate(self, leaves: float, way: Way, accepted: float) -> str:
        fault = self._fault(leaves + self._setting.latency / 2)
        if fault is None:
            return "pass"
        if fault.kind in {"drop", f"drop_{way}"} or (fault.kind == "established" and accepted < fault.begin):
            return "drop"
        return "refuse" if fault.kind == "refuse" else "pass"

    def _fault(self, when: float) -> Fault | None:
        index = bisect_right(self._begins, when) - 1
        return self._faults[index] if index >= 0 and when < self._faults[index].end else None

    def _served(self, arrives: float) -> float:
        done = arrives + self._setting.answer
        fault = self._fault(done) or self._fault(arrives)
        if fault is not None and fault.kind in {"frozen", "full"}:
            done += fault.end - max(arrives, fault.begin)
        return done


@dataclass
class Prober:
    """Probes one target on its grid and tells the book what that proves; keeps all that the book said."""

    clock: Clock
    setting: Setting
    faults: Sequence[Fault] = ()
    changes: list[Change] = field(default_factory=list)
    answers: int = 0

    def __post_init__(self) -> None:
        self.book = Book(self.setting.interval)
        self._network = Network(self.clock, self.setting, self.faults)
        self._live: Connection | None = None
        self._undecided: list[Probe] = []
        self._prompt: list[float] = []  # the last round trips
        self._largest = 0.0
        self._numbers = 0
        self._point = self.setting.phase
        self._last_fresh = -NEVER
        self._retrying = False
        self._wait(self._point, self._on_point)

    # -- time: a sleeping prober neither reads nor acts

    def hears(self, when: float, call: Callable[[], None]) -> None:
        self.clock.at(self._awake(when), call, READ)

    def _wait(self, when: float, call: Callable[[], None]) -> None:
        slot = -(-when // SLOT) * SLOT
        self.clock.at(self._awake(max(slot, self.clock.now)), call, TIMER)

    def _awake(self, when: float) -> float:
        for begin, end in self.setting.sleeps:
            if begin <= when < end:
                return end
        return when

    # -- probing

    def _on_point(self) -> None:
        now, interval = self.clock.now, self.setting.interval
        while self._point <= now + 1e-9:  # what was slept through is not made up for
            self._point += interval
        self._wait(self._point, self._on_point)
        if self._live is None:
            self._fresh(grid=True)
        else:
            probe = Probe(now, grid=True, fresh=False)
            self._live.probe = probe
            self._write(self._live, probe)
            self._watch(self._live, probe)

    def _fresh(self, *, grid: bool) -> None:
        self._numbers += 1
        self._last_fresh = self.clock.now
        probe = Probe(self.clock.now, grid, fresh=True)
        conn = Connection(self._numbers, probe)
        self._network.connect(self, conn)
        self._watch(conn, probe)

    def _write(self, conn: Connection, probe: Probe | None) -> None:
        if conn.probe is not None:
            conn.probe.wrote = self.clock.now
        self._network.send(self, conn, probe)

    def _watch(self, conn: Connection, probe: Probe) -> None:
        self._undecided.append(probe)
        self._wait(probe.started + self.setting.prompt, lambda: self._judge(conn, probe))

    def _again(self) -> None:
        """One more connection at once, and every 0.1 s from now on while there is none that works."""
        if self.setting.protocol == "http" or self._live is not None or not self.book.failing:
            return
        if self.clock.now - self._last_fresh >= min(RETRY, self.setting.interval) - 1e-9:
            self._fresh(grid=False)
        if self.setting.interval > RETRY and not self._retrying:
            self._retrying = True
            self._wait(self._last_fresh + RETRY, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._again()

    # -- what comes back

    def opened(self, conn: Connection) -> None:
        if not conn.closed:
            conn.connected = self.clock.now
            self._write(conn, None if self.setting.protocol == "ws" else conn.probe)

    def answered(self, conn: Connection, probe: Probe | None) -> None:
        if conn.closed:
            return
        if probe is None:
            conn.upgraded = True
            self._write(conn, conn.probe)
            return
        now = self.clock.now
        conn.probe = None
        if probe.decided:
            self._tell(Late(probe.started, now, conn.number, conn.resent, now - conn.written))
        else:
            self.answers += 1
            self._decide(probe)
            if not self._slept(probe.started, now):
                self._prompt = [*self._prompt[-20:], now - probe.started]
                self._largest = max(self._largest, now - probe.started)
            self._tell(Up(probe.started, now, conn.number))
        if self.setting.protocol != "http" and self._live is None:
            self._live = conn
        conn.closed = conn is not self._live

    def ended(self, conn: Connection, cause: str) -> None:
        """The other end refused or closed the connection, or somebody between did."""
        if conn.closed:
            return
        now, probe = self.clock.now, conn.probe
        conn.closed = True
        self.book.forget(conn.number)
        was_live, self._live = conn is self._live, None if conn is self._live else self._live
        if probe is not None and not probe.decided:
            self._decide(probe)
            self._tell(Down(probe.started, now, "path" if probe.fresh else "flow", cause, probe.grid, conn.number))
        elif was_live:
            sharp = not any(0 <= now - end <= self.setting.prompt for _, end in self.setting.sleeps)
            self._tell(Closed(now, cause, sharp, conn.number))
        self._again()

    def _judge(self, conn: Connection, probe: Probe) -> None:
        if probe.decided:
            return
        due = self._due(probe)
        if due > self.clock.now:
            self._wait(due, lambda: self._judge(conn, probe))
            return
        self._decide(probe)
        cause, hi = "response_timeout", probe.started + self._delta
        scope: Literal["path", "peer", "flow"] = "flow"
        if probe.fresh:
            scope, cause = ("path", cause) if conn.connected else ("path", "connect_timeout")
            prompt = conn.connected <= probe.started + self._delta or self._slept(probe.started, conn.connected)
            if conn.connected and prompt:  # or as late as it was read
                scope, hi = "peer", probe.wrote + self._delta
        if conn is self._live:
            self._live = None
        arrived = scope == "flow" and conn.arrived <= self.clock.now
        self._tell(Down(probe.started, hi, scope, cause, probe.grid, conn.number, arrived))
        self._wait(probe.started + PATIENCE, lambda: self._give_up(conn))
        self._again()

    def _due(self, probe: Probe) -> float:
        """Rule 9: a sleep of our own moves the verdict."""
        due = probe.started + self.setting.prompt
        for begin, end in self.setting.sleeps:
            if probe.started < end <= self.clock.now and begin < due:
                in_time = 0.0 < probe.wrote <= begin
                due = max(due, end + (0.010 if in_time else self.setting.prompt))
        return due

    def _slept(self, begin: float, end: float) -> bool:
        return any(g0 < end and g1 > begin for g0, g1 in self.setting.sleeps)

    def _give_up(self, conn: Connection) -> None:
        if conn is not self._live and not conn.closed:
            conn.closed = True
            self.book.forget(conn.number)

    def _decide(self, probe: Probe) -> None:
        probe.decided = True
        self._undecided.remove(probe)

    # -- the book

    @property
    def _delta(self) -> float:
        return min(max(1.5 * self._largest, 0.020), self.setting.prompt)

    def _tell(self, evidence: Evidence | None) -> None:
        horizon = min((probe.started for probe in self._undecided), default=NEVER)
        usual = 0.0 if self.book.idle or not self._prompt else median(self._prompt)
        if evidence is None:
            self.changes += self.book.advance(self.clock.now, horizon, self._delta, usual)
        else:
            self.changes += self.book.add(evidence, self.clock.now, horizon, self._delta, usual)
        wake = self.book.wake()
        if self.clock.now < wake < NEVER:
            self.clock.at(wake, lambda: self._tell(None), TIMER)


def simulate(setting: Setting, faults: Sequence[Fault], until: float) -> Prober:
    """Probe from 0 to `until` seconds through `faults`."""
    clock = Clock()
    prober = Prober(clock, setting, faults)
    clock.run(until)
    return prober


def finished(prober: Prober, *ledgers: str) -> list[Finished]:
    """What was finished, in the books named (or in all)."""
    return [c for c in prober.changes if isinstance(c, Finished) and (not ledgers or c.ledger in ledgers)]


def seconds(prober: Prober, *ledgers: str) -> float:
    """All seconds counted in the books named."""
    return sum(c.seconds for c in prober.changes if isinstance(c, Counted | Finished) and c.ledger in ledgers)


def sequence(kind: Kind, count: int, shortest: float, longest: float, seed: int = 0) -> list[Fault]:
    """`count` faults, log-uniformly long, with pauses of 0.7 to 1.7 s; the first begins after 3 s.

    Lengths, and phases modulo 0.5 s, are an additive recurrence, which covers them more evenly than dice would.
    """
    faults = []
    begin = 3.0
    for index in range(seed, seed + count):
        length = shortest * (longest / shortest) ** (index * 0.7548776662 % 1.0)
        faults.append(Fault(kind, begin, begin + length))
        begin = math.ceil((begin + length + 0.7) * 2) / 2 + index * 0.5698402910 % 0.5
    return faults
