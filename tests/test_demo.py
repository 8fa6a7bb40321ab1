"""The demo's script, its judgement and its edges; the whole of it is run in test_end_to_end.py."""

import asyncio
import contextlib
import io
import json
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from exporters import catalog
from exporters.calibrate.injection import Bracket, Expectation, Truth
from exporters.calibrate.relay import FAULTS, YOUNG
from exporters.settings import Stream
from grafana import asking
from lab import alarms, board, children, closing, crash, demo, held, judge, monitoring, patterns, plant, screen, script
from lab.alarms import Alarm
from lab.children import ChildEndedError, Children
from lab.judge import Entry, Injected
from lab.monitoring import Notice
from lab.patterns import Look
from lab.plant import until
from lab.relays import Relays
from lab.script import Way

TEMPO = {"http": (0.5, 0.15), "tcp": (0.1, 0.06), "ws": (0.1, 0.06)}
LIMITS = closing.LIMITS


def stream(protocol: str, source: str = "a", target: str = "b") -> Stream:
    interval, prompt = TEMPO[protocol]
    return Stream(source, target, "pod", protocol, 4, "127.0.0.1", 1, interval, prompt, 3.0)


STREAMS = {each.key: each for each in (stream(name, *way) for way in ("ab", "ac", "cb") for name in TEMPO)}
HTTP, TCP, WS = (f"a|b|pod|{protocol}|4" for protocol in ("http", "tcp", "ws"))


def truth(start: float, end: float, off: float = 0.001) -> Truth:
    return Bracket(start, start + off), Bracket(end, end + off)


def made(expectation: Expectation, *keys: str, start: float = 100.0, end: float = 101.0) -> Injected:
    return Injected(1, "path to b cut", expectation, dict.fromkeys(keys, truth(start, end)))


def entry(key: str, kind: str, start: float = 100.0, end: float | None = 101.0, **other: Any) -> Entry:
    """What a stream records that found the edges to 0.05 s either way."""
    closed = start if end is None else end
    values: dict[str, Any] = {
        "id": f"{key}-{kind}-{start}", "stream": key, "kind": kind, "cause": "refused",
        "start_earliest": start - 0.05, "start_latest": start + 0.05,
        "end_earliest": closed - 0.05, "end_latest": None if end is None else end + 0.05,
        "lower": max(0.0, closed - start - 0.1), "estimate": closed - start, "upper": closed - start + 0.1,
        "detected": start + 0.06, "stalled": False,
    }  # fmt: skip
    return Entry(**{**values, **other})


def judged(injected: Iterable[Injected], *entries: Entry, busy: held.Held | None = None) -> judge.Judgement:
    return judge.judge(list(injected), entries, STREAMS, busy or {})


# --- the script


def test_a_seed_repeats_a_run_and_another_one_differs() -> None:
    assert script.write(7, "abc") == script.write(7, "abc")
    assert len({tuple(script.write(seed, "abc")) for seed in range(20)}) == 20


def test_every_step_is_a_fault_the_relays_know_with_what_it_should_show() -> None:
    for step in script.write(1, "abc"):
        expected = "path" if step.fault == "kill" else FAULTS[step.fault].expectation
        assert step.expectation == expected
        assert {way.target for way in step.ways} == {step.target}
        assert len(step.title) <= 22  # the table's column
        assert "{" not in step.title + step.done + step.look
        assert step.pause >= script.SETTLE_SECONDS
        assert not step.named or step.named in catalog.load().where_to_look


def test_the_script_shows_all_kinds_a_page_one_direction_and_each_way_in_in_little_more_than_a_minute() -> None:
    steps = script.write(1, "abc")
    assert {step.expectation for step in steps} == {"path", "frozen", "break"}
    assert max(step.seconds for step in steps) > LIMITS[alarms.PAGE] + 0.65 + alarms.NOTICE_SECONDS
    hit = [{way.path for way in step.ways} for step in steps if step.named]
    assert hit == [{"pod"}, {"loadbalancer"}, {"loadbalancer", "nodeport", "route"}, set(script.PROTOCOLS)]
    assert min(len(step.ways) for step in steps if step.named == "one_way") == 1
    assert any(step.fault == "kill" for step in steps)
    assert sum(step.seconds + step.pause for step in steps) < 80


