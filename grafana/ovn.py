"""The board "OVN": does every chassis do what is wanted, who carries gateways and egress addresses, are tunnels up?"""

from grafana import boards, looks, marks, nodes, panels, parts
from grafana.boards import Row
from grafana.grid import Size
from grafana.nodes import gained, leading, named, of, rate, recorded, ten, together, top
from grafana.parts import Column, Query

UID = "ovnwatch-ovn"
CONTROLLER = 'daemon="ovn-controller"'
DAEMONS = 'daemon=~"ovn.*"'
MAKES_FLOWS = 'part=~".*flow.*|northd|runtime_data"'  # others begin anew each time, and cost nothing
CONFIG = "ovnwatch_ovn_config"
# Recorded series, by what they tell.
BFD = "chassis:ovnwatch_ovn_tunnel_bfd_up:min"
FLAPS = "k8s_node:ovnwatch_ovs_bfd_flaps:rate2m"
LAGS = "chassis:ovnwatch_ovn_chassis_lag_seconds:max"
SNATS = "external_chassis:ovnwatch_ovn_snat_info:max"
GATEWAYS = "gateway_chassis:ovnwatch_ovn_gateway_info:max"
DOWN = "k8s_node:ovnwatch_ovn_tunnels:down"
LONGEST = "daemon_stopwatch:ovnwatch_ovn_stopwatch_percentile95_seconds:max"


def anywhere(metric: str, *labels: str, function: str = "max") -> str:
    """What the chosen nodes tell alike."""
    return together(nodes.chosen(of(metric)), *labels, function=function)


def of_all(name: str) -> str:
    """A recorded series that is of no node."""
    return f'{name}{{cluster=~"$cluster"}}'


def behind(stage: str) -> str:
    """By how many configurations a stage is behind what is wanted."""
    wanted, reached = (anywhere_of(f'stage="{each}"') for each in ("nb", stage))
    return f"{wanted} - {reached}"


def anywhere_of(matchers: str) -> str:
    return together(nodes.chosen(of(CONFIG, matchers)))


def moved(what: str) -> str:
    """How often something moved in the range, as the watcher that saw most tells."""
    return together(nodes.chosen(gained(f"ovnwatch_ovn_{what}_moves_total")))


