"""Streams against servers that misbehave and a relay that interrupts, in an engine on one event loop."""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import servers
from box import PATIENCE, failures, only, probing, run, stream, successes, until
from servers import PEER, Certificates, Manner, healthy, late, make_certificates, misbehaving, refusing

from exporters.calibrate.injection import Injection
from exporters.calibrate.relay import Relay
from exporters.identity import identify
from exporters.probing.stats import Stats

pytestmark = pytest.mark.slow  # sockets, processes and their time-outs

PROTOCOLS = ("http", "tcp", "ws")
UNHURRIED = (
    1.5  # seconds; so long a prompt limit, which even busy machines keep, will do where nothing is retransmitted
)
SLOWNESS = {"connect_timeout", "response_timeout"}  # what the busiest may add


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


# --- a server that never gives a good answer


class Case(NamedTuple):
    """A server that fails every probe for the same cause, until a good one takes its port."""

    protocol: str
    manner: Manner | None  # None: nothing listens
    causes: set[str]
    certificate: str = ""  # the server's
    tls: bool = False  # what the prober wants


CASES = {
    f"{protocol} {name}": Case(protocol, manner, {*causes})
    for protocol in PROTOCOLS
    for name, manner, *causes in (
        ("refuses", None, "refused"),
        ("closes", servers.closes, "closed", "reset"),  # a reset if our request was there already
        ("closes when asked", servers.closes_asked, "closed"),
        ("half closes", servers.half_closes, "closed"),
        ("resets", servers.resets, "reset"),
        ("is silent", servers.silent, "response_timeout"),
        ("is silent after its greeting", servers.silent_after_greeting, "response_timeout"),
        ("talks garbage", servers.garbage, "bad_response"),
        ("talks for ever", servers.endless, "bad_response"),
    )
}
CASES |= {
    "tcp answers another": Case("tcp", servers.wrong_number, {"response_timeout"}),
    "ws answers another": Case("ws", servers.wrong_number, {"response_timeout"}),
    "ws refuses the upgrade": Case("ws", servers.refuses_upgrade, {"ws_upgrade"}),
    "ws says goodbye": Case("ws", servers.says_goodbye, {"closed"}),
    "http not found": Case("http", servers.not_found, {"http_status"}),
}
for _protocol in PROTOCOLS:
    CASES |= {
        f"{_protocol} {name} certificate": Case(_protocol, servers.silent, {"tls"}, name, tls=True)
        for name in ("expired", "wrong-name", "self")
    }
    # A server that finds our request to be no TLS may say so, close or reset; each time it is one failure.
    not_tls = {"bad_response", "closed", "reset"} | ({"ws_upgrade"} if _protocol == "ws" else set())
    CASES[f"{_protocol} has TLS"] = Case(_protocol, servers.silent, not_tls, "good")
    CASES[f"{_protocol} has no TLS"] = Case(_protocol, servers.talks_first, {"tls"}, tls=True)


@dataclass
class Seen:
    """What was seen of a case, before the good server came and altogether."""

    failed: dict[str, int]
    answered: int
    state: str
    events: int
    probes: int = 0
    outcomes: int = 0  # of these probes: failed, answered, or left undecided at the end
    recovered: str = ""


@pytest.fixture(scope="module")
def seen(certificates: Certificates) -> dict[str, Seen]:
    return run(_all_cases(certificates))


async def _all_cases(certificates: Certificates) -> dict[str, Seen]:
    """All cases side by side: each stream has a path of its own, so that nothing is summed up with another's."""
    async with contextlib.AsyncExitStack() as bad, contextlib.AsyncExitStack() as good:
        streams = {}
        for name, case in CASES.items():
            if case.manner is None:
                sock = bad.enter_context(refusing())
                port = sock.getsockname()[1]
            else:
                tls = certificates.server(case.certificate) if case.certificate else None
                port = (await bad.enter_async_context(misbehaving(case.protocol, case.manner, tls))).port
            wanted = certificates.client() if case.tls else None
            streams[name] = stream(port, case.protocol, path=name, interval=0.4, prompt=UNHURRIED, tls=wanted)
        async with probing(*streams.values()) as record:
            stats = {name: record.stats[each.key] for name, each in streams.items()}
            await until(lambda: all(expected(each, CASES[name]) >= 3 for name, each in stats.items()))
            found = {
                name: Seen(
                    failures(each),
                    successes(each),
                    each.now_state,
                    sum(each.spec.key == i["stream"] for i in record.history()),
                )
                for name, each in stats.items()
            }
            await bad.aclose()
            for name, case in CASES.items():
                tls = certificates.server() if case.tls else None
                server = await healthy(case.protocol, streams[name].port, tls=tls)
                good.push_async_callback(server.close)
            await until(lambda: all(successes(each) >= 3 and each.now_state == "up" for each in stats.values()))
        for name, each in stats.items():
            found[name].recovered = each.now_state
            found[name].probes = each.probes
            found[name].outcomes = sum(failures(each).values()) + successes(each) + sum(each.shape.unknown.values())
    return found