# --- which stream must see what


@pytest.mark.parametrize(
    ("expectation", "protocol", "seconds", "must"),
    [
        ("path", "tcp", 0.1, True),
        ("path", "tcp", 0.09, False),
        ("path", "http", 0.5, True),
        ("path", "http", 0.4, False),
        ("frozen", "ws", 0.16, True),
        ("frozen", "ws", 0.15, False),
        ("frozen", "http", 0.65, True),
        ("break", "tcp", 0.0, True),
        ("break", "ws", 2.0, True),
        ("break", "ws", 0.05, False),
        ("break", "http", 0.0, False),
        ("break", "http", 9.0, False),
    ],
)
def test_who_must_see(expectation: Expectation, protocol: str, seconds: float, must: bool) -> None:
    assert judge.must_see(expectation, stream(protocol), seconds) is must


# --- judging


def test_what_was_measured_rightly_holds_and_stands_in_a_row_for_each_protocol() -> None:
    verdict = judged([made("path", HTTP, TCP, WS)], *(entry(key, "outage") for key in (HTTP, TCP, WS)))
    assert not verdict.wrong + verdict.missing + verdict.explained
    assert [(row.protocol, row.must, row.seen, row.held) for row in verdict.rows] == [
        ("http", 1, 1, 1),
        ("tcp", 1, 1, 1),
        ("ws", 1, 1, 1),
    ]
    row = verdict.rows[1]
    assert (row.lower, row.upper, row.width) == pytest.approx((0.9, 1.1, 0.2))
    assert (row.true, row.error) == pytest.approx((0.999, 0.0))
    assert row.delay == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "break"}, "recorded as break"),
        ({"kind": "frozen"}, "recorded as frozen"),
        ({"lower": 1.01}, "lower bound 1.010 s, true at most 1.001 s"),
        ({"upper": 0.9}, "upper bound 0.900 s, true at least 0.999 s"),
        ({"start_earliest": 100.01}, "starts +0.009 s off"),
        ({"start_latest": 99.99}, "starts -0.010 s off"),
        ({"end_earliest": 101.02}, "ends +0.019 s off"),
        ({"end_latest": 100.8}, "ends -0.200 s off"),
    ],
)
def test_what_does_not_hold_is_said(change: dict[str, Any], reason: str) -> None:
    verdict = judged([made("path", TCP)], entry(TCP, "outage")._replace(**change))
    assert verdict.wrong == [f"#1 path to b cut: a>b tcp {reason}"]
    assert verdict.rows[0].held == 0


def test_the_truth_is_only_known_within_its_brackets() -> None:
    within = {"lower": 1.0005, "upper": 0.9995, "start_earliest": 100.0005, "end_latest": 101.0}
    assert not judged([made("path", TCP)], entry(TCP, "outage", **within)).wrong


def test_a_break_is_compared_by_its_start_only() -> None:
    brief = entry(TCP, "break", end=100.1)
    assert not judged([made("break", TCP)], brief).wrong
    assert judged([made("break", TCP)], brief._replace(start_earliest=100.5)).wrong


def test_what_should_have_been_seen_is_missing_until_it_is_over() -> None:
    assert judged([made("path", TCP)]).missing == ["#1 path to b cut: a>b tcp did not see it"]
    still = judged([made("path", TCP)], entry(TCP, "outage", end=None))
    assert still.missing == ["#1 path to b cut: a>b tcp is not over yet"]
    assert still.open
    assert not judged([made("path", TCP)], entry(TCP, "outage")).open
    assert not judged([made("path", HTTP, end=100.4)]).missing
    assert not judged([made("break", HTTP)]).missing


