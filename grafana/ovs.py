"""The board "OVS": what Open vSwitch costs on each node, how near it is to its limits, and what it lost."""

from grafana import boards, looks, marks, nodes, panels, parts
from grafana.boards import Row
from grafana.grid import Size
from grafana.nodes import gained, leading, named, of, rate, recorded, ten, top
from grafana.parts import Column, Query

UID = "ovnwatch-ovs"
DAEMONS = 'daemon=~"ovs.*"'
EVENTS = "ovnwatch_ovs_coverage_events_total"
EACH_SECOND = f"rate({of(EVENTS)}[15m])"
STARTED = nodes.started(DAEMONS)


# Recorded series, by what they tell.
CPUS = {"ovs-vswitchd": "k8s_node:ovnwatch_ovs_vswitchd_cpu:cores5m"}
CPUS |= {"ovsdb-server": "k8s_node:ovnwatch_ovs_server_cpu:cores5m"}
MEMORY = "k8s_node_daemon:ovnwatch_node_daemon_resident_memory:max"
FLOWS = "k8s_node_datapath:ovnwatch_ovs_datapath_flows:max"
RULES_INSIDE = "k8s_node_bridge:ovnwatch_ovs_integration_rules:max"
RULES_OUTSIDE = "k8s_node_bridge:ovnwatch_ovs_external_rules:max"
OVERFLOWED = "k8s_node:ovnwatch_ovs_messages_overflowed:increase15m"
DISCARDED = "k8s_node:ovnwatch_ovs_messages_discarded:increase15m"
DUMP = "k8s_node_datapath:ovnwatch_ovs_upcall_dump_seconds:max"
LINK_RESETS = "k8s_node:ovnwatch_ovs_interface_link_resets:rate2m"
PMD_BUSY = "k8s_node_core:ovnwatch_ovs_pmd_busy:ratio2m"
LOST = "k8s_node_datapath:ovnwatch_ovs_lookups_lost:increase15m"
LIMIT_HITS = "k8s_node:ovnwatch_ovs_flow_limit_hits:increase15m"
LIMIT_KILLS = "k8s_node:ovnwatch_ovs_flow_limit_kills:increase15m"


LIMIT_USED = f"{of('ovnwatch_ovs_upcall_flows')} / {of('ovnwatch_ovs_upcall_flow_limit')}"
VSWITCHD = 'daemon="ovs-vswitchd"'
FILES = f"{of('ovnwatch_node_daemon_open_files', VSWITCHD)} / {of('ovnwatch_node_daemon_open_files_limit', VSWITCHD)}"


def of_kind(what: str) -> str:
    """What the interfaces of each kind gain a second, all nodes together."""
    return nodes.together(nodes.chosen(rate(f"ovnwatch_ovs_kind_{what}_total")), "kind", function="sum")


def kept() -> str:
    """The ten kinds of objects that ovs-vswitchd keeps most of."""
    return top(nodes.together(nodes.chosen(of("ovnwatch_ovs_memory_items", VSWITCHD)), "item", function="sum"))


