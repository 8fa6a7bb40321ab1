"""May the next node go? Answered over HTTP from what the page knows.

GET /gate?quiet=60&budget_left=0: {"verdict": "go", "reasons": [...], "quiet_seconds": 75, "budget_left_seconds": null}
"""

import json
import math
import re
import time

from aiohttp import web

from exporters.api import json_response
from exporters.bastion.broadcast import Broadcast
from exporters.bastion.state import COSTS, State
from exporters.probing.record import Record
from exporters.verdict.gate import QUIET, Seen, decide

LOUD = (*COSTS, "frozen")  # no quiet while one of these lasts
MOST = 86400.0  # seconds that anybody may ask for
QUERY = ("quiet", "budget_left")
NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)


class Gate:
    """Answers for one bastion, which began at `since` (Unix time)."""

    def __init__(self, record: Record, broadcast: Broadcast, since: float) -> None:
        self._record = record
        self._broadcast = broadcast
        self._since = since

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/gate", self._gate)

    async def _gate(self, request: web.Request) -> web.Response:
        others = [name for name in request.query if name not in QUERY or len(request.query.getall(name)) > 1]
        if others:  # a misspelt one would be answered as if it had not been asked
            raise _refused(f"want quiet and budget_left, each once, and not {others[0][:40]!r}")
        quiet, wanted = _seconds(request, "quiet", QUIET), _seconds(request, "budget_left", 0.0)
        now = time.time()
        found = decide(seen(await self._broadcast.fresh(), now, self._since), quiet, wanted)
        told = {
            "verdict": found.verdict,
            "reasons": list(found.reasons),
            "quiet_seconds": None if found.quiet is None else round(found.quiet, 3),
            "budget_left_seconds": None if found.left is None else round(found.left, 3),
        }
        await self._record.save()
        return json_response(json.dumps(told), self._record.journal_id)


def seen(state: State, now: float, since: float) -> Seen:
    """What the page's state says to a gate; `since`: when the bastion began to observe. Pure."""
    streams = state["streams"]
    words: dict[str, list[str]] = {"down": [], "frozen": [], "unknown": [], "up": []}
    for number, cell in state["cells"].items():
        _, source, target, path, protocol, *_ = streams[number]
        words[cell[0]].append(f"{source} -> {target} by {path}/{protocol}")
    loud = (each for each in state["events"].values() if each["kind"] in LOUD and each["end"] is not None)
    ends = [each["end"][1] for each in loud]
    summary = state["facts"]["summary"]
    return Seen(
        now=now,
        since=since,
        streams=len(state["cells"]),
        out=sorted(words["down"] + words["frozen"]),
        unknown=sorted(words["unknown"]),
        unheard=sorted(name for name, peer in state["peers"].items() if not peer["heard"]),
        last_end=max(ends, default=None),
        spent=summary["spent"][2],
        budget=summary["budget"],
    )


def _seconds(request: web.Request, name: str, default: float) -> float:
    """A number from the query. Raises 400 that names it."""
    text = request.query.get(name, str(default))
    number = float(text) if NUMBER.fullmatch(text) else math.nan
    if 0 <= number <= MOST:
        return number
    raise _refused(f"{name}: want seconds from 0 to {MOST:g}, not {text[:40]!r}")


def _refused(error: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": error}), content_type="application/json")
