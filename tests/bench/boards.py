"""What the boards' queries cost a Prometheus that holds six hours of a large site, in seconds of its CPU time.

Only part of the site is made. What a query took beyond what any takes is multiplied to the whole: it is by series read.
Blocks are made with promtool; whatever the boards read is in them, of each node and each stream what they have.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import NamedTuple

from exporters import catalog
from exporters.catalog import Catalog
from grafana import asking
from grafana.asking import Asked

from .measure import FULL, ROOT, BenchError, Effort, Result, cpu_seconds, result, running

SITE = 500  # nodes
PART, SHORT_PART = 25, 3  # of them that are made
NEIGHBOURS = 10  # targets of each
ONE = "n0"  # the source that is looked at by itself
HOURS, SHORT_HOURS = 6.0, 0.5
SCRAPE, STEP = 30, 30  # seconds; no slower scrapes than the boards are made for
TOLD = {
    ":gained": 60,
    ":read": 60,
    ":whole": 60,
    ":gone": 60,
}  # seconds between what rules record in turns of their own
# Of what is recorded only while something is lost there are so many minutes of each stream, and all lose at once.
LOSING = re.compile(r"^(source|k8s_node:).*:(gained|gone)$")
LOSING_MINUTES = 20
GONE = ":gone"  # what is gone is not told of any more: the streams of one source are, of as many as are made
GOAL = 1.0  # seconds of Prometheus' CPU
READY_SECONDS = 60.0
# How many of something a node has, and what matchers want to find among them.
COUNTS = {"link": 30, "interface": 25, "event": 40, "collector": 21, "part": 30, "stopwatch": 12, "item": 8, "kind": 5}
COUNTS |= {"chassis": 50, "table": 20, "reason": 5, "external": 100, "cause": 5, "bond": 1, "core": 4, "cache": 3}
NAMED: dict[str, Sequence[str]] = {
    "daemon": ("ovs-vswitchd", "ovsdb-server", "ovn-controller", "ovn-northd"),
    "bridge": ("br-int", "br-ex"),
    "event": ("stream_open", "rconn_overflow", "rconn_discarded", "upcall_flow_limit_hit", "upcall_flow_limit_kill"),
    "stage": ("nb", "sb", "hv"),
    "run": ("recompute", "compute", "cancel"),
    "state": ("active", "standby"),
    "role": ("leader", "follower"),
    "family": ("4",),
    "path": ("pod",),
    "protocol": ("http", "tcp", "ws"),
    "alertstate": ("firing",),
    "alertname": ("OvnwatchStreamDown",),
}
# Of each node, where a node has fewer of something than others have.
FEWER = {
    "ovnwatch_egressip_info": {"external": 2, "egressip": 2},
    "k8s_node_link:ovnwatch_node_link_receive_bytes:rate2m": {"link": 10},
    "k8s_node_link:ovnwatch_node_link_transmit_bytes:rate2m": {"link": 10},
}
YARDSTICK = "count(count_over_time(ovnwatch_outage_seconds_total[{seconds:.0f}s]))"
# What of OVN each node tells; the rest is told by the few that watch its databases.
EVERYWHERE = re.compile("ovnwatch_ovn_(controller|connected|engine|stopwatch|tunnel)")
WATCHERS = 3
OF_BASTIONS = "ovnwatch_peer_heard"  # what one tells of each node
Labels = Mapping[str, str]


class Cost(NamedTuple):
    """What a query cost: seconds of CPU, seconds by Prometheus' own clock, and the samples that it looked at."""

    cpu: float
    clock: float
    samples: int


