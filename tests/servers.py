"""Servers to probe: a peer's own, and some that misbehave in one manner each.

A misbehaving server speaks its protocol well enough to know each request, and then does what its manner says.
"""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from time import time
from typing import Any, Protocol

from websockets.frames import Frame, Opcode
from websockets.utils import accept_key

from exporters.echo.servers import serve_http, serve_tcp, serve_ws
from exporters.identity import Identity, identify
from exporters.probing.record import Record
from exporters.settings import Tls

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST, not FIN
PEER = identify("there", "node-there", "zone-there")
BOOK = Record([], PEER)

# --- certificates


@dataclass(frozen=True)
class Certificates:
    """A CA and what it signed for 127.0.0.1, ::1 and localhost; one signed itself, one expired, one is for others."""

    folder: Path

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def server(self, name: str = "good", **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / "key")
        for option, value in options.items():
            setattr(context, option, value)
        if context.verify_mode:
            context.load_verify_locations(self.ca)
        return context

    def client(self, **changes: Any) -> Tls:
        return replace(Tls(ca_file=self.ca), **changes)


def make_certificates(folder: Path) -> Certificates:
    """Write them into `folder` with the openssl command."""
    told = subprocess.run(["openssl", "x509", "-help"], check=True, capture_output=True, text=True)
    past = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
    expired = past if "-not_after" in told.stdout + told.stderr else ("-days", "-1")  # which 3.5 takes no more
    lasting = ("-days", "2")
    ours, others = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost", "subjectAltName=DNS:other.example"

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key")
    self_signed = ("req", "-x509", "-new", "-key", "key", *lasting)
    openssl(*self_signed, "-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign", "-out", "ca.pem")
    openssl(*self_signed, "-subj", "/CN=self", "-addext", ours, "-out", "self.pem")
    openssl("req", "-new", "-key", "key", "-subj", "/CN=leaf", "-out", "request")
    for name, valid, names in (("good", lasting, ours), ("expired", expired, ours), ("wrong-name", lasting, others)):
        (folder / "names").write_text(f"{names}\nauthorityKeyIdentifier=keyid\n")  # strict clients want it
        signed = ("-CA", "ca.pem", "-CAkey", "key", "-CAcreateserial", *valid, "-extfile", "names")
        openssl("x509", "-req", "-in", "request", *signed, "-out", f"{name}.pem")
    return Certificates(folder)


# --- the peer's own servers


class Server(Protocol):
    """What a server can do for a test."""

    @property
    def port(self) -> int: ...
    async def close(self) -> None: ...


async def healthy(
    protocol: str,
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    identity: Identity = PEER,
    tls: ssl.SSLContext | None = None,
) -> Server:
    """A peer's own server."""
    if protocol == "http":
        return await serve_http(identity, BOOK, host, port, tls=tls)
    if protocol == "tcp":
        return await serve_tcp(identity, host, port, tls=tls)
    return await serve_ws(identity, host, port, tls=tls)


def refusing() -> socket.socket:
    """A port that stays ours and refuses connections; close it before something listens there."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


# --- servers that misbehave


class Caller:
    """A connection somebody made to us, and the requests on it."""

    def __init__(self, protocol: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocol = protocol
        self.reader = reader
        self.writer = writer

    async def greet(self) -> None:
        """Shake hands where the protocol does."""
        if self.protocol == "ws":
            head = await self.reader.readuntil(b"\r\n\r\n")
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
            assert key is not None
            self.writer.write(
                b"HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOvnwatch: 1\r\n"
                b"Sec-WebSocket-Accept: " + accept_key(key[1].decode()).encode() + b"\r\n\r\n"
            )

    async def request(self) -> dict[str, Any]:
        """The next request, and as `bytes` how long it was. Raises IncompleteReadError at the end."""
        if self.protocol == "http":
            head = await self.reader.readuntil(b"\r\n\r\n")
            return {"seq": 0, "size": 4096, "bytes": len(head)}
        text = await (self._frame() if self.protocol == "ws" else self.reader.readuntil(b"\n"))
        request: dict[str, Any] = json.loads(text.removeprefix(b"ovnwatch/1 "))
        return request | {"bytes": len(text)}

    async def _frame(self) -> bytes:
        head = await self.reader.readexactly(2)
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2))
        mask = await self.reader.readexactly(4)
        masked = await self.reader.readexactly(size)
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))

    def write(self, data: bytes) -> None:
        """One message as the protocol frames it."""
        if self.protocol == "http":
            data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        elif self.protocol == "ws":
            data = Frame(Opcode.TEXT, data).serialize(mask=False)
        else:
            data += b"\n"
        if not self.writer.is_closing():
            self.writer.write(data)

    def answer(self, seq: int, **more: Any) -> None:
        """A good answer to request `seq`."""
        text = json.dumps({"seq": seq, "boot_id": "b", "instance": "misbehaving", **more}).encode()
        self.write(text if self.protocol == "http" else b"ovnwatch/1 " + text)

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side closes."""
        while await self.reader.read(65536):
            pass


