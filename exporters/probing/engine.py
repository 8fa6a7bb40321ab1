"""All streams of one exporter on one loop: the tick that walks the wheel, names to addresses, descriptors to spend."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from time import monotonic
from typing import Any

from exporters.identity import Identity
from exporters.probing.connection import Poller
from exporters.probing.protocols import Hello
from exporters.probing.record import Record
from exporters.probing.schedule import SLOT, Wheel
from exporters.probing.stall import Stalls
from exporters.probing.stream import Link, Stream
from exporters.settings import SOFT_LIMIT, SPARE_DESCRIPTORS, Tls
from exporters.settings import Stream as Spec

RESOLVE_EVERY = 30.0  # seconds; faster while a name does not resolve or its target is down
RESOLVE_AGAIN = 2.0
RESOLVE_TIMEOUT = 5.0


class Engine:
    """Probes `streams` from `start` to `stop`, with that many descriptors; what comes of it is in `record`."""

    def __init__(
        self,
        streams: Sequence[Spec],
        identity: Identity,
        record: Record,
        loop: asyncio.AbstractEventLoop,
        descriptors: int = SOFT_LIMIT,
    ) -> None:
        self._loop = loop
        self._record = record
        self.poller = Poller(loop)
        now = monotonic()
        self.wheel = Wheel(now)
        self.stalls = Stalls(now)
        self._number = 0
        self._limit = descriptors - SPARE_DESCRIPTORS
        # What may not be taken by optional connections: each stream's own, and one probe more.
        self._floor = min(2 * len(streams), self._limit // 2)
        self._waiting: dict[Link, Stream] = {}  # in the order in which they began to wait
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        contexts: dict[Tls, ssl.SSLContext] = {}
        self._streams = []
        for spec in streams:
            if spec.tls is not None and spec.tls not in contexts:
                contexts[spec.tls] = client_context(spec.tls)
            hello = Hello(
                source=spec.source,
                instance=identity.instance,
                host=spec.host,
                port=spec.port,
                tls=spec.tls is not None,
                agent=f"ovnwatch/{identity.version}",
            )
            tls = contexts[spec.tls] if spec.tls is not None else None
            self._streams.append(Stream(spec, hello, tls, self, record.stats[spec.key]))

    def start(self) -> None:
        """Begin probing; names are looked up in the background from now on."""
        by_name: dict[tuple[str, int], list[Stream]] = {}
        for stream in self._streams:
            spec = stream.spec
            if is_literal(spec.host):
                stream.address = (spec.host, spec.port)
            else:
                by_name.setdefault((spec.host, spec.family), []).append(stream)
        for (host, family), streams in by_name.items():
            task = self._loop.create_task(self._resolve(host, family, streams))
            self._tasks.add(task)
            task.add_done_callback(self._watch)
        # What lives as long as we do need not be walked again by every full collection, each a stall of its own.
        gc.collect()
        gc.freeze()
        now = monotonic()
        self.stalls.tick(now)
        self.stalls = Stalls(now)
        for stream in self._streams:
            stream.start(now)
        self._arm()

    async def stop(self) -> None:
        """End all probing; what is undecided becomes unknown."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            stream.stop()
        self.poller.close()

    def _watch(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug of ours: the loop's exception handler ends the process

    # -- the tick

    def _arm(self) -> None:
        now = monotonic()
        following = (int(now / SLOT) + 1) * SLOT
        self._timer = self._loop.call_later(following - now, self._tick)

    def _tick(self) -> None:
        now = monotonic()
        gap = self.stalls.tick(now)
        if gap:
            self._record.stalled(gap)
        calls = self.wheel.due(now)
        if calls:
            self.poller.drain()  # sockets are read before anything is judged
            now = monotonic()
            for call in calls:
                call(now)
        self._arm()

    # -- what streams share (Shared)

    def number(self) -> int:
        self._number += 1
        return self._number

    def admit(self, *, optional: bool) -> bool:
        if optional:
            return len(self.poller) < self._limit - self._floor
        while len(self.poller) >= self._limit and self._waiting:
            link = next(iter(self._waiting))
            self._waiting.pop(link).expire(link)
        return len(self.poller) < self._limit

    def waiting(self, stream: Stream, link: Link) -> None:
        self._waiting.setdefault(link, stream)
        if len(self._waiting) > 2 * len(self.poller) + 64:  # most are over by now
            self._waiting = {each: owner for each, owner in self._waiting.items() if each.conn.open}

    def met_itself(self, stream: Stream) -> None:
        stream.stop()
        self._streams.remove(stream)
        self._record.remove(stream.spec.key)

    # -- names

    async def _resolve(self, host: str, family: int, streams: list[Stream]) -> None:
        """Keep the addresses of one name current. The last good one is used while the name does not resolve."""
        while True:
            cause = ""
            try:
                async with asyncio.timeout(RESOLVE_TIMEOUT):  # wait_for may swallow a cancellation (Python 3.11)
                    address = await self._lookup(host, family)
            except TimeoutError:
                cause = "dns_timeout"
            except (OSError, UnicodeError):
                cause = "dns_error"
            for stream in streams:
                stream.resolve_cause = cause
                if not cause:
                    stream.address = (address[0], stream.spec.port, *address[2:])
            calm = not cause and all(stream.stats.now_state == "up" for stream in streams)
            await asyncio.sleep(RESOLVE_EVERY if calm else RESOLVE_AGAIN)

    async def _lookup(self, host: str, family: int) -> tuple[Any, ...]:
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        found = await self._loop.getaddrinfo(host, None, family=kind, type=socket.SOCK_STREAM)
        return found[0][4]


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context of one TLS setting. Raises OSError or ssl.SSLError for files that are no certificates or keys."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
