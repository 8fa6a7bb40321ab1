"""The engine: names, its own process as a target, scarce descriptors, start and stop."""

import asyncio
import contextlib
import gc
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import servers
import uvloop
from box import OURSELVES, failures, only, probing, run, stream, successes, until
from servers import healthy, misbehaving, refusing

from exporters.fetch import client_context
from exporters.probing.engine import Engine
from exporters.probing.names import is_literal
from exporters.probing.record import Record
from exporters.settings import SPARE_DESCRIPTORS, Tls

pytestmark = pytest.mark.slow  # sockets, processes and their time-outs

UNHURRIED = 1.5  # seconds; a prompt limit that busy machines keep too


# --- names


@contextlib.contextmanager
def names(answers: dict[str, str | type[Exception] | None]) -> Iterator[None]:
    """Look names up in `answers` (changed at will): an address, an error to raise, or None: no answer."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        answer = answers[host]
        if answer is None:
            await asyncio.sleep(3600)
        if isinstance(answer, type):
            raise answer("no such name" if answer is not UnicodeError else "label too long")
        return await real(answer, *arguments, **options)

    loop.getaddrinfo = getaddrinfo  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del loop.getaddrinfo


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants to wait for the resolver's usual times."""
    monkeypatch.setattr("exporters.probing.names.AGAIN", 0.05)
    monkeypatch.setattr("exporters.probing.names.EVERY", 0.05)
    monkeypatch.setattr("exporters.probing.names.PATIENCE", 0.3)


@pytest.mark.parametrize(
    ("answer", "cause"), [(socket.gaierror, "dns_error"), (UnicodeError, "dns_error"), (None, "dns_timeout")]
)
def test_a_name_that_does_not_resolve_is_unknown_until_it_does(
    answer: str | type[Exception] | None, cause: str
) -> None:
    async def scenario() -> None:
        server = await healthy("tcp")
        found: dict[str, Any] = {"peer.example": answer}
        with names(found):
            async with probing(stream(server.port, host="peer.example", prompt=UNHURRIED)) as record:
                stats = only(record)
                await until(lambda: failures(stats).get(cause, 0) >= 3)
                assert set(failures(stats)) == {cause}
                assert (stats.now_state, stats.cause) == ("unknown", cause)
                assert stats.probes == failures(stats)[cause]
                found["peer.example"] = "127.0.0.1"
                await until(lambda: stats.now_state == "up")
                assert record.history() == []
        await server.close()

    run(scenario())


def test_a_name_still_being_looked_up_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.probing.names.PATIENCE", 60.0)

    async def scenario() -> None:
        with names({"peer.example": None}):
            async with probing(stream(1, host="peer.example", interval=0.02)) as record:
                await asyncio.sleep(0.1)
                assert failures(only(record)) == {}

    run(scenario())


def test_the_last_good_address_serves_while_the_name_does_not_resolve() -> None:
    async def scenario() -> None:
        server = await healthy("http")
        found: dict[str, Any] = {"peer.example": "127.0.0.1"}
        with names(found):
            async with probing(stream(server.port, "http", host="peer.example", prompt=UNHURRIED)) as record:
                stats = only(record)
                await until(lambda: stats.now_state == "up")
                found["peer.example"] = socket.gaierror
                await asyncio.sleep(0.3)
                before = successes(stats)
                await until(lambda: successes(stats) >= before + 3)
                assert failures(stats) == {}
        await server.close()

    run(scenario())


def test_a_name_that_moves_is_followed() -> None:
    async def scenario() -> None:
        old = await healthy("http")
        found: dict[str, Any] = {"peer.example": "127.0.0.1"}
        with names(found):
            async with probing(stream(old.port, "http", host="peer.example", prompt=UNHURRIED)) as record:
                stats = only(record)
                await until(lambda: stats.now_state == "up")
                await old.close()
                new = await healthy("http", old.port, host="127.0.0.2")
                await until(lambda: stats.now_state == "down")
                found["peer.example"] = "127.0.0.2"
                await until(lambda: stats.now_state == "up")
        await new.close()

    run(scenario())


def test_a_name_is_looked_up_in_the_family_asked_for() -> None:
    async def scenario() -> None:
        server = await healthy("ws", host="::1")
        spec = stream(server.port, "ws", host="localhost", family=6, prompt=UNHURRIED)
        with names({"localhost": "::1"}):
            async with probing(spec) as record:
                await until(lambda: only(record).now_state == "up")
                assert only(record).peer["address"] == "::1"
        await server.close()

    run(scenario())


def test_a_look_up_given_up_that_fails_later_is_nobodys_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.probing.names.PATIENCE", 0.02)
    monkeypatch.setattr("exporters.probing.names.AGAIN", 0.01)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        asked: list[float] = []

        async def getaddrinfo(*_: Any, **__: Any) -> Any:
            asked.append(loop.time())
            await asyncio.sleep(0.5)
            raise socket.gaierror

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
        async with probing(stream(1, host="peer.example")) as record:
            await until(lambda: len(asked) >= 3)
            await asyncio.sleep(0.6)
            assert "dns_timeout" in failures(only(record))
            gc.collect()

    run(scenario())


