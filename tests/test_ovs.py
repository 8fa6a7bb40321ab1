"""Every family of OVS compared with what its own tools say, its counters moved on purpose, its daemons broken."""

import contextlib
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from dummy_ovs import COMMANDS, PING, DummyOvs, dummy_ovs
from fake_daemon import Talk, answering, daemon, drip, silent
from running import wait_for

from exporters import catalog
from exporters.node.collectors import COLLECTORS
from exporters.node.host import Host, Paths
from exporters.node.links import Links
from exporters.node.rpc import Deadline
from exporters.node.scrape import GRACE, Scrape
from exporters.node.unixctl import Unixctl

pytestmark = pytest.mark.system(*COMMANDS)
OF_OVS = [name for name in COLLECTORS if name.startswith("ovs-")]
OF_VSWITCHD = {name for name in OF_OVS if name not in ("ovs-database", "ovs-interfaces")}
PATIENT = 20.0  # seconds of a collection that is meant to succeed
SHORT = 3.0  # of one in which some are to fail, and the others are not
DP = "system@ovs-system"


class Looked(Mapping[tuple[str, ...], float]):
    """One collection: values by metric (without ovnwatch_) and label values, as the catalogue orders those."""

    def __init__(self, scrape: Scrape) -> None:
        known = catalog.exported()
        self.collected = scrape.run()
        self.failures = {name: each.failure for name, each in self.collected.items() if each.failure}
        self.found = {
            (table.sample_name.removeprefix("ovnwatch_"), *(labels.pairs[each] for each in names)): value
            for table in scrape.tables(self.collected)
            for names in [known.metric(table.sample_name).labels]
            for labels, value in table.rows()
        }

    def __getitem__(self, key: tuple[str, ...]) -> float:
        return self.found[key]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        return {key[1:]: value for key, value in self.items() if key[0] == name}


@contextlib.contextmanager
def scraping(rundir: Path, *names: str, seconds: float = PATIENT, workloads: int | None = 20) -> Iterator[Scrape]:
    links = Links()
    host = Host(Paths(ovs=str(rundir)), links, workloads=workloads)
    scrape = Scrape(host, names or ("daemons", *OF_OVS), seconds, catalog.load())
    try:
        yield scrape
    finally:
        links.close()


@pytest.fixture
def ovs() -> Iterator[DummyOvs]:
    with dummy_ovs() as running:
        yield running


@pytest.fixture
def scrape(ovs: DummyOvs) -> Iterator[Scrape]:
    with scraping(ovs.rundir) as made:
        yield made


def numbers(text: str, pattern: str) -> list[int]:
    found = re.search(pattern, text)
    assert found, text
    return [int(each) for each in found.groups()]


