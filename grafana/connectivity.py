"""The board "Connectivity": which paths carry traffic, which did not and for how long, and how well that is known."""

from grafana import boards, looks, marks, numbers, panels, parts
from grafana.boards import Choice, Row
from grafana.grid import Size
from grafana.parts import Column, Query
from grafana.queries import (
    ANY,
    FAILURES,
    KNOWN,
    OBSERVED,
    READ,
    ROUND_TRIPS,
    STREAM,
    about,
    all_of,
    covered,
    measured,
    now,
    of_one_source,
    round_trip,
    share,
    state_by_path,
    state_now,
    state_over_time,
    worst,
)

UID = "ovnwatch-connectivity"
CHOICES = (
    Choice("source", "Source", "ovnwatch_stream_observed"),
    Choice("target", "Target", "ovnwatch_stream_observed"),
    Choice("path", "Path", "ovnwatch_stream_observed"),
    Choice("protocol", "Protocol", "ovnwatch_stream_observed"),
    Choice("source", "One by one", "ovnwatch_stream_observed", one="observer"),
)
WAYS = {"path": "Path", "protocol": "Protocol"}
ENDS = {"source": "Source", "target": "Target", **WAYS, "family": "IP"}
MARGIN = 300_000  # milliseconds shown before and after an outage
ONE_PAIR = parts.Link("Show only this", boards.address(UID, source="Source", target="Target"))
AT_THE_NODE = [
    parts.Link(f"{title} of that node at that minute", boards.address(uid, times=("From", "To"), k8s_node="Node"))
    for title, uid in (("OVS", "ovnwatch-ovs"), ("Network", "ovnwatch-network"), ("OVN", "ovnwatch-ovn"))
]
LAST_START, LAST_END = (f"ovnwatch_last_outage_{each}_timestamp_seconds" for each in ("start", "end"))
LOST = about()
BREAKS = measured("ovnwatch_connection_breaks")
TARGET = "{{target}}"
FROZEN = measured("ovnwatch_peer_frozen_seconds")
WAYS_LEVEL = "cluster, target, path, protocol"


def of_the_last(expr: str) -> str:
    """Of streams that had an outage."""
    return f"{expr} and on ({STREAM}) {now(LAST_START)}"


VERDICT = Row(
    "verdict",
    "Verdict for the range",
    [
        numbers.down_now(" It says no data when none is observed."),
        numbers.streams_by_state(
            "Unknown: the target has not answered yet. Not observed: the exporter did not look. No data: the exporter "
            "was there in the range and is gone, or cannot be scraped, for a minute or longer. None of these three is "
            "health, and none is an outage."
        ),
        numbers.outage_seconds(
            ". Streams are not added, since many see the same outage. An outage that is still open counts as it "
            "stands; one that began before the range and ended in it counts whole in at least and at most.",
            Size(6, 4),
        ),
        panels.stat(
            "frozen-peers",
            "Frozen peers",
            "Targets that accepted connections and did not answer at some time in the range, and for how long the "
            "worst of them did. Good: 0. The path worked: look at the peer's process and node.",
            [
                Query(all_of(f"max by (cluster, target) ({FROZEN}) > bool 0"), "peers", unit="count"),
                Query(worst(FROZEN), "worst"),
            ],
            unit="seconds",
            size=Size(3, 4),
            threshold="OvnwatchPeerFrozen",
            overrides=[panels.series("/^peers$/", mappings=looks.bad_above_zero(looks.ORANGE))],
        ),
        panels.stat(
            "breaks",
            "Connections broken",
            "Established connections that were reset or stalled in the range while fresh ones worked, all streams "
            "together. Good: 0. Long-lived connections of applications broke alike.",
            [Query(all_of(BREAKS), "breaks")],
            unit="count",
            size=Size(3, 4),
            threshold="OvnwatchConnectionsBreaking",
            decimals=0,
        ),
        panels.stat(
            "coverage",
            "Coverage",
            "The share of the range in which the least observed target and path was observed by the source that saw "
            "it best, whichever source is chosen above. Good: above 99 %; below that no verdict on the range is "
            "certain. It is low when the exporters, or the rules, are younger than the range. Targets that never "
            "answered are left out: they are unknown.",
            [Query(f"min({covered('path')})", "coverage")],
            unit="ratio",
            size=Size(3, 4),
            threshold="OvnwatchNotObserving",
            decimals=1,
        ),
    ],
)

