"""What of a cluster can be probed: a real-shaped one's objects to targets, and kept current while it changes."""

import http.server
import json
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from fake_api import FakeApi, Fault, serving
from histories import changes
from hypothesis import given
from hypothesis import strategies as st
from running import ANY_PORT, CODE, Exporter, flags, killed_at_the_end, wait_for

from exporters import times
from exporters.bastion import discover
from exporters.bastion.settings import load_bastion
from exporters.discovery.find import Entry, Found, find, key_of
from exporters.discovery.kept import KEPT_SECONDS, entries, keep, resumed, withdrawn
from exporters.discovery.resources import NEEDS, resource
from exporters.objects import Fields
from exporters.peer.settings import load_peer
from exporters.strictyaml import BadInput
from exporters.targets import Target

pytestmark = pytest.mark.slow

PLURALS = {"Node": "nodes", "Service": "services", "EndpointSlice": "endpointslices", "Route": "routes",
           "Ingress": "ingresses"}  # fmt: skip
SAMPLE = [each for _, moment in changes("discovery") for _, each in moment]
PEERS = {"app.kubernetes.io/name": "ovnwatch", "app.kubernetes.io/component": "peer"}
ECHOES: list[dict[str, Any]] = [
    {"name": "ws", "port": 8080},
    {"name": "tcp", "port": 8081},
    {"name": "http", "port": 8082},
]


def kept(objects: list[dict[str, Any]]) -> dict[str, list[Fields]]:
    """As watches keep them."""
    found: dict[str, list[Fields]] = {}
    for each in objects:
        if plural := PLURALS.get(each["kind"]):
            found.setdefault(plural, []).append(resource(plural, "").read(json.dumps(each).encode()))
    return found


def of(path: str, objects: list[dict[str, Any]] = SAMPLE, addresses: str = "InternalIP") -> Found:
    return find(kept(objects), [path], addresses)


def brief(found: Found) -> list[tuple[str, str, Mapping[str, int]]]:
    return [(each["name"], each["host"], each["ports"]) for each in found.entries]


def service(name: str, labels: Mapping[str, str] = PEERS, **spec: Any) -> dict[str, Any]:
    about = {"name": name, "namespace": "ovnwatch", "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"ports": ECHOES, **spec}}


def slices(name: str, *ends: tuple[str, str], **more: Any) -> dict[str, Any]:
    about = {"name": f"{name}-x", "namespace": "ovnwatch", "labels": {"kubernetes.io/service-name": name}}
    points = [{"addresses": [address], "nodeName": node, "zone": "east", **more} for node, address in ends]
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": about, "addressType": "IPv4",
            "endpoints": points, "ports": ECHOES}  # fmt: skip


def node(name: str, *addresses: str) -> dict[str, Any]:
    told = [{"type": "InternalIP", "address": each} for each in addresses]
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": told}}


# --- from objects to targets


def test_a_balancers_addresses_and_the_one_that_has_none_yet() -> None:
    found = of("loadbalancer")
    assert brief(found) == [("web.shop", "203.0.113.80", {"http": 80})]
    assert found.left_out == [
        *["Service infra/dns, loadbalancer: no TCP port is called http, https, tcp or ws"] * 2,
        "Service shop/api, loadbalancer: no address yet",
    ]


def test_a_node_port_of_policy_local_is_where_an_endpoint_answers_and_another_everywhere() -> None:
    found = of("nodeport")
    by: dict[str, set[str]] = {}
    for each in found.entries:
        name, _, at = each["name"].partition("@")
        by.setdefault(name, set()).add(at.partition(".")[0])
    everywhere = {"cp-0", "cp-1", "cp-2", "wk-0", "wk-1", "wk-2"}
    assert by == {"shop-local.shop": {"wk-0", "wk-1"}, "shop-cluster.shop": everywhere, "web.shop": everywhere}
    assert {each["ports"]["http"] for each in found.entries} == {30080, 30180, 30181}
    assert {each["host"] for each in found.entries} <= {f"192.0.2.{n}" for n in (11, 12, 13, 21, 22, 23)}
    assert {each["node"] for each in found.entries if "node" in each} == {"wk-0.harbor.example", "wk-1.harbor.example"}


