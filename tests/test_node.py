"""`ovnwatch node` as a user runs it: settings, where daemons are, /state, --once, scrapes, restarts of OVS, its end."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import captures
import pytest
from dummy_ovs import COMMANDS, DummyOvs, dummy_ovs
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from running import CODE, Exporter, clean, killed_at_the_end, wait_for

from exporters import catalog
from exporters.exposition import Table
from exporters.node import addresses, bonds, bridges, daemons, rtnl, shown, state
from exporters.node.bridges import Bridge
from exporters.node.collectors import COLLECTORS
from exporters.node.failing import GarbledError
from exporters.node.host import Host, Paths, within
from exporters.node.links import LINK, Known, Links, Snapshot
from exporters.node.ovn.remote import Files
from exporters.node.processes import Usage
from exporters.node.rows import labels_of
from exporters.node.rtnl import Link
from exporters.node.settings import load_node
from exporters.settings import BadInput

pytestmark = pytest.mark.slow

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


# Settings.


def problems(*argv: str, **environ: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load_node(["--source=n", *argv], environ)
    return [f"{place}: {message}" for place, message in caught.value.problems]


def test_all_collectors_are_on_unless_they_are_off() -> None:
    assert load_node(["--source=n"], {}).collectors == tuple(COLLECTORS)
    off = load_node(["--source=n", "--no-collector.links", "--collector.bonds"], {}).collectors
    assert set(COLLECTORS) - set(off) == {"links"}


def test_a_file_says_what_flags_and_variables_do_not(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(
        "collectors: {links: false, bonds: true}\ncollector: {timeout: 5}\nlinks: {exclude: 'veth.*'}\n"
        "ovs: {rundir: /there, workloads: all, all_events: true}\npath: {rootfs: /host}\n"
        "web: {listen_address: ':9999'}\n"
    )
    argv = ["--source=n", f"--config.file={tmp_path / 'node.yaml'}"]
    settings = load_node([*argv, "--collector.links"], {"OVS_RUNDIR": "/here"})
    assert "links" in settings.collectors
    assert "links" not in load_node(argv, {}).collectors
    assert (settings.seconds, settings.workloads, settings.every_event) == (5, None, True)
    assert settings.exclude
    assert settings.exclude.fullmatch("veth1")
    assert (settings.paths.ovs, settings.paths.root) == ("/here", Path("/host"))
    assert settings.web_listen == ("", 9999)


def test_files_for_tls_are_relative_to_the_file_that_names_them_and_are_tried(tmp_path: Path) -> None:
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -keyout key.pem -out cert.pem"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)
    file = tmp_path / "node.yaml"
    file.write_text("ovn: {sb_db: 'ssl:db:6642', ca_file: cert.pem, cert_file: cert.pem, key_file: key.pem}\n")
    settings = load_node(["--source=n", f"--config.file={file}"], {})
    assert settings.databases.files == Files(*(str(tmp_path / each) for each in ("cert.pem", "cert.pem", "key.pem")))
    file.write_text("ovn: {ca_file: none.pem}\n")
    (told,) = problems(f"--config.file={file}")
    assert told.startswith(f"{file}:1: ovn.ca_file: ")
    assert f"{tmp_path}/none.pem" in told
    (told,) = problems("--ovn.nb-db=tcp:db:6641,ssl:db:6641")
    assert told == "--ovn.ca-file: an address of kind ssl needs --ovn.ca-file"
    (told,) = problems("--ovn.sb-db=ssl:db:6642", "--ovn.ca-file=/none.pem")
    assert told.startswith("--ovn.ca-file: ")
    assert "/none.pem" in told


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("collectors: {linx: false}\ntargets: []\novs: {workloads: -1}\n")
    told = problems(
        f"--config.file={tmp_path / 'node.yaml'}",
        "--collector.links",
        "--no-collector.links",
        "--links.exclude=(",
        "--collector.timeout=0",
        "--ovs.rundir=here",
        "--collector.linkz",
        "--output=xml",
    )
    said = "\n".join(told)
    for expected in (
        "no collector 'linx'",
        "targets",
        "workloads",
        "contradict",
        "not a regular expression",
        "want 0.1 to 60 seconds",
        "begins with /",
        "unknown flag, did you mean --collector.links?",
        "want one of text, table, json",
    ):
        assert expected in said, said


def test_nothing_to_tell_is_a_problem() -> None:
    assert problems(*(f"--no-collector.{name}" for name in COLLECTORS)) == [
        "collectors: all of them are off: there would be nothing to tell"
    ]


def test_a_configuration_is_checked_and_help_is_printed() -> None:
    def ran(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CODE, "node", *argv]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=clean({}), timeout=60)

    checked = ran("--config.check", "--no-collector.links")
    assert (checked.returncode, checked.stdout) == (0, f"configuration ok: {len(COLLECTORS) - 1} collectors\n")
    assert ran("--collector.timeout=x").returncode == 2
    told = ran("--help").stdout
    assert all(f"--collector.{name}" in told and f"--no-collector.{name}" in told for name in COLLECTORS)


# Where daemons are.


@pytest.mark.parametrize(
    ("there", "ovs", "ovn"),
    [
        (  # OpenShift: OVN's daemons are in containers, OVS' on the host
            {
                "/host/var/run/openvswitch": ["ovs-vswitchd.pid", "ovs-vswitchd.9.ctl", "db.sock"],
                "/host/var/run/ovn-ic": ["ovn-controller.pid", "ovnnb_db.sock"],
                "/host/var/run/ovn": [],
            },
            "/host/var/run/openvswitch",
            "/host/var/run/ovn-ic",
        ),
        (  # a plain host whose /var/run leads out of what is mounted
            {"/host/run/openvswitch": ["ovsdb-server.pid"], "/host/run/ovn": ["ovn-northd.pid"]},
            "/host/run/openvswitch",
            "/host/run/ovn",
        ),
        (  # MicroOVN
            {
                "/host/var/snap/microovn/common/run/switch": ["ovs-vswitchd.pid"],
                "/host/var/snap/microovn/common/run/ovn": ["ovn-controller.pid"],
            },
            "/host/var/snap/microovn/common/run/switch",
            "/host/var/snap/microovn/common/run/ovn",
        ),
        (  # left over from another packaging: the folder with daemons wins
            {"/host/var/run/openvswitch": ["db.sock"], "/host/run/openvswitch": ["ovs-vswitchd.pid"]},
            "/host/run/openvswitch",
            None,
        ),
        ({"/host/var/run/openvswitch": ["db.sock"]}, "/host/var/run/openvswitch", None),  # they stopped
        ({"/host/var/run/openvswitch": ["README"]}, None, None),
        ({}, None, None),
    ],
)
def test_daemons_are_found(there: dict[str, list[str]], ovs: str | None, ovn: str | None) -> None:
    def found(folders: tuple[str, ...], names: tuple[str, ...]) -> str | None:
        looked = daemons.candidates(folders, None, "/host")
        return daemons.choose({each: there.get(each, []) for each in looked}, names)

    assert found(daemons.OVS_FOLDERS, daemons.OVS_DAEMONS) == ovs
    assert found(daemons.OVN_FOLDERS, daemons.OVN_DAEMONS) == ovn


def test_a_folder_that_was_named_is_the_only_one() -> None:
    assert daemons.candidates(daemons.OVS_FOLDERS, "/there", "/host", "/snap") == ["/there"]
    assert daemons.candidates(daemons.OVS_FOLDERS, None, "/", "/s")[0] == "/s/run/switch"


# /state.


def device(index: int, name: str, kind: str = "physical", speed: int | None = None, **more: Any) -> Known:
    plain = Link(index, name, kind, True, True, 1500, f"52:54:00:00:00:0{index}", "", 0, 0, None, 0)
    return Known(plain._replace(**more), speed, labels_of(LINK, (name,)))


def seen() -> state.Seen:
    devices = [
        device(1, "lo", "loopback"),
        device(2, "eth0", master=4, speed=10_000_000_000),
        device(3, "eth1", master=4, up=False),
        device(4, "bond0", "bond", master=5, speed=10_000_000_000),
        device(5, "br0", "bridge"),
        device(6, "bond0.10", "vlan", parent=4, vlan_id=10),
    ]
    counters = [(each, tuple(range(len(rtnl.COUNTERS)))) for each in devices]
    reached = addresses.Reached(
        [
            rtnl.Address(5, "4", "192.0.2.1/24", True),
            rtnl.Address(5, "6", "2001:db8::1/64", False),
            rtnl.Address(6, "4", "198.51.100.1/25", False),
        ],
        [rtnl.Route("4", True, 5, "192.0.2.254", "dhcp", 0)],
        frozenset({("4", 5)}),
        ["192.0.2.53"],
    )
    return state.Seen(
        time=1_700_000_000.25,
        links=Snapshot({each.link.ifindex: each for each in devices}, counters),
        reached=reached,
        bonds={"bond0": bonds.parse(captures.text("bonding_8023ad_synthetic"))},
        bond_options={"bond0": {"mode": "802.3ad 4", "miimon": "100"}},
        bridges={"br0": Bridge({"stp_state": "1", "ageing_time": "30000"}, {"bond0": "3"})},
        autoconf=frozenset({"br0"}),
        ipv6=True,
        daemons={"ovs-vswitchd": Usage("ovs-vswitchd", 1, 1, 1, 1, 1_600_000_000), "ovsdb-server": None},
    )


def test_state_is_told_in_the_handlers_words() -> None:
    told = json.loads(json.dumps(state.state(seen())))
    have = told["capabilities"]
    assert set(have) == {"networks", "bridges", "bondings", "vlans", "nics", "nameservers", "supportsIPv6"}
    common = {
        "addr": "192.0.2.1",
        "netmask": "255.255.255.0",
        "ipv4addrs": ["192.0.2.1/24"],
        "ipv6addrs": ["2001:db8::1/64"],
        "gateway": "192.0.2.254",
        "ipv6gateway": "::",
        "ipv4defaultroute": True,
        "ipv6autoconf": True,
        "dhcpv4": True,
        "dhcpv6": False,
        "mtu": "1500",
    }
    assert have["bridges"]["br0"] == {
        "ports": ["bond0"],
        "stp": "on",
        "opts": {"stp_state": "1", "ageing_time": "30000"},
        **common,
    }
    bonding = have["bondings"]["bond0"]
    assert bonding["slaves"] == ["eth0", "eth1"]
    assert (bonding["ad_aggregator_id"], bonding["ad_partner_mac"]) == ("1", "00:11:22:33:44:55")
    assert bonding["opts"] == {"mode": "4", "miimon": "100"}
    assert (bonding["active_slave"], bonding["switch"], bonding["hwaddr"]) == ("", "legacy", "52:54:00:00:00:04")
    assert have["vlans"]["bond0.10"]["iface"] == "bond0"
    assert have["vlans"]["bond0.10"]["vlanid"] == 10
    nic = have["nics"]["eth1"]
    assert (nic["speed"], nic["permhwaddr"], nic["ad_aggregator_id"]) == (0, "52:54:00:aa:bb:02", "2")
    assert have["nics"]["eth0"]["speed"] == 10_000
    assert have["networks"]["br0"]["iface"] == "bond0"
    assert have["networks"]["br0"]["bridged"] is True
    assert have["networks"]["bond0.10"]["bridged"] is False
    assert have["nameservers"] == ["192.0.2.53"]
    assert told["statistics"]["eth0"] == {
        "name": "eth0",
        "speed": "10000",
        "state": "up",
        "rx": "2",
        "tx": "3",
        "rxErrors": "4",
        "txErrors": "5",
        "rxDropped": "6",
        "txDropped": "7",
        "sampleTime": 1_700_000_000.25,
    }
    assert told["statistics"]["eth1"]["state"] == "down"
    assert told["daemons"] == {
        "ovs-vswitchd": {"running": True, "started": "2020-09-13T12:26:40.000+00:00"},
        "ovsdb-server": {"running": False},
    }


# The command.


@pytest.fixture
def ovs() -> Iterator[DummyOvs]:
    with dummy_ovs() as running:
        running.bridge("br-int", "p1", "p2")
        yield running


def once(ovs: DummyOvs, *argv: str) -> str:
    command = [sys.executable, "-c", CODE, "node", "--once", f"--ovs.rundir={ovs.rundir}", *argv]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean({}))
    assert ran.returncode == 0, ran.stderr
    if "--output=table" in argv:
        assert "failed" not in ran.stderr  # it says so itself
    return ran.stdout


@pytest.mark.system("promtool", *COMMANDS)
def test_once_prints_a_collection_in_three_forms(ovs: DummyOvs) -> None:
    text = once(ovs)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert "_bits" not in text  # a newer promtool wants the base unit
    assert 'ovnwatch_ovs_bridge_rules{bridge="br-int"} 0\n' in text
    table = once(ovs, "--output=table", "--no-collector.links")
    assert re.search(r"^ovs_bridge_ports +bridge=br-int +3$", table, re.MULTILINE)
    assert "node_link" not in table
    told = json.loads(once(ovs, "--output", "json"))
    assert told["failures"] == {}
    assert told["metrics"]["ovnwatch_ovs_bridges"]["samples"] == [{"labels": {}, "value": 1}]


@pytest.mark.system(*COMMANDS)
def test_once_says_what_failed(ovs: DummyOvs) -> None:
    ovs.stop_daemon("ovs-vswitchd")
    told = json.loads(once(ovs, "--output=json"))
    assert "ovs-upcall" in told["failures"]
    assert "does not run" in told["failures"]["ovs-upcall"]
    assert re.search(r"^failed: ovs-upcall: .*does not run", once(ovs, "--output=table"), re.MULTILINE)


@pytest.mark.parametrize("output", ["text", "table", "json"])
def test_once_ends_in_order_where_nobody_takes_what_it_says(output: str) -> None:
    command = [sys.executable, "-c", CODE, "node", "--once", f"--output={output}", "--ovs.rundir=/nowhere"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (1, False, False)


def test_a_table_has_nothing_that_a_terminal_obeys() -> None:
    labels = labels_of(LINK, ("a\x1b[2J\u202e",))
    families = [Table("ovnwatch_node_link_up", "help", "gauge", lambda: [(labels, 1)])]
    lines = shown.table(families, {"links": "no \x07 answer"}).splitlines()
    assert lines == [r"node_link_up  link=a\u001b[2J\u202e  1", r"failed: links: no \u0007 answer"]


def get(exporter: Exporter, path: str, **headers: str) -> tuple[bytes, dict[str, str]]:
    url = f"http://127.0.0.1:{exporter.ports['web']}{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, headers=named), timeout=60) as answer:
        return answer.read(), dict(answer.headers)


@pytest.mark.system(*COMMANDS)
def test_it_serves_metrics_and_state_until_it_is_told_to_end(ovs: DummyOvs, tmp_path: Path) -> None:
    with killed_at_the_end() as running:
        argv = ("node", "--web.listen-address=127.0.0.1:0", f"--ovs.rundir={ovs.rundir}", "--source=n")
        exporter = Exporter(tmp_path / "log", *argv)
        running.append(exporter)
        wait_for(exporter.ready)
        body, headers = get(exporter, "/metrics", Accept=OPENMETRICS, Accept_Encoding="gzip")
        assert headers["Content-Encoding"] == "gzip"
        found = text_string_to_metric_families(gzip.decompress(body).decode())  # type: ignore[no-untyped-call]
        families = {family.name: family for family in found}
        known = catalog.load().metrics
        ours = {sample.name for family in families.values() for sample in family.samples if "ovnwatch" in sample.name}
        assert ours <= known.keys()
        assert families["ovnwatch_node"].samples[0].labels == {"k8s_node": "n"}
        assert all(sample.value == 1 for sample in families["ovnwatch_node_collector_success"].samples)
        assert {sample.labels["bridge"] for sample in families["ovnwatch_ovs_bridge_rules"].samples} == {"br-int"}
        told = json.loads(get(exporter, "/state")[0])
        assert told["statistics"]["lo"]["state"] == "up"
        assert told["daemons"]["ovs-vswitchd"]["running"] is True
        maps = Path(f"/proc/{exporter.process.pid}/maps").read_text()
        assert "uvloop" not in maps, "it takes megabytes that nobody needs here"
        assert {b"/metrics", b"/state"} <= set(re.findall(rb'href="([^"]*)"', get(exporter, "/")[0]))
        ovs.stop_daemon("ovs-vswitchd", signal.SIGKILL)
        page = get(exporter, "/metrics")[0].decode()
        assert 'ovnwatch_node_collector_success{collector="ovs-upcall"} 0' in page
        assert "ovnwatch_ovs_upcall_flows" not in page
        ovs.start_vswitchd()
        wait_for(lambda: 'success{collector="ovs-upcall"} 1' in get(exporter, "/metrics")[0].decode())
        said = exporter.said()
        assert said.count("collector ovs-upcall failed") == said.count("collector ovs-upcall works again") == 1
        assert exporter.end() == 0
        assert 'msg="ending: SIGTERM"' in exporter.said()


@pytest.mark.system(*COMMANDS)
def test_a_scraper_in_a_hurry_is_answered(ovs: DummyOvs, tmp_path: Path) -> None:
    with killed_at_the_end() as running:
        argv = ("node", "--web.listen-address=127.0.0.1:0", f"--ovs.rundir={ovs.rundir}", "--collector.timeout=50")
        exporter = Exporter(tmp_path / "log", *argv)
        running.append(exporter)
        wait_for(exporter.ready)
        ovs.daemons["ovs-vswitchd"].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        page = get(exporter, "/metrics", X_Prometheus_Scrape_Timeout_Seconds="4")[0].decode()
        print(f"answered after {time.monotonic() - began:.2f} s")
        assert 'success{collector="ovs-upcall"} 0' in page
        assert 'success{collector="links"} 1' in page
        assert get(exporter, "/-/healthy")[0] == b"healthy\n"


def test_a_daemon_of_ovn_that_ended_in_order_is_told_to_be_down(tmp_path: Path) -> None:
    """It takes its pid file along, and the last one's folder is as if OVN had never been there."""
    proc, rundir = tmp_path / "proc", tmp_path / "run/ovn"
    for folder in (proc / "77", rundir):
        folder.mkdir(parents=True)
    (proc / "stat").write_text("cpu0 1 1\nbtime 1000\n")
    (proc / "77/stat").write_text(f"77 (ovn-controller) S {'1 ' * 40}")
    (rundir / "ovn-controller.pid").write_text("77\n")
    host = Host(Paths(root=tmp_path, proc=proc), Links())
    try:
        assert {name: usage is not None for name, usage in host.usage().items()} == {"ovn-controller": True}
        (rundir / "ovn-controller.pid").unlink()
        assert host.usage() == {"ovn-controller": None}
    finally:
        host.close()


