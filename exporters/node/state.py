"""The node's network in the vocabulary of oVirt's node network handler: what each device has and carried. Pure.

1. Numbers that were texts there (mtu, statistics, options) still are; a speed that is not known is 0, and not 1000.
2. `networks` are what the kernel shows: each bridge, with what carries it, and each other device that has an address.
3. `daemons`, which that handler did not have, says since when each daemon of OVS and OVN runs.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from exporters.node import rtnl
from exporters.node.addresses import Reached
from exporters.node.bonds import Bond, Member
from exporters.node.bridges import Bridge
from exporters.node.links import Known, Snapshot, name_of
from exporters.node.processes import Usage

# Kinds that carry networks as hardware does.
NICS = ("physical", "veth")
CARRIERS = ("physical", "bond", "vlan")
STATISTICS = {
    "rx": "rx_bytes",
    "tx": "tx_bytes",
    "rxDropped": "rx_dropped",
    "txDropped": "tx_dropped",
    "rxErrors": "rx_errors",
    "txErrors": "tx_errors",
}


class Seen(NamedTuple):
    """All that was read, at `time` in Unix time; options of bonds by their name, and who has IPv6 autoconfiguration."""

    time: float
    links: Snapshot
    reached: Reached
    bonds: Mapping[str, Bond]
    bond_options: Mapping[str, Mapping[str, str]]
    bridges: Mapping[str, Bridge]
    autoconf: frozenset[str]
    ipv6: bool
    daemons: Mapping[str, Usage | None]


class View(NamedTuple):
    """The same, found by name and index: a node may have thousands of links."""

    seen: Seen
    by_name: Mapping[str, Known]
    addresses: Mapping[int, Sequence[rtnl.Address]]
    defaults: Mapping[tuple[str, int], rtnl.Route]  # by family and link
    members: Mapping[str, Member]  # of bonds


def view(seen: Seen) -> View:
    ours: dict[int, list[rtnl.Address]] = {}
    for each in seen.reached.addresses:
        ours.setdefault(each.ifindex, []).append(each)
    defaults = [each for each in seen.reached.routes if each.default]
    return View(
        seen,
        {each.link.name: each for each in seen.links.known.values()},
        ours,
        {(each.family, each.ifindex): each for each in reversed(defaults)},
        {member.name: member for bond in seen.bonds.values() for member in bond.members},
    )


def state(seen: Seen) -> dict[str, Any]:
    """The document that /state answers."""
    return {
        "capabilities": capabilities(view(seen)),
        "statistics": statistics(seen.links, seen.time),
        "daemons": {name: _daemon(usage) for name, usage in seen.daemons.items()},
        "sampleTime": seen.time,
    }


def capabilities(view: View) -> dict[str, Any]:
    seen = view.seen
    known = seen.links.known
    by_kind: dict[str, list[Known]] = {}
    for each in known.values():
        by_kind.setdefault(each.link.kind, []).append(each)
    every_nic = [each for kind in NICS for each in by_kind.get(kind, [])]
    return {
        "networks": _networks(view),
        "bridges": {name: _bridge(view, name, bridge) for name, bridge in seen.bridges.items()},
        "bondings": {name: _bonding(view, name, bond) for name, bond in seen.bonds.items()},
        "vlans": {each.link.name: _vlan(view, each) for each in by_kind.get("vlan", [])},
        "nics": {each.link.name: _nic(view, each) for each in every_nic},
        "nameservers": list(seen.reached.nameservers),
        "supportsIPv6": seen.ipv6,
    }


def statistics(links: Snapshot, time: float) -> dict[str, Any]:
    """Cumulative bytes and packets of each device."""
    return {
        known.link.name: {
            "name": known.link.name,
            "speed": str(_megabits(known)),
            "state": "up" if known.link.up else "down",
            **{name: str(counters[rtnl.COUNTERS.index(of_it)]) for name, of_it in STATISTICS.items()},
            "sampleTime": time,
        }
        for known, counters in links.counters
    }


def _megabits(known: Known) -> int:
    return (known.speed or 0) // 1_000_000


def _daemon(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {"running": False}
    return {"running": True, "started": datetime.fromtimestamp(usage.start, UTC).isoformat(timespec="milliseconds")}


def _common(view: View, known: Known) -> dict[str, Any]:
    """What every device has."""
    link, leases = known.link, view.seen.reached.leases
    ours = view.addresses.get(link.ifindex, ())
    first = next((ipaddress.IPv4Interface(each.address) for each in ours if each.family == "4"), None)
    gateway, gateway6 = (view.defaults.get((family, link.ifindex)) for family in ("4", "6"))
    return {
        "addr": str(first.ip) if first else "",
        "netmask": str(first.netmask) if first else "",
        "ipv4addrs": [each.address for each in ours if each.family == "4"],
        "ipv6addrs": [each.address for each in ours if each.family == "6"],
        "gateway": gateway.gateway if gateway else "",
        "ipv6gateway": (gateway6.gateway if gateway6 else "") or "::",
        "ipv4defaultroute": gateway is not None,
        "ipv6autoconf": link.name in view.seen.autoconf,
        "dhcpv4": ("4", link.ifindex) in leases,
        "dhcpv6": ("6", link.ifindex) in leases,
        "mtu": str(link.mtu),
    }


def _with_common(view: View, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    known = view.by_name.get(name)
    return {**own, **(_common(view, known) if known else {})}


def _bridge(view: View, name: str, bridge: Bridge) -> dict[str, Any]:
    own = {"ports": sorted(bridge.ports), "stp": _stp(bridge), "opts": dict(bridge.options)}
    return _with_common(view, name, own)


def _stp(bridge: Bridge) -> str:
    return "off" if bridge.options.get("stp_state", "0") == "0" else "on"


def _bonding(view: View, name: str, bond: Bond) -> dict[str, Any]:
    known = view.by_name.get(name)
    # A choice is its name and its number, of which the handler had the number: `802.3ad 4`.
    options = {
        option: re.sub(r"^\S+ (\d+)$", r"\1", value) for option, value in view.seen.bond_options.get(name, {}).items()
    }
    own = {
        "slaves": sorted(member.name for member in bond.members),
        "active_slave": bond.active,
        "ad_aggregator_id": bond.aggregator,
        "ad_partner_mac": bond.partner,
        "hwaddr": known.link.hwaddr if known else "",
        "opts": options or {"mode": bond.mode},
        "switch": "legacy",
    }
    return _with_common(view, name, own)


def _vlan(view: View, known: Known) -> dict[str, Any]:
    parent = name_of(view.seen.links.known, known.link.parent)
    return {"iface": parent, "vlanid": known.link.vlan_id, **_common(view, known)}


def _nic(view: View, known: Known) -> dict[str, Any]:
    own: dict[str, Any] = {"hwaddr": known.link.hwaddr, "speed": _megabits(known)}
    member = view.members.get(known.link.name)
    if member:
        own["permhwaddr"] = member.permhwaddr
        if member.aggregator:
            own["ad_aggregator_id"] = member.aggregator
    return {**own, **_common(view, known)}


def _networks(view: View) -> dict[str, Any]:
    found = {}
    for name, bridge in view.seen.bridges.items():
        ports = sorted(bridge.ports)
        carriers = [port for port in ports if port in view.by_name and view.by_name[port].link.kind in CARRIERS]
        own = {"iface": carriers[0] if carriers else name, "bridged": True, "ports": ports}
        found[name] = _with_common(view, name, {**own, "stp": _stp(bridge), "switch": "legacy"})
    for index, known in view.seen.links.known.items():
        if index in view.addresses and known.link.kind in (*NICS, "bond", "vlan"):
            name = known.link.name
            found[name] = {"iface": name, "bridged": False, "switch": "legacy", **_common(view, known)}
    return found


def names_with(flags: Mapping[str, str]) -> frozenset[str]:
    """Names whose text says 1, as the kernel's switches do."""
    return frozenset(name for name, text in flags.items() if text.strip() == "1")