STATES = Row(
    "states",
    "Where and when",
    [
        panels.matrix(
            "matrix",
            "State now",
            "The worst state of any source's stream to a target, by path and protocol. Good: up everywhere. A whole "
            "row points at the target, a whole column at the path; choose a source above to see through its eyes. A "
            "dash: nobody probes it.",
            f'label_join({state_now(WAYS_LEVEL)}, "way", " / ", "path", "protocol")',
            row=("target", "Target"),
            column="way",
            size=Size(10, 9),
        ),
        panels.status_history(
            "targets",
            "State of each target",
            "The worst state of any source's stream to a target, in sixty cells over the range. Interrupted: an outage "
            "that ended within two minutes before. Good: up all along. Empty: no data, or no rules. The source chosen "
            "above has no effect.",
            Query(state_by_path(), "{{target}}"),
            size=Size(14, 9),
        ),
        panels.state_timeline(
            "streams",
            "State of each stream",
            "Every stream of the one source chosen above as One by one, as sharp as the scrapes are. Frozen or broken: "
            "the path worked, but the peer did not answer or an established connection was lost. Good: up all along. "
            "Empty: no data.",
            Query(of_one_source(state_over_time()), "{{source}} to {{target}}, {{path}} {{protocol}} IPv{{family}}"),
            size=Size(24, 10),
        ),
    ],
)

