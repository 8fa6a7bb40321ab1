"""The board "Overview": is it broken, what did it cost of the budget, which phase is it, and who is worst off?"""

from grafana import boards, looks, marks, nodes, numbers, panels, parts
from grafana.boards import Choice, Row, Setting
from grafana.grid import Size
from grafana.looks import Word
from grafana.nodes import top
from grafana.parts import Column, Query
from grafana.queries import (
    ANY,
    OPEN,
    READ,
    STATE,
    STREAM_LEVEL,
    about,
    at_most,
    at_node,
    covered,
    quiet,
    state_of_targets,
    worst,
)

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
# Those of no severity say what goes on, to others that are inhibited meanwhile.
OURS = '{cluster=~"$cluster",alertname=~"Ovnwatch.*",severity!="none"}'
FIRING = f'ALERTS{OURS.removesuffix("}")},alertstate="firing"}}'
SEVERITIES = (
    Word(3, "critical", looks.VERMILION),
    Word(2, "warning", looks.ORANGE),
    Word(1, "info", looks.BLUE),
    Word(0, "ok", looks.GREEN),
)
SEVERITY = "max by (cluster, alertname) ({})".format(
    " or ".join(
        f'{FIRING.removesuffix("}")},severity="{each.text}"}} * {each.value}' for each in SEVERITIES if each.value
    )
)
# The watchdog fires whenever rules are evaluated, so that a table without a row says that they are not.
# It is of no cluster, unless Prometheus adds one.
WATCHDOG = 'ALERTS{cluster=~"$cluster|",alertname="OvnwatchWatchdog"}'
NOTHING_FIRES = f'label_replace(max({WATCHDOG}) * 0, "alertname", "nothing fires", "", "")'
LAST_START, LAST_END = (f"ovnwatch_last_outage_{each}_timestamp_seconds{ANY}" for each in ("start", "end"))
OUT_SINCE = f'label_replace(min({LAST_START} and {OPEN} == 1), "since", "out since", "", "")'
QUIET_SINCE = f'label_replace(max({LAST_END}) unless on () max({OPEN}) == 1, "since", "quiet since", "", "")'
GATE = (
    Word(0, "go", looks.GREEN),
    Word(1, "wait", looks.ORANGE),
    Word(2, "stop", looks.VERMILION),
    Word(3, "stop", looks.VERMILION),  # and wait
)
QUIET = 60  # seconds without an outage, as `ovnwatch gate` wants them
# No word of a stream's state but up is below another.
NOT_UP = f"max({STATE}) > bool {looks.UP.code}"
GONE = f"count({STREAM_LEVEL}:ovnwatch_stream_state:gone{ANY})"
NOT_ALL_UP = f"({GONE} > bool 0 or {NOT_UP})"
JUST_ENDED = f"(time() - max({LAST_END}) < bool {QUIET} or vector(0))"
SPENT = f"(max({at_most()}) > bool $budget or vector(0))"
DAEMONS = 'daemon=~"ov[ns].*"'
PAIR = {"source": "Source", "target": "Target", "path": "Path", "protocol": "Protocol", "family": "IP"}


def none_lost(expr: str, label: str) -> str:
    """What was lost, or a row that says that nothing was; without any row nobody looks."""
    return f'{expr} or on () label_replace({quiet()}, "{label}", "none lost anything", "", "")'


