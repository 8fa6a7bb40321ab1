"""Our probes against blackbox_exporter's http probe, both at 1000 a second and against the same server.

A fixed rate is how monitoring works, and wake-ups cost everybody more there than a closed loop does; what blackbox
spends in a closed loop is told too. One process of its own for each side and turn. GOMAXPROCS moves blackbox's cost by
half or more: the goals stand against its default (a thread for each CPU), and what one thread costs is told beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from .measure import BenchError, Effort, Result, Window, done, each_us, module, result, rss_mb, running, window_of

BLACKBOX = "prometheus-blackbox-exporter"
CONFIG = "modules:\n  http_2xx:\n    prober: http\n    http:\n      preferred_ip_protocol: ip4\n"
RATE = 1000


class Side(NamedTuple):
    """How one of ours is run: streams times interval makes RATE; goal: of blackbox's http probe (design, section 6)."""

    name: str
    streams: int
    interval: float
    goal: float


SIDES = {
    "http": Side("http probe, new connection", 500, 0.5, 0.25),
    "tcp": Side("tcp heartbeat", 100, 0.1, 0.10),
    "ws": Side("ws heartbeat", 100, 0.1, 0.10),
}


@contextmanager
def blackbox(config: Path, environ: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """A blackbox_exporter on a port of its own: (port, pid)."""
    command = [BLACKBOX, f"--config.file={config}", "--web.listen-address=127.0.0.1:0"]
    with running(command, environ) as child:
        yield listening(child), child.pid


def listening(child: subprocess.Popen[str]) -> int:
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said = line.strip()
        if found := re.search(r"Listening on.* address=127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise BenchError(f"{BLACKBOX} does not listen: {said}")


def probes(effort: Effort) -> list[Result]:
    """Three lines: http, tcp and ws against blackbox's http probe of the same turn."""
    turns: dict[str, list[Window]] = {name: [] for name in ("blackbox", "one thread", "closed loop", *SIDES)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "blackbox.yml"
        config.write_text(CONFIG, encoding="ascii")
        environ = {name: value for name, value in os.environ.items() if name != "GOMAXPROCS"}
        usual = stack.enter_context(blackbox(config, environ))
        single = stack.enter_context(blackbox(config, {**environ, "GOMAXPROCS": "1"}))
        server = stack.enter_context(running(module("server"), os.environ))
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port.isdigit():
            raise BenchError(f"the server does not listen: {port}")
        times = (effort.warm, effort.window)
        for _ in range(effort.repeats):
            turns["blackbox"].append(window_of(module("driver", *usual, port, RATE, *times), effort))
            for protocol, side in SIDES.items():
                ours = module("prober", protocol, port, side.streams, side.interval, *times)
                turns[protocol].append(window_of(ours, effort))
            turns["one thread"].append(window_of(module("driver", *single, port, RATE, *times), effort))
            turns["closed loop"].append(window_of(module("driver", *usual, port, 0, *times), effort))
    return [against(protocol, turns) for protocol in SIDES]


def against(protocol: str, turns: Mapping[str, list[Window]]) -> Result:
    side, ours = SIDES[protocol], turns[protocol]
    ratios = [own.each / theirs.each for own, theirs in zip(ours, turns["blackbox"], strict=True)]
    names = ("blackbox", "one thread", "closed loop")
    detail = {
        "us_each": each_us(ours),
        "rss_mb": rss_mb(ours),
        "done": done(ours),
        "blackbox_us_each": {name: each_us(turns[name]) for name in names},
        "blackbox_rss_mb": rss_mb(turns["blackbox"]),
        "blackbox_done": done(turns["blackbox"]),
        "ratio_to": {name: round(each_us(ours) / each_us(turns[name]), 3) for name in names},
        "gomaxprocs": f"{len(os.sched_getaffinity(0))} (default)",
        "rate": RATE,
    }
    return result(f"{side.name} / blackbox http", ratios, side.goal, detail)
