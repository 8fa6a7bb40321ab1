"""What a collector yields: rows of metrics that stand in the catalogue, which become families of the exposition."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from exporters.catalog import Catalog, Metric
from exporters.exposition import Labels, Table


class Row(NamedTuple):
    """One value of the metric `name`; label values stand in the order that the catalogue has."""

    name: str
    labels: tuple[str, ...]
    value: float


class Lot(NamedTuple):
    """Many values of one metric at once, whose labels were made before: for what a node has thousands of."""

    name: str
    values: Callable[[], Iterable[tuple[Labels, float]]]


Found = Row | Lot
LONGEST = 256  # characters of a label's value


@lru_cache(maxsize=20_000)
def labels_of(names: tuple[str, ...], values: tuple[str, ...]) -> Labels:
    """The labels of a series, the same object for the same ones."""
    return made(names, values)


def made(names: tuple[str, ...], values: tuple[str, ...]) -> Labels:
    """The labels of a series, for who keeps them."""
    # The database may hold halves of characters, which no page can be made of.
    clean = (value[:LONGEST].encode("utf-8", "replace").decode() for value in values)
    return Labels(dict(zip(names, clean, strict=True)))


def tables(found: Iterable[Found], catalog: Catalog) -> list[Table]:
    """One table for each metric, in the order of their first rows."""
    rows: dict[str, dict[str, tuple[Labels, float]]] = {}
    lots: dict[str, Lot] = {}
    for each in found:
        if isinstance(each, Lot):
            lots[each.name] = each
        else:
            labels = labels_of(catalog.metric(each.name).labels, each.labels)
            # + 0, for True is not how a page says 1. Two of the same series would cost the scraper the whole page.
            rows.setdefault(each.name, {})[labels.text] = (labels, each.value + 0)
    made = [_table(catalog.metric(name), lot.values) for name, lot in lots.items()]
    return made + [_table(catalog.metric(name), _giving(list(of_it.values()))) for name, of_it in rows.items()]


def _table(metric: Metric, values: Callable[[], Iterable[tuple[Labels, float]]]) -> Table:
    return Table(metric.name, metric.help, metric.kind, values)


def _giving(rows: Sequence[tuple[Labels, float]]) -> Callable[[], Iterable[tuple[Labels, float]]]:
    return lambda: rows


def named(rows: Mapping[str, float | None], labels: tuple[str, ...] = ()) -> Iterable[Row]:
    """A row for each metric whose value is known, all with the same labels."""
    return (Row(name, labels, value) for name, value in rows.items() if value is not None)
