"""The echo servers, over real sockets: what they answer, and what clients without manners can do to them."""

import asyncio
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from on_loop import Loop, running_loop
from websockets.asyncio.client import connect as aio_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as ws_connect

from exporters import web as web_module
from exporters.access import Access
from exporters.echo import servers
from exporters.echo.servers import TcpServing, serve_http, serve_tcp, serve_ws
from exporters.echo.wire import MAX_SIZE, PREFIX, Ask, Replies, client_address, read_ask
from exporters.identity import Identity, identify
from exporters.web import Serving

pytestmark = pytest.mark.slow  # sockets, processes and their time-outs

WHO = Identity(
    instance="c2", source='worker-2 "east"', node="nöde", zone="z", boot_id="b00t", pod="peer-2", version="1"
)
SAID = {"pod": "peer-2", "instance": "c2", "source": 'worker-2 "east"', "node": "nöde", "zone": "z", "boot_id": "b00t"}


class Book:
    """What the http server shows: three changes."""

    journal_id = "j0"

    def __init__(self) -> None:
        self.cleared: list[float] = []
        self.changes: list[dict[str, Any]] = [{"seq": seq, "name": f"peer-{seq}"} for seq in (3, 5, 8)]

    def status(self) -> list[dict[str, Any]]:
        return [{"stream": f"s{number}"} for number in range(120)]

    def connections(self) -> dict[str, dict[str, str]]:
        return {"peer-1": {"ws": "connected", "tcp": "disconnected", "http": "unknown", "last_change": "2026"}}

    def history(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        self.limit = limit
        return [change for change in self.changes if change["seq"] > since][:limit]

    async def find(self, since: int, limit: int, wanted: Mapping[str, str], *, cleared: bool) -> list[tuple[int, str]]:
        self.limit, self.wanted = limit, dict(wanted)
        return [(change["seq"], json.dumps(change)) for change in self.history(since, limit)]

    async def save(self) -> None:
        pass

    def clear(self, now: float) -> None:
        self.cleared.append(now)


@pytest.fixture
def on() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


Serve = Callable[..., Any]


@pytest.fixture
def start(on: Loop) -> Iterator[Serve]:
    """Start a server on a free port: `start(serve_tcp)`; keywords go to it."""
    running: list[Serving | TcpServing] = []

    def begin(serve: Serve, *given: object, host: str = "127.0.0.1", **how: object) -> Any:
        running.append(on(serve(WHO, *given, host, 0, **how)))
        return running[-1]

    yield begin
    for each in running:
        on(each.close())


class Line:
    """A client of lines."""

    def __init__(self, port: int, host: str = "127.0.0.1", buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.settimeout(30)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect((host, port))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, line: bytes) -> bytes:
        self.socket.sendall(line)
        return self.file.readline()


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(3000):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def gone(client: socket.socket) -> bool:
    """Read until the server closes or resets."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def send_until_stuck(client: socket.socket, data: bytes, most: int = 64_000_000) -> int:
    """Send `data` again and again, reading nothing, until the server takes no more for a second; how much it took."""
    client.settimeout(1)
    taken = 0
    with suppress(TimeoutError):
        while taken < most:
            taken += client.send(data)
    return taken


# --- requests and replies, without a socket


def test_a_request_of_ours() -> None:
    ask = read_ask(b'ovnwatch/1 {"seq": 7, "source": "worker-1", "size": 4096, "pad": "xx"}')
    assert ask is not None
    assert (ask.seq, ask.size) == (7, 4096)


NOT_OURS = {
    "ping": b"ping from peer-1 at 2026-01-01T00:00:00",
    "empty": b"",
    "prefix alone": b"ovnwatch/1 ",
    "no JSON": b"ovnwatch/1 {seq: 1}",
    "no object": b"ovnwatch/1 [1]",
    "another version": b'ovnwatch/2 {"seq": 1}',
    "no seq": b'ovnwatch/1 {"size": 1}',
    "seq a word": b'ovnwatch/1 {"seq": "1"}',
    "seq true": b'ovnwatch/1 {"seq": true}',
    "seq a fraction": b'ovnwatch/1 {"seq": 1.5}',
    "seq without end": b'ovnwatch/1 {"seq": Infinity}',
    "seq of 65 bits": b'ovnwatch/1 {"seq": 18446744073709551616}',
    "seq of 60 000 digits": b'ovnwatch/1 {"seq": ' + b"1" * 60_000 + b"}",
    "size below 0": b'ovnwatch/1 {"seq": 1, "size": -1}',
    "size null": b'ovnwatch/1 {"seq": 1, "size": null}',
    "no UTF-8": b'ovnwatch/1 {"seq": 1, "a": "\xff"}',
    "deep lists": b"ovnwatch/1 " + b"[" * 60_000,
    "deep objects": b"ovnwatch/1 " + b'{"a":' * 12_000,
}


@pytest.mark.parametrize("text", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_no_request_of_ours(text: bytes) -> None:
    assert read_ask(text) is None


def test_replies_have_the_size_asked_for() -> None:
    replies = Replies(WHO)
    message, body = (len(replies.message(Ask(1, 0), "::1", 5.0, 6.0)) + 1, len(replies.body(0, "::1", 5.0, 6.0)))
    for size in [*range(150, 420), 4096, MAX_SIZE]:
        line = replies.message(Ask(1, size), "::1", 5.0, 6.0) + b"\n"
        assert len(line) == max(size, message)
        assert json.loads(line.removeprefix(PREFIX))["seq"] == 1
        page = replies.body(size, "::1", 5.0, 6.0)
        assert len(page) == max(size, body)
        assert json.loads(page)["status"] == "ok"


@pytest.mark.parametrize(
    ("peername", "address"),
    [
        (("10.0.0.7", 5), "10.0.0.7"),
        (("::1", 5, 0, 0), "::1"),
        (("::ffff:10.0.0.7", 5, 0, 0), "10.0.0.7"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::1"),
        (None, ""),
    ],
)
def test_addresses(peername: object, address: str) -> None:
    assert client_address(peername) == address


def test_identity_is_new_for_each_process_and_the_same_for_each_boot() -> None:
    one, other = identify("s", "n", "z"), identify("s", "n", "z")
    assert one.instance != other.instance
    assert one.boot_id == other.boot_id
    assert (one.source, one.node, one.zone) == ("s", "n", "z")
    assert one.version


# --- tcp


def test_tcp_answers_who_it_is(start: Serve) -> None:
    with Line(start(serve_tcp).port) as client:
        before = time.time()
        line = client.ask(b'ovnwatch/1 {"seq": 7, "source": "worker-1"}\n')
        said = json.loads(line.removeprefix(PREFIX))
    assert line.startswith(PREFIX)
    assert said.items() >= {**SAID, "seq": 7, "address": "127.0.0.1"}.items()
    assert before - 1 <= said["time"] <= time.time() + 1
    assert said["mono"] <= time.monotonic()


@pytest.mark.parametrize("size", [0, 400, 4096, 65535, 65536])
def test_tcp_answers_in_the_size_asked_for(start: Serve, size: int) -> None:
    with Line(start(serve_tcp).port) as client:
        line = client.ask(b'ovnwatch/1 {"seq": 1, "size": %d}\n' % size)
    assert len(line) == size or not size
    assert line.endswith(b"}\n")


def packets(client: socket.socket) -> int:
    """How many packets with data came (tcp_info: data_segs_in)."""
    return int.from_bytes(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 156)[152:], sys.byteorder)


def test_a_big_answer_begins_with_a_packet_of_its_own(start: Serve) -> None:
    """On a path that carries small packets only, it is heard."""
    with Line(start(serve_tcp).port) as client:
        for size, came in ((400, 1), (4096, 3)):
            client.ask(b'ovnwatch/1 {"seq": 1, "size": %d}\n' % size)
            assert packets(client.socket) == came
    with ws(start(serve_ws)) as client_ws:
        before = packets(client_ws.socket)
        for size, came in ((400, 1), (4096, 3)):
            client_ws.send(f'ovnwatch/1 {{"seq": 1, "size": {size}}}')
            client_ws.recv(timeout=30)
            assert packets(client_ws.socket) - before == came
    port = start(serve_http, Book()).port
    for size, came in ((400, 1), (4096, 2)):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client_http:
            client_http.sendall(b"GET /ping?size=%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % size)
            answer = client_http.makefile("rb").read()
            assert packets(client_http) == came
        assert b"\r\nServer: ovnwatch\r\n" in answer


def test_http_cuts_off_who_does_not_take_a_big_answer(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "ANSWER_SECONDS", 2.0)
    port = start(serve_http, Book(), max_connections=1).port
    with Line(port, buffer=4096) as greedy:
        greedy.socket.sendall(b"GET /ping?size=65536 HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        time.sleep(1.0)  # an answer is stuck by now: before, whoever comes may have the place of one that asks nothing
        wait_for(lambda: answered(port))


def answered(port: int) -> bool:
    try:
        return ask(port, "/ping")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def test_tcp_answers_no_more_than_a_line_holds(start: Serve) -> None:
    with Line(start(serve_tcp).port) as client:
        assert len(client.ask(b'ovnwatch/1 {"seq": 1, "size": 1000000000}\n')) == MAX_SIZE


@pytest.mark.parametrize("text", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_tcp_echoes_any_other_line_unchanged(start: Serve, text: bytes) -> None:
    with Line(start(serve_tcp).port) as client:
        assert client.ask(text + b"\n") == text + b"\n"
        assert client.ask(text + b"\r\n") == text + b"\r\n"


def test_tcp_takes_lines_in_pieces_and_in_heaps(start: Serve) -> None:
    with Line(start(serve_tcp).port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (b"he", b"l", b"lo\nwor"):
            client.socket.sendall(piece)
            time.sleep(0.02)
        assert client.file.readline() == b"hello\n"
        assert client.ask(b"ld\n") == b"world\n"
        client.socket.sendall(b"".join(b"%d\n" % number for number in range(1000)))
        assert [int(client.file.readline()) for _ in range(1000)] == list(range(1000))


def test_tcp_keeps_the_order_of_what_it_mixes(start: Serve) -> None:
    with Line(start(serve_tcp).port) as client:
        client.socket.sendall(b'ovnwatch/1 {"seq": 1, "size": 60000}\nhello\n' * 40)
        lengths = [len(client.file.readline()) for _ in range(80)]
    assert lengths == [60000, 6] * 40


def test_tcp_lines_end_at_64_kib(start: Serve) -> None:
    port = start(serve_tcp).port
    longest = b"x" * (MAX_SIZE - 1) + b"\n"
    with Line(port) as client:
        assert client.ask(longest) == longest
        assert client.ask(longest) == longest
    for too_long in (b"x" + longest, b"x" * MAX_SIZE, b"x" * 1_000_000):
        with Line(port) as client:
            with suppress(ConnectionError):
                client.socket.sendall(too_long)
            assert gone(client.socket)


@pytest.mark.parametrize("line", [b"x\n", b'ovnwatch/1 {"seq": 1, "size": 65536}\n', b"y" * 60_000 + b"\n"])
def test_tcp_takes_no_more_from_a_client_that_does_not_read(start: Serve, line: bytes) -> None:
    port = start(serve_tcp).port
    with Line(port, buffer=4096) as greedy, Line(port) as other:
        taken = send_until_stuck(greedy.socket, line * (120_000 // len(line)))
        assert taken < 20_000_000
        assert other.ask(b"hello\n") == b"hello\n"
        # It goes on where it stopped when the client reads after all.
        greedy.socket.settimeout(30)
        answers = {len(greedy.file.readline()) for _ in range(min(taken // len(line), 300))}
    assert answers == {len(line) if b"size" not in line else MAX_SIZE}


def test_tcp_lets_others_in_between_the_lines_of_a_heap(start: Serve) -> None:
    port = start(serve_tcp).port
    with Line(port) as busy, Line(port) as other:
        busy.socket.setblocking(False)
        for _ in range(200):
            with suppress(BlockingIOError):
                busy.socket.send(b'ovnwatch/1 {"seq": 1}\n' * 2000)
            with suppress(BlockingIOError):
                busy.socket.recv(1_000_000)
            assert other.ask(b"hello\n") == b"hello\n"


def test_tcp_closes_what_is_idle(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "IDLE_SECONDS", 0.4)
    serving = start(serve_tcp)
    with Line(serving.port) as silent, Line(serving.port) as half, Line(serving.port) as busy:
        half.socket.sendall(b"hel")
        for _ in range(12):
            assert busy.ask(b"hello\n") == b"hello\n"
            time.sleep(0.05)
        assert gone(silent.socket)
        assert gone(half.socket)
        assert gone(busy.socket)
    wait_for(lambda: not serving.connections)


def test_tcp_closes_what_does_not_take_its_answers(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "IDLE_SECONDS", 0.4)
    serving = start(serve_tcp)
    with Line(serving.port) as greedy:
        with suppress(ConnectionError):
            send_until_stuck(greedy.socket, b'ovnwatch/1 {"seq": 1, "size": 65536}\n' * 1000)
        wait_for(lambda: not serving.connections)


def test_tcp_resets_connections_beyond_its_limit(start: Serve) -> None:
    serving = start(serve_tcp, max_connections=2)
    with Line(serving.port) as one, Line(serving.port) as two:
        assert [client.ask(b"x\n") for client in (one, two)] == [b"x\n", b"x\n"]
        with Line(serving.port) as three:
            assert gone(three.socket)
        assert serving.listening.door.refused == 1
    wait_for(lambda: not serving.connections)
    with Line(serving.port) as three:
        assert three.ask(b"x\n") == b"x\n"


def test_tcp_gives_the_places_of_the_silent_to_those_who_ask(start: Serve) -> None:
    serving = start(serve_tcp, max_connections=3)
    with ExitStack() as stack:
        talking = stack.enter_context(Line(serving.port))
        assert talking.ask(b"x\n") == b"x\n"
        silent = [stack.enter_context(Line(serving.port)) for _ in range(20)]
        half = stack.enter_context(Line(serving.port))
        half.socket.sendall(b"unfini")
        for _ in range(3):
            with Line(serving.port) as new:
                assert new.ask(b"y\n") == b"y\n"
        assert all(gone(client.socket) for client in silent)
        assert talking.ask(b"z\n") == b"z\n"
        assert serving.listening.door.refused == 0


@pytest.mark.parametrize("serve", [serve_http, serve_ws])
def test_silent_clients_keep_no_probe_out(start: Serve, serve: Callable[..., object]) -> None:
    serving = start(serve, *([Book()] if serve is serve_http else []), max_connections=8)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), 30)) for _ in range(50)]
        assert [ask(serving.port, "/ping")[0] for _ in range(5)] == [200 if serve is serve_http else 426] * 5
        assert all(gone(client) for client in silent[:42])
        assert serving.listening.door.refused == 0


def test_tcp_over_ipv6_and_every_address(start: Serve) -> None:
    port = start(serve_tcp, host="").port
    for host in ("::1", "127.0.0.1"):
        with Line(port, host) as client:
            line = client.ask(b'ovnwatch/1 {"seq": 1}\n')
        assert json.loads(line.removeprefix(PREFIX))["address"] == host


def test_tcp_cuts_its_connections_when_it_closes(on: Loop) -> None:
    serving = on(serve_tcp(WHO, "127.0.0.1", 0))
    with Line(serving.port) as client:
        assert client.ask(b"x\n") == b"x\n"
        on(serving.close())
        assert gone(client.socket)
        with pytest.raises(ConnectionRefusedError):
            Line(serving.port)


# --- ws


def ws(serving: Serving) -> ClientConnection:
    return ws_connect(f"ws://127.0.0.1:{serving.port}/any/path", compression=None, open_timeout=30)


def test_ws_answers_who_it_is(start: Serve) -> None:
    with ws(start(serve_ws)) as client:
        assert client.response is not None
        assert client.response.status_code == 101
        assert client.response.headers["Ovnwatch"] == "1"
        client.send('ovnwatch/1 {"seq": 7}')
        said = json.loads(str(client.recv(timeout=30)).removeprefix("ovnwatch/1 "))
    assert said.items() >= {**SAID, "seq": 7, "address": "127.0.0.1"}.items()


@pytest.mark.parametrize("size", [400, 4096, MAX_SIZE])
def test_ws_answers_in_the_size_asked_for(start: Serve, size: int) -> None:
    with ws(start(serve_ws)) as client:
        client.send(f'ovnwatch/1 {{"seq": 1, "size": {size}}}')
        assert len(client.recv(timeout=30)) == size - 1  # a line less its end


def test_ws_drops_whatever_else_comes(start: Serve) -> None:
    with ws(start(serve_ws)) as client:
        client.send('{"from": "peer-1", "ts": "2026-01-01T00:00:00"}')
        for name, text in NOT_OURS.items():
            client.send(text)
            if name != "no UTF-8":
                client.send(text.decode())
        client.send('ovnwatch/1 {"seq": 99}')
        assert '"seq":99' in str(client.recv(timeout=30))


def test_ws_answers_pings(start: Serve) -> None:
    with ws(start(serve_ws)) as client:
        assert client.ping(b"7").wait(30)


def test_ws_compresses_nothing(start: Serve) -> None:
    with ws_connect(f"ws://127.0.0.1:{start(serve_ws).port}", compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_ws_messages_end_at_64_kib(start: Serve) -> None:
    serving = start(serve_ws)
    with ws(serving) as client:
        client.send("x" * MAX_SIZE)
        assert client.ping().wait(30)
    for too_long in ["x" * (MAX_SIZE + 1), ["x" * 1000] * 100]:
        with ws(serving) as client:
            with suppress(ConnectionClosed):
                client.send(too_long)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=30)
            assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 426),
        ("GET", {"Connection": "upgrade", "Upgrade": "h2c"}, 426),
        ("GET", {"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "1"}, 426),
        ("GET", {"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}, 426),
        ("POST", {}, 405),
        ("HEAD", {}, 405),
    ],
)
def test_ws_is_spoken_there_and_no_http(start: Serve, method: str, headers: dict[str, str], status: int) -> None:
    answer, answered, _ = ask(start(serve_ws).port, "/", method, headers)
    assert answer == status
    if status == 426:
        assert answered["Upgrade"] == "websocket"


def raw_ws(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
    return client


def frame(first: int, payload: bytes) -> bytes:
    """A masked frame of less than 126 bytes; its mask is 0, which leaves the payload as it is."""
    return bytes([first, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


FRAMES = {
    "a reserved opcode": frame(0x83, b"x"),
    "a reserved bit": frame(0xC1, b"x"),
    "a continuation of nothing": frame(0x80, b"x"),
    "a ping in pieces": frame(0x09, b"x"),
    "10 GB": b"\x82\xff" + (10**10).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 100_000,
    "2^63 bytes": b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x",
    "noise": bytes(range(256)) * 400,
}


@pytest.mark.parametrize("sent", FRAMES.values(), ids=FRAMES.keys())
def test_ws_cuts_off_what_is_no_websocket(start: Serve, sent: bytes) -> None:
    serving = start(serve_ws)
    with raw_ws(serving.port) as client:
        with suppress(ConnectionError):
            client.sendall(sent)
        assert gone(client)
    with ws(serving) as client_after:
        assert client_after.ping().wait(30)


@pytest.mark.parametrize("sent", [frame(0x89, b"x" * 100), frame(0x81, b'ovnwatch/1 {"seq": 1, "size": 65536}')])
def test_ws_takes_no_more_from_a_client_that_does_not_read(start: Serve, sent: bytes) -> None:
    serving = start(serve_ws)
    with raw_ws(serving.port) as greedy, ws(serving) as other:
        assert send_until_stuck(greedy, sent * 500) < 40_000_000
        assert other.ping().wait(30)


def test_ws_closes_what_is_idle(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "IDLE_SECONDS", 0.4)
    serving = start(serve_ws)
    with raw_ws(serving.port) as silent, raw_ws(serving.port) as busy, raw_ws(serving.port) as greedy:
        with suppress(ConnectionError):
            send_until_stuck(greedy, frame(0x81, b'ovnwatch/1 {"seq": 1, "size": 65536}') * 500)
        for _ in range(12):
            with suppress(ConnectionError):
                busy.sendall(frame(0x89, b"x"))
            time.sleep(0.05)
        assert gone(silent)
        assert gone(busy)
        wait_for(lambda: serving.listening.door.count() == 0)


def test_ws_cuts_its_connections_when_it_closes(on: Loop) -> None:
    serving = on(serve_ws(WHO, "127.0.0.1", 0))
    with raw_ws(serving.port) as silent:
        on(serving.close())
        assert gone(silent)


# --- http


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read().decode()
    connection.close()
    return answer


def test_http_ping_says_who_it_is(start: Serve) -> None:
    status, headers, body = ask(start(serve_http, Book()).port, "/ping")
    said = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert said.items() >= {**SAID, "status": "ok", "address": "127.0.0.1"}.items()
    assert said["ts"].endswith("+00:00")
    assert {"time", "mono"} <= said.keys()


@pytest.mark.parametrize("size", [400, 4096, 65536])
def test_http_ping_has_the_size_asked_for(start: Serve, size: int) -> None:
    assert len(ask(start(serve_http, Book()).port, f"/ping?size={size}")[2]) == size


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/ping?size=x", "size"),
        ("/ping?size=-1", "size"),
        ("/ping?size=65537", "size"),
        ("/ping?size=", "size"),
        ("/ping?size=1e3", "size"),
        ("/ping?size=%D9%A1", "size"),
        ("/history?since=x", "since"),
        ("/history?since=", "since"),
        ("/history?since=-1", "since"),
        ("/history?since=" + "9" * 5000, "since"),
        ("/history?since=1&limit=0", "limit"),
        ("/history?since=1&limit=many", "limit"),
        ("/history?limit=0", "limit"),
        ("/history?limit=-1", "limit"),
    ],
)
def test_http_names_the_parameter_that_is_wrong(start: Serve, path: str, names: str) -> None:
    status, headers, body = ask(start(serve_http, Book()).port, path)
    assert (status, headers["Content-Type"]) == (400, "application/json; charset=utf-8")
    assert json.loads(body)["error"].startswith(f"{names}: want a whole number from ")
    assert "\n" not in body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/-/healthy", 404),
        ("GET", "/ping/", 404),
        ("POST", "/ping", 405),
        ("DELETE", "/history", 405),
        ("POST", "/status", 405),
        ("GET", "/admin/clear_history", 405),
        ("BREW", "/ping", 400),
    ],
)
def test_http_knows_its_paths_and_methods(start: Serve, method: str, path: str, status: int) -> None:
    assert ask(start(serve_http, Book()).port, path, method)[0] == status


def test_http_status(start: Serve) -> None:
    status, headers, body = ask(start(serve_http, Book()).port, "/status")
    said = json.loads(body)
    assert status == 200
    assert headers["Ovnwatch-Journal"] == "j0"
    own = {"node": "nöde", "zone": "z", "instance": "c2", "boot_id": "b00t", "version": "1", "journal": "j0"}
    assert said.items() >= {"self": "peer-2", "source": SAID["source"], **own}.items()
    assert said["timestamp"].endswith("+00:00")
    assert said["connections"]["peer-1"]["tcp"] == "disconnected"
    assert [stream["stream"] for stream in said["streams"]] == [f"s{number}" for number in range(120)]


def test_http_history_for_an_earlier_systems_clients_is_a_list_newest_first(start: Serve) -> None:
    book = Book()
    _, headers, body = ask(start(serve_http, book, max_history=77).port, "/history")
    assert [item["seq"] for item in json.loads(body)] == [8, 5, 3]
    assert headers["Ovnwatch-Journal"] == "j0"
    assert book.limit == 77


@pytest.mark.parametrize(("limit", "wanted"), [(1, [8]), (2, [8, 5]), (10**17, [8, 5, 3])])
def test_http_history_with_a_limit_alone_is_the_newest(start: Serve, limit: int, wanted: list[int]) -> None:
    _, _, body = ask(start(serve_http, Book()).port, f"/history?limit={limit}")
    assert [item["seq"] for item in json.loads(body)] == wanted


def outage(seq: int, target: str, path: str, **changes: Any) -> dict[str, Any]:
    return {"seq": seq, "kind": "outage", "state": "closed", "stream": f"me|{target}|{path}|tcp|4", **changes}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", [9, 7, 4, 1]),
        ("?target=b", [4, 1]),
        ("?path=pod&state=closed", [4, 1]),
        ("?kind=gap", [9]),
        ("?state=open&target=c", [7]),
        ("?target=nobody", []),
        ("?path=pod&limit=1", [7]),
    ],
)
def test_http_history_chooses(start: Serve, query: str, wanted: list[int]) -> None:
    book = Book()
    book.changes = [
        outage(1, "b", "pod"),
        outage(4, "b", "pod"),
        outage(7, "c", "pod", state="open"),
        outage(9, "", "", kind="gap", stream=""),
    ]
    port = start(serve_http, book).port
    assert [item["seq"] for item in json.loads(ask(port, f"/history{query}")[2])] == wanted
    if query and "limit" not in query:
        ask(port, f"/history{query}&since=0")
        assert book.wanted == dict(part.split("=") for part in query[1:].split("&"))


@pytest.mark.parametrize("query", ["kind=outtage", "state=", "path=pods", "cleared=yes&since=0"])
def test_http_history_names_what_it_does_not_know(start: Serve, query: str) -> None:
    status, _, body = ask(start(serve_http, Book()).port, f"/history?{query}")
    assert status == 400
    assert json.loads(body)["error"].startswith(query.partition("=")[0] + ": want ")


@pytest.mark.parametrize("query", ["", "?since=0"])
def test_http_history_line_by_line_and_not_twice(start: Serve, query: str) -> None:
    book = Book()
    port = start(serve_http, book).port
    lined = {"Accept": "application/x-ndjson"}
    status, headers, body = ask(port, f"/history{query}", headers=lined)
    assert (status, headers["Content-Type"]) == (200, "application/x-ndjson")
    assert sorted(json.loads(line)["seq"] for line in body.splitlines()) == [3, 5, 8]
    known = {**lined, "If-None-Match": headers["Etag"]}
    assert ask(port, f"/history{query}", headers=known)[::2] == (304, "")
    assert ask(port, f"/history{query}", headers={"If-None-Match": headers["Etag"]})[0] == 200  # another form
    book.changes.append({"seq": 9, "name": "new"})
    assert ask(port, f"/history{query}", headers=known)[0] == 200


def test_http_status_tells_more_where_there_is_more(start: Serve) -> None:
    port = start(serve_http, Book(), more=lambda: {"not_observed": ("b", "c")}).port
    assert json.loads(ask(port, "/status")[2])["not_observed"] == ["b", "c"]


@pytest.mark.parametrize(
    ("query", "wanted", "following", "limit"),
    [
        ("since=0", [3, 5, 8], 8, 200),
        ("since=3", [5, 8], 8, 200),
        ("since=3&limit=1", [5], 5, 1),
        ("since=8", [], 8, 200),
        ("since=12", [], 12, 200),
        ("since=0&limit=5000", [3, 5, 8], 8, 1000),
    ],
)
def test_http_history_since(start: Serve, query: str, wanted: list[int], following: int, limit: int) -> None:
    book = Book()
    _, headers, body = ask(start(serve_http, book).port, f"/history?{query}")
    said = json.loads(body)
    assert [item["seq"] for item in said["items"]] == wanted
    assert (said["journal"], said["next"], headers["Ovnwatch-Journal"]) == ("j0", following, "j0")
    assert book.limit == limit


@pytest.mark.parametrize(
    ("token", "sent", "status"),
    [(None, "Bearer x", 403), ("x", "", 401), ("x", "Bearer y", 401), ("x", "Bearer x", 200)],
)
def test_http_clears_for_the_token_only(start: Serve, token: str | None, sent: str, status: int) -> None:
    book = Book()
    port = start(serve_http, book, access=Access(token=token)).port
    answer, _, body = ask(port, "/admin/clear_history", "POST", {"Authorization": sent})
    assert answer == status
    assert len(book.cleared) == (status == 200)
    if status == 200:
        said = json.loads(body)
        assert (said["ok"], said["pod"]) == (True, "peer-2")
        assert said["ts"].endswith("+00:00")
        assert abs(book.cleared[0] - time.time()) < 3600


def test_http_connections_are_kept_unless_the_client_says_otherwise(start: Serve) -> None:
    serving = start(serve_http, Book())
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)
    for _ in range(3):
        connection.request("GET", "/ping")
        connection.getresponse().read()
    assert serving.listening.door.count() == 1
    connection.request("GET", "/ping", headers={"Connection": "close"})
    assert connection.getresponse().headers["Connection"] == "close"
    wait_for(lambda: serving.listening.door.count() == 0)


def test_http_serves_a_thousand_new_connections(start: Serve) -> None:
    port = start(serve_http, Book()).port
    for _ in range(1000):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


RUDE = {
    "half a request": b"GET /ping HTTP/1.1\r\nHost: a\r\nX: unfini",
    "nothing": b"",
    "noise": bytes(range(256)) * 4000,
    "a header of 10 MB": b"GET /ping HTTP/1.1\r\nX: " + b"a" * 10_000_000,
    "an endless body": b"GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n" + b"a" * 5_000_000,
    "endless chunks": b"POST /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 200_000,
    "a heap of requests": b"GET /ping?size=65536 HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000,
}


@pytest.mark.parametrize("sent", RUDE.values(), ids=RUDE.keys())
@pytest.mark.parametrize("server", ["http", "ws", "tcp"])
def test_others_are_served_while_many_clients_misbehave(start: Serve, server: str, sent: bytes) -> None:
    serving = start(*{"http": (serve_http, Book()), "ws": (serve_ws,), "tcp": (serve_tcp,)}[server])

    def works() -> bool:
        if server == "tcp":
            with Line(serving.port) as client:
                return client.ask(b"hello\n") == b"hello\n"
        return ask(serving.port, "/ping")[0] == {"http": 200, "ws": 426}[server]

    with ExitStack() as stack:
        rude = [stack.enter_context(socket.create_connection(("127.0.0.1", serving.port))) for _ in range(20)]
        for client in rude:
            client.setblocking(False)
        for _ in range(5):
            for client in rude:
                with suppress(OSError):
                    client.send(sent)
            assert works()


def test_http_drops_half_a_request_after_a_while(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "IDLE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", start(serve_http, Book()).port), timeout=30) as client:
        client.sendall(RUDE["half a request"])
        assert gone(client)


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


def test_all_three_over_tls(start: Serve, certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))

    def connect(port: int) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        return trusting.wrap_socket(plain, server_hostname="localhost")

    tcp = start(serve_tcp, tls=context)
    with connect(tcp.port) as client, client.makefile("rb") as lines:
        for size in (0, 4096, 65536):
            client.sendall(b'ovnwatch/1 {"seq": 1, "size": %d}\n' % size)
            line = lines.readline()
            assert len(line) == size or not size
        client.sendall(b"x\n" * 500)
        assert [lines.readline() for _ in range(500)] == [b"x\n"] * 500
    with socket.create_connection(("127.0.0.1", tcp.port), timeout=30) as plain:
        plain.sendall(b"no TLS at all\n")
        assert gone(plain)

    secure = start(serve_ws, tls=context)

    async def talk() -> str:  # the client of threads reads and writes at one time, which OpenSSL does not allow
        async with aio_connect(f"wss://localhost:{secure.port}", ssl=trusting, open_timeout=30) as client_ws:
            await client_ws.send('ovnwatch/1 {"seq": 5}')
            return str(await client_ws.recv())

    assert '"seq":5' in asyncio.run(asyncio.wait_for(talk(), 60))

    with connect(start(serve_http, Book(), tls=context).port) as client:
        client.sendall(b"GET /ping?size=4096 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert len(answer.partition(b"\r\n\r\n")[2]) == 4096


def test_handshakes_under_way_have_places_and_keep_nobody_out(start: Serve, certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    serving = start(serve_tcp, tls=context, max_connections=3)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), 30)) for _ in range(6)]
        asking = []
        for _ in range(3):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), 30))
            client = stack.enter_context(trusting.wrap_socket(plain, server_hostname="localhost"))
            client.sendall(b"hello\n")
            assert client.recv(100) == b"hello\n"
            asking.append(client)
        assert all(gone(each) for each in silent)  # the last of them gave way to the last who asked
        assert serving.listening.door.refused == 0
        assert gone(stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), 10)))
        assert serving.listening.door.refused == 1
        asking[0].sendall(b"still\n")
        assert asking[0].recv(100) == b"still\n"
