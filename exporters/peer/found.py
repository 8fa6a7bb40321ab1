"""Watches the endpoints of a Service, which are the other peers, ready or not; one that goes is kept for an hour."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from exporters import kube
from exporters.discovery.find import Entry, Key, pods
from exporters.discovery.kept import Last, entries, keep
from exporters.discovery.resources import Slice, as_shape, slices_of
from exporters.ends import StartError
from exporters.kube import Cluster, ConfigError, Watch
from exporters.objects import Known
from exporters.targets import Target

log = logging.getLogger(__name__)

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TICK_SECONDS = 10.0  # between looks at what is an hour old, and tries of what was refused
SETTLE_SECONDS = 0.5


class FoundPeers:
    """From `run` until `close`; `targets` are the peers there are. Raises StartError for no way to a cluster."""

    def __init__(self, config: str, service: str) -> None:
        if not kube.installed():
            raise StartError("--kubernetes.service needs the Python package kubernetes: install ovnwatch[kubernetes]")
        namespace, _, name = service.rpartition("/")
        try:
            if not namespace:
                namespace = NAMESPACE.read_text(encoding="utf-8").strip()
            self._cluster = Cluster(config)
        except OSError as error:
            raise StartError(f"--kubernetes.service: {service} is of which namespace? {error}") from None
        except ConfigError as error:
            raise StartError(f"--kubernetes.config: {config}: {error}") from None
        self._resource = slices_of(namespace, name)
        self._watch: Watch | None = None
        self._kept: Mapping[Key, Last] = {}
        self.targets: Sequence[Target] = ()

    def known(self) -> Mapping[str, Known]:
        return {} if self._watch is None else {self._resource.name: self._watch.known()}

    async def run(self, use: Callable[[], Awaitable[Sequence[str]]]) -> None:
        """Have what is found used, for ever; `use` returns why it could not be."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def changed() -> None:
            loop.call_soon_threadsafe(woken.set)

        self._watch = Watch(self._cluster, self._resource, changed)
        used: Sequence[Target] = ()
        while True:
            self._look(self._watch.known())
            if self.targets != used:
                tried = self.targets
                used = () if await use() else tried
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await woken.wait()
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass
            woken.clear()

    def _look(self, known: Known) -> None:
        if not known.heard:
            return
        slices = [as_shape(Slice, held.object) for held in known.objects.values()]
        offers = pods(slices, lambda endpoint: endpoint.nodeName or "")
        found: list[Entry] = [each for each in offers if isinstance(each, dict)]
        self._kept = keep(self._kept, found, time.monotonic())
        self.targets = [target for each in entries(self._kept) for target in _target(each)]

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._cluster.close()


def _target(entry: Entry) -> Sequence[Target]:
    try:
        return (Target.model_validate(entry),)
    except ValidationError as error:
        log.warning("a peer that cannot be probed: %s", str(error).splitlines()[0])
        return ()
