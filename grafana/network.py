"""The board "Node network": what each node's links, bonds, bridges and addresses do, and what they drop."""

from collections.abc import Iterable

from grafana import boards, looks, marks, nodes, panels, parts
from grafana.boards import Row
from grafana.grid import Size
from grafana.nodes import leading, named, of, recorded, ten, top
from grafana.parts import Column, Query

UID = "ovnwatch-network"
LINK = "ovnwatch_node_link"
# What is lost on its way in or out, by the reason that the kernel gives.
LOSSES = {
    "receive_dropped": "received, dropped",
    "receive_missed": "received, no room",
    "receive_nohandler": "received, off",
    "transmit_dropped": "sent, dropped",
}
LOST_LAST = f"increase({of(f'{LINK}_receive_dropped_total')}[1h])"
LOOK = 30  # seconds between two looks at what was recorded
ERRORS = {"receive_errors": "received", "transmit_errors": "sent"}
MEANT, UP = of(f"{LINK}_admin_up"), of(f"{LINK}_up")
CONNTRACK = "k8s_node:ovnwatch_node_conntrack_entries:ratio"
BLOCKED = "k8s_node_bridge:ovnwatch_node_bridge_ports:blocked"
MEMBERS = "k8s_node_bond_member:ovnwatch_node_bond_member_up:max"


def rate_of(what: str) -> str:
    """What all links of a node count each second, as rules recorded it: there are many links on a large site."""
    return f"k8s_node:{LINK}_{what}:rate2m"


def lost(what: str) -> str:
    return recorded(rate_of(what))


def in_range(counts: Iterable[str]) -> str:
    """What all of these counted in the range, all nodes together: rates of two minutes, looked at each half."""
    return " + ".join(
        f"sum(sum_over_time({rate_of(each)}{{{nodes.NODE}}}[$__range:{LOOK}s]) * {LOOK})" for each in counts
    )


def by_link(what: str) -> str:
    return nodes.busiest(f"k8s_node_link:{LINK}_{what}:rate2m", "link")


def by_node(counts: dict[str, str]) -> list[Query]:
    return [Query(top(lost(each)), f"{{{{k8s_node}}}} {words}") for each, words in counts.items()]


def either(kernel: str, ovs: str, *labels: str, function: str = "min") -> str:
    """What the kernel tells of its bonds, and OVS of its own."""
    return " or ".join(named(of(each), *labels, function=function) for each in (kernel, ovs))


def vlans() -> str:
    return nodes.together(nodes.chosen(of("ovnwatch_node_vlan_info")), "vlan_id", "parent", "link", function="count")


def bonds() -> str:
    infos = ("ovnwatch_node_bond_info", "ovnwatch_ovs_bond_info")
    return " or ".join(named(of(each), "bond", "mode", function="max") for each in infos)


