"""Does every query of the dashboard find something in the demo's Prometheus? Asked as Grafana would ask."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

import grafana
from lab.monitoring import LOCAL

FILE = Path(grafana.__file__).parent / "dashboards/connectivity.json"
STEP = 2  # seconds
# What Grafana fills in: a rate over four scrapes and some, as they are a second apart here.
BUILT_IN = {"__rate_interval": "10s", "__interval": f"{STEP}s"}


class Query(NamedTuple):
    """One query of one panel; `instant`: for now alone, else over the whole range."""

    name: str
    expr: str
    instant: bool


def queries(document: Mapping[str, Any], seconds: int) -> list[Query]:
    """All queries of a board, with everything chosen and a range of `seconds`."""
    chosen = {each["name"]: each["allValue"] for each in document["templating"]["list"] if each.get("allValue")}
    values = {**BUILT_IN, **chosen, "__range": f"{seconds}s", "__range_s": str(seconds)}
    return [
        Query(
            f"{panel['title']} {target['refId']}",
            re.sub(r"\$(\w+)", lambda found: values[found[1]], target["expr"]),
            target["instant"],
        )
        for panel in _panels(document)
        for target in panel.get("targets", ())
    ]


def _panels(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in document["panels"]:
        yield panel
        yield from panel.get("panels", ())


async def unanswered(session: aiohttp.ClientSession, port: int, seconds: int) -> tuple[int, list[str]]:
    """How many queries the board has, and which of them find nothing in the last `seconds`."""
    asked = queries(json.loads(FILE.read_text(encoding="utf-8")), seconds)
    return len(asked), [each.name for each in asked if not await _finds(session, port, each, seconds)]


async def _finds(session: aiohttp.ClientSession, port: int, query: Query, seconds: int) -> bool:
    now = time.time()
    times = {"time": now} if query.instant else {"start": now - seconds, "end": now, "step": STEP}
    address = f"http://{LOCAL}:{port}/api/v1/query{'' if query.instant else '_range'}"
    async with session.post(address, data={"query": query.expr, **times}) as response:
        answer = await response.json()
    if answer["status"] != "success":
        return False
    found = [each.get("values") or [each["value"]] for each in answer["data"]["result"]]
    return any(value != "NaN" for values in found for _, value in values)
