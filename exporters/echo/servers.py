"""The echo servers that others probe: tcp, ws and http, each on a port of its own.

1. Whatever a client sends or leaves out costs bounded memory and never holds the event loop for long.
2. A connection that brings nothing for IDLE_SECONDS is closed, and so is one that does not take its answers. One that
   never asked anything keeps nobody out: when all places are taken, a new connection has that one's.
3. Health and metrics are elsewhere: an echo port in trouble must not hide them.
"""

import asyncio
import resource
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import WSMsgType, hdrs, web

from exporters.access import Access
from exporters.api import Book, add_book, number
from exporters.echo.wire import MAX_SIZE, Replies, client_address, read_ask
from exporters.identity import Identity
from exporters.listening import Door, Listening, accept, listen
from exporters.process import Server
from exporters.targets import Protocol
from exporters.times import iso
from exporters.web import Serving, add_token_check, new_app, require_token, serve

IDLE_SECONDS = 60.0
MAX_CONNECTIONS = 1024
MESSAGES_PER_TURN = 32  # then the other connections have theirs
BYTES_PER_TURN = MAX_SIZE  # of answers, which can be a thousand times as long as their requests
# A big answer begins with a packet of its own, which gets through where bigger ones do not: who hears it and no more
# knows that the path is to blame.
BIG = 1000
FIRST = 256


# --- tcp


