"""Real faults between network namespaces: does a bastion name the component that was broken?

Side "server" holds two peers, reached from outside by an address for each way in: a LoadBalancer, two NodePorts and a
Route. Inside, the peers probe each other. The bastion is on side "client", and what is between, the router, breaks.
Alerts wait a tenth of what they ship with, or what OVNWATCH_SCALE_FOR says of it.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from running import Exporter, flags, killed_at_the_end, wait_for

from alerts import command as alerts_command
from exporters import catalog
from exporters.calibrate.namespaces import TABLE, Lane, Side, lanes
from exporters.calibrate.nftables import Nftables
from lab import monitoring

PORTS = {"one": {"http": 8082, "tcp": 8081, "ws": 8080}, "two": {"http": 9082, "tcp": 9081, "ws": 9080}}
TARGETS = {"one": "peer-1", "two": "peer-2"}
SCALE_FOR = os.environ.get("OVNWATCH_SCALE_FOR", "0.1")
BALANCER, NODE_1, NODE_2, ROUTE = (f"10.100.2.{last}" for last in (11, 12, 13, 14))
FAST = {"interval": 0.2}
TO_ONE = "tcp dport 8080-8082"  # peer one's ports
SHOP = {"loadbalancer": BALANCER, "nodeport": NODE_1, "route": ROUTE}  # one target by one name
PATTERNS = {name for name, each in catalog.load().thresholds.items() if each.category == "patterns"}
LEFTOVER = "established_broken"  # what an interruption broke is told for a minute, behind all else

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]


class Place(NamedTuple):
    """A lane with peers, and the bastion that watches them."""

    lane: Lane
    peers: Mapping[str, Exporter]
    bastion: Exporter

    def look(self) -> list[tuple[str, str]]:
        """What is to blame by now, worst first: key and target."""
        return [(each["key"], each["target"] or each["source"]) for each in self.data()["look"]]

    def quiet(self) -> bool:
        """Everything works, and all peers are heard."""
        found = self.data()
        well = {each["state"] for each in found["streams"]} == {"up"}
        inside = {each["state"] for peer in self.peers.values() for each in streams(peer)} == {"up"}
        heard = all(each["heard"] for each in found["peers"])
        return well and inside and heard and {key for key, _ in self.look()} <= {LEFTOVER}

    def blames(self, key: str, target: str) -> None:
        """Wait until this is what is said first, and nothing else but leftovers."""
        found: list[tuple[str, str]] = []
        for _ in range(40):
            found = self.look()
            if found[:1] == [(key, target)] and {each for each, _ in found[1:]} <= {LEFTOVER}:
                return
            time.sleep(0.5)
        pytest.fail(f"it says {found}")

    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.bastion.get("/api/data")[1])
        return found


def streams(peer: Exporter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(peer.get("/status", "http")[1])["streams"]
    return found


def run(folder: Path, lane: Lane, side: Side, command: str, name: str, **said: Any) -> Exporter:
    config = folder / f"{name}.yaml"
    config.write_text(json.dumps({"defaults": FAST, **said}))
    listen = {f"--listen.{each}": f":{port}" for each, port in PORTS.get(name, dict.fromkeys(PORTS["one"], 0)).items()}
    argv = {"--config.file": str(config), "--source": name, "--web.listen-address": "127.0.0.1:0", **listen}
    return Exporter(folder / f"{name}.log", command, *flags(argv), within=lane.namespace(side).name)


def target(name: str, path: str, host: str, ports: Mapping[str, int]) -> dict[str, Any]:
    return {"name": name, "path": path, "host": host, "ports": dict(ports)}


def ways(name: str) -> list[dict[str, Any]]:
    """All ways from outside to a peer; a Route is http only."""
    ports, peer = PORTS[name], TARGETS[name]
    return [
        target(f"{peer}-lb", "loadbalancer", BALANCER, ports),
        target(f"{peer}@node-1", "nodeport", NODE_1, ports),
        target(f"{peer}@node-2", "nodeport", NODE_2, ports),
        target(f"{peer}-route", "route", ROUTE, {"http": ports["http"]}),
    ]


@contextmanager
def place(folder: Path, lane: Lane, sides: Mapping[str, Side], hosts: Mapping[str, str], site: Side) -> Iterator[Place]:
    """Both peers on their `sides`, each probing the other's host; the bastion at `site`, with all ways to them."""
    with killed_at_the_end() as running:
        peers = {}
        for name, other in (("one", "two"), ("two", "one")):
            mesh = [target(other, "pod", hosts[other], PORTS[other])]
            peers[name] = run(folder, lane, sides[name], "peer", name, targets=mesh)
            running.append(peers[name])
        outside = ways("one") + ways("two") if site == "client" else []
        direct = [target(TARGETS[name], "pod", hosts[name], PORTS[name]) for name in sides if site == "router"]
        bastion = run(folder, lane, site, "bastion", "bastion", targets=outside + direct)
        running.append(bastion)
        for each in running:
            wait_for(each.ready)
        yield Place(lane, peers, bastion)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with lanes("owlook", 1) as (lane,):
        for address in (BALANCER, NODE_1, NODE_2, ROUTE):
            lane.run(["ip", "address", "add", f"{address}/24", "dev", "eth0"], "server")
        sides: dict[str, Side] = {"one": "server", "two": "server"}
        hosts = dict.fromkeys(sides, lane.addresses["server", 4])
        with place(tmp_path_factory.mktemp("outside"), lane, sides, hosts, "client") as found:
            yield found


