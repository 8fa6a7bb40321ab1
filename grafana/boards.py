"""Whole boards: panels in their rows, the variables above them, links to the other boards, and the file.

1. What comes out is classic JSON of schema version 39, in which Grafana 9.4 to 13 migrate nothing: nothing that is null
   but the first threshold step's value, no key of older Grafanas, keys sorted.
2. A panel's id comes from its key, so that links to it and diffs survive a new neighbour. Its place comes from `grid`.
3. `cluster` narrows everything, and is hidden here; `packing` shows it where one Prometheus has several clusters.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from grafana import grid, looks, parts
from grafana.grid import Place
from grafana.parts import DATASOURCE, SCRAPE_INTERVAL, Json, Panel

SCHEMA_VERSION = 39
TAG = "ovnwatch"
LONGEST_UID = 40
REFRESH_EVERY = ["5s", "10s", "30s", "1m", "5m", "15m", "1h"]
REFRESH_ON_TIME_RANGE = 2
HIDDEN = 2
# What classic JSON of this version knows; grafanalib writes more.
PANEL_KEYS = ["id", "type", "title", "description", "datasource", "gridPos", "targets", "transformations"]
PANEL_KEYS += ["fieldConfig", "options", "links", "interval", "maxDataPoints"]
ROW_KEYS = ["id", "type", "title", "gridPos", "collapsed"]
BOARD_KEYS = ["uid", "title", "description", "tags", "editable", "timezone", "refresh", "graphTooltip", "time"]
BOARD_KEYS += ["schemaVersion", "annotations", "templating", "links"]


class Row(NamedTuple):
    """A heading and what stands below it; a collapsed row is opened by a click and asks nothing before."""

    key: str
    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


class Choice(NamedTuple):
    """A variable: the values that a label of a metric has. One that is hidden follows the others' choice.

    `one`: the variable of this name, of which one value is chosen and never all; it narrows no other.
    """

    label: str
    title: str
    metric: str
    hidden: bool = False
    one: str = ""

    @property
    def name(self) -> str:
        return self.one or self.label


class Setting(NamedTuple):
    """A variable with values of our own, of which the first is chosen."""

    name: str
    title: str
    values: Sequence[str]


class Mark(NamedTuple):
    """An annotation: a line or a stretch in all graphs while an expression is 1. `title` may have {{label}}s."""

    name: str
    expr: str
    title: str
    colour: str


def board(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    choices: Sequence[Choice],
    *,
    settings: Sequence[Setting] = (),
    marks: Sequence[Mark] = (),
) -> Json:
    """A whole board; `choices` in the order in which each narrows the next.

    Raises ValueError when two panels would have the same id, and for a uid that Grafana refuses.
    """
    panels = _placed(rows)
    ids = [panel["id"] for each in panels for panel in (each, *each.get("panels", ()))]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{uid}: two panels have the same id; give one of them another key")
    if len(uid) > LONGEST_UID:
        raise ValueError(f"{uid}: a uid has at most {LONGEST_UID} characters")
    shape = core.Dashboard(
        title=title,
        description=description,
        uid=uid,
        tags=[TAG],
        editable=False,
        timezone="utc",
        refresh="10s",
        graphTooltip=core.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        schemaVersion=SCHEMA_VERSION,
        time=core.Time("now-1h", "now"),
        annotations=core.Annotations(list=[_alerts_and_notes(), *map(_mark, marks)]),
        templating=core.Templating(list=[*_variables(choices), *map(_setting, settings)]),
        links=[core.DashboardLink(asDropdown=True, includeVars=True, keepTime=True, tags=[TAG], title=TAG)],
        panels=panels,
    )
    plain: Json = json.loads(json.dumps(shape.to_json_data(), cls=DashboardEncoder))
    return {
        **{name: _pruned(plain[name]) for name in BOARD_KEYS},
        "timepicker": {"refresh_intervals": REFRESH_EVERY},
        "panels": [_pruned_panel(panel) for panel in plain["panels"]],
    }


def address(uid: str, *, times: tuple[str, str] | None = None, **fields: str) -> str:
    """Where a value of a table leads: a board; variable -> the column (a single word) whose value it gets.

    times: the columns that have when it begins and ends, in milliseconds; the same time as here if not given.
    """
    chosen = "".join(f"&var-{variable}=${{__data.fields.{heading}}}" for variable, heading in fields.items())
    edges = zip(("from", "to"), times or (), strict=False)
    when = "&".join(f"{name}=${{__data.fields.{heading}.numeric}}" for name, heading in edges) or "${__url_time_range}"
    return f"/d/{uid}?${{datasource:queryparam}}&${{cluster:queryparam}}&{when}{chosen}"


def panel_id(key: str) -> int:
    """A number that stays the same whatever else is on the board."""
    return zlib.crc32(key.encode()) % 1_000_000 + 1


def _alerts_and_notes() -> Json:
    """Grafana's own annotations, which every board has."""
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": looks.BLUE,
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _mark(mark: Mark) -> Json:
    """Grafana 9 reads the expression above, later ones in `target`."""
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": mark.expr,
        "hide": False,
        "iconColor": mark.colour,
        "name": mark.name,
        "step": SCRAPE_INTERVAL,
        "tagKeys": "",
        "target": {"expr": mark.expr, "interval": SCRAPE_INTERVAL, "refId": "Anno"},
        "textFormat": "",
        "titleFormat": mark.title,
        "useValueForTime": False,
    }


