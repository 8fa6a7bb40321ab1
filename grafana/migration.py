"""The board "Migration": which phase was when, what was out then, before against after, and what each node cost."""

from grafana import boards, looks, marks, nodes, numbers, overview, panels, parts
from grafana.boards import Row, Setting
from grafana.grid import Size
from grafana.looks import Word
from grafana.nodes import of, together
from grafana.overview import CLUSTER, DAEMONS, NODE
from grafana.parts import Column, Query
from grafana.queries import PATHS, ROUND_TRIPS, SEEN, at_node, measured, round_trip, share

UID = "ovnwatch-migration"
BEFORE = Setting("before", "Compare with", ("1d", "1h", "3h", "6h", "12h", "2d", "7d"))
BEFORE_NOW = " offset $before"
PROBES = ("probe_failures", "probes")
DAEMONS_UP = "k8s_node:ovnwatch_node_daemon_up:min"
TRUE_FALSE = (Word(1, "true", looks.BLUE), Word(0, "false", looks.GREY))
TURN_STEP = 30  # seconds between two looks at whose turn it was
BY_WAY = "cluster, path, protocol"


def both(now: str, before: str, name: str) -> list[Query]:
    return [Query(now, f"{name} now".strip()), Query(before, f"{name} before".strip())]


def then() -> list[parts.Json]:
    """What was before is drawn dashed."""
    dashed = {"custom.lineStyle": {"fill": "dash", "dash": [6, 6]}, "custom.fillOpacity": 0}
    return [panels.series("/before$/", **dashed)]


def share_failing(labels: str, ago: str = "") -> str:
    """The share of probes that failed, late answers included, from what rules recorded; `ago`: an offset."""
    failed, sent = (f"sum by ({labels}) (path_protocol:ovnwatch_{each}:rate2m{PATHS}{ago})" for each in PROBES)
    return f"{failed} / {sent}"


def per_way(quantity: str, ago: str = "") -> str:
    """A quantile over the range, by path and protocol."""
    return f"histogram_quantile({quantity}, sum by ({BY_WAY}, le) (avg_over_time({ROUND_TRIPS}[$__range]{ago})))"


def lost_share(ago: str = "") -> str:
    """The share of probes that failed over the range, by path and protocol."""
    failed, sent = (
        f"sum by ({BY_WAY}) (avg_over_time(path_protocol:ovnwatch_{each}:rate2m{PATHS}[$__range]{ago}))"
        for each in PROBES
    )
    return f"{failed} / {sent}"


def on_all(metric: str, matchers: str = "") -> str:
    return together(nodes.chosen(of(metric, matchers)), function="sum")


def on_all_before(metric: str, matchers: str = "") -> str:
    return together(nodes.chosen(f"{of(metric, matchers)}{BEFORE_NOW}"), function="sum")


def of_nodes(counter: str) -> str:
    """What the worst stream to each node had of it in the range; 0 of nodes that lose nothing and are observed."""
    return f"{at_node(measured(counter))} or {at_node(SEEN)} * 0"


TURN = f"max by (cluster, k8s_node) (ovnwatch_node_phase{NODE})"
TURN_SECONDS = f"sum_over_time({TURN}[$__range:{TURN_STEP}s]) * {TURN_STEP}"
LOSING = f"max by (cluster, k8s_node) (sum_over_time(k8s_node:ovnwatch_outage_seconds:gained{NODE}[1m]))"
HAD_TURN = f"max by (cluster, k8s_node) (last_over_time(ovnwatch_node_phase{NODE}[$__range]))"
LOST_IN_TURN = (
    f"sum_over_time(({LOSING} and on (cluster, k8s_node) {TURN})[$__range:1m]) "
    f"or {at_node(SEEN)} * 0 and on (cluster, k8s_node) {HAD_TURN}"
)