WELL = Row(
    "well",
    "Is it well?",
    [
        panels.stat(
            "daemons-down",
            "Daemons down",
            "ovs-vswitchd and ovsdb-server that have a pid file and do not run. Good: 0. While ovs-vswitchd is down, "
            "known flows go on and new ones find no way.",
            [
                Query(
                    f"sum({named(of('ovnwatch_node_daemon_up', DAEMONS), 'daemon', function='min')} == bool 0)", "down"
                )
            ],
            unit="count",
            size=Size(5, 4),
            mappings=looks.bad_above_zero(looks.VERMILION),
        ),
        panels.stat(
            "restarts",
            "Daemons restarted",
            "ovs-vswitchd and ovsdb-server that were started within the range. Good: 0, or as many as the work was to "
            "restart. Marks in the graphs say when.",
            [Query(f"sum({nodes.chosen(STARTED)})", "restarted")],
            unit="count",
            size=Size(5, 4),
            mappings=looks.bad_above_zero(looks.BLUE),
        ),
        panels.stat(
            "lost-upcalls",
            "Packets lost on their way up",
            "Packets of unknown flows in the range that ovs-vswitchd had no room for. Good: 0. More: first packets of "
            "connections were lost, and clients waited a second for the next.",
            [Query(f"sum({nodes.chosen(gained('ovnwatch_ovs_datapath_lookups_lost_total'))})", "lost")],
            unit="count",
            size=Size(5, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
            decimals=0,
        ),
        panels.stat(
            "flow-limit-used",
            "Flow limit used, most",
            "Flows of the node that is nearest to the limit that its revalidators allow now. Good: below 80 %. At 100 "
            "% flows are thrown out, and packets go through ovs-vswitchd.",
            [Query(f"max({nodes.chosen(LIMIT_USED)})", "used")],
            unit="ratio",
            size=Size(5, 4),
            decimals=1,
        ),
        panels.stat(
            "behind-config",
            "Nodes with changes not applied",
            "Nodes whose ovs-vswitchd has not applied the latest configuration of its database. Good: 0 but for "
            "moments.",
            [Query(f"sum({named(of('ovnwatch_ovs_config_next') + ' > bool ' + of('ovnwatch_ovs_config_current'))})")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
    ],
)

COST = Row(
    "cost",
    "CPU and memory, the ten nodes with most",
    [
        ten(
            "cpu-vswitchd",
            "CPU of ovs-vswitchd",
            "Share of one core; it has many threads and may use several. Good: flat, and alike on all nodes. It "
            "climbs while flows are set up.",
            top(recorded(CPUS["ovs-vswitchd"])),
            unit="ratio",
            threshold="OvnwatchOvsCpuHigh",
        ),
        ten(
            "cpu-ovsdb",
            "CPU of ovsdb-server",
            "Share of one core. Good: near 0. It works when ports come and go.",
            top(recorded(CPUS["ovsdb-server"])),
            unit="ratio",
            threshold="OvnwatchOvsdbCpuHigh",
        ),
        ten(
            "memory-vswitchd",
            "Memory of ovs-vswitchd",
            "Resident memory. Good: flat. It grows with flows and rules, and does not shrink at once when they go.",
            top(recorded(MEMORY, 'daemon="ovs-vswitchd"')),
            unit="bytes",
            threshold="OvnwatchOvsMemoryHigh",
        ),
        ten(
            "memory-ovsdb",
            "Memory of ovsdb-server",
            "Resident memory of the server of each node's own database. Good: flat.",
            top(recorded(MEMORY, 'daemon="ovsdb-server"')),
            unit="bytes",
            threshold="OvnwatchOvsMemoryHigh",
        ),
    ],
)

TABLES = Row(
    "flows",
    "Flows and rules, the ten nodes with most",
    [
        ten(
            "datapath-flows",
            "Flows in the datapath",
            "What is known of the traffic of the moment. Good: as it was before, for the same traffic. A drop to "
            "nearly 0 is a restart or a change of all flows.",
            top(recorded(FLOWS)),
            unit="count",
            threshold="OvnwatchDatapathFlowsHigh",
        ),
        ten(
            "rules-br-int",
            "OpenFlow rules of br-int",
            "What ovn-controller wrote. Good: as it was before the work, for the same policies and services. A drop "
            "to 0 while ovs-vswitchd restarts ends when ovn-controller has written all of it again.",
            top(recorded(RULES_INSIDE)),
            unit="count",
            threshold="OvnwatchIntegrationBridgeRulesHigh",
        ),
        ten(
            "rules-others",
            "OpenFlow rules of external bridges",
            "Good: flat; they change when nodes, egress addresses or external Services do.",
            top(recorded(RULES_OUTSIDE)),
            unit="count",
            threshold="OvnwatchExternalBridgeRulesHigh",
        ),
        ten(
            "flow-limit",
            "Share of the flow limit",
            "Flows against what revalidators allow now; that shrinks when reading the flows takes over 1.3 s. Good: "
            "below 80 %, and no jump without more traffic.",
            leading(LIMIT_USED),
            unit="ratio",
            points=nodes.POINTS,
        ),
    ],
)

UPCALLS = Row(
    "on-the-way-up",
    "Upcalls, drops and connections, the ten nodes with most",
    [
        ten(
            "upcalls",
            "Upcalls",
            "Packets a second whose flow was not in the datapath. Good: low and flat. A peak follows each restart and "
            "each change of all flows.",
            leading(rate("ovnwatch_ovs_datapath_lookups_missed_total"), function="sum"),
            unit="per second",
            points=nodes.POINTS,
        ),
        ten(
            "lost",
            "Packets lost on their way up, by node",
            "Upcalls in the last fifteen minutes that ovs-vswitchd had no room for. Good: 0.",
            top(recorded(LOST)),
            unit="count",
            threshold="OvnwatchUpcallsLost",
        ),
        panels.timeseries(
            "drops",
            "Dropped by OVS, by reason",
            "Packets a second that OVS dropped, by its own name of the reason, all nodes together. Good: as before "
            "the work. Some drops are the rules' own: what a policy forbids is dropped by an action.",
            [
                Query(
                    top(nodes.together(nodes.chosen(rate("ovnwatch_ovs_drops_total")), "reason", function="sum")),
                    "{{reason}}",
                )
            ],
            unit="per second",
            size=Size(6, 7),
            style="stacked",
            points=nodes.POINTS,
        ),
        ten(
            "dump",
            "Time to read all flows",
            "Of the last dump by revalidators. Good: far below 1 s; from 1.3 s on the flow limit shrinks.",
            top(recorded(DUMP)),
            unit="seconds",
            threshold="OvnwatchRevalidationSlow",
        ),
        ten(
            "stream-open",
            "Connections opened",
            "Attempts of ovs-vswitchd a second to open a connection, to its database or a controller. Good: 0, but "
            "for starts. A steady rate: something cannot be reached.",
            leading(rate(EVENTS, 'event="stream_open"')),
            unit="per second",
            width=8,
            points=nodes.POINTS,
        ),
        ten(
            "rconn-overflow",
            "OpenFlow messages dropped",
            "Messages in the last fifteen minutes that were dropped because the other side read too slowly. Good: 0.",
            top(recorded(OVERFLOWED)),
            unit="count",
            threshold="OvnwatchOvsMessagesOverflowed",
            width=8,
        ),
        ten(
            "rconn-discarded",
            "OpenFlow messages discarded",
            "Messages in the last fifteen minutes that were thrown away with a lost connection. Good: 0.",
            top(recorded(DISCARDED)),
            unit="count",
            threshold="OvnwatchOvsMessagesDiscarded",
            width=8,
        ),
    ],
)


def worst(heading: str, name: str, unit: str = "count", threshold: str = "", matchers: str = "") -> Column:
    """A column of the table of nodes: the most in the range."""
    return Column(heading, recorded(name, matchers, "$__range"), unit, threshold)


NODES = Row(
    "nodes",
    "Nodes compared, each by its worst moment of the range",
    [
        panels.table(
            "nodes-compared",
            "Nodes",
            "The greatest values of the range; what is counted is so in fifteen minutes. The busiest node first. "
            "Good: no node stands out. A node's name leads to its own board.",
            [
                worst("CPU, ovs-vswitchd", CPUS["ovs-vswitchd"], "ratio", "OvnwatchOvsCpuHigh"),
                worst("CPU, ovsdb-server", CPUS["ovsdb-server"], "ratio", "OvnwatchOvsdbCpuHigh"),
                worst("Memory, ovs-vswitchd", MEMORY, "bytes", "OvnwatchOvsMemoryHigh", VSWITCHD),
                worst("Memory, ovsdb-server", MEMORY, "bytes", "OvnwatchOvsMemoryHigh", 'daemon="ovsdb-server"'),
                worst("Flows", FLOWS, threshold="OvnwatchDatapathFlowsHigh"),
                worst("Rules, br-int", RULES_INSIDE, threshold="OvnwatchIntegrationBridgeRulesHigh"),
                worst("Rules, external", RULES_OUTSIDE, threshold="OvnwatchExternalBridgeRulesHigh"),
                worst("Lost on their way up", LOST, threshold="OvnwatchUpcallsLost"),
                worst("Dropped messages", OVERFLOWED, threshold="OvnwatchOvsMessagesOverflowed"),
                worst("Discarded messages", DISCARDED, threshold="OvnwatchOvsMessagesDiscarded"),
                Column("Restarts", named(STARTED)),
            ],
            rows={"k8s_node": "Node"},
            size=Size(24, 10),
            sort="CPU, ovs-vswitchd",
            links={"Node": [parts.Link("This node alone", boards.address(UID, k8s_node="Node"))]},
        )
    ],
    collapsed=True,
)

INTERFACES = Row(
    "interfaces",
    "Interfaces",
    [
        panels.timeseries(
            "kinds",
            "Traffic by kind of interface",
            "Bytes received a second, all nodes together. Good: as before the work. Geneve is what nodes send each "
            "other; system is links and ports of pods.",
            [Query(of_kind("receive_bytes"), "{{kind}}")],
            unit="byte rate",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "interface-drops",
            "Packets dropped, by kind of interface",
            "Packets a second that OVS' interfaces dropped, received and sent, all nodes together. Good: as before "
            "the work, mostly 0.",
            [
                Query(of_kind("receive_dropped"), "{{kind}} received"),
                Query(of_kind("transmit_dropped"), "{{kind}} sent"),
            ],
            unit="per second",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "interface-errors",
            "Packets with errors, by kind of interface",
            "Packets a second that came with an error or could not be sent, all nodes together. Good: 0.",
            [
                Query(of_kind("receive_errors"), "{{kind}} received"),
                Query(of_kind("transmit_errors"), "{{kind}} sent"),
            ],
            unit="per second",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "link-resets",
            "Interfaces that changed their state",
            "Changes a second over two minutes, by node. Good: 0 but when ports come and go.",
            [Query(top(recorded(LINK_RESETS)), "{{k8s_node}}")],
            unit="per second",
            size=Size(8, 7),
        ),
        panels.table(
            "interfaces-wrong",
            "Interfaces that OVS could not set up",
            "Those of which it says so. Good: 0 of each node; a port of a pod that is gone leaves one at times.",
            [Column("Not set up", named(of("ovnwatch_ovs_interface_error")), decimals=0)],
            rows={"k8s_node": "Node"},
            size=Size(8, 7),
            sort="Not set up",
        ),
        panels.timeseries(
            "interface-kinds",
            "Interfaces by kind",
            "All nodes together. Good: as many as there are pods, tunnels and links; those of geneve are tunnels to "
            "other nodes.",
            [Query(nodes.together(nodes.chosen(of("ovnwatch_ovs_interfaces")), "kind", function="sum"), "{{kind}}")],
            unit="count",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
    ],
    collapsed=True,
)

INSIDE = Row(
    "inside",
    "Inside ovs-vswitchd",
    [
        panels.timeseries(
            "hits",
            "Packets whose flow was known",
            "Lookups a second that the datapath answered itself, by node. Good: nearly all; see upcalls beside.",
            [Query(leading(rate("ovnwatch_ovs_datapath_lookups_hit_total"), function="sum"), "{{k8s_node}}")],
            unit="per second",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.table(
            "events",
            "What it does most",
            "The ten events that ovs-vswitchd counted most often in the last fifteen minutes, all nodes together, by "
            "its own names: how many a second. Good: as before the work.",
            [
                Column(
                    "Each second", top(nodes.together(nodes.chosen(EACH_SECOND), "event", function="sum")), decimals=1
                )
            ],
            rows={"event": "Event"},
            size=Size(8, 7),
            sort="Each second",
        ),
        panels.timeseries(
            "limit-hit",
            "Flow limit hit",
            "Times in the last fifteen minutes that a flow was refused, or all were killed, because of the limit. "
            "Good: 0.",
            [
                Query(top(recorded(LIMIT_HITS)), "{{k8s_node}} refused"),
                Query(top(recorded(LIMIT_KILLS)), "{{k8s_node}} killed"),
            ],
            unit="count",
            size=Size(8, 7),
            threshold="OvnwatchFlowLimitReached",
        ),
        panels.timeseries(
            "memory-items",
            "What it keeps",
            "Objects in ovs-vswitchd, all nodes together, by its own names. Good: flat for the same traffic and rules.",
            [Query(kept(), "{{item}}")],
            unit="count",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "threads",
            "Revalidators and handlers",
            "Threads that keep flows fresh, and that handle upcalls. Good: the same on nodes of the same size.",
            [
                Query(leading(of("ovnwatch_ovs_revalidators")), "{{k8s_node}} revalidators"),
                Query(leading(of("ovnwatch_ovs_handlers")), "{{k8s_node}} handlers"),
            ],
            unit="count",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "files",
            "Open files",
            "File descriptors of ovs-vswitchd as a share of what it may open. Good: below 50 %, and flat.",
            [Query(leading(FILES), "{{k8s_node}}")],
            unit="ratio",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "pmd",
            "Polling threads, busy share",
            "Of a userspace datapath: rounds in which there was a packet, over two minutes, of each node's eight "
            "busiest threads. Good: below 80 %. Nothing is shown for a datapath of the kernel.",
            [Query(nodes.busiest(PMD_BUSY, "core"), "{{k8s_node}} core {{core}}")],
            unit="ratio",
            size=Size(8, 7),
        ),
        panels.timeseries(
            "masks",
            "Masks in the datapath",
            "Tables that a packet may have to be looked up in, of the kernel's datapath. Good: some dozens. More make "
            "each lookup slower.",
            [Query(leading(of("ovnwatch_ovs_datapath_masks")), "{{k8s_node}}")],
            unit="count",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.table(
            "versions",
            "Versions",
            "What runs where, as the daemons tell. Good: one version, but while an upgrade goes on.",
            [
                Column(
                    "Nodes",
                    nodes.together(
                        nodes.chosen(of("ovnwatch_node_daemon_info", DAEMONS)), "daemon", "version", function="count"
                    ),
                )
            ],
            rows={"daemon": "Daemon", "version": "Version"},
            size=Size(8, 7),
            sort="Nodes",
        ),
    ],
    collapsed=True,
)

ROWS = (WELL, COST, TABLES, UPCALLS, NODES, INTERFACES, INSIDE)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / OVS",
        "What Open vSwitch costs on each node, how near it is to its limits, what it lost, and when it was restarted.",
        ROWS,
        nodes.CHOICES,
        marks=marks.ALL,
    )