def test_what_has_ended_and_has_no_kind_yet_is_not_over() -> None:
    mono = {"start_earliest": 1.0, "start_latest": 1.1, "end_earliest": 2.0, "end_latest": 2.1, "detected": 1.2}
    length = {"lower": 0.9, "estimate": 1.0, "upper": 1.1}
    item = {"id": "1", "stream": TCP, "kind": "outage", "cause": "", "mono": mono, "duration": length}
    assert judge.entry({**item, "state": "open", "stall_overlap": False}).end_latest is None
    assert judge.entry({**item, "state": "closed", "stall_overlap": False}).end_latest == 2.1


@pytest.mark.parametrize(("closes", "seconds"), [(True, 60.0), (False, 0.1)])
def test_the_verdict_waits_for_what_is_open_and_not_for_ever(
    closes: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "CLOSING_SECONDS", 0.02)
    monkeypatch.setattr(closing, "OPEN_SECONDS", seconds)
    monkeypatch.setattr(plant, "POLL_SECONDS", 0.01)
    looked = 0

    async def find() -> closing.Found:
        nonlocal looked
        looked += 1
        still = [] if closes and looked == 10 else ["it is not over yet"]
        return closing.Found(judge.Judgement([], [], still, [], bool(still)), [], [], 0, 0, [], still)

    said = io.StringIO()
    settled = asyncio.run(closing.settled(find, screen.Screen(said, colour=False)))
    assert bool(settled.missing) != closes
    assert "for what is not over yet" in said.getvalue()


def test_a_second_entry_and_one_that_nobody_made_are_wrong() -> None:
    twice = judged([made("path", TCP)], entry(TCP, "outage"), entry(TCP, "break", start=101.0, end=101.1))
    assert len(twice.wrong) == 1
    assert "recorded a break" in twice.wrong[0]
    elsewhere = judged([made("path", TCP)], entry(TCP, "outage"), entry("a|c|pod|tcp|4", "blip"))
    assert len(elsewhere.wrong) == 1
    assert elsewhere.wrong[0].startswith("a>c tcp recorded a blip")


def test_what_was_open_when_its_peer_was_killed_ended_then() -> None:
    crash = Injected(1, "c killed", "path", {"a|c|pod|tcp|4": truth(100.0, 101.0)}, killed="c")
    opened = entry("c|b|pod|tcp|4", "break", start=99.9, end=None)
    seen = entry("a|c|pod|tcp|4", "outage")
    assert not judged([crash], seen, opened, busy={"relays": [(99.9, 99.95)]}).wrong
    assert "that nobody made" in judged([crash], seen, opened).wrong[0]
    again = opened._replace(start_earliest=100.5)
    assert "is not over yet" in judged([crash], seen, again).missing[0]


def test_the_entry_that_fits_is_taken_and_a_busy_machine_may_have_made_the_others() -> None:
    cut = entry(TCP, "break", start=100.0, end=100.1)
    other = entry(TCP, "frozen", start=101.5, end=102.0)
    busy = {"relays": [(101.5, 102.0)]}
    verdict = judged([made("break", TCP, HTTP, end=102.0)], cut, other, entry(HTTP, "frozen", 101.5, 102.0), busy=busy)
    assert not verdict.wrong + verdict.missing
    assert len(verdict.explained) == 2
    assert [row.seen for row in verdict.rows] == [0, 1]


def test_a_break_may_spare_a_stream_whose_connection_was_new() -> None:
    replaced = entry(TCP, "frozen", start=99.6, end=99.8)
    busy = {"relays": [(99.6, 99.8)]}
    assert judge.NEW > YOUNG
    assert not judged([made("break", TCP)], replaced, busy=busy).missing
    assert judged([made("break", TCP, start=100.3)], replaced, busy=busy).missing


def test_bounds_far_wider_than_promised_are_wrong_unless_there_was_a_stall() -> None:
    wide = [entry(key, "outage", lower=0.0, upper=5.0) for key in (HTTP, TCP)]
    assert "times as wide as promised" in judged([made("path", HTTP, TCP)], *wide).wrong[0]
    stalled = [each._replace(stalled=True) for each in wide]
    assert not judged([made("path", HTTP, TCP)], *stalled).wrong


