"""Addresses, routes, leases and nameservers of the node: what there is, counted by IP version."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from exporters.node.rows import Row
from exporters.node.rtnl import FAMILIES, Address, Route

NAMESERVER = re.compile(r"^\s*nameserver\s+(\S+)", re.MULTILINE)
MOST_NAMESERVERS = 16  # resolvers use three
# Files that a client of DHCP keeps while it has a lease: NetworkManager's by link, systemd-networkd's by index.
NM_LEASE = re.compile(r"(?:internal|dhclient6?|dhcpcd)-[0-9a-f-]{36}-(?P<link>.{1,15})\.lease")


class Reached(NamedTuple):
    """What the node is reached by; leases are (family, index of a link)."""

    addresses: Sequence[Address]
    routes: Sequence[Route]
    leases: frozenset[tuple[str, int]]
    nameservers: Sequence[str]


def nameservers(text: str) -> list[str]:
    """Addresses in resolv.conf (man 5 resolv.conf), in their order; what is no address is left out."""
    found = []
    for each in NAMESERVER.findall(text)[:MOST_NAMESERVERS]:
        try:
            ipaddress.ip_address(each.partition("%")[0])
        except ValueError:
            continue
        found.append(each)
    return found


def leases(
    addresses: Iterable[Address], routes: Iterable[Route], files: Iterable[str], indexes: Mapping[str, int]
) -> frozenset[tuple[str, int]]:
    """Which links have a leased address, as (family, index): the lists of files are the clients' of DHCP, by name.

    For IPv4 an address with a life time is enough. For IPv6 routers give those too, so that only a /128 or a route of
    DHCP is. A link without any of it may have a static address, or one of a client that tells nobody.
    """
    found = {(each.family, each.ifindex) for each in addresses if each.dynamic and each.family == "4"}
    found |= {("6", each.ifindex) for each in addresses if each.dynamic and each.address.endswith("/128")}
    found |= {(each.family, each.ifindex) for each in routes if each.protocol == "dhcp"}
    for name in files:
        if (match := NM_LEASE.fullmatch(name)) and match["link"] in indexes:
            found.add(("6" if name.startswith("dhclient6") else "4", indexes[match["link"]]))
        elif name.isascii() and name.isdigit():
            found.add(("4", int(name)))
    return frozenset(found)


def rows(reached: Reached) -> Iterator[Row]:
    """Every count for both versions: none is 0."""
    servers = Counter("6" if ":" in each else "4" for each in reached.nameservers)
    for family in FAMILIES.values():
        routes = [each for each in reached.routes if each.family == family]
        counts = {
            "ovnwatch_node_addresses": sum(each.family == family for each in reached.addresses),
            "ovnwatch_node_dhcp_links": sum(of_it == family for of_it, _ in reached.leases),
            "ovnwatch_node_routes": len(routes),
            "ovnwatch_node_default_routes": sum(each.default for each in routes),
            "ovnwatch_node_nameservers": servers[family],
        }
        for name, count in counts.items():
            yield Row(name, (family,), count)
