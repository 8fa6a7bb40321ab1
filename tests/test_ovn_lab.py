"""What moves in the metrics of a whole OVN when one thing in it is changed on purpose, and that nothing else does.

A fault counts from when OVN's own tools tell of it: by then one scrape must. `-s` prints how long both took, which is
the table in docs/node.md.
"""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import wait_for
from test_lab import NEEDS, built
from test_ovs import Looked

from exporters import catalog
from exporters.node.host import Databases, Host, Paths
from exporters.node.links import Links
from exporters.node.ovn import remote
from exporters.node.ovn.remote import Files
from exporters.node.scrape import Scrape
from lab.ovn import build, change, run, topology
from lab.ovn.topology import EGRESS, Lab

pytestmark = [pytest.mark.needs_root(*NEEDS), pytest.mark.system(*NEEDS), pytest.mark.slow]
CENTRAL = ("ovn-northd", "ovn-servers")
SECONDS = 10.0  # of a collection
LONG = 30.0  # for what OVN needs to settle; only a broken lab needs it
# What moves by itself, or with every change of the databases: times, work done, sizes, numbers of configurations.
RESTLESS = re.compile(
    r"ovn_(stopwatch|engine|flow_cache|rows|config|database_bytes|southbound_config|chassis_config|controller_config"
    r"|controller_start|raft_log|raft_peer_heard|raft_entries|raft_peer_entries)|ovs_memory|node_collector_duration"
)


class Site:
    """A lab and what exporters on each central and chassis tell; the first central's watch the databases, too."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.scrapes = {each: self._scrape(each, "ovn-controller") for each in lab.chassis_names}
        self.scrapes |= {each: self._scrape(each, *CENTRAL) for each in lab.central_names}
        # At any member of the clusters, as a node does that is told where they are.
        self.scrapes |= {"databases": self._scrape("central1", "ovn-northbound", "ovn-southbound")}

    def _scrape(self, host: str, *names: str) -> Scrape:
        paths = Paths(
            ovs=str(self.lab.rundir(host, "openvswitch")),
            ovn=str(self.lab.rundir(host, "ovn")),
        )
        found = Databases(remote.parse(self.lab.sockets("nb")), remote.parse(self.lab.sockets("sb")))
        return Scrape(Host(paths, Links(), databases=found), names, SECONDS, catalog.load())

    def looked(self) -> dict[tuple[str, ...], float]:
        """One scrape of each, but for what is restless, with who told it."""
        return {
            (host, *key): value
            for host, scrape in self.scrapes.items()
            for key, value in Looked(scrape).items()
            if not RESTLESS.match(key[0])
        }

    def of(self, host: str, name: str) -> dict[tuple[str, ...], float]:
        return Looked(self.scrapes[host]).of(name)

    def failures(self, host: str) -> dict[str, str]:
        return Looked(self.scrapes[host]).failures

    def close(self) -> None:
        for each in self.scrapes.values():
            each.host.close()


def moved(before: dict[tuple[str, ...], float], after: dict[tuple[str, ...], float]) -> set[str]:
    """Names of metrics of which a series came, went or has another value."""
    return {key[1] for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with built("o", "--raft", "3") as lab:
        made = Site(lab)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def before(site: Site) -> dict[tuple[str, ...], float]:
    """What all tell once BFD has found all tunnels, and while nothing happens: twice the same."""

    def quiet() -> bool:
        looked = site.looked()
        up = all(looked.get((each, "ovn_tunnels_up")) == 2 for each in site.lab.chassis_names)
        home = ("databases", "ovn_gateway_info", "cr-ha-ext-ha", "ch1") in looked  # which it prefers
        failing = any(key[1] == "node_collector_success" and not value for key, value in looked.items())
        return up and home and not failing and not moved(looked, site.looked())

    wait_for(quiet, LONG)
    return site.looked()


Before = dict[tuple[str, ...], float]


def moved_keys(before: Before, after: Before) -> set[tuple[str, ...]]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def tells(site: Site, before: Before, fault: Callable[[], object], known: Callable[[], bool]) -> Before:
    """What one scrape tells after a fault, once OVN's own tools `known` it; prints how long each took, what moved."""
    began = time.monotonic()
    fault()
    wait_for(known, LONG)
    told = time.monotonic()
    after = site.looked()
    names: dict[str, set[str]] = {}
    for host, name, *_ in moved_keys(before, after):
        names.setdefault(name, set()).add(host)
    print(f"OVN knows after {told - began:.2f} s, a scrape of all took {time.monotonic() - told:.2f} s; what moved:")
    for name, hosts in sorted(names.items()):
        print(f"    {name} ({', '.join(sorted(hosts))})")
    return after