def test_streams_share_the_look_ups_of_a_name() -> None:
    async def scenario() -> None:
        server = await healthy("tcp")
        loop = asyncio.get_running_loop()
        under_way = 0

        async def getaddrinfo(*_: Any, **__: Any) -> Any:
            nonlocal under_way
            under_way += 1
            assert under_way == 1
            await asyncio.sleep(0.1)
            under_way -= 1
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
        streams = [stream(server.port, host="peer.example", path=str(n), prompt=UNHURRIED) for n in range(5)]
        async with probing(*streams) as record:
            await until(lambda: all(each.now_state == "up" for each in record.stats.values()))
            assert record.engine.address("peer.example", 4) == "127.0.0.1"
            assert record.engine.address("peer.example", 6) is record.engine.address("another.example", 4) is None
            assert record.engine.address("::1", 6) == "::1"
        await server.close()

    run(scenario())


def test_literal_addresses_are_not_looked_up() -> None:
    assert all(is_literal(host) for host in ("127.0.0.1", "::1", "fe80::1%eth0"))
    assert not any(is_literal(host) for host in ("localhost", "1.2.3", "peer.example", "1.2.3.4.example"))


# --- ourselves


@pytest.mark.parametrize("protocol", ["http", "tcp", "ws"])
def test_a_target_that_is_this_very_process_is_dropped(protocol: str) -> None:
    async def scenario() -> None:
        server = await healthy(protocol, identity=OURSELVES)
        spec = stream(server.port, protocol, prompt=UNHURRIED)
        async with probing(spec) as record:
            await until(lambda: not record.stats)
            await asyncio.sleep(0.3)
            assert (record.status(), record.connections(), record.history()) == ([], {}, [])
            assert len(record.engine.poller) == 0
        await server.close()

    run(scenario())


# --- start and stop


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_stop_leaves_what_is_undecided_unknown_and_closes_everything(factory: Callable[[], Any]) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in ("http", "tcp", "ws"):
                server = await stack.enter_async_context(misbehaving(protocol, servers.silent))
                streams.append(stream(server.port, protocol, prompt=60.0, patience=60.0))
            async with probing(*streams) as record:
                everyone = list(record.stats.values())
                await until(lambda: all(each.probes >= 3 for each in everyone))
                engine = record.engine
            assert all(failures(each) == {} for each in everyone)
            assert all(each.shape.unknown == {**each.shape.unknown, "shutdown": each.probes} for each in everyone)
            assert all(each.now_state == "unknown" for each in everyone)
            assert len(engine.poller) == 0
            probes = [each.probes for each in everyone]
            await asyncio.sleep(0.3)
            assert [each.probes for each in everyone] == probes

    run(scenario(), factory)


def test_stop_in_the_middle_of_everything() -> None:
    """Of an outage, of a look-up, of handshakes."""

    async def scenario() -> None:
        with refusing() as sock, names({"peer.example": None}):
            async with (
                misbehaving("tcp", servers.answers_once) as server,
                misbehaving("tcp", servers.talks_first) as plain,
            ):
                streams = [
                    stream(sock.getsockname()[1], "ws"),
                    stream(server.port, "tcp"),
                    stream(1, host="peer.example", target="elsewhere"),
                    stream(plain.port, "http", tls=Tls(verify=False)),
                ]
                async with probing(*streams) as record:
                    await until(lambda: any(each.breaks for each in record.stats.values()))

    run(scenario())


def test_update_leaves_alone_what_stays_and_begins_and_ends_the_rest() -> None:
    async def scenario() -> None:
        async with misbehaving("tcp", servers.good) as server, misbehaving("tcp", servers.good) as other:
            stays = stream(server.port, target="stays", prompt=UNHURRIED)
            goes = stream(other.port, target="goes", prompt=UNHURRIED)
            changes = stream(other.port, target="changes", prompt=UNHURRIED)
            named = stream(other.port, target="named", host="localhost", prompt=UNHURRIED)
            async with probing(stays, goes, changes, named) as record:
                await until(lambda: all(each.now_state == "up" for each in record.stats.values()))
                was = record.stats[stays.key]
                changed = replace(changes, interval=0.2)
                new = stream(other.port, target="new", host="localhost", prompt=UNHURRIED)
                record.engine.update([stays, changed, new])
                assert record.stats.keys() == {stays.key, changes.key, new.key}
                assert record.stats[stays.key] is was
                assert record.stats[changes.key].probes == 0
                before = was.probes
                await until(lambda: was.probes >= before + 5 and successes(record.stats[new.key]) >= 5)
                await until(lambda: record.stats[changes.key].now_state == "up")
                assert len(record.engine.poller) == 3
                assert server.connections == 1  # still the first
                assert record.history() == []
                record.engine.update([])
                assert (record.status(), len(record.engine.poller)) == ([], 0)
                record.engine.update([stays])
                await until(lambda: record.stats[stays.key].now_state == "up")

    run(scenario())


