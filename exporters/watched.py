"""How well an exporter watches a cluster's API, whatever it watches there, as metrics."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporters import catalog
from exporters.catalog import Catalog
from exporters.exposition import Labels, Table
from exporters.objects import Known


class Watched(Collector):
    """How well we watch, whatever it is; asked of each source at every scrape."""

    def __init__(self, sources: Sequence[Callable[[], Mapping[str, Known]]]) -> None:
        self._sources = sources
        self._catalog = catalog.exported()

    def collect(self) -> Iterator[Metric]:
        known = {name: each for source in self._sources for name, each in source().items()}
        there = {name: each for name, each in known.items() if not each.absent}
        yield family(self._catalog, "ovnwatch_watch_up", (((name,), float(each.up)) for name, each in there.items()))
        ages = (((name,), each.age) for name, each in there.items() if each.heard)
        yield family(self._catalog, "ovnwatch_watch_age_seconds", ages)
        yield family(
            self._catalog, "ovnwatch_watch_objects", (((name,), len(each.objects)) for name, each in there.items())
        )
        yield family(
            self._catalog,
            "ovnwatch_watch_failures_total",
            (((name, reason), count) for name, each in known.items() for reason, count in each.failures.items()),
        )


def family(known: Catalog, name: str, rows: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """A family of the catalogue: values of its labels, and the series' value."""
    metric = known.metric(name)
    series = [(Labels(dict(zip(metric.labels, labels, strict=True))), value) for labels, value in rows]
    return Table(metric.name, metric.help, metric.kind, lambda: series)
