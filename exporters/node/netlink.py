"""The kernel's routing socket (man 7 rtnetlink): dumps of what there is, and notifications of what changed.

Our own and not pyroute2, which takes 300 microseconds for each of a node's thousand links and nine megabytes: what a
node may cost is a fourth of what node_exporter does, and half as much memory again.
"""

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from exporters.node.failing import GarbledError, LateError, NotCollectedError
from exporters.node.rpc import Deadline
from exporters.node.rtnl import bytes_of

# linux/netlink.h, linux/rtnetlink.h
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST_DUMP = 0x1 | 0x300
DUMP_INTERRUPTED = 0x10
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_GET_STRICT_CHK = 270, 1, 12
LINK_GROUP = 1  # RTNLGRP_LINK
DATAGRAM = 256 * 1024  # the kernel fills 32 kB at most
NOTIFICATIONS = 4 << 20  # bytes that may wait for us between two scrapes; the kernel allows what it allows
ATTEMPTS = 5  # at a dump during which the table changed

SIOCETHTOOL, ETHTOOL_GSET = 0x8946, 0x1
SETTINGS = struct.Struct("=IIIHBBBBBBIIHBBI2I")  # struct ethtool_cmd
UNKNOWN_SPEED = (0, 0xFFFF, 0xFFFFFFFF)

Message = tuple[int, bytes, int, int]  # type, the buffer it is in, where its body begins and ends


class LostError(NotCollectedError):
    """Notifications were lost: more came than we could keep."""


class Netlink:
    """One routing socket, in the network namespace of whoever makes it."""

    def __init__(self, group: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0
        if group:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NOTIFICATIONS)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        else:
            # Then the kernel looks at the filters in a request; it is so since 4.20.
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes, deadline: Deadline) -> list[Message]:
        """Return every message of the kernel's answer to a dump request, consistent in itself."""
        for _ in range(ATTEMPTS):
            found = self._dump(kind, body, deadline)
            if found is not None:
                return found
        raise NotCollectedError("the kernel's table changed at each attempt to read it")

    def _dump(self, kind: int, body: bytes, deadline: Deadline) -> list[Message] | None:
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST_DUMP, self._sequence, 0) + body)
        found: list[Message] = []
        interrupted = False
        while True:
            self._socket.settimeout(deadline.left())
            try:
                data = self._socket.recv(DATAGRAM)
            except TimeoutError as error:
                raise LateError("the kernel does not answer") from error
            for kind_of_it, flags, sequence, start, end in messages(data):
                if sequence != self._sequence:
                    continue  # of a dump that was given up
                interrupted |= bool(flags & DUMP_INTERRUPTED)
                if kind_of_it == NLMSG_DONE:
                    return None if interrupted else found
                if kind_of_it == NLMSG_ERROR:
                    raise _error(data, start)
                found.append((kind_of_it, data, start, end))

    def notifications(self) -> Iterator[Message]:
        """Everything that was notified and not yet read. Raises LostError when some was lost."""
        self._socket.settimeout(0)
        while True:
            try:
                data = self._socket.recv(DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise LostError("notifications were lost") from error
                raise
            for kind, _, _, start, end in messages(data):
                yield kind, data, start, end


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, flags, sequence, start, end) of each message in a datagram. Raises GarbledError."""
    at = 0
    while at < len(data):
        if len(data) - at < HEADER.size:
            raise GarbledError("a message of netlink has no whole header")
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if not HEADER.size <= length <= len(data) - at:
            raise GarbledError("a message of netlink is cut off")
        yield kind, flags, sequence, at + HEADER.size, at + length
        at += (length + 3) & ~3


def _error(data: bytes, start: int) -> NotCollectedError:
    (code,) = struct.unpack_from("=i", data, start)
    return NotCollectedError(f"the kernel refuses: {errno.errorcode.get(-code, code)}")


class Ethtool:
    """Asks for the speed of links."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def speed(self, link: str) -> int | None:
        """Bits per second; None where a link has none, or does not know, or is gone."""
        command = array.array("B", SETTINGS.pack(ETHTOOL_GSET, *[0] * 17))
        request = struct.pack("16sP16x", bytes_of(link)[:15], command.buffer_info()[0])
        try:
            fcntl.ioctl(self._socket, SIOCETHTOOL, request)
        except OSError:
            return None
        fields = SETTINGS.unpack(command.tobytes())
        megabits = fields[3] | fields[12] << 16
        return None if megabits in UNKNOWN_SPEED else megabits * 1_000_000

    def close(self) -> None:
        self._socket.close()