def at_once() -> bool:
    """Who did it had waited until OVN knew."""
    return True


SNAT = {"ovn_snat_info", "ovn_snat_moves_total", "ovn_snat_move_timestamp_seconds"}
GATEWAY = {"ovn_gateway_info", "ovn_gateway_moves_total", "ovn_gateway_move_timestamp_seconds"}


def test_an_egress_address_that_moves(site: Site, before: Before) -> None:
    after = tells(site, before, lambda: change.set_egress(site.lab, "w1", "ch3", EGRESS[0]), at_once)
    assert moved(before, after) == SNAT
    held = [key for key in site.of("databases", "ovn_snat_info") if key[2] == EGRESS[0]]
    assert held == [("gr3", "ch3", EGRESS[0], topology.address("w1"))]
    assert site.of("databases", "ovn_snat_moves_total")[()] == before["databases", "ovn_snat_moves_total"] + 1


def test_a_gateway_router_that_is_pinned_to_another_chassis_takes_its_addresses_along(
    site: Site, before: Before
) -> None:
    try:
        assert moved(before, tells(site, before, lambda: change.move_gateway(site.lab, "ch2", "ch1"), at_once)) == SNAT
    finally:
        change.move_gateway(site.lab, "ch2", "ch2")


def test_a_controller_that_is_held_falls_behind_and_its_chassis_stays(site: Site, before: Before) -> None:
    change.hold(site.lab, "ch2", "ovn-controller")
    try:
        after = tells(site, before, lambda: run.run(build.nbctl(site.lab, "--wait=sb", "sync")), at_once)
        seen = {key[1] for key in moved_keys(before, after) if key[0] == "databases"}
        assert seen == {"ovn_chassis_behind", "ovn_chassis_lag_seconds", "ovn_chassis_lag_most_seconds"}
        assert after["databases", "ovn_chassis_behind"] == 1
        assert after["databases", "ovn_chassis"] == 3
        assert after["databases", "ovn_chassis_lag_seconds", "ch2"] > 0
        assert after["databases", "ovn_chassis_lag_seconds", "ch1"] == 0
        assert list(site.failures("ch2")) == ["ovn-controller"]
        assert {key[0] for key in moved_keys(before, after)} == {"databases", "ch2"}
    finally:
        change.go_on(site.lab, "ch2", "ovn-controller")
    wait_for(lambda: site.of("databases", "ovn_chassis_behind")[()] == 0, LONG)


def test_northd_that_is_paused(site: Site, before: Before) -> None:
    active = with_status(site.lab, "Status: active")
    try:
        # Another one takes over, and the databases do not notice.
        after = tells(
            site,
            before,
            lambda: northd(site.lab, active, "pause"),
            lambda: bool(with_status(site.lab, "Status: active")),
        )
        assert moved(before, after) == {"ovn_northd_state"}
        states = {key[2]: value for key, value in after.items() if key[:2] == (active, "ovn_northd_state")}
        assert states == {"active": 0, "standby": 0, "paused": 1}
        assert sum(value for key, value in after.items() if key[1:] == ("ovn_northd_state", "active")) == 1
    finally:
        northd(site.lab, active, "resume")


def test_every_northd_that_is_paused(site: Site, before: Before) -> None:
    """Nobody carries out what is wanted: that shows once something is."""
    lab = site.lab
    try:
        after = tells(site, before, lambda: [northd(lab, each, "pause") for each in lab.central_names], at_once)
        assert moved(before, after) == {"ovn_northd_state"}
        assert not any(value for key, value in after.items() if key[1:] == ("ovn_northd_state", "active"))
        wanted = site.of("databases", "ovn_config")
        run.run(build.nbctl(lab, "set", "NB_Global", ".", f"nb_cfg={int(wanted['nb',]) + 1}"))
        config = site.of("databases", "ovn_config")
        assert config == {**wanted, ("nb",): wanted["nb",] + 1}
    finally:
        for each in lab.central_names:
            northd(lab, each, "resume")
    run.run(build.nbctl(lab, "--wait=hv", "sync"))