# --- a busy machine


def test_hold_ups_of_relay_or_target_explain_an_entry_and_those_of_others_do_not() -> None:
    blip = entry(TCP, "frozen", start=100.0, end=100.1)
    for who in ("relays", "b"):
        verdict = judged([], blip, busy={who: [(100.0, 100.08)]})
        assert (len(verdict.explained), verdict.wrong) == (1, [])
    for busy in ({"a": [(100.0, 100.08)]}, {"relays": [(100.0, 100.02)]}, {"relays": [(103.0, 104.0)]}):
        assert judged([], blip, busy=busy).wrong


def test_a_short_hold_up_does_not_explain_a_long_entry() -> None:
    assert judged([], entry(TCP, "outage", start=100.0, end=105.0), busy={"relays": [(100.0, 100.08)]}).wrong


def test_a_hold_up_right_after_draws_an_interruption_out() -> None:
    late = entry(TCP, "frozen", end=101.3)
    assert judged([made("frozen", TCP)], late).wrong
    verdict = judged([made("frozen", TCP)], late, busy={"b": [(101.05, 101.31)]})
    assert not verdict.wrong
    assert verdict.rows[0].disturbed


def test_a_slow_thaw_may_look_like_the_end_of_an_outage_and_a_quick_one_not() -> None:
    seen = entry(TCP, "outage")
    for lasted, reasons in ((0.1, 1), (0.5, 0)):
        thawed = (Bracket(100.0, 100.001), Bracket(101.0, 101.0 + lasted))
        assert len(judged([Injected(1, "b frozen", "frozen", {TCP: thawed})], seen).wrong) == reasons


def test_hold_ups_that_a_probe_fits_between_leave_the_truth_alone() -> None:
    exact = truth(100.0, 101.0)
    assert held.drawn_out(exact, stream("tcp"), [(101.5, 102.0), (98.0, 99.0)]) == exact
    drawn = held.drawn_out(exact, stream("tcp"), [(99.7, 99.95), (101.1, 101.3), (101.4, 101.5)])
    assert drawn == (Bracket(99.7, 100.001), Bracket(101.0, 101.5))


def test_a_source_that_did_not_run_need_not_have_seen() -> None:
    assert not judged([made("path", TCP, end=100.3)], busy={"a": [(100.05, 100.28)]}).missing
    assert judged([made("path", TCP, end=100.3)], busy={"a": [(100.05, 100.1)]}).missing


def test_hold_ups_that_one_probe_meets_add_up() -> None:
    pieces = [(1.0, 1.02), (1.05, 1.07), (2.0, 2.02)]
    assert held.failing(pieces, stream("tcp")) == [(1.0, 1.07)]
    assert held.failing(pieces, stream("http")) == []


def test_hold_ups_that_overlap_count_once() -> None:
    assert held.merged([(3, 4), (1, 2), (1.5, 2.5)]) == [(1, 2.5), (3, 4)]
    assert held.within([(1, 2), (3, 5)], 1.5, 4) == pytest.approx(1.5)


# --- alerts


def test_alerts_are_due_for_what_lasted_long_enough() -> None:
    def due(*injected: Injected) -> set[tuple[str, str]]:
        return {(alarm.name, alarm.about) for alarm in alarms.due(injected, STREAMS, LIMITS)} - {alarms.WATCHDOG}

    assert due(made("path", TCP)) == {("OvnwatchOutageEnded", TCP)}
    assert due(made("path", TCP, end=108.0)) == {("OvnwatchOutageEnded", TCP), ("OvnwatchStreamDown", TCP)}
    assert due(made("path", HTTP, end=100.4)) == set()
    assert due(made("frozen", TCP, end=102.5)) == {("OvnwatchPeerFrozen", TCP)}
    assert due(made("frozen", TCP)) == set()
    assert due(made("break", TCP, HTTP)) == {("OvnwatchConnectionsBreaking", TCP)}


