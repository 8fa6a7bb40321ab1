"""The web side all exporters share, over real sockets."""

import base64
import gzip
import hashlib
import html
import http.client
import logging
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from on_loop import Loop, running_loop
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters import listening as listening_module
from exporters import web as web_module
from exporters.exposition import Exposition, Info, make_registry
from exporters.listening import ListenError, listen
from exporters.settings import raise_descriptor_limit
from exporters.web import Serving, landing_page, make_app, new_app, scrape_seconds, serve

INFO = Info("ovnwatch_build_info", "What runs.", {"version": "1"})


@pytest.fixture
def on() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


Start = Callable[..., Serving]


@pytest.fixture
def start(on: Loop) -> Iterator[Start]:
    """Serve an application on a free port of 127.0.0.1; keywords go to `serve`."""
    running: list[Serving] = []

    def begin(app: web.Application, host: str = "127.0.0.1", **how: object) -> Serving:
        running.append(on(serve(app, host, 0, **how)))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for each in running:
        on(each.close())


def make(
    ready: bool = True, token: str | None = None, problems: list[str] | None = None, **how: Any
) -> tuple[web.Application, list[str]]:
    """An application with one metric, and the list of its reloads."""
    reloads: list[str] = []

    async def reload() -> list[str]:
        reloads.append("reloaded")
        return problems or []

    exposition = Exposition(make_registry(INFO))
    app = make_app(exposition, name="a <test>", ready=lambda: ready, token=token, reload=reload, **how)
    return app, reloads


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None, host: str = "127.0.0.1"
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read().decode()
    connection.close()
    return answer


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), timeout=30)


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(3000):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def send_all(client: socket.socket, what: bytes) -> None:
    """Send it and say that it was all, to a server that may have hung up before."""
    with suppress(OSError):
        client.sendall(what)
        client.shutdown(socket.SHUT_WR)


