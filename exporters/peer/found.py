"""Finds the other peers as the endpoints of a Service, ready or not; one that goes is probed for an hour more."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from pydantic import ValidationError

from exporters.discovery.find import Entry, Key
from exporters.discovery.kept import Last, entries, keep
from exporters.objects import Known
from exporters.peer.addresses import Addresses
from exporters.peer.endpoints import Endpoints
from exporters.peer.settings import PeerSettings
from exporters.targets import Target

log = logging.getLogger(__name__)

TICK_SECONDS = 10.0  # between looks at what is an hour old, tries of what was refused, and questions to DNS
SETTLE_SECONDS = 0.5


class Source(Protocol):
    """Where peers are found. `look` is asked again when `changed` was called, and every TICK_SECONDS."""

    def start(self, changed: Callable[[], None]) -> None: ...

    async def look(self) -> Sequence[Entry] | None:
        """What there is as far as is known, however old that is; None while nothing is."""

    def known(self) -> Mapping[str, Known]:
        """How well it is known, by the name of what is looked at."""

    async def close(self) -> None: ...


SOURCES: Mapping[str, Callable[[PeerSettings], Source]] = {
    "endpoints": lambda settings: Endpoints(settings.cluster, settings.service),
    "dns": lambda settings: Addresses(settings.service),
}


class FoundPeers:
    """From `run` until `close`; `targets` are the peers there are, `gone` those that were within the hour.

    Raises StartError for no way to a cluster.
    """

    def __init__(self, settings: PeerSettings) -> None:
        self._source = SOURCES[settings.discovery](settings)
        self._kept: Mapping[Key, Last] = {}
        self.targets: Sequence[Target] = ()
        self.gone: Sequence[Target] = ()

    def known(self) -> Mapping[str, Known]:
        return self._source.known()

    async def run(self, use: Callable[[], Awaitable[Sequence[str]]]) -> None:
        """Have what is found used, for ever; `use` returns why it could not be."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._source.start(lambda: _wake(loop, woken))
        used: tuple[Sequence[Target], Sequence[Target]] = ((), ())
        while True:
            self._keep(await self._source.look())
            if (self.targets, self.gone) != used:
                tried = (self.targets, self.gone)
                used = ((), ()) if await use() else tried
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await woken.wait()
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass
            woken.clear()

    def _keep(self, found: Sequence[Entry] | None) -> None:
        if found is None:
            return
        now = time.monotonic()
        self._kept = keep(self._kept, found, now)
        there = {key: last for key, last in self._kept.items() if last.at == now}
        gone = {key: last for key, last in self._kept.items() if key not in there}
        self.targets, self.gone = _targets(there), _targets(gone)

    async def close(self) -> None:
        await self._source.close()


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    loop.call_soon_threadsafe(woken.set)


def _targets(kept: Mapping[Key, Last]) -> Sequence[Target]:
    return [target for each in entries(kept) for target in _target(each)]


def _target(entry: Entry) -> Sequence[Target]:
    try:
        return (Target.model_validate(entry),)
    except ValidationError as error:
        log.warning("a peer that cannot be probed: %s", str(error).splitlines()[0])
        return ()
