"""Messages of the routing socket, as bytes, to links, addresses and routes. Pure; numbers are those of linux/if_link.h,
linux/if_addr.h and linux/rtnetlink.h.
"""

import ipaddress
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from exporters.node.failing import GarbledError

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 20, 22, 24, 26
RTM_NEWSTATS, RTM_GETSTATS = 92, 94

ESCAPED = re.compile(rb"\\(\\|x[0-9a-f]{2})")

IFINFO = struct.Struct("=BxHiII")  # family, device type, index, flags, change
IFA = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTM = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
IFSTATS = struct.Struct("=BxxxII")  # family, index, filter
ATTRIBUTE = struct.Struct("=HH")  # length, type
TYPE_MASK = 0x3FFF  # without the flags "nested" and "network byte order"

ARPHRD_LOOPBACK = 772
IFF_UP, IFF_RUNNING = 0x1, 0x40
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_EXT_MASK, IFLA_CARRIER_CHANGES, IFLA_PERM_ADDRESS = 29, 35, 54
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_VLAN_ID = 1, 2, 1
SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS: they come by RTM_GETSTATS
IFLA_STATS_LINK_64 = 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_PERMANENT = 1, 2, 8, 0x80
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 1, 4, 5, 6, 9, 15, 18
TABLE_MAIN, UNICAST = 254, 1
# rtm_protocol: who made a route.
PROTOCOLS = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp", 186: "bgp", 188: "ospf"}
FAMILIES = {2: "4", 10: "6"}

LINKS_REQUEST = IFINFO.pack(0, 0, 0, 0, 0) + ATTRIBUTE.pack(8, IFLA_EXT_MASK) + struct.pack("=I", SKIP_STATS)
STATS_REQUEST = IFSTATS.pack(0, 0, 1 << (IFLA_STATS_LINK_64 - 1))
# struct rtnl_link_stats64: the first 24 counters, which all kernels have.
COUNTERS = (
    "rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
    "multicast", "collisions", "rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors",
    "rx_fifo_errors", "rx_missed_errors", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors",
    "tx_heartbeat_errors", "tx_window_errors", "rx_compressed", "tx_compressed", "rx_nohandler",
)  # fmt: skip
# The whole body as the kernel lays it out, which is an eighth of the time that a walk over attributes takes.
STATS = struct.Struct(f"=BxxxII HH {len(COUNTERS)}Q".replace(" ", ""))

Counters = tuple[int, ...]  # in the order of COUNTERS


class Link(NamedTuple):
    """A network device; `master` and `parent` are indexes, 0 for none."""

    ifindex: int
    name: str
    kind: str  # of the kernel: veth, bridge, bond, vlan, ...; physical or loopback where it says none
    up: bool  # it carries traffic
    admin_up: bool  # it is meant to
    mtu: int
    hwaddr: str
    permhwaddr: str
    master: int
    parent: int
    vlan_id: int | None
    carrier_changes: int | None


class Address(NamedTuple):
    ifindex: int
    family: str
    address: str  # 192.0.2.1/24
    dynamic: bool  # it was given for a time only, by DHCP or router advertisement


