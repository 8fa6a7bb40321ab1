"""Bonds of OVS' own, and their LACP: `bond/show`, `lacp/show` and `lacp/show-stats`.

    ---- bond0 ----                      ---- bond0 ----                    ---- bond0 statistics ----
    bond_mode: balance-tcp                 status: active negotiated
    lacp_status: negotiated                                                 member: ba:
    member ba: enabled                   member: ba: current attached         TX PDUs: 9
      active member                        partner sys_id: aa:...:0a          RX Bad PDUs: 0

Before OVS 2.17 a member was called slave.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row

BLOCK = re.compile(r"^---- (\S{1,64})(?: statistics)? ----$", re.MULTILINE)
MODE = re.compile(r"^bond_mode: (\S{1,40})$", re.MULTILINE)
LACP = re.compile(r"^lacp_status: (\S{1,40})$", re.MULTILINE)
BOND_MEMBER = re.compile(r"^(?:member|slave) (\S{1,64}): (enabled|disabled)$", re.MULTILINE)
ACTIVE = re.compile(r"^\s+active (?:member|slave)$", re.MULTILINE)
LACP_MEMBER = re.compile(r"^(?:member|slave): (\S{1,64}):(.*)$", re.MULTILINE)
COUNT = re.compile(r"^\s+([A-Za-z][A-Za-z ]{1,40}): (\d{1,20})$", re.ASCII | re.MULTILINE)


class Bond(NamedTuple):
    """A bond: its mode, LACP status (`off`, `negotiated`, ...), and members: name -> (enabled, active)."""

    name: str
    mode: str
    lacp: str
    members: Mapping[str, tuple[bool, bool]]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each bond. Raises GarbledError for text that does not begin with one."""
    first, *parts = BLOCK.split(text)
    if first.strip():
        raise GarbledError("a list of bonds does not begin with one")
    yield from zip(parts[::2], parts[1::2], strict=True)


def parse(text: str) -> list[Bond]:
    """`bond/show`. Raises GarbledError."""
    return [_bond(name, block) for name, block in blocks(text)]


def _bond(name: str, text: str) -> Bond:
    mode, lacp = MODE.search(text), LACP.search(text)
    if not mode:
        raise GarbledError(f"bond/show tells no mode of {name}")
    _, *parts = BOND_MEMBER.split(text)
    members = {
        member: (state == "enabled", bool(ACTIVE.search(rest)))
        for member, state, rest in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }
    return Bond(name, mode[1], lacp[1] if lacp else "", members)


def parse_lacp(text: str) -> dict[tuple[str, str], bool]:
    """`lacp/show`: whether what each (bond, member) knows of its partner is current. Raises GarbledError."""
    return {
        (bond, member): "current" in state.split()
        for bond, block in blocks(text)
        for member, state in LACP_MEMBER.findall(block)
    }


def parse_lacp_stats(text: str) -> dict[tuple[str, str], dict[str, int]]:
    """`lacp/show-stats`: counts by name of each (bond, member). Raises GarbledError."""
    found = {}
    for bond, block in blocks(text):
        _, *parts = LACP_MEMBER.split(block)
        for member, rest in zip(parts[::3], parts[2::3], strict=True):
            found[bond, member] = {name: int(count) for name, count in COUNT.findall(rest)}
    return found


LACP_COUNTS = {
    "TX PDUs": "ovnwatch_ovs_lacp_transmitted_pdus_total",
    "RX PDUs": "ovnwatch_ovs_lacp_received_pdus_total",
    "RX Bad PDUs": "ovnwatch_ovs_lacp_bad_pdus_total",
    "Link Expired": "ovnwatch_ovs_lacp_expired_total",
    "Link Defaulted": "ovnwatch_ovs_lacp_defaulted_total",
}


def rows(bonds: Sequence[Bond]) -> Iterator[Row]:
    for bond in bonds:
        yield Row("ovnwatch_ovs_bond_info", (bond.name, bond.mode, bond.lacp), 1)
        yield Row("ovnwatch_ovs_bond_members", (bond.name,), len(bond.members))
        yield Row("ovnwatch_ovs_bond_members_enabled", (bond.name,), sum(up for up, _ in bond.members.values()))
        if bond.lacp not in ("", "off"):
            yield Row("ovnwatch_ovs_bond_lacp_negotiated", (bond.name,), bond.lacp == "negotiated")
        for member, (enabled, active) in bond.members.items():
            yield Row("ovnwatch_ovs_bond_member_enabled", (bond.name, member), enabled)
            yield Row("ovnwatch_ovs_bond_member_active", (bond.name, member), active)


def lacp_rows(
    current: Mapping[tuple[str, str], bool], counts: Mapping[tuple[str, str], Mapping[str, int]]
) -> Iterator[Row]:
    for member, is_current in current.items():
        yield Row("ovnwatch_ovs_lacp_member_current", member, is_current)
    for member, of_it in counts.items():
        for name, metric in LACP_COUNTS.items():
            if name in of_it:
                yield Row(metric, member, of_it[name])