WELL = Row(
    "well",
    "Is it well?",
    [
        panels.stat(
            "links-down",
            "Links down",
            "Links that are meant to be up and carry nothing. Good: 0, or the few that have no cable.",
            [Query(f"sum({nodes.chosen(f'{MEANT} > bool {UP}')})", "down")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
        panels.stat(
            "lost-in-range",
            "Packets lost",
            "Packets that links dropped in the range, received and sent. Good: 0, but for what nobody wanted.",
            [Query(in_range(LOSSES), "lost")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
            decimals=0,
        ),
        panels.stat(
            "errors-in-range",
            "Packets with errors",
            "Packets that came damaged or could not be sent in the range. Good: 0. More: a cable, a port, an MTU.",
            [Query(in_range(ERRORS), "errors")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
            decimals=0,
        ),
        panels.stat(
            "flaps",
            "Links that came or went",
            "How often a link came up or went down in the range. Good: 0, or what the work was to restart.",
            [Query(in_range(["carrier_changes"]), "changes")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.BLUE),
            decimals=0,
        ),
        panels.stat(
            "bond-members-down",
            "Bond members down",
            "Links in bonds, of the kernel and of OVS, that carry nothing. Good: 0. The bond still works with one.",
            [
                Query(
                    f"sum({either('ovnwatch_node_bond_members', 'ovnwatch_ovs_bond_members', 'bond')})"
                    f" - sum({either('ovnwatch_node_bond_members_up', 'ovnwatch_ovs_bond_members_enabled', 'bond')})",
                    "down",
                )
            ],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
        panels.stat(
            "conntrack-used",
            "Conntrack used, most",
            "Connections that the kernel tracks on the fullest node, of those that it can. Good: below 75 %. When it "
            "is full, new connections fail and established ones live.",
            [Query(f"max({recorded(CONNTRACK)})", "used")],
            unit="ratio",
            size=Size(4, 4),
            threshold="OvnwatchConntrackNearlyFull",
            decimals=1,
        ),
    ],
)

TRAFFIC = Row(
    "traffic",
    "Links, the ten with most",
    [
        panels.timeseries(
            "received",
            "Received",
            "Bytes a second. Good: as before the work. A link that carries nothing any more shows here first.",
            [Query(by_link("receive_bytes"), "{{k8s_node}} {{link}}")],
            unit="byte rate",
            size=Size(12, 8),
        ),
        panels.timeseries(
            "sent",
            "Sent",
            "Bytes a second. Good: as before the work.",
            [Query(by_link("transmit_bytes"), "{{k8s_node}} {{link}}")],
            unit="byte rate",
            size=Size(12, 8),
        ),
        panels.timeseries(
            "lost-by-node",
            "Packets lost, by node",
            "Packets a second by what became of them, of all links of a node. Good: 0. No room: the node is too slow "
            "for the link. Off: the link is not the bond's active one.",
            by_node(LOSSES),
            unit="per second",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "errors-by-node",
            "Packets with errors, by node",
            "Packets a second, of all links of a node. Good: 0.",
            by_node(ERRORS),
            unit="per second",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "carrier-changes",
            "Links that came or went, by node",
            "Changes a second, of all links of a node. Good: 0, but when pods come and go or the node starts.",
            [Query(top(lost("carrier_changes")), "{{k8s_node}}")],
            unit="per second",
            size=Size(8, 8),
        ),
    ],
)

STATES = Row(
    "states",
    "Links, bonds and bridges",
    [
        panels.table(
            "worst-links",
            "Links, by what they lost",
            "The twenty links that lost most packets in the last hour, received. Good: 0 everywhere.",
            [Column("Lost", named(top(nodes.chosen(LOST_LAST), 20), "link"), decimals=0)],
            rows={"k8s_node": "Node", "link": "Link"},
            size=Size(8, 8),
            sort="Lost",
            links={"Node": [parts.Link("This node alone", boards.address(UID, k8s_node="Node"))]},
        ),
        panels.table(
            "links-down-now",
            "Links that are down",
            "Links that are meant to be up and carry nothing now. Good: none, or ports without a cable.",
            [Column("Meant to be up", named(f"{MEANT} > {UP}", "link", function="max"), "state", words=looks.YES_NO)],
            rows={"k8s_node": "Node", "link": "Link"},
            size=Size(8, 8),
            sort="Node",
        ),
        panels.state_timeline(
            "bonds",
            "Bond members",
            "Each member of each bond, of the kernel and of OVS. Good: up all along. Empty: no bonds.",
            Query(f"{MEMBERS}{{{nodes.NODE}}}", "{{k8s_node}} {{bond}}: {{member}}"),
            size=Size(8, 8),
            mappings=looks.words(looks.UP_DOWN),
            points=2 * parts.POINTS,
        ),
        panels.timeseries(
            "bridges",
            "Bridge ports that do not forward",
            "Of bridges of the kernel: ports that are not forwarding, by bridge. Good: 0 but for moments.",
            [Query(nodes.busiest(BLOCKED, "bridge"), "{{k8s_node}} {{bridge}}")],
            unit="count",
            size=Size(8, 8),
        ),
        ten(
            "conntrack",
            "Conntrack used",
            "Tracked connections as a share of the limit. Good: below 75 %, and flat. A climb without more traffic: "
            "connections that nobody closes.",
            top(recorded(CONNTRACK)),
            unit="ratio",
            threshold="OvnwatchConntrackNearlyFull",
            width=8,
        ),
        panels.timeseries(
            "mtu",
            "MTU of physical links and bridges",
            "How many links have which MTU, all nodes together; workloads' links are left out. Good: the same numbers "
            "all along, or the steps that were planned.",
            [
                Query(
                    nodes.together(f"k8s_node_mtu:{LINK}_mtu:count{{{nodes.NODE}}}", "mtu", function="sum"),
                    "{{mtu}} bytes",
                )
            ],
            unit="count",
            size=Size(8, 8),
        ),
    ],
)

ADDRESSES = Row(
    "addresses",
    "Addresses and routes",
    [
        panels.timeseries(
            key,
            title,
            description,
            [Query(leading(of(f"ovnwatch_node_{key}"), "family"), "{{k8s_node}} IPv{{family}}")],
            unit="count",
            size=Size(6, 7),
            points=nodes.POINTS,
        )
        for key, title, description in (
            ("addresses", "Addresses", "Addresses of each node's links. Good: flat; egress addresses come and go."),
            ("routes", "Routes", "Routes of the main table. Good: flat, and alike on all nodes."),
            ("default_routes", "Default routes", "Default routes of the main table. Good: one for each IP version."),
            ("nameservers", "Nameservers", "Nameservers in resolv.conf. Good: the same on all nodes, and not 0."),
        )
    ],
    collapsed=True,
)

INVENTORY = Row(
    "inventory",
    "What is there",
    [
        panels.table(
            "links",
            "Links",
            "Links by kind, all nodes together. Good: what is expected.",
            [Column("Links", nodes.together(nodes.chosen(of(f"{LINK}_info")), "kind", function="count"))],
            rows={"kind": "Kind"},
            size=Size(6, 8),
            sort="Links",
        ),
        panels.table(
            "vlans",
            "VLANs",
            "Each VLAN and the link that carries it. Good: what was planned; the same on nodes that are alike.",
            [Column("Nodes", vlans())],
            rows={"vlan_id": "VLAN", "parent": "On", "link": "Link"},
            size=Size(6, 8),
            sort="Nodes",
        ),
        panels.table(
            "bond-modes",
            "Bonds",
            "Each bond and how it works. Good: the mode that was planned, on all nodes.",
            [Column("Is there", bonds())],
            rows={"k8s_node": "Node", "bond": "Bond", "mode": "Mode"},
            size=Size(6, 8),
            sort="Node",
        ),
        panels.table(
            "speed",
            "Slowest links",
            "The ten slowest of the links that tell their speed. Good: what they are made for. Less: a link came back "
            "with less than it had.",
            [Column("Speed", f"bottomk(10, 8 * {named(of(f'{LINK}_speed_bytes_per_second'), 'link')})", "bit rate")],
            rows={"k8s_node": "Node", "link": "Link"},
            size=Size(6, 8),
            sort="Speed",
        ),
    ],
    collapsed=True,
)

ROWS = (WELL, TRAFFIC, STATES, ADDRESSES, INVENTORY)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / Node network",
        "What each node's links, bonds, bridges and addresses do, and what they drop.",
        ROWS,
        nodes.CHOICES,
        marks=marks.ALL,
    )
