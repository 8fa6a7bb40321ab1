"""What peers say to each other: the request in a line or message, and the reply it is given. Pure.

A TCP line, or a WS text message (without the line's end), both ways:

    ovnwatch/1 {"seq": 7, "source": "worker-1", "instance": "5f..", "time": 1764000000.1, "mono": 12.5, "size": 4096}
    ovnwatch/1 {"seq": 7, "pod": "peer-2", "instance": "c2..", ..., "address": "10.0.0.7", "pad": "xxxx"}

HTTP carries the reply's keys as JSON, with `status` and `ts`, which an earlier system's clients read.
"""

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from exporters.identity import Identity
from exporters.times import iso

PREFIX = b"ovnwatch/1 "
MAX_SIZE = 64 * 1024  # of a line, a message or a body, its end included
PAD = ',"pad":"'


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants: the reply's `seq`, and its `size` in bytes (0: no padding)."""

    seq: int
    size: int


def read_ask(text: bytes) -> Ask | None:
    """Return what a line or message asks for, None if it is not a request of ours; `text` has no line end."""
    if not text.startswith(PREFIX):
        return None
    try:
        request = json.loads(text[len(PREFIX) :].decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    seq, size = request.get("seq"), request.get("size", 0)
    # `type` and not isinstance: True is an int to Python and no number to anybody else.
    if type(seq) is not int or type(size) is not int or size < 0 or abs(seq) >= 1 << 63:
        return None
    return Ask(seq, min(size, MAX_SIZE))


class Replies:
    """Makes the replies of one process; all but the times is encoded once."""

    def __init__(self, identity: Identity) -> None:
        fields = {key: getattr(identity, key) for key in ("pod", "instance", "node", "zone", "source", "boot_id")}
        self._identity = json.dumps(fields, separators=(",", ":"))[1:-1]

    def message(self, ask: Ask, address: str, wall: float, mono: float) -> bytes:
        """Return the reply to a line or message, without a line end but of `ask.size` bytes with one."""
        fields = f'"seq":{ask.seq},{self._fields(address, wall, mono)}'
        return PREFIX + _padded(fields, ask.size - len(PREFIX) - 1)

    def body(self, size: int, address: str, wall: float, mono: float) -> bytes:
        """Return the body, `size` bytes long, of the answer to an HTTP ping."""
        return _padded(f'"status":"ok","ts":"{iso(wall)}",{self._fields(address, wall, mono)}', size)

    def _fields(self, address: str, wall: float, mono: float) -> str:
        return f'{self._identity},"time":{wall:.6f},"mono":{mono:.6f},"address":"{address}"'


def _padded(fields: str, size: int) -> bytes:
    # All of it is ASCII (json.dumps escapes the rest), so that characters are bytes.
    gap = size - len(fields) - len("{}")
    fill = gap - len(f'{PAD}"')
    pad = f'{PAD}{"x" * fill}"' if fill >= 0 else " " * gap
    return f"{{{fields}{pad}}}".encode()


def client_address(peername: Any) -> str:
    """Return the IP address of a transport's `peername`, an IPv4 one in its own form; "" if the client has gone."""
    if not peername:
        return ""
    address = ipaddress.ip_address(peername[0].partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
