"""The board "ovnwatch itself": do the exporters run, see all they should, keep what they see, and what do they cost?"""

from grafana import boards, looks, marks, nodes, panels, parts
from grafana.boards import Choice, Row
from grafana.grid import Size
from grafana.nodes import named, of, top
from grafana.parts import Column, Query
from grafana.queries import SOURCE

UID = "ovnwatch-itself"
CHOICES = (
    Choice("source", "Source", "ovnwatch_build_info"),
    *nodes.CHOICES,
)
OFFSETS = f"ovnwatch_clock_offset_seconds{SOURCE}"
CLUSTER = '{cluster=~"$cluster"}'
BY_SCRAPE = "cluster, job, instance"


def ours(metric: str) -> str:
    """What Prometheus says of the scrapes of exporters that are ours, or were within the range."""
    known = f"group by (cluster, job, instance) (last_over_time(ovnwatch_build_info{SOURCE}[$__range]))"
    return f"{metric}{CLUSTER} and on ({BY_SCRAPE}) {known}"


def by_source(metric: str) -> str:
    return f"sum by (cluster, source) (rate({metric}{SOURCE}[$__rate_interval]))"


def by_reason(metric: str) -> str:
    """What a counter gains each second, by source and reason, the ten with most; only they are brought together."""
    return f"sum by (cluster, source, reason) ({top(f'rate({metric}{SOURCE}[$__rate_interval])')})"


def gained(metric: str) -> str:
    return f"sum(increase({metric}{SOURCE}[$__range]))"


# Those of streams have more labels than this board has variables.

