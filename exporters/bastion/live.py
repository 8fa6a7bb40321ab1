"""The page's live side over HTTP: the stream of changes, and what people may do with the token.

GET  /api/stream       server-sent events: reset, change, ready, beat (see Broadcast); Last-Event-ID or ?last= resumes
POST /api/windows      {"name": "node-3", "budget_seconds": 60}: opens a window; 409 where one is open
POST /api/windows/end  closes it; 409 where none is
POST /api/notes        {"text": "rebooting node-3"}

Every POST needs the bearer token, which no other site's page can send: that is what keeps forged requests out.
"""

import json
import time
from typing import Any, TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from exporters.api import json_response
from exporters.bastion.broadcast import Broadcast, FullError
from exporters.bastion.marks import Marks, NewNote, NewWindow, NoWindowError, WindowOpenError
from exporters.probing.record import Record
from exporters.web import add_token_check, require_token

STREAM_HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.SERVER: "ovnwatch",
    "X-Accel-Buffering": "no",  # proxies keep nothing back
    "X-Content-Type-Options": "nosniff",
}

Wanted = TypeVar("Wanted", bound=BaseModel)


class Live:
    """Answers for one bastion."""

    def __init__(self, record: Record, marks: Marks, broadcast: Broadcast, token: str | None) -> None:
        self._record = record
        self._marks = marks
        self._broadcast = broadcast
        self._token = token

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/stream", self._stream)
        app.router.add_post("/api/windows", self._start)
        app.router.add_post("/api/windows/end", self._end)
        app.router.add_post("/api/notes", self._note)
        add_token_check(app, lambda: self._token)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID") or request.query.get("last", "")
        response = web.StreamResponse(headers=STREAM_HEADERS)

        def cut() -> None:
            if request.transport is not None:
                request.transport.abort()

        texts = self._broadcast.watch(last[:100], cut)
        try:
            async for text in texts:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(text)
        except FullError:
            headers = {hdrs.RETRY_AFTER: "5"}
            raise web.HTTPServiceUnavailable(text="too many tabs watch already\n", headers=headers) from None
        finally:
            await texts.aclose()
        return response

    async def _start(self, request: web.Request) -> web.Response:
        wanted = await self._wanted(request, NewWindow)
        try:
            item = self._marks.start(wanted, time.time())
        except WindowOpenError as error:
            raise _refused(web.HTTPConflict, f"a window is open already: {error.args[0]}") from None
        return await self._told(item)

    async def _end(self, request: web.Request) -> web.Response:
        require_token(request, self._token)
        try:
            item = self._marks.end(time.time())
        except NoWindowError:
            raise _refused(web.HTTPConflict, "no window is open") from None
        return await self._told(item)

    async def _note(self, request: web.Request) -> web.Response:
        wanted = await self._wanted(request, NewNote)
        return await self._told(self._marks.note(wanted, time.time()))

    async def _told(self, item: dict[str, Any]) -> web.Response:
        await self._record.save()
        return json_response(json.dumps(item), self._record.journal_id)

    async def _wanted(self, request: web.Request, model: type[Wanted]) -> Wanted:
        """The body of a request that bears the token. Raises 400 that says what is wrong with it."""
        require_token(request, self._token)
        try:
            return model.model_validate_json(await request.read())
        except ValidationError as error:
            wrongs = error.errors(include_url=False, include_context=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}"[:200] for each in wrongs[:5])
            raise _refused(web.HTTPBadRequest, said) from None


def _refused(kind: type[web.HTTPException], why: str) -> web.HTTPException:
    return kind(text=json.dumps({"error": why.removeprefix(": ")}), content_type="application/json")