def _setting(setting: Setting) -> Json:
    first = setting.values[0]
    return {
        "current": {"selected": True, "text": first, "value": first},
        "hide": 0,
        "includeAll": False,
        "label": setting.title,
        "multi": False,
        "name": setting.name,
        "options": [{"selected": each == first, "text": each, "value": each} for each in setting.values],
        "query": ",".join(setting.values),
        "type": "custom",
    }


def _variables(choices: Sequence[Choice]) -> list[Json]:
    cluster = Choice("cluster", "Cluster", choices[0].metric)
    made = [_datasource()]
    for number, choice in enumerate([cluster, *choices]):
        known = (cluster.label, *parts.labels(choice.metric))
        before = [each.label for each in (cluster, *choices)[:number] if each.label in known and not each.one]
        matchers = ",".join(f'{label}=~"${label}"' for label in before)
        query = f"label_values({choice.metric}{f'{{{matchers}}}' if matchers else ''}, {choice.label})"
        made.append(_variable(choice, query))
    # Series of a single cluster carry no such label, and `.*` selects them, too.
    made[1] |= {"allValue": ".*", "hide": HIDDEN}
    return made


def _datasource() -> Json:
    return {
        "current": {"selected": False, "text": "default", "value": "default"},
        "hide": 0,
        "includeAll": False,
        "label": "Data source",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "type": "datasource",
    }


def _variable(choice: Choice, query: str) -> Json:
    # All values of a hidden one are those that the others leave, which is not the same as any.
    made = _visible(choice, query)
    without = {name: each for name, each in made.items() if name != "allValue"}
    if choice.one:
        nothing = {"selected": False, "text": "", "value": ""}
        return without | {"includeAll": False, "multi": False, "current": nothing}
    return without | {"hide": HIDDEN} if choice.hidden else made


def _visible(choice: Choice, query: str) -> Json:
    return {
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": DATASOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": True,
        "label": choice.title,
        "multi": True,
        "name": choice.name,
        "options": [],
        "query": query,
        "refresh": REFRESH_ON_TIME_RANGE,
        "regex": "",
        "sort": 1,
        "type": "query",
    }


def _placed(rows: Iterable[Row]) -> list[Json]:
    """All rows and panels with their ids and places. The panels of a collapsed row are kept in it."""
    top, found = 0, []
    for row in rows:
        places = grid.flow([panel.size for panel in row.panels], top + grid.ROW_HEIGHT)
        panels = [_at(panel.body, panel.key, place) for panel, place in zip(row.panels, places, strict=True)]
        heading = core.RowPanel(title=row.title, collapsed=row.collapsed).to_json_data()
        line = _at(heading, f"row {row.key}", Place(0, top, grid.WIDTH, grid.ROW_HEIGHT))
        found += [line | {"panels": panels}] if row.collapsed else [line, *panels]
        top = top + grid.ROW_HEIGHT if row.collapsed else grid.bottom(places, top + grid.ROW_HEIGHT)
    return found


def _at(body: Json, key: str, place: Place) -> Json:
    return {**body, "id": panel_id(key), "gridPos": place._asdict()}


def _pruned_panel(panel: Json) -> Json:
    if panel["type"] == "row":
        kept = {name: panel[name] for name in ROW_KEYS}
        return {**kept, "panels": [_pruned_panel(each) for each in panel["panels"]]}
    found: Json = _pruned({name: panel[name] for name in PANEL_KEYS if name in panel})
    return found


def _pruned(value: Any) -> Any:
    """Without what is null; null is the value of a first threshold step alone."""
    if isinstance(value, dict):
        step = value.keys() == {"color", "value"}
        return {name: _pruned(each) for name, each in value.items() if each is not None or (step and name == "value")}
    return [_pruned(each) for each in value] if isinstance(value, list) else value