VERDICT = Row(
    "verdict",
    "Is it broken, since when, and may the next node go?",
    [
        numbers.down_now(links=[parts.Link("Which, and by which path", boards.address("ovnwatch-connectivity"))]),
        numbers.streams_by_state("Unknown, not observed and no data are neither health nor an outage."),
        panels.stat(
            "since",
            "Since when",
            "When the oldest outage began that is still open; if none is, when the last one ended. Good: quiet since "
            "before the work began. No data: no outage is known.",
            [Query(f"({OUT_SINCE} or {QUIET_SINCE}) * 1000", "{{since}}")],
            unit="moment",
            size=Size(5, 4),
            overrides=[
                panels.series(f"/^{name}$/", color={"mode": "fixed", "fixedColor": colour})
                for name, colour in (("out since", looks.VERMILION), ("quiet since", looks.GREEN))
            ],
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
            size=Size(6, 4),
            mappings=looks.words(looks.IS_SO),
            names=True,
        ),
        panels.stat(
            "go",
            "May the next node go?",
            "Go: every stream is up, no outage ended within the last minute, and of the budget something is left. "
            "Wait: one of the first two does not hold, also while a stream is unknown, or was there within the "
            "last hour and has no data. Stop: the budget is spent. Good: go. No data: rules record nothing. A bastion "
            "answers the same to `ovnwatch gate`, for its own window.",
            [Query(f"clamp_max({NOT_ALL_UP} + {JUST_ENDED}, 1) + 2 * {SPENT} and on () {READ}", "go")],
            unit="state",
            size=Size(4, 4),
            mappings=looks.words(GATE),
        ),
        numbers.outage_seconds(". Streams are not added, since many see the same outage.", Size(10, 4)),
        panels.stat(
            "budget-left",
            "Budget left",
            "The budget chosen above less what the worst stream lost in the range, at most. Good: above 0 s. Reports "
            "judge a window by its own budget; this is for the range that is shown.",
            [Query(f"$budget - {worst(at_most())}", "left")],
            unit="seconds",
            size=Size(7, 4),
            mappings=looks.bad_below_zero(),
            decimals=1,
        ),
        panels.stat(
            "coverage",
            "Coverage",
            "The share of the range in which the least observed target and path was observed by the source that saw "
            "it best, whichever source is chosen above. Good: above 99 %; below that no verdict is certain. It is low "
            "while the exporters, or the rules, are younger than the range.",
            [Query(f"min({covered('path')})", "coverage")],
            unit="ratio",
            size=Size(7, 4),
            threshold="OvnwatchNotObserving",
            decimals=1,
        ),
    ],
)

WHERE = Row(
    "where",
    "What, where, and what happened there?",
    [
        panels.status_history(
            "targets",
            "State of each target",
            "The worst state of any stream to a target, whoever looks, in sixty cells over the range. Interrupted: an "
            "outage that ended within two minutes before. Good: up all along. Empty: no data, or no rules.",
            Query(state_of_targets(), "{{target}}"),
            size=Size(14, 7),
        ),
        panels.table(
            "alerts",
            "Alerts firing",
            "What fires now, since when, and for how many things; the worst first. Good: nothing fires. No data: no "
            "rules are evaluated.",
            [
                Column("Severity", f"{SEVERITY} or on () {NOTHING_FIRES}", "state", words=SEVERITIES),
                Column(
                    "Since",
                    f"min by (cluster, alertname) (ALERTS_FOR_STATE{OURS} and ignoring (alertstate) {FIRING}) * 1000",
                    "moment",
                    missing="-",
                ),
                Column("Firing", f"count by (cluster, alertname) ({FIRING})", missing="-"),
            ],
            rows={"alertname": "Alert"},
            size=Size(10, 7),
            sort="Severity",
        ),
        panels.table(
            "worst-streams",
            "Worst streams",
            "The ten streams that lost most in the range, about. Good: none lost anything. No data: nobody looks.",
            [
                Column(
                    "Lost",
                    none_lost(top(about()), "source"),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
            ],
            rows=PAIR,
            size=Size(14, 7),
            sort="Lost",
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
            "daemons of OVS and OVN were started in it. Good: none lost anything, and 0 everywhere.",
            [
                Column(
                    "Lost",
                    none_lost(top(at_node(about())), "k8s_node"),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
                Column("Restarts", top(nodes.named(nodes.started(DAEMONS)))),
            ],
            rows={"k8s_node": "Node"},
            size=Size(10, 7),
            sort="Lost",
            links={
                "Node": [
                    parts.Link("OVS of this node", boards.address("ovnwatch-ovs", k8s_node="Node")),
                    parts.Link("OVN of this node", boards.address("ovnwatch-ovn", k8s_node="Node")),
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
