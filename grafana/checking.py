"""What is wrong with a board's JSON, and which of its queries a Prometheus has no answer to."""

import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from grafana import asking, grid
from grafana.asking import Asked
from grafana.pushing import RemoteError

MOST_BYTES = 200 * 1024
MOST_VISIBLE = 20
LONGEST_UID = 40
SCHEMA_VERSIONS = range(38, 42)  # Grafana 9.4 to 13 migrate nothing, or nothing that changes a board
SECONDS = 30.0
POINTS = 300  # of a graph

Board = Mapping[str, Any]


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
    known = {each["name"] for each in board["templating"]["list"]}
    for target in panel.get("targets", ()):
        named = {name for name in re.findall(r"\$(\w+)", target["expr"]) if not name.startswith("__")}
        if named - known:
            yield f"{title!r} reads variables that are not there: {', '.join(sorted(named - known))}"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or above)


def unanswered(board: Board, prometheus: str, seconds: float) -> Iterator[str]:
    """Names of queries that find nothing in the last `seconds`. Raises RemoteError when Prometheus does not answer."""
    step = max(1, math.ceil(seconds / POINTS))
    for query in asking.asked(board, asking.timed(seconds, step)):
        if not _finds(prometheus, query, seconds, step):
            yield query.name


def _finds(prometheus: str, query: Asked, seconds: float, step: int) -> bool:
    now = time.time()
    times = {"time": now} if query.instant else {"start": now - seconds, "end": now, "step": step}
    path = f"/api/v1/query{'' if query.instant else '_range'}"
    body = urllib.parse.urlencode({"query": query.expr, **times}).encode()
    try:
        with urllib.request.urlopen(f"{prometheus}{path}", body, timeout=SECONDS) as answer:  # noqa: S310
            found = json.loads(answer.read())["data"]["result"]
    except urllib.error.HTTPError as error:
        raise RemoteError(f"{query.name}: {error.code} {error.read(300).decode(errors='replace')}") from None
    except (OSError, ValueError, KeyError) as error:
        raise RemoteError(f"{prometheus}: {error}") from None
    values = [each.get("values") or [each["value"]] for each in found]
    return any(value != "NaN" for one in values for _, value in one)