@pytest.fixture
def space() -> Iterator[str]:
    """A network namespace with a bridge of two ports, of which one is up, and an address; and a bridge with STP."""
    name = "ownode"
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    commands = """
        link set lo up
        link add br0 type bridge ageing_time 12300
        link add br1 type bridge stp_state 1
        link add la type veth peer name lb
        link add lc type veth peer name ld
        link set la master br0
        link set lc master br0
        link set la up
        link set lb up
        link set br0 up
        addr add 192.0.2.1/24 dev br0
        route add default via 192.0.2.254
    """
    try:
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=commands, text=True, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.needs_root
def test_bridges_are_what_the_kernel_says(space: str, tmp_path: Path) -> None:
    with killed_at_the_end() as running:
        argv = ("node", "--web.listen-address=127.0.0.1:0", "--source=n")
        exporter = Exporter(tmp_path / "log", *argv, within=space)
        running.append(exporter)
        wait_for(exporter.ready)

        def value(series: str) -> str:
            found = re.search(
                rf"^{re.escape(f'ovnwatch_node_{series}')} (.*)$", exporter.get("/metrics")[1], re.MULTILINE
            )
            assert found, series
            return found[1]

        wait_for(lambda: value('bridge_ports_forwarding{bridge="br0"}') == "1")
        assert value('bridge_ports{bridge="br0"}') == "2"
        assert (value('bridge_stp{bridge="br0"}'), value('bridge_stp{bridge="br1"}')) == ("0", "1")
        assert value('addresses{family="4"}') == "2"
        told = json.loads(exporter.get("/state")[1])["capabilities"]
        assert told["bridges"]["br0"]["ports"] == ["la", "lc"]
        if "vlan_filtering" in told["bridges"]["br0"]["opts"]:  # a kernel may be built without
            assert value('bridge_vlan_filtering{bridge="br0"}') == "0"
        assert told["bridges"]["br1"]["stp"] == "on"
        assert told["bridges"]["br0"]["addr"] == "192.0.2.1"
        assert told["networks"]["br0"]["ipv4defaultroute"] is True
        assert told["nics"]["la"]["speed"] == 10_000
        ran = subprocess.run(["ip", "-n", space, "-j", "-d", "link", "show", "br0"], capture_output=True, check=True)
        options = json.loads(ran.stdout)[0]["linkinfo"]["info_data"]
        assert told["bridges"]["br0"]["opts"]["ageing_time"] == str(options["ageing_time"]) == "12300"
        subprocess.run(["ip", "-n", space, "link", "del", "br0"], check=True)
        assert 'bridge="br0"' not in exporter.get("/metrics")[1]
        assert exporter.end() == 0


def test_a_bridge_that_filters_vlans_says_so() -> None:
    bridge = Bridge({"stp_state": "0", "vlan_filtering": "1"}, {"a": "3", "b": "0"})
    assert {row.name.removeprefix("ovnwatch_node_bridge_"): row.value for row in bridges.rows("br0", bridge)} == {
        "ports": 2,
        "ports_forwarding": 1,
        "stp": False,
        "vlan_filtering": True,
    }
    with pytest.raises(GarbledError):
        list(bridges.rows("br0", Bridge({"stp_state": "on"}, {})))


def test_a_link_below_the_nodes_root_is_meant_from_there(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/a").write_text("")
    (tmp_path / "etc/b").symlink_to("/run/resolve/b")
    (tmp_path / "etc/c").symlink_to("a")
    assert within(tmp_path, "etc/a") == tmp_path / "etc/a"
    assert within(tmp_path, "etc/b") == tmp_path / "run/resolve/b"
    assert within(tmp_path, "etc/c") == tmp_path / "etc/c"