class Route(NamedTuple):
    """A route of the main table; `gateway` is empty where the destination is on the link."""

    family: str
    default: bool
    ifindex: int
    gateway: str
    protocol: str
    metric: int


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute. Raises GarbledError."""
    while end - start >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if not ATTRIBUTE.size <= length <= end - start:
            raise GarbledError("an attribute of netlink is cut off")
        yield kind & TYPE_MASK, data[start + ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3


def _nested(data: bytes) -> dict[int, bytes]:
    return dict(attributes(data, 0, len(data)))


def _body(fixed: struct.Struct, data: bytes, start: int, end: int) -> tuple[tuple[int, ...], dict[int, bytes]]:
    if end - start < fixed.size:
        raise GarbledError("a message of netlink is too short")
    return fixed.unpack_from(data, start), dict(attributes(data, start + fixed.size, end))


def _number(data: bytes | None) -> int:
    if data is None:
        return 0
    if len(data) not in (1, 2, 4):
        raise GarbledError("a number of netlink has a strange length")
    return int.from_bytes(data, "little" if struct.pack("=H", 1)[0] else "big")


def _text(data: bytes) -> str:
    return name_of(data.partition(b"\0")[0])


def name_of(data: bytes) -> str:
    """A link's name, which may be any bytes, as text: another one for each.

    b"\\xff" -> r"\xff", and what is written so, rb"\xff" -> r"\\xff"
    """
    return data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def bytes_of(name: str) -> bytes:
    """The bytes of a name that `name_of` made."""
    data = name.encode("utf-8", "surrogateescape")
    return ESCAPED.sub(lambda found: found[1] if found[1] == b"\\" else bytes.fromhex(found[1][1:].decode()), data)


def link(data: bytes, start: int, end: int) -> Link | None:
    """RTM_NEWLINK or RTM_DELLINK; None for one about a bridge's port, which tells only that. Raises GarbledError."""
    (family, device, index, flags, _), found = _body(IFINFO, data, start, end)
    if family != 0:
        return None
    if IFLA_IFNAME not in found:
        raise GarbledError("a link of netlink has no name")
    info = _nested(found.get(IFLA_LINKINFO, b""))
    kind = _text(info.get(IFLA_INFO_KIND, b"")) or ("loopback" if device == ARPHRD_LOOPBACK else "physical")
    vlan = _nested(info.get(IFLA_INFO_DATA, b"")).get(IFLA_VLAN_ID) if kind == "vlan" else None
    changes = found.get(IFLA_CARRIER_CHANGES)
    return Link(
        ifindex=index,
        name=_text(found[IFLA_IFNAME]),
        kind=kind,
        up=bool(flags & IFF_RUNNING),
        admin_up=bool(flags & IFF_UP),
        mtu=_number(found.get(IFLA_MTU)),
        hwaddr=found.get(IFLA_ADDRESS, b"").hex(":"),
        permhwaddr=found.get(IFLA_PERM_ADDRESS, b"").hex(":"),
        master=_number(found.get(IFLA_MASTER)),
        parent=_number(found.get(IFLA_LINK)),
        vlan_id=None if vlan is None else _number(vlan),
        carrier_changes=None if changes is None else _number(changes),
    )


def stats(data: bytes, start: int, end: int) -> tuple[int, Counters]:
    """(index, counters) of RTM_NEWSTATS. Raises GarbledError."""
    if end - start >= STATS.size:
        found = STATS.unpack_from(data, start)
        if found[4] == IFLA_STATS_LINK_64:
            return found[1], found[5:]
    # The kernel puts a filler before the counters where a machine wants them at multiples of eight.
    (_, index, _), by_type = _body(IFSTATS, data, start, end)
    counters = by_type.get(IFLA_STATS_LINK_64, b"")
    if len(counters) < 8 * len(COUNTERS):
        raise GarbledError("the statistics of a link are too short")
    return index, struct.unpack_from(f"={len(COUNTERS)}Q", counters)


def address(data: bytes, start: int, end: int) -> Address | None:
    """RTM_NEWADDR; None for families other than IPv4 and IPv6. Raises GarbledError."""
    (family, length, flags, _, index), found = _body(IFA, data, start, end)
    if family not in FAMILIES:
        return None
    flags = _number(found[IFA_FLAGS]) if IFA_FLAGS in found else flags
    # Of a tunnel IFA_ADDRESS is the other end's.
    ours = _ip(found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b""))
    return Address(index, FAMILIES[family], f"{ours}/{length}", not flags & IFA_PERMANENT)


def route(data: bytes, start: int, end: int) -> Route | None:
    """RTM_NEWROUTE; None for what is not an ordinary route of the main table. Raises GarbledError."""
    (family, length, _, _, table, protocol, _, kind, _), found = _body(RTM, data, start, end)
    table = _number(found[RTA_TABLE]) if RTA_TABLE in found else table
    if family not in FAMILIES or kind != UNICAST or table != TABLE_MAIN:
        return None
    index, gateway = _number(found.get(RTA_OIF)), _gateway(found)
    if RTA_MULTIPATH in found and len(found[RTA_MULTIPATH]) >= 8:
        # The first of several ways: struct rtnexthop, then its attributes.
        size, index = struct.unpack_from("=H2xi", found[RTA_MULTIPATH])
        gateway = _gateway(dict(attributes(found[RTA_MULTIPATH], 8, min(size, len(found[RTA_MULTIPATH])))))
    protocol_name = PROTOCOLS.get(protocol, str(protocol))
    metric = _number(found.get(RTA_PRIORITY))
    return Route(FAMILIES[family], length == 0, index, gateway, protocol_name, metric)


def _gateway(found: dict[int, bytes]) -> str:
    via = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]  # an IPv6 router of an IPv4 route
    return _ip(via) if via else ""


def _ip(data: bytes) -> str:
    if len(data) not in (4, 16):
        raise GarbledError("an address of netlink has a strange length")
    return str(ipaddress.ip_address(data))
