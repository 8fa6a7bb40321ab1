"""`ovnwatch bastion` as a process, with real peers: what it sees, what it is told, and what it does when asked."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for

pytestmark = pytest.mark.slow  # processes

PROTOCOLS = ("http", "tcp", "ws")
WORDS = {"http": "http_port", "tcp": "tcp_port", "ws": "ws_port"}
TOKEN = "secret"


class Site:
    """Peers and bastions that run for one test; `folder` holds their files and logs."""

    def __init__(self, folder: Path, running: list[Exporter]) -> None:
        self.folder = folder
        self.running = running

    def peer(self, name: str, given: Mapping[str, str] | None = None) -> Exporter:
        (self.folder / f"{name}.yaml").write_text(targets(nobody={"tcp": 1}))
        argv = {"--config.file": str(self.folder / f"{name}.yaml"), "--source": name, **ANY_PORT, **(given or {})}
        return self._start("peer", name, argv, OVNWATCH_TOKEN=TOKEN)

    def again(self, name: str, before: Exporter) -> Exporter:
        """The same peer on the same ports."""
        return self.peer(name, {f"--listen.{each}": f"127.0.0.1:{before.ports[each]}" for each in PROTOCOLS})

    def bastion(self, variables: Mapping[str, str], given: Mapping[str, str] | None = None, **more: str) -> Exporter:
        """A bastion whose variables stand in a file, as users write it."""
        self.say(variables)
        argv = {"--env-file": str(self.folder / "config.env"), "--source": "bastion", **ANY_PORT, **(given or {})}
        return self._start("bastion", f"bastion-{len(self.running)}", argv, **more)

    def say(self, variables: Mapping[str, str]) -> None:
        lines = [f"export {name}='{value}'\n" for name, value in variables.items()]
        (self.folder / "config.env").write_text("# what to probe\n" + "".join(lines))

    def _start(self, command: str, name: str, given: Mapping[str, str], **variables: str) -> Exporter:
        self.running.append(Exporter(self.folder / f"{name}.log", command, *flags(given), **variables))
        wait_for(self.running[-1].ready)
        return self.running[-1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with killed_at_the_end() as running:
        yield Site(tmp_path, running)


GOOD = {"ROUTE_PEERS": "http://127.0.0.1:1"}
Shared = tuple[Site, Exporter]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """One bastion with a token for all tests that give it a new configuration; it has whichever came last."""
    with killed_at_the_end() as running:
        site = Site(tmp_path_factory.mktemp("shared"), running)
        yield site, site.bastion(GOOD, OVNWATCH_TOKEN=TOKEN)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """One bastion for all tests that change nothing: no token, no echo but http, nothing that answers."""
    with killed_at_the_end() as running, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        site = Site(tmp_path_factory.mktemp("bare"), running)
        route = {"ROUTE_PEERS": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        yield site.bastion(route, {"--web.telemetry-path": "/own", "--listen.tcp": "off", "--listen.ws": "off"})


def targets(**peers: Mapping[str, int]) -> str:
    """A file that names targets on 127.0.0.1 by their ports."""
    return json.dumps(
        {"targets": [{"name": name, "host": "127.0.0.1", "ports": dict(ports)} for name, ports in peers.items()]}
    )


def node_ports(**peers: Exporter) -> str:
    """NODEPORT_PEERS for these."""
    return json.dumps(
        {
            name.replace("_", "-"): {"host": "127.0.0.1", **{WORDS[each]: peer.ports[each] for each in PROTOCOLS}}
            for name, peer in peers.items()
        }
    )


def data(bastion: Exporter) -> dict[str, Any]:
    status, text = bastion.get("/api/data")
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found


def words(bastion: Exporter) -> dict[str, str]:
    return {name: each["status"] for name, each in data(bastion)["external_tests"].items()}


def heard(bastion: Exporter) -> dict[str, bool | None]:
    return {each["name"]: each["heard"] for each in data(bastion)["peers"]}


def know_each_other(site: Site, **peers: Exporter) -> None:
    """Have every peer probe all others."""
    for name, peer in peers.items():
        others = {other: {each: it.ports[each] for each in PROTOCOLS} for other, it in peers.items() if other != name}
        (site.folder / f"{name}.yaml").write_text(targets(**others))
        peer.process.send_signal(signal.SIGHUP)


# --- the earlier dashboard's job


@pytest.mark.slow  # three processes until they know each other
def test_the_dashboards_variables_show_two_peers_from_outside_and_from_each_other(site: Site) -> None:
    one, two = site.peer("one"), site.peer("two")
    know_each_other(site, one=one, two=two)
    routes = f"http://127.0.0.1:{one.ports['http']}, http://localhost:{two.ports['http']}/"
    bastion = site.bastion({"NODEPORT_PEERS": node_ports(peer_1_np=one, peer_2_np=two), "ROUTE_PEERS": routes})
    names = {f"peer-{number}-np ({each.upper()})" for number in (1, 2) for each in PROTOCOLS}
    names |= {"peer-1-route (HTTP)", "peer-2-route (HTTP)"}
    wait_for(lambda: words(bastion) == dict.fromkeys(names, "connected"))
    wait_for(lambda: heard(bastion) == {"peer-1": True, "peer-2": True})

    def seen_by(name: str) -> dict[str, Any]:
        found: dict[str, Any] = data(bastion)["internal_status"][name]["connections"]
        return found

    wait_for(lambda: "two" in seen_by("peer-1-route") and "one" in seen_by("peer-2-route"))
    wait_for(lambda: {seen_by("peer-1-route")["two"][each] for each in PROTOCOLS} == {"connected"})
    found = data(bastion)
    assert set(found["internal_status"]) == {"peer-1-route", "peer-2-route"}
    assert found["internal_status"]["peer-2-route"]["source"] == "two"
    assert found["source"] == "bastion"
    assert all({"status", "error", "last_update"} == set(each) for each in found["external_tests"].values())


@pytest.mark.slow  # an outage, from its start to its end
def test_a_peer_that_dies_is_seen_from_everywhere_and_told_of_once(site: Site) -> None:
    one, two = site.peer("one"), site.peer("two")
    know_each_other(site, one=one, two=two)
    url = f"http://127.0.0.1:{one.ports['http']}"
    bastion = site.bastion(
        {
            "NODEPORT_PEERS": node_ports(peer_1_np=one, peer_2_np=two),
            "ROUTE_PEERS": f"{url},http://127.0.0.1:{two.ports['http']}",
        }
    )
    wait_for(lambda: set(words(bastion).values()) == {"connected"})
    wait_for(lambda: heard(bastion) == {"peer-1": True, "peer-2": True})
    wait_for(lambda: "one" in data(bastion)["internal_status"]["peer-2-route"]["connections"])
    wait_for(lambda: "connected" in str(data(bastion)["internal_status"]["peer-2-route"]["connections"]["one"]))

    one.end(signal.SIGKILL)
    wait_for(lambda: heard(bastion) == {"peer-1": False, "peer-2": True})
    wait_for(lambda: words(bastion)["peer-1-route (HTTP)"] == "error")
    found = data(bastion)
    assert set(found["internal_status"]["peer-1-route"]) == {"error", "url"}
    assert found["internal_status"]["peer-1-route"]["url"].startswith("http://127.0.0.1:")
    wait_for(lambda: [(each["key"], each["target"]) for each in data(bastion)["look"]] == [("target_down", "peer-1")])
    wait_for(lambda: {"bastion", "pod"} == {each["source"] for each in data(bastion)["history"]})
    assert {each["state"] for each in data(bastion)["history"]} >= {"open"}
    told = json.loads(bastion.get("/status")[1])["look"]
    assert all({"key", "text", "streams"} <= set(each) for each in told)

    site.again("one", one)
    wait_for(lambda: heard(bastion) == {"peer-1": True, "peer-2": True})
    wait_for(lambda: set(words(bastion).values()) == {"connected"})
    wait_for(lambda: {each["state"] for each in data(bastion)["history"]} <= {"closed", "truncated"})
    items = data(bastion)["history"]
    ids = [(each.get("journal"), each["id"]) for each in items]
    assert len(ids) == len(set(ids))
    pods = {each["stream"] for each in items if each["source"] == "pod" and each["kind"] == "outage"}
    assert {f"two|one|service|{each}|4" for each in PROTOCOLS} >= pods > set()
    assert {"name", "protocol", "start_time", "end_time", "duration_sec", "source", "reporter"} <= set(items[0])


LOAD_BALANCERS = """
import json, os, subprocess, sys, time, urllib.request
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
code = "import sys; from exporters.cli import main; sys.exit(main(sys.argv[1:]))"
ports = {"ws": 8080, "tcp": 8081, "http": 8082}
running = []
try:
    for number in (1, 2):
        listen = [f"--listen.{name}=127.0.{number}.1:{port}" for name, port in ports.items()]
        argv = ["peer", f"--source=p{number}", "--peers=127.0.0.9", f"--web.listen-address=127.0.{number}.1:8083"]
        argv.append("--journal.path=off")
        running.append(subprocess.Popen([sys.executable, "-c", code, *argv, *listen]))
    os.environ["METALLB_PEERS"] = json.dumps({f"peer-{number}-lb": f"127.0.{number}.1" for number in (1, 2)})
    os.environ["DASHBOARD_PORT"] = "9191"
    os.environ["STATE_DIRECTORY"] = "off"
    echoes = [f"--listen.{name}=127.0.3.1:{port}" for name, port in ports.items()]
    running.append(subprocess.Popen([sys.executable, "-c", code, "bastion", "--source=b", *echoes]))
    for _ in range(300):
        time.sleep(0.1)
        try:
            found = json.load(urllib.request.urlopen("http://127.0.0.1:9191/api/data", timeout=5))
        except OSError:
            continue
        words = {name: each["status"] for name, each in found["external_tests"].items()}
        if set(words.values()) == {"connected"} and all(each["heard"] for each in found["peers"]):
            print("FOUND", json.dumps([sorted(words), sorted(found["internal_status"])]))
            break
