"""Peers found by what DNS says of a headless Service: from a real server's answers, its silence and its nonsense."""

import itertools
import os
import re
import socket
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSError, DNSRecord
from dnslib.server import DNSHandler, DNSLogger, DNSServer
from running import ANY_PORT, CODE, Exporter, flags, killed_at_the_end, wait_for
from test_discovery import probed

from exporters.calibrate.namespaces import Namespace
from exporters.discovery.kept import MOST_GONE, entries, keep
from exporters.objects import REASONS
from exporters.peer import addresses
from exporters.peer.addresses import MOST, Answer, entry, host_of, taken, trouble
from exporters.peer.settings import load_peer
from exporters.settings import BadInput
from exporters.targets import Target

SERVFAIL = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
SILENCE = TimeoutError("no answer within 5 s")
BEFORE: Mapping[int, Collection[str]] = {4: ["10.0.0.1"], 6: ["fd00::1"]}

# --- pure


@pytest.mark.parametrize(
    ("answers", "after", "reason"),
    [
        ({4: {"10.0.0.2"}, 6: {"fd00::2"}}, {4: ["10.0.0.2"], 6: ["fd00::2"]}, ""),
        ({4: {"10.0.0.2"}, 6: ()}, {4: ["10.0.0.2"], 6: []}, ""),
        ({4: {"10.0.0.2"}, 6: SERVFAIL}, {4: ["10.0.0.2"], 6: ["fd00::1"]}, "unreachable"),
        ({4: SILENCE, 6: {"fd00::2"}}, {4: ["10.0.0.1"], 6: ["fd00::2"]}, "timeout"),
        ({4: (), 6: SERVFAIL}, BEFORE, "unreachable"),
        ({4: SILENCE, 6: SILENCE}, BEFORE, "timeout"),
        ({4: (), 6: ()}, BEFORE, "server_error"),
        ({4: UnicodeError("label too long"), 6: ()}, BEFORE, "server_error"),
    ],
)
def test_what_is_no_answer_changes_nothing(
    answers: Mapping[int, Answer], after: Mapping[int, Collection[str]], reason: str
) -> None:
    assert taken({4: ["10.0.0.1"], 6: ["fd00::1"]}, answers) == after
    assert trouble(answers)[0] == reason
    assert reason in ("", *REASONS)
    assert bool(trouble(answers)[1]) == bool(reason)


