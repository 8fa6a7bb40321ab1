"""What is said on a connection: http, tcp, ws. Bytes in, replies out; no socket and no clock in here.

To add a protocol: a class with the members of `Exchange`, and a line in PROTOCOLS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import httptools
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

# Every cause a failed probe can have; nothing else ever becomes a label.
CAUSES = (
    "dns_timeout",
    "dns_error",
    "connect_timeout",
    "refused",
    "unreachable",
    "tls",
    "ws_upgrade",
    "http_status",
    "bad_response",
    "response_timeout",
    "reset",
    "closed",
    "stalled",
    "peer_frozen",
    "other",
)

BIG = 4096  # bytes of a big message: more than a path with a broken MTU carries in one packet
MOST = 65536  # bytes we are ready to read for each request: whoever sends more answers nothing we asked
PREFIX = b"ovnwatch/1 "
IDENTITY = ("instance", "node", "zone", "source", "boot_id", "address", "pod")


class BadReplyError(Exception):
    """The peer answered something that is no answer; args[0] is the cause."""


class Reply(NamedTuple):
    """seq: which request it answers; info: what the peer says of itself (checked: short printable strings)."""

    seq: int
    info: dict[str, str]


@dataclass(frozen=True, slots=True)
class Hello:
    """What we say of ourselves in each request, and where it goes."""

    source: str
    instance: str
    host: str
    port: int
    tls: bool
    url_path: str = "/ping"
    agent: str = "ovnwatch"

    @property
    def authority(self) -> str:
        """host:port as HTTP writes it; a scheme's own port is left out, for some routers compare the letters."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Exchange(Protocol):
    """The talk on one connection."""

    ready: bool  # may a heartbeat be sent?

    def opening(self) -> bytes:
        """What to send when the connection is open, before the first heartbeat."""

    def heartbeat(self, seq: int, *, big: bool) -> bytes:
        """Request number seq."""

    def feed(self, data: bytes) -> list[Reply]:
        """Replies completed by `data`. Raises BadReplyError."""

    def owed(self) -> bytes:
        """What the protocol itself must send after `feed` (a PONG, say)."""

    def ended(self, cause: str) -> tuple[list[Reply], str]:
        """The peer closed: replies that its close completed, and the cause for those still waiting."""


