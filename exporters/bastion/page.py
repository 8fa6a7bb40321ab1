"""The bastion's page and its API: what we see from outside, what the peers see, one history, and where to look.

GET  /                  the page, which lives on /api/stream (see live.py); /simple: one table without script
GET  /api/data           {"external_tests": {"peer-1-lb (HTTP)": {"status", "error", "last_update"}},
                          "internal_status": {"peer-1-route": what that peer says, or {"error", "url"}},
                          "history": [newest first], and ours: "look", "peers", "streams"}
POST /api/clear_history with the bearer token: hides what is over, here and at every peer; nothing is lost
GET  /healthz            ok
"""

import asyncio
import html
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from aiohttp import hdrs, web

from exporters import times
from exporters.api import json_response
from exporters.bastion.broadcast import Broadcast
from exporters.bastion.marks import Marks
from exporters.bastion.pull import Peer, Pull
from exporters.bastion.simple import REFRESH_SECONDS, simple
from exporters.bastion.ways import SUFFIXES
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.web import require_token, token_of

log = logging.getLogger(__name__)

DATA_SECONDS = 0.5  # for so long one answer serves all who ask
STEPS_PER_TURN = 50
WORDS = {"up": "connected", "down": "error", "frozen": "error", "unknown": "unknown"}

ASSETS = Path(__file__).parent / "page"
MODULES = "page acts dom export history live matrix rows store stream timeline top worker"
KINDS = {
    "page.html": "text/html",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    **{f"{name}.js": "text/javascript" for name in MODULES.split()},
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    hdrs.CACHE_CONTROL: "no-cache",
}


class Page:
    """Answers for one bastion; `look` tells what is to blame."""

    def __init__(
        self,
        record: Record,
        pull: Pull,
        marks: Marks,
        broadcast: Broadcast,
        *,
        look: Callable[[], Sequence[Mapping[str, Any]]],
        token: str | None,
    ) -> None:
        self._record = record
        self._pull = pull
        self._marks = marks
        self._broadcast = broadcast
        self._look = look
        self._token = token
        self._building: asyncio.Task[str] | None = None
        self._text = ""
        self._built = -inf

    def add_to(self, app: web.Application, telemetry_path: str) -> None:
        """Serve the page at /, its API, and /healthz."""
        for name, kind in KINDS.items():
            text = (ASSETS / name).read_text(encoding="utf-8").replace("{telemetry_path}", html.escape(telemetry_path))
            app.router.add_get("/" if name == "page.html" else f"/page/{name}", _static(text, kind))
        app.router.add_get("/simple", self._simple)
        app.router.add_get("/api/data", self._data)
        app.router.add_post("/api/clear_history", self._clear)
        app.router.add_get("/healthz", _healthz)

    async def _simple(self, _: web.Request) -> web.Response:
        text = simple(await self._broadcast.fresh(), time.time())
        headers = {**HEADERS, "Refresh": str(REFRESH_SECONDS)}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _data(self, _: web.Request) -> web.Response:
        if self._building is None and monotonic() - self._built >= DATA_SECONDS:
            self._building = asyncio.create_task(self._build())
        if self._building is not None:
            await asyncio.shield(self._building)
        return json_response(self._text, self._record.journal_id)

    async def _build(self) -> str:
        try:
            text = "".join([part async for part in in_turns(self._parts())])
            await self._record.save()  # nothing is told that a crash could take back
            self._text = text
            self._built = monotonic()
        finally:
            self._building = None
        return self._text

    def _parts(self) -> Iterator[str]:
        """The answer, piece by piece: there may be thousands of streams."""
        record, now, wall = self._record, monotonic(), time.time()
        everyone = list(record.stats.values())
        yield f'{{"source": {json.dumps(record.self_source)}, "timestamp": "{times.iso(wall)}", "external_tests": '
        yield from _object(external_tests(everyone, now, wall))
        yield ', "internal_status": '
        yield from _object((name_of(peer), said_by(peer)) for peer in self._pull.known())
        yield f', "look": {json.dumps(self._look())}, "peers": '
        yield from _array(map(shown, self._pull.known()))
        yield ', "journals": '
        yield from _array(map(shown, self._pull.journals()))
        yield ', "streams": '
        yield from _array(stream(stats, now) for stats in everyone)
        own = record.history(0, record.max_history)
        yield ', "history": '
        yield from _array(merged(own, self._pull.heard.items(), record.max_history))
        yield "}"

    async def _clear(self, request: web.Request) -> web.Response:
        require_token(request, self._token)
        now = time.time()
        self._marks.clear(now)
        await self._record.save()
        self._pull.heard.clear(now)
        self._built = -inf
        token = token_of(request, self._token) or ""
        failed = {name: wrong for name, wrong in (await self._pull.clear(token)).items() if wrong}
        for name, wrong in failed.items():
            log.warning("history of %s not cleared: %s", name, wrong)
        lines = ["history cleared", *(f"not that of {name}: {wrong}" for name, wrong in failed.items())]
        return web.Response(text="\n".join(lines))


