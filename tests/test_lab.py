"""The lab: what is planned for it, without one; then a real one, in network namespaces."""

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from running import CODE, wait_for

from exporters.calibrate import namespaces
from exporters.calibrate.namespaces import Namespace
from lab.ovn import build, change, command, run, status, topology
from lab.ovn.run import LabError
from lab.ovn.topology import EGRESS, MOST_CHASSIS, OUTSIDE, OUTSIDE_BY_HA, PORTS, VIP, Lab

T = TypeVar("T")

PLAN = Lab("ow", Path("/run/ow"))
NEEDS = ("ovs-vswitchd", "ovn-northd", "ovn-controller", "ethtool", "ping")
LONG = 30.0  # seconds; only a broken lab needs them


def said(lab: Lab) -> list[str]:
    """Every command of a plan as a line, with what it is told."""
    return [" ".join(each.argv) + each.text for each in build.commands(lab)]


# --- the plan


@pytest.mark.parametrize("lab", [PLAN, Lab("ow", Path("/run/ow"), MOST_CHASSIS, 3)], ids=lambda lab: f"{lab.chassis}")
def test_no_two_have_the_same_address(lab: Lab) -> None:
    underlays = [topology.underlay(each) for each in (*lab.chassis_names, *lab.central_names, "outside")]
    gateways = [topology.gateway_address(each) for each in lab.chassis_names]
    vips = [topology.vip(each) for each in lab.workloads]
    outside = [*underlays, *gateways, *vips, *EGRESS, VIP, OUTSIDE_BY_HA, topology.HA_GATEWAY]
    managed = [lab.management(each) for each in (*lab.hosts, "")]
    inside = [topology.join_address(each) for each in lab.chassis_names] + [build.HA_JOIN, "100.64.0.1"]
    for addresses in (outside, managed, inside, [topology.mac(each) for each in lab.workloads]):
        assert len({*addresses}) == len(addresses)
        assert all(int(each) < 255 for address in addresses if "." in address for each in address.split("."))


def test_every_name_is_short_enough_for_linux() -> None:
    lab = Lab("a123456789", Path("/" + "d" * (run.LONGEST_FOLDER - 1)), MOST_CHASSIS, 3)
    assert run.PREFIX.fullmatch(lab.prefix)
    lines = [line.split() for each in build.commands(lab) for line in each.text.splitlines()]
    links = {line[index + 1] for line in lines for index, word in enumerate(line) if word in ("add", "dev")}
    links = {each for each in links if not each[0].isdigit() and each != "default" and lab.prefix + "-c" not in each}
    assert {lab.link, "v-w39", "m-central3"} <= links
    assert all(len(each) <= 15 for each in links if not each.startswith(f"{lab.prefix}-") or each == lab.link)
    longest = lab.rundir("central3", "openvswitch") / "ovsdb-server.4194304.ctl"
    assert len(str(longest)) <= 107


def test_all_that_is_used_is_made_before() -> None:
    commands = [*build.commands(PLAN)]
    made = {line.split()[-1] for line in commands[0].text.splitlines()}
    assert made == {f"ow-{host}" for host in ("net", *PLAN.hosts)}
    assert {each.within for each in commands} - {""} <= made
    for chassis in PLAN.chassis_names:
        own = [each.argv[0] for each in commands if each.environ.get("OVS_RUNDIR") == f"/run/ow/{chassis}/openvswitch"]
        assert own[:4] == ["ovsdb-server", "ovs-vsctl", "ovs-vswitchd", "ovn-controller"]


def test_a_cluster_is_made_by_its_first_member_and_joined_by_the_others() -> None:
    lines = said(Lab("ow", Path("/run/ow"), 1, 3))
    words = [line.split()[1] for line in lines if line.startswith("ovsdb-tool") and "/central" in line]
    assert words == ["create-cluster"] * 2 + ["join-cluster"] * 4
    (remote,) = {word for line in lines for word in line.split() if word.startswith("external-ids:ovn-remote=")}
    assert remote.count("tcp:") == 3


def test_every_chassis_has_a_gateway_with_an_snat_and_the_vips() -> None:
    told = " ".join(build.logical(PLAN))
    for number in (1, 2, 3):
        assert f"set Logical_Router gr{number} options:chassis=ch{number}" in told
        assert f"lr-nat-add gr{number} snat 172.31.0.5{number} 10.0.0.0/16" in told
        assert f"lb-add lb-w{number} 172.31.0.16{number}:8080 10.0.{number}.11:8080 tcp" in told
    assert "lr-nat-add gr2 snat 172.31.0.150 10.0.1.11" in told


