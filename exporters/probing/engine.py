"""All streams of one exporter on one loop: the tick that walks the wheel, and the descriptors they may spend."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import ssl
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import partial
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, time

from exporters.fetch import client_context
from exporters.identity import Identity
from exporters.probing import throttling
from exporters.probing.clocks import Clock, Steps, Suspensions
from exporters.probing.connection import Poller
from exporters.probing.names import Names
from exporters.probing.protocols import Hello
from exporters.probing.record import Record
from exporters.probing.schedule import SLOT, Call, Wheel, turn
from exporters.probing.stall import GAP, Stalls
from exporters.probing.stream import Link, Stream
from exporters.probing.ticker import Ticker
from exporters.probing.watchdog import Watchdog
from exporters.settings import SOFT_LIMIT, SPARE_DESCRIPTORS, Tls
from exporters.settings import Stream as Spec

TELL_THROTTLED_EVERY = 60.0  # seconds

log = logging.getLogger(__name__)

EXTRA_LATE = 4  # of these after a stall
SETTLED = 5.0  # seconds after which what only the start needed is given back
TURN = 0.008  # seconds of judging and sending: with what is read before it less than a stall
AT_ONCE = 25  # calls between two looks at the clock: a millisecond or two
YOUNG = 10_000  # objects made before the collector looks at them: what probing makes goes without it, by counting
EXTRA = 10  # optional connections in a tick, 1000 a second: what is open in a mass outage is answered at once after it


boottime = partial(clock_gettime, CLOCK_BOOTTIME)  # asked at each tick: no function of ours


class Engine:
    """Probes `streams` from `start` to `stop`, with that many descriptors; what comes of it is in `record`."""

    def __init__(
        self,
        streams: Sequence[Spec],
        identity: Identity,
        record: Record,
        loop: asyncio.AbstractEventLoop,
        descriptors: int = SOFT_LIMIT,
        *,
        clock: Clock = boottime,
        wall: Clock = time,
    ) -> None:
        self._loop = loop
        self._record = record
        self.poller = Poller(loop)
        now = monotonic()
        self.wheel = Wheel(now)
        self.stalls = Stalls(now)
        self._suspensions = Suspensions(monotonic, clock)
        self._steps = Steps(wall, clock)
        self._watchdog: Watchdog | None = None
        self._number = 0
        self._extra = 0  # optional connections that this tick may still open
        self._wanting: OrderedDict[Stream, None] = OrderedDict()  # who waits for one
        self._next: Stream | None = None  # of them, whose turn it is
        self._limit = descriptors - SPARE_DESCRIPTORS
        self._waiting: dict[Link, Stream] = {}  # in the order in which they began to wait
        self._ticker: Ticker | None = None
        self._calls: deque[Call] = deque()  # that are due: verdicts and the like
        self._points: OrderedDict[Call, None] = OrderedDict()  # grids that wait to be served
        self._names = Names(loop, _raise_bug)
        self._identity = identity
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._streams = {spec.key: self._stream(spec) for spec in sorted(streams, key=turn)}
        self._floor = self._least()

    def _context(self, tls: Tls | None) -> ssl.SSLContext | None:
        if tls is not None and tls not in self._contexts:
            self._contexts[tls] = client_context(tls)
        return self._contexts[tls] if tls is not None else None

    def _stream(self, spec: Spec) -> Stream:
        hello = Hello(
            source=spec.source,
            instance=self._identity.instance,
            host=spec.host,
            port=spec.port,
            tls=spec.tls is not None,
            url_path=spec.url_path,
            agent=f"ovnwatch/{self._identity.version}",
        )
        return Stream(spec, hello, self._context(spec.tls), self, self._record.stats[spec.key])

    def start(self) -> None:
        """Begin probing; names are looked up in the background."""
        for stream in self._streams.values():
            self._names.add(stream)
        # What lives as long as we do need not be walked again by every full collection, each a stall of its own.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
        self._loop.call_later(SETTLED, _give_back)
        now = monotonic()
        self.stalls = Stalls(now)
        for stream in self._streams.values():
            stream.start(now)
        self._record.throttling = throttling.ours()
        self._record.ticked = lambda: self.stalls.last
        chores = (self._tell_steps, Quota(self._record), self._record.mark)
        self._watchdog = Watchdog(self._loop, threading.get_ident(), self._record.ticked, chores)
        self._watchdog.start()
        self._ticker = Ticker(self._loop, SLOT, self._tick, now)

    def update(self, streams: Sequence[Spec]) -> None:
        """Probe these from now on: a stream that is as it was goes on unbroken, one that is not starts anew."""
        wanted = {spec.key: spec for spec in streams}
        for key, stream in list(self._streams.items()):
            if wanted.get(key) != stream.spec:
                self._end(stream)
        self._read_certificates()
        now = monotonic()
        for key, spec in sorted(wanted.items(), key=lambda each: turn(each[1])):
            if key not in self._streams:
                self._record.add(spec)
                stream = self._streams[key] = self._stream(spec)
                self._names.add(stream)
                stream.start(now)
        self._floor = self._least()

    def _read_certificates(self) -> None:
        """Those of our streams' targets may have been renewed under their names; what is open goes on."""
        self._contexts = {tls: context for tls, context in self._contexts.items() if not (tls.ca_file or tls.cert_file)}
        for stream in self._streams.values():
            stream.use_tls(self._context(stream.spec.tls))

    def address(self, host: str, family: int) -> str | None:
        """The last good address of a name that is probed, or of a literal; None if there is none."""
        return self._names.address(host, family)

    async def stop(self) -> None:
        """End all probing; what is undecided becomes unknown."""
        if self._ticker is not None:
            self._ticker.close()
        if self._watchdog is not None:
            self._watchdog.stop()
        await self._names.close()
        for stream in self._streams.values():
            stream.stop()
        self.poller.close()

    def _end(self, stream: Stream) -> None:
        stream.stop()
        self._names.remove(stream)
        self._wanting.pop(stream, None)
        del self._streams[stream.spec.key]
        self._record.remove(stream.spec.key)

    def _least(self) -> int:
        """Descriptors no optional connection may take: each stream's own, and one probe more."""
        return min(2 * len(self._streams), self._limit // 2)

    # -- the tick

    def _tick(self) -> None:
        now = monotonic()
        self._extra = EXTRA
        if gap := self.stalls.tick(now):
            self._stalled(gap)
        if slept := self._suspensions.ended(now):
            self._begin_anew(slept)
        calls, points = self.wheel.due(now)
        self._calls += calls
        if points or self._calls or self._points:
            if self.poller:
                self.poller.drain()  # sockets are read before anything is judged
                now = monotonic()
                if gap := self.stalls.tick(now):  # what came while thousands were read was not
                    self._stalled(gap)
            self._serve(points, now)
        while self._wanting and not self._points and self._room():
            self._next, _ = self._wanting.popitem(last=False)
            self._next.again(now)
        self._next = None

    def _serve(self, points: tuple[Call, ...], now: float) -> None:
        """Judge, then send what the grids have due, as much as fits into one turn; the rest goes first in the next one.

        So sockets are read, verdicts given and scrapes answered in time when there is more to probe than we can. A
        stream waits once: what it misses meanwhile it skips.
        """
        calls, until = self._calls, now + TURN
        while calls and monotonic() < until:
            for _ in range(min(len(calls), AT_ONCE)):
                calls.popleft()(now)
        if not calls and not self._points:  # as nearly always: nobody waits to be served first
            served = 0
            while served < len(points) and now < until:
                for point in points[served : served + AT_ONCE]:
                    point(now)
                served += AT_ONCE
                now = monotonic()
            points = points[served:]
        if points:
            self._points.update(dict.fromkeys(points))
        while self._points and (sending := monotonic()) < until:
            self._points.popitem(last=False)[0](sending)

    def _stalled(self, gap: float) -> None:
        self._extra = min(self._extra, EXTRA_LATE)
        self._record.stalled(gap)

    def _begin_anew(self, slept: float) -> None:
        """The machine was suspended: what was under way says nothing, and connections may be long gone."""
        log.warning("the machine was suspended for %.1f s; all streams begin anew", slept)
        self._record.suspended(slept)
        for stream in self._streams.values():
            stream.begin_anew(slept)

    def _tell_steps(self, _now: float) -> None:
        step = self._steps.seen()
        if step:
            log.warning("the wall clock was set by %+.3f s; durations are not touched by it", step)

    # -- what streams share (Shared)

    def number(self) -> int:
        self._number += 1
        return self._number

    def _room(self) -> bool:
        return self._extra > 0 and len(self.poller) < self._limit - self._floor

    def admit_optional(self, stream: Stream) -> bool:
        if not self._room() or (self._wanting and stream is not self._next):  # who came first has the first
            self._wanting[stream] = None
            return False
        self._extra -= 1
        return True

    def admit(self) -> bool:
        while len(self.poller) >= self._limit and self._waiting:
            link = next(iter(self._waiting))
            self._waiting.pop(link).expire(link)
        return len(self.poller) < self._limit

    def waiting(self, stream: Stream, link: Link) -> None:
        self._waiting.setdefault(link, stream)
        if len(self._waiting) > 2 * len(self.poller) + 64:  # most are over by now
            self._waiting = {each: owner for each, owner in self._waiting.items() if each.conn.open}

    def look_for_sleep(self) -> None:
        if slept := self._suspensions.ended(monotonic()):
            self._begin_anew(slept)

    def met_itself(self, stream: Stream) -> None:
        log.warning("%s is this very process, and probed no longer", stream.spec.key)
        self._end(stream)


class Quota:
    """Tells, in the watchdog's thread, when the CPU quota of our cgroup stalls us; at most once a minute."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._stalled = record.stall_seconds
        self._throttled = record.gaps["throttled"]
        self._told = -TELL_THROTTLED_EVERY

    def __call__(self, now: float) -> None:
        record = self._record
        stalled, self._stalled = record.stall_seconds > self._stalled, record.stall_seconds
        if record.throttling is not None and not stalled and now - record.ticked() < GAP:
            record.throttling.grown()  # in no stall: the next one has no part in it
        lost = record.gaps["throttled"] - self._throttled
        if lost and now - self._told >= TELL_THROTTLED_EVERY:
            self._throttled, self._told = record.gaps["throttled"], now
            log.warning("stalled for %.2f s by the CPU quota of our cgroup: give us more CPU", lost)


def _give_back() -> None:
    """What only the start needed goes back to the system, and the connections made by now are left to themselves.

    With 11 000 of them each full collection took 50 to 70 ms. What is given back is some megabytes, which only the GNU
    C library keeps.
    """
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _raise_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error  # a bug of ours: the loop's exception handler ends the process