def expected(stats: Stats, case: Case) -> int:
    return sum(count for cause, count in failures(stats).items() if cause in case.causes)


@pytest.mark.parametrize("name", CASES)
def test_every_probe_of_a_bad_server_is_one_failure_and_a_good_one_is_seen(seen: dict[str, Seen], name: str) -> None:
    case, what = CASES[name], seen[name]
    assert set(what.failed) <= case.causes | SLOWNESS
    assert (what.answered, what.state, what.events) == (0, "unknown", 0)  # never reached: no outage
    assert what.recovered == "up"
    if case.protocol == "http":  # heartbeats that waited behind another one prove nothing
        assert what.outcomes == what.probes


# --- interruptions


INTERRUPTIONS = {"refuse": 1.0, "stall": 1.8, "reset": 0.0, "flow_drop": 1.8}  # seconds


@dataclass
class Interrupted:
    """What a stream recorded of an interruption."""

    injection: Injection
    items: list[dict[str, Any]]
    state: str
    outages: int
    breaks: int
    frozen: int


@pytest.fixture(scope="module")
def interrupted() -> dict[tuple[str, str], Interrupted]:
    return run(_all_interruptions())


async def _all_interruptions() -> dict[tuple[str, str], Interrupted]:
    """One relay for each kind of fault, all at the same time, in front of the same three servers."""
    async with contextlib.AsyncExitStack() as stack:
        listening = {}
        for protocol in PROTOCOLS:
            server = await healthy(protocol)
            stack.push_async_callback(server.close)
            listening[protocol] = ("127.0.0.1", server.port)
        relays = {}
        streams = {}
        for kind in INTERRUPTIONS:
            # 127.0.0.1 by three names: a relay's addresses are keys.
            names = ("127.0.0.1", "localhost", "127.1")
            relay = Relay({(name, 0): listening[each] for name, each in zip(names, PROTOCOLS, strict=True)})
            relays[kind] = await stack.enter_async_context(relay)
            for protocol, (_, port) in zip(PROTOCOLS, relay.addresses, strict=True):
                streams[kind, protocol] = stream(port, protocol, target=kind, interval=0.2, prompt=0.5)
        async with probing(*streams.values()) as record:
            stats = {name: record.stats[each.key] for name, each in streams.items()}
            await until(lambda: all(each.now_state == "up" for each in stats.values()))
            await asyncio.sleep(0.5)  # connections shall be established for the relay, and a reset find them idle
            done = await asyncio.gather(
                *(relays[kind].inject(kind, seconds) for kind, seconds in INTERRUPTIONS.items())
            )
            truth = dict(zip(INTERRUPTIONS, done, strict=True))
            await until(lambda: all(each.now_state == "up" and not each.unfinished(0.0) for each in stats.values()))
            await asyncio.sleep(1.0)  # for what should not come
            return {
                (kind, protocol): Interrupted(
                    truth[kind],
                    [item for item in record.history() if item["stream"] == streams[kind, protocol].key],
                    each.now_state,
                    each.outages,
                    each.breaks,
                    each.frozen,
                )
                for (kind, protocol), each in stats.items()
            }


@pytest.mark.parametrize(
    ("kind", "protocols", "expected", "causes"),
    [
        ("refuse", PROTOCOLS, "outage", {"refused", "reset"}),
        ("stall", PROTOCOLS, "frozen", {"response_timeout"}),
        ("reset", ("tcp", "ws"), "break", {"reset"}),
        ("flow_drop", ("tcp", "ws"), "break", {"response_timeout"}),
    ],
)
def test_one_event_of_the_right_kind_where_it_belongs(
    interrupted: dict[tuple[str, str], Interrupted],
    kind: str,
    protocols: tuple[str, ...],
    expected: str,
    causes: set[str],
) -> None:
    for protocol in PROTOCOLS:
        what = interrupted[kind, protocol]
        wanted = [expected] * (protocol in protocols)
        assert what.state == "up"
        for item in what.items:
            assert item["state"] == "closed"
            assert 0 <= item["duration"]["lower"] <= item["duration"]["estimate"] <= item["duration"]["upper"]
        if any(item["stall_overlap"] for item in what.items):  # starved, prober and servers may both be late
            assert len(what.items) >= len(wanted)
            continue
        assert [item["kind"] for item in what.items] == wanted, protocol
        counts = [len(wanted) * (expected == each) for each in ("outage", "break", "frozen")]
        assert [what.outages, what.breaks, what.frozen] == counts
        for item in what.items:
            assert item["causes"].keys() <= causes
            if kind == "refuse":  # errors say when they were
                assert item["duration"]["lower"] <= what.injection.longest
                assert item["duration"]["upper"] >= what.injection.shortest


