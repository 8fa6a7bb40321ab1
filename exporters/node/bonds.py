"""Bonds of the kernel: /proc/net/bonding/<bond>, text as Documentation/networking/bonding.rst shows it.

Bonding Mode: IEEE 802.3ad Dynamic link aggregation
MII Status: up
Currently Active Slave: eth1                    modes that have one
Active Aggregator Info:                         802.3ad
        Aggregator ID: 1
        Partner Mac Address: 00:11:22:33:44:55

Slave Interface: eth0
MII Status: up
Link Failure Count: 0
Permanent HW addr: 52:54:00:aa:bb:01
Aggregator ID: 1
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row

# What the text calls a mode -> its name and number as an option.
MODES = {
    "load balancing (round-robin)": ("balance-rr", "0"),
    "fault-tolerance (active-backup)": ("active-backup", "1"),
    "fault-tolerance (active-backup) (fail_over_mac active)": ("active-backup", "1"),
    "fault-tolerance (active-backup) (fail_over_mac follow)": ("active-backup", "1"),
    "load balancing (xor)": ("balance-xor", "2"),
    "fault-tolerance (broadcast)": ("broadcast", "3"),
    "IEEE 802.3ad Dynamic link aggregation": ("802.3ad", "4"),
    "transmit load balancing": ("balance-tlb", "5"),
    "adaptive load balancing": ("balance-alb", "6"),
}
MEMBER = re.compile(r"^Slave Interface: (\S{1,64})$", re.MULTILINE)
FIELD = re.compile(r"^\s*([A-Za-z0-9][\w ().-]{0,60}): *(\S.*)?$", re.ASCII | re.MULTILINE)
NO_PARTNER = "00:00:00:00:00:00"


class Member(NamedTuple):
    name: str
    up: bool
    failures: int
    permhwaddr: str
    aggregator: str  # empty without LACP


class Bond(NamedTuple):
    """One bond; `active` is empty in modes without an active member, aggregator and partner are without LACP."""

    mode: str
    up: bool
    active: str
    aggregator: str
    partner: str
    members: tuple[Member, ...]


def parse(text: str) -> Bond:
    """One bond's text. Raises GarbledError."""
    head, *parts = MEMBER.split(text)
    about = _fields(head)
    if "Bonding Mode" not in about or "MII Status" not in about:
        raise GarbledError("a bond tells neither mode nor status")
    active, partner = about.get("Currently Active Slave", ""), about.get("Partner Mac Address", "")
    return Bond(
        mode=MODES.get(about["Bonding Mode"], (about["Bonding Mode"], ""))[0],
        up=about["MII Status"] == "up",
        active="" if active == "None" else active,
        aggregator=about.get("Aggregator ID", ""),
        partner="" if partner == NO_PARTNER else partner,
        members=tuple(_member(name, of_it) for name, of_it in zip(parts[::2], parts[1::2], strict=True)),
    )


def _member(name: str, text: str) -> Member:
    about = _fields(text)
    failures = about.get("Link Failure Count", "")
    if "MII Status" not in about or not re.fullmatch(r"\d{1,10}", failures, re.ASCII):
        raise GarbledError(f"a bond tells no status of its member {name}")
    return Member(
        name,
        about["MII Status"] == "up",
        int(failures),
        about.get("Permanent HW addr", ""),
        about.get("Aggregator ID", ""),
    )


def _fields(text: str) -> dict[str, str]:
    """The first value of each name: what follows later is of the LACP messages."""
    found: dict[str, str] = {}
    for name, value in FIELD.findall(text):
        found.setdefault(name, value.strip())
    return found


def rows(name: str, bond: Bond) -> Iterator[Row]:
    yield Row("ovnwatch_node_bond_info", (name, bond.mode, bond.aggregator, bond.partner), 1)
    yield Row("ovnwatch_node_bond_up", (name,), bond.up)
    yield Row("ovnwatch_node_bond_members", (name,), len(bond.members))
    yield Row("ovnwatch_node_bond_members_up", (name,), sum(each.up for each in bond.members))
    if bond.active:
        yield Row("ovnwatch_node_bond_active_member_info", (name, bond.active), 1)
    for each in bond.members:
        yield Row("ovnwatch_node_bond_member_up", (name, each.name), each.up)
        yield Row("ovnwatch_node_bond_member_link_failures_total", (name, each.name), each.failures)
        if bond.aggregator:
            aggregated = each.aggregator == bond.aggregator
            yield Row("ovnwatch_node_bond_member_aggregated", (name, each.name), aggregated)
