"""House defaults for panels, so that a board reads as a list of titles and queries.

1. Only this module and `boards` know grafanalib. Where it has a panel of today's shape, that is used and completed;
   where it has none (status history) or an older one (heatmap), the shape is written here.
2. Every panel refers to the data source chosen on the board, says in its description what it shows and what good looks
   like, and says `no data` where there is none: grey, never the colour of something good.
3. No number of a threshold is typed here or in a board: a threshold is named, and `metrics.yaml` has its limits.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from grafanalib import core

from exporters import catalog
from grafana import looks
from grafana.grid import Size

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The slowest scrapes the boards are made for. Grafana makes $__rate_interval at least four of them.
SCRAPE_INTERVAL = "30s"
CALCS = {"max": "Max", "min": "Min", "sum": "Total"}  # what sums series up, and what Grafana's legend calls it


class Query(NamedTuple):
    """PromQL, what its series are called, and their unit where it is not the panel's."""

    expr: str
    legend: str = "__auto"
    unit: str = ""


class Column(NamedTuple):
    """A column of a table: its heading, and PromQL with one value a row."""

    heading: str
    expr: str
    unit: str = "count"
    threshold: str = ""
    missing: str = looks.NO_VALUE
    decimals: int | None = None


class Panel(NamedTuple):
    """A panel without its place; `key` names it for ever."""

    key: str
    size: Size
    body: Json


# --- panels


def stat(
    key: str,
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    size: Size,
    threshold: str = "",
    mappings: Sequence[Json] | None = None,
    overrides: Sequence[Json] = (),
    decimals: int | None = None,
) -> Panel:
    """Numbers of now, or of the whole range; several are told apart by their legends."""
    mappings = [looks.missing()] if mappings is None else mappings
    shape = core.Stat(
        **_common(title, description, _targets(queries, instant=True)),
        thresholds=looks.steps(_threshold(threshold)),
        format=looks.UNITS[unit],
        decimals=decimals,
        mappings=list(mappings),
        noValue=looks.NO_VALUE,
        colorMode="background" if len(queries) == 1 else "value",
        graphMode="none",
        orientation="auto",
        reduceCalc="lastNotNull",
        textMode="value" if len(queries) == 1 and not overrides else "value_and_name",
        color={"mode": "thresholds"},
        overrides=[*_units(queries), *overrides],
        extraJson={"options": {"wideLayout": True}},
    )
    return Panel(key, size, shape.to_json_data())


def timeseries(
    key: str,
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    size: Size,
    threshold: str = "",
    style: str = "line",
    calcs: Sequence[str] = ("max",),
    overrides: Sequence[Json] = (),
) -> Panel:
    """Values over time; `style` is line, bars or stacked. The limits of a threshold are drawn as lines.

    The legend shows `calcs` of each series, the worst by the first of them on top.
    """
    shape = core.TimeSeries(
        **_common(title, description, _targets(queries)),
        thresholds=looks.steps(_threshold(threshold)),
        thresholdsStyleMode="dashed" if threshold else "off",
        unit=looks.UNITS[unit],
        mappings=[looks.missing()],
        drawStyle="line" if style == "line" else "bars",
        fillOpacity=10 if style == "line" else 60,
        stacking={"mode": "normal" if style == "stacked" else "none", "group": "A"},
        showPoints="auto",
        legendDisplayMode="table",
        legendCalcs=list(calcs),
        tooltipMode="multi",
        tooltipSort="desc",
        valueMin=0,
        overrides=list(overrides),
        extraJson={
            "fieldConfig": {"defaults": {"noValue": looks.NO_VALUE}},
            "options": {"legend": {"showLegend": True, "sortBy": CALCS[calcs[0]], "sortDesc": calcs[0] != "min"}},
        },
    )
    return Panel(key, size, shape.to_json_data())


def state_timeline(key: str, title: str, description: str, query: Query, *, size: Size) -> Panel:
    """One line a series, in the colours and words of states."""
    shape = core.StateTimeline(
        **_common(title, description, _targets([query])),
        **_state_fields(),
        showValue="auto",
        mergeValues=True,
        extraJson=_state_extras() | {"options": {**_state_options(), "perPage": 20}},
    )
    return Panel(key, size, shape.to_json_data())


