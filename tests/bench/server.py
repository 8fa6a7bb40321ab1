"""The server that both sides probe: http, ws and our lines on one port, answered as a peer of ours would, but fast.

It is no reference and is not measured; it must only be cheap, and the same for everybody. Prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import cast

import uvloop
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from exporters.echo.wire import Replies, read_ask
from exporters.identity import identify

# Connections of the minute before still hold ports, some 28 000 for each address; so there are several.
ADDRESSES = tuple(f"127.0.0.{number}" for number in range(2, 18))
REPLIES = Replies(identify("server", "", ""))
SIZE = 4096


class Answers(asyncio.Protocol):
    """One connection; its first bytes say what is spoken."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.buffer = b""
        self.ws: ServerProtocol | None = None

    def data_received(self, data: bytes) -> None:
        if self.ws is not None:
            self.messages(self.ws, data)
            return
        self.buffer += data
        if self.buffer.startswith(b"GET /ping"):
            if self.buffer.endswith(b"\r\n\r\n"):
                self.page()
        elif self.buffer.startswith(b"GET"):
            self.ws = ServerProtocol()
            self.messages(self.ws, self.buffer)
        else:
            self.lines()

    def page(self) -> None:
        body = REPLIES.body(SIZE, "127.0.0.1", time.time(), time.monotonic())
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(head % len(body) + body)
        self.transport.close()

    def lines(self) -> None:
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            self.transport.write(reply(line) + b"\n")

    def messages(self, ws: ServerProtocol, data: bytes) -> None:
        if (text := whole_text(data)) is not None:
            self.transport.write(framed(reply(text)))
            return
        ws.receive_data(data)
        for event in ws.events_received():
            if isinstance(event, Request):
                response = ws.accept(event)
                response.headers["Ovnwatch"] = "1"
                ws.send_response(response)
            elif event.opcode is Opcode.TEXT:  # type: ignore[union-attr]
                ws.send_text(reply(bytes(event.data)))  # type: ignore[union-attr]
        self.transport.writelines(ws.data_to_send())


def whole_text(data: bytes) -> bytes | None:
    """The text if `data` is one masked frame of it, as nearly always (RFC 6455, 5.2)."""
    size, key = (data[1] & 0x7F, 2) if len(data) > 2 else (0, 2)
    if size == 126:
        size, key = int.from_bytes(data[2:4]), 4
    if data[0] != 0x81 or len(data) != key + 4 + size:
        return None
    return apply_mask(data[key + 4 :], data[key : key + 4])


def framed(text: bytes) -> bytes:
    """`text`, of less than 65 536 bytes, as one frame from a server."""
    return bytes((0x81, len(text))) + text if len(text) < 126 else b"\x81\x7e" + len(text).to_bytes(2) + text


def reply(request: bytes) -> bytes:
    ask = read_ask(request)
    return request if ask is None else REPLIES.message(ask, "127.0.0.1", time.time(), time.monotonic())


async def serve() -> None:
    loop = asyncio.get_running_loop()
    port = 0
    for attempt in range(20):
        try:
            first = await loop.create_server(Answers, ADDRESSES[0], 0, backlog=1024)
            port = first.sockets[0].getsockname()[1]
            await loop.create_server(Answers, ADDRESSES[1:], port, backlog=1024)
            break
        except OSError:  # the port is taken on one of the addresses
            first.close()
            if attempt == 19:
                raise
    print(port, flush=True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())
