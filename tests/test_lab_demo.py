"""The lab's demo: what it runs and asks for, what it takes for seen; then all of it, in a real OVN."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from box import run
from running import CODE

from exporters.calibrate import namespaces
from exporters.calibrate.injection import Bracket
from exporters.settings import Stream
from lab import judge
from lab.children import Children
from lab.judge import Entry, Injected
from lab.ovn import demo, site, topology
from lab.ovn.run import PROGRAMS
from lab.ovn.site import Change, Site
from lab.ovn.topology import EGRESS, OUTSIDE, Lab
from lab.plant import DESCRIPTORS
from lab.plant import PROGRAMS as EXPORTERS

LAB = Lab("ow", Path("/run/ow"))
PROBERS = [each for each in site.exporters(LAB) if each.command in EXPORTERS]


def streams(tmp_path: Path) -> dict[str, Stream]:
    """All streams of the demo, as the exporters read their files."""
    found = {}
    for each in PROBERS:
        file = tmp_path / f"{each.name}.yaml"
        file.write_text(str(site.config(LAB, each)).replace("'", '"'))
        loaded = EXPORTERS[each.command].load(["--config.file", str(file)], {}, DESCRIPTORS)
        found.update({stream.key: stream for stream in loaded.streams})
    return found


def test_everything_is_probed_from_inside_and_outside(tmp_path: Path) -> None:
    made = streams(tmp_path)
    ways = {(each.source, each.target, each.path, each.host) for each in made.values()}
    inside = {(one, other) for one in LAB.workloads for other in LAB.workloads if one != other}
    assert ways == {
        *((one, other, "pod", topology.address(other)) for one, other in inside),
        *((each, "outside", "egress", OUTSIDE) for each in LAB.workloads),
        *(("bastion", each, "loadbalancer", topology.vip(each)) for each in LAB.workloads),
    }
    assert len(made) == 3 * len(ways)


def test_a_step_hits_some_streams_and_spares_others(tmp_path: Path) -> None:
    made = streams(tmp_path).values()
    for step in demo.STEPS:
        hit = [each for each in made if step.hits(each)]
        assert 0 < len(hit) < len(made)
        assert all(each.interval < demo.AWAY_SECONDS for each in hit)


@pytest.mark.parametrize("runs", [True, False])
def test_node_exporters_run_where_there_are_some(runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {"node": None} if runs else {}
    monkeypatch.setattr(site, "COMMANDS", commands)
    found = site.node_exporters(LAB)
    assert [each.host for each in found] == (["ch1", "ch2", "ch3"] if runs else [])
    assert bool(site.nodes_see(LAB)) == runs


def test_a_changed_address_is_read() -> None:
    item: dict[str, Any] = {
        "stream": "w1|outside|egress|tcp|4",
        "before": {"address": EGRESS[0], "node": "ch1"},
        "after": {"address": EGRESS[1]},
        "start": {"earliest": "a", "latest": "b"},
    }
    assert site.change(item) == Change("w1|outside|egress|tcp|4", EGRESS[0], EGRESS[1], "a", "b")


def seen_of(key: str, start: float, end: float) -> Entry:
    return Entry(
        key, key, "outage", "other",
        start - 0.1, start, end, end + 0.1, end - start, end - start, end - start + 0.2, start, False,
    )  # fmt: skip


def test_it_fails_for_each_stream_that_saw_nothing_and_each_that_was_not_told(tmp_path: Path) -> None:
    made = streams(tmp_path)

    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            there = Site(LAB, Children(tmp_path), session, {}, 1, made)
            truth = Bracket(10.0, 10.05), Bracket(12.0, 12.1)
            hit = [key for key, each in made.items() if demo.STEPS[0].hits(each)]
            injected = [Injected(1, "moved", "path", dict.fromkeys(hit, truth))]
            egress = [key for key, each in made.items() if (each.source, each.target) == ("w1", "outside")]
            assert len(demo.missing(there, injected)) == len(hit) + len(egress)
            there.entries = {key: seen_of(key, 10.0, 12.05) for key in hit}
            there.changes = {key: Change(key, EGRESS[0], EGRESS[1], "", "") for key in egress}
            assert demo.missing(there, injected) == []
            there.changes[egress[0]] = Change(egress[0], EGRESS[0], topology.gateway_address("ch2"), "", "")
            assert demo.missing(there, injected) == [f"{judge.name(made[egress[0]])} was not told the new address"]

    run(scenario())


@pytest.mark.needs_root(*PROGRAMS)
@pytest.mark.system("prometheus", "prometheus-alertmanager")
@pytest.mark.slow
def test_in_a_real_ovn_all_is_seen() -> None:
    line = [sys.executable, "-c", CODE, "lab", "demo", "--once", "--prefix", "owdtest"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=240)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "PASS: all was seen" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("PASS: each outage is rightly explained")
    assert "0 unexplained" in done.stdout or "busy machine's" in done.stdout
    assert f"{EGRESS[0]}  {EGRESS[1]}" in done.stdout


@pytest.mark.needs_root(*PROGRAMS)
@pytest.mark.system("prometheus", "prometheus-alertmanager")
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_ctrl_c_at_once_leaves_nothing_behind(seconds: float) -> None:
    line = [sys.executable, "-c", CODE, "lab", "demo", "--once", "--prefix", "owcc"]
    # What was started in the background has it ignored, and so would its children have.
    running = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread of ours has a lock
    )
    time.sleep(seconds)  # before it could see to signals itself
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in said) in ((1, False), (-signal.SIGINT, True)), said
    assert not [each for each in namespaces.there() if each.startswith("owcc-")]