def with_status(lab: Lab, status: str) -> str:
    """The central whose northd says so; "": none."""
    return next((each for each in lab.central_names if northd(lab, each, "status") == status), "")


def northd(lab: Lab, central: str, command: str) -> str:
    return daemon(lab, central, "ovn-northd", command)


def daemon(lab: Lab, host: str, name: str, command: str) -> str:
    """What a daemon answers to a command."""
    folder = lab.rundir(host, "ovn")
    at = folder / f"{name}.{(folder / f'{name}.pid').read_text().strip()}.ctl"
    return run.run(build.Run(("ovs-appctl", "--timeout=5", "-t", str(at), command))).strip()


def test_a_tunnel_that_is_cut(site: Site, before: Before) -> None:
    def known() -> bool:
        return all("state=down" in tunnels(site.lab, each) for each in ("ch2", "ch3"))

    try:
        changed = moved_keys(before, tells(site, before, lambda: change.cut_tunnel(site.lab, "ch2", "ch3"), known))
        assert {key[1] for key in changed} == {"ovn_tunnels_up", "ovn_tunnel_bfd_up"}
        assert {key[0] for key in changed} == {"ch2", "ch3"}
        assert site.of("ch2", "ovn_tunnel_bfd_up") == {("ch1", "geneve"): 1, ("ch3", "geneve"): 0}
    finally:
        change.mend_tunnel(site.lab, "ch2", "ch3")
    wait_for(lambda: not moved(before, site.looked()), LONG)


def tunnels(lab: Lab, chassis: str) -> str:
    """What OVS says of the BFD of a chassis' tunnels."""
    query = ("--bare", "--columns=bfd_status", "find", "Interface", "type=geneve")
    return run.run(build.vsctl(lab, chassis, *query))


def test_a_gateway_that_another_chassis_is_given(site: Site, before: Before) -> None:
    """Without anything having failed: the gateway alone moves."""

    def change_to(priority: int) -> None:
        given = ("lrp-set-gateway-chassis", build.HA_PORT, "ch3", str(priority))
        run.run(build.nbctl(site.lab, "--wait=hv", *given))

    try:
        after = tells(site, before, lambda: change_to(200), lambda: change.ha_carrier(site.lab) == "ch3")
        assert moved(before, after) == GATEWAY
        assert after["databases", "ovn_gateway_info", "cr-ha-ext-ha", "ch3"] == 1
    finally:
        change_to(97)
    wait_for(lambda: change.ha_carrier(site.lab) == "ch1", LONG)


def test_a_gateway_that_fails_over(site: Site, before: Before) -> None:
    """Its chassis is cut off: what that one is cut off from moves as well, and nothing else."""
    carrier = change.ha_carrier(site.lab)
    assert site.of("databases", "ovn_gateway_info") == {("cr-ha-ext-ha", carrier): 1}

    def known() -> bool:
        return change.ha_carrier(site.lab) not in ("", carrier)

    try:
        after = tells(site, before, lambda: change.cut(site.lab, carrier), known)
        seen = moved_keys(before, after)
        assert {key[1] for key in seen if key[0] == "databases"} == GATEWAY
        assert {key[1] for key in seen} - GATEWAY <= {"ovn_tunnels_up", "ovn_tunnel_bfd_up", "ovn_connected"}
        assert {key[0] for key in seen if key[1] == "ovn_connected"} <= {carrier}
        assert after["databases", "ovn_gateway_moves_total"] == before["databases", "ovn_gateway_moves_total"] + 1
    finally:
        change.mend(site.lab, carrier)
    wait_for(lambda: change.ha_carrier(site.lab) == carrier, LONG)


