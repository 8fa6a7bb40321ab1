"""Bridges of the kernel: options as files of /sys/class/net/<name>/bridge have them, and the states of their ports."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row

FORWARDING = "3"  # BR_STATE_FORWARDING


class Bridge(NamedTuple):
    """A bridge: its options by name, as text, and the state of each port, a number of linux/if_bridge.h as text."""

    options: Mapping[str, str]
    ports: Mapping[str, str]


def number(bridge: Bridge, option: str) -> int:
    """An option that is a number. Raises GarbledError."""
    text = bridge.options.get(option, "")
    if not (text.isascii() and text.isdigit()):
        raise GarbledError(f"a bridge's {option} is no number")
    return int(text)


def rows(name: str, bridge: Bridge) -> Iterator[Row]:
    yield Row("ovnwatch_node_bridge_ports", (name,), len(bridge.ports))
    yield Row("ovnwatch_node_bridge_ports_forwarding", (name,), list(bridge.ports.values()).count(FORWARDING))
    yield Row("ovnwatch_node_bridge_stp", (name,), number(bridge, "stp_state") != 0)
    if "vlan_filtering" in bridge.options:
        yield Row("ovnwatch_node_bridge_vlan_filtering", (name,), number(bridge, "vlan_filtering") != 0)