def test_alerts_may_fire_for_what_was_recorded_and_for_nothing_else() -> None:
    may = alarms.justified([entry(TCP, "outage"), entry(WS, "break"), entry(HTTP, "frozen")], (), LIMITS)
    fired = {
        alarms.WATCHDOG,
        Alarm("OvnwatchOutageEnded", TCP),
        Alarm("OvnwatchConnectionsBreaking", WS),
        Alarm("OvnwatchPeerFrozen", HTTP),
    }
    assert alarms.faults(fired, may) == []
    astray = [Alarm("OvnwatchStreamDown", TCP), Alarm("OvnwatchNotObserving", "")]
    assert alarms.faults(astray, may) == [
        "OvnwatchNotObserving fired without a cause",
        f"OvnwatchStreamDown for {TCP} fired without a cause",
    ]


def test_a_page_must_come_and_go() -> None:
    page = Alarm(alarms.PAGE, TCP)
    assert alarms.missing([], [], {alarms.WATCHDOG, page}) == [
        f"OvnwatchStreamDown for {TCP} did not fire",
        "OvnwatchWatchdog did not fire",
        f"OvnwatchStreamDown for {TCP} is not over",
    ]
    assert alarms.missing([alarms.WATCHDOG, page], [page], {alarms.WATCHDOG, page}) == []


def test_an_alert_is_late_since_the_edge_that_caused_it() -> None:
    injected = [made("path", TCP), made("path", TCP, start=110.0, end=118.0)]
    fired = {
        Alarm("OvnwatchOutageEnded", TCP): [103.0, 119.0],
        Alarm("OvnwatchStreamDown", TCP): [115.0],
        alarms.WATCHDOG: [90.0],
    }
    pattern = Alarm("OvnwatchOneWay", "a|b|pod")
    fired[pattern] = [116.0]
    rows = {row.name: row for row in alarms.rows(injected, fired, {alarms.WATCHDOG}, {pattern: [100.0, 110.0]})}
    assert rows["OvnwatchOneWay"].latest == pytest.approx(6.0)
    assert rows["OvnwatchOutageEnded"].delay == pytest.approx(1.5)
    assert rows["OvnwatchOutageEnded"].latest == pytest.approx(2.0)
    assert rows["OvnwatchStreamDown"].delay == pytest.approx(5.0)
    assert rows["OvnwatchWatchdog"].delay is None
    assert rows["OvnwatchWatchdog"].must == 1


# --- patterns


EVERYWHERE = {
    key: Stream(way.source, way.target, way.path, protocol, 4, "127.0.0.1", 1, 0.5, 0.15, 3.0)
    for way in [*script.between("abc"), *script.from_outside("abc")]
    for protocol in script.PROTOCOLS[way.path]
    for key in [way.key(protocol)]
}
WAITS = dict.fromkeys(patterns.ALERTS, 3.0)


def hit(*ways: tuple[str, str, str], expectation: Expectation = "path", seconds: float = 9.0, **other: str) -> Injected:
    keys = [key for way in ways for key in Way(*way).streams()]
    return Injected(1, "cut", expectation, dict.fromkeys(keys, truth(100.0, 100.0 + seconds)), **other)


IN = [("bastion", "b", path) for path in ("loadbalancer", "nodeport", "route")]
NEAR = [("a", "b", "pod"), ("c", "b", "pod")]