def status_history(key: str, title: str, description: str, query: Query, *, size: Size, points: int = 60) -> Panel:
    """One line a series and `points` cells in each: an overview of many series. grafanalib has no such panel."""
    shape = core.Panel(**_common(title, description, _targets([query])), extraJson=_state_extras())
    body = shape.panel_json(
        {
            "type": "status-history",
            "maxDataPoints": points,
            "fieldConfig": {
                "defaults": {"custom": {"fillOpacity": 80, "lineWidth": 1}, "mappings": looks.state_mappings()},
                "overrides": [],
            },
            "options": {**_state_options(), "colWidth": 0.9, "rowHeight": 0.9, "showValue": "never"},
        }
    )
    return Panel(key, size, body)


def heatmap(key: str, title: str, description: str, query: Query, *, unit: str, size: Size) -> Panel:
    """The buckets of a histogram over time; the query gives one series a bucket. grafanalib's is of an older shape."""
    targets = _targets([query], form="heatmap")
    body = core.Panel(**_common(title, description, targets)).panel_json(
        {
            "type": "heatmap",
            "fieldConfig": {
                "defaults": {
                    "custom": {
                        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
                        "scaleDistribution": {"type": "linear"},
                    },
                    "noValue": looks.NO_VALUE,
                    "thresholds": {"mode": "absolute", "steps": looks.steps(None)},
                },
                "overrides": [],
            },
            "options": {
                "calculate": False,
                "cellGap": 1,
                "cellValues": {"unit": looks.UNITS["per second"]},
                # One hue, so that it reads the same without seeing hues.
                "color": {"mode": "scheme", "scheme": "Blues", "exponent": 0.5, "fill": looks.BLUE, "reverse": False}
                | {"scale": "exponential", "steps": 64},
                "exemplars": {"color": looks.VERMILION},
                "filterValues": {"le": looks.ABOVE_ZERO},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                # Grafana 9 asks for `show`, later ones for `mode`.
                "tooltip": {"mode": "single", "show": True, "showColorScale": False, "yHistogram": False},
                "yAxis": {"axisPlacement": "left", "reverse": False, "unit": looks.UNITS[unit]},
            },
        }
    )
    return Panel(key, size, body)


def table(
    key: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    rows: Mapping[str, str],
    size: Size,
    sort: str,
    link: str = "",
) -> Panel:
    """One row for each set of values of the labels `rows` (label -> heading), sorted by a column, the highest first.

    Each column is a query whose result has these labels, `cluster` and no others. `link` is where a row leads.
    """
    queries = [Query(column.expr) for column in columns]
    headings = {"cluster": "Cluster", **rows}
    values = [f"Value #{target['refId']}" if len(queries) > 1 else "Value" for target in _targets(queries)]
    names = {**headings, **dict(zip(values, (column.heading for column in columns), strict=True))}
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: position for position, name in enumerate(names)},
        "renameByName": names,
    }
    return _table(
        key,
        title,
        description,
        _targets(queries, instant=True, form="table"),
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        overrides=[
            *map(_column, columns),
            *([_override(headings[next(iter(rows))], links=_links(link))] if link else []),
        ],
        size=size,
        sort=sort,
    )


def matrix(
    key: str, title: str, description: str, expr: str, *, row: tuple[str, str], column: str, size: Size
) -> Panel:
    """States of now: a row for each value of label `row` (label, heading), a column for each of label `column`."""
    label, heading = row
    corner = f"{label}\\{column}"  # what Grafana calls the column of headings
    return _table(
        key,
        title,
        description,
        _targets([Query(expr)], instant=True, form="table"),
        transformations=[
            *({"id": "sortBy", "options": {"sort": [{"field": each, "desc": False}]}} for each in (column, label)),
            {
                "id": "groupingToMatrix",
                "options": {"rowField": label, "columnField": column, "valueField": "Value", "emptyValue": "null"},
            },
        ],
        overrides=[_override(corner, displayName=heading, **{"custom.cellOptions": {"type": "auto"}})],
        size=size,
        mappings=looks.state_mappings(),
        cell={"type": "color-background", "mode": "basic"},
    )