WELL = Row(
    "well",
    "Is it well?",
    [
        panels.stat(
            "exporters-down",
            "Exporters not scraped",
            "Exporters that Prometheus scraped within the range and cannot scrape now. Good: 0. What they measure is "
            "not known meanwhile, and is neither health nor an outage.",
            [Query(f"sum(({ours('up')}) == bool 0)", "down")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.VERMILION),
        ),
        panels.stat(
            "share-now",
            "Least observed, last 15 minutes",
            "The share of the time in which the least observed stream of any source was observed. Good: above 99 %.",
            [Query(f"min(ovnwatch_coverage_ratio{SOURCE})", "observed")],
            unit="ratio",
            size=Size(4, 4),
            threshold="OvnwatchNotObserving",
            decimals=1,
        ),
        panels.stat(
            "gap-seconds",
            "Time not observed, worst source",
            "Gaps in the range: time of which nothing is known. Good: 0 s, or the restarts that the work needed.",
            [
                Query(
                    "max(sum by (cluster, source) "
                    f"(increase(ovnwatch_observation_gap_seconds_total{SOURCE}[$__range])))"
                )
            ],
            unit="seconds",
            size=Size(4, 4),
            decimals=1,
        ),
        panels.stat(
            "journal-errors",
            "Journal errors",
            "Transactions in the range that a journal's file did not take. Good: 0. More: events wait in memory, and "
            "a crash would lose them; see the disk.",
            [Query(gained("ovnwatch_journal_errors_total"), "errors")],
            unit="count",
            size=Size(4, 4),
            threshold="OvnwatchJournalFailing",
            decimals=0,
        ),
        panels.stat(
            "collectors-failing",
            "Collectors failing",
            "Collectors of node exporters that could not read all they should in the last scrape. Good: 0. What they "
            "could not read is absent, not 0.",
            [Query(f"sum({named(of('ovnwatch_node_collector_success'), 'collector', function='min')} == bool 0)")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
        panels.stat(
            "refused",
            "Configurations refused",
            "Exporters whose last new configuration was refused, and that go on with the one before. Good: 0.",
            [Query(f"sum(ovnwatch_config_last_reload_successful{SOURCE} == bool 0)", "refused")],
            unit="count",
            size=Size(4, 4),
            mappings=looks.bad_above_zero(looks.ORANGE),
        ),
    ],
)

OBSERVING = Row(
    "ourselves",
    "Do they see all they should?",
    [
        panels.timeseries(
            "observed-share",
            "Share of the time observed",
            "Of each source's least observed stream that was ever answered, over two minutes. Good: 100 %. Below the "
            "line outages may have been missed, and the alert fires.",
            [Query(f"min by (cluster, source) (source:ovnwatch_observed_seconds:rate2m{SOURCE})", "{{source}}")],
            unit="ratio",
            size=Size(8, 8),
            threshold="OvnwatchNotObserving",
            calcs=("min",),
        ),
        panels.timeseries(
            "schedule-lag",
            "Probes sent late, p99",
            "How much later than planned all but one in a hundred probes were sent, over two minutes. Good: a few "
            "milliseconds. More: the exporter gets too little CPU.",
            [Query(f"source:ovnwatch_schedule_lag_seconds:p99{SOURCE}", "{{source}}")],
            unit="seconds",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "stalls",
            "Share of the time stalled",
            "The time in which the exporter itself did not run. Good: 0. Outcomes in it are judged later or not at "
            "all.",
            [Query(by_source("ovnwatch_stall_seconds_total"), "{{source}}")],
            unit="ratio",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "gaps",
            "Share of the time not observed",
            "Gaps by source and reason, the ten greatest: time of which nothing is known, neither outage nor health. "
            "Good: 0.",
            [Query(by_reason("ovnwatch_observation_gap_seconds_total"), "{{source}} {{reason}}")],
            unit="ratio",
            size=Size(8, 8),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "skipped",
            "Probes skipped",
            "Grid points at which no probe was sent, each second, by source and reason, the ten most. Good: 0. They "
            "widen bounds and lower coverage.",
            [Query(by_reason("ovnwatch_probes_skipped_total"), "{{source}} {{reason}}")],
            unit="per second",
            size=Size(8, 8),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "not-judged",
            "Probes not judged",
            "Probes that failed through our own fault, each second over two minutes, and so say nothing of the path, "
            "by source and reason, the ten most. Good: 0.",
            [Query(top(f"source_reason:ovnwatch_probe_unknown:rate2m{SOURCE}"), "{{source}} {{reason}}")],
            unit="per second",
            size=Size(8, 8),
        ),
    ],
)

COST = Row(
    "cost",
    "What they cost",
    [
        panels.timeseries(
            "scrape-seconds",
            "Time of a scrape, the ten longest",
            "How long Prometheus waited for an exporter. Good: below a second, and far below the scrape's time-out.",
            [Query(top(ours("scrape_duration_seconds")), "{{job}} {{instance}}")],
            unit="seconds",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "scrape-samples",
            "Samples a scrape, the ten biggest",
            "What an exporter adds to Prometheus each time. Good: flat; it grows with streams, links and interfaces.",
            [Query(top(ours("scrape_samples_scraped")), "{{job}} {{instance}}")],
            unit="count",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "collectors",
            "Time of collectors, the ten longest",
            "How long each collector of a node exporter took, on the node where it took longest. Good: below 0.1 s. "
            "The choices above have no effect.",
            [Query(top(f"collector:ovnwatch_node_collector_duration_seconds:max{CLUSTER}"), "{{collector}}")],
            unit="seconds",
            size=Size(8, 8),
        ),
    ],
)

PEERS = Row(
    "peers",
    "Peers and clocks",
    [
        panels.state_timeline(
            "heard",
            "Peers heard by the bastion",
            "Whether a peer tells the bastion what it measures. Good: yes all along. No says nothing of its health: "
            "no way to it works, or it is not there.",
            Query(f"max by (cluster, source, target) (ovnwatch_peer_heard{SOURCE})", "{{target}} by {{source}}"),
            size=Size(8, 8),
            mappings=looks.words(looks.YES_NO),
            points=parts.POINTS,
        ),
        panels.table(
            "clocks",
            "Clocks of peers, the ten farthest off",
            "How far a peer's clock is from its prober's now, in either direction. Good: below 0.1 s. Where it is "
            "more, times of different exporters do not fit together; lengths of outages are right all the same.",
            [Column("Off", top(f"max by (cluster, source, target) (abs({OFFSETS}))"), "seconds")],
            rows={"target": "Peer", "source": "From"},
            size=Size(8, 8),
            sort="Off",
        ),
        panels.timeseries(
            "look-failures",
            "Questions to peers that failed",
            "Each second, by reason, the ten most: the bastion asks peers for what they measured, by one way or "
            "another. Good: 0.",
            [Query(by_reason("ovnwatch_peer_look_failures_total"), "{{source}} {{reason}}")],
            unit="per second",
            size=Size(8, 8),
            points=nodes.POINTS,
        ),
        panels.timeseries(
            "left-out",
            "Peers left to others",
            "Of large meshes each peer probes some; how many it leaves to others. Good: flat, 0 up to forty peers.",
            [Query(f"max by (cluster, source) (ovnwatch_peers_not_observed{SOURCE})", "{{source}}")],
            unit="count",
            size=Size(8, 8),
        ),
        panels.timeseries(
            "throttled",
            "Stopped by a CPU quota",
            "The share of the time in which the quota of an exporter's cgroup stopped it, added up over CPUs. Good: "
            "0. More: give it a higher limit. Nothing is shown where the kernel counts no such thing.",
            [Query(by_source("ovnwatch_cpu_throttled_seconds_total"), "{{source}}")],
            unit="ratio",
            size=Size(8, 8),
        ),
        panels.table(
            "versions",
            "What runs",
            "Exporters by version and Python, those of now. Good: one version, but while an upgrade goes on.",
            [
                Column(
                    "Exporters",
                    f"count by (cluster, version, revision, pythonversion) (ovnwatch_build_info{SOURCE})",
                )
            ],
            rows={"version": "Version", "revision": "Commit", "pythonversion": "Python"},
            size=Size(8, 8),
            sort="Exporters",
        ),
    ],
    collapsed=True,
)

ROWS = (WELL, OBSERVING, COST, PEERS)


def board() -> parts.Json:
    """The board's JSON."""
    return boards.board(
        UID,
        "ovnwatch / ovnwatch itself",
        "Do the exporters run, see all they should and keep what they see, and what do they cost?",
        ROWS,
        CHOICES,
        marks=marks.OF_THE_CLUSTER,
    )
