"""One stream at work: it sends probes on its grid, stamps them, judges them, and tells its book what they prove.

http opens a connection for every probe. tcp and ws keep one and send numbered heartbeats on it; at the first lost one a
fresh connection is tried at once, and while the target is down at each grid point and at least every 0.1 s, so that the
old connection's retransmission back-off lengthens nothing. Connections with unanswered probes stay open for `patience`:
what they answer late tells when, and of what kind, an outage was.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import Any, Protocol

import msgspec

from exporters.probing.connection import Connection, LocalError, Poller
from exporters.probing.latency import Latency
from exporters.probing.outage import NEVER, Book, Closed, Counted, Down, Evidence, Finished, Late, Opened, Scope, Up
from exporters.probing.protocols import PROTOCOLS, BadReplyError, Exchange, Hello, Reply
from exporters.probing.schedule import Wheel, first_point, phase, serve
from exporters.probing.stall import Stalls
from exporters.probing.stats import Stats
from exporters.settings import Stream as Spec

RETRY = 0.1  # seconds between fresh connections while down
ROUNDING = 1e-6  # seconds that a time may lose on its way through a slot
BIG_EVERY = 10  # heartbeats; one in so many is a big one
DIRECT = {"pod", "service", "nodeport", "egress"}  # paths on which no proxy ends a connection before its target
RELEARN = 64  # answers after which the limits that follow from latency are computed again
RELEARN_EARLY = 4  # the same among the first RELEARN


class Shared(Protocol):
    """What a stream uses of its engine."""

    poller: Poller
    wheel: Wheel
    stalls: Stalls

    def number(self) -> int:
        """A number no connection had before."""

    def admit(self) -> bool:
        """May a connection be opened that the grid asks for?"""

    def admit_optional(self, stream: Stream) -> bool:
        """May one be opened besides? These go first when there is much to do or descriptors get scarce.

        If not, the stream is called `again` when one may.
        """

    def waiting(self, stream: Stream, link: Link) -> None:
        """`link` stays open only for late answers: the first to go when descriptors get scarce."""

    def look_for_sleep(self) -> None:
        """If the machine slept, all streams begin anew."""

    def met_itself(self, stream: Stream) -> None:
        """The target turned out to be this very process."""


class Probe(msgspec.Struct, eq=False, gc=False):
    """One exchange under way. clean: its failure proves something about the moment it started.

    Such a struct is made in a fifth of a dataclass' time, and the collector need not look at it.
    """

    started: float
    called: float
    seq: int
    grid: bool
    fresh: bool
    clean: bool
    big: bool
    wrote: float = 0.0
    decided: bool = False
    due: float = 0.0  # when it is to be judged


@dataclass(slots=True, eq=False)
class Link:
    """A connection, what is said on it, and the probes that wait for an answer there."""

    conn: Connection
    outstanding: dict[int, Probe] = field(default_factory=dict)
    first: Probe | None = None  # to be sent when the connection is ready
    exchange: Exchange = field(init=False)  # when it is open: of a mass of connections that come to nothing none is


class Stream:
    """A stream's probes. `address` is filled in by the resolver; while it is None nothing can be probed."""

    def __init__(self, spec: Spec, hello: Hello, tls: ssl.SSLContext | None, shared: Shared, stats: Stats) -> None:
        self.spec = spec
        self.stats = stats
        self.address: tuple[Any, ...] | None = None
        self.resolve_cause = ""
        self.stopped = False
        self._hello = hello
        self._tls: tuple[ssl.SSLContext, str] | None = None
        self.use_tls(tls)
        self._shared = shared
        self._speech = PROTOCOLS[spec.protocol]
        self._talk = partial(self._speech.exchange, hello)
        self._book = Book(spec.interval)
        self._latency = Latency()
        self._last_answer = 0.0
        self._deadline = spec.prompt
        self._delta = self._latency.ceiling(spec.prompt)
        self._links: dict[int, Link] = {}
        self._live: Link | None = None
        self._undecided: dict[Probe, Link] = {}  # oldest first
        self._first_point = 0.0
        self._points = 0  # served or missed
        self._seq = 0
        self._last_fresh = 0.0
        self._retry_filed = False
        self._lost_big = False
        self._wake_filed = 0.0
        self._late_since = monotonic()  # no prompt answer since then

    def use_tls(self, tls: ssl.SSLContext | None) -> None:
        """Connect by that from now on, if we are to speak TLS."""
        if tls is not None and self.spec.tls is not None:
            # A name's last dot keeps the resolver from trying suffixes; no certificate has it.
            self._tls = tls, (self.spec.tls.server_name or self.spec.host).removesuffix(".")

    # -- the grid

    def start(self, now: float) -> None:
        interval = self.spec.interval
        self._first_point = first_point(phase(self.spec.key, interval), interval, now)
        self._shared.wheel.every(self._first_point, interval, self._on_point)
        self.stats.begin(now)
        self._book = Book(interval, self.stats.reached_before(now))

    def begin_anew(self, slept: float) -> None:
        """After the machine slept for so many seconds: forget what was under way, and how the target is."""
        for link in list(self._links.values()):
            for probe in link.outstanding.values():
                probe.decided = True
            self._drop(link)
        self._give_up("suspended")
        self._live = None
        self._lost_big = False
        self._wake_filed = 0.0
        self._late_since = monotonic()
        self.stats.cut(slept)
        self._book = Book(self.spec.interval, self.stats.reached_before(monotonic()))

    def stop(self) -> None:
        """Close everything; what is undecided stays unknown."""
        self.stopped = True
        if self._first_point:  # else it never began
            self._shared.wheel.never(self._first_point, self.spec.interval, self._on_point)
        self._give_up("shutdown")
        for link in list(self._links.values()):
            self._drop(link)
        self._live = None

    def _give_up(self, reason: str) -> None:
        """What is undecided becomes unknown."""
        undecided = sum(probe.clean for probe in self._undecided)
        if undecided:
            self.stats.unknown(reason, undecided)
        self._undecided.clear()

    def _on_point(self, now: float) -> None:
        lag, missed = serve(self._first_point, self.spec.interval, self._points, now)
        if missed < 0 or self.stopped:  # within this very tick
            return
        self._points += 1 + missed
        self.stats.scheduled(lag, missed)
        if self.address is None:
            if self.resolve_cause:
                self.stats.probes += 1
                self.stats.failed(self.resolve_cause)
            else:
                self.stats.unresolved()
        elif self._live is not None and self._live.exchange.ready:
            self._heartbeat(self._live)
        else:
            self._fresh(grid=True)

    def _heartbeat(self, link: Link) -> None:
        self._seq += 1
        big = self._seq % BIG_EVERY == 0
        data = link.exchange.heartbeat(self._seq, big=big)
        probe = Probe(monotonic(), 0.0, self._seq, grid=True, fresh=False, clean=not link.outstanding, big=big)
        link.conn.send(data)
        probe.called = probe.wrote = monotonic()
        self._watch(link, probe)

    def _fresh(self, *, grid: bool) -> None:
        shared = self._shared
        assert self.address is not None
        if grid and not shared.admit():
            self.stats.unknown("descriptors", 1)
            return
        try:
            conn = Connection(shared.poller, self, shared.number(), self.address, self._tls)
        except LocalError as error:
            self.stats.unknown(error.args[0], 1)
            return
        self._seq += 1
        big = self._lost_big or self._seq % BIG_EVERY == 0
        probe = Probe(conn.started, conn.called, self._seq, grid=grid, fresh=True, clean=True, big=big)
        link = Link(conn, first=probe)
        self._links[conn.number] = link
        self._last_fresh = conn.started
        self._watch(link, probe)

    def _watch(self, link: Link, probe: Probe) -> None:
        link.outstanding[probe.seq] = probe
        self._undecided[probe] = link
        self.stats.probes += 1
        probe.due = due = probe.started + self._deadline
        self._shared.wheel.at(due, self._on_due)

    # -- what the connections tell (Owner)

    def opened(self, conn: Connection) -> None:
        link = self._links[conn.number]
        link.exchange = self._talk()
        data = link.exchange.opening()
        if link.exchange.ready:
            data += self._first(link)
        conn.send(data)
        self._note_write(link)

    def received(self, conn: Connection, data: bytes) -> None:
        link = self._links[conn.number]
        exchange = link.exchange
        try:
            replies = exchange.feed(data)
        except BadReplyError as error:
            for reply in error.replies:
                self._answered(link, reply)
            conn.close()
            if conn.number in self._links:
                self._failed(link, error.args[0])
            return
        owed = exchange.owed()
        if link.first is not None and exchange.ready:
            owed += self._first(link)
        if owed:
            conn.send(owed)
            self._note_write(link)
        for reply in replies:
            self._answered(link, reply)
        if link is self._live and not exchange.ready:  # a goodbye came with the answer
            self._failed(link, "closed")

    def ended(self, conn: Connection, cause: str) -> None:
        self._shared.look_for_sleep()  # the next tick would tell too late that it slept through this
        if conn.number not in self._links:
            return
        link = self._links[conn.number]
        try:
            replies, cause = link.exchange.ended(cause) if conn.ready else ([], cause)
        except BadReplyError as error:
            replies, cause = [], error.args[0]
        for reply in replies:
            self._answered(link, reply)
        if conn.number in self._links:
            self._failed(link, cause)

    def _first(self, link: Link) -> bytes:
        assert link.first is not None
        probe, link.first = link.first, None
        return link.exchange.heartbeat(probe.seq, big=probe.big)

    def _note_write(self, link: Link) -> None:
        for probe in link.outstanding.values():
            probe.wrote = link.conn.wrote

    # -- verdicts

    def _answered(self, link: Link, reply: Reply) -> None:
        now = monotonic()
        probe = link.outstanding.pop(reply.seq, None)
        if probe is None:
            return  # an answer to nothing we wait for
        if link.outstanding:
            for seq in [seq for seq, other in link.outstanding.items() if seq < reply.seq and other.decided]:
                del link.outstanding[seq]  # replies come in order: the peer left this one out
        stats, info = self.stats, reply.info
        if info is not stats.peer and info.get("instance") == self._hello.instance:
            link.outstanding.clear()
            self._shared.met_itself(self)
            return
        started = probe.started
        round_trip = now - started
        if not self._shared.stalls.overlap(started, now):
            self._learn(round_trip, now, lost=probe.decided)
        if probe.decided:
            way = stats.offset.way(time(), reply.time, info.get("instance", ""))
            self._tell(Late(started, now, link.conn.number, link.conn.resent, way), now)
        else:
            self._decide(probe)
            stats.succeeded(time(), round_trip, info, reply.time)
            if probe.grid:
                stats.observed(now, self.spec.interval)
            if probe.big:
                self._lost_big = False
            horizon = self._horizon() if self._undecided else NEVER
            if not (stats.seen() and self._book.good(started, now, horizon)):
                self._tell(Up(started, now, link.conn.number), now)
        if link is not self._live:
            self._keep(link)

    def _keep(self, link: Link) -> None:
        """A connection that answered becomes the live one, if there is none; else nothing more is wanted of it."""
        if not self._speech.persistent:
            self._drop(link)
        elif self._live is None and not link.outstanding and not self.stopped:
            self._live = link
            link.conn.settled()
        elif self._live is not link and not link.outstanding:
            self._drop(link)

    def _on_due(self, now: float) -> None:
        """A probe is to be judged now; mostly it was answered, and there is none."""
        if not self._undecided:
            return
        for probe, link in list(self._undecided.items()):
            if not probe.decided and probe.due <= now + ROUNDING:
                self._judge(link, probe, now)

    def _judge(self, link: Link, probe: Probe, now: float) -> None:
        # Where the handshake is not done even now that sockets were read, a stall held up nothing but its answer.
        wrote = probe.wrote if link.conn.connected else probe.called
        due = self._shared.stalls.verdict(probe.started, wrote, probe.started + self._deadline, self.spec.prompt)
        if due > now:
            probe.due = due
            self._shared.wheel.at(due, self._on_due)
            return
        self._decide(probe)
        conn = link.conn
        live = self._live is link
        if not probe.clean:
            self._advance(now)
        elif not probe.fresh:
            self._lost(link, probe, "flow", "response_timeout", hi=probe.called + self._delta, now=now)
        elif not conn.connected:
            self._lost(link, probe, "path", "connect_timeout", hi=probe.called + self._delta, now=now)
        elif self._shook_promptly(conn):
            cause = "stalled" if self._book.cut else "response_timeout"
            self._lost(link, probe, "peer", cause, hi=conn.wrote + self._delta, now=now)
        else:
            self._lost(link, probe, "path", "response_timeout", hi=probe.called + self._delta, now=now)
        self._shared.waiting(self, link)
        self._shared.wheel.at(probe.started + self.spec.patience, lambda _now: self.expire(link))
        if live and probe.clean:
            self._live = None
            self._again(now)
        elif probe.clean:
            self._file_retry()

    def _shook_promptly(self, conn: Connection) -> bool:
        """Was the handshake done before its first retransmission? A busy machine of ours makes it only look late."""
        late = conn.connected - conn.started > self.spec.prompt
        return not late or not conn.resent or self._shared.stalls.overlap(conn.started, conn.connected)

    def expire(self, link: Link) -> None:
        """Stop waiting for late answers on `link`, if that is all it is open for."""
        undecided = any(not probe.decided for probe in link.outstanding.values())
        conn = link.conn
        if link is not self._live and not undecided and conn.number in self._links:
            self._book.forget(conn.number, cut=conn.cut(begun=conn.ready and link.exchange.begun))
            self._drop(link)
            self.stats.state(self._state())

    def _failed(self, link: Link, cause: str) -> None:
        """The connection is over; every probe on it that was undecided has failed, now and for a named cause."""
        now = monotonic()
        was_live = link is self._live
        self._book.forget(link.conn.number)
        self._drop(link)
        undecided = [probe for probe in link.outstanding.values() if not probe.decided]
        for probe in undecided:
            self._decide(probe)
            if probe.clean:
                scope: Scope = "path" if probe.fresh else "flow"
                self._lost(link, probe, scope, cause, hi=now, now=now)
        if was_live:
            self._live = None
            if not undecided:
                sharp = not self._shared.stalls.just_ended(now, self.spec.prompt)
                self.stats.cause = cause  # no probe failed
                self._tell(Closed(now, cause, sharp, link.conn.number), now)
            self._again(now)
        elif undecided:
            self._file_retry()

    def _lost(self, link: Link, probe: Probe, scope: Scope, cause: str, *, hi: float, now: float) -> None:
        self.stats.failed(cause)
        if probe.grid:
            self.stats.observed(now, self.spec.interval)
        self._lost_big = self._lost_big or (probe.big and not probe.fresh)
        # What a proxy has may yet be lost.
        arrived = scope == "flow" and self.spec.path in DIRECT and link.conn.arrived
        self._tell(Down(probe.started, hi, scope, cause, probe.grid, link.conn.number, arrived), now)

    # -- fresh connections while down

    def _again(self, now: float) -> None:
        """A fresh connection at once; but not faster than every RETRY, should the peer close each one."""
        if self.address is None or self.stopped or not self._book.failing:
            return
        if now - self._last_fresh >= min(RETRY, self.spec.interval):
            if not self._shared.admit_optional(self):
                return
            self._fresh(grid=False)
        self._file_retry()

    def _file_retry(self) -> None:
        if self._speech.persistent and self.spec.interval > RETRY and not self._retry_filed:
            self._retry_filed = True
            self._shared.wheel.at(self._last_fresh + RETRY, self._on_retry)

    def _on_retry(self, now: float) -> None:
        self._retry_filed = False
        self.again(now)

    def again(self, now: float) -> None:
        """Try a fresh connection, unless one has answered meanwhile."""
        if self._live is None:
            self._again(now)

    # -- the book

    def _tell(self, evidence: Evidence, now: float) -> None:
        changes = self._book.add(evidence, now, self._horizon(), self._delta, self._usual())
        if changes or not self._book.idle or not self.stats.seen():
            self._apply(changes, now)

    def _advance(self, now: float) -> None:
        if not self._book.idle:
            self._apply(self._book.advance(now, self._horizon(), self._delta, self._usual()), now)

    def _apply(self, changes: list[Opened | Counted | Finished], now: float) -> None:
        for change in changes:
            match change:
                case Opened():
                    self.stats.opened(change, self._book.unfinished)
                case Counted():
                    self.stats.counted(change)
                case Finished():
                    event = change.event
                    assert event.end_latest is not None
                    stalled = self._shared.stalls.overlap(event.start_earliest, event.end_latest)
                    self.stats.finished(change, stall_overlap=stalled)
        self.stats.state(self._state())
        wake = self._book.wake()
        if now < wake < NEVER and wake != self._wake_filed:
            self._wake_filed = wake
            self._shared.wheel.at(wake, self._advance)

    def _state(self) -> str:
        if not self._book.seen:
            return "unknown"
        if not self._book.failing:
            return "up"
        event = self._book.open_event(0.0)
        return "frozen" if event is not None and event.kind == "frozen" else "down"

    def _horizon(self) -> float:
        """No evidence with an earlier time can still come."""
        for probe in self._undecided:
            if probe.clean:
                return probe.started
        return NEVER

    def _usual(self) -> float:
        """The ordinary latency, which an estimate leaves out; asked only where an event can end."""
        return 0.0 if self._book.idle else self._latency.quantile(0.5)

    def _decide(self, probe: Probe) -> None:
        probe.decided = True
        del self._undecided[probe]

    def _learn(self, round_trip: float, now: float, *, lost: bool) -> None:
        """Take a round trip into account, unless an outage made it.

        Late answers count when answers have been late for so long that this is how the path is now. Late is what came
        after R, whatever the deadline is by now: else answers that TCP rescued would stretch it, which makes more of
        them prompt. Nor do those count that a long silence held up.
        """
        late = lost or round_trip > self.spec.prompt
        silent, self._last_answer = now - self._last_answer, now
        if not late or silent > self.spec.patience:
            self._late_since = now
        if late and now - self._late_since < 2 * self.spec.patience:
            return
        latency = self._latency
        latency.add(round_trip)
        total = latency.total
        if total % RELEARN == 0 or (total <= RELEARN and total % RELEARN_EARLY == 0) or total < RELEARN_EARLY:
            self._delta = latency.ceiling(self.spec.prompt)
            self._deadline = latency.deadline(self.spec.prompt)
            self.stats.slow = self._deadline > self.spec.prompt
            if self.stats.slow:
                self.stats.deadline = self._deadline
                self._delta = min(max(1.5 * latency.quantile(0.999), self._delta), self._deadline)

    def _drop(self, link: Link) -> None:
        link.conn.close()
        self._links.pop(link.conn.number, None)
        if self._live is link:
            self._live = None
