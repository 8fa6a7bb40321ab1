"""What a prober tells of its measurements over HTTP: /status and /history, as routes of a web application."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol, get_args

from aiohttp import hdrs, web

from exporters.identity import Identity
from exporters.journal import ReadError
from exporters.targets import PathKind
from exporters.times import iso

ITEMS_PER_TURN = 50
MAX_ITEMS = 1000
JOURNAL_HEADER = "Ovnwatch-Journal"
NDJSON = "application/x-ndjson"
KINDS = ("outage", "blip", "break", "frozen", "gap", "phase", "note", "window", "target_change")
# What chooses entries of the history, and the values it can have; none listed: any.
FILTERS: Mapping[str, Sequence[str]] = {
    "kind": KINDS,
    "state": ("open", "closed", "truncated"),
    "target": (),
    "path": tuple(get_args(PathKind)),
}
KEY = ("source", "target", "path", "protocol", "family")  # parts of a stream's key


class Book(Protocol):
    """What the measurements are asked for; exporters.probing.record.Record has it."""

    journal_id: str

    def status(self) -> list[dict[str, Any]]: ...
    def connections(self) -> dict[str, dict[str, Any]]: ...
    def history(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]: ...
    async def find(
        self, since: int, limit: int, wanted: Mapping[str, str], *, cleared: bool
    ) -> list[tuple[int, str]]: ...
    async def save(self) -> None: ...
    def clear(self, now: float) -> object: ...


def add_book(
    app: web.Application,
    identity: Identity,
    book: Book,
    max_history: int,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Serve /status, with `more` in it, and /history; the latter without `since` is an array, the newest item first.

    Of the history, FILTERS choose; `cleared=1` tells what a clearing took off the list, too.
    """

    async def status(_: web.Request) -> web.Response:
        head = {
            "self": identity.pod,
            "timestamp": iso(time.time()),
            **{key: getattr(identity, key) for key in ("source", "node", "zone", "instance", "boot_id", "version")},
            "journal": book.journal_id,
            "connections": book.connections(),
            **more(),
        }
        text = await in_turns(book.status(), head, "streams")
        await book.save()  # nothing is told that a crash could take back
        return json_response(text, book.journal_id)

    async def history(request: web.Request) -> web.Response:
        wanted = {name: word(request, name, known) for name, known in FILTERS.items() if name in request.query}
        if "since" not in request.query:
            items = [item for item in book.history(0, max_history)[::-1] if fits(item, wanted)]
            most = number(request, "limit", max_history, 10**18 - 1, least=1)
            lines = [json.dumps(item) async for item in _slowly(items[:most])]
            return _history(request, lines, f"[{','.join(lines)}]", book.journal_id)
        since = number(request, "since", 0, 10**18 - 1)
        most = min(number(request, "limit", 200, 10**18 - 1, least=1), MAX_ITEMS)
        try:
            found = await book.find(since, most, wanted, cleared=number(request, "cleared", 0, 1) == 1)
        except ReadError as error:
            told = json.dumps({"error": f"the journal: {error}"})
            raise web.HTTPServiceUnavailable(text=told, content_type="application/json") from None
        lines = [text for _, text in found]
        head = {"journal": book.journal_id, "next": max((seq for seq, _ in found), default=since)}
        page = f'{json.dumps(head)[:-1]}, "items": [{",".join(lines)}]}}'
        return _history(request, lines, page, book.journal_id)

    app.router.add_get("/status", status)
    app.router.add_get("/history", history)


def fits(item: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Has an entry of the history these values of kind, state, target and path?"""
    parts = item.get("stream", "").split("|")
    place = {"target": parts[1], "path": parts[2]} if len(parts) == len(KEY) else dict.fromkeys(("target", "path"))
    return all({**item, **place}.get(name) == value for name, value in wanted.items())


def _history(request: web.Request, lines: Sequence[str], page: str, journal_id: str) -> web.Response:
    """The page, or its entries line by line for who asks so; nothing for who has just that already."""
    lined = NDJSON in request.headers.get(hdrs.ACCEPT, "")
    text = "".join(f"{line}\n" for line in lines) if lined else page
    tag = f'"{blake2b(text.encode(), digest_size=12).hexdigest()}"'
    answer = json_response(text, journal_id, NDJSON if lined else "application/json")
    if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        answer = web.Response(status=304, headers=answer.headers)
        del answer.headers[hdrs.CONTENT_TYPE]
    answer.headers[hdrs.ETAG] = tag
    answer.headers[hdrs.CACHE_CONTROL] = "no-cache"  # keep it, and ask whether it is still so
    answer.headers[hdrs.VARY] = hdrs.ACCEPT
    return answer


async def _slowly(items: Iterable[Any]) -> AsyncIterator[Any]:
    """The items; others have their turns meanwhile."""
    for place, item in enumerate(items, 1):
        yield item
        if place % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)


def word(request: web.Request, name: str, known: Sequence[str]) -> str:
    """Return a word from the query, one of `known` if there are any. Raises 400 that names the parameter."""
    text = request.query[name]
    if not known or text in known:
        return text
    error = json.dumps({"error": f"{name}: want one of {', '.join(known)}, not {text[:40]!r}"})
    raise web.HTTPBadRequest(text=error, content_type="application/json")


def number(request: web.Request, name: str, default: int, most: int, *, least: int = 0) -> int:
    """Return a whole number from the query. Raises 400 that names the parameter."""
    text = request.query.get(name, str(default))
    if text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most:
        return int(text)
    error = json.dumps({"error": f"{name}: want a whole number from {least} to {most}, not {text[:40]!r}"})
    raise web.HTTPBadRequest(text=error, content_type="application/json")


async def in_turns(items: Iterable[Any], head: Mapping[str, Any], key: str) -> str:
    """Return `items` as JSON under `key` beside `head`; others have their turns meanwhile."""
    array = [json.dumps(item) async for item in _slowly(items)]
    return f'{json.dumps(head)[:-1]}, "{key}": [{",".join(array)}]}}'


def json_response(text: str, journal_id: str, content_type: str = "application/json") -> web.Response:
    headers = {JOURNAL_HEADER: journal_id, hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=text.encode(), content_type=content_type, headers=headers)
