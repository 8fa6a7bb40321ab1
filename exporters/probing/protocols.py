"""What is said on a connection: http, tcp, ws. Bytes in, replies out; no socket and no clock in here.

To add a protocol: a class with the members of `Exchange`, and a line in PROTOCOLS.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from os import urandom
from typing import Annotated, Protocol

import httptools
import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.uri import parse_uri

try:
    from websockets.speedups import apply_mask
except ImportError:  # where no compiler was at hand
    from websockets.utils import apply_mask

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
WHOLE_TEXT = 0x81  # first byte of a text message in a single WebSocket frame (RFC 6455, 5.2)
SIZE_16 = 126  # second byte of an unmasked frame whose size stands in the two bytes after it
MASKED = 0x80  # added to it where a key follows, and what comes after is masked with that
_short_head = struct.Struct("!BB4s").pack
_long_head = struct.Struct("!BBH4s").pack
_key = struct.Struct("4s")
KEYS = 1024  # are drawn at once
HEAD_END = b"\r\n\r\n"


class BadReplyError(Exception):
    """The peer answered something that is no answer; args[0] is the cause. What it answered before is in `replies`."""

    replies: list[Reply]

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.replies = []


class Reply(msgspec.Struct, frozen=True):
    """seq: which request it answers; info: what the peer says of itself (checked: short printable strings).

    time: what its clock said (Unix time, 0.0 for nothing).
    """

    seq: int
    info: dict[str, str]
    time: float = 0.0


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

    @property
    def begun(self) -> bool:
        """Has anything come since the last request?"""

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


LONGEST = 253  # characters of a word about a peer: as many as a DNS name may have
Word = Annotated[str, msgspec.Meta(max_length=LONGEST)]


class Told(msgspec.Struct):
    """What is read of a reply's JSON object; no boot_id: it is our own request, echoed unchanged."""

    seq: int | None = None
    time: Annotated[float, msgspec.Meta(ge=0, lt=1e11)] = 0.0
    instance: Word = ""
    node: Word = ""
    zone: Word = ""
    source: Word = ""
    boot_id: Word | None = None
    address: Word = ""
    pod: Word = ""


_told = msgspec.json.Decoder(Told)


