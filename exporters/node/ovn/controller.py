"""What ovn-controller tells of itself alone: its cache of logical flows, and what it wrote into OVS' database.

Enabled: true                                     lflow-cache/show-stats
high-watermark  : 493
total           : 493
cache-expr      : 203                             cache-conj-id too in older versions
cache-matches   : 290
trim count      : 1
Mem usage (KB)  : 775
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.ovsdb import Row as DbRow
from exporters.node.ovsdb import one, uuid, uuids
from exporters.node.rows import Row, named

CACHE_LINE = re.compile(r"^([A-Za-z][\w ()-]{0,40}?)\s*: *(\w{1,20})$", re.MULTILINE | re.ASCII)
TABLES = {
    "Open_vSwitch": ("external_ids",),
    "Bridge": ("name", "ports", "external_ids"),
    "Port": ("_uuid", "name", "interfaces", "external_ids"),
    "Interface": ("_uuid", "type", "external_ids", "bfd", "bfd_status", "ofport", "error"),
}
TUNNELS = frozenset(("geneve", "vxlan", "stt"))
Tables = Mapping[str, Sequence[DbRow]]


def cache(text: str) -> dict[str, int | bool]:
    """The lines of lflow-cache/show-stats by name. Raises GarbledError."""
    found: dict[str, int | bool] = {}
    for name, value in CACHE_LINE.findall(text):
        if value in ("true", "false"):
            found[name] = value == "true"
        elif value.isdecimal():
            found[name] = int(value)
        else:
            raise GarbledError("lflow-cache/show-stats has something else where a number should be")
    if not isinstance(found.get("Enabled"), bool) or "total" not in found:
        raise GarbledError("lflow-cache/show-stats is not what it should be")
    return found


def cache_rows(found: Mapping[str, int | bool]) -> Iterator[Row]:
    memory = found.get("Mem usage (KB)")
    metrics = {
        "ovnwatch_ovn_flow_cache_enabled": found["Enabled"],
        "ovnwatch_ovn_flow_cache_entries": found["total"],
        "ovnwatch_ovn_flow_cache_entries_most": found.get("high-watermark"),
        "ovnwatch_ovn_flow_cache_trims_total": found.get("trim count"),
        "ovnwatch_ovn_flow_cache_bytes": None if memory is None else memory * 1024,
    }
    yield from named(metrics)


def wanted(tables: Tables) -> bool:
    """Whether somebody configured an ovn-controller here."""
    return any("ovn-remote" in _ids(row) for row in tables["Open_vSwitch"])


class Tunnel(NamedTuple):
    """A tunnel that ovn-controller made, by the chassis at its other end; bfd: it is on, and says what `up` is."""

    chassis: str
    kind: str
    up: bool
    bfd: bool


def rows(tables: Tables) -> Iterator[Row]:
    """What ovn-controller wrote: its configuration's number, tunnels, ports. Raises GarbledError."""
    for row in tables["Open_vSwitch"]:
        ids = _ids(row)
        for kind in str(ids.get("ovn-encap-type", "")).split(","):
            for address in str(ids.get("ovn-encap-ip", "")).split(","):
                if kind and address:
                    yield Row("ovnwatch_ovn_encapsulation_info", (kind, address), 1)
    name = next((str(_ids(row)["ovn-bridge"]) for row in tables["Open_vSwitch"] if "ovn-bridge" in _ids(row)), "br-int")
    bridge = next((row for row in tables["Bridge"] if row["name"] == name), None)
    if bridge is None:
        raise GarbledError(f"there is no bridge {name[:40]}")
    ids = _ids(bridge)
    found = {
        "ovnwatch_ovn_controller_config": _number(ids, "ovn-nb-cfg"),
        "ovnwatch_ovn_controller_config_timestamp_seconds": _seconds(ids, "ovn-nb-cfg-ts"),
        "ovnwatch_ovn_controller_start_timestamp_seconds": _seconds(ids, "ovn-startup-ts"),
    }
    yield from named(found)
    yield from _of_ports(tables, frozenset(uuids(bridge["ports"])))


def _of_ports(tables: Tables, on_bridge: frozenset[str]) -> Iterator[Row]:
    interfaces = {uuid(row): row for row in tables["Interface"]}
    tunnels, ports, installed = [], 0, 0
    for port in (row for row in tables["Port"] if uuid(row) in on_bridge):
        chassis = str(_ids(port).get("ovn-chassis-id", "")).partition("@")[0]
        for row in (interfaces[each] for each in uuids(port["interfaces"]) if each in interfaces):
            if chassis and row["type"] in TUNNELS:
                tunnels.append(tunnel(chassis, row))
            if "iface-id" in _ids(row):
                ports += 1
                installed += _ids(row).get("ovn-installed") == "true"
    yield Row("ovnwatch_ovn_controller_ports", (), ports)
    yield Row("ovnwatch_ovn_controller_ports_installed", (), installed)
    yield Row("ovnwatch_ovn_tunnels", (), len(tunnels))
    yield Row("ovnwatch_ovn_tunnels_up", (), sum(each.up for each in tunnels))
    for each in tunnels:
        if each.bfd:
            yield Row("ovnwatch_ovn_tunnel_bfd_up", (each.chassis, each.kind), each.up)


def tunnel(chassis: str, row: DbRow) -> Tunnel:
    """Up: by its BFD where that is on, else if OVS could make it."""
    bfd, status = _map(row["bfd"]), _map(row["bfd_status"])
    on = bfd.get("enable") == "true"
    port = one(row["ofport"])
    made = isinstance(port, int) and port > 0 and not one(row["error"])
    return Tunnel(chassis, str(row["type"]), made and (not on or status.get("state") == "up"), on)


def _ids(row: DbRow) -> Mapping[str, Any]:
    return _map(row["external_ids"])


def _map(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise GarbledError("the database has something else where a map should be")
    return value


def _number(ids: Mapping[str, Any], key: str) -> int | None:
    text = str(ids.get(key, ""))
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _seconds(ids: Mapping[str, Any], key: str) -> float | None:
    milliseconds = _number(ids, key)
    return milliseconds / 1000 if milliseconds else None
