"""What is wrong with a board's JSON, and which of its queries a Prometheus has no answer to."""

import json
import math
import re
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import msgspec

from grafana import asking, grid
from grafana.asking import Asked
from grafana.remote import FORM, Remote, RemoteError

MOST_BYTES = 200 * 1024
MOST_VISIBLE = 20
LONGEST_UID = 40
SCHEMA_VERSIONS = range(38, 42)  # Grafana 9.4 to 13 migrate nothing, or nothing that changes a board
POINTS = 300  # of a graph

Board = Mapping[str, Any]


# The shape of all that is read here of a board, which may be anybody's.


class _Place(msgspec.Struct):
    x: int
    y: int
    w: int
    h: int


class _Target(msgspec.Struct):
    expr: str
    refId: str  # noqa: N815 # its name in Grafana's JSON
    instant: bool = False


class _Inner(msgspec.Struct):
    type: str
    gridPos: _Place  # noqa: N815
    id: int | None = None
    title: str = ""
    description: str = ""
    targets: list[_Target] = []


class _Panel(_Inner):
    panels: list[_Inner] = []


class _Current(msgspec.Struct):
    value: str


class _Setting(msgspec.Struct, tag="custom", tag_field="type"):
    name: str
    current: _Current


class _Choice(msgspec.Struct, tag="query", tag_field="type"):
    name: str
    allValue: str | None = None  # noqa: N815


class _Source(msgspec.Struct, tag="datasource", tag_field="type"):
    name: str


class _Templating(msgspec.Struct):
    list: list[_Setting | _Choice | _Source]


class _Board(msgspec.Struct):
    uid: str = ""
    title: str = ""
    schemaVersion: int = 0  # noqa: N815
    panels: list[_Panel] = []
    templating: _Templating = msgspec.field(default_factory=lambda: _Templating([]))


class _Found(msgspec.Struct):
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct):
    result: list[_Found]


class _Answer(msgspec.Struct):
    data: _Data


def board_of(document: Any) -> dict[str, Any]:
    """A document that has the shape of a board. Raises ValueError, which names the place that has not."""
    if not isinstance(document, dict):
        raise ValueError("is no dashboard")  # noqa: TRY004 # one kind of error for whatever a file may hold
    try:
        msgspec.convert(document, _Board)
    except msgspec.ValidationError as error:
        raise ValueError(f"is no dashboard: {error}") from None
    return document


def problems(board: Board) -> Iterator[str]:
    """Everything wrong, in words; nothing for a board that is whole."""
    missing = [key for key in ("uid", "title", "panels", "templating", "schemaVersion") if key not in board]
    if missing:
        yield f"has no {', '.join(missing)}"
        return
    if len(board["uid"]) > LONGEST_UID:
        yield f"its uid is longer than {LONGEST_UID} characters"
    if board["schemaVersion"] not in SCHEMA_VERSIONS:
        yield f"schemaVersion {board['schemaVersion']} is not of {SCHEMA_VERSIONS[0]} to {SCHEMA_VERSIONS[-1]}"
    size = len(json.dumps(board))
    if size > MOST_BYTES:
        yield f"has {size} bytes, more than {MOST_BYTES}"
    panels = list(asking.panels(board))
    twice = [number for number, count in Counter(each.get("id") for each in panels).items() if count > 1]
    if twice:
        yield f"several panels have the id {', '.join(map(str, twice))}"
    visible = [each for each in board["panels"] if each["type"] != "row"]
    if len(visible) > MOST_VISIBLE:
        yield f"shows {len(visible)} panels when it is opened, more than {MOST_VISIBLE}"
    for one, other in combinations(board["panels"], 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"{one['title']!r} lies on {other['title']!r}"
    yield from (problem for panel in panels for problem in _panel(board, panel))


def _panel(board: Board, panel: Board) -> Iterator[str]:
    title = panel.get("title")
    if not title:
        yield f"panel {panel.get('id')} has no title"
    place = panel["gridPos"]
    if place["x"] + place["w"] > grid.WIDTH:
        yield f"{title!r} is wider than the grid"
    if panel["type"] in ("row", "text"):
        return
    if not panel.get("targets"):
        yield f"{title!r} asks nothing"
    if not panel.get("description"):
        yield f"{title!r} has no description"
    known = {*(each["name"] for each in board["templating"]["list"]), *asking.timed(1)}
    for target in panel.get("targets", ()):
        named = {*re.findall(r"\$(\w+)", target["expr"])}
        if named - known:
            yield f"{title!r} reads variables that are not there: {', '.join(sorted(named - known))}"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or above)


def unanswered(board: Board, prometheus: Remote, seconds: float) -> Iterator[str]:
    """Names of queries that find nothing in the last `seconds`. Raises RemoteError when Prometheus does not answer."""
    step = max(1, math.ceil(seconds / POINTS))
    for query in asking.asked(board, seconds, step):
        if not _finds(prometheus, query, seconds):
            yield query.name


def _finds(prometheus: Remote, query: Asked, seconds: float) -> bool:
    now = time.time()
    times = {"time": now} if query.instant else {"start": now - seconds, "end": now, "step": query.step}
    path = f"/api/v1/query{'' if query.instant else '_range'}"
    try:
        answer = prometheus.ask(
            "POST", path, urllib.parse.urlencode({"query": query.expr, **times}).encode(), kind=FORM
        )
        found = msgspec.convert(answer, _Answer).data.result
    except (RemoteError, msgspec.ValidationError) as error:
        raise RemoteError(f"{query.name}: {error}") from None
    values = (each for one in found for each in (*one.values, *([one.value] if one.value else ())))
    return any(value != "NaN" for _, value in values)