def read(raw: bytes) -> Told:
    """The JSON object of a reply. Raises BadReplyError for anything else, however nasty."""
    try:
        return _told.decode(raw)
    except msgspec.ValidationError:
        return _salvaged(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadReplyError("bad_response") from None


def _salvaged(raw: bytes) -> Told:
    """What is right in an object of which something is not: a strange word makes no answer a failure."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadReplyError("bad_response") from None
    if not isinstance(value, dict):
        raise BadReplyError("bad_response")
    words = {key: word for key in IDENTITY if isinstance(word := value.get(key), str) and len(word) <= LONGEST}
    seq = value.get("seq")
    return msgspec.convert({**words, "seq": seq if type(seq) is int else None}, Told)


def _info(told: Told) -> dict[str, str]:
    if told.boot_id is None:
        return {}
    return _known((told.instance, told.node, told.zone, told.source, told.boot_id, told.address, told.pod))


@lru_cache(maxsize=1024)  # a peer says the same in every heartbeat
def _known(words: tuple[str, ...]) -> dict[str, str]:
    return {key: word for key, word in zip(IDENTITY, words, strict=True) if word and word.isprintable()}


class Requests:
    """The requests of one connection: all but their number is encoded once."""

    __slots__ = ("_big", "_end", "_small")

    def __init__(self, hello: Hello, end: bytes = b"") -> None:
        said = json.dumps({"source": hello.source, "instance": hello.instance}).encode()[1:]
        self._end = b'"}' + end
        self._small = said + end
        self._big = said[:-1] + b', "size": %d, "pad": "' % BIG

    def line(self, seq: int, *, big: bool) -> bytes:
        """Request number seq, with `end`; a big one is of BIG bytes with a line's end."""
        if not big:
            return b'ovnwatch/1 {"seq": %d, %b' % (seq, self._small)
        head = b'ovnwatch/1 {"seq": %d, %b' % (seq, self._big)
        return b"%b%b%b" % (head, b"." * (BIG - len(head) - len('"}\n')), self._end)


class Tcp:
    """Lines both ways. A peer that is no ovnwatch may echo ours unchanged."""

    __slots__ = ("_buffer", "_read", "_requests")
    ready = True

    def __init__(self, hello: Hello) -> None:
        self._requests = Requests(hello, b"\n")
        self._buffer = b""
        self._read = 0  # since the last request

    @property
    def begun(self) -> bool:
        return self._read > 0

    def opening(self) -> bytes:
        return b""

    def heartbeat(self, seq: int, *, big: bool) -> bytes:
        self._read = 0
        return self._requests.line(seq, big=big)

    def feed(self, data: bytes) -> list[Reply]:
        self._read += len(data)
        if self._read > MOST:
            raise BadReplyError("bad_response")
        if not self._buffer and 0 <= data.find(b"\n") == len(data) - 1:  # as nearly always
            return [message(data)]
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        replies: list[Reply] = []
        try:
            for line in lines:
                replies.append(message(line))  # noqa: PERF401 - those before a bad one are kept
        except BadReplyError as error:
            error.replies = replies
            raise
        return replies

    def owed(self) -> bytes:
        return b""

    def ended(self, cause: str) -> tuple[list[Reply], str]:
        return [], cause


def message(line: bytes) -> Reply:
    """`ovnwatch/1 {json}` -> Reply. Raises BadReplyError."""
    if not line.startswith(PREFIX) or len(line) > MOST:
        raise BadReplyError("bad_response")
    told = read(line[len(PREFIX) :])
    if told.seq is None:
        raise BadReplyError("bad_response")
    return Reply(told.seq, _info(told), told.time)


def frame_size(data: bytes, at: int = 0) -> int:
    """Bytes of the WebSocket frame at `at`, its head included; 0: too few of them are here (RFC 6455, 5.2)."""
    if len(data) < at + 2:
        return 0
    masked, size = divmod(data[at + 1], 0x80)
    begin = 2
    if size >= SIZE_16:
        begin = 4 if size == SIZE_16 else 10
        if len(data) < at + begin:
            return 0
        size = int.from_bytes(data[at + 2 : at + begin], "big")
    return begin + 4 * masked + size


def _random_keys() -> Iterator[bytes]:
    """For masks: as random as those the library uses, and for a tenth of the calls of the system's."""
    while True:
        for (key,) in _key.iter_unpack(urandom(KEYS * _key.size)):
            yield key


def text_frame(text: bytes) -> bytes:
    """A text of at most 65 535 bytes as one masked frame: in a third of the library's time."""
    key, size = next(_keys), len(text)
    if size < SIZE_16:
        head = _short_head(WHOLE_TEXT, MASKED | size, key)
    else:
        head = _long_head(WHOLE_TEXT, MASKED | SIZE_16, size, key)
    return head + apply_mask(text, key)


_keys = _random_keys()


def _texts(text: bytes) -> list[Reply]:
    """What a text message answers: none but ours means anything."""
    return [message(text)] if text.startswith(PREFIX) else []


def whole_text(data: bytes) -> bytes | None:
    """The text, if `data` is one frame of it that is not masked, and no more: as replies nearly always are."""
    if len(data) < 2 or data[0] != WHOLE_TEXT:
        return None
    size, begin = data[1], 2
    if size == SIZE_16:
        size, begin = int.from_bytes(data[2:4], "big"), 4
    elif size > SIZE_16:
        return None
    return data[begin:] if len(data) == begin + size else None


class Ws:
    """Text messages of the same form; with a server that is no ovnwatch, PING frames that carry the number."""

    def __init__(self, hello: Hello) -> None:
        scheme = "wss" if hello.tls else "ws"
        self._hello = hello
        self._requests = Requests(hello)
        self._protocol = ClientProtocol(parse_uri(f"{scheme}://{hello.authority}/"), max_size=MOST)
        self._ours = False
        self._read = 0  # since the last request
        self._buffer = b""  # the begin of a frame; before the 101 is here, the end of what was read
        self._message = b""  # a message of which not all fragments are here; MOST limits its size
        self.ready = False

    @property
    def begun(self) -> bool:
        return self._read > 0

    def opening(self) -> bytes:
        request = self._protocol.connect()
        request.headers["User-Agent"] = self._hello.agent
        self._protocol.send_request(request)
        return b"".join(self._protocol.data_to_send())

    def heartbeat(self, seq: int, *, big: bool) -> bytes:
        self._read = 0
        if self._ours:
            return text_frame(self._requests.line(seq, big=big))
        return Frame(Opcode.PING, b"%d" % seq).serialize(mask=True)

    def feed(self, data: bytes) -> list[Reply]:
        self._read += len(data)
        if self._read > MOST:
            raise BadReplyError("ws_upgrade" if self._protocol.state is State.CONNECTING else "bad_response")
        if not self.ready:
            data = self._handshake(data)
        elif not self._buffer and (text := whole_text(data)) is not None:
            return _texts(text)
        replies: list[Reply] = []
        if self.ready:
            replies = self._frames(self._buffer + data)
            if not self.ready and not replies:
                raise BadReplyError("closed")
        return replies

    def _handshake(self, data: bytes) -> bytes:
        """Have the protocol read the answer to the upgrade; returns what follows it."""
        seen = self._buffer + data
        end = seen.find(HEAD_END)
        cut = end + len(HEAD_END) - len(self._buffer) if end >= 0 else len(data)
        self._buffer = seen[-len(HEAD_END) + 1 :] if end < 0 else b""
        for event in self._events(data[:cut]):
            if isinstance(event, Response):
                self.ready = True
                self._ours = "1" in event.headers.get_all("Ovnwatch")
        if end >= 0 and not self.ready:
            self._events(data[cut:])  # the page that came instead
        return data[cut:]

    def _frames(self, data: bytes) -> list[Reply]:
        """Read the whole frames in `data`, and keep the rest.

        The protocol gets one whole frame at a time; a text in a single frame, which a reply nearly always is, need not
        go there.
        """
        replies: list[Reply] = []
        try:
            self._buffer = self._read_frames(data, replies)
        except BadReplyError as error:
            error.replies = replies
            raise
        return replies

    def _read_frames(self, data: bytes, replies: list[Reply]) -> bytes:
        at = size = 0
        while self.ready and (size := frame_size(data, at)) and at + size <= len(data):
            frame = data[at : at + size]
            at += size
            if (text := whole_text(frame)) is not None:
                replies += _texts(text)
                continue
            for event in self._events(frame):
                if isinstance(event, Frame):
                    replies += self._frame(event)
            # After a goodbye nothing may be asked here, whenever its socket follows.
            self.ready = self._protocol.state is State.OPEN
        if size > MOST:
            raise BadReplyError("bad_response")
        return data[at:]

    def _events(self, data: bytes) -> list[Event]:
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        if self._protocol.handshake_exc is not None:
            raise BadReplyError("ws_upgrade")
        if self._protocol.parser_exc is not None:
            raise BadReplyError("bad_response")
        return events

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

    @property
    def begun(self) -> bool:
        return self._read > 0

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
        info, told = {}, Told()
        if body.startswith(b"{"):
            with suppress(BadReplyError):  # any page is an answer; only ours says who answered
                told = read(body)
                info = _info(told)
        return [Reply(self._seq, info, told.time)]


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
