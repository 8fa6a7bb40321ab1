"""The shell scripts of manifests/examples, with a cluster that is a folder of files and a gate that does as told."""

import os
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "manifests/examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sh"))

# What the fakes are told is in $CLUSTER; each writes what it was asked to $CLUSTER/log.
OVNWATCH = """
echo "ovnwatch $*" >>"$CLUSTER/log"
if [ "$1" = gate ]; then
    left=$(cat "$CLUSTER/left")
    [ "$left" -gt 0 ] || exit 2
    echo $((left - 1)) >"$CLUSTER/left"
fi
"""
# A pool of three machines. One begins when the pool is not paused; it is done after two looks at how many are degraded.
OC = """
cd "$CLUSTER"
case "$*" in
*'"paused":true'*) echo "paused" >>log; echo 1 >paused ;;
*'"paused":false'*) echo "unpaused" >>log; echo 0 >paused ;;
*status.updatedMachineCount*) cat updated ;;
*status.machineCount*) echo 3 ;;
*status.degradedMachineCount*)
    if [ "$(cat going)" != 0 ]; then
        left=$(($(cat going) - 1)) done=$(cat updated)
        echo "$left" >going
        [ "$left" != 0 ] || echo $((done + 1)) >updated
    fi
    cat degraded ;;
*status.configuration.name*) [ "$(cat updated)" = 3 ] && echo new || echo old ;;
*spec.configuration.name*) echo new ;;
*status.unavailableMachineCount*)
    if [ "$(cat going)$(cat paused)" = 00 ] && [ "$(cat updated)" != 3 ]; then
        echo 2 >going
        echo "a machine begins" >>log
    fi
    [ "$(cat going)" = 0 ] && echo 0 || echo 1 ;;
*) echo "oc: what is $*?" >&2; exit 1 ;;
esac
"""
# Three pods of an old template and one of the new; a deleted one is there anew at once.
KUBECTL = """
cd "$CLUSTER"
case "$*" in
*updateStrategy*) cat strategy ;;
*metadata.generation*) echo 2 ;;
*range*) cat pods ;;
*"delete pod"*)
    for word; do pod=$word; [ "$word" = --wait=true ] || last=$word; done
    echo "deleted $last" >>log; echo "$last-new" >new ;;
*field-selector*) cat new ;;
*"wait --for condition=Ready"*) cat ready >&2; [ ! -s ready ] ;;
*) echo "kubectl: what is $*?" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (("ovnwatch", OVNWATCH), ("oc", OC), ("kubectl", KUBECTL)):
        (bin_ / name).write_text(f"#!/bin/sh\n{text}")
        (bin_ / name).chmod(0o755)
    pods = "\n".join(f"p{number} n{number} {1 if number < 4 else 2} ovnkube-node" for number in range(1, 5))
    for name, text in {
        "left": "9", "paused": "0", "updated": "0", "degraded": "0", "going": "0", "log": "",
        "strategy": "OnDelete", "pods": f"{pods}\nother n1 1 multus\n", "new": "", "ready": "",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


def done(cluster: Path, script: str, *argv: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    environ = {**os.environ, "PATH": f"{cluster}/bin:{os.environ['PATH']}", "CLUSTER": str(cluster), "EVERY": "0.05"}
    line = ["timeout", "60", str(EXAMPLES / script), *argv]
    found = subprocess.run(line, env=environ, capture_output=True, text=True, check=False)
    return found, (cluster / "log").read_text().splitlines()


def gates(log: list[str]) -> list[int]:
    return [place for place, line in enumerate(log) if line.startswith("ovnwatch gate")]


@pytest.mark.system("shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda each: each.name)
def test_they_are_plain_shell(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["shellcheck", "--shell=sh", str(script)], check=True)


POOL = ("machine-config-pool.sh", "worker", "http://b:9091", "http://b:9482")


def test_a_pool_goes_on_machine_by_machine_each_after_the_gate(cluster: Path) -> None:
    found, log = done(cluster, *POOL)
    assert found.returncode == 0, found
    begun = [place for place, line in enumerate(log) if line == "a machine begins"]
    assert len(begun) == len(gates(log)) == 3
    assert all(gate < begin for gate, begin in zip(gates(log), begun, strict=True))
    assert all(before < after for before, after in zip(begun, gates(log)[1:], strict=False)), "one at a time"
    assert log[0] == "paused"
    assert log[-1] == "unpaused"
    assert "ovnwatch migration mark pool worker --url http://b:9482 --rolls" in log
    assert "ovnwatch migration mark none --url http://b:9482 --rolls" in log


def test_a_pool_stays_paused_where_the_gate_says_stop(cluster: Path) -> None:
    (cluster / "left").write_text("1")
    found, log = done(cluster, *POOL)
    assert found.returncode == 2
    assert "stays paused" in found.stderr
    assert log.count("a machine begins") == 1
    assert (cluster / "paused").read_text() == "1\n"


def test_a_degraded_pool_stays_paused(cluster: Path) -> None:
    (cluster / "degraded").write_text("1")
    found, _ = done(cluster, *POOL)
    assert (found.returncode, "degraded" in found.stderr) == (2, True)
    assert (cluster / "paused").read_text() == "1\n"


SET = ("daemonset.sh", "ovn-kubernetes", "ovnkube-node", "http://b:9091", "http://b:9482")


def test_a_daemonset_is_rolled_out_node_by_node_each_after_the_gate(cluster: Path) -> None:
    found, log = done(cluster, *SET)
    assert found.returncode == 0, found
    assert [line for line in log if line.startswith("deleted")] == ["deleted p1", "deleted p2", "deleted p3"]
    turn = ["ovnwatch gate", "ovnwatch migration mark roll-out", "deleted", "ovnwatch migration mark none"]
    assert len(log) == 3 * len(turn)
    assert all(line.startswith(wanted) for line, wanted in zip(log, turn * 3, strict=True))
    assert "--node n2" in log[5]


def test_a_daemonset_stops_where_the_gate_does(cluster: Path) -> None:
    (cluster / "left").write_text("1")
    found, log = done(cluster, *SET)
    assert (found.returncode, "stopped before n2" in found.stderr) == (2, True)
    assert [line for line in log if line.startswith("deleted")] == ["deleted p1"]
    assert "mark none" in log[-2], "no turn is left open"


def test_a_node_that_does_not_come_back_keeps_its_turn(cluster: Path) -> None:
    (cluster / "ready").write_text("timed out\n")
    found, log = done(cluster, *SET)
    assert found.returncode not in (0, 2)
    assert log[-1] == "deleted p1"


def test_a_daemonset_that_rolls_by_itself_is_left_alone(cluster: Path) -> None:
    (cluster / "strategy").write_text("RollingUpdate")
    found, log = done(cluster, *SET)
    assert (found.returncode, log) == (1, [])
    assert "want OnDelete" in found.stderr
