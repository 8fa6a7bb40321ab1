"""The kernel's TCP sockets by netlink (sock_diag): list those in one state, destroy one.

Reading /proc/net/tcp walks the whole hash table, 5 ms where this takes 0.1; `ss -K` is a process of 10 ms. Either would
be the width of a truth. Layouts and numbers are those of linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

ESTABLISHED, LISTEN = 1, 10  # TCP states, net/tcp_states.h

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
QUERY = struct.Struct("=BBBxI")  # inet_diag_req_v2 up to its id: family, protocol, extensions, states
IDENT = slice(4, 52)  # inet_diag_sockid in inet_diag_msg


class TcpSocket(NamedTuple):
    """One socket; `ident` is the kernel's own and is not given twice."""

    family: int
    local: int
    remote: int
    ident: bytes


def tcp_sockets(state: int) -> list[TcpSocket]:
    """The IPv4 and IPv6 sockets in that state, in the namespace of the calling thread."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in _ask(SOCK_DIAG_BY_FAMILY, DUMP, family, 1 << state, bytes(48)):
            local, remote = struct.unpack_from(">HH", body, 4)
            found.append(TcpSocket(family, local, remote, body[IDENT]))
    return found


def destroy(victim: TcpSocket) -> bool:
    """Close it as by an abort: its owner reads an error, its peer a reset. False when it had gone already."""
    try:
        list(_ask(SOCK_DESTROY, ACK, victim.family, 1 << ESTABLISHED, victim.ident))
    except FileNotFoundError:
        return False
    return True


def _ask(kind: int, flags: int, family: int, states: int, ident: bytes) -> Iterator[bytes]:
    """The bodies the kernel answers with; its error is raised as OSError."""
    request = QUERY.pack(family, socket.IPPROTO_TCP, 0, states) + ident
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(5.0)
        netlink.send(HEADER.pack(HEADER.size + len(request), kind, REQUEST | flags, 1, 0) + request)
        while True:
            data = netlink.recv(1 << 16)
            while data:
                length, answer, *_ = HEADER.unpack_from(data)
                body, data = data[HEADER.size : length], data[(length + 3) & ~3 :]
                if answer == ERROR and (error := -struct.unpack_from("=i", body)[0]):
                    raise OSError(error, os.strerror(error))
                if answer in (ERROR, DONE):  # an error of 0 is the acknowledgement
                    return
                yield body
