"""A node of many links scraped: ours with links only against node_exporter with netdev only; and asking OVS' daemons.

Both exporters run in a network namespace with so many veths, are scraped in turn with gzip over keep-alive, as
Prometheus does, and their own CPU time is counted. Default collectors of both are for what they keep in memory.
"""

from __future__ import annotations

import http.client
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from exporters.calibrate.namespaces import Namespace
from exporters.node.collectors import COLLECTORS
from exporters.node.rpc import Deadline
from exporters.node.unixctl import Unixctl

from .measure import BenchError, Effort, Result, cpu_seconds, resident, result, running

NODE_EXPORTER = "prometheus-node-exporter"
FEW, MANY = 1000, 5000
GOAL, GROWTH_GOAL, MEMORY_GOAL, CALL_GOAL = 0.25, 6.0, 1.5, 1 / 20
PREFIX = "owbench"  # of the network namespaces
READY_SECONDS = 30.0
CODE = "import sys; from exporters.cli import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = ("memory/show", "coverage/show", "upcall/show", "dpctl/show")
CALLS, SPAWNS = 500, 20


class Exporter(NamedTuple):
    """One that runs in the namespace."""

    port: int
    pid: int


class Turn(NamedTuple):
    """CPU seconds for one scrape, the bytes of its page, and resident bytes afterwards."""

    each: float
    page: int
    rss: int