@pytest.mark.parametrize(
    ("ways", "alerts"),
    [
        (IN[:1], {"OvnwatchOnePathDown for b|loadbalancer"}),
        (IN[:2], {"OvnwatchOnePathDown for b|loadbalancer", "OvnwatchOnePathDown for b|nodeport"}),
        (IN, {"OvnwatchExternalPathsDown for b"}),
        (NEAR[:1], {"OvnwatchOneWay for a|b|pod"}),
        (NEAR, {"OvnwatchOnePathDown for b|pod", "OvnwatchOneWay for a|b|pod", "OvnwatchOneWay for c|b|pod"}),
        (IN + NEAR, {"OvnwatchAllPathsDown for b", "OvnwatchOneWay for a|b|pod", "OvnwatchOneWay for c|b|pod"}),
    ],
)
def test_what_fails_together_shows_a_pattern(ways: list[tuple[str, str, str]], alerts: set[str]) -> None:
    due = patterns.due([hit(*ways)], EVERYWHERE, WAITS)
    assert set(alarms.missing((), (), due)) == {f"{each} did not fire" for each in alerts}
    assert patterns.causes([hit(*ways)], EVERYWHERE) == {alarm: [100.0] for alarm in due}


def test_a_pattern_is_due_only_if_it_lasted_and_never_for_breaks() -> None:
    brief = hit(*IN, seconds=2.0)
    assert patterns.due([brief], EVERYWHERE, WAITS) == set()
    assert patterns.causes([brief], EVERYWHERE)
    assert patterns.causes([hit(*IN, expectation="break")], EVERYWHERE) == {}


def test_what_a_killed_peer_measured_is_not_known() -> None:
    killed = hit(*IN, *NEAR, killed="b")
    assert patterns.due([killed], EVERYWHERE, WAITS) == {Alarm("OvnwatchAllPathsDown", "b")}
    assert Alarm("OvnwatchOneWay", "a|b|pod") in patterns.causes([killed], EVERYWHERE)
    assert alarms.GONE in alarms.justified((), [killed], LIMITS)
    assert alarms.GONE not in alarms.justified((), [hit(*IN)], LIMITS)


def test_a_disk_that_hangs_may_alert_for_whom_it_kept_waiting_only() -> None:
    failing = [Alarm(alarms.DISK, name) for name in ("a", "b")]
    assert alarms.faults(failing, alarms.justified((), (), LIMITS, ["b"])) == [
        "OvnwatchJournalFailing for a fired without a cause"
    ]


def test_the_scripts_patterns_have_alerts_that_are_due() -> None:
    made = [hit(*step.ways, seconds=step.seconds) for step in script.write(1, "abc") if step.named]
    due = [{alarm.name for alarm in patterns.due([each], EVERYWHERE, closing.WAITS)} for each in made]
    assert due == [
        {"OvnwatchOneWay"},
        {"OvnwatchOnePathDown"},
        {"OvnwatchExternalPathsDown"},
        {"OvnwatchAllPathsDown", "OvnwatchOneWay"},
    ]


def test_the_bastion_must_name_it_before_it_is_over() -> None:
    cut = hit(*IN, target="b", named="external_down")
    right, other = Look(108.0, "external_down", "b"), Look(108.0, "external_down", "c")
    assert patterns.misnamed([cut, hit(*NEAR)], [right, Look(108.5, "router_down", "b")]) == []
    said = "#1 cut: the bastion says {}, not external_down of b"
    assert patterns.misnamed([cut], [other]) == [said.format("external_down of c")]
    assert patterns.misnamed([cut], [right._replace(at=103.0), right._replace(at=110.0)]) == [said.format("nothing")]


def test_what_the_bastion_says_is_shown_once_it_has_settled() -> None:
    looks: list[Look] = []
    shown = []
    for at, key in ((0.0, ""), (1.0, "one_way"), (2.0, "target_down"), (3.0, "target_down"), (4.0, "target_down")):
        looks.append(Look(at, key, "b"))
        if patterns.settled(looks):
            shown.append((at, key))
    assert shown == [(4.0, "target_down")]


# --- the dashboard


def test_the_dashboards_queries_are_complete() -> None:
    asked = asking.asked(json.loads(board.FILE.read_text()), 90)
    assert len({query.name for query in asked}) == len(asked) > 30
    assert not [query for query in asked if "$" in query.expr]
    assert {query.instant for query in asked} == {True, False}


# --- notices


