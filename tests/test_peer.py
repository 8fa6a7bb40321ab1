"""`ovnwatch peer` as a process: how it starts, what it serves, how it ends."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from running import ANY_PORT, CODE, LISTEN, Exporter, clean, flags, killed_at_the_end, wait_for

from exporters import logs

pytestmark = pytest.mark.slow  # sockets, processes and their time-outs

PROTOCOLS = ("http", "tcp", "ws")


Start = Callable[..., Exporter]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a peer called `source` that probes `ports` of 127.0.0.1, and wait until it is ready."""
    with killed_at_the_end() as peers:

        def begin(
            source: str = "a",
            target: str = "b",
            ports: Mapping[str, int] | None = None,
            given: Mapping[str, str] | None = None,
            code: str = CODE,
            wait: bool = True,
            **variables: str,
        ) -> Exporter:
            entry = {"name": target, "host": "127.0.0.1", "path": "pod", "ports": dict(ports or {"tcp": 1})}
            config = tmp_path / f"{source}.yaml"
            config.write_text(json.dumps({"targets": [entry]}))
            argv = flags({"--config.file": str(config), "--source": source, **ANY_PORT, **(given or {})})
            peers.append(Exporter(tmp_path / f"{source}.log", "peer", *argv, code=code, **variables))
            if wait:
                wait_for(peers[-1].ready)
            return peers[-1]

        yield begin


# --- starting


def test_a_bad_configuration_is_2_with_every_problem(tmp_path: Path) -> None:
    peer = Exporter(tmp_path / "log", "peer", "--listen.http=nowhere", "--log.level=loud", "--source=a", "--peers=b")
    assert peer.process.wait(30) == 2
    assert sorted(line.split(":")[0] for line in peer.said().splitlines()) == ["--listen.http", "--log.level"]


@pytest.mark.parametrize("flag", LISTEN)
def test_a_port_in_use_is_1_with_one_line(start: Start, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        peer = start(given={flag: f"127.0.0.1:{port}", "--log.level": "error"}, wait=False)
        assert peer.process.wait(30) == 1
    assert peer.said() == (
        f"ovnwatch peer: cannot listen on 127.0.0.1:{port}: port {port} is in use by another process\n"
    )


def test_it_takes_all_descriptors_it_may_have(start: Start) -> None:
    lower = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 900)); "
    peer = start(code=lower + CODE)
    limits = Path(f"/proc/{peer.process.pid}/limits").read_text()
    assert re.search(r"Max open files +900 +900 ", limits)


# --- serving


def words(peer: Exporter, target: str) -> set[str]:
    """What /status says of a target's three protocols."""
    view = json.loads(peer.get("/status", "http")[1])["connections"][target]
    return {view[name] for name in PROTOCOLS}


def history(peer: Exporter) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(peer.get("/history", "http")[1])
    return items


def test_two_peers_see_each_other(start: Start) -> None:
    one = start("one", "two")
    two = start("two", "one", {name: one.ports[name] for name in PROTOCOLS})
    wait_for(lambda: words(two, "one") == {"connected"})
    said = json.loads(two.get("/status", "http")[1])
    reached = json.loads(one.get("/ping", "http")[1])
    assert said["source"] == "two"
    assert {stream["peer"]["instance"] for stream in said["streams"]} == {reached["instance"]}
    assert {stream["peer"]["source"] for stream in said["streams"]} == {"one"}


def test_a_peer_that_dies_is_an_outage_until_another_takes_its_place(start: Start) -> None:
    one = start("one", "two")
    ports = {name: one.ports[name] for name in PROTOCOLS}
    two = start("two", "one", ports, OVNWATCH_TOKEN="secret")
    wait_for(lambda: words(two, "one") == {"connected"})
    one.end(signal.SIGKILL)
    wait_for(lambda: words(two, "one") == {"disconnected"})
    assert "open" in {item["state"] for item in history(two)}

    start("again", "two", given={f"--listen.{name}": f"127.0.0.1:{port}" for name, port in ports.items()})
    wait_for(lambda: words(two, "one") == {"connected"})
    wait_for(lambda: {item["protocol"] for item in history(two) if item["state"] == "closed"} == {"HTTP", "TCP", "WS"})
    items = history(two)
    assert [item["seq"] for item in items] == sorted((item["seq"] for item in items), reverse=True)
    assert {item["kind"] for item in items} <= {"outage", "blip", "break"}
    page = json.loads(two.get("/history?since=0&limit=1", "http")[1])
    assert page["items"] == items[-1:]
    assert page["next"] == items[-1]["seq"]

    assert two.get("/admin/clear_history", "http", "POST", "wrong")[0] == 401
    assert two.get("/admin/clear_history", "http", "POST", "secret")[0] == 200
    assert history(two) == []