def test_a_lab_of_one_has_its_egress_address_where_it_can() -> None:
    assert "lr-nat-add gr1 snat 172.31.0.150 10.0.1.11" in " ".join(build.logical(Lab("ow", Path("/run/ow"), 1)))


def test_an_egress_address_that_is_there_is_changed_and_not_added_again() -> None:
    now = change.Egress("policy", "nat", "gr2")
    same = change.egress_set(now, "w1", "ch2", EGRESS[1])
    assert same[-4:] == ["set", "NAT", "nat", f"external_ip={EGRESS[1]}"]
    moved = " ".join(change.egress_set(now, "w1", "ch3", EGRESS[0]))
    assert moved.startswith(
        "set Logical_Router_Policy policy nexthops=100.64.0.13 -- lr-nat-del gr2 snat 10.0.1.11 -- "
    )
    assert moved.endswith(f"lr-nat-add gr3 snat {EGRESS[0]} 10.0.1.11")
    assert "lr-policy-add" in change.egress_set(None, "w1", "ch3", EGRESS[0])


def test_a_workload_that_moves_leaves_one_bridge_before_it_joins_another() -> None:
    assert change.unplugged(PLAN, "w1", "ch1").argv[-3:] == ("del-port", "br-int", "v-w1")
    first, *_, last = change.plugged(PLAN, "w1", "ch1", "ch2")
    assert first.text == "link set v-w1 netns ow-ch2"
    assert "external_ids:iface-id=w1" in last.argv
    assert all("netns" not in each.text for each in change.plugged(PLAN, "w1", "ch2", "ch2"))


# --- its status


def hosts(lab: Lab, state: str = "running") -> list[dict[str, Any]]:
    return [
        {"name": each, "namespace": each, "management": "", "daemons": [{"name": "a", "state": state, "pid": 1}]}
        for each in lab.hosts
    ]


def tables(lab: Lab, **changes: status.Rows | None) -> Mapping[str, status.Rows | None]:
    return {
        "chassis": [{"_uuid": f"row-{each}", "name": each} for each in lab.chassis_names],
        "ports": [
            {"logical_port": f"w{number}", "chassis": f"row-ch{number}", "up": True}
            for number in range(1, lab.chassis + 1)
        ],
        "policies": [{"match": build.egress_match("w1"), "nexthops": "100.64.0.12"}],
        "nats": [{"logical_ip": "10.0.1.11", "external_ip": EGRESS[0]}],
        **changes,
    }


def test_a_lab_is_well_if_all_runs_and_is_carried() -> None:
    found = status.judged(PLAN, hosts(PLAN), tables(PLAN))
    assert found["well"] is True
    assert [each["chassis"] for each in found["workloads"]] == ["ch1", "ch2", "ch3"]
    assert [each["egress"] for each in found["workloads"]] == [
        {"by": "gr2", "as": EGRESS[0]},
        {"by": "gr2", "as": "172.31.0.52"},
        {"by": "gr3", "as": "172.31.0.53"},
    ]


@pytest.mark.parametrize("state", ["stopped", "ended"])
def test_a_daemon_that_does_not_run_makes_it_unwell(state: str) -> None:
    assert status.judged(PLAN, hosts(PLAN, state), tables(PLAN))["well"] is False


@pytest.mark.parametrize("name", ["chassis", "ports"])
def test_databases_that_do_not_answer_make_it_unknown(name: str) -> None:
    found = status.judged(PLAN, hosts(PLAN), tables(PLAN, **{name: None}))
    assert found["well"] is None
    assert {each["up"] for each in found["workloads"]} == {None}
    assert "do not answer" in "".join(status.table(found))


def test_a_chassis_that_is_not_there_and_a_port_that_is_down_make_it_unwell() -> None:
    full = tables(PLAN)
    assert status.judged(PLAN, hosts(PLAN), tables(PLAN, chassis=(full["chassis"] or [])[:2]))["well"] is False
    down = [{**each, "up": False} for each in full["ports"] or ()]
    found = status.judged(PLAN, hosts(PLAN), tables(PLAN, ports=down))
    assert found["well"] is False
    assert "ch1 (down)" in "".join(status.table(found))