def identity(raw: bytes) -> dict[str, Any]:
    """The JSON object of a reply. Raises BadReplyError for anything else, however nasty."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadReplyError("bad_response") from None
    if not isinstance(value, dict):
        raise BadReplyError("bad_response")
    return value


def _known(value: dict[str, Any]) -> dict[str, str]:
    if "boot_id" not in value:
        return {}  # our own request, echoed unchanged
    return {
        key: text
        for key in IDENTITY
        if isinstance(text := value.get(key), str) and len(text) <= 253 and text.isprintable()
    }


def _request(hello: Hello, seq: int, *, big: bool) -> bytes:
    head = {"seq": seq, "source": hello.source, "instance": hello.instance}
    if big:
        head["size"] = BIG
        line = json.dumps(head)
        head["pad"] = "." * max(0, BIG - len(PREFIX) - len(line) - len(', "pad": ""') - 1)
    return PREFIX + json.dumps(head).encode()


class Tcp:
    """Lines both ways. A peer that is no ovnwatch may echo ours unchanged."""

    ready = True

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._buffer = b""
        self._read = 0  # since the last request

    def opening(self) -> bytes:
        return b""

    def heartbeat(self, seq: int, *, big: bool) -> bytes:
        self._read = 0
        return _request(self._hello, seq, big=big) + b"\n"

    def feed(self, data: bytes) -> list[Reply]:
        self._read += len(data)
        if self._read > MOST:
            raise BadReplyError("bad_response")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [message(line) for line in lines]

    def owed(self) -> bytes:
        return b""

    def ended(self, cause: str) -> tuple[list[Reply], str]:
        return [], cause


def message(line: bytes) -> Reply:
    """`ovnwatch/1 {json}` -> Reply. Raises BadReplyError."""
    if not line.startswith(PREFIX) or len(line) > MOST:
        raise BadReplyError("bad_response")
    value = identity(line[len(PREFIX) :])
    seq = value.get("seq")
    if type(seq) is not int:
        raise BadReplyError("bad_response")
    return Reply(seq, _known(value))


class Ws:
    """Text messages of the same form; with a server that is no ovnwatch, PING frames that carry the number."""

    def __init__(self, hello: Hello) -> None:
        scheme = "wss" if hello.tls else "ws"
        self._hello = hello
        self._protocol = ClientProtocol(parse_uri(f"{scheme}://{hello.authority}/"), max_size=MOST)
        self._ours = False
        self._read = 0  # since the last request
        self._message = b""  # a message of which not all fragments are here; the protocol limits its size
        self.ready = False

    def opening(self) -> bytes:
        request = self._protocol.connect()
        request.headers["User-Agent"] = self._hello.agent
        self._protocol.send_request(request)
        return b"".join(self._protocol.data_to_send())

    def heartbeat(self, seq: int, *, big: bool) -> bytes:
        self._read = 0
        if self._ours:
            self._protocol.send_text(_request(self._hello, seq, big=big))
        else:
            self._protocol.send_ping(b"%d" % seq)
        return b"".join(self._protocol.data_to_send())

    def feed(self, data: bytes) -> list[Reply]:
        self._read += len(data)
        if self._read > MOST:
            raise BadReplyError("ws_upgrade" if self._protocol.state is State.CONNECTING else "bad_response")
        self._protocol.receive_data(data)
        replies = []
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._upgraded(event)
            elif isinstance(event, Frame):
                replies += self._frame(event)
        if self._protocol.handshake_exc is not None:
            raise BadReplyError("ws_upgrade")
        if self._protocol.parser_exc is not None:
            raise BadReplyError("bad_response")
        if self._protocol.state is State.CLOSING:
            self.ready = False  # the peer said goodbye: nothing may be asked here, whenever its socket follows
            if not replies:
                raise BadReplyError("closed")
        return replies

    def _frame(self, frame: Frame) -> list[Reply]:
        data = bytes(frame.data)
        if frame.opcode is Opcode.PONG and data.isdigit() and len(data) < 19:
            return [Reply(int(data), {})]
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return []
        whole, self._message = self._message + data, b""
        if not frame.fin:
            self._message = whole
        elif whole.startswith(PREFIX):
            return [message(whole)]
        return []

    def _upgraded(self, response: Response) -> None:
        self.ready = self._protocol.handshake_exc is None
        self._ours = "1" in response.headers.get_all("Ovnwatch")

    def owed(self) -> bytes:
        return b"".join(self._protocol.data_to_send())

    def ended(self, cause: str) -> tuple[list[Reply], str]:
        refused = self._protocol.state is State.CONNECTING and self._read > 0  # with a page that lasts until the end
        return [], "ws_upgrade" if refused and cause == "closed" else cause


@dataclass(slots=True)
class _Message:
    """What httptools tells of an HTTP response; interim ones (1xx) before it and whatever follows are passed over."""

    status_code: Callable[[], int] = int
    body: list[bytes] = field(default_factory=list)
    framed: bool = False
    status: int = 0  # 0: the header is not complete
    complete: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self.framed = True

    def on_headers_complete(self) -> None:
        if not self.status and not 100 <= self.status_code() < 200:
            self.status = self.status_code()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete = self.status > 0


class Http:
    """One GET /ping on a connection of its own; it asks for a reply of 4 kB."""

    ready = True

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._seq = 0
        self._read = 0
        self._message = _Message()
        self._parser = httptools.HttpResponseParser(self._message)
        self._message.status_code = self._parser.get_status_code

    def opening(self) -> bytes:
        return b""

    def heartbeat(self, seq: int, *, big: bool) -> bytes:
        self._seq = seq
        hello = self._hello
        return (
            f"GET {hello.url_path}?size={BIG} HTTP/1.1\r\nHost: {hello.authority}\r\nUser-Agent: {hello.agent}\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode()

    def feed(self, data: bytes) -> list[Reply]:
        self._read += len(data)
        if self._read > MOST:
            raise BadReplyError("bad_response")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadReplyError("http_status") from None  # 101: it speaks something else from now on
        except httptools.HttpParserError:
            if not self._message.complete:  # what follows a whole message is of no interest
                raise BadReplyError("bad_response") from None
        if self._message.status and not 200 <= self._message.status < 400:
            raise BadReplyError("http_status")
        return self._reply() if self._message.complete else []

    def owed(self) -> bytes:
        return b""

    def ended(self, cause: str) -> tuple[list[Reply], str]:
        if cause == "closed" and self._message.status and not self._message.framed:
            return self._reply(), cause
        return [], "bad_response" if self._read and cause == "closed" else cause

    def _reply(self) -> list[Reply]:
        self._message.status_code = int  # the parser holds the message: without this only the collector would free both
        body = b"".join(self._message.body)
        info = {}
        if body.startswith(b"{"):
            with suppress(BadReplyError):  # any page is an answer; only ours says who answered
                info = _known(identity(body))
        return [Reply(self._seq, info)]


@dataclass(frozen=True, slots=True)
class Speech:
    """How a protocol is probed: what is said, and whether one connection carries many probes."""

    exchange: Callable[[Hello], Exchange]
    persistent: bool


PROTOCOLS = {
    "http": Speech(Http, persistent=False),
    "tcp": Speech(Tcp, persistent=True),
    "ws": Speech(Ws, persistent=True),
}
