"""The sockets our servers listen on, and how many connections each server lets in at a time."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from exporters.ends import StartError

log = logging.getLogger(__name__)

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn
RECEIVE_BUFFER = 16 * 1024  # the kernel doubles it
HANDSHAKE_SECONDS = 5.0
ACCEPT_AGAIN_SECONDS = 0.1  # after the kernel had no descriptor for a connection
REFUSALS_TOLD_EVERY = 60.0

Factory = Callable[[], asyncio.BaseProtocol]


class ListenError(StartError):
    """An address we were told to listen on cannot be had; one sentence that names the port."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for `host`; empty means every address, IPv4 and IPv6.

    Port 0 takes a free one, the same for all. Raises ListenError.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {place}: {error.strerror}") from error
    families = {family: address for family, _, _, _, address in found if host or _works(family, str(address[0]))}
    sockets: list[socket.socket] = []
    try:
        for family, address in sorted(families.items()):
            free = port or (sockets[0].getsockname()[1] if sockets else 0)
            sockets.append(_open(family, (address[0], free, *address[2:])))
    except OSError as error:
        for sock in sockets:
            sock.close()
        why = f"port {port} is in use by another process" if error.errno == errno.EADDRINUSE else error.strerror
        raise ListenError(f"cannot listen on {place}: {why}") from error
    if not sockets:
        raise ListenError(f"cannot listen on {place}: this machine has neither IPv4 nor IPv6")
    return sockets


def _open(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections inherit it. A sender that outruns us would else be read from for 32 times 256 kB on end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(address)
        # Now, because two processes may bind one port until the first of them listens.
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _works(family: int, address: str) -> bool:
    # A node may have IPv6 (or IPv4) switched off while the C library still lists its wildcard.
    try:
        _open(family, (address, 0)).close()
    except OSError:
        return False
    return True


class Door:
    """A protocol factory that lets `limit` connections in at a time.

    When all are taken, a new one has the place of one that asks nothing: else whoever opens `limit` connections and
    keeps silent would keep everybody out. Where all are busy the new one is reset. Both are told of once a minute.
    `count` says how many are open now; `make_room` closes one that asks nothing, and says whether there is room among
    so many places. A TLS handshake under way has a place, too: where they have most of them, the oldest loses it first.
    """

    def __init__(
        self, name: str, limit: int, count: Callable[[], int], enter: Factory, make_room: Callable[[int], bool]
    ) -> None:
        self.name = name
        self.limit = limit
        self.count = count
        self.enter = enter
        self.make_room = make_room
        self.refused = 0
        self.replaced = 0
        self._told = (0, 0)
        self._handshakes: dict[asyncio.Task[None], None] = {}  # those that came first stand first

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the protocol of a connection just accepted."""
        return self.enter() if self._admitted() else _TurnedAway()

    def secure(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        """Have a connection just accepted shake hands, then enter."""
        if not self._admitted():
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._shake_hands(sock, tls))
        self._handshakes[task] = None

        def over(done: asyncio.Task[None]) -> None:
            self._handshakes.pop(done, None)
            if done.cancelled():
                sock.close()  # it may not have begun

        task.add_done_callback(over)

    async def _shake_hands(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self.enter, sock, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS)
        except OSError as error:  # what TLS complains of is one, too
            log.debug("%s: no handshake: %s", self.name, error)

    def _admitted(self) -> bool:
        """Is there a place for a connection, or is one made?"""
        if self.count() + len(self._handshakes) < self.limit:
            return True
        if (self.refused, self.replaced) == self._told:
            asyncio.get_running_loop().call_later(REFUSALS_TOLD_EVERY, self._tell)
        others = self.limit - len(self._handshakes)
        if (2 * others < self.limit and self.interrupt(1)) or self.make_room(others) or self.interrupt(1):
            self.replaced += 1
            return True
        self.refused += 1
        return False

    def interrupt(self, most: int) -> int:
        """Give up the oldest handshakes, so many at most; how many."""
        oldest = list(self._handshakes)[:most]
        for each in oldest:
            del self._handshakes[each]
            each.cancel()
        return len(oldest)

    def _tell(self) -> None:
        refused, replaced = self.refused - self._told[0], self.replaced - self._told[1]
        said = "%s: refused %d connections and closed %d silent ones for others, %d were open"
        log.warning(said, self.name, refused, replaced, self.limit)
        self._told = (self.refused, self.replaced)


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).abort()


class _Secured:
    """One socket whose connections speak TLS.

    A server of the loop's does not tell of handshakes under way, so that nothing would bound them.
    """

    def __init__(self, sock: socket.socket, door: Door, tls: ssl.SSLContext) -> None:
        self._sock = sock
        self._door = door
        self._tls = tls
        self._sock.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):  # it has hung up
            return
        except OSError as error:
            log.warning("%s: no connection accepted: %s", self._door.name, error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.call_later(ACCEPT_AGAIN_SECONDS, self._listen)
            return
        connection.setblocking(False)
        self._door.secure(connection, self._tls)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()


@dataclass(frozen=True, slots=True)
class Listening:
    """Servers of one port; `port` is the one really taken."""

    port: int
    door: Door
    sockets: list[socket.socket]
    servers: list[asyncio.AbstractServer | _Secured]

    def alive(self) -> bool:
        """Say whether every socket still listens: uvloop closes one without a word when the kernel fails an accept."""
        return all(
            sock.fileno() >= 0 and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in self.sockets
        )

    async def renew(self, tls: ssl.SSLContext) -> None:
        """Have new connections speak TLS by another context; none is lost, for the kernel's queue stays."""
        old = list(self.servers)
        self.sockets[:] = [sock.dup() for sock in self.sockets]
        self.servers[:] = await _servers(self.sockets, self.door, tls)
        for server in old:
            server.close()

    def close(self) -> None:
        """Accept no more; connections stay, handshakes end."""
        for server in self.servers:
            server.close()
        self.door.interrupt(self.door.limit)


async def accept(sockets: Sequence[socket.socket], door: Door, tls: ssl.SSLContext | None = None) -> Listening:
    """Give every connection to `sockets` a protocol from `door`, over TLS if a context is given."""
    return Listening(sockets[0].getsockname()[1], door, list(sockets), await _servers(sockets, door, tls))


async def _servers(
    sockets: Sequence[socket.socket], door: Door, tls: ssl.SSLContext | None
) -> list[asyncio.AbstractServer | _Secured]:
    if tls is not None:
        return [_Secured(sock, door, tls) for sock in sockets]
    return [await asyncio.get_running_loop().create_server(door, sock=sock, backlog=BACKLOG) for sock in sockets]