def test_a_node_without_an_address_of_the_kind_wanted_is_told() -> None:
    found = of("nodeport", addresses="ExternalIP")
    assert {each["host"] for each in found.entries} == {"203.0.113.20", "203.0.113.21"}
    assert any("wk-2.harbor.example, nodeport: the node has no ExternalIP" in each for each in found.left_out)


def test_only_an_admitted_route_leads_in_and_over_what_it_speaks() -> None:
    found = of("route")
    assert [
        (each["name"], each["host"], each["ports"], each.get("tls"), each["url_path"]) for each in found.entries
    ] == [
        ("secure.shop", "secure.apps.harbor.example", {"http": 443}, True, "/ping"),
        ("shop.shop", "shop.apps.harbor.example", {"http": 443}, True, "/ping"),
        ("split.shop", "split.apps.harbor.example", {"http": 80}, None, "/v2/ping"),
    ]
    assert found.left_out == ["Route shop/old, route: no router has admitted it"]


def test_an_ingress_without_an_address_is_a_draft() -> None:
    found = of("ingress")
    assert brief(found) == [("portal.shop", "portal.edge.harbor.example", {"http": 443})]
    assert found.left_out == ["Ingress shop/draft, ingress: no address yet"]


def test_endpoints_of_a_headless_service_and_the_port_that_nobody_can_speak_to() -> None:
    assert of("pod").left_out == ["Service shop/db, pod: no TCP port is called http, https, tcp or ws"] * 2


def test_services_have_their_names_within_the_cluster() -> None:
    assert ("legacy.shop", "legacy.shop.svc", {"tcp": 9000}) in brief(of("service"))
    assert not [each for each in of("service").entries if each["name"].startswith("db.")]


def test_peers_are_called_as_they_call_themselves() -> None:
    objects = [
        node("n1", "192.0.2.1"),
        node("n2", "192.0.2.2", "2001:db8::2"),
        service("peers", clusterIPs=["None"]),
        slices("peers", ("n1", "10.0.0.1"), ("n2", "10.0.0.2"), conditions={"ready": False}),
        service("local", type="NodePort", externalTrafficPolicy="Local", clusterIPs=["10.96.0.1", "fd00::1"],
                ports=[{**each, "nodePort": 22000 + each["port"]} for each in ECHOES]),
        slices("local", ("n2", "10.0.0.2")),
        service("any", type="NodePort", ports=[{**each, "nodePort": 23000 + each["port"]} for each in ECHOES]),
        service("lb", selector={"ovnwatch/peer": "peer-3"}, type="LoadBalancer")
        | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "203.0.113.2"}]}}},
    ]  # fmt: skip
    found = find(kept(objects), NEEDS)
    assert {(each["name"], each["path"], each["host"], each.get("node", "")) for each in found.entries} == {
        ("n1", "pod", "10.0.0.1", "n1"),
        ("n2", "pod", "10.0.0.2", "n2"),
        ("any-peer", "service", "any.ovnwatch.svc", ""),
        ("peer-3", "service", "lb.ovnwatch.svc", ""),
        ("n2", "nodeport", "192.0.2.2", "n2"),
        ("n2", "nodeport", "2001:db8::2", "n2"),
        ("any-peer@n1", "nodeport", "192.0.2.1", ""),
        ("any-peer@n2", "nodeport", "192.0.2.2", ""),
        ("peer-3", "loadbalancer", "203.0.113.1", ""),
    }
    assert "Service ovnwatch/lb, loadbalancer: peer-3 is probed already: Service ovnwatch/lb" in found.left_out


