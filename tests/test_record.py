"""The record: what events and outcomes become in the history, the status and the metrics."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic, time
from typing import Any

import pytest
from box import OURSELVES, stream
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporters import catalog
from exporters.probing.histogram import Histogram
from exporters.probing.metrics import PER_STREAM
from exporters.probing.outage import NEVER, Book, Counted, Down, Event, Finished, Ledger, Opened, Up
from exporters.probing.protocols import CAUSES, PROTOCOLS
from exporters.probing.record import GAPS, SKIPPED, Record
from exporters.probing.stats import UNKNOWN, Stats
from exporters.settings import Stream
from exporters.times import seconds
from grafana import looks

OTHERS = (
    *("ovnwatch_node_", "ovnwatch_ovs_", "ovnwatch_ovn_", "ovnwatch_microovn_"),
    *("ovnwatch_migration_", "ovnwatch_watch_", "ovnwatch_egressip_"),
)
NOT_OURS = {  # those of the process, of reloads, of the peer's choice, and of the bastion's pull
    "ovnwatch_peers_not_observed",
    "ovnwatch_build_info",
    "ovnwatch_config_last_reload_successful",
    "ovnwatch_config_last_reload_success_timestamp_seconds",
    "ovnwatch_peer_heard",
    "ovnwatch_peer_last_heard_timestamp_seconds",
    "ovnwatch_peer_look_failures_total",
}
LEDGERS: dict[str, Ledger] = {"outage": "path", "blip": "path", "frozen": "peer", "break": "flow"}


def record(*streams: Stream, **options: Any) -> Record:
    return Record(streams or (stream(8081),), OURSELVES, **options)


def the_stream(made: Record) -> Stats:
    return next(iter(made.stats.values()))


def event(number: int, kind: Any = "outage", *, end: float | None = None, **changes: Any) -> Event:
    """An event that began 3 s ago, between 3.1 and 2.9 s, and lasted 2 s if it is over."""
    now = monotonic()
    plain = Event(
        number=number,
        kind=kind,
        start_earliest=now - 3.1,
        start_latest=now - 2.9,
        end_earliest=now - 1.1,
        end_latest=end,
        lower=1.8,
        estimate=2.0,
        upper=2.2,
        detected=now - 2.85,
        cause="refused",
        causes={"refused": 20},
        grid_points=20,
        unconfirmed=False,
    )
    return replace(plain, **changes)


def begin(stats: Stats, number: int, kind: Any = "outage") -> None:
    stats.state("down")
    going_on = [*stats.unfinished(0.0), event(number, kind)]
    stats.opened(Opened(number, monotonic()), lambda _: going_on)


def end(stats: Stats, number: int, kind: Any = "outage", *, seconds: float = 2.0) -> None:
    done = event(number, kind, end=monotonic() - 0.9)
    going_on = [each for each in stats.unfinished(0.0) if each.number != number]
    stats.unfinished = lambda _: going_on
    stats.finished(Finished(done, LEDGERS[kind], seconds), stall_overlap=False)
    stats.state("up")


def happen(stats: Stats, number: int, kind: Any = "outage") -> None:
    begin(stats, number, kind)
    end(stats, number, kind)


def ids(made: Record, **options: int) -> list[int]:
    """The numbers of the events listed."""
    return [int(item["id"].rpartition("-")[2]) for item in made.history(**options)]


# --- history


def test_history_lists_each_event_once_the_oldest_change_first() -> None:
    made = record(stream(1), stream(2, target="other"))
    first, second = made.stats.values()
    begin(first, 1)
    begin(second, 1)
    happen(second, 2, "break")
    assert [(item["name"], item["state"]) for item in made.history()] == [
        ("there", "open"),
        ("other", "open"),  # ended perhaps, but not told apart yet
        ("other", "closed"),
    ]
    end(first, 1)
    end(second, 1)
    items = made.history()
    assert [(item["name"], item["kind"]) for item in items] == [
        ("other", "break"),
        ("there", "outage"),
        ("other", "outage"),
    ]
    assert len({item["id"] for item in items}) == len(items)
    assert [item["seq"] for item in items] == sorted(item["seq"] for item in items)


def test_history_since_gives_every_change_just_once() -> None:
    made = record()
    stats = the_stream(made)
    seq, told = 0, []
    for number in range(1, 6):
        for change in (begin, end):
            change(stats, number)
            for item in made.history(since=seq):
                told.append((number, item["state"]))
                seq = item["seq"]
    assert told == [(number, state) for number in range(1, 6) for state in ("open", "closed")]
    assert made.history(since=seq) == []


def test_history_limit_gives_the_oldest_changes_so_that_none_is_skipped() -> None:
    made = record()
    for number in range(1, 8):
        happen(the_stream(made), number)
    assert ids(made, limit=3) == [1, 2, 3]
    assert ids(made, since=made.history(limit=3)[-1]["seq"], limit=3) == [4, 5, 6]
    assert ids(made, limit=0) == []


def test_history_keeps_the_newest_and_what_is_open() -> None:
    made = record(stream(1), stream(2, target="other"), max_history=3)
    first, second = made.stats.values()
    begin(first, 1)
    for number in range(1, 9):
        happen(second, number)
    assert [(item["name"], item["state"]) for item in made.history()] == [
        ("there", "open"),
        ("other", "closed"),
        ("other", "closed"),
    ]
    assert ids(made) == [1, 7, 8]
    end(first, 1)
    assert ids(made) == [7, 8, 1]


def test_history_is_bounded_though_all_is_open() -> None:
    made = record(*(stream(1, target=str(number)) for number in range(9)), max_history=3)
    for each in made.stats.values():
        begin(each, 1)
    assert len(made.history()) == 3
    assert all(item["state"] == "open" for item in made.history())


def test_clear_hides_what_ended_before_and_nothing_else() -> None:
    made = record(stream(1), stream(2, target="other"))
    first, second = made.stats.values()
    happen(second, 1)
    begin(first, 1)
    before = made.history()[-1]["seq"]
    now = time()
    made.clear(now)
    assert made.cleared_at == now
    assert [(item["name"], item["state"]) for item in made.history()] == [("there", "open")]
    end(first, 1)
    happen(second, 2)
    assert [(item["name"], item["state"]) for item in made.history()] == [("there", "closed"), ("other", "closed")]
    assert min(item["seq"] for item in made.history()) > before  # numbers go on
    assert second.outages == 2  # and so do counters


def test_an_estimate_longer_than_from_the_likely_start_to_the_end_ends_no_later_than_that() -> None:
    made = record(stream(1, "ws"))
    stats = the_stream(made)
    begin(stats, 1, "frozen")
    done = replace(event(1, "frozen", end=monotonic() - 0.9), estimate=2.15)
    stats.finished(Finished(done, "peer", 2.15), stall_overlap=False)
    (item,) = made.history()
    assert seconds(item["end_time"]) == pytest.approx(seconds(item["end"]["latest"]), abs=0.001)
    assert item["duration"]["estimate"] == 2.15


def test_an_item_has_an_earlier_systems_fields_and_ours() -> None:
    made = record(stream(1, "ws"), reported_as="bastion")
    stats = the_stream(made)
    stats.succeeded(time(), 0.001, {"instance": "old"})
    begin(stats, 1)
    (item,) = made.history()
    assert (item["state"], item["end_time"], item["after"]) == ("open", None, {})
    assert item["end"] == {"earliest": None, "latest": None}
    stats.succeeded(time(), 0.001, {"instance": "new"})
    end(stats, 1)
    (item,) = made.history()
    assert item == json.loads(json.dumps(item))
    assert item["id"].startswith(made.journal_id[:8])
    assert {key: item[key] for key in ("name", "protocol", "source", "reporter", "duration_sec")} == {
        "name": "there",
        "protocol": "WS",
        "source": "bastion",
        "reporter": OURSELVES.pod,
        "duration_sec": 2.0,
    }
    assert {key: item[key] for key in ("kind", "state", "stream", "cause", "causes", "before", "after")} == {
        "kind": "outage",
        "state": "closed",
        "stream": "here|there|service|ws|4",
        "cause": "refused",
        "causes": {"refused": 20},
        "before": {"instance": "old"},
        "after": {"instance": "new"},
    }
    assert (item["unconfirmed"], item["stall_overlap"]) == (False, False)
    assert item["duration"] == {"lower": 1.8, "estimate": 2.0, "upper": 2.2}
    times = [item["start"]["earliest"], item["start_time"], item["start"]["latest"]]
    assert times == sorted(times)
    times = [item["start"]["latest"], item["end"]["earliest"], item["end"]["latest"]]
    assert times == sorted(times)
    assert all(each.endswith("+00:00") for each in times)


def test_an_event_that_begins_while_the_one_before_waits_for_its_kind_changes_nothing_of_it() -> None:
    made = record()
    stats = the_stream(made)
    for number in (1, 2):
        stats.succeeded(time(), 0.001, {"instance": f"before {number}"})
        begin(stats, number)
    stats.succeeded(time(), 0.001, {"instance": "now"})
    end(stats, 1)
    open_one, closed_one = made.history()
    assert (open_one["state"], open_one["before"]) == ("open", {"instance": "before 2"})
    assert (closed_one["state"], closed_one["before"]) == ("closed", {"instance": "before 1"})
    end(stats, 2)
    assert [item["before"]["instance"] for item in made.history()] == ["before 1", "before 2"]


@pytest.mark.parametrize(("late", "early"), [(0.5, 0.5), (30.0, 0.0)])
def test_a_target_that_answers_at_once_was_there_when_we_began(late: float, early: float) -> None:
    stats = the_stream(record())
    stats.begin(monotonic() - late)
    stats.succeeded(wall := time(), 0.001, {})
    assert stats.reached == pytest.approx(wall - early, abs=0.4)
    stats.succeeded(wall + 100, 0.001, {})
    assert stats.reached < wall + 1, "the first answer counts"


def test_a_clock_that_was_ahead_leaves_no_time_to_come() -> None:
    stats = the_stream(record())
    stats.succeeded((wall := time()) + 3600, 0.001, {})
    stats.succeeded(wall, 0.001, {})
    assert stats.reached == wall


# --- status


def test_status_has_one_entry_for_each_stream_in_its_words() -> None:
    made = record(stream(1), stream(2, target="other"))
    first, second = made.stats.values()
    assert [each["state"] for each in made.status()] == ["unknown", "unknown"]
    assert [made.status()[0][key] for key in ("last_success", "reached_since", "round_trip_seconds")] == [None] * 3
    first.succeeded(time(), 0.002, {"node": "n"})
    first.observed(monotonic(), 0.1)
    first.state("up")
    second.failed("refused")
    begin(second, 1, "frozen")
    second.state("frozen")
    up, frozen = status = made.status()
    assert (up["state"], up["observed"], up["round_trip_seconds"], up["peer"], up["open"]) == (
        "up",
        True,
        0.002,
        {"node": "n"},
        None,
    )
    assert (frozen["state"], frozen["observed"], frozen["cause"], frozen["open"]["kind"]) == (
        "frozen",
        False,
        "refused",
        "frozen",
    )
    assert json.loads(json.dumps(status)) == status


def test_a_cause_goes_when_the_stream_is_up_again() -> None:
    stats = the_stream(record())
    stats.failed("reset")
    stats.state("down")
    assert stats.cause == "reset"
    stats.state("up")
    assert stats.cause == ""


def test_since_is_when_the_state_changed() -> None:
    stats = the_stream(record())
    stats.since = 1.0
    stats.state("unknown")
    assert stats.since == 1.0
    stats.state("up")
    assert stats.since > 1.0


def test_connections_say_the_worst_of_several_paths_in_an_earlier_systems_words() -> None:
    states = {"a": ("up", "unknown"), "b": ("up", "down"), "c": ("frozen", "up"), "d": ("unknown", "unknown")}
    streams = [stream(1, "tcp", target=target, path=path) for target in states for path in ("pod", "service")]
    made = record(*streams, stream(1, "ws", target="a"), stream(1, "http", target="b"))
    for each in streams:
        made.stats[each.key].state(states[each.target][("pod", "service").index(each.path)])
    view = made.connections()
    assert {target: words["tcp"] for target, words in view.items()} == {
        "a": "connected",
        "b": "disconnected",
        "c": "disconnected",
        "d": "unknown",
    }
    assert all(words.keys() == {"http", "tcp", "ws", "last_change"} for words in view.values())
    assert view["a"]["ws"] == view["a"]["http"] == "unknown"


# --- metrics


def samples(made: Record) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples by name and labels, as a scraper reads them from the text."""
    found = {}
    for family in text_string_to_metric_families(text(made)):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def text(made: Record) -> str:
    registry = CollectorRegistry()
    registry.register(made)
    return generate_latest(registry).decode()