def boards(effort: Effort) -> list[Result]:
    """One line: the most expensive query of all boards, in seconds of the whole site."""
    full = effort == FULL
    nodes, hours = (PART, HOURS) if full else (SHORT_PART, SHORT_HOURS)
    with tempfile.TemporaryDirectory(prefix="owbench") as name:
        folder = Path(name)
        end = time.time() // SCRAPE * SCRAPE - 600
        blocks(folder, nodes, end - hours * 3600, end)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = int(free.getsockname()[1])
        (folder / "prometheus.yaml").write_text("{}", encoding="utf-8")
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", "--storage.tsdb.retention.time=1y"]
        with running(command, {}) as prometheus:
            ready(port)
            scan = scan_nanoseconds(port, prometheus.pid, end, hours * 3600)
            nothing = Asked("", "", "vector(1)", instant=True, step=STEP)
            answering = median(each.cpu for each in costs_of(port, prometheus.pid, nothing, end, 0.0, 9))
            costs, clocked = {}, {}
            for board, query in queries(hours * 3600):
                spent = costs_of(port, prometheus.pid, query, end, hours * 3600, min(effort.repeats, 3))
                times, label = scale(query, nodes), f"{board}: {query.name}"
                costs[label] = [times * (each.cpu - answering) + answering for each in spent]
                clocked[label] = times * median(each.clock for each in spent)
    dear = sorted(costs, key=lambda each: -median(costs[each]))
    over = [each for each in dear if median(costs[each]) > GOAL]
    detail = {
        "queries": len(costs),
        "over": len(over),
        "dearest": [f"{each} {median(costs[each]):.2f} s" for each in dear[: max(5, len(over))]],
        "dearest by Prometheus' own clock": f"{max(clocked.values()):.2f} s",
        "nodes": nodes,
        "counting a sample": f"{scan:.0f} ns",
    }
    name = f"boards' dearest query, {SITE} nodes, {hours:g} h: seconds"
    return [result(name, costs[dear[0]], GOAL, detail)]


def scale(query: Asked, nodes: int) -> float:
    """What a query of so many nodes is multiplied by; one of a single source's streams costs the same on any site."""
    return 1.0 if f'source=~"{ONE}"' in query.expr else SITE / nodes


def queries(seconds: float) -> Iterator[tuple[str, Asked]]:
    """Boards' names and their queries."""
    for file in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        board = json.loads(file.read_text(encoding="utf-8"))
        for each in asking.asked(board, seconds, STEP, {"before": "1h", "observer": ONE}):
            yield file.stem, each


# --- asking


