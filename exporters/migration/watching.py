"""From a cluster's watches to phases: waits until changes have settled, has them judged, enters what comes of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporters import catalog, times
from exporters.journal import Journal
from exporters.kube import Cluster, Watch
from exporters.migration.kinds import KINDS
from exporters.migration.names import NODE
from exporters.migration.phases import FullError, NewPhase, Phases
from exporters.migration.resources import RESOURCES
from exporters.migration.seen import Change, Event, Gap, Memory, Phase, Seen, pack, unpack
from exporters.objects import Known
from exporters.probing.record import Record
from exporters.watched import family

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0  # what is not heard of grows old by itself
SETTLE_SECONDS, LONGEST_SETTLE_SECONDS = 0.5, 2.0  # what belongs together comes by several watches
KEEP_SECONDS = 5.0  # between two times that what is remembered is made ready for the journal
RECALLED_SECONDS = 300.0  # of the journal before it was saved last


class Watching(Collector):
    """All watches on a cluster, from `run` until `close`; phases and events go into the journal, the rest is metrics.

    `show` makes a label of an address; `clock` tells how old things are.
    """

    def __init__(
        self,
        cluster: Cluster,
        phases: Phases,
        record: Record,
        show: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._phases = phases
        self._record = record
        self._show = show
        self._clock = clock
        self._began = clock()
        self._catalog = catalog.exported()
        self._watches: list[Watch] = []
        self._woken = asyncio.Event()
        self._known: Mapping[str, Known] = {}
        self._kept = 0.0  # monotonic
        self.seen = _resumed(phases, record)

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()

        def changed() -> None:
            if not self._woken.is_set():  # else it has not been looked at yet what the watch has changed just now
                loop.call_soon_threadsafe(self._woken.set)

        self._watches = [Watch(self._cluster, each, changed, self._clock) for each in RESOURCES]
        while True:
            await self._settled()
            await self.step(time.time())

    async def _settled(self) -> None:
        if not await self._wake(TICK_SECONDS):
            return
        end = time.monotonic() + LONGEST_SETTLE_SECONDS
        while time.monotonic() < end and await self._wake(SETTLE_SECONDS):
            pass

    async def _wake(self, seconds: float) -> bool:
        """Whether anything changed within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def step(self, now: float) -> None:
        """Judge what is known at that Unix time."""
        self._known = {each.resource.name: each.known() for each in self._watches}
        changes = self.seen.step(self._known, now, self._clock() - self._began)
        for each in changes:
            self._enter(each)
        self._phases.failing = self.seen.failing()
        self._phases.progress |= self.seen.progress()
        if changes or time.monotonic() - self._kept > KEEP_SECONDS:
            self._record.beside = pack(self.seen.memory())
            self._kept = time.monotonic()
        if changes:
            await self._record.save()

    def _enter(self, change: Change) -> None:
        match change:
            case Phase(kind, node, name, rolls, at):
                log.info("%s%s: %s", kind, f" of {node}" if node else "", name)
                try:
                    self._phases.set(kind, NewPhase(phase=name, node=node, rolls=rolls), at)
                except FullError:
                    log.error("too many phases: %s of %s is not kept", name, node)  # noqa: TRY400 - no bug
            case Event(name, node, earliest, latest, more):
                log.info("%s: %s", node, name)
                self._phases.event(name, node, earliest, latest, more)
            case Gap(begin, end):
                log.warning("the cluster was not known for %.0f s", end - begin)
                self._record.gap("unwatched", begin, end)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for each in self._watches:
            each.stop()
        for each in self._watches:
            each.close()
        self._cluster.close()

    def known(self) -> Mapping[str, Known]:
        return self._known

    # -- metrics, in the thread that makes pages

    def collect(self) -> Iterator[Metric]:
        """Nothing of what is unknown."""
        seen = self.seen
        nodes = list(seen.nodes.items()) if seen.known_nodes else []
        egress = list(seen.egress.items()) if seen.egress is not None and seen.known_egress else []
        conditions = list(seen.conditions.items())
        yield family(self._catalog, "ovnwatch_migration_condition", (((name,), float(on)) for name, on in conditions))
        yield family(self._catalog, "ovnwatch_node_ready", (((name,), float(each.ready)) for name, each in nodes))
        booted = (((name,), each.booted_at) for name, each in nodes if each.booted_at)
        yield family(self._catalog, "ovnwatch_node_boot_time_seconds", booted)
        yield family(
            self._catalog,
            "ovnwatch_egressip_info",
            (((name, self._show(address), node), 1.0) for (name, address), node in egress if node),
        )


def _resumed(phases: Phases, record: Record) -> Seen:
    """Where the process before us ended."""
    memory = Memory()
    if record.beside:
        try:
            memory = unpack(record.beside)
        except msgspec.DecodeError as error:
            log.warning("what was remembered of the cluster cannot be read: %s", error)
    ours = (*KINDS, NODE)
    shown = {key: (item["text"], bool(item["rolls"])) for key, item in phases.open.items() if key[0] in ours}
    seen = Seen(time.time(), shown, memory)
    for item in _latest(record.journal):
        if item["cause"] == "event":
            seen.recall(item, item["node"], times.seconds(item["end_time"]))
    return seen


def _latest(journal: Journal | None) -> Iterator[dict[str, Any]]:
    """Phases and events that may be newer than what was saved."""
    saved = journal.saved() if journal else None
    for row in journal.rows("kind = 'phase' AND at > ?", (saved.at - RECALLED_SECONDS,)) if journal and saved else ():
        yield msgspec.json.decode(row.item)