def gone(client: socket.socket) -> bool:
    """Read until the server closes or resets; what it sends first does not matter."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


# --- pages


def test_metrics(start: Start) -> None:
    app, _ = make()
    status, headers, body = ask(start(app).port, "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Server"] == "ovnwatch"
    assert 'ovnwatch_build_info{version="1"} 1.0' in body


def test_metrics_compressed_and_by_name(start: Start) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", start(make()[0]).port, timeout=30)
    connection.request("GET", "/metrics?name[]=ovnwatch_build_info", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.headers["Content-Encoding"] == "gzip"
    lines = gzip.decompress(response.read()).decode().splitlines()
    assert [line for line in lines if line[0] != "#"] == ['ovnwatch_build_info{version="1"} 1.0']
    connection.close()


def test_health_and_readiness(start: Start) -> None:
    port = start(make(ready=False)[0]).port
    assert ask(port, "/-/healthy")[0] == 200
    assert ask(port, "/-/ready")[0] == 503
    assert ask(start(make(ready=True)[0]).port, "/-/ready")[0] == 200


def test_landing_page_links_to_all_and_escapes(start: Start) -> None:
    app, _ = make(telemetry_path="/my/metrics")
    port = start(app).port
    status, headers, body = ask(port, "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "a &lt;test&gt;" in body
    links = re.findall(r'href="([^"]*)"', body)
    assert links == ["/my/metrics", "/-/healthy", "/-/ready"]
    assert [ask(port, link)[0] for link in links] == [200, 200, 200]
    assert ask(port, "/metrics")[0] == 404


def test_landing_page_names_what_an_exporter_has_besides(start: Start) -> None:
    page = landing_page("a", "/metrics", {"/state": "all <of> it"})
    assert '<li><a href="/state">/state</a> all &lt;of&gt; it</li>' in page


def test_landing_page_may_use_its_own_style_and_nothing_else(start: Start) -> None:
    _, headers, body = ask(start(make()[0]).port, "/")
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    style = re.search(r"<style>(.*)</style>", body)
    assert style is not None
    assert policy["style-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()}'"
    assert policy["default-src"] == "'none'"
    assert "<script" not in body


def test_every_part_of_the_landing_page_is_escaped() -> None:
    nasty = '"><script>alert(1)</script>'
    page = landing_page(nasty, f"/{nasty}")
    assert "<script" not in page
    assert html.escape(nasty) in page


# --- changing requests


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (None, {}, 403),
        (None, {"Authorization": "Bearer "}, 403),
        (None, {"Authorization": "Bearer None"}, 403),
        ("", {"Authorization": "Bearer "}, 403),
        ("secret", {}, 401),
        ("secret", {"Authorization": "Bearer wrong"}, 401),
        ("secret", {"Authorization": "Bearer secret2"}, 401),
        ("secret", {"Authorization": "Basic secret"}, 401),
        ("secret", {"Authorization": "secret"}, 401),
        ("secret", {"Authorization": "Bearer s\xe9cret"}, 401),
        ("secret", {"Authorization": "Bearer secret"}, 200),
        ("secret", {"Authorization": "bearer  secret "}, 200),
        ("s\xe9cret", {"Authorization": "Bearer s\xc3\xa9cret"}, 200),
    ],
)
def test_reload_needs_the_token(start: Start, token: str | None, headers: dict[str, str], status: int) -> None:
    app, reloads = make(token=token)
    assert ask(start(app).port, "/-/reload", "POST", headers)[0] == status
    assert len(reloads) == (status == 200)


def test_reload_is_no_get(start: Start) -> None:
    app, reloads = make(token="secret")
    status, headers, _ = ask(start(app).port, "/-/reload", headers={"Authorization": "Bearer secret"})
    assert (status, headers["Allow"], reloads) == (405, "POST", [])


def test_reload_tells_its_problems(start: Start) -> None:
    app, _ = make(token="secret", problems=["a.yaml:3: no such key"])
    status, _, body = ask(start(app).port, "/-/reload", "POST", {"Authorization": "Bearer secret"})
    assert (status, body) == (500, "a.yaml:3: no such key\n")


def test_without_a_reload_there_is_none(start: Start) -> None:
    app = make_app(Exposition(make_registry()), name="x", ready=lambda: True, token="secret")
    assert ask(start(app).port, "/-/reload", "POST", {"Authorization": "Bearer secret"})[0] == 404


# --- bugs, and what is none


def test_a_bug_reaches_the_loops_exception_handler(on: Loop, start: Start) -> None:
    async def broken(_: web.Request) -> web.Response:
        raise LookupError("a bug")

    app = new_app()
    app.router.add_get("/", broken)
    assert ask(start(app).port, "/")[0] == 500
    assert [str(context["exception"]) for context in on.unexpected] == ["a bug"]
    on.unexpected.clear()


def test_a_collectors_bug_reaches_it_too(on: Loop, start: Start) -> None:
    class Broken(Collector):
        def __init__(self) -> None:
            self.works = True

        def collect(self) -> Iterator[Metric]:
            if not self.works:
                raise LookupError("a bug")
            yield GaugeMetricFamily("works", "Yes.", value=1)

    collector = Broken()
    app = make_app(Exposition(make_registry(collector)), name="x", ready=lambda: True)
    collector.works = False
    assert ask(start(app).port, "/metrics")[0] == 500
    assert [str(context["exception"]) for context in on.unexpected] == ["a bug"]
    on.unexpected.clear()


class Blocked(Collector):
    """Ready when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def collect(self) -> Iterator[Metric]:
        assert self.go.wait(30)
        yield GaugeMetricFamily("here", "Yes.", value=1)


def test_a_scrape_ends_with_its_timeout(start: Start) -> None:
    collector = Blocked()
    app = make_app(Exposition(make_registry(collector)), name="x", ready=lambda: True)
    port = start(app).port
    collector.go.clear()
    assert ask(port, "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "0.05"})[0] == 503
    collector.go.set()
    assert ask(port, "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "30"})[0] == 200


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("10", 10), ("0.5", 0.5), ("", None), ("x", None), ("-1", None), ("0", None), ("nan", None), ("inf", None)],
)
def test_scrape_timeouts_that_make_no_sense_are_none(header: str, seconds: float | None) -> None:
    assert scrape_seconds(header) == seconds


GARBAGE = {
    "noise": bytes(range(256)) * 40,
    "no HTTP": b"hello\r\n\r\n",
    "a long line": b"GET /" + b"a" * 100_000,
    "a header of 10 MB": b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 1_000_000,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a bad chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an endless body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n" + b"a" * 1_000_000,
    "endless chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 100_000,
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_cut_off_and_not_logged(start: Start, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    serving = start(make()[0])
    with caplog.at_level(logging.INFO):
        with connect(serving.port) as client:
            send_all(client, sent)
            assert gone(client)
        assert ask(serving.port, "/-/healthy")[0] == 200
    assert caplog.records == []


def test_half_a_request_holds_nobody_up_and_is_dropped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "IDLE_SECONDS", 0.3)
    port = start(make()[0]).port
    with connect(port) as half, connect(port) as silent:
        half.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nX: unfini")
        assert ask(port, "/-/healthy")[0] == 200
        assert gone(half)
        assert gone(silent)


def test_a_client_that_does_not_take_its_answer_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "ANSWER_SECONDS", 0.2)

    async def much(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 50_000_000)

    app = new_app()
    app.router.add_get("/", much)
    serving = start(app)
    with connect(serving.port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: serving.listening.door.count() == 1)
        wait_for(lambda: serving.listening.door.count() == 0)