def test_a_peer_that_hangs_and_then_dies_is_an_outage(start: Start) -> None:
    """As a machine that is switched off because it hangs: for a while it accepted, and nobody was answered."""
    b = start("b", "a")
    a = start("a", "b", {name: b.ports[name] for name in PROTOCOLS})
    wait_for(lambda: states(a) == ["up"] * 3)
    b.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: states(a) == ["frozen"] * 3)
    time.sleep(1)  # more than one connection shall have shaken hands
    b.end(signal.SIGKILL)
    wait_for(lambda: states(a) == ["down"] * 3)
    opened = [line for line in a.get("/metrics")[1].splitlines() if line.startswith("ovnwatch_outage_open{")]
    assert [line.rpartition(" ")[2] for line in opened] == ["1.0"] * 3


def states(peer: Exporter) -> list[str]:
    return [each["state"] for each in json.loads(peer.get("/status", "http")[1])["streams"]]


def test_peers_left_to_others_are_told_and_counted(start: Start, tmp_path: Path) -> None:
    peer = start("a", "b")
    gauge = 'ovnwatch_peers_not_observed{{source="a"}} {}.0\n'
    assert json.loads(peer.get("/status", "http")[1])["not_observed"] == []
    assert gauge.format(0) in peer.get("/metrics")[1]
    peers = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    (tmp_path / "a.yaml").write_text(json.dumps({"peers": peers, "mesh": {"full_up_to": 0, "k": 1}}))
    peer.process.send_signal(signal.SIGHUP)
    wait_for(lambda: targets(peer) <= set(peers))
    left = json.loads(peer.get("/status", "http")[1])["not_observed"]
    assert sorted([*left, *targets(peer)]) == peers
    assert gauge.format(2) in peer.get("/metrics")[1]


def test_a_variable_that_looks_misspelt_is_a_warning(start: Start) -> None:
    said = start(HTTP_INTERVALL="1").said()
    assert "level=warn" in said
    assert 'msg="HTTP_INTERVALL: unknown variable, did you mean HTTP_INTERVAL?"' in said


def test_metrics_and_pages(start: Start) -> None:
    peer = start("one", "two")
    status, body = peer.get("/metrics")
    assert status == 200
    assert re.search(r'^ovnwatch_build_info\{.*source="one",version=".+"\} 1.0$', body, re.MULTILINE)
    assert 'ovnwatch_outages_total{family="4",path="pod",protocol="tcp",source="one",target="two"} 0\n' in body
    assert "ovnwatch peer one" in peer.get("/")[1]
    assert peer.get("/metrics", "http")[0] == 404
    assert peer.get("/status")[0] == 404
    assert peer.get("/-/reload", method="POST")[0] == 403


def test_a_metrics_path_of_ones_own_and_a_log_in_json(start: Start) -> None:
    peer = start(given={"--web.telemetry-path": "/own"})
    assert peer.get("/own")[0] == 200
    logged = start("j", given={"--log.format": "json"}, wait=False)
    wait_for(lambda: "probes" in logged.said())
    lines = [json.loads(line) for line in logged.said().splitlines()]
    assert {"time", "level", "logger", "msg"} == set(lines[0])


def targets(peer: Exporter) -> set[str]:
    return set(json.loads(peer.get("/status", "http")[1])["connections"])


def test_a_new_configuration_is_taken_into_use_and_a_bad_one_is_not(start: Start, tmp_path: Path) -> None:
    peer = start("a", "b", OVNWATCH_TOKEN="secret")
    (tmp_path / "a.yaml").write_text("targets: [{name: c, host: 127.0.0.1, ports: {tcp: 1}}]")
    peer.process.send_signal(signal.SIGHUP)
    wait_for(lambda: targets(peer) == {"c"})
    (tmp_path / "a.yaml").write_text("targets: [{nam: d}]\nnode: n\n")
    status, body = peer.get("/-/reload", method="POST", token="secret")
    assert status == 500
    assert "targets[0].nam: unknown key" in body
    assert targets(peer) == {"c"}
    metrics = peer.get("/metrics")[1]
    assert re.search(r'^ovnwatch_config_last_reload_successful\{source="a"\} 0.0$', metrics, re.MULTILINE)
    (tmp_path / "a.yaml").write_text("targets: [{name: d, host: 127.0.0.1, ports: {tcp: 1}}]\nnode: n\n")
    assert peer.get("/-/reload", method="POST", token="secret") == (500, "node: changed, which needs a restart\n")
    other = "targets: [{name: d, host: 127.0.0.1, ports: {tcp: 1}}]\nkubernetes: {service: s}\n"
    (tmp_path / "a.yaml").write_text(other)
    assert peer.get("/-/reload", method="POST", token="secret") == (
        500,
        "kubernetes.service: changed, which needs a restart\n",
    )