NOW = Row(
    "now",
    "Where are we?",
    [
        panels.stat(
            "phase",
            "Phase",
            "The phase that the cluster is in, by kind of migration. Good: what is planned for this hour. No data: no "
            "phase, or nobody tells one.",
            [Query(f"max by (cluster, kind, phase) (ovnwatch_migration_phase{CLUSTER})", "{{kind}}: {{phase}}")],
            unit="state",
            size=Size(6, 4),
            mappings=looks.words(looks.IS_SO),
            names=True,
        ),
        panels.stat(
            "turn",
            "Whose turn",
            "Nodes that are being worked on. Good: as many at a time as planned, mostly one. No data: no node's turn.",
            [Query(f"max by (cluster, k8s_node, phase) (ovnwatch_node_phase{NODE})", "{{k8s_node}}: {{phase}}")],
            unit="state",
            size=Size(6, 4),
            mappings=looks.words(looks.IS_SO),
            names=True,
        ),
        numbers.outage_seconds(", or within the budget.", Size(8, 4)),
        panels.stat(
            "turns-done",
            "Nodes that had a turn",
            "Nodes that were in any phase within the range. Good: it grows to the number of nodes, each with one turn.",
            [Query(f"count(count_over_time({TURN}[$__range:{TURN_STEP}s]))", "nodes")],
            unit="count",
            size=Size(4, 4),
        ),
    ],
)

STORY = Row(
    "story",
    "What happened when",
    [
        panels.state_timeline(
            "phases",
            "Phases of the cluster",
            "One line for each phase, while it lasted. Good: one after the other, as planned. Empty: no phase.",
            Query(f"max by (cluster, kind, phase) (ovnwatch_migration_phase{CLUSTER})", "{{kind}}: {{phase}}"),
            size=Size(24, 5),
            mappings=looks.words(looks.IS_SO),
        ),
        panels.state_timeline(
            "turns",
            "Turns of nodes",
            "One line for each node and phase, while it lasted. Good: one node after the other; a turn much longer "
            "than the others hangs.",
            Query(f"max by (cluster, k8s_node, phase) (ovnwatch_node_phase{NODE})", "{{k8s_node}}: {{phase}}"),
            size=Size(24, 8),
            mappings=looks.words(looks.IS_SO),
            points=2 * parts.POINTS,
        ),
        panels.timeseries(
            "outages",
            "Lost to outages, by target",
            "The share of the last two minutes in which the worst stream to each target was out, below the phases of "
            "that time. Good: no line above 0, or only in the turn of the target's own node. Marks: phases, restarts "
            "and moves. The source chosen above has no effect.",
            [Query(share("outage", "target"), "{{target}}")],
            unit="ratio",
            size=Size(24, 8),
        ),
        panels.state_timeline(
            "restarts",
            "Daemons of OVS and OVN",
            "Whether each node's daemons run, the worst of them. Good: up, but in its own turn.",
            Query(f"{DAEMONS_UP}{NODE}", "{{k8s_node}}"),
            size=Size(24, 7),
            mappings=looks.words(looks.UP_DOWN),
            points=2 * parts.POINTS,
        ),
    ],
)

COMPARED = Row(
    "compared",
    "Before and after",
    [
        panels.timeseries(
            "latency",
            "Round trip, p99, now and before",
            "By path and protocol, of all sources; before is as long ago as is chosen above. Good: the two lie on each "
            "other. After a migration one more hop or tunnel shows here.",
            both(
                round_trip(0.99, BY_WAY),
                round_trip(0.99, BY_WAY, BEFORE_NOW),
                "{{path}} {{protocol}}",
            ),
            unit="seconds",
            size=Size(8, 8),
            overrides=then(),
        ),
        panels.timeseries(
            "failing",
            "Probes that failed, now and before",
            "The share of all probes that failed or were answered late, by path. Good: 0 %, as before.",
            both(share_failing("cluster, path"), share_failing("cluster, path", BEFORE_NOW), "{{path}}"),
            unit="ratio",
            size=Size(8, 8),
            overrides=then(),
        ),
        panels.timeseries(
            "flows",
            "Flows and rules, now and before",
            "Flows in the datapaths and OpenFlow rules, all nodes together. Good: about as before, for the same "
            "workloads. Many fewer rules: something is not programmed.",
            [
                *both(on_all("ovnwatch_ovs_datapath_flows"), on_all_before("ovnwatch_ovs_datapath_flows"), "flows"),
                *both(on_all("ovnwatch_ovs_bridge_rules"), on_all_before("ovnwatch_ovs_bridge_rules"), "rules"),
            ],
            unit="count",
            size=Size(8, 8),
            overrides=then(),
        ),
        panels.table(
            "paths-compared",
            "Paths, now and before",
            "Over the range, and over the same length of time as long ago as is chosen above. Good: no column is "
            "worse than the one beside it.",
            [
                Column("Round trip p50, now", per_way("0.5"), "seconds"),
                Column("p50, before", per_way("0.5", BEFORE_NOW), "seconds"),
                Column("p99, now", per_way("0.99"), "seconds"),
                Column("p99, before", per_way("0.99", BEFORE_NOW), "seconds"),
                Column("Failed, now", lost_share(), "ratio", decimals=3),
                Column("Failed, before", lost_share(BEFORE_NOW), "ratio", decimals=3),
            ],
            rows={"path": "Path", "protocol": "Protocol"},
            size=Size(24, 7),
            sort="p99, now",
        ),
    ],
)

