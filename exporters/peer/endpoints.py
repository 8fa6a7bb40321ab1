"""The endpoints of a Service by the EndpointSlices that Kubernetes' API tells: peers with their nodes' names."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exporters import kube
from exporters.discovery.find import Entry, pods
from exporters.discovery.resources import Slice, as_shape, slices_of
from exporters.ends import StartError
from exporters.kube import Cluster, ConfigError, Watch
from exporters.objects import Known

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Endpoints:
    """Those that are watched from `start` until `close`. Raises StartError for no way to a cluster."""

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

    def start(self, changed: Callable[[], None]) -> None:
        self._watch = Watch(self._cluster, self._resource, changed)

    async def look(self) -> Sequence[Entry] | None:
        """What is held of them now."""
        known = self._watch.known() if self._watch else Known()
        if not known.heard:
            return None
        slices = [as_shape(Slice, held.object) for held in known.objects.values()]
        offers = pods(slices, lambda endpoint: endpoint.nodeName or "")
        return [each for each in offers if isinstance(each, dict)]

    def known(self) -> Mapping[str, Known]:
        return {} if self._watch is None else {self._resource.name: self._watch.known()}

    async def close(self) -> None:
        if self._watch is not None:
            await asyncio.to_thread(self._watch.close)
        self._cluster.close()
