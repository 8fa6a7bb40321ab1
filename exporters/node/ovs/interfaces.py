"""Interfaces of OVS: what each carried and dropped, its link, BFD and LACP; and sums by kind, for there may be many.

1. A node has a port for each pod or virtual machine. Of these, kind "workload", only the worst and busiest are shown
   one by one: those that dropped and failed most, then those that carried most. All others are always shown.
2. Sums by kind count what interfaces carried since we began. They never fall, as a sum over the present ones does when
   one goes. What an interface carried after our last look at it is in none.
3. A key of `statistics` that is not known is left alone: new versions bring new ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.ovsdb import MOST, one, uuid, uuids
from exporters.node.ovsdb import Row as DbRow
from exporters.node.rows import Row, named

TABLES = {
    "Bridge": ("name", "ports"),
    "Port": ("_uuid", "name", "interfaces"),
    "Interface": (
        "_uuid", "name", "type", "external_ids", "statistics", "link_state", "admin_state", "link_resets", "link_speed",
        "mtu", "bfd_status", "lacp_current", "error",
    ),
}  # fmt: skip
# Key of `statistics` -> the end of the metrics' names.
COUNTERS = {
    "rx_bytes": "receive_bytes_total",
    "rx_packets": "receive_packets_total",
    "rx_dropped": "receive_dropped_total",
    "rx_errors": "receive_errors_total",
    "tx_bytes": "transmit_bytes_total",
    "tx_packets": "transmit_packets_total",
    "tx_dropped": "transmit_dropped_total",
    "tx_errors": "transmit_errors_total",
    "collisions": "collisions_total",
}
LOST = ("rx_dropped", "tx_dropped", "rx_errors", "tx_errors")
# These are OVS' own, whoever the identifier in external_ids is for: the management port of ovn-kubernetes has one.
OWN_TYPES = frozenset(("internal", "patch", "geneve", "vxlan", "gre", "erspan", "stt"))

Counts = Mapping[str, int]  # by key of `statistics`


class Interface(NamedTuple):
    """One row of the database. Times and rates are OVS' own, renewed every five seconds."""

    uuid: str
    name: str
    bridge: str
    port: str
    kind: str
    counts: Counts
    up: bool | None
    admin_up: bool | None
    resets: int | None
    speed: int | None  # bits per second
    mtu: int | None
    bfd: Mapping[str, str]
    lacp_current: bool | None
    error: bool


def parse(tables: Mapping[str, Sequence[DbRow]]) -> list[Interface]:
    """Interfaces that are part of a bridge's port. Raises GarbledError."""
    ports = {uuid(row): row for row in tables["Port"]}
    home = {
        each: (str(bridge["name"]), str(ports[port]["name"]))
        for bridge in tables["Bridge"]
        for port in uuids(bridge["ports"])
        if port in ports
        for each in uuids(ports[port]["interfaces"])
    }
    return [_interface(row, *home[uuid(row)]) for row in tables["Interface"] if uuid(row) in home]


