"""How many OpenFlow rules a bridge has: an aggregate statistics request, OpenFlow 1.3, on the bridge's own socket.

No rule is listed: a bridge has hundreds of thousands, and counting them costs the switch one message.
"""

import struct
from pathlib import Path
from typing import NamedTuple

from exporters.node.failing import GarbledError, NotCollectedError, RefusedError
from exporters.node.rpc import Deadline, Stream

# OpenFlow 1.3.5, section 7.1 and A.3.5.3
VERSION = 4
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, MULTIPART_REQUEST, MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
AGGREGATE = 2
HEADER = struct.Struct("!BBHI")  # version, type, length, transaction
REQUEST = struct.Struct("!HH4xB3xII4xQQHH4x")  # aggregate of all tables, ports, groups and cookies; an empty match
REPLY = struct.Struct("!HH4xQQI")
ANY, XID = 0xFFFFFFFF, 2
MOST_MESSAGES = 1000  # that are none of ours, before we give up


class Aggregate(NamedTuple):
    """What all rules of a bridge together have; packets and bytes fall when a rule goes."""

    packets: int
    bytes: int
    rules: int


def aggregate(socket: Path, deadline: Deadline) -> Aggregate:
    """Ask the bridge whose socket, `<bridge>.mgmt`, that is. Raises NotCollectedError, OSError."""
    body = REQUEST.pack(AGGREGATE, 0, 0xFF, ANY, ANY, 0, 0, 1, 4)
    with Stream(socket, deadline) as switch:
        switch.send(HEADER.pack(VERSION, HELLO, HEADER.size, 1))
        switch.send(HEADER.pack(VERSION, MULTIPART_REQUEST, HEADER.size + len(body), XID) + body)
        for _ in range(MOST_MESSAGES):
            kind, transaction, body = _message(switch)
            if kind == ECHO_REQUEST:
                switch.send(HEADER.pack(VERSION, ECHO_REPLY, HEADER.size + len(body), transaction) + body)
            elif kind == ERROR:
                raise RefusedError(f"{socket} answers with an OpenFlow error, {body[:4].hex()}")
            elif kind == MULTIPART_REPLY and transaction == XID:
                return parse(body)
    raise NotCollectedError(f"{socket} does not come to the answer")


def parse(body: bytes) -> Aggregate:
    """The aggregate in the body of a multipart reply. Raises GarbledError."""
    if len(body) < REPLY.size or REPLY.unpack_from(body)[0] != AGGREGATE:
        raise GarbledError("an OpenFlow reply is no aggregate")
    return Aggregate(*REPLY.unpack_from(body)[2:])


def _message(switch: Stream) -> tuple[int, int, bytes]:
    _, kind, length, transaction = HEADER.unpack(_exactly(switch, HEADER.size))
    if length < HEADER.size:
        raise GarbledError(f"{switch.path} does not speak OpenFlow")
    return kind, transaction, _exactly(switch, length - HEADER.size)


def _exactly(switch: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += switch.receive(size - len(data))
    return data
