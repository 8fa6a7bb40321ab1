"""One non-blocking TCP connection, TLS if wanted, with a stamp around every call; and the poller that wakes them all.

Sockets are driven directly, through one epoll set that hangs in the event loop as a single file: the stamps stand right
beside the system calls, and whoever must judge a probe can read all sockets first (`Poller.drain`). A transport would
queue the write and stamp it early; measured, it also costs more time for each connection.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import select
import socket
import ssl
import struct
import termios
from time import monotonic
from typing import Any, NamedTuple, Protocol

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
CHUNK = 65536
_tcp_info = struct.Struct("=52xI44xI48xI")  # of linux/tcp.h, as it is since Linux 4.6
CUT_SECONDS = 0.25  # longer than a peer that goes on takes to say the rest

# What the kernel's errors mean to a prober. What is not here is "other".
CAUSE_OF_ERRNO = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "stalled",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETDOWN: "unreachable",
}
# Our own want of something: says nothing about the path.
LOCAL_ERRNO = {
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.ENOBUFS: "memory",
    errno.ENOMEM: "memory",
    errno.EADDRNOTAVAIL: "ports",
}


class LocalError(Exception):
    """A probe could not be made for a reason of our own; args[0] is the reason."""


class Told(NamedTuple):
    """What the kernel tells of a connection (tcp_info): last_data_recv, total_retrans, data_segs_in."""

    silent: int  # milliseconds
    resent: int
    heard: int


class Owner(Protocol):
    """Who uses a connection. All three are called from `Poller.drain`; `ended` at most once, and last."""

    def opened(self, conn: Connection) -> None: ...
    def received(self, conn: Connection, data: bytes) -> None: ...
    def ended(self, conn: Connection, cause: str) -> None: ...


class Poller:
    """All probe sockets in one epoll set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        self._new: set[int] = set()  # watched since the last pass began
        loop.add_reader(self._epoll.fileno(), self.drain)

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, fd: int, events: int, conn: Connection) -> None:
        self._watched[fd] = conn
        self._new.add(fd)
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed, which takes it out of the set."""
        del self._watched[fd]

    def drain(self) -> None:
        """Handle every socket that is ready now. Bounded: one pass over at most all of them."""
        watched, new = self._watched, self._new
        if not watched:
            return
        new.clear()
        for fd, events in self._epoll.poll(0, len(watched)):
            conn = watched.get(fd)
            # A descriptor closed and opened again within this pass has an event of its former owner's.
            if conn is not None and fd not in new:
                conn.on_ready(events)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class Connection:
    """A connection attempt, then a connection. Stamps are monotonic seconds.

    started/called: before and after connect(); connected: handshake seen; wrote: after the last write (0.0 = none yet).
    Raises LocalError from the constructor where the fault is ours; every fault of the path arrives at `owner.ended`,
    never from within the constructor.
    """

    __slots__ = (
        "_failure",
        "_incoming",
        "_outgoing",
        "_owner",
        "_poller",
        "_resent",
        "_secure",
        "_sock",
        "_tls",
        "_unsent",
        "called",
        "connected",
        "number",
        "started",
        "wrote",
    )

    def __init__(
        self,
        poller: Poller,
        owner: Owner,
        number: int,
        address: tuple[Any, ...],
        tls: tuple[ssl.SSLContext, str] | None,
    ) -> None:
        self.number = number
        self._poller = poller
        self._owner = owner
        self._unsent = b""
        self._tls: ssl.SSLObject | None = None
        self._secure = False
        self._failure = ""
        self._resent = 0
        self.connected = 0.0
        self.wrote = 0.0
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._sock: socket.socket | None = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise LocalError(LOCAL_ERRNO.get(error.errno or 0, "socket")) from None
        if tls is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = tls[0].wrap_bio(self._incoming, self._outgoing, server_hostname=tls[1])
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started = monotonic()
        code = self._sock.connect_ex(address)
        self.called = monotonic()
        if code in LOCAL_ERRNO:
            self._sock.close()
            raise LocalError(LOCAL_ERRNO[code])
        if code not in {0, errno.EINPROGRESS}:
            self._failure = CAUSE_OF_ERRNO.get(code, "other")  # told at the next pass: a socket in this state is ready
        poller.watch(self._sock.fileno(), WRITE, self)

    @property
    def open(self) -> bool:
        return self._sock is not None

    @property
    def ready(self) -> bool:
        """Connected, and the TLS handshake done where there is one."""
        return self.connected > 0 and (self._tls is None or self._secure)

    @property
    def resent(self) -> bool:
        """Did the kernel send anything on it again?"""
        return self._sock is not None and _told(self._sock).resent > 0

    def cut(self, *, begun: bool) -> bool:
        """Did it shake hands, and then a part of what was said on it, here or there, did not get through?

        begun: a part of the answer is here. A peer that is frozen has all of the request, and answers nothing.
        """
        if self._sock is None or not self.connected or monotonic() - self.wrote < CUT_SECONDS:
            return False
        told = _told(self._sock)
        heard = begun if self.ready else told.heard > 0  # of a TLS handshake
        return self._waiting() or (heard and told.silent >= 1000 * CUT_SECONDS)

    def settled(self) -> None:
        """All that was written by now is answered: what was sent again for it counts for `arrived` no longer."""
        if self._sock is not None:
            self._resent = _told(self._sock).resent

    @property
    def arrived(self) -> bool:
        """Does the kernel at the other end have all that was written, though nothing was sent twice since `settled`?

        What never left this machine waits in the same queue as what was not acknowledged (man 7 tcp, SIOCOUTQ).
        """
        return self._sock is not None and not self._waiting() and _told(self._sock).resent == self._resent

    def _waiting(self) -> bool:
        """Is there anything that the kernel at the other end does not have?"""
        assert self._sock is not None
        return bool(self._unsent) or any(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))

    def send(self, data: bytes) -> None:
        """Write now what the socket takes; the rest when it takes more. Nothing happens after the end."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._write(data)

    def close(self) -> None:
        """End it from our side; the owner is not told."""
        if self._sock is not None:
            self._poller.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _end(self, cause: str) -> None:
        if self._sock is not None:
            self.close()
            self._owner.ended(self, cause)

    def on_ready(self, events: int) -> None:
        """Its socket is ready for these; the poller calls."""
        if events == READ and self.connected:  # as nearly always
            self._read()
            return
        assert self._sock is not None
        if not self.connected:
            self._handshaken()
            return
        if events & WRITE and self._unsent:
            data, self._unsent = self._unsent, b""
            self._write(data)
            if not self._unsent and self._sock is not None:
                self._poller.change(self._sock.fileno(), READ)
        if self._sock is not None and events & ~WRITE:
            self._read()

    def _handshaken(self) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code or self._failure:
            self._end(
                self._failure or CAUSE_OF_ERRNO.get(code, "other") if code != errno.ETIMEDOUT else "connect_timeout"
            )
            return
        self.connected = monotonic()
        self._poller.change(self._sock.fileno(), READ)
        if self._tls is None:
            self._owner.opened(self)
        else:
            self._shake()

    def _shake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
            self._secure = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._write(self._outgoing.read())  # the alert, if there is one
            self._end("tls")
            return
        self._write(self._outgoing.read())
        if self._secure and self._sock is not None:
            self._owner.opened(self)

    def _write(self, data: bytes) -> None:
        if self._sock is None or not data:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            # The socket is ready with this very error; told at the next pass, never from within a caller's write.
            self._failure = CAUSE_OF_ERRNO.get(error.errno or 0, "other")
            return
        if sent:
            self.wrote = monotonic()
        if sent < len(data):
            self._unsent = data[sent:]
            self._poller.change(self._sock.fileno(), READ | WRITE)

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(CAUSE_OF_ERRNO.get(error.errno or 0, "other"))
            return
        if self._tls is None:
            if data:
                self._owner.received(self, data)
            else:
                self._end(self._failure or "closed")
            return
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._read_tls(ended=not data)

    def _read_tls(self, *, ended: bool) -> None:
        assert self._tls is not None
        cause = (self._failure or "closed") if ended else ""
        if not self._secure:
            if ended:
                self._end(cause)
                return
            self._shake()
        plain = b""
        while self._secure and self._sock is not None and len(plain) <= CHUNK:
            try:
                chunk = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                cause = cause or "tls"
                break
            if not chunk:
                cause = "closed"
                break
            plain += chunk
        if plain and self._sock is not None:
            self._owner.received(self, plain)
        if cause:
            self._end(cause)


def _told(sock: socket.socket) -> Told:
    return Told._make(_tcp_info.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _tcp_info.size)))