def text(key: str, title: str, description: str, content: str, *, size: Size) -> Panel:
    """Words, in Markdown."""
    shape = core.Text(title=title, description=description, dataSource=DATASOURCE, content=content, mode="markdown")
    body: Json = shape.to_json_data()
    del body["fieldConfig"], body["targets"]
    return Panel(key, size, body)


def series(pattern: str, **properties: Any) -> Json:
    """An override for the series whose names match a regular expression."""
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": _properties(properties)}


def state_names() -> list[Json]:
    """Overrides for series called by a state's code: they get its word and its colour."""
    return [
        _override(str(state.code), displayName=state.text, color={"mode": "fixed", "fixedColor": state.colour})
        for state in looks.STATES
    ]


# --- what they are made of


@cache
def _thresholds() -> Mapping[str, catalog.Threshold]:
    return catalog.load().thresholds


def _threshold(name: str) -> catalog.Threshold | None:
    return _thresholds()[name] if name else None


def _common(title: str, description: str, targets: Sequence[Json]) -> Json:
    """What every panel has; grafanalib's own 100 points would make graphs coarse."""
    return {
        "title": title,
        "description": description,
        "dataSource": DATASOURCE,
        "targets": list(targets),
        "maxDataPoints": None,
    }


def _targets(queries: Sequence[Query], *, instant: bool = False, form: str = "time_series") -> list[Json]:
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


def _state_fields() -> Json:
    return {"colorMode": "thresholds", "fillOpacity": 80, "mappings": looks.state_mappings()}


def _state_options() -> Json:
    return {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }


def _state_extras() -> Json:
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


def _table(
    key: str,
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    transformations: Sequence[Json],
    overrides: Sequence[Json],
    size: Size,
    sort: str = "",
    mappings: Sequence[Json] | None = None,
    cell: Json | None = None,
) -> Panel:
    shape = core.Table(
        **_common(title, description, targets),
        transformations=list(transformations),
        thresholds=_state_extras()["fieldConfig"]["defaults"]["thresholds"]["steps"],
        filterable=True,
        overrides=list(overrides),
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "color": {"mode": "thresholds"},
                    "custom": {"cellOptions": cell or {"type": "auto"}, "inspect": False},
                    "mappings": [looks.missing()] if mappings is None else list(mappings),
                    "noValue": looks.NO_VALUE,
                }
            },
            "options": {
                "cellHeight": "sm",
                "footer": {
                    "countRows": False,
                    "enablePagination": True,
                    "fields": "",
                    "reducer": ["sum"],
                    "show": False,
                },
                "sortBy": [{"displayName": sort, "desc": True}] if sort else [],
            },
        },
    )
    body = shape.to_json_data()
    # Grafana's name for it is cellOptions by now; grafanalib also writes the former one.
    del body["fieldConfig"]["defaults"]["custom"]["displayMode"]
    return Panel(key, size, body)


def _override(name: str, **properties: Any) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": _properties(properties)}


def _properties(properties: Mapping[str, Any]) -> list[Json]:
    return [{"id": name, "value": value} for name, value in properties.items()]


def _units(queries: Sequence[Query]) -> list[Json]:
    return [_override(query.legend, unit=looks.UNITS[query.unit]) for query in queries if query.unit]


def _column(column: Column) -> Json:
    threshold = _threshold(column.threshold)
    properties: Json = {"unit": looks.UNITS[column.unit]}
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.missing != looks.NO_VALUE:
        properties |= {"noValue": column.missing, "mappings": [looks.missing(column.missing)]}
    if threshold:
        properties["thresholds"] = {"mode": "absolute", "steps": looks.steps(threshold)}
        properties["custom.cellOptions"] = {"type": "color-text"}
    return _override(column.heading, **properties)


def _links(url: str) -> list[Json]:
    return [{"title": "Show only this", "url": url, "targetBlank": False}]