Manner = Callable[[Caller], Awaitable[None]]


async def closes(caller: Caller) -> None:
    """Closes at once, by returning."""


async def resets(caller: Caller) -> None:
    await caller.reader.read(1)
    caller.reset()


async def half_closes(caller: Caller) -> None:
    caller.writer.write_eof()
    await caller.gone()


async def silent(caller: Caller) -> None:
    await caller.gone()


async def closes_asked(caller: Caller) -> None:
    await caller.greet()
    await caller.request()


async def silent_after_greeting(caller: Caller) -> None:
    await caller.greet()
    await caller.gone()


async def garbage(caller: Caller) -> None:
    await caller.greet()
    await caller.request()
    caller.writer.write(b"\xff\0\x80garbage\r\n\r\n")
    await caller.gone()


async def endless(caller: Caller) -> None:
    await caller.greet()
    await caller.request()
    if caller.protocol == "http":
        caller.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    part = Frame(Opcode.BINARY, bytes(10_000)).serialize(mask=False) if caller.protocol == "ws" else bytes(10_000)
    while not caller.writer.is_closing():
        caller.writer.write(part)
        await caller.writer.drain()
        await asyncio.sleep(0)  # the prober shares the loop


async def wrong_number(caller: Caller) -> None:
    await caller.greet()
    while True:
        caller.answer(1_000_000 + (await caller.request())["seq"])


async def twice(caller: Caller) -> None:
    await caller.greet()
    while True:
        seq = (await caller.request())["seq"]
        caller.answer(seq)
        caller.answer(seq)


async def answers_once(caller: Caller) -> None:
    """Answers, and closes."""
    await caller.greet()
    caller.answer((await caller.request())["seq"])


async def refuses_upgrade(caller: Caller) -> None:
    await caller.reader.readuntil(b"\r\n\r\n")
    caller.writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    await caller.gone()


async def says_goodbye(caller: Caller) -> None:
    """Sends a Close frame when asked, and leaves the socket open."""
    await caller.greet()
    await caller.request()
    caller.writer.write(Frame(Opcode.CLOSE, b"").serialize(mask=False))
    await caller.gone()


async def not_found(caller: Caller) -> None:
    await caller.request()
    caller.writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    await caller.gone()


async def talks_first(caller: Caller) -> None:
    """Greets without being asked, in plain text."""
    caller.writer.write(b"220 there at your service\r\n")
    await caller.gone()


async def good(caller: Caller) -> None:
    await late(0.0)(caller)


def late(seconds: float) -> Manner:
    """Answers each request so long after it came."""

    async def manner(caller: Caller) -> None:
        await caller.greet()
        loop = asyncio.get_running_loop()
        while True:
            loop.call_later(seconds, caller.answer, (await caller.request())["seq"])

    return manner


def hesitates(seconds: float, clock: Callable[[], float] = time) -> Manner:
    """Answers the fourth request of each connection so long after it came, all others at once, and tells the time."""

    async def manner(caller: Caller) -> None:
        await caller.greet()
        for number in count(1):
            seq = (await caller.request())["seq"]
            if number == 4:
                await asyncio.sleep(seconds)
            caller.answer(seq, time=clock())

    return manner


def goodbye_after(answers: int) -> Manner:
    """Answers so many requests, sends a Close frame with the last answer, and leaves the socket open."""

    async def manner(caller: Caller) -> None:
        await caller.greet()
        for _ in range(answers):
            caller.answer((await caller.request())["seq"])
        caller.writer.write(Frame(Opcode.CLOSE, b"").serialize(mask=False))
        await caller.gone()

    return manner


def swallows_big(swallow: asyncio.Event) -> Manner:
    """Answers, but while `swallow` is set a message over 2 kB either way is lost, and all that comes behind it."""

    async def manner(caller: Caller) -> None:
        await caller.greet()
        while True:
            request = await caller.request()
            if swallow.is_set() and max(request["bytes"], request.get("size", 0)) > 2000:
                await caller.gone()
                return
            caller.answer(request["seq"])

    return manner


@dataclass
class Misbehaving:
    """A server whose manner may be changed; `connections` counts those it accepted."""

    protocol: str
    manner: Manner
    connections: int = 0
    port: int = 0
    callers: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.callers[writer] = task
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # the other side went first
            await self.manner(Caller(self.protocol, reader, writer))
        writer.close()
        del self.callers[writer]


@contextlib.asynccontextmanager
async def misbehaving(protocol: str, manner: Manner, tls: ssl.SSLContext | None = None) -> AsyncIterator[Misbehaving]:
    """Serve `protocol` that way on a free port, see `port`; leaving ends all connections."""
    server = Misbehaving(protocol, manner)
    listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for writer in server.callers:
            writer.transport.abort()
        await asyncio.gather(*server.callers.values())