def ready(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise BenchError("Prometheus is not ready")


def costs_of(port: int, pid: int, query: Asked, end: float, seconds: float, repeats: int) -> list[Cost]:
    """What Prometheus spent on it, each time. Raises BenchError for a query that fails."""
    times = {"time": end} if query.instant else {"start": end - seconds, "end": end, "step": query.step}
    return [_asked(port, pid, query.expr, times) for _ in range(repeats)]


def scan_nanoseconds(port: int, pid: int, end: float, seconds: float) -> float:
    """CPU that Prometheus spends on a sample that it only counts: how fast it is on this machine, now."""
    looked = [_asked(port, pid, YARDSTICK.format(seconds=seconds), {"time": end}) for _ in range(5)]
    return median(each.cpu * 1e9 / each.samples for each in looked)


def _asked(port: int, pid: int, expr: str, times: Mapping[str, float]) -> Cost:
    body = urllib.parse.urlencode({"query": expr, **times, "stats": "1"}).encode()
    address = f"http://127.0.0.1:{port}/api/v1/query{'_range' if 'step' in times else ''}"
    before = cpu_seconds(pid)
    try:
        with urllib.request.urlopen(address, body, timeout=120) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise BenchError(f"{expr}: {error.read(300)!r}") from None
    spent = cpu_seconds(pid) - before
    stats = json.loads(text)["data"]["stats"]
    return Cost(spent, stats["timings"]["execTotalTime"], stats["samples"]["totalQueryableSamples"])


# --- what there is


def blocks(folder: Path, nodes: int, begin: float, end: float) -> None:
    """Write the data and let promtool make blocks of it. Raises BenchError."""
    text = folder / "data.om"
    with text.open("w", encoding="ascii") as file:
        for lines in families(catalog.load(), nodes, begin, end):
            file.write(lines)
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    text.unlink()
    if done.returncode:
        raise BenchError(f"promtool: {done.stderr[-300:]}")


def families(known: Catalog, nodes: int, begin: float, end: float) -> Iterator[str]:
    """The lines of all that boards read, a metric at a time."""
    names: set[str] = set()
    for _, query in queries(3600):
        names |= catalog.metrics_in(query.expr)
    for name in sorted(names):
        every = next((every for ending, every in TOLD.items() if name.endswith(ending)), SCRAPE)
        first = end - min(LOSING_MINUTES * 60, end - begin) if LOSING.match(name) else begin
        times = [f"{first + every * n:.0f}" for n in range(int((end - first) / every) + 1)]
        rising, flat = [f" {n * 0.1:.1f} {each}\n" for n, each in enumerate(times)], [f" 1 {each}\n" for each in times]
        metric = known.metrics.get(name.removesuffix("_bucket"))
        counts = metric is not None and metric.kind in ("counter", "histogram")
        for labels in series(known, name, nodes):
            if name.endswith(GONE) and labels["source"] != ONE:
                continue
            head = name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"
            yield head + head.join(rising if counts else flat)


def series(known: Catalog, name: str, nodes: int) -> Iterator[Labels]:
    """The series of a metric on so many nodes, as its labels tell what it is about."""
    metric = known.metrics.get(name.removesuffix("_bucket"))
    recorded = known.recorded.get(name)
    labels = metric.labels if metric else recorded.labels if recorded else ("alertname", "alertstate", "target")
    central = name.startswith("ovnwatch_ovn_") and not EVERYWHERE.match(name)
    of_all = recorded is not None and not {"k8s_node", "source", "target", "target_node"} & set(labels)
    for node in range(1 if of_all else min(WATCHERS, nodes) if central else nodes):
        job = "ovnwatch-peer" if {"source", "target"} & set(labels) else "ovnwatch-node"
        scrape = {} if recorded and not name.endswith(":read") else {"job": job, "instance": f"n{node}"}
        own = {"source": f"n{node}", "k8s_node": f"n{node}"}
        if name.startswith(OF_BASTIONS):
            made = [{"source": "bastion", "target": f"n{node}"}]
        elif "target" in labels or "source" in labels:
            targets = range(1, 1 + min(NEIGHBOURS, nodes - 1)) if "target" in labels and "source" in labels else [0]
            ends = [{**own, "target": f"n{(node + each) % nodes}", "target_node": f"n{(node + each) % nodes}"}
                    for each in targets]  # fmt: skip
            ways = [{"protocol": each} for each in NAMED["protocol"]] if "protocol" in labels else [{}]
            made = [one | way for one in ends for way in ways]
        else:
            made = [own]
        counted = metric or known.metrics.get(name.partition(":")[2].partition("_bucket:")[0])
        buckets = [{"le": f"{each}"} for each in (*counted.buckets, "+Inf")] if counted and counted.buckets else [{}]
        rest = [label for label in labels if not made or label not in made[0]]
        for one in made:
            for more in about(rest, COUNTS | FEWER.get(name, {})):
                for bucket in buckets:
                    yield {**scrape, **{each: one[each] for each in labels if each in one}, **more, **bucket}


def about(labels: Sequence[str], counts: Mapping[str, int]) -> list[Labels]:
    """Values of what a series is about beside its node or stream; several labels go along with each other."""
    if not labels:
        return [{}]
    columns = [[*NAMED.get(each, ())] or [f"{each}-0"] for each in labels]
    most = max(counts.get(each, len(column)) for each, column in zip(labels, columns, strict=True))
    columns = [
        column + [f"{label}-{n}" for n in range(len(column), most)] if label in counts else column
        for label, column in zip(labels, columns, strict=True)
    ]
    rows = zip_longest(*columns)
    return [
        {
            label: value if value is not None else column[0]
            for label, value, column in zip(labels, row, columns, strict=True)
        }
        for row in rows
    ]