def test_an_alert_told_twice_is_one_notice_and_fired_again_another() -> None:
    def alert(starts: str, status: str = "firing") -> dict[str, Any]:
        labels = {"alertname": "OvnwatchStreamDown", "severity": "warning", "target": "b"}
        notes = {"summary": "It is down.", "description": "For 3 s."}
        return {"labels": labels, "annotations": notes, "status": status, "fingerprint": "f1", "startsAt": starts}

    document = {"alerts": [alert("1"), alert("1"), alert("1", "resolved"), alert("2")]}
    found = dict(monitoring.notices(document, 5.0))
    assert len(found) == 3
    assert found["f1|firing|1"] == Notice(
        "OvnwatchStreamDown", "warning", "firing", document["alerts"][0]["labels"], "It is down. For 3 s.", 5.0
    )


# --- what is shown


def test_the_tables_fit_a_terminal() -> None:
    injected = [made("path", HTTP, TCP), made("break", HTTP, WS), made("frozen", TCP)]
    entries = [entry(HTTP, "outage"), entry(TCP, "outage"), entry(WS, "break", end=100.1)]
    lines = screen.table(judged(injected, *entries).rows)
    lines += screen.alarm_table(alarms.rows(injected, {alarms.WATCHDOG: [1.0]}, {alarms.WATCHDOG}, {}))
    lines += screen.reasons("Wrong:", ["a very long reason " * 10] * 5, 3)
    assert max(map(len, lines)) <= 100
    assert "  and 2 more" in lines
    assert any("NO" in line for line in lines)  # the frozen peer was recorded as an outage