def test_a_table_of_ovsdb_is_read() -> None:
    data = [
        ["w1", ["uuid", "43be"], True],
        ["w2", ["set", []], False],
        ["w3", ["set", [["uuid", "1"], ["uuid", "2"]]], True],
    ]
    assert status.rows({"headings": ["name", "chassis", "up"], "data": data}) == [
        {"name": "w1", "chassis": "43be", "up": True},
        {"name": "w2", "chassis": None, "up": False},
        {"name": "w3", "chassis": ["1", "2"], "up": True},
    ]


# --- its command


@pytest.mark.parametrize(
    "argv",
    [
        ["up", "--chassis", "0"],
        ["up", "--chassis", str(MOST_CHASSIS + 1)],
        ["up", "--raft", "2"],
        ["up", "--prefix", "Ow"],
        ["up", "--prefix", "a1234567890"],
        ["up", "--dir", "/tmp/a b"],
        ["up", "--dir", "/" + "d" * run.LONGEST_FOLDER],
        ["exec"],
        [],
    ],
    ids=str,
)
def test_bad_flags_are_told_and_change_nothing(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(argv)
    assert ended.value.code == 1
    assert "ovnwatch lab" in capsys.readouterr().err


def test_what_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.main(["up"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "ovn-central" in told[0]
    assert told[1].endswith("missing: root")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(LabError, match="no folder of a lab"):
        run.known("ow", tmp_path)


def test_what_a_lab_needs_is_installed_with_the_rest() -> None:
    """A Debian that has no ping, say, is found out here, not by somebody's first lab."""
    listed = (Path(__file__).parents[1] / "lab/setup.sh").read_text().split("<<END\n")[1].split("\nEND\n")[0]
    packages = {line.split()[0]: line.split()[1:] for line in listed.splitlines()}
    for program, package in run.PROGRAMS.items():
        assert program in packages[package]


@pytest.mark.needs_root(*NEEDS)
def test_a_folder_that_cannot_be_made_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["up", "--prefix", prefix("n"), "--dir", "/proc/nowhere/lab"]) == 1
    assert "ovnwatch lab: [Errno 2]" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prefix": "ow", "chassis": 3}', "\xff"])
def test_a_folder_whose_lab_cannot_be_told_is_of_one_that_is_not_complete(text: str, tmp_path: Path) -> None:
    (tmp_path / run.STATE).write_text(text, encoding="latin-1")
    found = run.known("ow", tmp_path)
    assert found
    assert not found.complete


def test_a_folder_of_another_lab_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / run.STATE).write_text('{"prefix": "other", "chassis": 3, "centrals": 1, "complete": true}')
    with pytest.raises(LabError, match="prefix other"):
        run.known("ow", tmp_path)


# --- a real one


def prefix(letter: str) -> str:
    """Differs between checkouts and test workers, is the same in each run: a crash is cleared by the next."""
    where = f"{__file__} {os.environ.get('PYTEST_XDIST_WORKER')}"
    return f"ow{letter}{zlib.crc32(where.encode()) % 10**6:06d}"


@contextmanager
def built(letter: str, *argv: str) -> Iterator[Lab]:
    at = ["--prefix", prefix(letter)]
    assert command.main(["down", *at]) == 0  # what a killed run left, which `up` would go on with
    assert command.main(["up", *at, *argv]) == 0
    try:
        found = run.known(prefix(letter), run.default_folder(prefix(letter)))
        assert found
        yield found.lab
    finally:
        assert command.main(["down", *at]) == 0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with built("l") as there:
        yield there


def ovnwatch(lab: Lab, *argv: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-c", CODE, "lab", argv[0], "--prefix", lab.prefix, *argv[1:]]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)


def inside(lab: Lab, host: str, function: Callable[..., T], *args: Any) -> T:
    with closing(Namespace(lab.namespace(host))) as namespace:
        return namespace.call(function, *args)


def reaches(lab: Lab, host: str, address: str) -> bool:
    """Does one of some pings come back?"""
    argv = ("ping", "-c1", "-i0.2", "-W1", "-w10", address)
    done = subprocess.run(["ip", "netns", "exec", lab.namespace(host), *argv], check=False, capture_output=True)
    return done.returncode == 0


def arrival(lab: Lab, source: str, address: str, *hosts: str) -> tuple[str, str]:
    """Which of the hosts a TCP connection to an address comes to, and from which address it seems to come."""
    listeners = {inside(lab, host, socket.create_server, ("", PORTS[0])): host for host in hosts}
    try:
        client = inside(lab, source, socket.create_connection, (address, PORTS[0]), LONG)
        ready, _, _ = select.select([*listeners], [], [], LONG)
        connection, (seen, _) = ready[0].accept()
        connection.close()
        client.close()
        return listeners[ready[0]], seen
    finally:
        for each in listeners:
            each.close()


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_it_is_up_and_says_so(lab: Lab) -> None:
    done = ovnwatch(lab, "status", "--output=json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["well"]) == (0, True), found
    daemons = [each for host in found["hosts"] for each in host["daemons"]]
    assert len(daemons) == 3 + 3 * 3
    assert len({each["pid"] for each in daemons}) == len(daemons)
    assert [each["chassis"] for each in found["workloads"]] == ["ch1", "ch2", "ch3"]
    assert "All of it runs." in ovnwatch(lab, "status").stdout


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_workloads_reach_each_other_through_tunnels(lab: Lab) -> None:
    for one, other in itertools.permutations(lab.workloads, 2):
        assert reaches(lab, one, topology.address(other)), (one, other)
    told = run.run(build.vsctl(lab, "ch1", "--bare", "--columns=statistics", "find", "Interface", "type=geneve"))
    assert "tx_packets" in told


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_one_alone_answers_for_an_address_of_the_underlay(lab: Lab) -> None:
    """Else it is a matter of chance which answer OVS believes, and for a quarter of an hour."""
    for chassis in lab.chassis_names:
        answering = inside(lab, "outside", answers, topology.underlay(chassis))
        (link,) = json.loads(run.run(build.Run(("ip", "-j", "link", "show", "br-ex"), lab.namespace(chassis))))
        assert answering == {link["address"]}


def answers(address: str) -> set[str]:
    """The MAC addresses that answer for an address, as eth0 sees it within a second."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as sock:
        sock.bind(("eth0", 0x0806))
        own = sock.getsockname()[4]
        header = b"\xff" * 6 + own + bytes.fromhex("0806 0001 0800 0604 0001")  # RFC 826: who has
        sock.send(header + own + socket.inet_aton("0.0.0.0") + bytes(6) + socket.inet_aton(address))
        found, until = set(), time.monotonic() + 1.0
        while select.select([sock], [], [], max(0.0, until - time.monotonic()))[0]:
            packet = sock.recv(64)
            if packet[20:22] == b"\0\2" and packet[28:32] == socket.inet_aton(address):
                found.add(packet[22:28].hex(":"))
        return found


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_tcp_passes_from_workload_to_workload_as_it_is(lab: Lab) -> None:
    assert arrival(lab, "w1", topology.address("w2"), "w2") == ("w2", topology.address("w1"))


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_workload_is_seen_outside_with_its_gateways_address_or_its_egress_address(lab: Lab) -> None:
    assert arrival(lab, "w1", OUTSIDE, "outside") == ("outside", EGRESS[0])
    assert arrival(lab, "w2", OUTSIDE, "outside") == ("outside", topology.gateway_address("ch2"))
    assert arrival(lab, "w2", OUTSIDE_BY_HA, "outside") == ("outside", topology.HA_GATEWAY)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_load_balancers_lead_in_and_to_services(lab: Lab) -> None:
    for workload in lab.workloads:
        assert arrival(lab, "outside", topology.vip(workload), *lab.workloads)[0] == workload
    assert arrival(lab, "outside", VIP, *lab.workloads)[0] in lab.workloads
    assert arrival(lab, "w2", topology.CLUSTER_VIP, *lab.workloads)[0] in lab.workloads


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_the_machine_reaches_every_host_by_the_management_network(lab: Lab) -> None:
    for host in lab.hosts:
        line = ["ping", "-c1", "-W5", lab.management(host)]
        assert subprocess.run(line, check=False, capture_output=True).returncode == 0, host


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_exec_is_on_the_host_and_knows_where_its_daemons_are(lab: Lab) -> None:
    assert "system-id=ch2" in ovnwatch(lab, "exec", "ch2", "--", "ovs-vsctl", "list", "Open_vSwitch").stdout
    links = ovnwatch(lab, "exec", "ch2", "--", "sh", "-c", "ls $OVS_RUNDIR $OVN_RUNDIR; ls /sys/class/net")
    assert {"db.sock", "ovn-controller.pid", "br-int", "v-w2"} <= {*links.stdout.split()}
    assert "gr1" in ovnwatch(lab, "exec", "w1", "--", "ovn-nbctl", "lr-list").stdout
    assert ovnwatch(lab, "exec", "ch2", "--", "sh", "-c", "exit 7").returncode == 7
    assert ovnwatch(lab, "exec", "w1", "--", "echo", "a", "--", "b").stdout == "a -- b\n"
    missing = ovnwatch(lab, "exec", "ch2", "--", "nosuchcmd")
    assert (missing.returncode, missing.stderr) == (127, "ovnwatch lab: exec: no command 'nosuchcmd'\n")
    nothing = ovnwatch(lab, "exec", "ch2", "--")
    assert (nothing.returncode, "wants a command" in nothing.stderr) == (1, True)
    other = ovnwatch(Lab("ownone", Path("/run/ovnwatch-lab/ownone")), "status")
    said = "ovnwatch lab: there is no lab with prefix ownone; `ovnwatch lab up --prefix ownone` makes one\n"
    assert (other.returncode, other.stderr) == (1, said)
    wrong = ovnwatch(lab, "exec", "ch9", "--", "true")
    assert (wrong.returncode, "no host 'ch9'" in wrong.stderr) == (1, True)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_up_again_leaves_what_runs_and_starts_what_does_not(lab: Lab) -> None:
    before = {each: run.pid(each) for each in topology.all_daemons(lab)}
    assert "was up already" in ovnwatch(lab, "up").stdout
    change.stop(lab, "ch3", "ovn-controller", signal.SIGKILL)
    assert ovnwatch(lab, "status").returncode == 2
    assert "is up" in ovnwatch(lab, "up").stdout
    after = {each: run.pid(each) for each in topology.all_daemons(lab)}
    assert [each.name for each in before if before[each] != after[each]] == ["ovn-controller"]
    other = ovnwatch(lab, "up", "--chassis=2")
    assert (other.returncode, "a lab of 3 chassis is up" in other.stderr) == (1, True)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_workload_moves_with_its_address_and_back(lab: Lab) -> None:
    for chassis in ("ch1", "ch3"):
        change.move(lab, "w3", chassis)
        (found,) = (each for each in status.read(lab)["workloads"] if each["name"] == "w3")
        assert (found["chassis"], found["up"]) == (chassis, True)
        assert reaches(lab, "w2", topology.address("w3"))
        assert reaches(lab, "w3", OUTSIDE)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_an_egress_address_moves_changes_goes_and_comes(lab: Lab) -> None:
    def leaves_as(address: str) -> None:
        # The datapath forgets what it had for the old one a moment after the controllers said that they are done.
        wait_for(lambda: arrival(lab, "w1", OUTSIDE, "outside")[1] == address, LONG)

    for chassis, address in (("ch3", EGRESS[0]), ("ch3", EGRESS[1]), ("ch1", EGRESS[2])):
        change.set_egress(lab, "w1", chassis, address)
        leaves_as(address)
        (found,) = (each for each in status.read(lab)["workloads"] if each["name"] == "w1")
        assert found["egress"] == {"by": topology.gateway(chassis), "as": address}
    change.no_egress(lab, "w1")
    change.no_egress(lab, "w1")
    leaves_as(topology.gateway_address("ch1"))
    change.set_egress(lab, "w1", "ch2", EGRESS[0])
    leaves_as(EGRESS[0])


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ovn-controller", "ovs-vswitchd", "ovsdb-server"])
def test_a_daemon_restarts_with_another_pid_and_traffic_goes_on(lab: Lab, name: str) -> None:
    one = change.daemon(lab, "ch2", name)
    before = run.pid(one)
    change.restart(lab, "ch2", name)
    assert run.pid(one) not in (0, before)
    wait_for(lambda: reaches(lab, "w1", topology.address("w2")), LONG)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_chassis_restarts(lab: Lab) -> None:
    before = {run.pid(each) for each in topology.daemons(lab, "ch2").values()}
    change.restart_chassis(lab, "ch2")
    after = {run.pid(each) for each in topology.daemons(lab, "ch2").values()}
    assert 0 not in after
    assert not before & after
    wait_for(lambda: reaches(lab, "w1", topology.address("w2")), LONG)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_daemon_that_is_held_is_told_and_goes_on(lab: Lab) -> None:
    change.hold(lab, "ch2", "ovn-controller")
    found = ovnwatch(lab, "status")
    assert (found.returncode, "ovn-controller(stopped)" in found.stdout) == (2, True)
    change.go_on(lab, "ch2", "ovn-controller")
    assert ovnwatch(lab, "status").returncode == 0
    with pytest.raises(LabError, match="ch2 has no 'ovn-northd'; it has ovsdb-server ovs-vswitchd ovn-controller"):
        change.hold(lab, "ch2", "ovn-northd")


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_ovn_uses_no_translation_by_which_ovs_aborts(lab: Lab) -> None:
    change.restart(lab, "ch3", "ovs-vswitchd")
    run.run(build.nbctl(lab, "--wait=hv", "sync"))

    def used(chassis: str) -> bool:
        there = topology.environ(lab, chassis)
        return "nat(src)" in run.run(build.Run(("ovs-ofctl", "dump-flows", "br-int"), environ=there))

    wait_for(lambda: not any(map(used, lab.chassis_names)), LONG)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_cut_tunnel_separates_two_chassis_alone(lab: Lab) -> None:
    change.cut_tunnel(lab, "ch1", "ch2")
    ping = ["ip", "netns", "exec", lab.namespace("w1"), "ping", "-c3", "-i0.1", "-W1", topology.address("w2")]
    assert subprocess.run(ping, check=False, capture_output=True).returncode != 0
    assert reaches(lab, "w1", topology.address("w3"))
    change.mend_tunnel(lab, "ch2", "ch1")
    assert reaches(lab, "w1", topology.address("w2"))


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_the_gateway_fails_over_when_its_chassis_is_cut_off(lab: Lab) -> None:
    wait_for(lambda: change.ha_carrier(lab) == "ch1", LONG)
    change.cut(lab, "ch1")
    try:
        wait_for(lambda: change.ha_carrier(lab) == "ch2", LONG)
        assert reaches(lab, "w3", OUTSIDE_BY_HA)
    finally:
        change.mend(lab, "ch1")
    wait_for(lambda: change.ha_carrier(lab) == "ch1", LONG)
    wait_for(lambda: reaches(lab, "w1", topology.address("w2")), LONG)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_gateway_router_moves_with_its_address(lab: Lab) -> None:
    change.move_gateway(lab, "ch3", "ch1")
    assert reaches(lab, "outside", topology.gateway_address("ch3"))
    change.move_gateway(lab, "ch3", "ch3")
    assert reaches(lab, "outside", topology.gateway_address("ch3"))


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_databases_of_three_members_survive_their_leader() -> None:
    with built("r", "--raft=3", "--chassis=1") as lab:
        first = change.leader(lab, "sb")
        assert first in lab.central_names
        change.stop(lab, first, "ovsdb-sb", signal.SIGKILL)
        wait_for(lambda: change.leader(lab, "sb") not in ("", first), LONG)
        change.start(lab, first, "ovsdb-sb")
        run.run_all(build.ready(lab))
        assert reaches(lab, "w1", OUTSIDE)


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_down_leaves_nothing_whatever_was_there(tmp_path: Path) -> None:
    with built("d", "--chassis=1") as lab:
        pids = [run.pid(each) for each in topology.all_daemons(lab)]
        assert all(pids)
        assert lab.link in links_here()
        namespaces.clear([lab.namespace("w1")])  # as somebody may have done
        change.hold(lab, "ch1", "ovs-vswitchd")
        shell = subprocess.Popen(["ip", "netns", "exec", lab.namespace("outside"), "sleep", "1000"])
    assert shell.wait(LONG) == -signal.SIGKILL
    assert not lab.folder.exists()
    assert not left(lab.prefix)
    wait_for(lambda: not any(runs(each) for each in pids))  # who is dying has left its namespace already
    assert command.main(["down", "--prefix", lab.prefix]) == 0
    assert command.main(["status", "--prefix", lab.prefix]) == 1


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.slow
def test_a_build_that_fails_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "ovn-controller"
    broken.write_text("#!/bin/sh\necho cannot >&2; exit 3\n")
    broken.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = [sys.executable, "-c", CODE, "lab", "up", "--chassis=1", "--prefix", prefix("f")]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60, env=environ)
    assert done.returncode == 1
    assert done.stderr.startswith("ovnwatch lab: ovn-controller ")
    assert done.stderr.endswith(": cannot\n")
    assert not left(prefix("f"))
    assert not run.default_folder(prefix("f")).exists()


def left(prefix: str) -> set[str]:
    """The namespaces and links of a prefix."""
    return {each for each in (*namespaces.there(), *links_here()) if each.startswith(f"{prefix}-")}


def links_here() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