# --- good servers


def test_own_servers_over_both_families_with_tls_and_without(certificates: Certificates) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in PROTOCOLS:
                for host, family in (("127.0.0.1", 4), ("::1", 6)):
                    for tls in (False, True):
                        server = await healthy(protocol, host=host, tls=certificates.server() if tls else None)
                        stack.push_async_callback(server.close)
                        wanted = certificates.client() if tls else None
                        path = f"{family} {tls}"
                        streams.append(
                            stream(
                                server.port, protocol, host=host, family=family, path=path, tls=wanted, prompt=UNHURRIED
                            )
                        )
            async with probing(*streams) as record:
                await until(lambda: all(successes(each) >= 11 for each in record.stats.values()))  # big ones among them
                for each in record.stats.values():
                    assert failures(each) == {}
                    said = {"instance": PEER.instance, "node": "node-there", "zone": "zone-there", "source": "there"}
                    said |= {"boot_id": PEER.boot_id, "address": each.spec.host}
                    assert said.items() <= each.peer.items()
                assert record.history() == []

    run(scenario())


@pytest.mark.parametrize(
    ("host", "server_name"),
    [("localhost", None), ("127.0.0.1", "localhost."), ("::1", "localhost")],
)
def test_certificates_are_checked_against_the_name_as_it_is_written_in_them(
    certificates: Certificates, host: str, server_name: str | None
) -> None:
    async def scenario() -> None:
        family, where = (6, "::1") if ":" in host else (4, "127.0.0.1")
        server = await healthy("http", host=where, tls=certificates.server())
        tls = certificates.client(server_name=server_name)
        async with probing(stream(server.port, "http", host=host, family=family, tls=tls, prompt=UNHURRIED)) as record:
            await until(lambda: sum(failures(only(record)).values()) + successes(only(record)) >= 3)
            assert failures(only(record)) == {}
        await server.close()

    run(scenario())


def test_a_reload_reads_certificates_that_were_renewed(certificates: Certificates, tmp_path: Path) -> None:
    async def scenario() -> None:
        server = await healthy("http", tls=certificates.server())
        trusted = tmp_path / "ca.pem"
        shutil.copy(certificates.folder / "self.pem", trusted)
        spec = stream(server.port, "http", tls=certificates.client(ca_file=str(trusted)), prompt=UNHURRIED)
        async with probing(spec) as record:
            stats = only(record)
            await until(lambda: failures(stats).get("tls", 0) >= 2)
            shutil.copy(certificates.ca, trusted)
            record.engine.update([spec])
            await until(lambda: stats.now_state == "up")
            assert only(record) is stats  # it went on
        await server.close()

    run(scenario())


def test_a_late_answer_does_not_undo_the_failure() -> None:
    async def scenario() -> None:
        async with misbehaving("http", late(0.5)) as server:
            spec = stream(server.port, "http", prompt=0.2)
            async with probing(spec) as record:
                stats = only(record)
                await until(lambda: sum(failures(stats).values()) >= 3)
                failed = failures(stats)
                await asyncio.sleep(0.6)
                assert all(count <= failures(stats)[cause] for cause, count in failed.items())
            assert failures(stats).keys() <= SLOWNESS
            assert sum(failures(stats).values()) + successes(stats) + sum(stats.shape.unknown.values()) == stats.probes

    run(scenario())


def test_an_answer_given_twice_is_one_answer() -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in PROTOCOLS:
                server = await stack.enter_async_context(misbehaving(protocol, servers.twice))
                streams.append(stream(server.port, protocol, prompt=UNHURRIED))
            async with probing(*streams) as record:
                await until(lambda: all(successes(each) >= 5 for each in record.stats.values()))
                for each in record.stats.values():
                    assert (failures(each), each.now_state) == ({}, "up")
                    assert successes(each) <= each.probes
                assert record.history() == []

    run(scenario())


def test_a_server_that_closes_each_connection_is_not_hammered() -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            met = []
            for protocol in ("tcp", "ws"):
                for interval in (0.1, 0.5):
                    server = await stack.enter_async_context(misbehaving(protocol, servers.answers_once))
                    met.append(
                        (server, stream(server.port, protocol, path=str(interval), interval=interval, prompt=UNHURRIED))
                    )
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with probing(*(each for _, each in met)) as record:
                await until(lambda: all(each.breaks >= 3 for each in record.stats.values()))
                await asyncio.sleep(1.0)
                elapsed = loop.time() - began
                for server, spec in met:
                    # At its grid points, and 0.1 s after the last one.
                    assert server.connections <= elapsed * (10 + 1 / spec.interval) + 5
                    assert record.stats[spec.key].outages == 0

    run(scenario())


