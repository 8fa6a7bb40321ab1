"""What a runbook tells to type can be typed: queries are PromQL, commands are there and take these words."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from test_lab import NEEDS, built

from exporters import catalog
from lab.ovn import run, topology
from lab.ovn.build import Run
from lab.ovn.topology import EGRESS, Lab

RUNBOOKS = sorted((Path(__file__).resolve().parent.parent / "alerts/runbooks").glob("*.md"))
SERIES = re.compile(r"(?:^|[^\w:])(?:[a-z_]*:)?ovnwatch_[a-z]|^(?:ovs|ovn)_[a-z]")
TOOLS = re.compile(r"(?:ovs|ovn)-\w+ |ovs-appctl ")
SNAP = {"ovn-appctl", "ovn-nbctl", "ovn-sbctl", "ovn-trace", "ovs-appctl", "ovs-dpctl", "ovs-ofctl", "ovs-vsctl"}
SNAPS_OVN = "/var/snap/microovn/common/run/ovn/"
NEWER = "long_poll_interval"  # OVS counts it from 3.3 on, and its runbook says so
NAMES = {"NAME": "br-int", "ADDRESS": EGRESS[0], "SWITCH": "sw1"}

each_runbook = pytest.mark.parametrize("file", RUNBOOKS, ids=lambda file: file.stem)


def spans(file: Path, part: str = "") -> list[str]:
    """What stands between backticks, or as a block, in a part of a runbook or in all of it; each in one line."""
    text = file.read_text()
    if part:
        text = text.split(f"## {part}\n")[1].split("\n## ")[0]
    text = text.replace(" \\\n        ", " ")
    blocks = re.findall(r"^      (\S.*)$", text, re.MULTILINE)
    return [re.sub(r"\s+", " ", each).strip() for each in [*re.findall(r"`([^`]+)`", text), *blocks]]


def commands(file: Path) -> list[str]:
    """How to confirm it by a tool of OVS or OVN, where they are installed as they are."""
    return [each for each in spans(file, "How to confirm") if TOOLS.match(each)]


@pytest.mark.system("promtool")
def test_queries_are_promql(tmp_path: Path) -> None:
    found = {
        f"{file.stem}:{number}": each
        for file in RUNBOOKS
        for number, each in enumerate(spans(file))
        if SERIES.search(each) and not each.startswith(("curl", "ovnwatch ", "oc "))
    }
    assert len(found) > 100
    rules = [{"record": re.sub(r"\W", "_", name), "expr": query} for name, query in found.items()]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    run_promtool = ["promtool", "check", "rules", "--lint=none", str(tmp_path / "queries.yaml")]
    done = subprocess.run(run_promtool, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_runbook
def test_every_system_is_told_the_same(file: Path) -> None:
    plain, told = commands(file), spans(file, "How to confirm")
    snap = [each.removeprefix("microovn.") for each in told if each.startswith("microovn.")]
    assert {each.split()[0] for each in snap} <= SNAP
    if snap:
        where = ("ovn-appctl -t " + SNAPS_OVN, "ovs-appctl -t /run/ovn/")
        assert {each.replace(*where) for each in snap} == set(plain)
    for line in (each.split(" -- ", 1)[1] for each in told if each.startswith("oc ") and " -- " in each):
        inside = line.removeprefix("chroot /host ")
        shell = re.fullmatch(r'sh -c "(.*)"', inside)
        asked = shell[1].split("; ") if shell else [inside]
        assert {each for each in asked if TOOLS.match(each)} <= set(plain)


def test_there_is_something_to_run() -> None:
    assert sum(len(commands(file)) for file in RUNBOOKS) > 40


def test_what_is_named_as_an_alert_is_one() -> None:
    known = set(catalog.load().thresholds)
    for file in RUNBOOKS:
        assert set(re.findall(r"\bOvnwatch[A-Z]\w+", file.read_text())) <= known, file.name


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.system(*NEEDS)
@pytest.mark.slow
def test_commands_work_on_a_real_ovn() -> None:
    failed = []
    with built("r", "--raft", "3") as lab:
        for command in sorted({each for file in RUNBOOKS for each in commands(file)}):
            try:
                run.run(typed(lab, command))
            except run.LabError as error:
                if not (NEWER in command and "No such counter" in str(error)):
                    failed.append(f"{command}: {error}")
    assert failed == []


def typed(lab: Lab, command: str) -> Run:
    """That command at the host at which a runbook says to type it."""
    central = re.search(r"ovn-[ns]bctl|northd|/run/ovn/", command)
    host = "central1" if central else "ch1"
    words = [NAMES.get(each, each) for each in shlex.split(command)]
    words = [re.sub(r"=ADDRESS$", f"={EGRESS[0]}", each) for each in words]
    at = [each.replace("/run/ovn/", f"{lab.rundir(host, 'ovn')}/") for each in words]
    return Run(tuple(at), environ=topology.environ(lab, host))
