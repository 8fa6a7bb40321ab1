"""A board for OpenShift's console, which draws panels of older Grafanas: graph, singlestat and table, in rows. Pure.

1. What it cannot draw is drawn as its nearest relative: a timeline of states as a graph of their codes, with the words
   in the description, and so is a table's column of words. Text, matrices, heat maps and moments are left out.
2. It fills in $__interval, $__rate_interval and $__range only, and chooses all by `.+`, which no series without a label
   matches: `cluster` and the hidden variables go, settings have their first value.
3. A panel is 12 columns wide at most, and its place is its order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Board = Mapping[str, Any]

COLUMNS = 12
GRID_COLUMNS = 24
# The seconds of the range, of which the console knows only the text.
RANGE_SECONDS = "(60 * scalar(count_over_time(vector(1)[$__range:1m])))"


def console(board: Board) -> Json:
    """The board's JSON for the console."""
    gone = [each["name"] for each in board["templating"]["list"] if each["name"] == "cluster" or each["hide"]]
    fixed = {each["name"]: each["current"]["value"] for each in board["templating"]["list"] if each["type"] == "custom"}
    kept = [
        _variable(each, gone)
        for each in board["templating"]["list"]
        if each["type"] == "query" and each["name"] not in gone
    ]

    def expr(text: str) -> str:
        return _without(text, gone, fixed)

    rows = [_row(title, panels, expr) for title, panels in _rows(board["panels"])]
    return {
        "title": board["title"],
        "uid": f"{board['uid']}-console",
        "tags": list(board["tags"]),
        "time": dict(board["time"]),
        "refresh": "30s",
        "timezone": board["timezone"],
        "schemaVersion": 14,
        "templating": {"list": kept},
        "rows": [row for row in rows if row["panels"]],
    }


def _rows(panels: Sequence[Board]) -> Iterator[tuple[str, list[Board]]]:
    title, found = "", list[Board]()
    for each in panels:
        if each["type"] != "row":
            found.append(each)
            continue
        if found:
            yield title, found
        title, found = each["title"], list(each.get("panels", ()))
    yield title, found


def _row(title: str, panels: Sequence[Board], expr: Any) -> Json:
    made = [shown for panel in panels for shown in SHAPES.get(panel["type"], _nothing)(panel, expr)]
    return {"title": title, "showTitle": True, "collapse": False, "height": "250px", "panels": made}


def _nothing(_: Board, __: Any) -> list[Json]:
    return []


def _common(panel: Board, kind: str, number: int = 0) -> Json:
    span = max(2, round(panel["gridPos"]["w"] * COLUMNS / GRID_COLUMNS))
    return {
        "id": panel["id"] * 10 + number,
        "type": kind,
        "title": panel["title"],
        "description": panel["description"],
        "span": span,
    }


def _graph(panel: Board, expr: Any) -> list[Json]:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    axis = {"format": defaults.get("unit", "short"), "show": True}
    return [
        _common(panel, "graph")
        | {
            "targets": [_target(each, expr, "time_series") for each in panel["targets"]],
            "yaxes": [axis | {"min": 0}, axis | {"show": False}],
            "stack": stacked,
            "fill": 1,
            "linewidth": 1,
            "legend": {"show": True},
        }
    ]


def _states(panel: Board, expr: Any) -> list[Json]:
    (graph,) = _graph(panel, expr)
    return [graph | {"description": f"{panel['description']}{_told(panel['fieldConfig']['defaults']['mappings'])}"}]


def _words(mappings: Sequence[Board]) -> list[tuple[str, str]]:
    """Codes with their words."""
    return [
        (code, each["text"])
        for mapping in mappings
        if mapping["type"] == "value"
        for code, each in mapping["options"].items()
    ]


def _told(mappings: Sequence[Board], what: str = "Values") -> str:
    """What is added to a description where the console shows codes."""
    words = ", ".join(f"{code}: {text}" for code, text in _words(mappings))
    return f" {what}: {words}." if words else ""


