"""One HTTP conversation with a stranger: requests out, whole answers in, and everything that arrives is counted.

A library's client bounds lines and bodies; a server may still send interim answers, headers and chunks without end, and
keep the process busy that should be measuring. Here an answer may have so many bytes, whatever they are.
"""

import asyncio
import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Self

import httptools

from exporters.targets import Tls

CONNECT_SECONDS = 2.0
READ_BYTES = 64 * 1024


LOOK_UP_EVERY = 30.0  # seconds between look-ups of a name that resolves


class FetchError(Exception):
    """No answer: one of unreachable, tls, timeout and refused, and a few words."""

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(reason, said)
        self.reason = reason
        self.said = said[:200]


class NothingError(FetchError):
    """The connection ended, and nothing of the answer had come."""


@dataclass(slots=True)
class Answer:
    """A response as httptools tells it; interim ones before it are passed over."""

    status: int = 0  # 0: its head is not complete
    body: bytearray = field(default_factory=bytearray)
    framed: bool = False
    packed: bool = False
    complete: bool = False
    lasting: bool = False  # may the connection be used again?
    parser: httptools.HttpResponseParser | None = None

    def on_message_begin(self) -> None:
        self.framed = self.packed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self.framed = True
            case b"content-encoding":
                self.packed = value.strip().lower() != b"identity"

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        status = self.parser.get_status_code()
        if not 100 <= status < 200:
            self.status = status

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.complete = self.status > 0
        self.lasting = self.parser.should_keep_alive()


class Conversation:
    """A connection to an address, used for one request after another; `async with` closes it."""

    def __init__(self, address: str, port: int, tls: ssl.SSLContext | None, server_name: str, head: str) -> None:
        self._where = (address, port)
        self._tls = tls
        self._server_name = server_name.removesuffix(".")  # no certificate has that dot
        self._head = head
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    async def request(self, method: str, path: str, most: int, headers: str = "") -> Answer:
        """The answer to a request, of at most so many bytes, head and all. Raises FetchError.

        A GET to which a connection that was used before says nothing and ends is sent once more, on a new one: who
        answers a request may close after it without having said so.
        """
        request = f"{method} {path} HTTP/1.1\r\n{self._head}{headers}\r\n".encode("ascii")
        if self._streams is not None and method == "GET":
            with suppress(NothingError):
                return await self._exchange(request, most)
            self._close()
        return await self._exchange(request, most)

    async def _exchange(self, request: bytes, most: int) -> Answer:
        try:
            reader, writer = await self._connected()
            writer.write(request)
            return await self._receive(reader, most)
        except ssl.SSLError as error:
            raise FetchError("tls", error.reason or str(error)) from None
        except OSError as error:
            raise FetchError("unreachable", _said(error)) from None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            reader, writer = self._streams
            if not reader.at_eof() and not writer.transport.is_closing():
                return self._streams
            self._close()  # the server did, unasked; writing to it would be an error
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_connection(
                    *self._where, ssl=self._tls, server_hostname=self._server_name if self._tls else None
                )
        except TimeoutError:
            raise FetchError("timeout", "no connection in time") from None
        return self._streams

    async def _receive(self, reader: asyncio.StreamReader, most: int) -> Answer:
        answer = Answer()
        parser = answer.parser = httptools.HttpResponseParser(answer)
        data = b""
        try:
            while not answer.complete:
                data = await (reader.read(READ_BYTES) if data else _begin(reader))
                most -= len(data)
                if not data and answer.status and not answer.framed:
                    break  # its end is that of the connection
                if not data:
                    raise FetchError("unreachable", "closed before the answer was whole")
                if most < 0:
                    raise FetchError("refused", "the answer is too long")
                parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise FetchError("refused", "the answer is no HTTP") from None
        finally:
            answer.parser = None  # they hold each other
        if not answer.lasting:
            self._close()
        return answer

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context of one TLS setting. Raises OSError or ssl.SSLError for files that are no certificates or keys."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Resolver:
    """Names to addresses, one look-up of a name at a time: a hanging one holds a thread, another would hold more."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, str]] = {}  # when (monotonic), and which
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def address(self, host: str) -> str | None:
        """The host if it is literal, else the last good address of that name; None if there is none within a while."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return host
        at, found = self._found.get(host, (-inf, None))
        if monotonic() - at < LOOK_UP_EVERY:
            return found
        look_up = self._under_way.get(host)
        if look_up is None:
            asked = asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            look_up = self._under_way[host] = asyncio.ensure_future(asked)
        done, _ = await asyncio.wait({look_up}, timeout=CONNECT_SECONDS)
        if not done:
            return found
        self._under_way.pop(host, None)
        try:
            found = str(look_up.result()[0][4][0])
        except (OSError, UnicodeError):
            return found
        self._found[host] = (monotonic(), found)
        return found

    def close(self) -> None:
        """Wait for none of them any more."""
        for each in self._under_way.values():
            each.cancel()


async def _begin(reader: asyncio.StreamReader) -> bytes:
    """The first bytes of an answer. Raises NothingError where there are none."""
    try:
        data = await reader.read(READ_BYTES)
    except ConnectionError as error:
        raise NothingError("unreachable", _said(error)) from None
    if not data:
        raise NothingError("unreachable", "closed before the answer was whole")
    return data


def _said(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
