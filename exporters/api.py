"""What a prober tells of its measurements over HTTP: /status and /history, as routes of a web application."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from aiohttp import hdrs, web

from exporters.identity import Identity
from exporters.times import iso

ITEMS_PER_TURN = 50
MAX_ITEMS = 1000
JOURNAL_HEADER = "Ovnwatch-Journal"


class Book(Protocol):
    """What the measurements are asked for; exporters.probing.record.Record has it."""

    journal_id: str

    def status(self) -> list[dict[str, Any]]: ...
    def connections(self) -> dict[str, dict[str, Any]]: ...
    def history(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]: ...
    def clear(self, now: float) -> None: ...


def add_book(
    app: web.Application,
    identity: Identity,
    book: Book,
    max_history: int,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Serve /status, with `more` in it, and /history; the latter without `since` is an array, the newest item first."""

    async def status(_: web.Request) -> web.Response:
        head = {
            "self": identity.pod,
            "timestamp": iso(time.time()),
            **{key: getattr(identity, key) for key in ("source", "node", "zone", "instance", "boot_id", "version")},
            "journal": book.journal_id,
            "connections": book.connections(),
            **more(),
        }
        return json_response(await in_turns(book.status(), head, "streams"), book.journal_id)

    async def history(request: web.Request) -> web.Response:
        if "since" not in request.query:
            newest_first = book.history(0, max_history)[::-1]
            most = number(request, "limit", max_history, 10**18 - 1, least=1)
            return json_response(await in_turns(newest_first[:most]), book.journal_id)
        since = number(request, "since", 0, 10**18 - 1)
        items = book.history(since, min(number(request, "limit", 200, 10**18 - 1, least=1), MAX_ITEMS))
        newest = max((item["seq"] for item in items), default=since)
        head = {"journal": book.journal_id, "next": newest}
        return json_response(await in_turns(items, head, "items"), book.journal_id)

    app.router.add_get("/status", status)
    app.router.add_get("/history", history)


def number(request: web.Request, name: str, default: int, most: int, *, least: int = 0) -> int:
    """Return a whole number from the query. Raises 400 that names the parameter."""
    text = request.query.get(name, str(default))
    if text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most:
        return int(text)
    error = json.dumps({"error": f"{name}: want a whole number from {least} to {most}, not {text[:40]!r}"})
    raise web.HTTPBadRequest(text=error, content_type="application/json")


async def in_turns(items: Iterable[Any], head: Mapping[str, Any] | None = None, key: str = "") -> str:
    """Return `items` as JSON under `key` beside `head`, or as a bare array; others have their turns meanwhile."""
    array: list[str] = []
    for item in items:
        array.append(json.dumps(item))
        if len(array) % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
    return f"[{','.join(array)}]" if head is None else f'{json.dumps(head)[:-1]}, "{key}": [{",".join(array)}]}}'


def json_response(text: str, journal_id: str) -> web.Response:
    headers = {JOURNAL_HEADER: journal_id, hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=text.encode(), content_type="application/json", headers=headers)