def value(made: Record, name: str, **labels: str) -> float | None:
    """The value of the only series of that name that has these labels."""
    found = [
        each
        for (other, having), each in samples(made).items()
        if other == name and labels.items() <= dict(having).items()
    ]
    assert len(found) <= 1
    return found[0] if found else None


def busy() -> Record:
    """A record in which everything has happened to one stream of each protocol, and nothing to another."""
    made = record(*(stream(1, protocol, target=target) for protocol in PROTOCOLS for target in ("a", "b")))
    for stats in list(made.stats.values())[::2]:
        stats.scheduled(0.001, 1)
        stats.succeeded(time(), 0.001, {"node": "n", "zone": "z"})
        stats.observed(monotonic(), 0.1)
        for cause in CAUSES:
            stats.failed(cause)
        for reason in UNKNOWN:
            stats.unknown(reason, 2)
        for number, kind in enumerate(LEDGERS):
            happen(stats, number, kind)
        begin(stats, 9)
        stats.counted(Counted("path", 0.1))
    made.stalled(0.5)
    return made


def ours(known: Iterable[str]) -> set[str]:
    """Of the catalogue, what a record exports: the rest is others', the node and the migration exporter's."""
    return {name for name in known if not name.startswith(OTHERS)} - NOT_OURS


@pytest.mark.parametrize("make", [record, busy])
def test_every_metric_of_the_catalogue_is_exported_as_it_says_and_none_else(make: Any) -> None:
    known = catalog.load().metrics
    families = {family.name: family for family in make().collect()}
    names = {name + {"counter": "_total", "info": "_info"}.get(family.type, "") for name, family in families.items()}
    assert names == ours(known)
    for name, labels in samples(make()):
        metric = known.get(name) or known[name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")]
        assert {key for key, _ in labels} - {"le"} == set(metric.labels), name


def test_counters_exist_from_the_start_and_nothing_unknown_does() -> None:
    made = record()
    found = samples(made)
    counters = {name: metric for name, metric in catalog.load().metrics.items() if metric.kind == "counter"}
    for name in ours(counters) - {"ovnwatch_cpu_throttled_seconds_total"}:  # known where a cgroup counts
        series = {each for (other, _), each in found.items() if other == name}
        assert series == {0.0}, name
    for label, name, words in (
        ("cause", "ovnwatch_probe_failures_total", CAUSES),
        ("reason", "ovnwatch_probe_unknown_total", UNKNOWN),
        ("reason", "ovnwatch_probes_skipped_total", SKIPPED),
        ("reason", "ovnwatch_observation_gap_seconds_total", GAPS),
    ):
        assert {dict(labels)[label] for other, labels in found if other == name} == set(words)
    present = {name for name, _ in found}
    assert not any("timestamp" in name or "last_outage" in name for name in present)
    assert not present & {"ovnwatch_stream_up", "ovnwatch_outage_open"}
    assert value(made, "ovnwatch_stream_observed") == 0.0
    assert value(made, "ovnwatch_stream_state") == looks.UNKNOWN.code
    assert value(made, "ovnwatch_stream_info", target="there", source_node="node-here") == 1.0


def test_gauges_follow_the_state() -> None:
    made = record()
    stats = the_stream(made)
    stats.succeeded(time(), 0.001, {})
    stats.observed(monotonic(), 0.1)
    stats.state("up")
    assert (value(made, "ovnwatch_stream_up"), value(made, "ovnwatch_outage_open")) == (1.0, 0.0)
    assert value(made, "ovnwatch_stream_observed") == 1.0
    assert value(made, "ovnwatch_stream_state") == looks.UP.code
    assert value(made, "ovnwatch_last_success_timestamp_seconds") == pytest.approx(time(), abs=60)
    for kind, is_open in (("outage", 1.0), ("frozen", 0.0), ("break", 0.0)):
        begin(stats, 1, kind)
        assert (value(made, "ovnwatch_stream_up"), value(made, "ovnwatch_outage_open")) == (0.0, is_open)
        assert value(made, "ovnwatch_stream_state") == (looks.DOWN if is_open else looks.NOT_ANSWERING).code
        end(stats, 1, kind)
        assert (value(made, "ovnwatch_stream_up"), value(made, "ovnwatch_outage_open")) == (1.0, 0.0)


def test_each_kind_of_event_has_its_own_counters() -> None:
    made = record()
    stats = the_stream(made)
    counters = {
        "path": ("ovnwatch_outages_total", "ovnwatch_outage_seconds_total"),
        "peer": ("ovnwatch_peer_frozen_total", "ovnwatch_peer_frozen_seconds_total"),
        "flow": ("ovnwatch_connection_breaks_total", "ovnwatch_connection_break_seconds_total"),
    }
    wanted = dict.fromkeys(counters, (0, 0.0))
    for number, (kind, ledger) in enumerate(LEDGERS.items()):
        begin(stats, number, kind)
        stats.counted(Counted(ledger, 0.5))
        times, seconds = wanted[ledger]
        wanted[ledger] = times, seconds + 0.5
        assert {each: (value(made, a), value(made, b)) for each, (a, b) in counters.items()} == wanted
        end(stats, number, kind, seconds=1.5)
        wanted[ledger] = times + 1, seconds + 2.0
        assert {each: (value(made, a), value(made, b)) for each, (a, b) in counters.items()} == wanted
    assert value(made, "ovnwatch_outage_duration_seconds_count") == 2
    assert value(made, "ovnwatch_outage_seconds_lower_total") == pytest.approx(3.6)
    assert value(made, "ovnwatch_outage_seconds_upper_total") == pytest.approx(4.4)


def test_the_last_outage_is_the_open_one_while_there_is_one() -> None:
    made = record()
    stats = the_stream(made)
    happen(stats, 1)
    name = "ovnwatch_last_outage_{}_seconds".format
    assert [value(made, name(each)) for each in ("lower", "estimate", "upper")] == [1.8, 2.0, 2.2]
    start, stop = (value(made, name(f"{each}_timestamp")) for each in ("start", "end"))
    assert start is not None
    assert stop == pytest.approx(start + 2.0)
    happen(stats, 2, "break")  # is none
    assert value(made, name("estimate")) == 2.0
    stats.opened(
        Opened(3, monotonic()),
        lambda _: [event(3, estimate=7.0, start_earliest=monotonic() - 1.0, start_latest=monotonic())],
    )
    assert value(made, name("estimate")) == 7.0
    assert (value(made, name("start_timestamp")) or 0) > start + 1.0
    assert value(made, name("end_timestamp")) == stop  # of the last one that ended


def test_a_stream_that_is_dropped_ends_its_series_and_keeps_its_history() -> None:
    made = record(stream(1), stream(2, target="other"))
    happen(the_stream(made), 1)
    made.remove("here|there|service|tcp|4")
    assert not any(dict(labels).get("target") == "there" for _, labels in samples(made))
    assert any(dict(labels).get("target") == "other" for _, labels in samples(made))
    assert [each["target"] for each in made.status()] == ["other"]
    assert [item["name"] for item in made.history()] == ["there"]


def test_what_is_not_decided_in_time_is_not_observed() -> None:
    made = record()
    the_stream(made).observed(monotonic() - 60, 0.1)
    assert value(made, "ovnwatch_stream_observed") == 0.0
    the_stream(made).state("down")
    assert value(made, "ovnwatch_stream_state") == looks.NOT_OBSERVED.code


def test_a_peers_clock_is_told_by_the_stream_that_knows_best() -> None:
    made = record(stream(1), stream(2, path="pod"), stream(3, target="silent"))
    slow, quick, _ = made.stats.values()
    now = time()
    slow.succeeded(now, 0.2, {"instance": "i"}, now + 9.0)
    quick.succeeded(now, 0.002, {"instance": "i"}, now + 9.0)
    assert value(made, "ovnwatch_clock_offset_seconds", source="here", target="there") == pytest.approx(9.001, abs=1e-4)
    assert value(made, "ovnwatch_clock_offset_error_seconds", source="here", target="there") == pytest.approx(0.001)
    assert value(made, "ovnwatch_clock_offset_seconds", source="here", target="silent") is None


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "ünï", "a,b=c}"])
def test_labels_survive_whatever_they_hold(name: str) -> None:
    made = record(stream(1, target=name))
    the_stream(made).peer = {"node": name, "zone": name}
    assert value(made, "ovnwatch_probes_total", target=name) == 0.0
    assert value(made, "ovnwatch_stream_info", target_node=name, target_zone=name) == 1.0