finally:
    for each in running:
        each.terminate()
    for each in running:
        each.wait(10)
"""


@pytest.mark.needs_root
def test_load_balancers_are_probed_on_the_peers_own_ports() -> None:
    command = ["unshare", "--net", sys.executable, "-c", LOAD_BALANCERS]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    found = re.search(r"^FOUND (.*)$", ran.stdout, re.MULTILINE)
    assert found, ran.stderr
    assert json.loads(found[1]) == [
        sorted(f"peer-{number}-lb ({each.upper()})" for number in (1, 2) for each in PROTOCOLS),
        ["peer-1-lb", "peer-2-lb"],
    ]


# --- clearing


@pytest.mark.slow  # an outage, from its start to its end
def test_clearing_needs_the_token_and_reaches_all_peers(site: Site) -> None:
    one, two = site.peer("one"), site.peer("two")
    know_each_other(site, one=one, two=two)
    bastion = site.bastion({"NODEPORT_PEERS": node_ports(peer_1_np=one, peer_2_np=two)}, OVNWATCH_TOKEN=TOKEN)
    wait_for(lambda: set(words(bastion).values()) == {"connected"})
    one.end(signal.SIGKILL)
    wait_for(lambda: {"bastion", "pod"} == {each["source"] for each in data(bastion)["history"]})
    again = site.again("one", one)
    wait_for(lambda: "open" not in {each["state"] for each in data(bastion)["history"]})
    wait_for(lambda: heard(bastion) == {"peer-1": True, "peer-2": True})
    assert json.loads(two.get("/history", "http")[1])

    assert bastion.get("/api/clear_history", method="POST")[0] == 401
    assert bastion.get("/api/clear_history", method="POST", token="wrong")[0] == 401
    assert bastion.get("/api/clear_history")[0] == 405
    assert data(bastion)["history"]
    assert bastion.get("/api/clear_history", method="POST", token=TOKEN) == (200, "history cleared")
    assert data(bastion)["history"] == []
    assert json.loads(two.get("/history", "http")[1]) == []
    again.end()
    wait_for(lambda: data(bastion)["history"])  # what comes after is shown


@pytest.mark.slow  # files are looked at every five seconds
def test_peers_are_cleared_with_the_token_as_its_file_has_it_now(site: Site) -> None:
    one = site.peer("one")
    rotated = site.folder / "token"
    rotated.write_text("before\n")
    ports = {"NODEPORT_PEERS": node_ports(peer_1_np=one)}
    bastion = site.bastion(ports, {"--web.token-file": str(rotated)})
    wait_for(lambda: heard(bastion) == {"peer-1": True})
    clear = "/api/clear_history"
    said = "history cleared\nnot that of peer-1: answers 401"
    assert bastion.get(clear, method="POST", token="before") == (200, said)
    (site.folder / "new").write_text(f"{TOKEN}\n")
    (site.folder / "new").rename(rotated)  # as the kubelet does
    wait_for(lambda: bastion.get(clear, method="POST", token=TOKEN)[0] == 200)
    assert bastion.get(clear, method="POST", token="before")[0] == 401
    assert bastion.get(clear, method="POST", token=TOKEN) == (200, "history cleared")


def test_without_a_token_nothing_can_be_cleared_or_reloaded(bare: Exporter) -> None:
    assert bare.get("/api/clear_history", method="POST", token=TOKEN)[0] == 403
    assert bare.get("/-/reload", method="POST", token=TOKEN)[0] == 403


# --- a new configuration


def probes(bastion: Exporter) -> dict[str, int]:
    return {each["stream"]: each["probes"] for each in json.loads(bastion.get("/status")[1])["streams"]}


@pytest.mark.slow  # peers asked at their intervals
def test_what_stays_goes_on_unbroken_through_a_reload(site: Site) -> None:
    one = site.peer("one")
    bastion = site.bastion({"NODEPORT_PEERS": node_ports(kept_np=one)}, OVNWATCH_TOKEN=TOKEN)
    wait_for(lambda: set(words(bastion).values()) == {"connected"})
    wait_for(lambda: heard(bastion) == {"kept": True})
    before, journal = probes(bastion), json.loads(bastion.get("/status")[1])["journal"]
    site.say({"NODEPORT_PEERS": node_ports(kept_np=one, new_np=one), "POLL_INTERVAL": "2"})
    assert bastion.get("/-/reload", method="POST", token=TOKEN) == (200, "reloaded\n")
    after = probes(bastion)
    assert set(after) == {*before, *(key.replace("kept", "new") for key in before)}
    assert all(after[key] >= before[key] for key in before)
    wait_for(lambda: heard(bastion) == {"kept": True, "new": True})
    site.say({"NODEPORT_PEERS": node_ports(new_np=one)})
    bastion.process.send_signal(signal.SIGHUP)
    wait_for(lambda: set(probes(bastion)) == {key.replace("kept", "new") for key in before})
    wait_for(lambda: set(heard(bastion)) == {"new"})
    assert json.loads(bastion.get("/status")[1])["journal"] == journal
    assert json.loads(bastion.get("/history?since=0")[1])["items"] == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"METALLB_PEERS": "{"}, "METALLB_PEERS: not JSON"),
        ({}, "targets: nothing to probe"),
        ({"ROUTE_PEERS": "http://127.0.0.1:1", "HTTP_INTERVAL": "fast"}, "HTTP_INTERVAL: not a number"),
        ({"ROUTE_PEERS": "http://127.0.0.1:1", "OVNWATCH_ZONE": "z"}, "zone: changed, which needs"),
        ({"ROUTE_PEERS": "http://127.0.0.1:1", "MAX_HISTORY": "7"}, "MAX_HISTORY: changed, which needs"),
    ],
)
def test_a_bad_new_configuration_changes_nothing_and_says_why(
    shared: Shared, variables: dict[str, str], said: str
) -> None:
    site, bastion = shared
    site.say(GOOD)
    assert bastion.get("/-/reload", method="POST", token=TOKEN)[0] == 200
    good = bastion.get("/metrics")[1]
    before, logged = set(probes(bastion)), len(bastion.said())
    site.say(variables)
    status, text = bastion.get("/-/reload", method="POST", token=TOKEN)
    assert status == 500
    assert said in text
    assert said.partition(":")[2] in bastion.said()[logged:]
    assert set(probes(bastion)) == before
    bad = bastion.get("/metrics")[1]
    name = 'ovnwatch_config_last_reload_successful{source="bastion"}'
    assert f"{name} 1.0" in good
    assert f"{name} 0.0" in bad
    stamp = re.compile(r"^ovnwatch_config_last_reload_success_timestamp_seconds.*$", re.MULTILINE)
    assert stamp.findall(good) == stamp.findall(bad) != []
    site.say({"ROUTE_PEERS": "http://127.0.0.1:2"})
    assert bastion.get("/-/reload", method="POST", token=TOKEN)[0] == 200
    assert f"{name} 1.0" in bastion.get("/metrics")[1]


# --- the rest of what it serves


def test_the_page_and_what_stands_beside_it(bare: Exporter) -> None:
    status, text = bare.get("/")
    assert status == 200
    assert "Live Migration Dashboard" in text
    assert '<a href="/own">' in text
    for path, start in (
        ("/page/page.js", "// Wires"),
        ("/page/page.css", "/* Calm"),
        ("/healthz", "ok"),
        ("/-/healthy", "hea"),
    ):
        assert bare.get(path)[1].startswith(start)
    assert "ovnwatch_peer_heard" in bare.get("/own")[1]
    assert json.loads(bare.get("/history")[1]) == []
    assert bare.get("/admin/clear_history", method="POST", token=TOKEN)[0] == 404
    assert bare.get("/status", "http")[0] == 404  # on the echo's port there is nothing but the echo


def test_a_peer_never_reached_is_unknown_everywhere(bare: Exporter) -> None:
    wait_for(lambda: heard(bare) == {"peer-1": False})
    found = data(bare)
    assert found["external_tests"]["peer-1-route (HTTP)"]["status"] == "unknown"
    assert found["peers"][0]["last_heard"] is None
    assert found["history"] == []
    assert [each["key"] for each in data(bare)["look"]] in ([], ["not_enough_known"])
    metrics = bare.get("/own")[1]
    assert 'ovnwatch_peer_heard{source="bastion",target="peer-1"} 0.0' in metrics
    assert "\novnwatch_stream_up{" not in metrics


@pytest.mark.slow  # two processes until they know each other
def test_peers_can_probe_outwards(site: Site) -> None:
    bastion = site.bastion({"ROUTE_PEERS": "http://127.0.0.1:1"})
    one = site.peer("one")
    ports = {each: bastion.ports[each] for each in PROTOCOLS}
    entry = {"name": "bastion", "path": "egress", "host": "127.0.0.1", "ports": ports}
    (site.folder / "one.yaml").write_text(json.dumps({"targets": [entry]}))
    one.process.send_signal(signal.SIGHUP)

    def streams() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(one.get("/status", "http")[1])["streams"]
        return found

    wait_for(lambda: {(each["path"], each["state"]) for each in streams()} == {("egress", "up")})
    assert {each["peer"]["address"] for each in streams()} == {"127.0.0.1"}


def test_echoes_can_be_off(bare: Exporter) -> None:
    assert set(bare.ports) == {"http", "web"}


@pytest.mark.slow  # two processes
def test_shards_share_the_streams(site: Site) -> None:
    variables = {"ROUTE_PEERS": ",".join(f"http://127.0.0.{number}:1" for number in range(1, 9))}
    shards = [site.bastion(variables, {"--shard": f"{number}/2", "--source": f"bastion-{number}"}) for number in (0, 1)]
    one, two = ({key.partition("|")[2] for key in probes(each)} for each in shards)
    assert one.isdisjoint(two)
    assert len(one | two) == 8


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_midst_of_looks(site: Site, how: int) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        port = deaf.getsockname()[1]
        bastion = site.bastion({"ROUTE_PEERS": ",".join([f"http://127.0.0.1:{port}"] * 20)})
        wait_for(lambda: "asks 20 peers" in bastion.said())
        assert bastion.end(how) == 0
    assert "Traceback" not in bastion.said()
    assert "level=error" not in bastion.said()


def test_a_signal_ends_it_while_tabs_watch(site: Site) -> None:
    bastion = site.bastion(GOOD)
    with socket.create_connection(("127.0.0.1", bastion.ports["web"])) as tab:
        tab.sendall(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        told = b""
        while b"event: beat" not in told:
            told += tab.recv(65536)
        assert bastion.end() == 0
    assert "Traceback" not in bastion.said()
    assert "level=error" not in bastion.said()


def test_nothing_to_probe_is_2(tmp_path: Path) -> None:
    bastion = Exporter(tmp_path / "log", "bastion")
    assert bastion.process.wait(30) == 2
    assert bastion.said().startswith("targets: nothing to probe: name targets in METALLB_PEERS, NODEPORT_PEERS, ROUTE_")


def test_a_bug_beside_the_probes_ends_it_too(site: Site) -> None:
    broken = (
        "import sys, exporters.bastion.lookout as lookout\n"
        "def look(*_): raise LookupError('a bug')\n"
        "lookout.look = look\n"
        "from exporters.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = flags({"--source": "b", **ANY_PORT})
    bastion = Exporter(site.folder / "log", "bastion", *argv, code=broken, ROUTE_PEERS="http://127.0.0.1:1")
    site.running.append(bastion)
    assert bastion.process.wait(30) == 1
    assert bastion.said().rstrip().endswith("LookupError: a bug")
