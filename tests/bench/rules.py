"""What Prometheus spends on one evaluation of all rules: 500 nodes with twelve streams each, all well and all down.

A real Prometheus scrapes a page that holds their series, once without rules and once with them. What it spends more is
theirs, by the evaluations it made: on a busy machine it makes fewer.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from alerts.rules import render, rule_files
from exporters import catalog
from lab.children import hold_port, plain_environ

from .measure import BenchError, Effort, Result, cpu_seconds, result, running

NODES, FEW, STREAMS = 500, 20, 12  # few: to see that it runs
INTERVAL = 30.0  # seconds between evaluations in a cluster of that size
GOAL = 0.1  # of it
EVERY, OFTEN = 5, 1  # seconds, here; often: with few
EVALUATIONS, SERIES = "prometheus_rule_evaluations_total", "prometheus_tsdb_head_series"
DOWN = {
    "ovnwatch_outage_open": 1,
    "ovnwatch_stream_up": 0,
    "ovnwatch_stream_state": 7,
    "ovnwatch_last_outage_lower_seconds": 50,
}
NOW = "NOW"  # stands for the time at which the page is asked for
GROWING = {"ovnwatch_observed_seconds_total", "ovnwatch_last_success_timestamp_seconds"}
ABSENT = {"ovnwatch_node_phase", "ovnwatch_migration_phase"}  # nothing is under way
ITEMS = {"daemon": "ovs-vswitchd", "bridge": "br-int", "datapath": "system@ovs-system"}


def page(nodes: int, *, down: bool) -> bytes:
    """What all exporters of such a cluster say that rules ask for, where nothing else is wrong."""
    known = catalog.load()
    thresholds, recorded = [*known.thresholds.values()], [*known.recorded.values()]
    queries = [*(each.query for each in thresholds), *(each.query for each in recorded)]
    asked = set().union(*map(catalog.metrics_in, queries)) - ABSENT
    # What should not be below something is 1 where it is well, all else is 0.
    low = [each.query for each in thresholds if each.compare.startswith("<")]
    low += [each.query for each in recorded if each.name in set().union(*map(catalog.metrics_in, low))]
    good = set().union(*map(catalog.metrics_in, low)) | {"ovnwatch_stream_info", "ovnwatch_ovn_snat_info"}
    lines = []
    for name in sorted(asked & known.metrics.keys()):
        value = str(DOWN[name] if down and name in DOWN else int(name in good))
        value = NOW if name in GROWING else value
        lines += [
            f'{name}{{instance="node-{node}:8083",{labels}}} {value}\n'
            for node in range(nodes)
            for labels in _series(known.metrics[name].labels, node, nodes)
        ]
    return "".join(lines).encode()


def _series(names: tuple[str, ...], node: int, nodes: int) -> Iterator[str]:
    """The labels of each series that a node has of a metric."""
    if "family" not in names:
        yield ",".join(f'{name}="{ITEMS.get(name, f"node-{node}")}"' for name in names)
        return
    for stream in range(STREAMS):
        own = {"source": f"node-{node}", "target": f"node-{(node + stream // 3 + 1) % nodes}", "path": "pod"}
        own |= {"protocol": ("http", "tcp", "ws")[stream % 3], "family": "4"}
        yield ",".join(f'{name}="{own.get(name, "")}"' for name in names)


@contextmanager
def served(body: bytes) -> Iterator[int]:
    """A page of metrics; its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = body.replace(NOW.encode(), str(time.time()).encode())
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(now)))
            self.end_headers()
            with suppress(ConnectionError):  # Prometheus ended meanwhile, or waits no longer
                self.wfile.write(now)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def quicker(folder: Path, every: int) -> str:
    """Write all rules so that what has turns of its own keeps step with the rest; the files' pattern."""
    for name, document in rule_files(catalog.load()).items():
        for group in document["groups"]:
            if "interval" in group:
                group["interval"] = f"{catalog.seconds(group['interval']) * every / INTERVAL:g}s"
        (folder / name).write_text(render(document), encoding="utf-8")
    return str(folder / "*.yaml")


def spent(target: int, every: int, seconds: float, files: str) -> tuple[float, float]:
    """CPU seconds a second of a Prometheus that scrapes the page and evaluates `files`; its evaluations a second."""
    with tempfile.TemporaryDirectory(prefix="ow") as name, closing(hold_port()) as holder:
        folder, port = Path(name), int(holder.getsockname()[1])
        address = [{"targets": [f"127.0.0.1:{target}"]}]
        scrape = {"job_name": "bench", "honor_labels": True, "static_configs": address}
        times = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{every}s")
        config = {"global": times, "rule_files": [files], "scrape_configs": [scrape]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        listen = f"--web.listen-address=127.0.0.1:{port}"
        with running([*command, listen, "--log.level=error"], plain_environ((), {})) as process:
            _scraped(port, every)
            began, cpu, before = time.monotonic(), cpu_seconds(process.pid), _told(port, EVALUATIONS)
            time.sleep(seconds)
            lasted = time.monotonic() - began
            evaluations = _told(port, EVALUATIONS) - before
            return (cpu_seconds(process.pid) - cpu) / lasted, evaluations / lasted


def _scraped(port: int, every: int) -> None:
    """Wait until all was scraped twice, so that all series are there. Raises BenchError."""
    for _ in range(60):
        time.sleep(every)
        if _told(port, SERIES) > FEW * STREAMS:
            time.sleep(2 * every)
            return
    raise BenchError("Prometheus scraped nothing")


def _told(port: int, name: str) -> float:
    """The sum of a metric of Prometheus' own; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    return sum(map(float, re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)))


def rules(effort: Effort) -> list[Result]:
    """Two lines: the share of a core that evaluations take, with nothing and with everything down."""
    with tempfile.TemporaryDirectory(prefix="ow") as folder:
        return _both(effort, Path(folder))


def _both(effort: Effort, folder: Path) -> list[Result]:
    known = catalog.load()
    count: float = sum(len(each.limits) for each in known.thresholds.values())
    count += sum(INTERVAL / (each.every or INTERVAL) for each in known.recorded.values())  # in an interval
    nodes, every = (NODES, EVERY) if effort.share else (FEW, OFTEN)
    results = []
    for title, down in (("well", False), ("down", True)):
        ratios: list[float] = []
        with served(page(nodes, down=down)) as target:
            for _ in range(min(effort.repeats, 2)):  # a turn takes a minute
                seconds = effort.window * 4 * every
                alone, _none = spent(target, every, seconds, "none.yaml")
                both, evaluations = spent(target, every, seconds, quicker(folder, every))
                if not evaluations:
                    raise BenchError("Prometheus evaluated nothing")
                ratios.append(max(both - alone, 0.0001) / (evaluations / count) / INTERVAL)
        name = f"rules, {nodes} nodes x {STREAMS} streams, all {title}: CPU / an interval of {INTERVAL:g} s"
        results.append(
            result(name, ratios, GOAL, {"cpu_seconds": round(min(ratios) * INTERVAL, 2), "rules": round(count)})
        )
    return results
