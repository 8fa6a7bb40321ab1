"""A real peer that is stopped, starved and throttled: it says what it did not observe, and blames nobody for it.

What is asserted holds on any machine, for the server that it probes goes before all others; figures are printed.
`make soak` stops for longer, and is quiet for an hour.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import ANY_PORT, CODE, Exporter, flags, killed_at_the_end, wait_for

from exporters.probing.stall import GAP

SOAK = int(os.environ.get("OVNWATCH_INJECTIONS", "20")) >= 100
STOP = 10.0 if SOAK else 3.0  # seconds
RESTLESS = 120.0 if SOAK else 12.0
QUIET = 3600.0 if SOAK else 10.0
SHARE = 0.9  # of the time that we took from it, so much at least must be told
BLAMING = {"outage", "blip", "frozen", "break"}
TARGETS = 30  # of the one that is throttled: more work than its quota allows
CPU = Path("/sys/fs/cgroup/cpu")  # of version 1; of version 2 the folder above it

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]  # root, for the server may not be starved

Start = Callable[..., Exporter]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a peer that probes `ports` of 127.0.0.1."""
    with killed_at_the_end() as peers:

        def begin(source: str, ports: Mapping[str, int], code: str = CODE, targets: int = 1) -> Exporter:
            target = {"host": "127.0.0.1", "path": "pod", "ports": dict(ports)}
            entries = [{"name": f"target-{number}", **target} for number in range(targets)]
            config = tmp_path / f"{source}.yaml"
            config.write_text(json.dumps({"targets": entries}))
            argv = flags({"--config.file": str(config), "--source": source, **ANY_PORT})
            peers.append(Exporter(tmp_path / f"{source}.log", "peer", *argv, code=code))
            wait_for(peers[-1].ready)
            return peers[-1]

        yield begin