# --- listening


def test_every_address_of_both_families_has_the_same_port(start: Start) -> None:
    port = start(make()[0], host="").port
    assert ask(port, "/-/healthy", host="127.0.0.1")[0] == 200
    assert ask(port, "/-/healthy", host="::1")[0] == 200


def test_one_address_is_one_address(start: Start) -> None:
    port = start(make()[0], host="::1").port
    assert ask(port, "/-/healthy", host="::1")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connect(port)


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1"])
def test_a_port_in_use_is_one_clear_sentence(on: Loop, start: Start, host: str) -> None:
    port = start(make()[0], host=host).port
    with pytest.raises(ListenError, match=rf"^cannot listen on .*:{port}: port {port} is in use") as caught:
        on(serve(make()[0], host, port))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["fe80::1%nosuchlink", "192.0.2.1"])
def test_an_address_we_have_not(host: str) -> None:
    with pytest.raises(ListenError, match=r"^cannot listen on .*:8083: [A-Z]"):
        listen(host, 8083)


def test_a_listener_that_died_is_noticed(start: Start) -> None:
    serving = start(make()[0])
    assert serving.listening.alive()
    for sock in serving.listening.sockets:
        sock.shutdown(socket.SHUT_RDWR)  # as an accept that fails for good
    wait_for(lambda: not serving.listening.alive())


def test_the_door_resets_whom_it_does_not_let_in(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening_module, "REFUSALS_TOLD_EVERY", 0.3)
    collector = Blocked()
    app = make_app(Exposition(make_registry(collector)), name="x", ready=lambda: True)
    serving = start(app, max_connections=2, name="small")
    collector.go.clear()
    with connect(serving.port) as one, connect(serving.port) as two:
        for client in (one, two):
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: len(app[web_module.ASKING]) == 2)
        refused = [connect(serving.port) for _ in range(5)]
        assert all(gone(client) for client in refused)
        wait_for(lambda: bool(caplog.records))
        collector.go.set()
        assert [client.recv(12) for client in (one, two)] == [b"HTTP/1.1 200"] * 2
    said = "small: refused 5 connections and closed 0 silent ones for others, 2 were open"
    assert [record.getMessage() for record in caplog.records] == [said]
    wait_for(lambda: serving.listening.door.count() == 0)
    assert ask(serving.port, "/-/healthy")[0] == 200
    for client in refused:
        client.close()


def test_silent_clients_however_many_keep_no_scrape_out(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_module, "REFUSALS_TOLD_EVERY", 3600)
    raise_descriptor_limit()
    serving = start(make()[0])
    door = serving.listening.door
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(serving.port)) for _ in range(door.limit + 100)]
        wait_for(lambda: door.replaced == 100)
        for number in range(1, 6):
            assert ask(serving.port, "/metrics")[0] == 200
            assert ask(serving.port, "/-/healthy")[0] == 200
            silent.append(stack.enter_context(connect(serving.port)))
            assert door.replaced >= 100 + number
        assert door.refused == 0
        assert all(gone(client) for client in silent[:100])  # those that came first
        wait_for(lambda: door.count() <= door.limit)
        for client in silent[-200:]:  # those that came last may still ask
            client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"


def test_a_kept_connection_makes_room_too_and_one_with_a_request_in_hand_never(start: Start) -> None:
    collector = Blocked()
    app = make_app(Exposition(make_registry(collector)), name="x", ready=lambda: True)
    serving = start(app, max_connections=2)
    collector.go.clear()
    with connect(serving.port) as busy, connect(serving.port) as kept:
        busy.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: len(app[web_module.ASKING]) == 1)
        kept.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: len(app[web_module.ASKING]) == 1)
        assert [ask(serving.port, "/-/healthy")[0] for _ in range(3)] == [200] * 3
        assert gone(kept)
        collector.go.set()
        assert busy.recv(12) == b"HTTP/1.1 200"


# --- TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls(start: Start, certificate: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    port = start(make()[0], tls=context).port
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with caplog.at_level(logging.WARNING):
        for garbage in (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            bytes(range(256)),
            b"\x16\x03\x01\xff\xff" + b"\0" * 70000,
        ):
            with connect(port) as client:
                send_all(client, garbage)
                assert gone(client)
        with connect(port) as plain, trusting.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert caplog.records == []