def test_like_changes_share_a_line() -> None:
    changes = [
        entry(TCP, "outage", end=None),
        entry(WS, "outage", end=None),
        entry("c|b|pod|tcp|4", "outage", end=None),
        entry(HTTP, "blip", end=100.4, cause="reset"),
    ]
    assert [(word, text) for word, text, _ in screen.entry_lines(changes, STREAMS)] == [
        ("down", "a>b tcp ws, c>b tcp: refused"),
        ("up", "a>b http: blip of 0.40 s (0.30 to 0.50), reset"),
    ]
    labels = {"source": "a", "target": "b", "path": "pod", "protocol": "tcp", "family": "4"}
    told = [
        Notice("OvnwatchStreamDown", "warning", "firing", labels, "It is down.", 1.0),
        Notice("OvnwatchStreamDown", "warning", "firing", {**labels, "protocol": "ws"}, "It is down.", 1.0),
        Notice("OvnwatchWatchdog", "none", "resolved", {}, "", 1.0),
        Notice("OvnwatchOnePathDown", "warning", "firing", {"target": "b", "path": "route"}, "", 1.0),
    ]
    assert [text for _, text, _ in screen.notice_lines(told)] == [
        "OvnwatchStreamDown (warning) a>b tcp ws. It is down.",
        "OvnwatchWatchdog (none) is over: all",
        "OvnwatchOnePathDown (warning) b route",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it() -> None:
    assert screen.coloured(Terminal(), {})
    assert screen.coloured(Terminal(), {"NO_COLOR": ""})
    assert not screen.coloured(Terminal(), {"NO_COLOR": "1"})
    assert not screen.coloured(Terminal(), {"TERM": "dumb"})
    assert not screen.coloured(io.StringIO(), {})
    for colour in (True, False):
        out = io.StringIO()
        screen.Screen(out, colour=colour).event("down", "a>b tcp " * 20, "bad")
        assert ("\x1b[31m" in out.getvalue()) is colour
        assert "\r" not in out.getvalue()
        if not colour:
            assert max(map(len, out.getvalue().splitlines())) <= 100


# --- the edges


def run(scenario: Callable[[Path], Coroutine[Any, Any, None]], folder: Path) -> None:
    asyncio.run(asyncio.wait_for(scenario(folder), 60))


def test_flags_and_missing_programs_end_with_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(["--onec"])
    assert ended.value.code == 1
    capsys.readouterr()
    monkeypatch.setenv("PATH", "")
    assert demo.main(["--once"]) == 1
    assert capsys.readouterr().err == (
        "ovnwatch demo: Prometheus and Alertmanager are needed: apt-get install prometheus prometheus-alertmanager\n"
    )


def test_children_end_with_the_block_even_those_that_do_not_want_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_SECONDS", 0.2)

    async def scenario(folder: Path) -> None:
        started = []
        with contextlib.suppress(ZeroDivisionError):
            async with Children(folder) as all_of_them:
                stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
                command = [sys.executable, "-c", f"{stubborn}; time.sleep(60)"]
                started.append(await all_of_them.start("stubborn", command, {}))
                started.append(await all_of_them.start("willing", ["sleep", "60"], {"PATH": "/usr/bin:/bin"}))

                async def written() -> bool:
                    return started[0].tail() != ""

                assert await until(written, 30)
                raise ZeroDivisionError
        assert [child.process.returncode for child in started] == [-signal.SIGKILL, -signal.SIGTERM]

    run(scenario, tmp_path)


def test_a_child_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def scenario(folder: Path) -> None:
        async with Children(folder) as all_of_them:
            unasked = await all_of_them.start("first", [sys.executable, "-c", "import time; time.sleep(60)"], {})
            await all_of_them.kill(unasked)  # asked for: no surprise
            await all_of_them.start("second", [sys.executable, "-c", "raise SystemExit('out of luck')"], {})
            with pytest.raises(ChildEndedError, match=r"second ended with exit code 1\n    out of luck"):
                await all_of_them.surprise()

    run(scenario, tmp_path)


def test_a_held_port_is_for_the_child_and_for_nobody_else() -> None:
    with contextlib.closing(children.hold_port()) as holder:
        address = holder.getsockname()
        with socket.create_server(address), pytest.raises(OSError, match="in use"):
            socket.create_server(address)
        with contextlib.closing(socket.socket()) as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(address)


def test_children_do_not_hear_of_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("PEERS", "x,y")
    environ = children.plain_environ({"PEERS"}, {"HOSTNAME": "a"})
    assert environ.keys().isdisjoint({"HTTPS_PROXY", "http_proxy", "PEERS"})
    assert environ["HOSTNAME"] == "a"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.readline():
            answer = json.dumps({"mono": asyncio.get_running_loop().time()}).encode()
            writer.write(b"ovnwatch/1 " + answer + b"\n")
            await writer.drain()
    writer.close()


def test_the_relays_interrupt_only_the_streams_asked_for(tmp_path: Path) -> None:
    async def scenario(folder: Path) -> None:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with Children(folder) as all_of_them:
            command = [sys.executable, "-m", "lab.relays"]
            relays = Relays((await all_of_them.start("relays", command, {}, piped=True)).process)
            at = await relays.open({TCP: port, WS: port}, {"b": port})
            cut = asyncio.create_task(relays.interrupt("refuse", [TCP], 1.0))
            while await _refused(at[WS]) or not await _refused(at[TCP]):
                assert not cut.done()
            start, end = (await cut)[TCP]
            assert start.before <= start.after < end.before - 0.9
            assert not await _refused(at[TCP])
            assert (await relays.held()).keys() == {"relays", "b"}
        server.close()

    run(scenario, tmp_path)


async def _refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    writer.close()
    return False


def test_a_crash_is_timed_from_the_kill_to_the_first_answer(tmp_path: Path) -> None:
    async def scenario(_: Path) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.closing(children.hold_port()) as holder:
            address, port = holder.getsockname()
            edges = [clock()]

            async def kill() -> None:
                edges.append(clock())

            async def start() -> None:
                await asyncio.sleep(0.1)
                edges.append(clock())
                servers.append(await asyncio.start_server(_echo, address, port))

            servers: list[asyncio.Server] = []
            gone, back = (await crash.crash(kill, start, {"tcp": port}))["tcp"]
            servers[0].close()
        assert edges[0] <= gone.before <= edges[1] <= gone.after
        assert edges[1] < back.before <= back.after
        assert back.after >= edges[2]

    run(scenario, tmp_path)