@given(values=st.lists(st.floats(0, 100)), bounds=st.lists(st.floats(0.001, 50), min_size=1, unique=True).map(sorted))
def test_histograms_count_each_value_once(values: list[float], bounds: list[float]) -> None:
    histogram = Histogram(bounds)
    for each in values:
        histogram.observe(each)
    buckets, total = histogram.buckets()
    assert total == pytest.approx(sum(values))
    assert [count for _, count in buckets] == [
        *(sum(each <= bound for each in values) for bound in bounds),
        len(values),
    ]
    assert [float(edge) for edge, _ in buckets] == [*bounds, float("inf")]


def test_per_stream_metrics_are_in_the_catalogue() -> None:
    assert PER_STREAM.keys() <= catalog.load().metrics.keys()


def test_a_scrape_may_come_from_another_thread_at_any_moment() -> None:
    made = record()
    stats = the_stream(made)
    book = Book(0.1)
    stats.opened(Opened(1, 0.0), book.unfinished)
    done = threading.Event()
    trouble: list[BaseException] = []

    def scrape() -> None:
        try:
            while not done.is_set():
                list(made.collect())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test looks for
            trouble.append(error)

    thread = threading.Thread(target=scrape)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for now in range(1, 3000):
            book.add(Up(now, now + 0.001, 1), now + 0.001, NEVER, 0.02)
            book.add(Down(now + 0.1, now + 0.12, "path", "refused", True, 2), now + 0.12, NEVER, 0.02)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(usual)
    assert trouble == []