@contextmanager
def rules(lane: Lane, *wanted: str) -> Iterator[None]:
    """Rules in the router's forward chain meanwhile."""
    lane.router.call(lane.nft.run, "".join(f"add rule {TABLE} faults {each}\n" for each in wanted))
    try:
        yield
    finally:
        lane.router.call(lane.nft.run, f"flush chain {TABLE} faults")


@contextmanager
def input_rules(lane: Lane, *wanted: str) -> Iterator[None]:
    """Rules for what arrives on the server side itself, from outside and from its own processes."""
    with closing(lane.server.call(Nftables)) as nft:
        chain = "add table inet ow_look\nadd chain inet ow_look arriving { type filter hook input priority 0; }\n"
        lane.server.call(nft.run, chain + "".join(f"add rule inet ow_look arriving {each}\n" for each in wanted))
        try:
            yield
        finally:
            lane.server.call(nft.run, "delete table inet ow_look")


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("external_down", [TO_ONE]),
        ("loadbalancer_down", [f"ip daddr {BALANCER} {TO_ONE}"]),
        ("nodeports_down", [f"ip daddr {{ {NODE_1}, {NODE_2} }} {TO_ONE}"]),
        ("node_gateway_down", [f"ip daddr {NODE_2} {TO_ONE}"]),
        ("router_down", [f"ip daddr {ROUTE} {TO_ONE}"]),
        ("new_connections_fail", [f"tcp flags & (syn | ack) == syn {TO_ONE}"]),
        ("one_protocol", [f"ip daddr {BALANCER} tcp dport 8081"]),
        ("big_answers_lost", ["tcp sport 8080-8082 meta length > 1000"]),
        ("big_answers_lost", ["tcp dport 8080-8082 meta length > 1000"]),
    ],
)
def test_what_is_cut_on_the_way_is_blamed(outside: Place, key: str, wanted: Sequence[str]) -> None:
    wait_for(outside.quiet)
    with rules(outside.lane, *(f"{each} drop" for each in wanted)):
        outside.blames(key, "peer-1")


def test_a_target_that_is_reached_by_nobody_and_reaches_nobody_is_down(outside: Place) -> None:
    wait_for(outside.quiet)
    with input_rules(outside.lane, f"{TO_ONE} drop", "iif lo tcp dport 9080-9082 drop"):
        outside.blames("target_down", "peer-1")


def test_a_stopped_process_is_a_frozen_peer(outside: Place) -> None:
    wait_for(outside.quiet)
    process = outside.peers["one"].process
    process.send_signal(signal.SIGSTOP)
    try:
        outside.blames("peer_frozen", "peer-1")
    finally:
        process.send_signal(signal.SIGCONT)


def test_who_reaches_nothing_is_suspected_itself(outside: Place) -> None:
    wait_for(outside.quiet)
    with rules(outside.lane, "meta l4proto tcp drop"):
        outside.blames("observer_suspect", "bastion")


def test_established_connections_that_are_cut_while_new_ones_work_are_told(outside: Place) -> None:
    wait_for(outside.quiet)
    mark = "tcp flags & syn == syn ct mark set 77"
    with rules(outside.lane, mark):
        time.sleep(1.0)  # connections made meanwhile have the mark
        with rules(outside.lane, mark, "meta l4proto tcp ct mark 77 accept", f"{TO_ONE} drop"):
            outside.blames(LEFTOVER, "peer-1")
            wait_for(lambda: cut(outside) == [{"tcp", "ws"}], 60.0, every=0.2)