OUTAGES = Row(
    "outages",
    "Outages",
    [
        panels.timeseries(
            "outages-by-target",
            "Lost to outages, by target",
            "The share of the last two minutes in which the worst stream to each target was out. Good: no line above "
            "0. Bounds and sums are in the tables. The source chosen above has no effect.",
            [Query(share("outage", "target"), TARGET)],
            unit="ratio",
            size=Size(12, 8),
        ),
        panels.timeseries(
            "outages-by-path",
            "Lost to outages, by path",
            "The same of the worst stream of each path and protocol. Good: no line above 0. When one path lost and the "
            "others did not, that path is to blame, and not the target.",
            [Query(share("outage", "path, protocol"), "{{path}} {{protocol}}")],
            unit="ratio",
            size=Size(12, 8),
        ),
        panels.table(
            "last-outages",
            "Last outages",
            "The last outage of each stream, at the end of the range, the latest first; streams that had none are not "
            "listed. At least and at most are its bounds, about is right on average. Good: nothing since the work "
            "began. The exporters' /history lists all of them, with causes.",
            [
                Column("Start", f"{now(LAST_START)} * 1000", "timestamp"),
                Column(
                    "End",
                    f"({now(LAST_END)} unless {now('ovnwatch_outage_open')} == 1) * 1000",
                    "timestamp",
                    missing="still open",
                ),
                Column("At least", now("ovnwatch_last_outage_lower_seconds"), "seconds", decimals=2),
                Column(
                    "About",
                    now("ovnwatch_last_outage_estimate_seconds"),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
                Column("At most", now("ovnwatch_last_outage_upper_seconds"), "seconds", decimals=2),
                Column("Info", of_the_last(f"max by ({STREAM}, target_node) (ovnwatch_stream_info{ANY})"), hidden=True),
                Column("From", f"{now(LAST_START)} * 1000 - {MARGIN}", "none", hidden=True),
                Column(
                    "To",
                    f"({now(LAST_END)} > {now(LAST_START)} or {now(LAST_START)}) * 1000 + {MARGIN}",
                    "none",
                    hidden=True,
                ),
            ],
            rows=ENDS | {"target_node": "Node"},
            size=Size(24, 8),
            sort="Start",
            links={"Source": [ONE_PAIR], "Node": AT_THE_NODE},
        ),
    ],
)


def by_way(function: str, expr: str) -> str:
    return f"{function} by (cluster, path, protocol) ({expr})"


def or_none(expr: str, otherwise: int = 0) -> str:
    """What the streams of a way had; `otherwise` where none had anything, somebody looks, and rules record it."""
    return f"{expr} or {by_way('max', KNOWN)} * 0 + {otherwise} and on () {READ}"


def least_available() -> str:
    """Of the time in which a target was observed by a way, the share that its worst stream did not lose."""
    return by_way("min", f"1 - max by ({WAYS_LEVEL}) ({LOST}) / sum_over_time({OBSERVED}[$__range])")


PATHS = Row(
    "paths",
    "Paths, latency and causes",
    [
        panels.table(
            "path-comparison",
            "Paths compared",
            "The streams of each path and protocol over the range, the path that lost most first. Good: nothing lost, "
            "all of the time observed. Availability is that of the worst stream, of the time in which it was "
            "observed. Slow: streams whose usual round trip is too long for slow and lost answers to be told apart.",
            [
                Column("Streams", by_way("count", now("ovnwatch_stream_observed"))),
                Column("Down now", by_way("sum", now("ovnwatch_outage_open"))),
                Column(
                    "Outage seconds, worst",
                    or_none(by_way("max", LOST)),
                    "seconds",
                    threshold="OvnwatchOutageEnded",
                    decimals=2,
                ),
                Column(
                    "Availability, worst",
                    or_none(least_available(), 1),
                    "ratio",
                    decimals=3,
                ),
                Column("Outages, all", or_none(by_way("sum", measured("ovnwatch_outages"))), decimals=0),
                Column(
                    "Breaks, all",
                    or_none(by_way("sum", BREAKS)),
                    threshold="OvnwatchConnectionsBreaking",
                    decimals=0,
                ),
                Column(
                    "Frozen, worst",
                    or_none(by_way("max", FROZEN)),
                    "seconds",
                    threshold="OvnwatchPeerFrozen",
                    decimals=2,
                ),
                Column(
                    "Observed, least",
                    by_way("min", covered("path", "protocol")),
                    "ratio",
                    threshold="OvnwatchNotObserving",
                    decimals=1,
                ),
                Column("Slow", by_way("sum", now("ovnwatch_path_slow"))),
            ],
            rows=WAYS,
            size=Size(24, 7),
            sort="Outage seconds, worst",
        ),
        panels.heatmap(
            "latency-heatmap",
            "Round trips",
            "How many probes a second took how long, connecting included. Good: one narrow band. What lies above 0.2 "
            "s, 1 s and 3 s was retransmitted. Probes whose first packet got no answer are not in it. Of all sources "
            "and targets, over two minutes each.",
            Query(f"sum by (le) ({ROUND_TRIPS})", "{{le}}"),
            unit="seconds",
            size=Size(8, 9),
        ),
        panels.timeseries(
            "latency",
            "Round trip, p50 and p99",
            "Half of the probes took no longer than p50, all but one in a hundred no longer than p99. Good: flat, and "
            "alike for all paths. No line: no probe was answered. Of all sources and targets, over two minutes each.",
            [
                Query(round_trip(part, "cluster, path, protocol"), f"{{{{path}}}} {{{{protocol}}}} {name}")
                for part, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit="seconds",
            size=Size(8, 9),
        ),
        panels.timeseries(
            "causes",
            "Failed probes by cause",
            "Probes that failed, each second, by what was seen. Good: none. Refused: nobody listens. Connect timeout "
            "and unreachable: the network. Response timeout: lost or late answers. Of all sources and targets, over "
            "two minutes each.",
            [
                Query(f"sum by (cluster, cause) ({FAILURES})", "{{cause}}"),
            ],
            unit="per second",
            size=Size(8, 9),
            style="stacked",
        ),
    ],
)


BROKEN = Row(
    "broken",
    "Breaks, frozen peers and the mesh",
    [
        panels.timeseries(
            "breaks-by-target",
            "Connections broken, by target",
            "The share of the last two minutes in which established connections to each target carried nothing while "
            "fresh ones worked, of the worst stream. Good: no line above 0. The source chosen above has no effect.",
            [Query(share("connection_break", "target"), TARGET)],
            unit="ratio",
            size=Size(8, 9),
        ),
        panels.timeseries(
            "frozen-by-target",
            "Frozen peers, by target",
            "The share of the last two minutes in which each target accepted connections and did not answer, of the "
            "worst stream. Good: no line above 0. Look at the peer's process and node: the path worked.",
            [Query(share("peer_frozen", "target"), TARGET)],
            unit="ratio",
            size=Size(8, 9),
        ),
        panels.matrix(
            "mesh",
            "Mesh",
            "The worst state of all streams from each source (a row) to each target (a column) now. Good: up wherever "
            "somebody looks. A whole row points at the source, a whole column at the target. A dash: left to others.",
            state_now("cluster, source, target"),
            row=("source", "Source"),
            column="target",
            size=Size(8, 9),
        ),
    ],
    collapsed=True,
)

WORDS = Row(
    "words",
    "What the words mean",
    [
        panels.text(
            "words-text",
            "Words",
            "The words of this board.",
            "**Stream**: one source probing one target by one path, protocol and IP version.\n\n"
            "**Outage**: a time in which a path did not carry a stream's probes. At least and at most are what it "
            "cannot have been shorter or longer than.\n\n"
            "**Frozen**: the peer accepted connections and did not answer. **Broken**: an established connection was "
            "lost while fresh ones worked. Neither is an outage of the path.\n\n"
            "**Unknown**: not answered yet. **Not observed**: the exporter did not look. **No data**: Prometheus has "
            "nothing of it. None of these is health, and none is an outage.",
            size=Size(24, 7),
        )
    ],
    collapsed=True,
)

ROWS = (VERDICT, STATES, OUTAGES, PATHS, BROKEN, WORDS)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / Connectivity",
        "Which paths between peers and targets carry traffic, which did not, when, for how long and by how much that "
        "may be wrong.",
        ROWS,
        CHOICES,
        marks=marks.OF_THE_CLUSTER,
    )
