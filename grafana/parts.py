"""What panels and boards are made of: queries, columns, links, and the pieces of Grafana's JSON that panels share."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from exporters import catalog
from grafana import looks
from grafana.grid import Size
from grafana.looks import Word

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The slowest scrapes the boards are made for. Grafana makes $__rate_interval at least four of them.
SCRAPE_INTERVAL = "30s"
POINTS = 180  # of a series in a graph: what large sites have at once is asked for no finer than can be seen
CALCS = {"max": "Max", "min": "Min", "sum": "Total"}  # what sums series up, and what Grafana's legend calls it


class Query(NamedTuple):
    """PromQL, what its series are called, and their unit where it is not the panel's."""

    expr: str
    legend: str = "__auto"
    unit: str = ""


class Column(NamedTuple):
    """A column of a table: its heading, and PromQL with one value a row. What is hidden is there for links."""

    heading: str
    expr: str
    unit: str = "count"
    threshold: str = ""
    missing: str = looks.NO_VALUE
    decimals: int | None = None
    words: Sequence[Word] = ()
    hidden: bool = False


class Link(NamedTuple):
    """Where something leads; `url` may have Grafana's variables."""

    title: str
    url: str


class Panel(NamedTuple):
    """A panel without its place; `key` names it for ever."""

    key: str
    size: Size
    body: Json


@cache
def _catalog() -> catalog.Catalog:
    return catalog.load()


def labels(metric: str) -> Sequence[str]:
    """The labels that a metric has of its own."""
    return _catalog().metric(metric).labels


def threshold_of(name: str) -> catalog.Threshold | None:
    return _catalog().thresholds[name] if name else None


def common(title: str, description: str, targets: Sequence[Json], points: int | None = None) -> Json:
    """What every panel has; grafanalib's own 100 points would make graphs coarse. None: as many as it is wide."""
    return {
        "title": title,
        "description": description,
        "dataSource": DATASOURCE,
        "targets": list(targets),
        "maxDataPoints": points,
    }


def targets_of(queries: Sequence[Query], *, instant: bool = False, form: str = "time_series") -> list[Json]:
    return [
        {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "format": form,
            "instant": instant,
            "interval": SCRAPE_INTERVAL if "$__rate_interval" in query.expr else None,
            "legendFormat": query.legend,
            "range": not instant,
            "refId": chr(ord("A") + number),
        }
        for number, query in enumerate(queries)
    ]


def state_options() -> Json:
    return {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }


def state_extras() -> Json:
    # Whatever has no word of its own is grey, not green.
    grey = [{"color": looks.LIGHT_GREY, "value": None}]
    return {
        "fieldConfig": {
            "defaults": {
                "color": {"mode": "thresholds"},
                "noValue": looks.NO_VALUE,
                "thresholds": {"mode": "absolute", "steps": grey},
            }
        }
    }


def override(name: str, **properties: Any) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": properties_of(properties)}


def properties_of(properties: Mapping[str, Any]) -> list[Json]:
    return [{"id": name, "value": value} for name, value in properties.items()]
