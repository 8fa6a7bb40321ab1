"""What we did not observe: by reason, each second once, in the history, and missing in the coverage."""

import asyncio
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from box import OURSELVES, failures, only, run, stream, successes, until
from hypothesis import given
from hypothesis import strategies as st
from servers import healthy

from exporters.probing.engine import Engine, boottime
from exporters.probing.record import GAPS, MOST_BOOTS, Record
from exporters.probing.stall import GAP, PILE_SECONDS
from exporters.probing.stats import COVERAGE_WINDOW, MARK_SECONDS, Stats
from exporters.probing.throttling import Throttling

QUICK = 0.05


def gaps(record: Record) -> list[dict[str, Any]]:
    return [item for item in record.history(0, 1000) if item["kind"] == "gap"]


def counted(record: Record) -> dict[str, float]:
    return {reason: seconds for reason, seconds in record.gaps.items() if seconds}


def throttled_by(path: Path, seconds: float) -> Throttling:
    path.write_text(f"throttled_usec {round(seconds * 1e6)}\n")
    return Throttling(path)


# --- stalls


def test_a_stall_is_a_gap_and_a_long_one_is_listed() -> None:
    record = Record([stream(1)], OURSELVES)
    record.stalled(0.5)
    assert gaps(record) == []
    before = time.time()
    record.stalled(10.0)
    (item,) = gaps(record)
    assert (item["cause"], item["name"], item["stream"], item["state"]) == ("stall", "here", "", "closed")
    assert item["duration"] == {"lower": 10.0, "estimate": 10.0, "upper": 10.0}
    assert item["seq"] == 1
    assert counted(record) == {"stall": 10.5}
    assert record.stall_seconds == 10.5
    assert item["start_time"] < item["end_time"]
    assert time.time() - before < 10.0  # and so it began before we asked


@pytest.mark.parametrize(("stalls", "listed"), [([0.2], []), ([0.1, 0.1, 0.09], []), ([0.5] * 30, [15.0])])
def test_short_stalls_are_listed_as_one_where_they_come_to_much(stalls: list[float], listed: list[float]) -> None:
    """Else a report would take the time for observed: it knows of no gaps but those that are listed."""
    record = Record([stream(1)], OURSELVES)
    for seconds in stalls:
        record.stalled(seconds)
    assert gaps(record) == []
    record.list_short(time.time() + PILE_SECONDS)
    record.list_short(time.time() + PILE_SECONDS)
    assert [item["duration"]["estimate"] for item in gaps(record)] == listed
    assert {item["cause"] for item in gaps(record)} <= {"stall"}
    record.stalled(0.1)
    record.list_short(time.time() + PILE_SECONDS)
    assert len(gaps(record)) == len(listed)


def test_what_a_cgroup_was_throttled_meanwhile_is_that_and_the_rest_a_stall(tmp_path: Path) -> None:
    path = tmp_path / "cpu.stat"
    record = Record([stream(1)], OURSELVES)
    record.throttling = throttled_by(path, 100.0)  # before us: not ours
    record.stalled(0.2)
    assert counted(record) == {"stall": 0.2}
    path.write_text("throttled_usec 100150000\n")
    record.stalled(0.2)
    assert counted(record) == pytest.approx({"stall": 0.25, "throttled": 0.15})
    path.write_text("throttled_usec 110000000\n")  # several CPUs are added up: never more than the stall
    record.stalled(2.0)
    assert counted(record) == pytest.approx({"stall": 0.25, "throttled": 2.15})
    assert [item["cause"] for item in gaps(record)] == ["throttled"]


@given(st.lists(st.tuples(st.floats(GAP, 30.0), st.floats(0.0, 60.0)), max_size=10))
def test_every_second_of_a_stall_has_one_reason(stalls: list[tuple[float, float]]) -> None:
    class Fake(Throttling):
        def __init__(self) -> None:
            self.next = 0.0

        def grown(self) -> float:
            return self.next

    record = Record([stream(1)], OURSELVES)
    record.throttling = fake = Fake()
    for seconds, grown in stalls:
        fake.next = grown
        record.stalled(seconds)
    assert sum(record.gaps.values()) == pytest.approx(record.stall_seconds)
    assert all(seconds >= 0 for seconds in record.gaps.values())


# --- the machine sleeps


@asynccontextmanager
async def sleeper(*streams: Any) -> Any:
    """A record whose engine's machine sleeps as long as `slept[0]` says."""
    slept = [0.0]
    record = Record(streams, OURSELVES)
    engine = Engine(streams, OURSELVES, record, asyncio.get_running_loop(), clock=lambda: boottime() + slept[0])
    engine.start()
    try:
        yield record, slept
    finally:
        await engine.stop()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "tcp", "ws"])
