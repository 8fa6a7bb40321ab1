"""The pull against real sockets: peers of every manner, honest, slow, restarted, replicated and malicious."""

import asyncio
import gzip
import json
import random
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from box import run, stream, until
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from servers import Certificates, make_certificates, refusing

from exporters import fetch, times
from exporters.bastion import pull as pull_module
from exporters.bastion import told, ways
from exporters.bastion.heard import Heard
from exporters.bastion.pull import REASONS, Pull
from exporters.bastion.told import History, RefusedError, Status
from exporters.targets import Stream

pytestmark = pytest.mark.slow  # sockets and their time-outs

FRAME = "\r\nConnection: {}\r\nContent-Type: application/json\r\n"
Answer = Callable[[str], "bytes | Awaitable[bytes]"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take a human's patience takes a second."""
    monkeypatch.setattr(pull_module, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.5)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def item(seq: int, state: str = "closed", **more: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "seq": seq,
        "id": f"e{seq}",
        "kind": "outage",
        "state": state,
        "stream": "node-1|node-2|service|tcp|4",
        "name": "node-2",
        "protocol": "TCP",
        "source": "pod",
        "reporter": "peer-1",
        "start_time": times.iso(now - 5),
        "end_time": times.iso(now - 4) if state == "closed" else None,
        "duration_sec": 1.0,
        "start": {"earliest": times.iso(now - 5), "latest": times.iso(now - 5)},
        "end": {"earliest": None, "latest": None},
        "duration": {"lower": 0.9, "estimate": 1.0, "upper": 1.1},
        "cause": "refused",
        "causes": {"refused": 3},
        **more,
    }


A_STREAM = {
    "stream": "node-1|node-2|service|tcp|4",
    "source": "node-1",
    "target": "node-2",
    "path": "service",
    "protocol": "tcp",
    "state": "up",
    "since": times.iso(0.0),
}


class Fake:
    """A peer's http server as a script: its journal, its items, and how it answers; `asked` is what it was asked."""

    def __init__(self, journal: str = "j", source: str = "node-1", **said: Any) -> None:
        self.journal = journal
        self.source = source
        self.items: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.said = said

    def status(self) -> dict[str, Any]:
        return {
            "self": "pod-1",
            "timestamp": times.iso(time.time()),
            "source": self.source,
            "instance": "i",
            "journal": self.journal,
            "connections": {"node-2": {"ws": "connected", "tcp": "disconnected", "http": "unknown"}},
            "streams": [],
            **self.said,
        }

    def answer(self, path: str) -> bytes:
        if path == "/status":
            return ok(self.status())
        if path.startswith("/history?since="):
            since = int(path.partition("=")[2].partition("&")[0])
            found = [each for each in self.items if each["seq"] > since][: told.PAGE]
            return ok({"journal": self.journal, "next": 0, "items": found})
        return b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"


def ok(value: object, head: str = "") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"HTTP/1.1 200 Ok\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def serving(
    *fakes: Fake, answer: Answer | None = None, tls: Any = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """One port; each connection is given to the next fake. `answer` answers in place of a fake's own."""
    taken = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        fake = fakes[taken % len(fakes)]
        taken += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                method, path, _ = head.split(" ", 2)
                fake.asked.append(path if method == "GET" else f"{method} {path}")
                fake.heads.append(head)
                given = (answer or fake.answer)(path)
                writer.write(given if isinstance(given, bytes) else await given)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client, or the test, is over
        finally:
            writer.close()

    server = await asyncio.start_server(talk, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def http(port: int, target: str = "peer-1-route", **changes: Any) -> Stream:
    return stream(port, "http", target=target, path="route", **changes)


@asynccontextmanager
async def pulling(
    *streams: Stream, address: Callable[[str, int], str | None] = lambda host, _: host, **more: Any
) -> AsyncIterator[Pull]:
    """Ask the peers that these lead to, twenty times a second."""
    found = Pull("bastion", "ovnwatch/test", Heard(1000), address, more.pop("foreign", lambda _: False))
    found.update(streams, 0.05)
    try:
        yield found
    finally:
        await found.close()


def ids(pull: Pull) -> set[str]:
    return {each["id"] for _, each in pull.heard.items()}


# --- peers that mean well


def test_a_peer_is_heard_and_its_history_read_once() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.items = [item(1), item(2)]
        async with serving(fake) as port, pulling(http(port)) as pull:
            peer = pull.peers["peer-1"]
            await until(lambda: peer.heard)
            await until(lambda: ids(pull) == {"e1", "e2"})
            fake.items += [item(3)]
            await until(lambda: "e3" in ids(pull))
            assert peer.status["connections"]["node-2"]["tcp"] == "disconnected"
            assert abs(peer.offset) < 1
            assert peer.url == f"http://127.0.0.1:{port}"
            await until(lambda: f"/history?since=3&limit={told.PAGE}" in fake.asked)
            assert fake.asked.count(f"/history?since=0&limit={told.PAGE}") == 1
            head = fake.heads[-1].lower()
            assert f"host: 127.0.0.1:{port}\r\n" in head
            assert "accept-encoding" not in head
            assert "authorization" not in head

    run(scenario())


def test_a_long_history_is_read_page_by_page() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.items = [item(seq) for seq in range(1, 2 * told.PAGE + 2)]
        async with serving(fake) as port, pulling(http(port)) as pull:
            await until(lambda: len(ids(pull)) == 2 * told.PAGE + 1)
            wanted = [path for path in fake.asked if path.startswith("/history")]
            assert wanted[:3] == [f"/history?since={n * told.PAGE}&limit={told.PAGE}" for n in (0, 1, 2)]

    run(scenario())


def test_replicas_behind_one_address_are_each_read_from_their_own_place() -> None:
    async def scenario() -> None:
        fakes = [Fake(f"j{number}", f"node-{number}") for number in range(3)]
        for number, fake in enumerate(fakes):
            fake.items = [item(seq, id=f"{number}-{seq}") for seq in range(1, 4 + number)]
        async with serving(*fakes) as port, pulling(http(port)) as pull:
            await until(lambda: len(ids(pull)) == 3 + 4 + 5)
            assert set(pull.peers["peer-1"].sources) == {"node-0", "node-1", "node-2"}
            fakes[1].items.append(item(9, id="1-9"))
            await until(lambda: "1-9" in ids(pull))
            for fake in fakes:
                assert fake.asked.count(f"/history?since=0&limit={told.PAGE}") == 1

    run(scenario())


def test_replicas_are_read_though_each_request_goes_to_another() -> None:
    async def scenario() -> None:
        fakes = [Fake(f"j{number}", f"node-{number}") for number in range(3)]
        for number, fake in enumerate(fakes):
            fake.items = [item(seq, id=f"{number}-{seq}") for seq in range(1, 5 + 100 * number)]
        balance = random.Random(7)

        async with (
            serving(fakes[0], answer=lambda path: balance.choice(fakes).answer(path)) as port,
            pulling(http(port)) as pull,
        ):
            await until(lambda: len(ids(pull)) == 4 + 104 + 204)
            fakes[2].items.append(item(999, id="new"))
            await until(lambda: "new" in ids(pull))

    run(scenario())


def test_another_replica_that_answers_for_the_history_is_asked_from_its_own_place() -> None:
    async def scenario() -> None:
        one, two = Fake("one"), Fake("two")
        one.items, two.items = [item(1), item(50)], [item(1, id="a"), item(2, id="b")]

        def either(path: str) -> bytes:  # one answers for its status, two for its history: each request is balanced
            return (one if path == "/status" else two).answer(path)

        async with serving(one, answer=either) as port, pulling(http(port)) as pull:
            await until(lambda: ids(pull) == {"a", "b"})

    run(scenario())


def test_a_restarted_peer_is_read_from_the_beginning_and_leaves_what_was_open_truncated() -> None:
    async def scenario() -> None:
        fake = Fake("before")
        fake.items = [item(7, "open")]
        async with serving(fake) as port, pulling(http(port)) as pull:
            await until(lambda: ids(pull) == {"e7"})
            fake.journal, fake.items = "after", [item(1)]
            await until(lambda: ids(pull) == {"e7", "e1"})
            states = {each["id"]: each["state"] for _, each in pull.heard.items()}
            assert states == {"e7": "truncated", "e1": "closed"}

    run(scenario())


def test_three_ways_to_one_peer_give_one_history_and_a_broken_way_hides_nothing() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.items = [item(1)]
        closed = refusing()
        async with serving(fake) as one, serving(fake) as two:
            streams = [
                http(one),
                stream(two, "http", target="peer-1-np", path="nodeport"),
                stream(closed.getsockname()[1], "http", target="peer-1-lb", path="loadbalancer"),
            ]
            async with pulling(*streams) as pull:
                assert set(pull.peers) == {"peer-1"}
                await until(lambda: len(fake.asked) > 20)
                assert len(pull.heard.shown()) == 1
                assert pull.peers["peer-1"].heard
                await until(lambda: failures(pull) == {"unreachable": 1.0})
        closed.close()

    run(scenario())


@pytest.mark.parametrize("manner", ["says so", "HTTP/1.0", "closes", "resets"])
def test_a_server_that_closes_after_each_answer_is_asked_on_new_connections(manner: str) -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.items = [item(1)]

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            _, path, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
            head, _, body = fake.answer(path).partition(b"\r\n\r\n")
            head = {"says so": head + b"\r\nConnection: close", "HTTP/1.0": b"HTTP/1.0 200 Ok"}.get(manner, head)
            writer.write(head + b"\r\n\r\n" + body)
            await writer.drain()
            if manner == "resets":
                with suppress(asyncio.CancelledError):  # the test is over
                    await asyncio.sleep(0.01)  # else the reset overtakes the answer
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with pulling(http(server.sockets[0].getsockname()[1])) as pull:
            await until(lambda: ids(pull) == {"e1"})
            assert pull.peers["peer-1"].heard
            assert failures(pull) == {}
        server.close()

    run(scenario())


def test_a_connection_that_dies_before_any_answer_is_tried_once_more_for_a_get_only() -> None:
    async def scenario() -> None:
        asked: list[bytes] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n"))[:4])
            if len(asked) == 1:  # the first connection is good for one answer, all others for none
                writer.write(ok({}))
                await writer.drain()
                with suppress(asyncio.IncompleteReadError):
                    asked.append((await reader.readuntil(b"\r\n\r\n"))[:4])
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for method, times_sent in (("GET ", 2), ("POST", 1)):
            asked.clear()
            async with fetch.Conversation("127.0.0.1", port, None, "", "Host: h\r\n") as talking:
                await talking.request("GET", "/", 1000)
                with pytest.raises(fetch.FetchError, match="unreachable"):
                    await talking.request(method.strip(), "/", 1000)
            assert asked == [b"GET ", *[method.encode()] * times_sent]
        server.close()

    run(scenario())


def test_open_items_grow_with_the_status() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.items = [item(4, "open")]
        grown = item(0, "open", id="e4", duration_sec=60.0)
        fake.said = {"streams": [{**A_STREAM, "state": "down", "open": grown}]}
        async with serving(fake) as port, pulling(http(port)) as pull:
            await until(lambda: [each["duration_sec"] for _, each in pull.heard.items()] == [60.0])
            (found,) = pull.fresh()
            assert found.seen.state == "down"

    run(scenario())


def test_the_clocks_difference_is_known() -> None:
    async def scenario() -> None:
        fake = Fake(timestamp=times.iso(time.time() + 3600))
        async with serving(fake) as port, pulling(http(port)) as pull:
            await until(lambda: pull.peers["peer-1"].heard)
            assert 3590 < pull.peers["peer-1"].offset < 3610

    run(scenario())


@pytest.mark.parametrize(("source", "warned"), [("node-1", True), ("PEER-1", False)])
def test_a_peer_that_calls_itself_otherwise_is_warned_of(
    source: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(Fake(source=source)) as port, pulling(http(port)) as pull:
            await until(lambda: pull.peers["peer-1"].heard)

    run(scenario())
    assert ("peer-1 calls itself node-1" in caplog.text) == warned


def test_over_tls_the_certificate_counts(certificates: Certificates) -> None:
    async def scenario() -> None:
        fake = Fake()
        trusted, name = certificates.client(), {"host": "localhost", "target": "named"}
        async with serving(fake, tls=certificates.server()) as port:
            streams = [
                http(port, "good", tls=trusted),
                http(port, tls=trusted, **name),
                http(port, "dotted", tls=certificates.client(server_name="localhost.")),
                http(port, "stranger", tls=certificates.client(ca_file=None)),
                http(port, "misnamed", tls=certificates.client(server_name="other.example")),
            ]
            async with pulling(*streams, address=lambda *_: "127.0.0.1") as pull:
                peers = pull.peers
                await until(lambda: all(peers[each].heard for each in ("good", "named", "dotted")))
                await until(lambda: peers["stranger"].heard is False and peers["misnamed"].heard is False)
                assert set(failures(pull)) == {"tls"}
                assert peers["named"].url == f"https://localhost:{port}"

    run(scenario())


# --- peers that cannot be heard


def failures(pull: Pull) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(pull)
    values = {
        reason: registry.get_sample_value("ovnwatch_peer_look_failures_total", {"source": "bastion", "reason": reason})
        for reason in REASONS
    }
    return {reason: min(value, 1.0) for reason, value in values.items() if value}


def metric(pull: Pull, name: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(pull)
    return registry.get_sample_value(name, {"source": "bastion", "target": "peer-1"})


def test_a_peer_that_goes_is_unknown_from_then_on_and_heard_again_when_it_comes_back() -> None:
    async def scenario() -> None:
        fake = Fake(streams=[A_STREAM])
        gone = False

        def answer(path: str) -> bytes:
            return b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" if gone else fake.answer(path)

        async with serving(fake, answer=answer) as port, pulling(http(port)) as pull:
            peer = pull.peers["peer-1"]
            assert peer.heard is metric(pull, "ovnwatch_peer_heard") is None
            await until(lambda: peer.heard)
            assert metric(pull, "ovnwatch_peer_heard") == 1.0
            assert pull.fresh()
            since, gone = peer.since, True
            await until(lambda: peer.heard is False)
            assert peer.since >= since
            assert (peer.error, metric(pull, "ovnwatch_peer_heard")) == ("answers 503 to /status", 0.0)
            assert pull.fresh() == []  # what it saw before it went says nothing of now
            assert pull.answering() == {"peer-1": {"node-1"}}  # but it is the same that it was
            assert metric(pull, "ovnwatch_peer_last_heard_timestamp_seconds") == peer.last
            gone = False
            await until(lambda: peer.heard)
            assert peer.error == ""

    run(scenario())


def test_a_silent_peer_delays_no_other() -> None:
    async def scenario() -> None:
        fake, silent = Fake(), Fake()

        async def never(_: str) -> bytes:
            await asyncio.sleep(30)
            return b""

        async with serving(fake) as good, serving(silent, answer=never) as bad:
            streams = [http(good, "good"), *(http(bad, f"bad-{number}") for number in range(10))]
            async with pulling(*streams) as pull:
                await until(lambda: len(fake.asked) > 10)
                assert all(not pull.peers[f"bad-{number}"].heard for number in range(10))
                await until(lambda: failures(pull) == {"timeout": 1.0})

    run(scenario())


@pytest.mark.parametrize(("address", "reason"), [(None, "no_address"), ("127.0.0.1", "unreachable")])
def test_what_cannot_be_reached_has_its_reason(address: str | None, reason: str) -> None:
    async def scenario() -> None:
        closed = refusing()
        async with pulling(http(closed.getsockname()[1], host="h"), address=lambda *_: address) as pull:
            await until(lambda: pull.peers["peer-1"].heard is False)
            assert failures(pull) == {reason: 1.0}
        closed.close()

    run(scenario())


def test_a_target_that_is_no_ovnwatch_is_not_asked_and_not_told_of() -> None:
    async def scenario() -> None:
        fake = Fake()
        async with serving(fake) as port, pulling(http(port), foreign=lambda _: True) as pull:
            await until(lambda: pull.peers["peer-1"].foreign)
            await asyncio.sleep(0.2)
            assert fake.asked == []
            assert pull.known() == []

    run(scenario())


def test_what_is_removed_is_asked_no_longer_and_what_stays_is_kept() -> None:
    async def scenario() -> None:
        one, two = Fake(), Fake("k")
        one.items = [item(1)]
        async with serving(one) as port, serving(two) as other:
            stays, goes = http(other, "stays"), http(port)
            async with pulling(goes, stays) as pull:
                await until(lambda: all(peer.heard for peer in pull.peers.values()))
                kept = pull.peers["stays"]
                pull.update([stays], 0.05)
                assert set(pull.peers) == {"stays"}
                assert pull.peers["stays"] is kept
                await asyncio.sleep(0.2)
                asked = len(one.asked)
                await until(lambda: two.asked.count("/status") > 10)
                assert len(one.asked) == asked
                assert ids(pull) == {"e1"}

    run(scenario())


# --- peers that mean ill


def flood(head: bytes, part: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A server that sends `head` and then `part` without end."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while True:
                writer.write(part)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    return talk


OK = b"HTTP/1.1 200 Ok\r\n"
PLAIN = {"self": "p", "timestamp": "2026-01-01T00:00:00+00:00", "source": "n", "instance": "i", "journal": "j"}
SCRIPT = "<script>alert(1)</script>"

REFUSED: dict[str, bytes] = {
    "nothing": ok(b""),
    "no JSON": ok(b"<html>"),
    "not UTF-8": ok(b'{"self": "\xff\xfe"}'),
    "NaN": ok(b"NaN"),
    "an array": ok([]),
    "deep arrays": ok(b"[" * 500_000),
    "deep objects": ok(b'{"a":' * 100_000),
    "many values": ok(b'{"streams": [' + b"{}," * 300_000 + b"{}]}"),
    "many keys": ok(b"{" + b",".join(b'"%d": 1' % number for number in range(90_000)) + b"}"),
    "a long number": ok(b"1" * 900_000),
    "too long": ok(b" " * (told.MOST_BYTES + 1)),
    "keys missing": ok({}),
    "wrong types": ok({**PLAIN, "connections": {"a": {"ws": 1}}}),
    "a word there is not": ok({**PLAIN, "connections": {"a": {"ws": SCRIPT}}}),
    "a long name": ok({**PLAIN, "source": "n" * 300, "connections": {}}),
    "no time": ok({**PLAIN, "timestamp": SCRIPT, "connections": {}}),
    "a time without end": ok({**PLAIN, "timestamp": "9999-12-31T23:59:59+00:00", "connections": {}}),
    "a time without offset": ok({**PLAIN, "timestamp": "2026-01-01T00:00:00", "connections": {}}),
    "packed": ok(gzip.compress(b" " * 10_000_000), "Content-Encoding: gzip\r\n"),
    "many connections": ok({**PLAIN, "connections": {str(number): {} for number in range(6000)}}),
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_what_is_no_answer_is_refused_and_not_asked_for_again_soon(answer: bytes) -> None:
    async def scenario() -> None:
        fake = Fake()
        async with serving(fake, answer=lambda _: answer) as port, pulling(http(port)) as pull:
            peer = pull.peers["peer-1"]
            await until(lambda: peer.heard is False)
            assert failures(pull) == {"refused": 1.0}
            assert len(peer.error) <= 200
            await asyncio.sleep(0.3)
            assert fake.asked == ["/status"]
            assert pull.heard.shown() == []

    run(scenario())


def test_a_redirect_is_not_followed() -> None:
    async def scenario() -> None:
        fake, other = Fake(), Fake()
        async with serving(other) as elsewhere:
            moved = f"HTTP/1.1 302 No\r\nLocation: http://127.0.0.1:{elsewhere}/status\r\nContent-Length: 0\r\n\r\n"
            async with serving(fake, answer=lambda _: moved.encode()) as port, pulling(http(port)) as pull:
                await until(lambda: pull.peers["peer-1"].heard is False)
                assert failures(pull) == {"http_status": 1.0}
                assert other.asked == []

    run(scenario())


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "headers": (OK, b"X-%s: y\r\n" % (b"x" * 1000)),
    "one header": (OK + b"X: ", b"x" * 10_000),
    "a status line": (b"HTTP/1.1 200 ", b"x" * 10_000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a body without end": (OK + b"\r\n", b" " * 10_000),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\n    \r\n" * 1000),
    "a chunk's extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n4;", b"x" * 10_000),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000),
    "a false length": (OK + b"Content-Length: 99999999999999\r\n\r\n", b" " * 10_000),
    "noise": (b"", b"\x00\xff\r\n" * 1000),
}


@pytest.mark.parametrize(("head", "part"), FLOODS.values(), ids=FLOODS)
def test_a_flood_costs_bounded_memory_and_time(head: bytes, part: bytes) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(flood(head, part), "127.0.0.1", 0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with pulling(http(server.sockets[0].getsockname()[1])) as pull:
            await until(lambda: pull.peers["peer-1"].heard is False)
            assert failures(pull).keys() <= {"refused", "unreachable", "timeout"}
        server.close()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB

    run(scenario())


def test_a_bad_history_leaves_what_was_known() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.items = [item(1)]
        async with serving(fake) as port, pulling(http(port)) as pull:
            await until(lambda: ids(pull) == {"e1"})
            fake.items.append(item(2, end_time=SCRIPT))
            await until(lambda: pull.peers["peer-1"].heard is False)
            assert ids(pull) == {"e1"}
            assert pull.peers["peer-1"].error.startswith("no answer of a peer's: items.0.end_time: ")

    run(scenario())


def test_an_endless_history_is_read_a_few_pages_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_module, "PAGES", 2)

    async def scenario() -> None:
        fake = Fake()
        seq = 0

        def answer(path: str) -> bytes:
            nonlocal seq
            if path == "/status":
                return fake.answer(path)
            seq += 100
            return ok({"journal": "j", "items": [item(seq + number) for number in range(told.PAGE)]})

        async with serving(fake, answer=answer) as port, pulling(http(port)) as pull:
            await until(lambda: seq > 1500)
            assert len(pull.heard.shown()) == 1000
            pages = len([path for path in fake.asked if path.startswith("/history")])
            assert pages <= 2 * fake.asked.count("/status")

    run(scenario())


def test_markup_stays_text() -> None:
    async def scenario() -> None:
        fake = Fake(source=SCRIPT)
        fake.items = [item(1, name=SCRIPT, reporter=SCRIPT, cause=SCRIPT)]
        async with serving(fake) as port, pulling(http(port)) as pull:
            await until(lambda: ids(pull) == {"e1"})
            assert pull.heard.shown()[0]["name"] == SCRIPT  # whoever shows it sets it as text

    run(scenario())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from([*Status.model_fields, *History.model_fields])


@given(st.dictionaries(FIELDS, json_values))
def test_any_json_is_read_or_refused(value: Mapping[str, Any]) -> None:
    body = json.dumps({**PLAIN, "connections": {}, **value}).encode()
    for read in (lambda: told.read(Status, body), lambda: told.read(History, body)):
        with suppress(RefusedError):
            read()


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(RefusedError):
        told.read(Status, body)


# --- clearing


def test_the_token_goes_to_peers_that_were_heard_and_to_no_others() -> None:
    async def scenario() -> None:
        good, stranger = Fake(), Fake()

        def answer(path: str) -> bytes:
            return ok({"ok": True}) if path.startswith("/admin") else good.answer(path)

        async with (
            serving(good, answer=answer) as one,
            serving(stranger, answer=lambda _: ok([])) as two,
            pulling(http(one), http(two, "stranger")) as pull,
        ):
            await until(lambda: pull.peers["peer-1"].heard and pull.peers["stranger"].heard is False)
            assert await pull.clear("secret") == {"peer-1": ""}
            assert "POST /admin/clear_history" in good.asked
            assert "authorization: bearer secret" in next(head for head in good.heads if head[:4] == "POST").lower()
            assert "secret" not in str(stranger.heads)

    run(scenario())


def test_what_went_wrong_with_clearing_is_told_by_peer() -> None:
    async def scenario() -> None:
        fakes = {name: Fake(name) for name in ("works", "refuses", "dies")}

        def answering(name: str) -> Answer:
            def answer(path: str) -> bytes:
                if not path.startswith("/admin"):
                    return fakes[name].answer(path)
                return ok({}) if name == "works" else b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"

            return answer

        async with (
            serving(fakes["works"], answer=answering("works")) as one,
            serving(fakes["refuses"], answer=answering("refuses")) as two,
            serving(fakes["dies"]) as three,
        ):
            streams = [http(one, "works"), http(two, "refuses"), http(three, "dies")]
            async with pulling(*streams) as pull:
                await until(lambda: all(peer.heard for peer in pull.peers.values()))
                pull.peers["dies"].ways = tuple(way._replace(port=1) for way in pull.peers["dies"].ways)
                found = await pull.clear("secret")
                assert found == {"works": "", "refuses": "answers 401", "dies": "Connection refused"}

    run(scenario())


def test_one_way_that_works_is_enough_to_clear() -> None:
    async def scenario() -> None:
        fake = Fake()
        closed = refusing()

        def answer(path: str) -> bytes:
            return ok({}) if path.startswith("/admin") else fake.answer(path)

        async with serving(fake, answer=answer) as port:
            lb = stream(closed.getsockname()[1], "http", target="peer-1-lb", path="loadbalancer")
            for streams in ([http(port), lb], [lb, http(port)]):
                async with pulling(*streams) as pull:
                    peer = pull.peers["peer-1"]
                    await until(partial(getattr, peer, "heard"))
                    assert await pull.clear("secret") == {"peer-1": ""}
        closed.close()

    run(scenario())


def test_rests_are_longer_than_a_look() -> None:
    assert ways.REST > 1
    assert ways.LONG_REST > ways.REST