class _TcpEcho(asyncio.Protocol):
    """One connection. It reads no more while there are lines left to answer or answers left to be taken."""

    def __init__(self, replies: Replies, connections: set["_TcpEcho"], silent: dict["_TcpEcho", None]) -> None:
        self.replies = replies
        self.connections = connections
        self.silent = silent
        self.buffer = bytearray()
        self.searched = 0
        self.full = False
        self.next_turn: asyncio.Handle | None = None
        self.rest = b""  # of an answer of which the first bytes are on their way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = cast("asyncio.Transport", transport)
        self.address = client_address(transport.get_extra_info("peername"))
        self.connections.add(self)
        self.silent[self] = None
        self.latest = self.loop.time()
        self.idle_timer = self.loop.call_later(IDLE_SECONDS, self.check_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle_timer.cancel()
        self.connections.discard(self)
        self.silent.pop(self, None)

    def pause_writing(self) -> None:
        self.full = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        self.turn()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.next_turn is None:
            self.turn()

    def eof_received(self) -> None:
        rest, self.rest = self.rest, b""
        self.transport.write(rest)  # with TLS it is closed now

    def turn(self) -> None:
        """Answer some of the lines that are there, the rest after other connections had their turn."""
        self.next_turn = None
        if self.full or self.transport.is_closing():
            return
        answer = self.rest or b"".join(self.some_answers())
        if answer:
            self.silent.pop(self, None)
            self.latest = self.loop.time()
            first = len(answer) if self.rest or len(answer) <= BIG else FIRST
            self.rest = answer[first:]
            self.transport.write(answer[:first])  # may call pause_writing
        if self.searched >= MAX_SIZE and not self.rest:
            self.transport.close()
        elif self.full:
            return
        elif self.rest or self.searched < len(self.buffer):
            self.transport.pause_reading()
            self.next_turn = self.loop.call_soon(self.turn)
        else:
            self.transport.resume_reading()

    def some_answers(self) -> list[bytes]:
        """Take a turn's lines out of the buffer; `searched` bytes of what stays hold no line end."""
        answers: list[bytes] = []
        room = BYTES_PER_TURN
        while room > 0 and len(answers) < MESSAGES_PER_TURN:
            end = self.buffer.find(b"\n", self.searched, MAX_SIZE) + 1
            if not end:
                self.searched = len(self.buffer)
                break
            answers.append(self.answer(bytes(self.buffer[:end])))
            room -= len(answers[-1])
            del self.buffer[:end]
            self.searched = 0
        return answers

    def answer(self, line: bytes) -> bytes:
        ask = read_ask(line)
        if ask is None:
            return line
        return self.replies.message(ask, self.address, time.time(), time.monotonic()) + b"\n"

    def check_idle(self) -> None:
        left = self.latest + IDLE_SECONDS - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self.idle_timer = self.loop.call_later(left, self.check_idle)


@dataclass(frozen=True, slots=True)
class TcpServing:
    """The tcp echo server at work."""

    listening: Listening
    connections: set[_TcpEcho]

    @property
    def port(self) -> int:
        return self.listening.port

    async def close(self) -> None:
        """Accept no more and cut every connection."""
        self.listening.close()
        for connection in list(self.connections):
            connection.transport.abort()


async def serve_tcp(
    identity: Identity,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
) -> TcpServing:
    """Answer lines: ours as wire.py says, any other with itself. Raises ListenError."""
    replies = Replies(identity)
    connections: set[_TcpEcho] = set()
    silent: dict[_TcpEcho, None] = {}  # that never asked anything, those that came first standing first

    def make_room(_: int) -> bool:
        oldest = next(iter(silent), None)
        if oldest is not None:
            del silent[oldest]
            oldest.transport.abort()
        return oldest is not None

    door = Door("tcp", max_connections, connections.__len__, lambda: _TcpEcho(replies, connections, silent), make_room)
    return TcpServing(await accept(listen(host, port), door, tls), connections)


# --- ws


async def serve_ws(
    identity: Identity,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
) -> Serving:
    """Answer our text messages and every PING, drop what else comes; any path will do. Raises ListenError."""
    replies = Replies(identity)
    talking: set[asyncio.Transport] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        # Compression would make a few bytes of a client's into megabytes of ours.
        ws = web.WebSocketResponse(timeout=1, autoping=False, compress=False, max_msg_size=MAX_SIZE + 1)
        if not ws.can_prepare(request):
            headers = {hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "upgrade"}
            return web.Response(status=426, text="this port speaks WebSocket\n", headers=headers)
        ws.headers["Ovnwatch"] = "1"
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has hung up")
        talking.add(transport)
        try:
            await _converse(ws, replies, client_address(request.get_extra_info("peername")))
        except (TimeoutError, ConnectionError):
            transport.abort()
        finally:
            talking.discard(transport)
        return ws

    async def cut(_: web.Application) -> None:
        for transport in list(talking):
            transport.abort()

    app = new_app()
    app.on_shutdown.append(cut)
    app.router.add_get("/{path:.*}", handler, allow_head=False)
    return await serve(app, host, port, tls=tls, max_connections=max_connections, name="ws")


async def _converse(ws: web.WebSocketResponse, replies: Replies, address: str) -> None:
    """Answer until the client leaves. Raises TimeoutError when it is idle, ConnectionError when it is gone."""
    loop = asyncio.get_running_loop()
    taken = 0
    async with asyncio.timeout(IDLE_SECONDS) as idle:
        async for message in ws:
            idle.reschedule(loop.time() + IDLE_SECONDS)
            taken += 1
            if taken % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
            if message.type is WSMsgType.PING:
                await ws.pong(message.data)
            elif message.type is WSMsgType.TEXT and (ask := read_ask(message.data.encode())):
                reply = replies.message(ask, address, time.time(), time.monotonic())
                if len(reply) > BIG:
                    await ws.pong()  # nobody asked for it (RFC 6455, 5.5.3): it is the small packet
                    await asyncio.sleep(0)
                await ws.send_frame(reply, WSMsgType.TEXT)


# --- http


async def serve_http(
    identity: Identity,
    book: Book | None,
    host: str,
    port: int,
    *,
    access: Access | None = None,
    max_history: int = 200,
    more: Callable[[], Mapping[str, Any]] = dict,
    tls: ssl.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
) -> Serving:
    """Serve /ping, and what is in the book: /status with `more`, /history, POST /admin/clear_history.

    Raises ListenError.
    """
    replies = Replies(identity)

    async def ping(request: web.Request) -> web.Response:
        size = number(request, "size", 0, MAX_SIZE)
        address = client_address(request.get_extra_info("peername"))
        body = replies.body(size, address, time.time(), time.monotonic())
        if len(body) <= BIG:
            return web.Response(body=body, content_type="application/json")
        length = {hdrs.CONTENT_LENGTH: str(len(body))}
        return web.Response(body=_in_two(body), headers=length, content_type="application/json")

    async def clear_history(request: web.Request) -> web.Response:
        require_token(request, access.token if access else None)
        now = time.time()
        if book is not None:
            book.clear(now)
            await book.save()
        return web.json_response({"ok": True, "pod": identity.pod, "ts": iso(now)})

    app = new_app()
    app.router.add_get("/ping", ping)
    if book is not None:
        add_book(app, identity, book, max_history, more)
        app.router.add_post("/admin/clear_history", clear_history)
        add_token_check(app, lambda: access.token if access else None)
    return await serve(app, host, port, tls=tls, max_connections=max_connections, name="http")


async def _in_two(body: bytes) -> AsyncIterator[bytes]:
    yield body[:FIRST]
    await asyncio.sleep(0)  # what is written in one turn of the loop goes out at once
    yield body[FIRST:]


async def serve_echoes(
    serving: list[Server],
    identity: Identity,
    listen: Mapping[Protocol, tuple[str, int]],
    *,
    book: Book | None = None,
    access: Access | None = None,
    max_history: int = 200,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Start the servers of `listen`, protocol to (host, port), adding each to `serving`. Raises ListenError."""
    room = max_connections()
    if "tcp" in listen:
        serving.append(await serve_tcp(identity, *listen["tcp"], max_connections=room))
    if "ws" in listen:
        serving.append(await serve_ws(identity, *listen["ws"], max_connections=room))
    if "http" in listen:
        serving.append(
            await serve_http(
                identity, book, *listen["http"], access=access, max_history=max_history, more=more, max_connections=room
            )
        )


def max_connections() -> int:
    """Return how many connections a server may have open: the probes need most of the descriptors."""
    return min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