def _is_moment(unit: str) -> bool:
    """The console would show it as a number of thirteen digits."""
    return unit.startswith("dateTime")


def _singlestats(panel: Board, expr: Any) -> list[Json]:
    """One for each query: the console shows one number each."""
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit", "none")
    if _is_moment(unit):
        return []
    words = [{"op": "=", "text": text, "value": code} for code, text in _words(defaults.get("mappings", ()))]
    several = len(panel["targets"]) > 1
    made = []
    for number, target in enumerate(panel["targets"]):
        one = _common(panel, "singlestat", number)
        if several:
            one |= {"title": f"{panel['title']}: {target['legendFormat']}", "span": 2}
        one |= {"format": unit, "valueName": "current", "targets": [_target(target, expr, "time_series")]}
        made.append(one | {"valueMaps": [{"op": "=", "text": "no data", "value": "null"}, *words]})
    return made


def _table(panel: Board, expr: Any) -> list[Json]:
    """Its columns keep their headings; what is hidden is left out, and what groups into a matrix, too."""
    organize = next((each["options"] for each in panel["transformations"] if each["id"] == "organize"), None)
    if organize is None:
        return []
    overrides = {
        each["matcher"]["options"]: {one["id"]: one["value"] for one in each["properties"]}
        for each in panel["fieldConfig"]["overrides"]
    }
    values = [f"Value #{each['refId']}" if len(panel["targets"]) > 1 else "Value" for each in panel["targets"]]
    headings = organize["renameByName"]
    columns = {name: overrides.get(headings[name], {}) for name in values}
    hidden = {
        name for name, each in columns.items() if each.get("custom.hidden") or _is_moment(each.get("unit", "short"))
    }
    targets = [each for each, name in zip(panel["targets"], values, strict=True) if name not in hidden]
    styles = [{"pattern": "Time", "type": "hidden"}]
    for name, heading in headings.items():
        if name in hidden or name == "cluster":
            continue
        style = {"alias": heading, "pattern": name, "type": "string"}
        if name in values:
            style |= {"type": "number", "unit": overrides.get(heading, {}).get("unit", "short"), "decimals": 2}
        styles.append(style)
    shown = [_target(each, expr, "table") | {"instant": True} for each in targets]
    told = "".join(
        _told(each.get("mappings", ()), headings[name]) for name, each in columns.items() if name not in hidden
    )
    common = _common(panel, "table") | {"description": f"{panel['description']}{told}"}
    return [common | {"targets": shown, "styles": styles, "transform": "table"}]


def _target(target: Board, expr: Any, form: str) -> Json:
    legend = target["legendFormat"]
    return {
        "expr": expr(target["expr"]),
        "format": form,
        "legendFormat": "" if legend == "__auto" else legend,
        "refId": target["refId"],
    }


def _variable(variable: Board, gone: Sequence[str]) -> Json:
    query = _without(variable["query"], gone, {})
    return {
        "name": variable["name"],
        "label": variable["label"],
        "type": "query",
        "query": query,
        "includeAll": True,
        "multi": True,
        "allValue": ".+",
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "refresh": variable["refresh"],
        "sort": variable["sort"],
        "hide": 0,
    }


def _without(text: str, gone: Sequence[str], fixed: Mapping[str, str]) -> str:
    """An expression without the variables that the console does not have."""
    for name in gone:
        text = re.sub(rf'\w+=~"\${name}\|?",?', "", text)
    text = re.sub(r",\}", "}", text).replace("{}", "")
    for name, value in fixed.items():
        text = re.sub(rf"\${name}\b", value, text)
    return re.sub(r"\$__range_s\b", RANGE_SECONDS, text)


SHAPES = {
    "timeseries": _graph,
    "state-timeline": _states,
    "status-history": _states,
    "stat": _singlestats,
    "table": _table,
}