@contextmanager
def space(links: int) -> Iterator[Namespace]:
    """A network namespace with so many links beside lo. Raises BenchError."""
    name = f"{PREFIX}{links}"
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
        raise BenchError("only root can make a network namespace")
    try:
        wanted = [f"link add va{number} type veth peer name vb{number}" for number in range(links // 2)]
        batch = "\n".join(["link set lo up", *wanted, *(f"link set va{n} up" for n in range(links // 2))])
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=batch, text=True, check=True)
        with closing(Namespace(name)) as made:
            yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def ours(inside: Namespace, port: int, *collectors: str) -> Iterator[Exporter]:
    """`ovnwatch node` with these collectors, or all."""
    off = [f"--no-collector.{name}" for name in COLLECTORS if collectors and name not in collectors]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with started(inside, port, [sys.executable, "-c", CODE, "node", listen, *off]) as found:
        yield found


@contextmanager
def theirs(inside: Namespace, port: int, *flags: str) -> Iterator[Exporter]:
    """node_exporter with these flags."""
    with started(inside, port, [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}", *flags]) as found:
        yield found


@contextmanager
def started(inside: Namespace, port: int, command: list[str]) -> Iterator[Exporter]:
    with running(["ip", "netns", "exec", inside.name, *command], os.environ) as child:
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                inside.call(scraped, port, 1)
            except OSError:
                if child.poll() is not None or time.monotonic() > end:
                    raise BenchError(f"{command[0]} does not answer") from None
                time.sleep(0.05)
            else:
                break
        yield Exporter(port, child.pid)


def scraped(port: int, times: int) -> int:
    """Scrape so often; the bytes of the last page, compressed."""
    size = 0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for _ in range(times):
            connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            size = len(answer.read())
            if answer.status != 200 or answer.headers["Content-Encoding"] != "gzip":
                raise BenchError(f"port {port} answered {answer.status}")
    return size


def turn(inside: Namespace, exporter: Exporter, seconds: float) -> Turn:
    """Scrape one exporter for so many seconds of its own CPU time."""
    inside.call(scraped, exporter.port, 1)
    count, began = 0, cpu_seconds(exporter.pid)
    size = 0
    while (spent := cpu_seconds(exporter.pid) - began) < seconds:
        size = inside.call(scraped, exporter.port, 1)
        count += 1
    return Turn(spent / count, size, resident(exporter.pid))


def turns(effort: Effort) -> list[tuple[Turn, Turn, Turn]]:
    """By turns: theirs with netdev only and ours with links only on a node of FEW links, and ours on one of MANY."""
    flags = ("--collector.disable-defaults", "--collector.netdev", "--web.disable-exporter-metrics")
    with space(FEW) as small, space(MANY) as large, ExitStack() as stack:
        sides = (
            (small, stack.enter_context(theirs(small, 9100, *flags))),
            (small, stack.enter_context(ours(small, 9481, "links"))),
            (large, stack.enter_context(ours(large, 9481, "links"))),
        )
        found = []
        for _ in range(effort.repeats):
            other, few, many = (turn(inside, exporter, effort.window / 4) for inside, exporter in sides)
            found.append((other, few, many))
    return found


def memory() -> tuple[int, int]:
    """Resident bytes of ours and theirs, each with all its usual collectors, after some scrapes of FEW links."""
    with space(FEW) as inside, ExitStack() as stack:
        own = stack.enter_context(ours(inside, 9481))
        other = stack.enter_context(theirs(inside, 9100))
        for each in (own, other):
            inside.call(scraped, each.port, 5)
        return resident(own.pid), resident(other.pid)


def node(effort: Effort) -> list[Result]:
    """Lines for a scrape, for its growth with links, for memory, and for a question to a daemon."""
    reference, few, many = (list(each) for each in zip(*turns(effort), strict=True))
    ratios = [own.each / other.each for own, other in zip(few, reference, strict=True)]
    growth = [more.each / own.each for more, own in zip(many, few, strict=True)]
    memories = [memory() for _ in range(min(effort.repeats, 3))]
    detail = {
        "ms": ms(few),
        "node_exporter_ms": ms(reference),
        "rss_mb": mb(few),
        "node_exporter_rss_mb": mb(reference),
        "page_kb": round(few[-1].page / 1e3),
        "node_exporter_page_kb": round(reference[-1].page / 1e3),
    }
    mine, other = (round(median(each) / 1e6, 1) for each in zip(*memories, strict=True))
    both = {"rss_mb": mine, "node_exporter_rss_mb": other}
    parts = [own / it for own, it in memories]
    return [
        result(f"scrape of {FEW} links, gzip / node_exporter netdev only", ratios, GOAL, detail),
        result(f"scrape of {MANY} links / of {FEW}", growth, GROWTH_GOAL, {"ms": ms(many), "rss_mb": mb(many)}),
        result(f"memory with {FEW} links, all collectors / node_exporter's defaults", parts, MEMORY_GOAL, both),
        question(effort),
    ]


def ms(each: list[Turn]) -> float:
    return round(median(turn.each for turn in each) * 1e3, 2)


def mb(each: list[Turn]) -> float:
    return round(max(turn.rss for turn in each) / 1e6, 1)


# Questions to a daemon: a connection, a question and its answer in this process, against ovs-appctl's own process.


@contextmanager
def switch() -> Iterator[tuple[Path, dict[str, str]]]:
    """An OVS with a simulated datapath: its folder, and the environment that leads its tools there."""
    with tempfile.TemporaryDirectory(prefix="ow") as name:
        folder = Path(name)
        environ = {**os.environ, **dict.fromkeys(("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"), name)}
        quiet = ("-vconsole:off", "--no-chdir", "--pidfile", "--log-file")
        try:
            made = ["ovsdb-tool", "create", f"{name}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema"]
            subprocess.run(made, env=environ, check=True)
        except FileNotFoundError:
            raise BenchError("ovsdb-tool is not installed") from None
        with (
            running(["ovsdb-server", f"{name}/conf.db", f"--remote=punix:{name}/db.sock", *quiet], environ),
            running(["ovs-vswitchd", f"unix:{name}/db.sock", "--enable-dummy=override", *quiet], environ),
        ):
            subprocess.run(["ovs-vsctl", "--retry", "-t20", "init"], env=environ, check=True)
            ports = [
                word for n in range(200) for word in f"-- add-port b p{n} -- set Interface p{n} type=dummy".split()
            ]
            subprocess.run(["ovs-vsctl", "-t20", "add-br", "b", *ports], env=environ, check=True)
            yield folder, environ


def spent(who: int, work: Callable[[], object], times: int) -> float:
    """CPU seconds of one piece of work, of ours or of our children's that ended."""
    before = resource.getrusage(who)
    for _ in range(times):
        work()
    after = resource.getrusage(who)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / times


def question(effort: Effort) -> Result:
    """One line: CPU of a question by unixctl against that of an ovs-appctl."""
    with switch() as (folder, environ):

        def ask() -> None:
            for command in COMMANDS:
                with Unixctl(folder, "ovs-vswitchd", Deadline(10)) as server:
                    server.run(command)

        def spawn() -> None:
            for command in COMMANDS:
                subprocess.run(["ovs-appctl", command], env=environ, stdout=subprocess.DEVNULL, check=True)

        own, other = [], []
        for _ in range(effort.repeats):
            own.append(spent(resource.RUSAGE_SELF, ask, CALLS))
            other.append(spent(resource.RUSAGE_CHILDREN, spawn, SPAWNS))
    ratios = [mine / it for mine, it in zip(own, other, strict=True)]
    each = len(COMMANDS)
    detail = {
        "us": round(median(own) / each * 1e6, 1),
        "ovs_appctl_us": round(median(other) / each * 1e6),
        "commands": ", ".join(COMMANDS),
    }
    return result("a question by unixctl / by spawning ovs-appctl", ratios, CALL_GOAL, detail)
