"""Reads since when daemons run from the node exporters' /state, and enters starts into the journal.

An answer is a stranger's: bounded in bytes and time, of the types it should have, never redirected.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Annotated

import msgspec
from msgspec import Meta
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters import catalog, times
from exporters.fetch import Conversation, FetchError, Resolver, client_context
from exporters.migration.phases import NODE, Phases
from exporters.migration.starts import Starts, Told
from exporters.remotes import Remote
from exporters.targets import Tls

log = logging.getLogger(__name__)

MOST_BYTES = 8 * 1024 * 1024  # a thousand links need one
LOOK_SECONDS = 10.0  # for all of an answer
AT_A_TIME = 16  # answers under way
CLOCKS = 1.0  # seconds that a node's clock may be off before its times are put on ours

Word = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]


class _Daemon(msgspec.Struct):
    running: bool
    started: Annotated[str, Meta(max_length=40)] = ""


class _State(msgspec.Struct):
    daemons: dict[Word, _Daemon]
    sampleTime: Annotated[float, Meta(ge=0, lt=1e11)]  # noqa: N815 - the document's own word
    node: Annotated[str, Meta(max_length=253)] = ""


_read = msgspec.json.Decoder(_State).decode


class Nodes(Collector):
    """Asks each of the node exporters every so many seconds; one without a name is called as it says itself."""

    def __init__(self, remotes: Sequence[Remote], interval: float, phases: Phases, starts: Starts) -> None:
        self._interval = interval
        self._phases = phases
        self._starts = starts
        self._resolver = Resolver()
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._remotes = remotes
        self._up: dict[str, bool] = {}
        self._names: dict[Remote, str] = {}
        self._contexts: dict[Tls, ssl.SSLContext] = {}

    async def watch(self) -> None:
        """Do so for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for place, each in enumerate(self._remotes):
                    group.create_task(self._follow(each, place / len(self._remotes) * min(self._interval, 1.0)))
        finally:
            self._resolver.close()

    def collect(self) -> Iterator[Metric]:
        """Which of them are read."""
        metric = catalog.exported().metric("ovnwatch_node_state_up")
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for name, up in sorted(self._up.items()):
            family.add_metric([name], float(up))
        yield family

    async def _follow(self, remote: Remote, wait: float) -> None:
        await asyncio.sleep(wait)  # not all at once
        while True:
            began = monotonic()
            await self._look(remote)
            await asyncio.sleep(max(0.1, began + self._interval - monotonic()))

    async def _look(self, remote: Remote) -> None:
        try:
            told, name = await self._ask(remote)
        except FetchError as error:
            self._now(self._names.get(remote) or remote.name or remote.host, up=False, why=error.said)
            return
        if self._names.setdefault(remote, name) != name:  # another node answers there now
            self._up.pop(self._names[remote], None)
            self._names[remote] = name
        self._now(name, up=True)
        for each in self._starts.step(told):
            self._phases.event(each.name, each.node, each.earliest, each.latest)
            log.info("%s started anew on %s", each.daemon, each.node)

    def _now(self, name: str, *, up: bool, why: str = "") -> None:
        if self._up.get(name) is not up:
            if up:
                log.info("the node exporter of %s is read", name)
            else:
                log.warning("the node exporter of %s is not read: %s", name, why)
        self._up[name] = up

    async def _ask(self, remote: Remote) -> tuple[Told, str]:
        """What one tells, on our clock. Raises FetchError."""
        address = await self._resolver.address(remote.host)
        if address is None:
            raise FetchError("no_address", f"{remote.host} has no address yet")
        tls = self._context(remote)
        server_name = (remote.tls and remote.tls.server_name) or remote.host
        try:
            async with (
                self._places,
                asyncio.timeout(LOOK_SECONDS),
                Conversation(address, remote.port, tls, server_name, remote.head("ovnwatch")) as talk,
            ):
                before = time.time()
                answer = await talk.request("GET", f"{remote.base}/state", MOST_BYTES)
                middle = (before + time.time()) / 2
        except TimeoutError:
            raise FetchError("timeout", "no whole answer in time") from None
        if answer.status != 200 or answer.packed:
            raise FetchError("http_status", f"answers {answer.status} to /state")
        return _told(remote, bytes(answer.body), before, middle)

    def _context(self, remote: Remote) -> ssl.SSLContext | None:
        if remote.tls is not None and remote.tls not in self._contexts:
            self._contexts[remote.tls] = client_context(remote.tls)
        return self._contexts[remote.tls] if remote.tls is not None else None


def _told(remote: Remote, body: bytes, before: float, middle: float) -> tuple[Told, str]:
    try:
        state = _read(body)
        off = 0.0 if before - CLOCKS < state.sampleTime < 2 * middle - before + CLOCKS else state.sampleTime - middle
        started = {name: times.seconds(each.started) - off for name, each in state.daemons.items() if each.running}
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise FetchError("refused", f"no state of a node: {error}") from None
    said = state.node if NODE.fullmatch(state.node) else ""
    name = remote.name or said or remote.host
    return Told(name, middle, started), name