# --- ending


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(start: Start, how: int) -> None:
    peer = start()
    with (
        socket.create_connection(("127.0.0.1", peer.ports["tcp"])),
        socket.create_connection(("127.0.0.1", peer.ports["ws"])),
    ):
        assert peer.end(how) == 0
    assert "Traceback" not in peer.said()
    assert "error" not in peer.said()


def test_a_signal_ends_it_in_the_midst_of_an_outage_and_of_a_scrape(start: Start) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        peer = start(ports=dict.fromkeys(("http", "tcp", "ws"), deaf.getsockname()[1]))
        with socket.create_connection(("127.0.0.1", peer.ports["web"])) as scrape:
            scrape.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
            assert peer.end() == 0
    assert "Traceback" not in peer.said()


BREAK = "import exporters.probing.record as record\n{}\n" + CODE


def test_a_bug_ends_it_with_a_traceback_and_1(start: Start) -> None:
    broken = "def status(self): raise LookupError('a bug')\nrecord.Record.status = status"
    peer = start(code=BREAK.format(broken))
    peer.get("/status", "http")
    assert peer.process.wait(30) == 1
    assert "Traceback" in peer.said()
    assert peer.said().rstrip().endswith("LookupError: a bug")


def test_a_bug_in_a_collector_ends_it_too(start: Start) -> None:
    broken = "def collect(self): raise LookupError('a bug')\nrecord.Record.collect = collect"
    peer = start(code=BREAK.format(broken))
    peer.get("/metrics")
    assert peer.process.wait(30) == 1
    assert peer.said().rstrip().endswith("LookupError: a bug")


def test_a_server_gone_deaf_ends_it(start: Start) -> None:
    deaf = (
        "import socket, exporters.process as process, exporters.peer.command as command\n"
        "process.LOOK_AFTER_LISTENERS_EVERY = 0.05\n"
        "tell = command._tell\n"
        "def then(serving, settings):\n"
        "    tell(serving, settings)\n"
        "    for sock in serving[0].listening.sockets: sock.shutdown(socket.SHUT_RDWR)\n"
        "command._tell = then\n"
    )
    peer = start(code=deaf + CODE, wait=False)
    assert peer.process.wait(30) == 1
    assert "RuntimeError: the tcp server stopped listening on port" in peer.said()


NO_RESOLVER = """
import os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
silent = socket.socket(type=socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
from exporters.cli import main
sys.exit(main(["peer", *sys.argv[2:]]))
"""


@pytest.mark.needs_root
def test_a_signal_ends_it_though_no_resolver_answers(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    with (tmp_path / "log").open("wb") as out:
        peer = subprocess.Popen(
            ["unshare", "--net", "--mount", sys.executable, "-c", NO_RESOLVER, resolver,
             "--source=a", "--peers=b1,b2,b3,b4,b5,b6", "--journal.path=off"],
            stdout=out, stderr=subprocess.STDOUT, env=clean(os.environ),
        )  # fmt: skip
    try:
        wait_for(lambda: "probes 18 streams" in (tmp_path / "log").read_text())
        time.sleep(1)
        peer.terminate()
        assert peer.wait(15) == 0
    finally:
        peer.kill()
        peer.wait()


# --- bounds


def test_memory_stays_bounded_whatever_clients_send(start: Start) -> None:
    peer = start()
    line = b'ovnwatch/1 {"seq": 1, "size": 65536}\n'
    sent = {
        "tcp": (line * 2000, b"x" * 60_000, b"x\n" * 50_000),
        "http": (
            b"GET /ping HTTP/1.1\r\nX: " + b"a" * 10_000_000,
            b"POST /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n" + b"a" * 5_000_000,
            b"GET /ping?size=65536 HTTP/1.1\r\nHost: a\r\n\r\n" * 5000,
        ),
        "ws": (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 100_000, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5000),
    }
    with ExitStack() as stack:
        for server, heaps in sent.items():
            for heap in heaps * 30:
                client = stack.enter_context(socket.create_connection(("127.0.0.1", peer.ports[server]), timeout=30))
                client.setblocking(False)
                with suppress(OSError):
                    while client.send(heap) and len(heap) > 1_000_000:
                        pass
        assert peer.get("/-/healthy")[0] == 200
        most = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{peer.process.pid}/status").read_text())
    assert most is not None
    assert int(most[1]) < 200_000


def test_a_log_line_is_one_line_whatever_it_says() -> None:
    bug = LookupError('first\nsecond "third"')
    exception = (LookupError, bug, None)
    record = logging.LogRecord("a.b", logging.WARNING, "", 0, "it %s\n=x", ("failed",), exception)
    record.created = 0.0
    line = logs.LogFmt().format(record)
    assert line.startswith(
        r'time=1970-01-01T00:00:00.000Z level=warn logger=a.b msg="it failed\n=x" exception="LookupError: first\nsec'
    )
    assert "\n" not in line
    assert json.loads(logs.Json().format(record))["exception"].endswith('second "third"')