def _interface(row: DbRow, bridge: str, port: str) -> Interface:
    ids, statistics, bfd = row["external_ids"], row["statistics"], row["bfd_status"]
    if not isinstance(ids, dict) or not isinstance(statistics, dict) or not isinstance(bfd, dict):
        raise GarbledError("an interface of the database has no map where one should be")
    kind = str(row["type"]) or "system"
    return Interface(
        uuid=uuid(row),
        name=str(row["name"]),
        bridge=bridge,
        port=port,
        kind="workload" if "iface-id" in ids and kind not in OWN_TYPES else kind,
        counts={key: count for key in COUNTERS if (count := _count(statistics.get(key))) is not None},
        up=_state(row["link_state"]),
        admin_up=_state(row["admin_state"]),
        resets=_count(one(row["link_resets"])),
        speed=_count(one(row["link_speed"])),
        mtu=_count(one(row["mtu"])),
        bfd={str(key): str(value) for key, value in bfd.items()},
        lacp_current=one(row["lacp_current"]) if isinstance(one(row["lacp_current"]), bool) else None,
        error=bool(one(row["error"])),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST else None


def _state(value: Any) -> bool | None:
    return {"up": True, "down": False}.get(value) if isinstance(value, str) else None


def shown(interfaces: Sequence[Interface], workloads: int | None) -> list[Interface]:
    """Rule 1; None: all of them."""
    if workloads is None:
        return list(interfaces)
    ranked = sorted((each for each in interfaces if each.kind == "workload"), key=_rank)
    return [each for each in interfaces if each.kind != "workload"] + ranked[:workloads]


def _rank(interface: Interface) -> tuple[int, int, str]:
    counts = interface.counts
    lost = sum(counts.get(key, 0) for key in LOST)
    return -lost, -counts.get("rx_bytes", 0) - counts.get("tx_bytes", 0), interface.name


class Sums(NamedTuple):
    """What is known from the last look: counts of each interface by its UUID, and totals by (kind, key)."""

    seen: Mapping[str, Counts]
    totals: Mapping[tuple[str, str], int]


def step(before: Sums | None, interfaces: Sequence[Interface]) -> Sums:
    """Rule 2. A count that fell began anew; an interface that is new since the last look carried all since then.

    A count that is missing for a while goes on from where it was.
    """
    totals = Counter(dict(before.totals) if before else {})
    seen: dict[str, Mapping[str, int]] = {}
    for each in interfaces:
        old = before.seen.get(each.uuid) if before else {}
        for key, count in each.counts.items():
            was = 0 if old is None else old.get(key, count)
            totals[each.kind, key] += count - was if count >= was else count
        seen[each.uuid] = {**(old or {}), **each.counts}
    return Sums(seen, totals)


def rows(interfaces: Sequence[Interface]) -> Iterator[Row]:
    """Metrics of these interfaces, one by one."""
    for each in interfaces:
        counted = {f"ovnwatch_ovs_interface_{COUNTERS[key]}": count for key, count in each.counts.items()}
        rest = {
            "ovnwatch_ovs_interface_up": each.up,
            "ovnwatch_ovs_interface_admin_up": each.admin_up,
            "ovnwatch_ovs_interface_link_resets_total": each.resets,
            "ovnwatch_ovs_interface_speed_bytes_per_second": None if each.speed is None else each.speed / 8,
            "ovnwatch_ovs_interface_mtu_bytes": each.mtu,
            "ovnwatch_ovs_interface_error": each.error,
            "ovnwatch_ovs_interface_lacp_current": each.lacp_current,
        }
        yield from named({**counted, **rest}, (each.name,))
        yield Row("ovnwatch_ovs_interface_info", (each.name, each.bridge, each.port, each.kind), 1)
        yield from named(_bfd(each.bfd), (each.name,))


def _bfd(status: Mapping[str, str]) -> dict[str, float | None]:
    """Of an interface with BFD; OVS leaves the map empty where it is off."""
    flaps = status.get("flap_count", "")
    return {
        "ovnwatch_ovs_bfd_up": status["state"] == "up" if "state" in status else None,
        "ovnwatch_ovs_bfd_forwarding": status["forwarding"] == "true" if "forwarding" in status else None,
        "ovnwatch_ovs_bfd_flaps_total": int(flaps) if flaps.isascii() and flaps.isdigit() and len(flaps) < 20 else None,
    }


def sum_rows(interfaces: Sequence[Interface], sums: Sums) -> Iterator[Row]:
    for kind, count in sorted(Counter(each.kind for each in interfaces).items()):
        yield Row("ovnwatch_ovs_interfaces", (kind,), count)
    for (kind, key), total in sorted(sums.totals.items()):
        yield Row(f"ovnwatch_ovs_kind_{COUNTERS[key]}", (kind,), total)