def test_a_suspension_is_a_gap_of_its_length_and_no_outage(protocol: str) -> None:
    async def scenario() -> None:
        server = await healthy(protocol)
        async with sleeper(stream(server.port, protocol, prompt=QUICK)) as (record, slept):
            stats = only(record)
            await until(lambda: successes(stats) >= 3)
            before = record.gaps["stall"] + record.gaps["throttled"]
            slept[0] += 3600.0
            await until(lambda: record.gaps["suspended"])
            assert record.gaps["suspended"] == pytest.approx(3600.0, abs=0.01)
            assert record.gaps["stall"] + record.gaps["throttled"] - before < 100.0  # it is in no other book
            done = successes(stats)
            await until(lambda: successes(stats) >= done + 3)
            assert stats.now_state == "up"
            assert (stats.outages, stats.breaks, stats.frozen, failures(stats)) == (0, 0, 0, {})
            (item,) = [each for each in gaps(record) if each["cause"] == "suspended"]
            assert item["duration"]["estimate"] == pytest.approx(3600.0, abs=0.01)
        await server.close()

    run(scenario())


@pytest.mark.slow
def test_an_outage_that_was_open_when_the_machine_slept_may_have_ended_in_it() -> None:
    async def scenario() -> None:
        server = await healthy("tcp")
        async with sleeper(stream(server.port, prompt=QUICK)) as (record, slept):
            stats = only(record)
            await until(lambda: stats.now_state == "up")
            await server.close()
            await until(lambda: any(item["kind"] == "outage" for item in record.history()))
            woke = time.monotonic()
            slept[0] += 100.0
            await until(lambda: record.gaps["suspended"])
            item = next(each for each in record.history() if each["kind"] == "outage" and each["state"] != "open")
            assert (item["state"], item["end_time"], item["stall_overlap"]) == ("truncated", None, True)
            assert item["duration"]["upper"] >= 100.0
            assert item["duration"]["estimate"] < 90.0  # what was not observed is not counted
            assert stats.outages == 1
            await until(lambda: stats.now_state == "down")  # it does not answer now: that is another one
            newest = stats.current(time.monotonic())
            assert newest is not None
            assert newest.start_earliest > woke
            assert newest.upper < 90.0

    run(scenario())


@pytest.mark.slow
def test_events_after_a_suspension_are_events_of_their_own() -> None:
    async def scenario() -> None:
        server = await healthy("tcp")
        port = server.port
        async with sleeper(stream(port, prompt=QUICK)) as (record, slept):
            stats = only(record)
            for _ in range(2):
                await until(lambda: stats.now_state == "up")
                done = stats.outages + stats.breaks
                await server.close()
                await until(lambda: stats.now_state == "down")
                slept[0] += 5.0
                await until(lambda before=done: stats.outages + stats.breaks > before)  # type: ignore[misc]
                server = await healthy("tcp", port=port)
            await until(lambda: stats.now_state == "up")
            ids = [item["id"] for item in record.history() if item["kind"] != "gap"]
            assert len(ids) == len(set(ids)) >= 2
        await server.close()

    run(scenario())


def test_a_wall_clock_that_is_set_is_told_once_and_is_neither_gap_nor_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("exporters.probing.watchdog.EVERY", 0.02)
    step = [0.0]

    async def scenario() -> None:
        server = await healthy("tcp")
        streams = [stream(server.port, prompt=QUICK)]
        record = Record(streams, OURSELVES)
        loop = asyncio.get_running_loop()
        engine = Engine(streams, OURSELVES, record, loop, wall=lambda: time.time() + step[0])
        engine.start()
        stats = only(record)
        await until(lambda: stats.now_state == "up")
        for seconds in (3600.0, -3600.0):
            step[0] += seconds
            await until(lambda wanted=f"set by {seconds:+.1f}": wanted in caplog.text)  # type: ignore[misc]
        done = successes(stats)
        await until(lambda: successes(stats) >= done + 10)
        assert record.gaps["suspended"] == 0.0
        assert stats.outages == 0
        assert stats.now_state == "up"
        await engine.stop()
        await server.close()

    run(scenario())
    assert caplog.text.count("the wall clock was set") == 2


# --- a peer's node boots


def told(stats: Stats, boot: str, node: str = "n", wall: float = 1000.0) -> None:
    stats.succeeded(wall, 0.001, {"node": node, "boot_id": boot})


def test_a_peers_reboot_is_listed_once_whoever_saw_it() -> None:
    record = Record([stream(1), stream(2, "ws")], OURSELVES)
    one, two = record.stats.values()
    told(one, "a", wall=1000.0)
    told(two, "a", wall=1001.0)
    told(one, "b", wall=1090.0)
    told(two, "b", wall=1091.0)
    (item,) = gaps(record)
    assert (item["cause"], item["name"], item["stream"]) == ("peer_reboot", "there", one.spec.key)
    assert item["duration"]["estimate"] == 90.0
    assert counted(record) == {}  # it is no gap of ours


def test_another_node_behind_the_same_address_is_no_reboot() -> None:
    record = Record([stream(1)], OURSELVES)
    stats = only(record)
    for number in range(10):
        told(stats, f"boot of {number % 3}", node=f"n{number % 3}")
    assert gaps(record) == []