def test_datapath_upcalls_memory_and_rules_are_what_the_tools_say(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1", "p2")
    ovs.bridge("br-ex")
    ovs.ofctl("add-flow", "br-int", "in_port=1,actions=output:2")
    ovs.receive("p1")
    ovs.receive("p1")
    ovs.appctl("time/stop")  # flows stay as they are
    looked = Looked(scrape)
    assert not looked.failures
    told = ovs.appctl("dpctl/show")
    hit, missed, lost = numbers(told, r"lookups: hit:(\d+) missed:(\d+) lost:(\d+)")
    assert looked["ovs_datapath_lookups_hit_total", DP] == hit
    assert looked["ovs_datapath_lookups_missed_total", DP] == missed
    assert looked["ovs_datapath_lookups_lost_total", DP] == lost
    assert looked["ovs_datapath_flows", DP] == numbers(told, r"flows: (\d+)")[0] == 1
    assert looked["ovs_datapath_ports", DP] == len(re.findall(r"port \d+:", told)) == 5
    current, average, most, limit = numbers(
        ovs.appctl("upcall/show"), r"current (\d+)\) \(avg (\d+)\) \(max (\d+)\) \(limit (\d+)"
    )
    assert looked["ovs_upcall_flows", DP] == current
    assert looked["ovs_upcall_flows_average", DP] == average
    assert looked["ovs_upcall_flows_most", DP] == most
    assert looked["ovs_upcall_flow_limit", DP] == limit
    for target in ("ovs-vswitchd", "ovsdb-server"):
        for item, count in re.findall(r"(\S[^:]*):(\d+)", ovs.appctl("memory/show", daemon=target)):
            if item not in ("idl-cells-Open_vSwitch", "atoms", "cells", "sessions"):  # they move by themselves
                assert looked["ovs_memory_items", target, item.strip()] == int(count)
    assert looked["ovs_conntrack_connections", DP] == int(ovs.appctl("dpctl/ct-get-nconns"))
    assert looked["ovs_conntrack_connections_limit", DP] == int(ovs.appctl("dpctl/ct-get-maxconns"))
    for bridge in ("br-int", "br-ex"):
        assert (
            looked["ovs_bridge_rules", bridge] == numbers(ovs.ofctl("dump-aggregate", bridge), r"flow_count=(\d+)")[0]
        )
    assert looked.of("ovs_bridge_rules") == {("br-int",): 1, ("br-ex",): 0}


def test_the_database_is_what_vsctl_says(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1")
    ovs.vsctl("set-controller", "br-int", "tcp:127.0.0.1:9")
    ovs.vsctl("set", "Open_vSwitch", ".", "ovs_version=9.8.7", "system_type=there", "other_config:hw-offload=true")
    ovs.vsctl("--", "add-port", "br-int", "bad", "--", "set", "Interface", "bad", "type=nonsense")
    looked = Looked(scrape)
    assert not looked.failures
    current, following = (ovs.vsctl("get", "Open_vSwitch", ".", each) for each in ("cur_cfg", "next_cfg"))
    assert looked["ovs_config_current",] == int(current) == int(following) == looked["ovs_config_next",]
    (info,) = looked.of("ovs_database_info")
    assert (info[0], info[2]) == ("9.8.7", "there")
    assert looked["ovs_hardware_offload",] == 1
    assert looked["ovs_bridges",] == 1
    assert looked.of("ovs_bridge_info") == {("br-int", "system", "secure"): 1}
    assert looked["ovs_bridge_ports", "br-int"] == len(ovs.vsctl("list-ports", "br-int").split()) + 1  # its own
    assert looked["ovs_bridge_controllers", "br-int"] == 1
    assert looked["ovs_bridge_controllers_connected", "br-int"] == 0
    assert looked["ovs_interface_error", "bad"] == 1
    assert looked["ovs_interface_error", "p1"] == 0


def test_interfaces_are_what_vsctl_says(ovs: DummyOvs) -> None:
    ovs.bridge("br-int", *(f"p{number}" for number in range(1, 6)))
    for number in range(1, 5):
        ovs.vsctl("set", "Interface", f"p{number}", f"external_ids:iface-id=w{number}")
    ovs.ofctl("add-flow", "br-int", "in_port=1,actions=output:2")
    for _ in range(3):
        ovs.receive("p1")
    ovs.vsctl("set", "Open_vSwitch", ".", "other_config:stats-update-interval=5000")

    def statistics(name: str) -> dict[str, int]:
        told = ovs.vsctl("get", "Interface", name, "statistics")
        return {key: int(count) for key, count in re.findall(r"(\w+)=(\d+)", told)}

    wait_for(lambda: statistics("p1").get("rx_packets") == 3)
    with scraping(ovs.rundir, "ovs-interfaces", workloads=2) as scrape:
        looked = Looked(scrape)
    for key, metric in (
        ("rx_packets", "receive_packets"),
        ("rx_bytes", "receive_bytes"),
        ("tx_packets", "transmit_packets"),
    ):
        for name in ("p1", "p2", "p5", "br-int"):
            assert looked[f"ovs_interface_{metric}_total", name] == statistics(name)[key]
    # p1 and p2 carried packets; of the others with a workload none is shown, what has none is.
    assert set(looked.of("ovs_interface_up")) == {("p1",), ("p2",), ("p5",), ("br-int",)}
    assert looked.of("ovs_interfaces") == {("workload",): 4, ("dummy",): 1, ("internal",): 1}
    assert looked["ovs_interface_mtu_bytes", "p1"] == int(ovs.vsctl("get", "Interface", "p1", "mtu"))


def test_coverage_is_what_appctl_says_and_0_where_it_says_nothing(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1")

    def told() -> dict[str, int]:
        return {
            name: int(total)
            for name, total in re.findall(r"^(\w+) .* total: (\d+)$", ovs.appctl("coverage/show"), re.MULTILINE)
        }

    wait_for(lambda: "bridge_reconfigure" in told())  # totals of threads are added up now and then
    before = told()
    looked = Looked(scrape)
    after = told()
    ours = {key[0]: value for key, value in looked.of("ovs_coverage_events_total").items()}
    assert all(before.get(event, 0) <= value <= after.get(event, 0) for event, value in ours.items())
    assert ours["bridge_reconfigure"] >= 1
    assert ours["rconn_overflow"] == int(ovs.appctl("coverage/read-counter", "rconn_overflow")) == 0
    if ovs.appctl("version").split()[-1] < "3.3":
        assert "long_poll_interval" not in ours  # this version does not count it


def test_upcalls_and_dropped_packets_are_counted_as_they_come(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1")
    before = Looked(scrape)
    for port in range(5):
        ovs.receive("p1", PING.replace("icmp(type=8,code=0)", f"udp(src=1,dst={port})").replace("proto=1", "proto=17"))
    missed = "ovs_datapath_lookups_missed_total", DP
    dropped = "ovs_drops_total", "drop_action_of_pipeline"
    wait_for(lambda: Looked(scrape)[missed] > before[missed])
    wait_for(lambda: Looked(scrape)[dropped] >= before[dropped] + 5)  # no rule takes them


def test_rconn_overflow_and_discarded_move_where_a_controller_does_not_read(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1")
    said = [b"", struct.pack("!BBHI", 4, 0, 8, 1), struct.pack("!BBHI", 4, 5, 8, 2)]  # hello, features
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        target = f"tcp:127.0.0.1:{door.getsockname()[1]}"
        ovs.vsctl("set-controller", "br-int", target, "--", "set", "controller", "br-int",
                  "connection_mode=out-of-band", "inactivity_probe=30000", "max_backoff=1000",
                  "controller_rate_limit=1000000", "controller_burst_limit=100000")  # fmt: skip
        door.settimeout(30)
        deaf, _ = door.accept()
    with deaf:
        deaf.sendall(b"".join(said))
        wait_for(lambda: Looked(scrape)["ovs_bridge_controllers_connected", "br-int"] == 1)
        before = Looked(scrape)
        ovs.ofctl("add-flow", "br-int", "in_port=1,actions=controller:1500")
        overflow, discarded = (
            ("ovs_coverage_events_total", "rconn_overflow"),
            ("ovs_coverage_events_total", "rconn_discarded"),
        )
        assert before[overflow] == 0
        packet = "00" * 12 + "0800" + "00" * 1400
        end = time.monotonic() + 60
        with Unixctl(ovs.rundir, "ovs-vswitchd", Deadline(90)) as vswitchd:
            while Looked(scrape)[overflow] == 0 and time.monotonic() < end:
                for _ in range(500):
                    vswitchd.run("netdev-dummy/receive", "p1", packet)
        assert Looked(scrape)[overflow] > 0
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: Looked(scrape)[discarded] > before[discarded])
    wait_for(lambda: Looked(scrape)["ovs_bridge_controllers_connected", "br-int"] == 0)


def linked(ovs: DummyOvs, name: str, *first: str, **options: str) -> list[str]:
    """Words for ovs-vsctl that make two ports, <name>0 and <name>1, the ends of one wire."""
    wire = f"unix:{ovs.rundir / name}.wire"
    more = [f"{key}={value}" for key, value in options.items()]
    return [
        *("--", "set", "Interface", f"{name}0", "type=dummy", f"options:pstream=p{wire}", *more, *first),
        *("--", "set", "Interface", f"{name}1", "type=dummy", f"options:stream={wire}", *more),
    ]


def test_bfd_flaps_are_counted(ovs: DummyOvs, scrape: Scrape) -> None:
    bfd = ("bfd:enable=true", "bfd:min_rx=100", "bfd:min_tx=100")
    ovs.vsctl("add-br", "br0", "--", "add-br", "br1", "--", "add-port", "br0", "t0", "--", "add-port", "br1", "t1",
              *linked(ovs, "t"))  # fmt: skip
    for name in ("t0", "t1"):
        ovs.vsctl("set", "Interface", name, *bfd)
    wait_for(lambda: Looked(scrape).get(("ovs_bfd_up", "t0")) == 1)
    before = Looked(scrape)
    assert before["ovs_bfd_forwarding", "t0"] == 1
    assert ("ovs_bfd_up", "br0") not in before
    ovs.vsctl("set", "Interface", "t1", "bfd:enable=false")
    wait_for(lambda: Looked(scrape)["ovs_bfd_up", "t0"] == 0)
    after = Looked(scrape)
    assert after["ovs_bfd_flaps_total", "t0"] > before["ovs_bfd_flaps_total", "t0"]
    assert str(int(after["ovs_bfd_flaps_total", "t0"])) in ovs.vsctl("get", "Interface", "t0", "bfd_status:flap_count")


def test_a_bond_fails_over_and_its_lacp_is_told(ovs: DummyOvs, scrape: Scrape) -> None:
    bond = ("bond_mode=balance-tcp", "lacp=active", "other-config:lacp-time=fast")
    ovs.vsctl("add-br", "br0", "--", "add-br", "br1",
              "--", "set", "Bridge", "br1", "other-config:hwaddr=aa:55:aa:55:00:0a",
              "--", "add-bond", "br0", "bond0", "a0", "b0", *bond, "--", "add-bond", "br1", "bond1", "a1", "b1", *bond,
              *linked(ovs, "a"), *linked(ovs, "b"))  # fmt: skip
    wait_for(lambda: Looked(scrape).get(("ovs_bond_members_enabled", "bond0")) == 2)
    wait_for(lambda: Looked(scrape).get(("ovs_bond_lacp_negotiated", "bond0")) == 1)
    looked = Looked(scrape)
    assert looked.of("ovs_bond_info")["bond0", "balance-tcp", "negotiated"] == 1
    assert looked["ovs_lacp_member_current", "bond0", "a0"] == 1
    assert looked["ovs_lacp_received_pdus_total", "bond0", "a0"] >= 1
    assert looked["ovs_interface_lacp_current", "a0"] == 1
    active = next(member for (of, member), on in looked.of("ovs_bond_member_active").items() if of == "bond0" and on)
    other = {"a0": "b0", "b0": "a0"}[active]
    ovs.appctl("netdev-dummy/set-admin-state", active, "down")
    wait_for(lambda: Looked(scrape)["ovs_bond_member_enabled", "bond0", active] == 0)
    wait_for(lambda: Looked(scrape)["ovs_bond_member_active", "bond0", other] == 1)
    assert Looked(scrape)["ovs_bond_members_enabled", "bond0"] == 1
    assert f"member {active}: disabled" in ovs.appctl("bond/show", "bond0")


def test_polling_threads_are_told_where_there_are_some(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1")
    assert not Looked(scrape).of("ovs_pmd_iterations_total")
    ovs.vsctl("add-br", "br-p", "--", "set", "Bridge", "br-p", "datapath_type=dummy", "--", "add-port", "br-p", "x0",
              "--", "set", "Interface", "x0", "type=dummy-pmd")  # fmt: skip
    wait_for(lambda: Looked(scrape).of("ovs_datapath_flows").keys() == {(DP,), ("dummy@ovs-dummy",)})
    looked = Looked(scrape)
    assert not looked.failures
    received = "ovs_pmd_receive_packets_total"
    assert {key[0] for key in looked.of(received)} == {"dummy@ovs-dummy"}
    (thread,) = looked.of(received)
    ovs.receive("x0")
    wait_for(lambda: Looked(scrape)[received, *thread] == 1)
    assert Looked(scrape)["ovs_pmd_upcalls_total", *thread] == 1


def test_daemons_are_what_proc_says_and_a_restart_is_seen(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int", "p1")
    wait_for(lambda: Looked(scrape)["ovs_coverage_events_total", "bridge_reconfigure"] >= 2)
    before = Looked(scrape)
    process = Path(f"/proc/{ovs.pid_file('ovs-vswitchd')}")
    threads = numbers((process / "status").read_text(), r"Threads:\s+(\d+)")[0]
    resident = numbers((process / "status").read_text(), r"VmRSS:\s+(\d+)")[0] * 1024
    assert before["node_daemon_threads", "ovs-vswitchd"] == threads
    assert before["node_daemon_resident_memory_bytes", "ovs-vswitchd"] == pytest.approx(resident, rel=0.2)
    assert before["node_daemon_open_files", "ovs-vswitchd"] == pytest.approx(
        len(list((process / "fd").iterdir())), abs=15
    )
    assert abs(before["node_daemon_start_timestamp_seconds", "ovs-vswitchd"] - time.time()) < 600
    version = ovs.appctl("version").split()[-1]
    assert before["node_daemon_info", "ovs-vswitchd", version] == 1
    assert not before.failures

    ovs.stop_daemon("ovs-vswitchd")
    gone = Looked(scrape)
    assert gone["node_daemon_up", "ovs-vswitchd"] == 0
    assert gone["node_daemon_up", "ovsdb-server"] == 1
    assert gone.failures.keys() >= OF_VSWITCHD
    assert not {"ovs-database", "ovs-interfaces"} & gone.failures.keys()
    assert not gone.of("ovs_datapath_flows")
    assert ("node_daemon_threads", "ovs-vswitchd") not in gone

    ovs.start_vswitchd()
    back = Looked(scrape)
    assert not back.failures
    started = "node_daemon_start_timestamp_seconds", "ovs-vswitchd"
    assert back[started] > before[started]
    events = "ovs_coverage_events_total", "bridge_reconfigure"
    assert back[events] < before[events]


@pytest.mark.slow
def test_a_stopped_daemon_costs_its_own_collectors_and_comes_back_by_itself(ovs: DummyOvs) -> None:
    ovs.bridge("br-int", "p1")
    with scraping(ovs.rundir, *OF_OVS, "links", "daemons", seconds=SHORT) as scrape:
        wait_for(lambda: not Looked(scrape).failures)
        for name, own in (
            ("ovs-vswitchd", OF_VSWITCHD),
            ("ovsdb-server", {"ovs-database", "ovs-interfaces", "ovs-memory"}),
        ):
            ovs.daemons[name].send_signal(signal.SIGSTOP)
            for _ in range(3):  # more than may wait before its door
                began = time.monotonic()
                stopped = Looked(scrape)
                spent = time.monotonic() - began
                assert stopped.failures.keys() == own | {"daemons"}
                assert stopped["node_collector_success", "links"] == 1
                assert stopped.of("node_link_up")
                # It is there, and does nothing. On a slow machine its collector may be late for once.
                late = "deadline" in stopped.failures["daemons"]
                assert late or stopped["node_daemon_up", name] == 1
                if own == OF_VSWITCHD:
                    assert not stopped.of("ovs_datapath_flows")
                    assert not stopped.of("ovs_coverage_events_total")
                    assert stopped.of("ovs_bridges")
                assert spent < SHORT + GRACE + 10  # and not for ever
            ovs.daemons[name].send_signal(signal.SIGCONT)
            wait_for(lambda: not Looked(scrape).failures)


def garbage(caller: socket.socket) -> None:
    caller.recv(100)
    caller.sendall(bytes(range(256)) * 100 + b"}")


@pytest.mark.parametrize(
    "talk",
    [
        garbage,
        silent,
        drip,
        answering(b'{"id":0,"result":"nothing you know\\n","error":null}'),
        answering(b'{"id":0,"result":[],"error":null}'),
        answering(b'{"id":0,"error":"no"}'),
    ],
)
def test_a_daemon_that_answers_garbage_fails_and_shows_nothing(tmp_path: Path, talk: Talk) -> None:
    with contextlib.ExitStack() as stack:
        for name in ("ovs-vswitchd", "ovsdb-server"):
            (tmp_path / f"{name}.pid").write_text("1\n")
            stack.enter_context(daemon(tmp_path / f"{name}.1.ctl", talk))
        stack.enter_context(daemon(tmp_path / "db.sock", talk))
        looked = Looked(stack.enter_context(scraping(tmp_path, seconds=0.3)))
    shown = {key[0] for key in looked if key[0].startswith("ovs_")}
    assert not shown
    assert looked.failures.keys() >= set(OF_OVS) - {"ovs-pmd"}
    assert looked["node_daemon_up", "ovs-vswitchd"] == 0  # process 1 is no switch


def test_no_ovs_is_a_failure_of_its_collectors_only(tmp_path: Path) -> None:
    with scraping(tmp_path, *COLLECTORS) as scrape:
        looked = Looked(scrape)
    assert looked.failures.keys() == {*OF_OVS, "daemons"}
    assert all(f"there is no OVS in {tmp_path}" in each for each in looked.failures.values())


def test_a_collector_that_never_ends_is_left_behind_and_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    go, calls = threading.Event(), []

    def stuck(host: Host, deadline: Deadline) -> Iterator[object]:
        calls.append(1)
        go.wait(30)
        yield from ()

    monkeypatch.setitem(COLLECTORS, "bonds", COLLECTORS["bonds"]._replace(collect=stuck))  # type: ignore[arg-type]
    with scraping(Path("/nowhere"), "bonds", "links", seconds=0.1) as scrape:
        for _ in range(3):
            assert Looked(scrape).failures.keys() == {"bonds"}
        assert calls == [1]
        go.set()
        wait_for(lambda: not Looked(scrape).failures)
        assert len(calls) >= 2


def test_a_bug_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(host: Host, deadline: Deadline) -> Iterator[object]:
        raise KeyError("a bug")
        yield

    monkeypatch.setitem(COLLECTORS, "bonds", COLLECTORS["bonds"]._replace(collect=broken))  # type: ignore[arg-type]
    with scraping(Path("/nowhere"), "bonds") as scrape, pytest.raises(KeyError):
        scrape.run()


def test_what_came_before_a_failure_is_shown(ovs: DummyOvs, scrape: Scrape) -> None:
    ovs.bridge("br-int")
    ovs.bridge("br-ex")
    (ovs.rundir / "br-ex.mgmt").unlink()
    looked = Looked(scrape)
    assert looked.of("ovs_bridge_rules") == {("br-int",): 0}
    assert looked.failures.keys() == {"ovs-openflow"}


def test_a_scraper_in_too_much_of_a_hurry_makes_no_collector_fail(ovs: DummyOvs) -> None:
    """Others get the same page."""
    with scraping(ovs.rundir, "ovs-memory", "links", seconds=30) as scrape:
        for allowed in ((0.001, 30.0), (30.0, 0.001), (0.001, None)):
            for each in allowed:
                scrape.allow(each)
            assert Looked(scrape).failures == {}


def test_a_scraper_in_a_hurry_gets_its_page_in_time(ovs: DummyOvs) -> None:
    with scraping(ovs.rundir, "ovs-memory", "links", seconds=30) as scrape:
        ovs.daemons["ovs-vswitchd"].send_signal(signal.SIGSTOP)
        scrape.allow(1.0)
        began = time.monotonic()
        assert Looked(scrape).failures.keys() == {"ovs-memory"}
        assert time.monotonic() - began < 15