def test_a_kernel_without_a_family_has_no_address_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses._ours("127.0.0.1")

    def refuse(*_: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert not addresses._ours("::1")


def test_all_peers_take_the_same_of_too_many() -> None:
    many = [f"10.{n}.{m}.1" for n in range(2, 12) for m in range(200)]
    found = taken({}, {4: many, 6: ()})[4]
    assert len(found) == MOST
    assert found == taken({}, {4: many[::-1], 6: ()})[4]
    assert (found[0], found[-1]) == ("10.2.0.1", "10.6.199.1"), "by their numbers, not as text"
    assert trouble({4: many, 6: ()}) == ("garbled", f"2000 addresses, of which {MOST} count")


def test_a_service_by_the_name_that_a_pods_resolver_knows() -> None:
    assert host_of("ovnwatch-peers") == "ovnwatch-peers"
    assert host_of("ovnwatch/ovnwatch-peers") == "ovnwatch-peers.ovnwatch.svc"


def test_of_what_went_the_last_thousand_are_kept() -> None:
    held = keep({}, [], 0.0)
    for now in range(3 * MOST_GONE):
        held = keep(held, [entry(f"10.0.{now // 250}.{now % 250}")], float(now) / 100)
    assert len(held) == MOST_GONE + 1
    assert {each["host"] for each in entries(held)} >= {"10.0.11.249", "10.0.11.0"}


def test_who_went_is_probed_beside_those_that_are_chosen() -> None:
    there = [Target.model_validate(entry(f"10.0.0.{n}")) for n in range(1, 100)]
    gone = [Target.model_validate(entry(f"10.9.0.{n}")) for n in range(1, 30)]
    argv = ["--kubernetes.service=a/b", "--kubernetes.discovery=dns", "--source=me"]
    alone = load_peer(argv, {}, None, there)
    both = load_peer(argv, {}, None, there, gone)
    assert {each.target for each in both.streams} == {each.target for each in (*alone.streams,)} | {
        each.name for each in gone
    }
    assert both.not_observed == alone.not_observed, "which are chosen does not turn on who went"


def test_dns_takes_no_way_to_a_cluster(tmp_path: Path) -> None:
    file = tmp_path / "peer.yaml"
    file.write_text("kubernetes: {service: a, discovery: dns, config: in-cluster}\n")
    with pytest.raises(BadInput, match=r"peer.yaml:1: kubernetes.config: without effect: DNS"):
        load_peer([f"--config.file={file}"], {})
    file.write_text("kubernetes: {service: a, discovery: srv}\n")
    with pytest.raises(BadInput, match=r"peer.yaml:1: kubernetes.discovery: want one of endpoints, dns: 'srv'"):
        load_peer([f"--config.file={file}"], {})


# --- a peer, and a name server in a network of their own

NAME = "peers.ovnwatch.svc.cluster.local."
RESOLVER = (
    "nameserver 127.0.0.1\nsearch ovnwatch.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1 attempts:1\n"
)
NUMBER = itertools.count()


class Handler(DNSHandler):  # type: ignore[misc]
    """What is too long for a datagram is asked for over TCP; the C library wants the question even then."""

    def get_reply(self, data: bytes) -> bytes:
        whole: bytes = super().get_reply(data)
        if self.protocol == "tcp" or len(whole) <= 512:
            return whole
        cut = DNSRecord.parse(data).reply()
        cut.header.tc = 1
        return bytes(cut.pack())


class Zone:
    """What the server says of NAME now."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.wrong = ""  # an RCODE, or SILENT

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        if self.wrong == "SILENT":
            raise DNSError
        reply = request.reply()
        name, kind = str(request.q.qname), QTYPE[request.q.qtype]
        if self.wrong or name != NAME:
            reply.header.rcode = getattr(RCODE, self.wrong or "NXDOMAIN")
            return reply
        for each in self.addresses:
            of, data = ("AAAA", AAAA) if ":" in each else ("A", A)
            if kind == of:
                reply.add_answer(RR(NAME, getattr(QTYPE, of), rdata=data(each), ttl=5))
        return reply


@contextmanager
def network() -> Iterator[tuple[str, Zone]]:
    """A network namespace with loopback alone, whose programs ask the zone."""
    name = f"owdns{os.getpid()}-{next(NUMBER)}"
    folder = Path("/etc/netns") / name
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text(RESOLVER)
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    servers = []
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for argv in ("link set lo up", "addr add fd00::1/128 dev lo"):
            subprocess.run(["ip", "-n", name, *argv.split()], check=True)
        zone = Zone()
        with closing(Namespace(name)) as namespace:
            for tcp in (False, True):
                servers.append(namespace.call(_server, zone, tcp))
                servers[-1].start_thread()
            yield name, zone
    finally:
        for each in servers:
            each.stop()
            each.server.server_close()
        subprocess.run(["ip", "netns", "del", name], check=True)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _server(zone: Zone, tcp: bool) -> DNSServer:
    quiet = DNSLogger("-request,-reply,-error", prefix=False)
    return DNSServer(zone, "127.0.0.1", 53, tcp=tcp, handler=Handler, logger=quiet)


def value(peer: Exporter, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", peer.get("/metrics")[1], re.MULTILINE)
    return float(found)


QUICK = (
    "from exporters.peer import found; found.TICK_SECONDS = 0.2; found.SETTLE_SECONDS = 0.1\n"
    f"from exporters.probing import names; names.PATIENCE = 0.5\n{CODE}"
)
UP = 'ovnwatch_watch_up{resource="addresses"}'


@pytest.fixture
def found(tmp_path: Path) -> Iterator[tuple[Exporter, Zone, Callable[[], set[str]]]]:
    """A peer that has found 127.0.0.2 and fd00::2; the names that it probes."""
    with network() as (name, zone), killed_at_the_end() as started:
        zone.addresses = ["127.0.0.1", "127.0.0.2", "fd00::1", "fd00::2"]
        argv = [*flags(ANY_PORT), "--kubernetes.service=peers", "--kubernetes.discovery=dns", "--source=me"]
        peer = Exporter(tmp_path / "log", "peer", *argv, code=QUICK, within=name)
        started.append(peer)
        wait_for(peer.ready)

        def names() -> set[str]:
            return {target for path, target in probed(peer) if path == "pod"}

        wait_for(lambda: names() == {"127.0.0.2", "fd00::2"})
        yield peer, zone, names
        assert peer.end() == 0, peer.said()
        assert "Traceback" not in peer.said()


Found = tuple[Exporter, Zone, Callable[[], set[str]]]


@pytest.mark.needs_root("ip")
@pytest.mark.slow
def test_peers_are_the_addresses_of_a_service_without_our_own(found: Found) -> None:
    peer, zone, names = found
    assert value(peer, UP) == 1
    assert value(peer, 'ovnwatch_watch_objects{resource="addresses"}') == 4
    zone.addresses = ["127.0.0.1", "127.0.0.3"]
    wait_for(lambda: names() == {"127.0.0.2", "127.0.0.3", "fd00::2"})
    assert value(peer, UP) == 1


@pytest.mark.needs_root("ip")
@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["SERVFAIL", "NXDOMAIN", "REFUSED", "SILENT", ""])
def test_a_server_that_fails_takes_no_peer_away(found: Found, wrong: str) -> None:
    peer, zone, names = found
    zone.wrong, zone.addresses = wrong, []
    wait_for(lambda: value(peer, UP) == 0)
    aged = value(peer, 'ovnwatch_watch_age_seconds{resource="addresses"}')
    wait_for(lambda: value(peer, 'ovnwatch_watch_age_seconds{resource="addresses"}') > aged + 1)
    assert names() == {"127.0.0.2", "fd00::2"}
    assert "peers of peers: DNS: " in peer.said()
    zone.wrong, zone.addresses = "", ["127.0.0.4"]
    wait_for(lambda: "127.0.0.4" in names())
    assert value(peer, UP) == 1


@pytest.mark.needs_root("ip")
@pytest.mark.slow
def test_an_answer_too_long_for_a_datagram_is_taken_whole_and_some_are_chosen(found: Found) -> None:
    peer, zone, names = found
    zone.addresses = ["127.0.0.1", *(f"127.0.1.{n}" for n in range(1, 201))]
    wait_for(lambda: value(peer, 'ovnwatch_watch_objects{resource="addresses"}') == 201)
    wait_for(lambda: len(names()) == 12)
    assert names() >= {"127.0.0.2", "fd00::2"}, "they went, and are probed for an hour"
    assert value(peer, 'ovnwatch_peers_not_observed{source="me"}') == 190


@pytest.mark.needs_root("ip")
@pytest.mark.slow
def test_before_the_first_answer_nothing_is_known(tmp_path: Path) -> None:
    with network() as (name, zone), killed_at_the_end() as started:
        zone.wrong = "NXDOMAIN"
        argv = [*flags(ANY_PORT), "--kubernetes.service=a/peers", "--kubernetes.discovery=dns", "--source=me"]
        peer = Exporter(tmp_path / "log", "peer", *argv, code=QUICK, within=name)
        started.append(peer)
        wait_for(peer.ready)
        wait_for(lambda: value(peer, 'ovnwatch_watch_failures_total{reason="server_error",resource="addresses"}') > 1)
        metrics = peer.get("/metrics")[1]
        assert "ovnwatch_watch_age_seconds{" not in metrics
        assert "ovnwatch_stream_observed{" not in metrics
        assert peer.end() == 0