def cut(outside: Place) -> list[set[str]]:
    """The protocols that each finding about the first peer names."""
    found = (each["streams"] for each in outside.data()["look"] if each["target"] == "peer-1")
    return [{key.split("|")[3] for key in streams} for streams in found]


def test_one_side_that_cannot_open_connections_to_the_other(tmp_path: Path) -> None:
    with lanes("owlookside", 1) as (lane,):
        sides: dict[str, Side] = {"one": "client", "two": "server"}
        hosts = {name: lane.addresses[side, 4] for name, side in sides.items()}
        with place(tmp_path, lane, sides, hosts, "router") as found:
            wait_for(found.quiet)
            with rules(lane, f"ip saddr {hosts['one']} tcp dport 9080-9082 drop"):
                found.blames("one_way", "peer-2")
                (told,) = (each for each in found.data()["look"] if each["key"] == "one_way")
                assert {key.split("|")[0] for key in told["streams"]} == {"one"}
                assert {key.split("|")[0] for key in told["working"]} == {"two"}


# --- up to the alert


@contextmanager
def receiving(lane: Lane) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A webhook receiver on side "client": its port, and all alerts it was told of, as they came."""
    alerts: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    with lane.client.call(ThreadingHTTPServer, ("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], alerts
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.system("prometheus", "prometheus-alertmanager")
def test_the_pattern_alert_arrives_and_says_where_to_look(outside: Place, tmp_path: Path) -> None:
    """A cut path, a bastion, Prometheus with the rules that ship, Alertmanager, a webhook: all real."""
    shipped = tmp_path / "rules"
    assert alerts_command.main([f"--output-dir={shipped}", f"--scale-for={SCALE_FOR}"]) == 0
    wait_for(outside.quiet)
    lane, ports = outside.lane, PORTS["one"]
    shop = [target("shop", path, host, ports) for path, host in SHOP.items()]
    with killed_at_the_end() as running, receiving(lane) as (receiver, alerts):
        bastion = run(tmp_path, lane, "client", "bastion", "caller", targets=shop)
        running.append(bastion)
        wait_for(bastion.ready)
        jobs = {"ovnwatch-bastion": [f"127.0.0.1:{bastion.ports['web']}"]}
        configs = {
            "prometheus": (9190, monitoring.prometheus_config(jobs, "127.0.0.1:9193", shipped)),
            "alertmanager": (9193, monitoring.alertmanager_config(receiver)),
        }
        for name, program in zip(configs, monitoring.programs(), strict=True):
            port, text = configs[name]
            (tmp_path / f"{name}.yaml").write_text(text)
            with (tmp_path / f"{name}.log").open("wb") as log:
                lane.popen(monitoring.command(name, program, tmp_path, port), stdout=log.fileno(), stderr=log.fileno())

        def told(status: str, name: str, **labels: str) -> list[dict[str, Any]]:
            wanted = {"alertname": name, **labels}.items()
            return [each for each in alerts if each["status"] == status and wanted <= each["labels"].items()]

        wait_for(lambda: told("firing", "OvnwatchWatchdog"), 60.0, every=0.5)
        with rules(lane, f"ip daddr {BALANCER} {TO_ONE} drop"):
            way = {"target": "shop", "path": "loadbalancer"}
            wait_for(lambda: told("firing", "OvnwatchOnePathDown", **way), 150.0, every=0.5)

            def named() -> list[tuple[str, str]]:
                return [(look["key"], look["target"]) for look in json.loads(bastion.get("/status")[1])["look"]]

            wait_for(lambda: named() == [("loadbalancer_down", "shop")], 60.0, every=0.2)
        notes = told("firing", "OvnwatchOnePathDown")[0]["annotations"]
        advice = catalog.load().where_to_look["path_down"]
        assert (notes["summary"], notes["recommendation"]) == (advice.summary, advice.look)
        assert "shop is not reached by the path loadbalancer" in notes["description"]
        assert notes["runbook_url"].endswith("OvnwatchOnePathDown.md")
        assert told("firing", "OvnwatchStreamDown", **way)
        patterns = {each["labels"]["alertname"] for each in alerts} & PATTERNS
        assert patterns == {"OvnwatchOnePathDown"}
        wait_for(lambda: told("resolved", "OvnwatchOnePathDown"), 60.0, every=0.5)
