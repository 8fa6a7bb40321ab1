"""The board "Overview": is it broken, what did it cost of the budget, which phase is it, and who is worst off?"""

from grafana import boards, looks, marks, nodes, panels, parts
from grafana.boards import Choice, Row, Setting
from grafana.grid import Size
from grafana.parts import Column, Query
from grafana.queries import ANY, OPEN, WATCHED, bound, covered, estimate, measured, state_now, state_of_targets, streams

UID = "ovnwatch-overview"
CHOICES = (
    Choice("source", "Source", "ovnwatch_stream_observed"),
    Choice("target", "Target", "ovnwatch_stream_observed"),
    Choice("path", "Path", "ovnwatch_stream_observed", hidden=True),
    Choice("protocol", "Protocol", "ovnwatch_stream_observed", hidden=True),
    *nodes.CHOICES,
)
BUDGET = Setting("budget", "Budget, seconds", ("60", "10", "30", "120", "300", "600", "1800"))
CLUSTER = '{cluster=~"$cluster"}'
NODE = '{cluster=~"$cluster",k8s_node=~"$k8s_node"}'
FIRING = 'ALERTS{cluster=~"$cluster",alertname=~"Ovnwatch.*",alertname!="OvnwatchWatchdog",alertstate="firing"}'
DAEMONS = 'daemon=~"ov[ns].*"'
PAIR = {"source": "Source", "target": "Target", "path": "Path", "protocol": "Protocol", "family": "IP"}


def to_node(expr: str) -> str:
    """The worst stream to each node."""
    there = f'ovnwatch_stream_info{ANY.removesuffix("}")},target_node!=""}}'
    info = f"max by (cluster, source, target, path, protocol, family, target_node) ({there})"
    joined = f"({expr}) * on (cluster, source, target, path, protocol, family) group_left (target_node) {info}"
    return f'max by (cluster, k8s_node) (label_join({joined}, "k8s_node", "", "target_node"))'


def worst(expr: str, count: int = 10) -> str:
    return f"topk({count}, {expr} > 0)"


VERDICT = Row(
    "verdict",
    "Is it broken, and what did it cost?",
    [
        panels.stat(
            "down-now",
            "Down now",
            "Streams with an open outage of their path. Good: 0. Streams that are not observed, and those whose "
            "target never answered, are not counted here: see the states beside.",
            [Query(f"sum({streams(f'{OPEN} and {WATCHED} == 1', 'max')})", "down")],
            unit="count",
            size=Size(3, 4),
            mappings=looks.bad_above_zero(looks.VERMILION),
        ),
        panels.stat(
            "streams-by-state",
            "Streams by state",
            "How many streams are in which state now. Good: all are up. Unknown, not observed and no data are neither "
            "health nor an outage.",
            [Query(f'count_values("state", {state_now()})', "{{state}}")],
            unit="count",
            size=Size(5, 4),
            overrides=panels.state_names(),
        ),
        panels.stat(
            "outage-seconds",
            "Outage seconds, worst stream",
            "What the stream that lost most lost in the range: at least, about and at most. Good: 0 s. Streams are "
            "not added, since many see the same outage.",
            [
                Query(f"max({bound('lower')})", "at least"),
                Query(f"max({estimate()})", "about"),
                Query(f"max({bound('upper')})", "at most"),
            ],
            unit="seconds",
            size=Size(5, 4),
            threshold="OvnwatchOutageEnded",
            decimals=2,
        ),
        panels.stat(
            "budget-left",
            "Budget left",
            "The budget chosen above less what the worst stream lost in the range, at most. Good: above 0 s. Reports "
            "judge a window by its own budget; this is for the range that is shown.",
            [Query(f"$budget - max({bound('upper')})", "left")],
            unit="seconds",
            size=Size(3, 4),
            mappings=looks.bad_below_zero(),
            decimals=1,
        ),
        panels.stat(
            "coverage",
            "Coverage",
            "The share of the range in which the least observed target and path was observed by the source that saw "
            "it best. Good: above 99 %; below that no verdict is certain.",
            [Query(f"min(max by (cluster, target, path) ({covered()}))", "coverage")],
            unit="ratio",
            size=Size(3, 4),
            threshold="OvnwatchNotObserving",
            decimals=1,
        ),
        panels.stat(
            "phase",
            "Phase",
            "The phase that the cluster is in now, and the nodes whose turn it is. Good: what is planned for this "
            "hour. No data: no phase, or nobody tells one.",
            [
                Query(f"max by (cluster, kind, phase) (ovnwatch_migration_phase{CLUSTER})", "{{kind}}: {{phase}}"),
                Query(f"max by (cluster, k8s_node, phase) (ovnwatch_node_phase{NODE})", "{{k8s_node}}: {{phase}}"),
            ],
            unit="state",
            size=Size(5, 4),
            mappings=looks.words(looks.IS_SO),
            names=True,
        ),
    ],
)

WHERE = Row(
    "where",
    "What, since when, and who is worst off?",
    [
        panels.status_history(
            "targets",
            "State of each target",
            "The worst state of any stream to a target, whoever looks, in sixty cells over the range. Interrupted: an "
            "outage that ended within two minutes before. Good: up all along. Empty: no data, or no rules.",
            Query(state_of_targets(), "{{target}}"),
            size=Size(14, 8),
        ),
        panels.table(
            "alerts",
            "Alerts firing",
            "What fires now, and for how many things. Good: none.",
            [Column("Firing", f"count by (cluster, alertname, severity) ({FIRING})")],
            rows={"alertname": "Alert", "severity": "Severity"},
            size=Size(10, 8),
            sort="Firing",
        ),
        panels.table(
            "worst-streams",
            "Worst streams",
            "The ten streams that lost most in the range: about, and at most. Good: none is listed.",
            [
                Column(
                    "About",
                    worst(measured("ovnwatch_outage_seconds_total")),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
            ],
            rows=PAIR,
            size=Size(14, 8),
            sort="About",
            links={
                "Source": [
                    parts.Link(
                        "This stream's ends", boards.address("ovnwatch-connectivity", source="Source", target="Target")
                    )
                ]
            },
        ),
        panels.table(
            "worst-nodes",
            "Worst nodes",
            "What the worst stream to each node lost in the range, the ten with most, and how many of the node's "
            "daemons of OVS and OVN were started in it. Good: none is listed.",
            [
                Column(
                    "Lost",
                    worst(to_node(measured("ovnwatch_outage_seconds_total"))),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
                Column(
                    "Restarts",
                    worst(nodes.named(nodes.started(DAEMONS))),
                ),
            ],
            rows={"k8s_node": "Node"},
            size=Size(10, 8),
            sort="Lost",
            links={
                "Node": [
                    parts.Link("OVS of this node", boards.address("ovnwatch-ovs", k8s_node="Node")),
                    parts.Link("Network of this node", boards.address("ovnwatch-network", k8s_node="Node")),
                ]
            },
        ),
    ],
)

ROWS = (VERDICT, WHERE)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / Overview",
        "Is it broken, what did it cost of the budget, which phase is it, and who is worst off?",
        ROWS,
        CHOICES,
        settings=(BUDGET,),
        marks=marks.OF_THE_CLUSTER,
    )