def test_a_goodbye_of_a_web_socket_is_a_break() -> None:
    async def scenario() -> None:
        async with (
            misbehaving("ws", servers.goodbye_after(3)) as server,
            probing(stream(server.port, "ws", prompt=UNHURRIED)) as record,
        ):
            stats = only(record)
            await until(lambda: stats.breaks >= 2)
            assert {item["cause"] for item in record.history()} == {"closed"}
            assert (
                sum(failures(stats).values()) <= stats.probes
            )  # what was closed while nothing was asked is no failure
            assert stats.outages == 0

    run(scenario())


@pytest.mark.slow
def test_a_slow_path_is_called_slow_and_is_up() -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in PROTOCOLS:
                for seconds in (0.1, 0.3):
                    server = await stack.enter_async_context(misbehaving(protocol, late(seconds)))
                    streams.append(stream(server.port, protocol, path=str(seconds), patience=0.6))
            async with probing(*streams) as record:
                everyone = list(record.stats.values())
                await until(lambda: all(each.slow and each.now_state == "up" for each in everyone), 3 * PATIENCE)
                before = len(record.history(limit=1000))
                await asyncio.sleep(1.5)
                assert len(record.history(limit=1000)) - before <= len(streams)  # 15 each would be for ever
                assert sum(each.outages for each in everyone) <= len(streams)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "manner", "kind"),
    [
        ("pod", servers.hesitates(0.24), "frozen"),
        ("route", servers.hesitates(0.24), "blip"),  # what its kernel acknowledged, a proxy's may have
        ("pod", servers.hesitates(0.24, lambda: 0.0), "blip"),  # it does not say when it answered
    ],
)
def test_a_peer_that_hesitates_is_no_outage_of_the_path(path: str, manner: Manner, kind: str) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in ("tcp", "ws"):
                server = await stack.enter_async_context(misbehaving(protocol, manner))
                streams.append(stream(server.port, protocol, path=path, interval=0.2, prompt=0.12))
            async with probing(*streams) as record:

                def unsure() -> set[tuple[str, str]]:
                    return {(item["stream"], item["kind"]) for item in record.history() if item["unconfirmed"]}

                # Of some a busy machine may make something else.
                await until(lambda: {(each.key, kind) for each in streams} <= unsure())
                assert kind == "frozen" or "frozen" not in {each for _, each in unsure()}

    run(scenario())


def test_a_restarted_server_is_another_instance_after_the_outage() -> None:
    first, second = identify("there", "n1", "z"), identify("there", "n2", "z")

    async def scenario() -> None:
        old = {protocol: await healthy(protocol, identity=first) for protocol in PROTOCOLS}
        streams = {protocol: stream(server.port, protocol, prompt=UNHURRIED) for protocol, server in old.items()}
        async with contextlib.AsyncExitStack() as stack, probing(*streams.values()) as record:
            everyone = record.stats.values()
            await until(lambda: all(each.now_state == "up" for each in everyone))
            for server in old.values():
                await server.close()
            await until(lambda: all(each.now_state == "down" for each in everyone))
            for item in record.history():
                assert (item["state"], item["before"]["instance"], item["after"]) == ("open", first.instance, {})
            await asyncio.sleep(0.5)
            for protocol, spec in streams.items():
                server = await healthy(protocol, spec.port, identity=second)
                stack.push_async_callback(server.close)
            await until(lambda: all(each.outages == 1 for each in everyone))
            items = record.history()
            assert len(items) == len(streams)
            for item in items:
                assert (item["before"]["instance"], item["before"]["node"]) == (first.instance, "n1")
                assert (item["after"]["instance"], item["after"]["node"]) == (second.instance, "n2")

    run(scenario())


def test_a_path_that_loses_big_packets_is_out_until_it_carries_them() -> None:
    async def scenario() -> None:
        swallow = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for protocol in PROTOCOLS:
                server = await stack.enter_async_context(misbehaving(protocol, servers.swallows_big(swallow)))
                streams.append(stream(server.port, protocol, prompt=1.0))
            async with probing(*streams) as record:
                everyone = record.stats.values()
                await until(lambda: all(each.now_state == "up" for each in everyone))
                swallow.set()
                await until(lambda: all(each.now_state not in {"up", "unknown"} for each in everyone))
                for _ in range(15):
                    await asyncio.sleep(0.1)
                    assert all(each.now_state != "up" for each in everyone)
                assert [item["state"] for item in record.history()] == ["open"] * 3
                swallow.clear()
                await until(lambda: all(each.now_state == "up" and each.outages for each in everyone))
                assert [(item["kind"], item["state"]) for item in record.history()] == [("outage", "closed")] * 3

    run(scenario())