def test_two_nodes_of_one_name_and_liars_do_not_fill_the_history() -> None:
    record = Record([stream(1)], OURSELVES)
    stats = only(record)
    for number in range(1000):
        told(stats, str(number % 2))
    assert len(gaps(record)) == 1
    for number in range(1000):
        told(stats, str(number))
    assert len(gaps(record)) < MOST_BOOTS
    told(stats, "")
    stats.succeeded(1000.0, 0.001, {})


# --- coverage


class Past:
    """A record whose streams observe as a test says, second by second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *streams: Any) -> None:
        self.now = 1000.0
        self.record = Record(streams or (stream(1, interval=1.0),), OURSELVES)
        for module in ("record", "status", "metrics"):
            monkeypatch.setattr(f"exporters.probing.{module}.monotonic", lambda: self.now)
        for stats in self.record.stats.values():
            stats.begin(self.now)

    def go_on(self, seconds: int, sees: Callable[[int], bool] = lambda _: True) -> None:
        for second in range(seconds):
            self.now += 1.0
            if sees(second):
                for stats in self.record.stats.values():
                    stats.observed(self.now, 1.0)
            self.record.mark(self.now)

    def coverage(self) -> tuple[float | None, float | None]:
        found = self.record.status()[0]["coverage"]
        assert set(found) == {"last_15m", "since_start"}
        return found["last_15m"], found["since_start"]


def test_coverage_is_not_known_at_once_and_then_all(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    assert past.coverage() == (None, None)
    past.go_on(60)
    assert past.coverage() == (1.0, 1.0)
    past.go_on(3600)
    assert past.coverage() == (1.0, 1.0)


def test_coverage_counts_what_was_observed_in_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    past.go_on(3600, lambda second: second % 2 == 0)
    recent, ever = past.coverage()
    assert recent == pytest.approx(0.5, abs=0.01)
    assert ever == pytest.approx(0.5, abs=0.01)
    past.go_on(int(COVERAGE_WINDOW + MARK_SECONDS))
    recent, ever = past.coverage()
    assert recent == 1.0
    assert ever == pytest.approx((1800 + 910) / (3600 + 910), abs=0.01)


def test_a_restless_night_shows_as_long_as_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    past.go_on(2000)
    past.go_on(90, lambda _: False)
    past.go_on(700)
    recent, _ = past.coverage()
    assert recent == pytest.approx(0.9, abs=0.015)


def test_sleep_is_time_that_was_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    past.go_on(1000)
    past.record.suspended(1000.0)
    assert past.coverage()[1] == pytest.approx(0.5, abs=0.01)
    past.go_on(100)
    assert past.coverage()[0] == pytest.approx(0.5, abs=0.1)  # the window is as long as its marks say


@pytest.mark.parametrize(("stall", "missed"), [(0.3, 0), (1.3, 1), (2.0, 2), (2.7, 2), (5.1, 5)])
def test_what_we_stalled_is_not_observed_whether_it_cost_points_or_not(
    monkeypatch: pytest.MonkeyPatch, stall: float, missed: int
) -> None:
    past = Past(monkeypatch)
    stats = only(past.record)
    past.go_on(100)
    past.record.stalled(stall)
    past.now += missed
    stats.scheduled(0.0, missed)
    past.go_on(100)
    assert stats.observed_seconds == pytest.approx(200 + missed - stall)


def test_a_point_never_stands_for_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    past.record.stalled(50.0)  # what was under way is decided before the points that were missed are known
    past.go_on(1)
    assert only(past.record).observed_seconds == 0.0
    past.go_on(1)
    assert only(past.record).observed_seconds == 1.0


def test_clearing_begins_the_long_count_anew_and_not_the_recent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    past.go_on(400, lambda _: False)
    past.record.clear(time.time())
    past.go_on(400)
    recent, ever = past.coverage()
    assert ever == 1.0
    assert recent == pytest.approx(0.5, abs=0.01)


def test_a_path_is_covered_as_its_least_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch, stream(1, interval=1.0), stream(2, interval=1.0, target="b"), stream(3, path="pod"))
    first = next(iter(past.record.stats.values()))
    for _ in range(600):
        past.go_on(1, lambda _: False)
        first.observed(past.now, 1.0)
    families = {family.name: family for family in past.record.collect()}
    found = {each.labels["path"]: each.value for each in families["ovnwatch_coverage_ratio"].samples}
    assert found == {"service": 0.0, "pod": 0.0}


def test_a_stream_added_later_is_measured_since_then(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(monkeypatch)
    past.go_on(2000, lambda _: False)
    past.record.add(stream(9, target="late", interval=1.0))
    late = past.record.stats["here|late|service|tcp|4"]
    late.begin(past.now)
    past.go_on(100)
    assert past.record.status()[1]["coverage"] == {"last_15m": 1.0, "since_start": 1.0}
    past.go_on(2000)
    assert past.record.status()[1]["coverage"] == {"last_15m": 1.0, "since_start": 1.0}


def test_a_name_still_being_looked_up_skips_its_points() -> None:
    record = Record([stream(1)], OURSELVES)
    only(record).unresolved()
    assert record.skipped == {"late": 0, "unresolved": 1}
    assert counted(record) == {}  # it is the stream's own coverage that it lowers
    assert set(record.gaps) == set(GAPS)