COSTS = Row(
    "costs",
    "What each node's turn cost",
    [
        panels.table(
            "costs",
            "Nodes",
            "For how long it was each node's turn in the range; what the worst stream to it lost then and in all of "
            "the range; how many of its daemons were started. Good: nothing is lost outside turns, and no node stands "
            "out. In its turn is exact to a minute; reports say it to the millisecond.",
            [
                Column("Turn", TURN_SECONDS, "seconds", decimals=0),
                Column(
                    "Lost in its turn",
                    LOST_IN_TURN,
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=1,
                ),
                Column(
                    "Lost in the range",
                    of_nodes("ovnwatch_outage_seconds"),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
                Column("Connections broken", of_nodes("ovnwatch_connection_breaks"), decimals=0),
                Column(
                    "Restarts",
                    nodes.named(nodes.started(DAEMONS)),
                ),
            ],
            rows={"k8s_node": "Node"},
            size=Size(24, 9),
            sort="Lost in the range",
            links={
                "Node": [
                    parts.Link("OVS of this node", boards.address("ovnwatch-ovs", k8s_node="Node")),
                    parts.Link("Network of this node", boards.address("ovnwatch-network", k8s_node="Node")),
                ]
            },
        )
    ],
)

CLUSTER_SAYS = Row(
    "cluster-says",
    "What Kubernetes says",
    [
        panels.timeseries(
            "progress",
            "Progress",
            "How much of each phase is done, as pools of machines and DaemonSets count. Good: it climbs to 100 %. A "
            "plateau as long as a node's turn is usual, a longer one hangs.",
            [Query(f"max by (cluster, kind) (ovnwatch_migration_progress_ratio{CLUSTER})", "{{kind}}")],
            unit="ratio",
            size=Size(12, 7),
        ),
        panels.state_timeline(
            "conditions",
            "Conditions",
            "Of the cluster's network operator and of a live migration, by the API's own names. Good: Available all "
            "along, Progressing while work goes on, never Degraded. Empty: not known.",
            Query(f"max by (cluster, condition) (ovnwatch_migration_condition{CLUSTER})", "{{condition}}"),
            size=Size(12, 7),
            mappings=looks.words(TRUE_FALSE),
        ),
        panels.state_timeline(
            "nodes-ready",
            "Nodes ready",
            "As the cluster says. Good: yes, but in the node's own turn. Empty: not known.",
            Query(f"max by (cluster, k8s_node) (ovnwatch_node_ready{NODE})", "{{k8s_node}}"),
            size=Size(12, 8),
            mappings=looks.words(looks.YES_NO),
        ),
        panels.table(
            "boots",
            "Boots",
            "When each node was first seen with its boot id. Good: before the work, or in its own turn.",
            [
                Column(
                    "Booted", f"max by (cluster, k8s_node) (ovnwatch_node_boot_time_seconds{NODE}) * 1000", "timestamp"
                )
            ],
            rows={"k8s_node": "Node"},
            size=Size(6, 8),
            sort="Booted",
        ),
        panels.table(
            "watches",
            "Watches",
            "How long ago what is known of each resource was current for sure. Good: about a minute at most. After "
            "five minutes phases that depend on it are unknown.",
            [
                Column("Age", f"max by (cluster, resource) (ovnwatch_watch_age_seconds{CLUSTER})", "seconds"),
                Column(
                    "Told",
                    f"max by (cluster, resource) (ovnwatch_watch_up{CLUSTER})",
                    "state",
                    words=looks.YES_NO,
                ),
            ],
            rows={"resource": "Resource"},
            size=Size(6, 8),
            sort="Age",
        ),
    ],
    collapsed=True,
)

ROWS = (NOW, STORY, COMPARED, COSTS, CLUSTER_SAYS)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / Migration",
        "Which phase was when, what was out meanwhile, before against after, and what each node's turn cost.",
        ROWS,
        overview.CHOICES,
        settings=(BEFORE,),
        marks=marks.ALL,
    )
