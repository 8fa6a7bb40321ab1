"""House defaults for panels, so that a board reads as a list of titles and queries.

1. Only this module and `boards` know grafanalib. Where it has a panel of today's shape, that is used and completed;
   where it has none (status history) or an older one (heatmap), the shape is written here.
2. Every panel refers to the data source chosen on the board, says in its description what it shows and what good looks
   like, and says `no data` where there is none: grey, never the colour of something good.
3. No number of a threshold is typed here or in a board: a threshold is named, and `metrics.yaml` has its limits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grafanalib import core

from grafana import looks, parts
from grafana.grid import Size
from grafana.parts import (
    CALCS,
    DATASOURCE,
    Column,
    Json,
    Link,
    Panel,
    Query,
    common,
    override,
    properties_of,
    state_extras,
    state_options,
    targets_of,
    threshold_of,
)


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
    names: bool = False,
    links: Sequence[Link] = (),
) -> Panel:
    """Numbers of now, or of the whole range; several are told apart by their legends. `names`: say only these.

    `links`: where a click on a number leads.
    """
    mappings = [looks.missing()] if mappings is None else mappings
    shape = core.Stat(
        **common(title, description, targets_of(queries, instant=True)),
        thresholds=looks.steps(threshold_of(threshold)),
        format=looks.UNITS[unit],
        decimals=decimals,
        mappings=list(mappings),
        noValue=looks.NO_VALUE,
        colorMode="background" if len(queries) == 1 else "value",
        graphMode="none",
        orientation="horizontal" if names else "auto",  # names get a line each
        reduceCalc="lastNotNull",
        textMode="name" if names else "value" if len(queries) == 1 and not overrides else "value_and_name",
        color={"mode": "thresholds"},
        overrides=[*_units(queries), *overrides],
        extraJson={"options": {"wideLayout": True}}
        | ({"fieldConfig": {"defaults": {"links": [*map(_link, links)]}}} if links else {}),
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
    points: int = parts.POINTS,
) -> Panel:
    """Values over time; `style` is line, bars or stacked. The limits of a threshold are drawn as lines.

    The legend shows `calcs` of each series, the worst by the first of them on top. `points`: at most so many of each.
    """
    shape = core.TimeSeries(
        **common(title, description, targets_of(queries), points),
        thresholds=looks.steps(threshold_of(threshold)),
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
            "fieldConfig": {
                "defaults": {"noValue": looks.NO_VALUE, "custom": {"axisSoftMax": looks.LEAST_TOP.get(unit, 0)}}
            },
            "options": {"legend": {"showLegend": True, "sortBy": CALCS[calcs[0]], "sortDesc": calcs[0] != "min"}},
        },
    )
    return Panel(key, size, shape.to_json_data())


def state_timeline(
    key: str,
    title: str,
    description: str,
    queries: Query | Sequence[Query],
    *,
    size: Size,
    mappings: Sequence[Json] | None = None,
    points: int | None = None,
) -> Panel:
    """One line a series, in the colours and words of states, or of other mappings; as sharp as its `points` allow."""
    shape = core.StateTimeline(
        **common(title, description, targets_of([queries] if isinstance(queries, Query) else queries), points),
        colorMode="thresholds",
        fillOpacity=80,
        mappings=looks.state_mappings() if mappings is None else list(mappings),
        showValue="auto",
        mergeValues=True,
        extraJson=state_extras() | {"options": {**state_options(), "perPage": 20}},
    )
    return Panel(key, size, shape.to_json_data())


def status_history(key: str, title: str, description: str, query: Query, *, size: Size, points: int = 60) -> Panel:
    """One line a series and `points` cells in each: an overview of many series. grafanalib has no such panel."""
    shape = core.Panel(**common(title, description, targets_of([query])), extraJson=state_extras())
    body = shape.panel_json(
        {
            "type": "status-history",
            "maxDataPoints": points,
            "fieldConfig": {
                "defaults": {"custom": {"fillOpacity": 80, "lineWidth": 1}, "mappings": looks.state_mappings()},
                "overrides": [],
            },
            "options": {**state_options(), "colWidth": 0.9, "rowHeight": 0.9, "showValue": "never"},
        }
    )
    return Panel(key, size, body)


def heatmap(key: str, title: str, description: str, query: Query, *, unit: str, size: Size) -> Panel:
    """The buckets of a histogram over time; the query gives one series a bucket. grafanalib's is of an older shape."""
    targets = targets_of([query], form="heatmap")
    body = core.Panel(**common(title, description, targets)).panel_json(
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
    links: Mapping[str, Sequence[Link]] | None = None,
) -> Panel:
    """One row for each set of values of the labels `rows` (label -> heading), sorted by a column, the highest first.

    Each column is a query whose result has these labels, or some of them, `cluster` and no others. `links`: where the
    values below a heading lead.
    """
    queries = [Query(column.expr) for column in columns]
    headings = {"cluster": "Cluster", **rows}
    values = [f"Value #{target['refId']}" if len(queries) > 1 else "Value" for target in targets_of(queries)]
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
        targets_of(queries, instant=True, form="table"),
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        overrides=[
            *map(_column, columns),
            *(override(heading, links=[_link(each) for each in those]) for heading, those in (links or {}).items()),
        ],
        size=size,
        sort=sort,
    )


def matrix(
    key: str, title: str, description: str, expr: str, *, row: tuple[str, str], column: str, size: Size
) -> Panel:
    """States of now: a row for each value of label `row` (label, heading), a column for each of label `column`.

    What no series has is not probed there, which is not the same as no data.
    """
    label, heading = row
    corner = f"{label}\\{column}"  # what Grafana calls the column of headings
    return _table(
        key,
        title,
        description,
        targets_of([Query(expr)], instant=True, form="table"),
        transformations=[
            *({"id": "sortBy", "options": {"sort": [{"field": each, "desc": False}]}} for each in (column, label)),
            {
                "id": "groupingToMatrix",
                "options": {"rowField": label, "columnField": column, "valueField": "Value", "emptyValue": "null"},
            },
        ],
        overrides=[override(corner, displayName=heading, **{"custom.cellOptions": {"type": "auto"}})],
        size=size,
        mappings=[*looks.state_mappings()[:-1], looks.not_probed()],
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
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": properties_of(properties)}


def state_names() -> list[Json]:
    """Overrides for series called by a state's code: they get its word and its colour."""
    return [
        override(str(state.code), displayName=state.text, color={"mode": "fixed", "fixedColor": state.colour})
        for state in looks.STATES
    ]


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
        **common(title, description, targets),
        transformations=list(transformations),
        thresholds=state_extras()["fieldConfig"]["defaults"]["thresholds"]["steps"],
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


def _units(queries: Sequence[Query]) -> list[Json]:
    return [override(query.legend, unit=looks.UNITS[query.unit]) for query in queries if query.unit]


def _column(column: Column) -> Json:
    threshold = threshold_of(column.threshold)
    properties: Json = {"unit": looks.UNITS[column.unit]}
    if column.hidden:
        properties["custom.hidden"] = True
    if column.words:
        properties |= {"mappings": looks.words(column.words), "custom.cellOptions": {"type": "color-text"}}
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.missing != looks.NO_VALUE:
        properties |= {"noValue": column.missing, "mappings": [looks.missing(column.missing)]}
    if threshold:
        properties["thresholds"] = {"mode": "absolute", "steps": looks.steps(threshold)}
        properties["custom.cellOptions"] = {"type": "color-text"}
    return override(column.heading, **properties)


def _link(link: Link) -> Json:
    return {"title": link.title, "url": link.url, "targetBlank": False}