@pytest.mark.parametrize("host", ["*.apps.example", "a b", "", "-", "0.0.0.0", "1.2"])
def test_a_host_that_is_none_is_left_out(host: str) -> None:
    route = next(each for each in SAMPLE if each["kind"] == "Route" and each["metadata"]["name"] == "shop")
    found = of("route", [{**route, "spec": {**route["spec"], "host": host}}])
    assert len(found.entries) + len(found.left_out) == 1
    assert found.left_out or host in ("", "-")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["spec", "status", "ports", "endpoints", "ingress", "port"]), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from(sorted(PLURALS.values())),
)
def test_what_has_not_its_form_is_refused_and_nothing_else_happens(part: Any, plural: str) -> None:
    written = {"metadata": {"name": "a", "namespace": "b"}, **(part if isinstance(part, dict) else {"spec": part})}
    try:
        one = resource(plural, "").read(json.dumps(written).encode())
    except msgspec.DecodeError:
        return
    find({plural: [one]}, NEEDS)


def test_a_pod_that_ends_comes_after_the_one_that_took_its_place() -> None:
    one = slices("peers", ("n1", "10.0.0.1"), conditions={"terminating": True})
    one["endpoints"] += slices("peers", ("n1", "10.0.0.2"))["endpoints"]
    found = of("pod", [service("peers", clusterIPs=["None"]), one])
    assert brief(found) == [("n1", "10.0.0.2", {"ws": 8080, "tcp": 8081, "http": 8082})]


# --- an hour longer


def test_what_is_withdrawn_is_kept_for_an_hour_and_what_moved_is_where_it_is() -> None:
    first: Entry = {"name": "a", "path": "pod", "host": "10.0.0.1", "ports": {}}
    second = {**first, "name": "b"}
    moved = {**second, "host": "10.0.0.2"}
    held = keep({}, [first, second], 100.0)
    held = keep(held, [moved], 200.0)
    assert entries(held) == [first, moved]
    held = keep(held, [moved], 99.0 + KEPT_SECONDS)
    assert entries(held) == [first, moved]
    assert entries(keep(held, [moved], 100.0 + KEPT_SECONDS)) == [moved]
    assert entries(keep({}, [moved, second], 0.0)) == [moved]
    assert key_of({**second, "host": "2001:db8::1"}) != key_of(second)


def test_the_hour_of_what_is_withdrawn_goes_on_over_a_restart() -> None:
    first: Entry = {"name": "a", "path": "pod", "host": "10.0.0.1", "ports": {}}
    second, third = {**first, "name": "b"}, {**first, "name": "c"}
    held = keep(keep({}, [first, second], 100.0), [second], 110.0)
    gone = withdrawn(held, {}, 110.0, 5110.0)
    assert gone == {key_of(first): times.iso(5100.0)}
    assert withdrawn(keep(held, [second], 120.0), gone, 120.0, 9e9) == gone, "what was said stays"
    assert withdrawn(keep(held, [first, second], 120.0), gone, 120.0, 5120.0) == {}
    later = times.iso(5100.0 + 1000)
    again = resumed([first, second, third], {**gone, key_of(third): "nonsense"}, 7.0, 5100.0 + 1000)
    assert entries(keep(again, [second], KEPT_SECONDS - 1000 + 6.0)) == [first, second, third]
    assert entries(keep(again, [second], KEPT_SECONDS - 1000 + 7.0)) == [second, third]
    assert resumed([first], {key_of(first): later}, 7.0, 5100.0)[key_of(first)].at == 7.0, "the clock was set back"


# --- the command, against a server

Discover = Callable[..., int]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving() as server:
        yield server


@pytest.fixture
def told(api: FakeApi, tmp_path: Path) -> Discover:
    api.put((True, each) for each in SAMPLE)

    def run(*argv: str) -> int:
        return discover.main([f"--kubeconfig={api.config(tmp_path)}", "--selector=", "--timeout=20", *argv])

    return run