def test_an_event_that_is_open_when_its_stream_goes_stays_as_truncated() -> None:
    async def scenario() -> None:
        server = await healthy("tcp")
        spec = stream(server.port, prompt=UNHURRIED)
        async with probing(spec) as record:
            await until(lambda: only(record).now_state == "up")
            await server.close()
            await until(lambda: only(record).now_state == "down")
            seq = record.history()[-1]["seq"]
            record.engine.update([])
            (item,) = record.history(since=seq)
            assert (item["state"], item["end_time"]) == ("truncated", None)
            await asyncio.sleep(1.0)
            assert record.history() == [item]

    run(scenario())


@pytest.mark.parametrize("passes", range(4))
def test_stop_while_a_look_up_is_just_ending(passes: int) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        found = loop.create_future()

        async def getaddrinfo(*_: Any, **__: Any) -> Any:
            return await asyncio.shield(found)

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
        async with probing(stream(1, host="peer.example")):
            await asyncio.sleep(0.05)
            found.set_result([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))])
            for _ in range(passes):
                await asyncio.sleep(0)

    run(scenario())


def test_a_bug_is_not_an_outage() -> None:
    """It reaches the loop's exception handler, which ends the process."""

    async def scenario() -> None:
        server = await healthy("tcp")
        async with probing(stream(server.port)) as record:
            await until(lambda: successes(only(record)))
            record.lag = None  # type: ignore[assignment]
            await asyncio.sleep(0.3)
        await server.close()

    with pytest.raises(AttributeError, match="observe"):
        run(scenario())


def test_certificates_that_are_none_are_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "nonsense.pem"
    for tls in (Tls(ca_file=str(file)), Tls(cert_file=str(file), key_file=str(file))):
        with pytest.raises(OSError):
            client_context(tls)
    file.write_text("nonsense")
    for tls in (Tls(ca_file=str(file)), Tls(cert_file=str(file), key_file=str(file))):
        with pytest.raises(OSError):  # ssl.SSLError is one
            client_context(tls)


# --- descriptors


def test_connections_that_only_wait_for_late_answers_go_first() -> None:
    async def scenario() -> None:
        most = 40
        async with misbehaving("tcp", servers.silent) as server:
            streams = [stream(server.port, path=str(number)) for number in range(10)]
            async with probing(*streams, descriptors=SPARE_DESCRIPTORS + most) as record:
                everyone = list(record.stats.values())

                def failed() -> int:
                    assert len(record.engine.poller) <= most
                    return sum(sum(failures(each).values()) for each in everyone)

                await until(lambda: failed() > 5 * most)  # patience alone would hold 30 a stream
                assert all(failures(each).keys() <= {"connect_timeout", "response_timeout"} for each in everyone)

    run(scenario())


def test_more_streams_than_descriptors_are_unknown_not_failed() -> None:
    async def scenario() -> None:
        most = 4
        async with misbehaving("tcp", servers.silent) as server:
            streams = [stream(server.port, path=str(number), prompt=60.0) for number in range(2 * most)]
            async with probing(*streams, descriptors=SPARE_DESCRIPTORS + most) as record:
                everyone = list(record.stats.values())
                await until(lambda: sum(each.shape.unknown["descriptors"] for each in everyone) > 3 * most)
                assert len(record.engine.poller) == most
                assert all(failures(each) == {} for each in everyone)

    run(scenario())


def test_what_waits_for_late_answers_is_forgotten_when_it_is_over() -> None:
    """Though the first of them lives on, as one does that was slow once and is the stream's own connection again."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        engine = Engine([], OURSELVES, Record([], OURSELVES), loop)
        links = [Waiting() for _ in range(5000)]
        for link in links:
            for each in (links[0], link):
                engine.waiting(None, each)  # type: ignore[arg-type]
            link.open = link is links[0]
        assert len(engine._waiting) < 500
        await engine.stop()

    run(scenario())


class Waiting:
    """A link and its connection."""

    open = True

    @property
    def conn(self) -> "Waiting":
        return self


def test_no_descriptor_left_in_the_process_is_unknown_not_failed() -> None:
    """In a process of its own; probes go on when there are descriptors again."""
    command = [sys.executable, "-c", "import test_engine; test_engine.starve()"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "starved and well\n"), done.stderr


def starve() -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in ("http", "tcp"):
                server = await healthy(protocol)
                stack.push_async_callback(server.close)
                streams.append(stream(server.port, protocol, prompt=UNHURRIED))
            async with probing(*streams) as record:
                http, tcp = record.stats.values()
                await until(lambda: http.now_state == tcp.now_state == "up")
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # none that is not open already
                before = successes(tcp)
                await until(lambda: http.shape.unknown["descriptors"] >= 3)
                await until(lambda: successes(tcp) >= before + 3)  # its connection is there
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                answered = successes(http)
                await until(lambda: successes(http) >= answered + 3)
                assert (failures(http), failures(tcp), record.history()) == ({}, {}, [])

    run(scenario())
    print("starved and well")
