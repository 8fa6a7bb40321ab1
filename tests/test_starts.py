"""Daemons that started anew: which starts are told, and a real OVS that is restarted beside a real node exporter."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from dummy_ovs import COMMANDS, DummyOvs, dummy_ovs
from running import Exporter, killed_at_the_end, wait_for

from exporters import times
from exporters.migration.settings import MIGRATION
from exporters.migration.starts import AWAY, HOUR, MOST_AN_HOUR, MOST_DAEMONS, Start, Starts, Told
from exporters.settings import BadInput
from exporters.verdict.explain import Event, Outage, Phase, explain

VSWITCHD = "ovs-vswitchd"
LISTEN = "--web.listen-address=127.0.0.1:0"


def told(at: float, **started: float) -> Told:
    return Told("n1", at, {name.replace("_", "-"): start for name, start in started.items()})


# --- pure


def test_a_later_start_is_told_once() -> None:
    starts = Starts(since=1000.0)
    assert starts.step(told(1010.0, ovs_vswitchd=500.0)) == []
    assert starts.step(told(1020.0, ovs_vswitchd=500.3)) == [], "the same, as far as a clock can tell"
    assert starts.step(told(1030.0, ovs_vswitchd=1025.0)) == [Start("n1", VSWITCHD, 1020.0, 1025.0)]
    assert starts.step(told(1040.0, ovs_vswitchd=1025.0)) == []


def test_one_that_did_not_run_for_long_was_not_taken_down_that_long_ago() -> None:
    starts = Starts(since=1000.0)
    starts.step(told(1010.0, ovs_vswitchd=500.0))
    starts.step(told(2000.0))
    assert starts.step(told(3000.0, ovs_vswitchd=2990.0)) == [Start("n1", VSWITCHD, 2990.0 - AWAY, 2990.0)]


def test_neither_our_own_restart_nor_a_new_node_is_a_start() -> None:
    assert Starts(since=1000.0).step(told(1010.0, ovs_vswitchd=999.0)) == []


def test_what_started_while_we_were_away_is_told_and_what_was_told_before_is_not() -> None:
    assert Starts(since=1000.0).step(told(1010.0, ovs_vswitchd=1005.0)) == [Start("n1", VSWITCHD, 1000.0, 1005.0)]
    before = {("n1", VSWITCHD): 1005.1}
    assert Starts(1000.0, before).step(told(1010.0, ovs_vswitchd=1005.0)) == []
    assert Starts(1000.0, before).step(told(1010.0, ovs_vswitchd=1008.0)) != []


def test_another_node_behind_a_name_that_is_older_is_no_start() -> None:
    starts = Starts(since=1000.0)
    starts.step(told(1010.0, ovs_vswitchd=500.0))
    assert starts.step(told(1020.0, ovs_vswitchd=300.0)) == []


def test_a_node_that_makes_up_starts_is_bounded() -> None:
    starts = Starts(since=0.0)
    starts.step(told(5.0, **{f"d{number}": 1.0 for number in range(200)}))
    found = [
        each
        for turn in range(1, 100)
        for each in starts.step(told(10.0 * turn, **{f"d{number}": 10.0 * turn - 1 for number in range(200)}))
    ]
    assert len(found) <= MOST_AN_HOUR
    assert len({each.daemon for each in found}) <= MOST_DAEMONS
    assert starts.step(told(1000.0 + HOUR, d0=1000.0 + HOUR))


def test_what_is_wrong_with_nodes_is_said(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump({"nodes": [{"name": "n", "url": "http://n:9481/?q"}], "node_interval": 0.1}))
    with pytest.raises(BadInput) as bad:
        MIGRATION.load(["--config.file", str(file), "--node.url=ftp://n"], {}, 100)
    for part in ("nodes[0].url", "node_interval", "--node.url"):
        assert part in str(bad.value)
    file.write_text(yaml.safe_dump({"nodes": [{"name": "n", "url": "http://n:9481"}]}))
    found = MIGRATION.load(["--config.file", str(file), "--node.url=m=http://[::1]:9481,http://o"], {}, 100)
    assert [(each.name, each.url) for each in found.nodes] == [
        ("m", "http://[::1]:9481"), ("", "http://o:80"), ("n", "http://n:9481")
    ]  # fmt: skip


# --- as evidence


def outage(**more: Any) -> Outage:
    plain = Outage("o", "n2", "n1", "pod", "tcp", 1000.0, 1003.0, "n2", frozenset({"n1"}))
    return plain._replace(**more)


def test_a_restart_of_a_nodes_ovs_is_evidence_in_its_turn_and_alone_explains_nothing() -> None:
    restart = Event("restart of ovs-vswitchd", "n1", 999.0, 1002.0)
    (found,) = explain([outage()], [Phase("upgrade", 990.0, 1010.0, "n1")], [restart])
    assert found.verdict == "expected"
    assert f"ovs-vswitchd of n1 restarted at {times.iso(1002.0)[11:19]}Z, +2.0 s from its begin" in found.evidence
    (found,) = explain([outage()], [], [restart])
    assert found.verdict == "unexplained"
    assert any(each.startswith("ovs-vswitchd of n1 restarted at") for each in found.evidence)


def test_where_phases_roll_a_restart_says_whose_turn_it_was() -> None:
    restart = Event("restart of ovs-vswitchd", "n1", 999.0, 1002.0)
    rolling = Phase("roll-out", 900.0, 1100.0, rolls=True)
    (found,) = explain([outage()], [rolling], [restart])
    assert (found.verdict, found.node) == ("expected", "n1")
    (found,) = explain([outage(nodes=frozenset({"n3"}))], [rolling], [restart])
    assert (found.verdict, found.node) == ("collateral", "n1")


@pytest.mark.parametrize("replica", ["n1", "n4"])
def test_a_replica_that_answered_before_or_after_makes_its_node_one_of_the_outages(replica: str) -> None:
    turn = Phase("reboot", 990.0, 1010.0, replica)
    (found,) = explain([outage(nodes=frozenset({"n1", "n4"}))], [turn], [])
    assert (found.verdict, found.node) == ("expected", replica)


# --- real ones


def events(exporter: Exporter) -> list[dict[str, Any]]:
    items = json.loads(exporter.get("/history?since=0")[1])["items"]
    return [each for each in items if each["kind"] == "phase" and each["cause"] == "event"]


@pytest.fixture(scope="module")
def ovs() -> Iterator[DummyOvs]:
    with dummy_ovs() as found:
        yield found


@pytest.mark.slow
@pytest.mark.system(*COMMANDS)
def test_a_restart_of_ovs_is_in_the_journal_and_our_own_is_not(ovs: DummyOvs, tmp_path: Path) -> None:
    with killed_at_the_end() as started:
        node = Exporter(tmp_path / "node.log", "node", LISTEN, f"--ovs.rundir={ovs.rundir}", "--node=n1", "--source=x")
        started.append(node)
        wait_for(node.ready)
        urls = f"--node.url=http://127.0.0.1:{node.ports['web']}"
        argv = ("migration", LISTEN, "--source=m", urls, "--node.interval=1")

        def up(exporter: Exporter, state: int) -> Callable[[], bool]:
            return lambda: f'ovnwatch_node_state_up{{k8s_node="n1"}} {state}.0' in exporter.get("/metrics")[1]

        first = Exporter(tmp_path / "m.log", *argv)
        started.append(first)
        wait_for(lambda: first.ready() and up(first, 1)())
        assert events(first) == [], "what ran before is no start"
        ovs.stop_daemon(VSWITCHD, signal.SIGKILL)
        time.sleep(2.2)  # a start may be told 2 s apart and be the same
        ovs.start_vswitchd()
        began = time.time()
        wait_for(lambda: events(first))
        (found,) = events(first)
        assert (found["text"], found["node"]) == ("restart of ovs-vswitchd", "n1")
        assert abs(times.seconds(found["end_time"]) - began) < 10
        assert first.end() == 0
        second = Exporter(tmp_path / "m.log", *argv)
        started.append(second)
        wait_for(lambda: second.ready() and up(second, 1)())
        assert node.end() == 0
        wait_for(up(second, 0))
        assert events(second) == [found], "neither our restart nor a state that is not read is one"
        assert second.end() == 0


@contextmanager
def telling(body: Callable[[], bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = body()
            self.send_response(200)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def state(started: str, off: float = 0.0, **more: Any) -> bytes:
    daemon = {"running": True, "started": started}
    return json.dumps({"node": "n1", "daemons": {VSWITCHD: daemon}, "sampleTime": time.time() + off, **more}).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b"no",
        b"[" * 100_000,
        b"x" * (9 << 20),
        state("yesterday"),
        state(times.iso(1.0), daemons={"a\nb": {"running": True}}),
        state(times.iso(1.0), daemons=[]),
    ],
    ids=["text", "nested", "long", "no time", "no name", "no daemons"],
)
def test_what_is_no_state_is_refused(body: bytes, tmp_path: Path) -> None:
    with telling(lambda: body) as url, killed_at_the_end() as started:
        exporter = Exporter(tmp_path / "log", "migration", LISTEN, f"--node.url=n1={url}", "--node.interval=1")
        started.append(exporter)
        wait_for(lambda: exporter.ready() and "of n1 is not read" in exporter.said())
        assert 'ovnwatch_node_state_up{k8s_node="n1"} 0.0' in exporter.get("/metrics")[1]
        assert events(exporter) == []
        assert exporter.end() == 0


@pytest.mark.slow
def test_a_clock_that_is_set_is_no_start_and_times_are_on_ours(tmp_path: Path) -> None:
    begun = time.time() - 100.0
    clock, restarted = 0.0, 0.0

    def body() -> bytes:
        return state(times.iso((restarted or begun) + clock), clock)

    with telling(body) as url, killed_at_the_end() as started:
        exporter = Exporter(tmp_path / "log", "migration", LISTEN, f"--node.url={url}", "--node.interval=1")
        started.append(exporter)
        wait_for(lambda: exporter.ready() and "is read" in exporter.said())
        clock = 3600.0
        time.sleep(2.5)  # two more looks
        assert events(exporter) == []
        restarted = time.time()
        wait_for(lambda: events(exporter))
        (found,) = events(exporter)
        assert abs(times.seconds(found["end_time"]) - restarted) < 2.0
        assert exporter.end() == 0
