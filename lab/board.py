"""Does every query of the dashboard find something in the demo's Prometheus? Asked as Grafana would ask."""

import json
import time
from pathlib import Path

import aiohttp

import grafana
from grafana import asking
from grafana.asking import Asked
from lab.monitoring import LOCAL

FILE = Path(grafana.__file__).parent / "dashboards/connectivity.json"
STEP = 2  # seconds
RATE = {"__rate_interval": "10s"}  # over four scrapes and some, as they are a second apart here


async def unanswered(session: aiohttp.ClientSession, port: int, seconds: int) -> tuple[int, list[str]]:
    """How many queries the board has, and which of them find nothing in the last `seconds`."""
    board = json.loads(FILE.read_text(encoding="utf-8"))
    asked = asking.asked(board, seconds, STEP, RATE)
    return len(asked), [each.name for each in asked if not await _finds(session, port, each, seconds)]


async def _finds(session: aiohttp.ClientSession, port: int, query: Asked, seconds: int) -> bool:
    now = time.time()
    times = {"time": now} if query.instant else {"start": now - seconds, "end": now, "step": query.step}
    address = f"http://{LOCAL}:{port}/api/v1/query{'' if query.instant else '_range'}"
    async with session.post(address, data={"query": query.expr, **times}) as response:
        answer = await response.json()
    if answer["status"] != "success":
        return False
    found = [each.get("values") or [each["value"]] for each in answer["data"]["result"]]
    return any(value != "NaN" for values in found for _, value in values)