def test_a_chassis_whose_controller_ends_in_order_and_comes_back_has_reappeared(site: Site, before: Before) -> None:
    # A signal leaves its row, so that only lag shows that it has gone; what a service does leaves none.
    daemon(site.lab, "ch3", "ovn-controller", "exit")
    try:
        wait_for(lambda: site.of("databases", "ovn_chassis")[()] == 2, LONG)
        assert list(site.failures("ch3")) == ["ovn-controller"]
    finally:
        wait_for(lambda: not run.pid(change.daemon(site.lab, "ch3", "ovn-controller")), LONG)
        change.start(site.lab, "ch3", "ovn-controller")
    wait_for(lambda: site.of("databases", "ovn_chassis_reappearances_total")[()] == 1, LONG)
    wait_for(lambda: site.of("databases", "ovn_ports_down")["workload",] == 0, LONG)


RAFT = {
    "ovn_raft_role",
    "ovn_raft_term",
    "ovn_raft_leader_changes_total",
    "ovn_raft_leader_change_timestamp_seconds",
    "ovn_raft_disconnections_total",
}


def test_a_raft_leader_that_is_killed(site: Site, before: Before) -> None:
    """Told by the members that stay: who leads changes, the database and what it holds do not."""
    lab, database = site.lab, "OVN_Southbound"
    leader = change.leader(lab, "sb")
    others = [each for each in lab.central_names if each != leader]
    try:
        after = tells(
            site,
            before,
            lambda: change.stop(lab, leader, "ovsdb-sb", signal.SIGKILL),
            lambda: change.leader(lab, "sb") != "" and all(knows_its_leader(lab, each) for each in others),
        )
        seen = {key for key in moved_keys(before, after) if key[0] in others and key[1].startswith("ovn_raft")}
        assert {key[1] for key in seen} >= RAFT - {"ovn_raft_disconnections_total"}
        assert {key[1] for key in seen} <= RAFT
        assert {key[2] for key in seen} == {database}, "not the other cluster"
        for each in others:
            name = (each, "ovn_raft_leader_changes_total", database)
            assert after[name] == before[name] + 1
            assert after[each, "ovn_raft_members", database] == 3
        assert after[leader, "node_collector_success", "ovn-servers"] == 0
        assert not any(key[0] == leader and key[2:3] == (database,) and "raft" in key[1] for key in after)
        # Who was connected to it looks for another one; northd's lock is at the leader, and may come to another.
        elsewhere = {key for key in moved_keys(before, after) if not key[1].startswith(("ovn_raft", "ovn_database"))}
        assert {key[1] for key in elsewhere if key[0] not in ("databases", leader)} <= {
            "ovn_connected",
            "ovn_northd_state",
        }
        wait_for(lambda: not site.failures("databases"), LONG)
        # A watch that lost its server goes on with what it knew.
        now = site.looked()
        for told in ("ovn_gateway_moves_total", "ovn_snat_moves_total", "ovn_chassis_reappearances_total"):
            assert now["databases", told] == before["databases", told]
    finally:
        change.start(lab, leader, "ovsdb-sb")


def knows_its_leader(lab: Lab, central: str) -> bool:
    control = lab.rundir(central, "ovn") / "ovnsb_db.ctl"
    told = run.run(build.Run(("ovs-appctl", "--timeout=5", "-t", str(control), "cluster/status", "OVN_Southbound")))
    return "Leader: unknown" not in told


