"""The node's network in the vocabulary of oVirt's node network handler: what each device has and carried. Pure.

1. Numbers that were texts there (mtu, statistics, options) still are; a speed that is not known is 0, and not 1000.
2. `networks` are what the kernel shows: each bridge, with what carries it, and each other device that has an address.
3. `daemons`, which that handler did not have, says since when each daemon of OVS and OVN runs.
"""

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from exporters.node import rtnl
from exporters.node.addresses import Reached
from exporters.node.bonds import Bond
from exporters.node.bridges import Bridge
from exporters.node.links import Known, Snapshot, Table, name_of
from exporters.node.processes import Usage

# Kinds that carry networks as hardware does.
NICS = ("physical", "veth")
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


def state(seen: Seen) -> dict[str, Any]:
    """The document that /state answers."""
    return {
        "capabilities": capabilities(seen),
        "statistics": statistics(seen.links, seen.time),
        "daemons": {name: _daemon(usage) for name, usage in seen.daemons.items()},
        "sampleTime": seen.time,
    }


def capabilities(seen: Seen) -> dict[str, Any]:
    known = seen.links.known
    by_kind: dict[str, list[Known]] = {}
    for each in known.values():
        by_kind.setdefault(each.link.kind, []).append(each)
    every_nic = [each for kind in NICS for each in by_kind.get(kind, [])]
    return {
        "networks": _networks(seen),
        "bridges": {name: _bridge(seen, name, bridge) for name, bridge in seen.bridges.items()},
        "bondings": {name: _bonding(seen, name, bond) for name, bond in seen.bonds.items()},
        "vlans": {each.link.name: _vlan(seen, each) for each in by_kind.get("vlan", [])},
        "nics": {each.link.name: _nic(seen, each) for each in every_nic},
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


def _common(seen: Seen, known: Known) -> dict[str, Any]:
    """What every device has."""
    link, reached = known.link, seen.reached
    ours = [each for each in reached.addresses if each.ifindex == link.ifindex]
    first = next((ipaddress.IPv4Interface(each.address) for each in ours if each.family == "4"), None)
    gateways = {
        family: next((each for each in reached.routes if _is_default(each, family, link.ifindex)), None)
        for family in ("4", "6")
    }
    return {
        "addr": str(first.ip) if first else "",
        "netmask": str(first.netmask) if first else "",
        "ipv4addrs": [each.address for each in ours if each.family == "4"],
        "ipv6addrs": [each.address for each in ours if each.family == "6"],
        "gateway": gateways["4"].gateway if gateways["4"] else "",
        "ipv6gateway": (gateways["6"].gateway if gateways["6"] else "") or "::",
        "ipv4defaultroute": gateways["4"] is not None,
        "ipv6autoconf": link.name in seen.autoconf,
        "dhcpv4": ("4", link.ifindex) in reached.leases,
        "dhcpv6": ("6", link.ifindex) in reached.leases,
        "mtu": str(link.mtu),
    }


def _is_default(route: rtnl.Route, family: str, index: int) -> bool:
    return route.default and route.family == family and route.ifindex == index


def _by_name(table: Table, name: str) -> Known | None:
    return next((each for each in table.values() if each.link.name == name), None)


def _with_common(seen: Seen, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    known = _by_name(seen.links.known, name)
    return {**own, **(_common(seen, known) if known else {})}


def _bridge(seen: Seen, name: str, bridge: Bridge) -> dict[str, Any]:
    own = {"ports": sorted(bridge.ports), "stp": _stp(bridge), "opts": dict(bridge.options)}
    return _with_common(seen, name, own)


def _stp(bridge: Bridge) -> str:
    return "off" if bridge.options.get("stp_state", "0") == "0" else "on"


def _bonding(seen: Seen, name: str, bond: Bond) -> dict[str, Any]:
    known = _by_name(seen.links.known, name)
    # A choice is its name and its number, of which the handler had the number: `802.3ad 4`.
    options = {
        option: re.sub(r"^\S+ (\d+)$", r"\1", value) for option, value in seen.bond_options.get(name, {}).items()
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
    return _with_common(seen, name, own)


def _vlan(seen: Seen, known: Known) -> dict[str, Any]:
    parent = name_of(seen.links.known, known.link.parent)
    return {"iface": parent, "vlanid": known.link.vlan_id, **_common(seen, known)}


def _nic(seen: Seen, known: Known) -> dict[str, Any]:
    own: dict[str, Any] = {"hwaddr": known.link.hwaddr, "speed": _megabits(known)}
    member = next((each for bond in seen.bonds.values() for each in bond.members if each.name == known.link.name), None)
    if member:
        own["permhwaddr"] = member.permhwaddr
        if member.aggregator:
            own["ad_aggregator_id"] = member.aggregator
    return {**own, **_common(seen, known)}


def _networks(seen: Seen) -> dict[str, Any]:
    table = seen.links.known
    found = {}
    for name, bridge in seen.bridges.items():
        kinds = {port: _by_name(table, port) for port in sorted(bridge.ports)}
        carriers = [port for port, known in kinds.items() if known and known.link.kind in ("physical", "bond", "vlan")]
        own = {"iface": carriers[0] if carriers else name, "bridged": True, "ports": sorted(bridge.ports)}
        found[name] = _with_common(seen, name, {**own, "stp": _stp(bridge), "switch": "legacy"})
    reached = {each.ifindex for each in seen.reached.addresses}
    for index, known in table.items():
        if index in reached and known.link.kind in (*NICS, "bond", "vlan"):
            name = known.link.name
            found[name] = {"iface": name, "bridged": False, "switch": "legacy", **_common(seen, known)}
    return found


def names_with(flags: Mapping[str, str]) -> frozenset[str]:
    """Names whose text says 1, as the kernel's switches do."""
    return frozenset(name for name, text in flags.items() if text.strip() == "1")
