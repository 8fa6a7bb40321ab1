"""How many peers the choice of the mesh leaves to others, as a metric: what nobody here probes is not healthy."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters import catalog


class LeftOut(Collector):
    """The gauge; `names` is asked at every scrape."""

    def __init__(self, source: str, names: Callable[[], Sequence[str]]) -> None:
        self._source = source
        self._names = names
        self._metric = catalog.exported().metric("ovnwatch_peers_not_observed")

    def collect(self) -> Iterator[Metric]:
        """Return how many there are, 0 while all are probed."""
        family = GaugeMetricFamily(self._metric.name, self._metric.help, labels=self._metric.labels)
        family.add_metric([self._source], len(self._names()))
        yield family