def _static(text: str, kind: str) -> Callable[[web.Request], Any]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind, headers=HEADERS)

    return handler


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def in_turns(parts: Iterable[str]) -> AsyncIterator[str]:
    """The parts; others have their turns between them."""
    for count, part in enumerate(parts, 1):
        yield part
        if count % STEPS_PER_TURN == 0:
            await asyncio.sleep(0)


def _object(members: Iterable[tuple[str, Any]]) -> Iterator[str]:
    yield "{"
    for number, (name, value) in enumerate(members):
        yield f"{', ' if number else ''}{json.dumps(name)}: {json.dumps(value)}"
    yield "}"


def _array(items: Iterable[Any]) -> Iterator[str]:
    yield "["
    for number, item in enumerate(items):
        yield f"{', ' if number else ''}{json.dumps(item)}"
    yield "]"


# What the page shows. Pure, but for the records and peers that are read.


def external_tests(everyone: Sequence[Stats], now: float, wall: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """An earlier system's view: "<name> (HTTP)" to status, error and last_update.

    A name that several paths or IP versions share is told apart by what the earlier system's names end in: shop-lb.
    """
    families = Counter(map(_by_path, everyone))
    paths = Counter((target, protocol) for target, _, protocol in families)
    for stats in everyone:
        spec = stats.spec
        name = spec.shown or spec.target
        if not spec.shown and paths[spec.target, spec.protocol] > 1 and not name.endswith(SUFFIXES[spec.path]):
            name += SUFFIXES[spec.path]
        if families[_by_path(stats)] > 1:
            name += f" IPv{spec.family}"
        word = WORDS[stats.now_state] if stats.watching(now) else "unknown"
        error = stats.cause or "other" if word == "error" else None
        last = times.iso(wall - (now - stats.decided) if stats.decided else stats.since)
        yield f"{name} ({spec.protocol.upper()})", {"status": word, "error": error, "last_update": last}


def _by_path(stats: Stats) -> tuple[str, str, str]:
    return stats.spec.target, stats.spec.path, stats.spec.protocol


def name_of(peer: Peer) -> str:
    """What an earlier system calls a peer: by its Route, if it has one."""
    return next((way.target for way in peer.ways if way.path == "route"), peer.ways[0].target)


def said_by(peer: Peer) -> Mapping[str, Any]:
    """What a peer that is heard says of itself, else why it is not."""
    return peer.status if peer.heard else {"error": peer.error or "not asked yet", "url": peer.url or peer.ways[0].url}


def shown(peer: Peer) -> dict[str, Any]:
    """Whether a peer is heard: true, false, or null for not asked yet; and since when it is so."""
    return {
        "name": peer.name,
        "heard": peer.heard,
        "since": times.iso(peer.since),
        "last_heard": times.iso(peer.last) if peer.last else None,
        "url": peer.url or peer.ways[0].url,
        "error": peer.error,
        "sources": sorted(peer.sources),
        "clock_offset_seconds": round(peer.offset, 6) if peer.last else None,
    }


def stream(stats: Stats, now: float) -> dict[str, Any]:
    spec = stats.spec
    return {
        "stream": spec.key,
        "target": spec.target,
        "path": spec.path,
        "protocol": spec.protocol,
        "family": spec.family,
        "state": stats.now_state,
        "since": times.iso(stats.since),
        "cause": stats.cause,
        "observed": stats.watching(now),
    }


def merged(
    own: Iterable[dict[str, Any]], told: Iterable[tuple[float, dict[str, Any]]], limit: int
) -> Iterable[dict[str, Any]]:
    """Both histories as one, what is open first, then by the end, the newest first."""
    both = [(_end(item), item) for item in own]
    both += told
    both.sort(key=lambda each: (each[0], each[1]["start_time"]), reverse=True)
    return (item for _, item in both[:limit])


def _end(item: Mapping[str, Any]) -> float:
    if item["state"] == "open":
        return inf
    begin = times.seconds(item["start_time"])
    return times.seconds(item["end_time"]) if item["end_time"] else begin + float(item["duration_sec"])