WELL = Row(
    "well",
    "Is it well?",
    [
        panels.stat(
            "chassis-behind",
            "Chassis behind",
            "Chassis that have not carried out the configuration that is wanted. Good: 0, but for moments. A chassis "
            "shows here only once something asks for a new configuration.",
            [Query(f"sum({anywhere('ovnwatch_ovn_chassis_behind')})", "behind")],
            unit="count",
            size=Size(3, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
        panels.stat(
            "longest-lag",
            "Longest lag",
            "For how long the last of all chassis has owed a configuration. Good: below a second or two.",
            [Query(f"max({anywhere('ovnwatch_ovn_chassis_lag_most_seconds')})", "lag")],
            unit="seconds",
            size=Size(3, 4),
            threshold="OvnwatchChassisBehind",
            decimals=1,
        ),
        panels.stat(
            "not-connected",
            "Daemons without a database",
            "Daemons of OVN that say they are not connected to a database that they need. Good: 0. A chassis without "
            "the southbound database goes on as it was and learns nothing new.",
            [Query(f"sum({named(of('ovnwatch_ovn_connected'), 'daemon', 'database', function='min')} == bool 0)")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.VERMILION),
        ),
        panels.stat(
            "tunnels-down",
            "Tunnels down",
            "Tunnels that nodes made and that are not up, each counted at either end. Good: 0.",
            [Query(f"sum({recorded(DOWN)})", "down")],
            unit="count",
            size=Size(3, 4),
            mappings=looks.bad_above_zero(looks.VERMILION),
        ),
        panels.stat(
            "ports-down",
            "Ports down",
            "Ports of workloads, gateways and routers that no chassis carries, or that are not up. Good: 0 but for "
            "workloads that start or end.",
            [Query(f"sum({anywhere('ovnwatch_ovn_ports_down', 'kind')})", "down")],
            unit="count",
            size=Size(3, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
        panels.stat(
            "moves",
            "Moves in the range",
            "How often an egress address went to another router or chassis, another chassis took a gateway, and a "
            "chassis came back with a new row. Good: 0, or what the work was to move.",
            [
                Query(f"sum({moved('snat')})", "egress"),
                Query(f"sum({moved('gateway')})", "gateways"),
                Query(
                    f"sum({together(nodes.chosen(gained('ovnwatch_ovn_chassis_reappearances_total')))})", "chassis back"
                ),
            ],
            unit="count",
            size=Size(8, 4),
            decimals=0,
        ),
    ],
)

LAG = Row(
    "lag",
    "Does every chassis do what is wanted?",
    [
        panels.timeseries(
            "stages",
            "Configurations behind what is wanted",
            "By how many configurations ovn-northd (southbound) and the slowest chassis (hypervisors) are behind the "
            "northbound database. Good: 0 but for moments. Nothing is asked of chassis where nobody waits for them.",
            [Query(behind("sb"), "southbound"), Query(behind("hv"), "hypervisors")],
            unit="count",
            size=Size(8, 7),
        ),
        panels.timeseries(
            "chassis-lag",
            "Lag by chassis, the ten longest",
            "For how long each chassis has owed a configuration. Good: 0. One that climbs is a chassis whose "
            "ovn-controller is stuck or away. The node chosen above has no effect.",
            [Query(top(of_all(LAGS)), "{{chassis}}")],
            unit="seconds",
            size=Size(8, 7),
            threshold="OvnwatchChassisBehind",
        ),
        panels.timeseries(
            "ports-not-installed",
            "Ports without flows",
            "Ports of workloads on a node for which ovn-controller has not installed flows yet, the ten nodes with "
            "most. Good: 0 but for moments.",
            [
                Query(
                    leading(f"{of('ovnwatch_ovn_controller_ports')} - {of('ovnwatch_ovn_controller_ports_installed')}"),
                    "{{k8s_node}}",
                )
            ],
            unit="count",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
    ],
)

PLACES = Row(
    "places",
    "Who carries egress addresses and gateways?",
    [
        panels.state_timeline(
            "egress-timeline",
            "Egress addresses, where they are",
            "One line for each address and chassis, while that chassis carries it. Good: one unbroken line an "
            "address, or a change where the work moved it. Addresses show as hashes unless the exporter is told to "
            "show them. The node chosen above has no effect on addresses of a chassis.",
            [
                Query(of_all(SNATS), "{{external}} on {{chassis}}"),
                Query(
                    f"max by (cluster, egressip, external, k8s_node) (ovnwatch_egressip_info{{{nodes.NODE}}})",
                    "{{egressip}} {{external}} on {{k8s_node}}",
                ),
            ],
            size=Size(12, 8),
            mappings=looks.words(looks.IS_SO),
            points=2 * parts.POINTS // 3,
        ),
        panels.state_timeline(
            "gateway-timeline",
            "Gateways, where they are",
            "One line for each gateway that can fail over, and the chassis that carries it. Good: one unbroken line. "
            "Without a name of a chassis: nobody carries it. The node chosen above has no effect.",
            Query(of_all(GATEWAYS), "{{gateway}} on {{chassis}}"),
            size=Size(12, 8),
            mappings=looks.words(looks.IS_SO),
            points=parts.POINTS,
        ),
    ],
)

TUNNELS = Row(
    "tunnels",
    "Tunnels",
    [
        panels.timeseries(
            "tunnels-by-node",
            "Tunnels that are not up, by node",
            "The ten nodes with most. Good: 0. One node with all of its tunnels down is cut off; one tunnel on every "
            "node points at the node at their other end.",
            [Query(top(recorded(DOWN)), "{{k8s_node}}")],
            unit="count",
            size=Size(8, 8),
        ),
        panels.state_timeline(
            "bfd",
            "Chassis as BFD sees them",
            "By the chassis at the other end, the worst of all nodes' tunnels to it. Good: up all along. Empty: no "
            "tunnel to it is watched by BFD.",
            Query(of_all(BFD), "{{chassis}}"),
            size=Size(8, 8),
            mappings=looks.words(looks.UP_DOWN),
            points=parts.POINTS,
        ),
        panels.timeseries(
            "bfd-flaps",
            "BFD sessions that changed",
            "Changes a second over two minutes, the ten nodes with most. Good: 0. A steady rate on a node with much "
            "CPU use is often the node being late, not the network.",
            [Query(top(recorded(FLAPS)), "{{k8s_node}}")],
            unit="per second",
            size=Size(8, 8),
        ),
    ],
)

WORK = Row(
    "work",
    "What its daemons do",
    [
        panels.timeseries(
            "recomputes",
            "Recomputes",
            "How often a second a part of an engine that makes flows began from scratch, the ten most. Good: 0, but "
            "for starts and rare changes. Each costs CPU, and time before changes are seen.",
            [
                Query(
                    top(
                        together(
                            nodes.chosen(rate("ovnwatch_ovn_engine_runs_total", f'run="recompute",{MAKES_FLOWS}')),
                            "daemon",
                            "part",
                            function="sum",
                        )
                    ),
                    "{{daemon}} {{part}}",
                )
            ],
            unit="per second",
            size=Size(8, 8),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "stopwatches",
            "What takes longest",
            "Of what the daemons take the time of, the ten longest: what 95 of 100 times stay below, as they estimate "
            "it, of the slowest node. Good: below a second. The node chosen above has no effect.",
            [Query(top(of_all(LONGEST)), "{{daemon}} {{stopwatch}}")],
            unit="seconds",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "cpu",
            "CPU of OVN's daemons",
            "Share of one core, the ten that use most. Good: low; ovn-northd works with every change, ovn-controller "
            "with those that concern its node.",
            [
                Query(
                    leading(rate("ovnwatch_node_daemon_cpu_seconds_total", DAEMONS), "daemon"),
                    "{{k8s_node}} {{daemon}}",
                )
            ],
            unit="ratio",
            size=Size(8, 8),
            points=nodes.POINTS,
        ),
        panels.state_timeline(
            "northd",
            "ovn-northd",
            "Which state each node's ovn-northd was in. Good: one is active at any time, the others stand by.",
            Query(named(f"{of('ovnwatch_ovn_northd_state')} == 1", "state", function="max"), "{{k8s_node}}: {{state}}"),
            size=Size(8, 7),
            mappings=looks.words(looks.IS_SO),
            points=parts.POINTS,
        ),
        panels.state_timeline(
            "roles",
            "Leaders of the databases",
            "Which node's server led which database's cluster. Good: one unbroken line for each database. A database "
            "that is no cluster has none.",
            Query(
                named(f"{of('ovnwatch_ovn_raft_role')} == 1", "database", "role", function="max"),
                "{{k8s_node}} {{database}}: {{role}}",
            ),
            size=Size(8, 7),
            mappings=looks.words(looks.IS_SO),
            points=parts.POINTS,
        ),
        ten(
            "memory-controller",
            "Memory of ovn-controller",
            "Resident memory, the ten nodes with most. Good: flat. It grows with what the databases hold.",
            leading(of("ovnwatch_node_daemon_resident_memory_bytes", CONTROLLER)),
            unit="bytes",
            width=8,
            points=nodes.POINTS,
        ),
    ],
)

CLUSTERS = Row(
    "clusters",
    "Databases that are clusters (RAFT)",
    [
        panels.table(
            "servers",
            "Servers",
            "Each server of a clustered database. Good: all are members, all know the leader, nothing is uncommitted "
            "for long, and no other member is far behind.",
            [
                Column(
                    "Member",
                    named(of("ovnwatch_ovn_raft_member"), "database", function="max"),
                    "state",
                    words=looks.YES_NO,
                ),
                Column(
                    "Knows the leader",
                    named(of("ovnwatch_ovn_raft_leader_known"), "database", function="max"),
                    "state",
                    words=looks.YES_NO,
                ),
                Column("Term", named(of("ovnwatch_ovn_raft_term"), "database", function="max")),
                Column("Members", named(of("ovnwatch_ovn_raft_members"), "database", function="max")),
                Column("Uncommitted", named(of("ovnwatch_ovn_raft_entries_uncommitted"), "database", function="max")),
                Column("Unapplied", named(of("ovnwatch_ovn_raft_entries_unapplied"), "database", function="max")),
                Column("Log", named(of("ovnwatch_ovn_raft_log_entries"), "database", function="max")),
                Column(
                    "Leader changes",
                    named(gained("ovnwatch_ovn_raft_leader_changes_total"), "database", function="max"),
                    decimals=0,
                ),
                Column(
                    "Lost connections",
                    named(gained("ovnwatch_ovn_raft_disconnections_total"), "database", function="max"),
                    decimals=0,
                ),
            ],
            rows={"k8s_node": "Node", "database": "Database"},
            size=Size(24, 7),
            sort="Term",
        ),
        panels.timeseries(
            "members-behind",
            "Entries that members lack",
            "By the other member, as the leader knows. Good: 0 but for moments.",
            [
                Query(
                    anywhere("ovnwatch_ovn_raft_peer_entries_behind", "database", "member_address"),
                    "{{database}} {{member_address}}",
                )
            ],
            unit="count",
            size=Size(12, 7),
            threshold="OvnwatchRaftLagging",
        ),
        panels.timeseries(
            "members-heard",
            "When members were last heard",
            "By the other member, of the server that heard it last. Good: below the election timer of usually some "
            "seconds.",
            [
                Query(
                    together(
                        nodes.chosen(of("ovnwatch_ovn_raft_peer_heard_seconds")),
                        "database",
                        "member_address",
                        function="min",
                    ),
                    "{{database}} {{member_address}}",
                )
            ],
            unit="seconds",
            size=Size(12, 7),
        ),
    ],
    collapsed=True,
)

CONTENT = Row(
    "content",
    "What the databases hold",
    [
        panels.timeseries(
            "sizes",
            "Size of the databases",
            "Of each database's file, the biggest of its servers. Good: flat; it grows until the file is compacted.",
            [Query(anywhere("ovnwatch_ovn_database_bytes", "database"), "{{database}}")],
            unit="bytes",
            size=Size(8, 7),
        ),
        panels.timeseries(
            "rows",
            "Rows, the ten biggest tables",
            "Good: as before the work, for the same workloads, services and policies.",
            [Query(top(anywhere("ovnwatch_ovn_rows", "database", "table")), "{{database}} {{table}}")],
            unit="count",
            size=Size(8, 7),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "balancers",
            "Load balancers' addresses",
            "All addresses with a port, and those without a backend, which answer nobody. Good: none without, but for "
            "services that have no pods.",
            [
                Query(anywhere("ovnwatch_ovn_load_balancer_addresses"), "all"),
                Query(anywhere("ovnwatch_ovn_load_balancer_addresses_unserved"), "without a backend"),
            ],
            unit="count",
            size=Size(8, 7),
        ),
        panels.table(
            "egress",
            "Egress addresses",
            "Which router, on which chassis, translates what to which address, now. Good: what was planned. Two rows "
            "of one address on two chassis are a conflict.",
            [Column("Rows", anywhere("ovnwatch_ovn_snat_info", "external", "logical", "router", "chassis"))],
            rows={"external": "Outside", "logical": "Inside", "router": "Router", "chassis": "Chassis"},
            size=Size(12, 8),
            sort="Outside",
        ),
        panels.table(
            "chassis",
            "Chassis",
            "Each chassis as the southbound database has it. Good: a lag of 0 s for all, and the same configuration.",
            [
                Column("Lag", anywhere("ovnwatch_ovn_chassis_lag_seconds", "chassis"), "seconds", decimals=1),
                Column("Configuration", anywhere("ovnwatch_ovn_chassis_config", "chassis")),
                Column(
                    "Carried out",
                    f"{anywhere('ovnwatch_ovn_chassis_config_timestamp_seconds', 'chassis')} * 1000",
                    "timestamp",
                ),
            ],
            rows={"chassis": "Chassis"},
            size=Size(12, 8),
            sort="Lag",
        ),
    ],
    collapsed=True,
)

ROWS = (WELL, LAG, PLACES, TUNNELS, WORK, CLUSTERS, CONTENT)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / OVN",
        "Does every chassis do what is wanted, who carries gateways and egress addresses, are the tunnels up?",
        ROWS,
        nodes.CHOICES,
        marks=marks.ALL,
    )