def test_what_it_prints_is_a_bastions_file(
    told: Discover, api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told("--namespace=shop") == 0
    printed = capsys.readouterr()
    assert "left out: Service shop/api, loadbalancer: no address yet" in printed.err
    (tmp_path / "bastion.yaml").write_text(printed.out)
    settings = load_bastion([f"--config.file={tmp_path / 'bastion.yaml'}", "--source=b"], {})
    assert {each.path for each in settings.streams} == {"nodeport", "loadbalancer", "route", "ingress"}
    asked = {each.path for each in api.asked}
    assert "/api/v1/nodes" in asked
    assert not [path for path in asked if "nodes" not in path and "/namespaces/shop/" not in path], "only that one"


def test_it_asks_for_no_more_than_its_paths_need(told: Discover, api: FakeApi) -> None:
    assert told("--namespace=shop", "--path=route") == 0
    plurals = {each.path.rpartition("/")[2] for each in api.asked}
    assert plurals == {"routes", "services"}


def test_a_base_is_kept_as_it_is_unless_it_has_targets(
    told: Discover, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("poll_interval: 2 # ours")
    argv = ("--namespace=shop", "--path=route", f"--base={base}", f"--output={tmp_path / 'out.yaml'}")
    assert told(*argv) == 0
    written = (tmp_path / "out.yaml").read_text()
    assert "poll_interval: 2 # ours\ntargets:\n" in written
    base.write_text("a: 1\ntargets: []\n")
    assert told(*argv) == 1
    assert f"{base}:2: targets: stands here already" in capsys.readouterr().err
    assert (tmp_path / "out.yaml").read_text() == written


def test_what_the_file_had_counts_only_where_it_is_a_target(tmp_path: Path) -> None:
    good = {"name": "a", "path": "pod", "host": "b"}
    bad = [1, None, {**good, "name": [1]}, {**good, "host": 5}, {**good, "path": "x"}, {"name": "c"}]
    bad.append({**good, "family": [4, 6]})  # of somebody's hand
    went = {"name": "a", "path": "pod", "family": 4}
    never = [{**went, "seen": None}, {**went, "seen": "9999-01-01T00:00:00Z"}]
    rotten = {"targets": [*bad, good], discover.WITHDRAWN: [1, {"name": "a"}, *never]}
    (tmp_path / "out.yaml").write_text(yaml.safe_dump(rotten))
    kept, gone = discover._kept(tmp_path / "out.yaml")
    assert (entries(kept), gone) == ([good], {})
    (tmp_path / "out.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"--output: .*is not UTF-8"):
        discover._kept(tmp_path / "out.yaml")
    assert discover._kept(tmp_path / "none.yaml") == ({}, {})


def test_nothing_to_probe_is_no_success(told: Discover, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("--namespace=elsewhere") == 2
    assert "nothing to probe" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--path=pod,egress"], ["--watch"], ["--timeout=0"], ["--kubeconfig=/no/such"]])
def test_bad_flags_are_1(argv: list[str], told: Discover, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = told(*argv)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_the_account_may_not_read_is_told_by_name(
    told: Discover, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(50):
        api.fail("list", "403")
    assert told("--path=route", "--timeout=2") == 1
    assert "routes: forbidden" in capsys.readouterr().err


@contextmanager
def reloaded() -> Iterator[tuple[str, list[str]]]:
    """A bastion's address, and the tokens of those who had it reload."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(f"{self.path} {self.headers['Authorization']}")
            self.send_response(500 if len(asked) == 1 else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_a_file_is_kept_current_and_the_bastion_told(api: FakeApi, tmp_path: Path) -> None:
    def hosts() -> set[str]:
        text = output.read_text() if output.exists() else "targets: []"
        return {each["host"] for each in yaml.safe_load(text)["targets"]}

    def balancer(name: str, ip: str) -> dict[str, Any]:
        status = {"loadBalancer": {"ingress": [{"ip": ip}]}}
        return service(name, selector={"ovnwatch/peer": name}, type="LoadBalancer") | {"status": status}

    def started(argv: list[str]) -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", code, "bastion", "discover", *argv], stderr=log)

    output = tmp_path / "bastion.yaml"
    (tmp_path / "token").write_text("of-the-bastion\n")
    code = f"from exporters.bastion import discover; discover.TICK_SECONDS = 0.3; discover.SETTLE_SECONDS = 0.1; {CODE}"
    api.put([(True, balancer("a", "192.0.2.1"))])
    with reloaded() as (url, asked):
        argv = [f"--kubeconfig={api.config(tmp_path)}", "--path=loadbalancer", "--watch", f"--output={output}"]
        argv += [f"--reload-url={url}", f"--web.token-file={tmp_path / 'token'}"]
        process = started(argv)
        try:
            wait_for(lambda: hosts() == {"192.0.2.1"})
            wait_for(lambda: len(asked) == 2)  # the first time it refused
            assert set(asked) == {"/-/reload Bearer of-the-bastion"}
            api.put([(True, balancer("b", "192.0.2.2")), (True, balancer("a", "192.0.2.3"))])
            wait_for(lambda: hosts() == {"192.0.2.2", "192.0.2.3"})
            wait_for(lambda: len(asked) >= 3)
            written = output.stat().st_mtime_ns
            api.down = True
            api.drop()
            wait_for(lambda: len([each for each in api.asked if "watch" in each.query]) > 3)
            assert output.stat().st_mtime_ns == written, "what is not known changes nothing"
            api.down = False
            api.put([(False, balancer("b", "192.0.2.2")), (True, balancer("c", "192.0.2.4"))])
            wait_for(lambda: "192.0.2.4" in hosts())
            assert hosts() == {"192.0.2.2", "192.0.2.3", "192.0.2.4"}, "for an hour"
            assert load_bastion([f"--config.file={output}", "--source=b"], {}).streams
            (gone,) = yaml.safe_load(output.read_text())["x-withdrawn"]
            assert (gone["name"], gone["path"], gone["family"]) == ("b", "loadbalancer", 4)
            process.terminate()
            assert process.wait(15) == 0
            an_hour_ago = times.iso(times.seconds(gone["seen"]) - KEPT_SECONDS)
            output.write_text(output.read_text().replace(gone["seen"], an_hour_ago))
            process = started(argv)
            wait_for(lambda: hosts() == {"192.0.2.3", "192.0.2.4"})
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.wait()
    assert "answers 500" in (tmp_path / "log").read_text()
    assert not list(tmp_path.glob(".bastion.yaml.*"))


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """The address of something that answers whatever it is asked with these bytes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 999999999999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 500 no\r\nContent-Length: 1000\r\n\r\nhalf \x1b[31m",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_bastion_that_talks_nonsense_is_asked_again_later(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with saying(answer) as url:
        args = discover._parser().parse_args(["--kubeconfig=x", f"--reload-url={url}"])
        assert discover._reloaded(args) is False
    said = capsys.readouterr().err
    assert said.startswith(url)
    assert said.count("\n") == 1
    assert "\x1b" not in said


def test_the_token_is_read_anew_for_every_reload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    with reloaded() as (url, asked):
        args = discover._parser().parse_args(["--kubeconfig=x", f"--reload-url={url}", f"--web.token-file={token}"])
        discover._reloaded(args)
        token.write_text("second")
        assert discover._reloaded(args)
        token.unlink()
        assert not discover._reloaded(args)
    assert asked == ["/-/reload Bearer first", "/-/reload Bearer second"]
    assert "--web.token-file" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_cannot_be_written_ends_it_only_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    args = discover._parser().parse_args(["--kubeconfig=x", f"--output={tmp_path / 'there'}"])
    held = keep({}, [{"name": "a", "path": "pod", "host": "b"}], 0.0)
    assert not discover._written(args, held, {})
    assert "stays as it is" in capsys.readouterr().err
    args.output = tmp_path / "nowhere" / "out.yaml"
    with pytest.raises(FileNotFoundError):
        discover._written(args, held, {})
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


# --- peers that find each other


def probed(peer: Exporter) -> set[tuple[str, str]]:
    return set(re.findall(r'ovnwatch_stream_observed\{[^}]*path="(\w+)"[^}]*target="([^"]+)"', peer.get("/metrics")[1]))


@pytest.mark.slow
def test_peers_are_the_endpoints_of_a_service_ready_or_not(api: FakeApi, tmp_path: Path) -> None:
    code = f"from exporters.peer import found; found.TICK_SECONDS = 0.3; found.SETTLE_SECONDS = 0.1; {CODE}"
    api.put([(True, slices("peers", ("n1", "127.0.0.1"), ("n2", "127.0.0.2"), conditions={"ready": False}))])
    api.put([(True, slices("other", ("n9", "127.0.0.9")))])
    argv = [*flags(ANY_PORT), "--kubernetes.service=ovnwatch/peers", f"--kubernetes.config={api.config(tmp_path)}"]
    with killed_at_the_end() as started:
        peer = Exporter(tmp_path / "log", "peer", *argv, code=code, NODE_NAME="n1")
        started.append(peer)
        wait_for(peer.ready)
        wait_for(lambda: probed(peer) == {("pod", "n2")})
        info = re.search(r"ovnwatch_stream_info\{[^}]*\}", peer.get("/metrics")[1])
        assert info
        assert 'target_node="n2"' in info[0]
        assert 'target_zone="east"' in info[0]
        assert 'ovnwatch_watch_up{resource="endpointslices"} 1' in peer.get("/metrics")[1]
        api.put([(True, slices("peers", ("n1", "127.0.0.1"), ("n3", "127.0.0.3")))])
        wait_for(lambda: probed(peer) == {("pod", "n2"), ("pod", "n3")})
        api.down = True
        api.drop()
        wait_for(lambda: 'ovnwatch_watch_up{resource="endpointslices"} 0' in peer.get("/metrics")[1])
        assert probed(peer) == {("pod", "n2"), ("pod", "n3")}
        assert peer.end() == 0


@pytest.mark.slow
def test_a_peer_outlives_an_api_that_talks_nonsense(api: FakeApi, tmp_path: Path) -> None:
    quick = ("from exporters import objects; objects.LONGEST_PAUSE = 0.1",
             "from exporters.peer import found; found.TICK_SECONDS = 0.3")  # fmt: skip
    code = "\n".join((*quick, CODE))
    api.put([(True, slices("peers", ("n2", "127.0.0.2")))])
    nonsense: list[Fault] = ["403", "garbage", "endless", "410", "500", "redirect", "401", "refuse"]
    api.fail("list", *nonsense)
    api.fail("watch", *nonsense, "half", "error event", "cut")
    argv = [*flags(ANY_PORT), "--kubernetes.service=ovnwatch/peers", f"--kubernetes.config={api.config(tmp_path)}"]
    with killed_at_the_end() as started:
        peer = Exporter(tmp_path / "log", "peer", *argv, "--source=me", code=code)
        started.append(peer)
        wait_for(peer.ready)
        wait_for(lambda: not any(api.faults.values()), 120)
        wait_for(lambda: 'ovnwatch_watch_up{resource="endpointslices"} 1' in peer.get("/metrics")[1])
        assert probed(peer) == {("pod", "n2")}
        assert peer.end() == 0
    assert "Traceback" not in peer.said()


def test_a_peer_without_a_way_to_the_cluster_says_so(tmp_path: Path) -> None:
    argv = [*flags(ANY_PORT), "--kubernetes.service=ovnwatch/peers", "--source=a"]
    with killed_at_the_end() as started:
        started.append(Exporter(tmp_path / "log", "peer", *argv))
        assert started[0].process.wait(30) == 1
        assert started[0].said().startswith("ovnwatch peer: --kubernetes.config: in-cluster: ")
        started.append(Exporter(tmp_path / "log2", "peer", *argv[:-2], "--kubernetes.service=A/b", "--source=a"))
        assert started[1].process.wait(30) == 2
    assert "--kubernetes.service: want the name of a Service" in started[1].said()


@given(st.integers(0, 120))
def test_of_many_found_some_are_chosen_and_the_others_are_told(count: int) -> None:
    there = [Target(name=f"n{n}", path="pod", host="127.0.0.1", node=f"n{n}", zone="z") for n in range(count)]
    settings = load_peer(["--kubernetes.service=a/b"], {"NODE_NAME": "n0"}, None, there)
    names = {each.target for each in settings.streams}
    assert not names & set(settings.not_observed)
    assert names | set(settings.not_observed) == {each.name for each in there} - {"n0"}
    assert len(names) <= 40