@pytest.mark.system("promtool")
@pytest.mark.parametrize("make", [record, busy])
def test_promtool_finds_nothing_to_improve(make: Any) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(make()), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("over", ["before the page", "while it is made"])
def test_an_outage_that_ends_is_on_a_page_once(over: str) -> None:
    record = Record([stream(1)], OURSELVES)
    stats = the_stream(record)
    begin(stats, 1)
    if over == "before the page":  # and not told apart yet
        done = event(1, end=monotonic() - 0.1)
        stats.unfinished = lambda _: [done]
    page: dict[str, float] = {}
    for metric in record.collect():
        if not page and over == "while it is made":
            end(stats, 1)
        page |= {sample.name: sample.value for sample in metric.samples}
    assert page["ovnwatch_outage_open"] == 1
    assert page["ovnwatch_last_outage_lower_seconds"] == pytest.approx(1.8)
    assert page["ovnwatch_outage_seconds_lower_total"] == page["ovnwatch_outage_seconds_upper_total"] == 0


def test_a_snapshot_gives_the_collector_nothing_to_look_at() -> None:
    """Else each is a stall of all streams: of thousands at once young objects are many, and they get old."""
    record = Record([stream(1, target=f"there-{number}") for number in range(2000)], OURSELVES)
    looked: list[str] = []

    def look(phase: str, _info: dict[str, int]) -> None:
        looked.append(phase)

    before = gc.get_threshold()
    asyncio.run(record.snapshot())
    gc.collect()

    async def work() -> None:
        gc.callbacks.append(look)
        gc.set_threshold(1500, *before[1:])
        try:
            await record.snapshot()
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(look)

    asyncio.run(work())
    assert looked == []