# --- databases that cannot be read


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A southbound database without OVN, that also speaks TLS; its folder."""
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -keyout key.pem -out cert.pem"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)
    schema = (Path("/usr/share/ovn/ovn-sb.ovsschema")).read_text()
    (tmp_path / "old.ovsschema").write_text(schema.replace('"nb_cfg_timestamp"', '"another"'))
    newer = json.loads(schema)
    newer["version"] = "99.0.0"
    newer["tables"]["Invented"] = {"columns": {"name": {"type": "string"}}}
    newer["tables"]["Chassis"]["columns"]["invented"] = {"type": {"key": "string", "min": 0, "max": "unlimited"}}
    (tmp_path / "newer.ovsschema").write_text(json.dumps(newer))
    with (
        Served(tmp_path, "/usr/share/ovn/ovn-sb.ovsschema", "new"),
        Served(tmp_path, "old.ovsschema", "old"),
        Served(tmp_path, "newer.ovsschema", "newer"),
    ):
        yield tmp_path


class Served:
    """An ovsdb-server with a new database of that schema, as a process of ours."""

    def __init__(self, folder: Path, schema: str, name: str, *, tls: bool = True) -> None:
        subprocess.run(["ovsdb-tool", "create", f"{name}.db", schema], check=True, cwd=folder)
        remotes = [f"--remote=punix:{folder}/{name}.sock"]
        if tls:
            remotes += ["--remote=pssl:0:127.0.0.1", "--private-key=key.pem", "--certificate=cert.pem"]
            remotes += ["--ca-cert=cert.pem"]
        self.log = folder / f"{name}.log"
        self.process = subprocess.Popen(
            [
                "ovsdb-server",
                f"{name}.db",
                *remotes,
                f"--log-file={self.log}",
                f"--unixctl={folder}/{name}.ctl",
            ],
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        wait_for((folder / f"{name}.sock").exists, LONG)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)


def only(tmp_path: Path, at: str, files: Files | None = None) -> tuple[str, int]:
    """Why the southbound collector fails with that address, and how many metrics it has."""
    databases = Databases(southbound=remote.parse(at), files=files or Files())
    scrape = Scrape(
        Host(Paths(ovn=str(tmp_path)), Links(), databases=databases), ("ovn-southbound",), 5, catalog.load()
    )
    try:
        looked = Looked(scrape)
        return looked.failures.get("ovn-southbound", ""), len(looked.of("ovn_rows"))
    finally:
        scrape.host.close()


def ssl_port(folder: Path) -> str:
    found = re.search(r"0:127.0.0.1: listening on port (\d+)", (folder / "new.log").read_text())
    assert found, (folder / "new.log").read_text()
    return found[1]


def test_a_database_is_read_by_tls_and_what_is_wrong_is_said(scratch: Path) -> None:
    own = [str(scratch / each) for each in ("cert.pem", "cert.pem", "key.pem")]
    at = f"ssl:127.0.0.1:{ssl_port(scratch)}"
    assert only(scratch, at, Files(*own)) == ("", 9)
    assert "needs --ovn.ca-file" in only(scratch, at)[0]
    assert "cannot be used" in only(scratch, at, Files(str(scratch / "none.pem")))[0]
    assert "TLS fails" in only(scratch, at, Files("/etc/ssl/certs/ca-certificates.crt"))[0]
    assert "nobody listens" in only(scratch, f"unix:{scratch}/none.sock")[0]
    assert "Connection refused" in only(scratch, "tcp:127.0.0.1:1")[0]
    # The second of two that answers is enough.
    assert only(scratch, f"tcp:127.0.0.1:1,unix:{scratch}/new.sock") == ("", 9)


def test_a_newer_schema_that_has_all_we_need_is_read(scratch: Path) -> None:
    assert only(scratch, f"unix:{scratch}/newer.sock") == ("", 9)


def test_a_column_that_is_missing_is_named(scratch: Path) -> None:
    failure, rows = only(scratch, f"unix:{scratch}/old.sock")
    assert "no column Chassis_Private.nb_cfg_timestamp" in failure
    assert rows == 0


def test_a_server_that_is_held_costs_its_collector_and_shows_nothing_old(site: Site, before: Before) -> None:
    lab = site.lab
    watching = Databases(southbound=remote.parse(f"unix:{lab.rundir('central2', 'ovn')}/ovnsb_db.sock"))
    host = Host(Paths(ovn=str(lab.rundir("central2", "ovn"))), Links(), databases=watching)
    scrape = Scrape(host, ("ovn-southbound",), 2, catalog.load())
    try:
        assert not Looked(scrape).failures
        change.hold(lab, "central2", "ovsdb-sb")
        began = time.monotonic()
        looked = Looked(scrape)
        assert list(looked.failures) == ["ovn-southbound"]
        assert not looked.of("ovn_chassis")
        assert time.monotonic() - began < SECONDS
    finally:
        change.go_on(lab, "central2", "ovsdb-sb")
        host.close()
