"""The bed of the fast tests of OVS: a real one whose datapath is simulated, as any user."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dummy_ovs import COMMANDS, DummyOvs, dummy_ovs

TESTS = Path(__file__).parent
pytestmark = pytest.mark.system(*COMMANDS)


@pytest.fixture
def ovs() -> Iterator[DummyOvs]:
    with dummy_ovs() as running:
        yield running


def test_it_forwards_what_its_rules_say_and_counts_it(ovs: DummyOvs) -> None:
    ovs.bridge("br-int", "p1", "p2")
    ovs.ofctl("add-flow", "br-int", "in_port=1,actions=output:2")
    for _ in range(3):
        ovs.receive("p1")
    told = ovs.appctl("dpctl/show")
    assert "system@ovs-system" in told
    hit, missed = re.findall(r"hit:(\d+) missed:(\d+)", told)[0]
    assert int(hit) + int(missed) == 3
    assert int(missed) >= 1
    assert "rx pkts=3" in ovs.ofctl("dump-ports", "br-int", "p1")


def test_a_restarted_daemon_has_a_new_control_socket_and_the_same_bridges(ovs: DummyOvs) -> None:
    ovs.bridge("br-int", "p1")
    before = ovs.control("ovs-vswitchd")
    ovs.stop_daemon("ovs-vswitchd", signal.SIGKILL)
    assert before.exists()
    ovs.start_vswitchd()
    assert ovs.control("ovs-vswitchd") != before
    assert ovs.appctl("ofproto/list").split() == ["br-int"]


def test_its_clock_moves_when_it_is_told(ovs: DummyOvs) -> None:
    ovs.appctl("time/stop")
    ovs.appctl("time/warp", "60000")
    assert "Event coverage" in ovs.appctl("coverage/show")


def test_nothing_of_it_is_left() -> None:
    with dummy_ovs() as ovs:
        pids = [daemon.pid for daemon in ovs.daemons.values()]
        ovs.daemons["ovs-vswitchd"].send_signal(signal.SIGSTOP)
    assert not ovs.rundir.parent.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.needs_root("setpriv")
def test_it_needs_no_privileges() -> None:
    code = (
        "from dummy_ovs import dummy_ovs\n"
        "with dummy_ovs() as ovs: ovs.bridge('br-int', 'p1'); print(ovs.appctl('ofproto/list'), end='')"
    )
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    command = [*drop, sys.executable, "-c", code]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=TESTS)
    assert (ran.stdout, ran.returncode) == ("br-int\n", 0), ran.stderr