@pytest.fixture
def server(start: Start) -> Exporter:
    """One that waits for no processor is never late: what is seen of it then is the prober's own invention."""
    found = start("server", {"tcp": 1})
    try:
        os.sched_setscheduler(found.process.pid, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:  # where real time is not for everybody
        os.setpriority(os.PRIO_PROCESS, found.process.pid, -20)
    return found


@pytest.fixture
def peer(start: Start, server: Exporter) -> Exporter:
    """A peer that probes the server over all protocols, and has reached it."""
    return reaching(start, server)


def reaching(start: Start, server: Exporter, code: str = CODE, targets: int = 1) -> Exporter:
    ours = start("prober", {name: server.ports[name] for name in ("http", "tcp", "ws")}, code, targets)
    wait_for(lambda: all(each["state"] == "up" and each["coverage"]["last_15m"] for each in streams(ours)))
    return ours


def streams(peer: Exporter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(peer.get("/status", "http")[1])["streams"]
    return found


def events(peer: Exporter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(peer.get("/history?since=0&limit=1000", "http")[1])["items"]
    return found


def values(peer: Exporter, *names: str, label: str = "reason") -> dict[str, float]:
    """Samples by that label, those without it by their name; all of one scrape."""
    query = "&".join(f"name[]={name}" for name in names)
    families = text_string_to_metric_families(peer.get(f"/metrics?{query}")[1])
    return {each.labels.get(label, each.name): each.value for family in families for each in family.samples}


def gap_seconds(peer: Exporter) -> dict[str, float]:
    return values(peer, "ovnwatch_observation_gap_seconds_total")


def not_run(peer: Exporter) -> float:
    found = values(peer, "ovnwatch_observation_gap_seconds_total", "ovnwatch_stall_seconds_total")
    stalled = found.pop("ovnwatch_stall_seconds_total")
    assert sum(found.values()) == pytest.approx(stalled), "each second once"
    return stalled


def blamed(peer: Exporter, server: Exporter) -> list[dict[str, Any]]:
    """What it says that the server did, which did not; but where that stood still as often, the machine had paused."""
    found = [each for each in events(peer) if each["kind"] in BLAMING]
    stood = not_run(server)
    print(f"the server did not run for {stood:.3f} s")
    return found if stood < GAP * len(found) else []


def stop(peer: Exporter, seconds: float) -> float:
    """Stop the process for so long; returns how long it was stopped for certain."""
    peer.process.send_signal(signal.SIGSTOP)
    wait_for(
        lambda: Path(f"/proc/{peer.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", every=0.001
    )
    began = time.monotonic()
    time.sleep(seconds)
    stopped = time.monotonic() - began
    peer.process.send_signal(signal.SIGCONT)
    return stopped


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[None]:
    code = "import time\nend = time.monotonic() + 900\nwhile time.monotonic() < end: pass"
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(number)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


# --- stopped


def test_a_stop_is_a_gap_and_no_outage(peer: Exporter, server: Exporter) -> None:
    before = not_run(peer)
    began = time.monotonic()
    stopped = stop(peer, STOP)
    wait_for(lambda: not_run(peer) - before >= SHARE * stopped)
    wait_for(lambda: all(each["state"] == "up" and each["observed"] for each in streams(peer)))
    found = not_run(peer) - before
    print(f"stopped for {stopped:.3f} s, told {found:.3f} s")
    assert found >= SHARE * stopped
    (gap,) = [each for each in events(peer) if each["kind"] == "gap" and each["duration_sec"] >= SHARE * stopped]
    assert gap["cause"] == "stall"
    assert blamed(peer, server) == []
    elapsed = time.monotonic() - began
    for each in streams(peer):
        missing = (1 - each["coverage"]["last_15m"]) * (elapsed + 60)  # it began less than a minute before
        assert missing >= 0.5 * stopped, each["stream"]
    least = min(each["coverage"]["last_15m"] for each in streams(peer))
    assert values(peer, "ovnwatch_coverage_ratio", label="path") == {"pod": pytest.approx(least, abs=0.05)}
    assert "stuck for" not in peer.said()  # the process was stopped, and the loop is not to blame


def test_short_stops_all_the_time_are_told_and_are_no_outages(peer: Exporter, server: Exporter) -> None:
    rng = random.Random(7)
    before, began, stopped = not_run(peer), time.monotonic(), 0.0
    while time.monotonic() - began < RESTLESS:
        stopped += stop(peer, rng.uniform(0.02, 0.15))
        time.sleep(rng.uniform(0.2, 1.0))
    took = time.monotonic() - began
    found = not_run(peer) - before
    print(f"stopped for {stopped:.3f} of {took:.1f} s ({stopped / took:.0%}), told {found:.3f} s")
    assert found >= SHARE * stopped
    assert blamed(peer, server) == []
    for each in streams(peer):
        assert each["coverage"]["last_15m"] < 1 - 0.5 * stopped / (took + 60), each["stream"]


# --- starved


def test_busy_loops_beside_it_make_no_outage(peer: Exporter, server: Exporter) -> None:
    with busy_loops(6):
        time.sleep(RESTLESS)
    print(f"beside six busy loops: {gap_seconds(peer)}")
    assert blamed(peer, server) == []


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of our own whose CPU quota can be set; who may make none cannot have what is tested tested."""
    controllers = CPU.parent / "cgroup.controllers"
    top = CPU.parent if controllers.exists() and "cpu" in controllers.read_text().split() else CPU
    ours = top / f"owhonesty-{os.getpid()}"
    try:
        if top != CPU:
            (top / "cgroup.subtree_control").write_text("+cpu")
        ours.mkdir()
    except OSError as error:
        pytest.fail(f"this machine lets us make no cgroup with a CPU quota: {error}", pytrace=False)
    try:
        yield ours
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                ours.rmdir()
                break
            time.sleep(0.05)


def limit(group: Path, percent: int) -> None:
    """Of one CPU, in each tenth of a second."""
    if (group / "cpu.max").exists():
        (group / "cpu.max").write_text(f"{percent * 1000} 100000")
    else:
        (group / "cpu.cfs_quota_us").write_text(str(percent * 1000))


@pytest.mark.parametrize("loops", [0, 6])
def test_a_cpu_quota_makes_gaps_with_their_reason_and_no_outage(
    group: Path, start: Start, server: Exporter, loops: int
) -> None:
    join = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
    ours = reaching(start, server, join + CODE, TARGETS)
    assert values(ours, "ovnwatch_cpu_throttled_seconds_total", label="source") == {"prober": 0.0}
    limit(group, 5)
    with busy_loops(loops):
        time.sleep(RESTLESS)
    limit(group, 100)
    wait_for(lambda: gap_seconds(ours)["throttled"])
    wait_for(lambda: "by the CPU quota of our cgroup" in ours.said())
    not_run(ours)
    gaps = gap_seconds(ours)
    throttled = values(ours, "ovnwatch_cpu_throttled_seconds_total", label="source")["prober"]
    skipped = values(ours, "ovnwatch_probes_skipped_total")
    print(f"5 % of a CPU for {RESTLESS:g} s beside {loops} loops: {throttled:.3f} s throttled, {gaps}, {skipped}")
    assert 0 < gaps["throttled"] <= throttled + 0.001
    assert blamed(ours, server) == []


# --- left alone


def test_a_quiet_time_has_few_gaps(peer: Exporter, server: Exporter) -> None:
    before = gap_seconds(peer)
    time.sleep(QUIET)
    after = gap_seconds(peer)
    lost = {reason: round(after[reason] - before[reason], 3) for reason in after}
    print(f"in {QUIET:g} s in which nobody disturbed it, it did not observe: {lost}")
    print("coverage", {each["protocol"]: each["coverage"] for each in streams(peer)})
    assert blamed(peer, server) == []
    assert lost["suspended"] == lost["restart"] == 0.0
