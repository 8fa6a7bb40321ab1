"""Over restarts: what a record told before it is killed is what the next one goes on from."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from box import OURSELVES, only, run, stream, telling, until
from prometheus_client import CollectorRegistry
from servers import healthy
from test_record import begin, end, event, happen, the_stream

from exporters import journal as journals
from exporters import times
from exporters.journal import Journal
from exporters.probing.engine import Engine
from exporters.probing.outage import Counted
from exporters.probing.record import Record
from exporters.probing.saved import COUNTERS
from exporters.probing.stats import LATELY, Stats
from exporters.settings import Stream

SPEC = stream(1)


class Life:
    """One process' worth of a record; killed, not closed: what nobody waited for may be lost."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)
        self.record = Record([SPEC], OURSELVES, journal=self.journal)

    @property
    def stats(self) -> Stats:
        return the_stream(self.record)

    def kill(self) -> None:
        assert self.journal._lock is not None
        self.journal._closed = True  # no transaction begins any more
        self.journal._thread.shutdown(wait=True)
        self.journal._base.close()
        self.journal._lock.close()

    def samples(self) -> dict[tuple[str, str], float]:
        registry = CollectorRegistry()
        registry.register(self.record)
        rising = ("_total", "_bucket", "_count", "_sum")
        return {
            (sample.name, json.dumps(sample.labels)): sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name.endswith(rising)
        }


def lives(path: Path, *scenes: Callable[[Life], Any]) -> None:
    """Each scene in a process of its own, which is killed at its end."""

    async def scenario() -> None:
        for scene in scenes:
            life = Life(path)
            try:
                done = scene(life)
                if done is not None:
                    await done
            finally:
                life.kill()

    run(scenario())


def told(life: Life) -> list[tuple[str, str]]:
    return [(item["kind"], item["state"]) for item in life.record.history()]


def test_every_counter_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    before: dict[tuple[str, str], float] = {}

    async def first(life: Life) -> None:
        for name in COUNTERS:
            setattr(life.stats, name, type(getattr(life.stats, name))(7))
        life.stats.shape.failures["refused"] = 3
        life.stats.shape.unknown["memory"] = 2
        life.stats.succeeded(1.0, 0.004, {})
        life.record.skipped["late"] = 5
        life.record.stalled(0.5)
        life.stats.scheduled(0.1, 1)
        for number, kind in enumerate(("outage", "blip", "frozen", "break")):
            happen(life.stats, number, kind)
        before.update(life.samples())
        await life.record.save()

    def second(life: Life) -> None:
        after = life.samples()
        rising = {key: value for key, value in before.items() if "restart" not in key[1]}
        assert {key: after[key] for key in rising} == rising
        assert life.stats.last_outage is not None

    lives(tmp_path / "j.db", first, second)


async def nothing_more(life: Life) -> None:
    """Wait until the journal has what was put, without the counters being saved."""
    for _ in range(1000):
        if life.journal.served == life.journal.seq:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("never written")


def test_an_outage_after_the_counters_were_saved_is_counted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "SAVE_SECONDS", 1e9)

    async def first(life: Life) -> None:
        happen(life.stats, 1)
        await life.record.save()
        happen(life.stats, 2)
        happen(life.stats, 3, "break")
        await nothing_more(life)

    async def second(life: Life) -> None:
        await life.record.save()
        assert (life.stats.outages, life.stats.breaks) == (2, 1)
        assert life.stats.outage_seconds == pytest.approx(4.0)
        assert (
            life.samples()[
                "ovnwatch_outage_duration_seconds_count",
                json.dumps({"source": "here", "path": "service", "protocol": "tcp"}),
            ]
            == 2
        )
        assert told(life) == [("outage", "closed"), ("outage", "closed"), ("break", "closed"), ("gap", "closed")]

    lives(tmp_path / "j.db", first, second)


def test_what_was_open_is_truncated_counts_once_and_its_bounds_reach_to_the_restart(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        begin(life.stats, 1)
        life.stats.counted(Counted("path", 1.5))
        await life.record.save()

    async def second(life: Life) -> None:
        await life.record.save()
        item, gap = life.record.history()
        assert (item["kind"], item["state"], gap["kind"], gap["cause"]) == ("outage", "truncated", "gap", "restart")
        assert item["end"] == {"earliest": None, "latest": None}
        length = item["duration"]
        assert (length["lower"], length["estimate"]) == (1.8, 2.0)
        assert length["upper"] >= 3.1  # it may have lasted until now
        assert life.stats.outages == 1
        assert life.stats.outage_seconds == pytest.approx(2.0)  # 1.5 of it had been counted

    async def third(life: Life) -> None:
        await life.record.save()
        assert life.stats.outages == 1
        assert life.stats.outage_seconds == pytest.approx(2.0)
        assert told(life) == [("outage", "truncated"), ("gap", "closed"), ("gap", "closed")]

    lives(tmp_path / "j.db", first, second, third)


def test_what_was_counted_of_an_open_one_is_as_old_as_the_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "SAVE_SECONDS", 1e9)

    async def first(life: Life) -> None:
        begin(life.stats, 1)
        life.stats.counted(Counted("path", 0.5))
        await life.record.save()
        life.stats.counted(Counted("path", 0.75))
        begin(life.stats, 2)  # its counters are beside it: they have more of the first than was saved
        await nothing_more(life)

    async def second(life: Life) -> None:
        assert life.stats.outages == 2
        assert life.stats.outage_seconds == pytest.approx(4.0)
        await life.record.save()
        assert [item["duration"]["estimate"] for item in life.record.history()[:2]] == [2.0, 2.0]

    lives(tmp_path / "j.db", first, second)


def test_what_the_machine_slept_through_is_counted_once_and_what_comes_after_it_too(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        begin(life.stats, 9)
        life.stats.counted(Counted("path", 0.5))
        life.stats.cut(100.0)
        begin(life.stats, 1)  # numbers begin anew
        life.stats.counted(Counted("path", 1.5))
        await life.record.save()

    async def second(life: Life) -> None:
        await life.record.save()
        assert life.stats.outages == 2
        assert life.stats.outage_seconds == pytest.approx(4.0)
        assert [item["duration"]["estimate"] for item in life.record.history()[:2]] == [2.0, 2.0]

    lives(tmp_path / "j.db", first, second)


@contextlib.asynccontextmanager
async def saving(life: Life) -> AsyncIterator[None]:
    """What is done in it happens between the beginning of a save and the moment in which counters are taken."""
    taking, taken = asyncio.Event(), asyncio.Event()

    async def snapshot() -> bytes:
        taking.set()
        await taken.wait()
        return await life.record.snapshot()

    life.journal.snapshot = snapshot
    saved = asyncio.create_task(life.record.save())
    await until(taking.is_set)
    yield
    taken.set()
    await saved


def test_an_event_that_came_while_the_counters_were_taken_is_as_they_have_it(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        async with saving(life):
            begin(life.stats, 1)
            life.stats.counted(Counted("path", 0.5))

    async def second(life: Life) -> None:
        assert life.stats.outages == 1
        assert life.stats.outage_seconds == pytest.approx(2.0)

    lives(tmp_path / "j.db", first, second)


def test_a_gap_that_came_while_the_counters_were_taken_is_counted_once(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        async with saving(life):
            life.record.suspended(30.0)
        life.record.suspended(7.0)
        await until(lambda: life.journal.served == life.record.seq)

    def second(life: Life) -> None:
        assert life.record.gaps["suspended"] == pytest.approx(37.0)

    lives(tmp_path / "j.db", first, second)


def test_an_estimate_is_not_below_what_was_counted(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        begin(life.stats, 1)
        life.stats.counted(Counted("path", 2.5))
        await life.record.save()

    async def second(life: Life) -> None:
        await life.record.save()
        length = life.record.history()[0]["duration"]
        assert length["estimate"] == life.stats.outage_seconds == 2.5
        assert length["upper"] >= 2.5

    lives(tmp_path / "j.db", first, second)


def test_starts_that_end_before_they_can_save_are_one_gap_after_another(tmp_path: Path) -> None:
    async def begun(life: Life) -> None:
        life.record.journal = None  # the journal alone goes on: events enter it, counters do not
        for _ in range(1000):
            if life.journal.served == life.journal.seq:
                break
            await asyncio.sleep(0.005)

    async def last(life: Life) -> None:
        await life.record.save()
        gaps = [item for item in life.record.history() if item["kind"] == "gap"]
        assert len(gaps) == 3
        assert [gap["end_time"] <= after["start_time"] for gap, after in pairwise(gaps)] == [True, True]
        assert life.record.gaps["restart"] == pytest.approx(sum(gap["duration"]["estimate"] for gap in gaps))

    async def first(life: Life) -> None:
        await life.record.save()

    lives(tmp_path / "j.db", first, begun, begun, last)


def test_events_without_counters_show_the_restart_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(life: Life) -> None:
        happen(life.stats, 1)
        await nothing_more(life)

    async def second(life: Life) -> None:
        await life.record.save()
        assert told(life) == [("outage", "closed"), ("gap", "closed")]

    monkeypatch.setattr(journals, "SAVE_SECONDS", 1e12)
    lives(tmp_path / "j.db", first, second)


def test_nothing_is_listed_before_the_journal_has_it(tmp_path: Path) -> None:
    async def scene(life: Life) -> None:
        happen(life.stats, 1)
        assert life.record.history() == []
        await life.record.save()
        (item,) = life.record.history()
        ((seq, text),) = await life.record.find(0, 10, {}, cleared=False)
        assert (seq, json.loads(text)) == (item["seq"], item)

    lives(tmp_path / "j.db", scene)


def test_an_open_event_is_found_as_it_stands_now(tmp_path: Path) -> None:
    async def scene(life: Life) -> None:
        begin(life.stats, 1)
        life.stats.unfinished = lambda _: [event(1, estimate=77.0, upper=80.0)]
        await life.record.save()
        ((_, text),) = await life.record.find(
            0, 10, {"state": "open", "target": "there", "path": "service"}, cleared=False
        )
        assert json.loads(text)["duration"]["estimate"] == 77.0

    lives(tmp_path / "j.db", scene)


def test_a_clearing_outlasts_a_restart_and_what_it_hides_can_be_asked_for(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        happen(life.stats, 1)
        life.record.clear(1e9)
        happen(life.stats, 2)
        await life.record.save()

    async def second(life: Life) -> None:
        await life.record.save()
        assert told(life) == [("outage", "closed"), ("gap", "closed")]
        kinds = [json.loads(text)["kind"] for _, text in await life.record.find(0, 10, {}, cleared=True)]
        assert kinds == ["outage", "window", "outage", "gap"]
        assert len(await life.record.find(0, 10, {}, cleared=False)) == 2

    lives(tmp_path / "j.db", first, second)


def test_ids_of_two_runs_differ_and_numbers_go_on(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []

    async def scene(life: Life) -> None:
        happen(life.stats, 1)
        await life.record.save()
        seen.extend((item["seq"], item["id"]) for item in life.record.history()[-1:])

    lives(tmp_path / "j.db", scene, scene, scene)
    assert len({key for _, key in seen}) == 3
    assert [seq for seq, _ in seen] == sorted(seq for seq, _ in seen)


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x93\x01\x02\x03", b'{"streams": 1}'])
def test_counters_that_cannot_be_read_begin_at_0(tmp_path: Path, value: bytes) -> None:
    async def first(life: Life) -> None:
        life.journal.snapshot = telling(lambda: value)
        await life.record.save()

    def second(life: Life) -> None:
        assert (life.stats.probes, life.stats.outages) == (0, 0)

    lives(tmp_path / "j.db", first, second)


@contextlib.asynccontextmanager
async def probed(path: Path, spec: Stream) -> AsyncIterator[tuple[Record, Stats]]:
    """A stream, probed by a process of its own: its record and its stats."""
    journal = Journal(path)
    record = Record([spec], OURSELVES, journal=journal)
    engine = Engine([spec], OURSELVES, record, asyncio.get_running_loop())
    engine.start()
    try:
        yield record, only(record)
        await record.save()
    finally:
        await engine.stop()
        await journal.close()


@pytest.mark.slow
@pytest.mark.parametrize("began", ["before the restart", "during it"])
def test_what_is_out_after_a_restart_is_out_and_not_unknown(tmp_path: Path, began: str) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        server = await healthy("tcp")
        spec = stream(server.port)
        async with probed(path, spec) as (_, stats):
            await until(lambda: stats.now_state == "up" and stats.probes > 3)
            if began == "before the restart":
                await server.close()
                await until(lambda: stats.now_state == "down")
        ended = time.time()
        if began == "during it":
            await server.close()
        async with probed(path, spec) as (record, stats):
            await until(lambda: stats.now_state == "down")
            server = await healthy("tcp", port=spec.port)
            await until(lambda: stats.now_state == "up")
            await until(lambda: not record.troubled)
            await record.save()
            told = [item for item in record.history() if item["kind"] in ("outage", "blip")]
            earlier, last = told[:-1], told[-1]
            assert [item["state"] for item in earlier] == (["truncated"] if began == "before the restart" else [])
            assert stats.outages == len(told)
            assert last["state"] == "closed"
            begin = times.seconds(last["start"]["earliest"])
            # What was told already is not told again; what began while nobody looked may be as old as the last answer.
            assert (begin > ended) == bool(earlier)
        await server.close()

    run(scenario())


def test_what_was_not_reached_for_days_is_as_unknown_as_what_never_was(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        life.stats.reached = life.stats.last_success = time.time() - 2 * LATELY
        await life.record.save()

    def second(life: Life) -> None:
        life.stats.begin(time.monotonic())
        assert life.stats.reached_before(time.monotonic()) is None
        assert life.stats.last_success == 0.0  # so that it is told of as never reached
        assert life.stats.reached == 0.0

    lives(tmp_path / "j.db", first, second)


def test_since_when_a_target_is_known_is_known_after_a_restart(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        life.stats.reached, life.stats.last_success = 1000.0, time.time()
        await life.record.save()

    def second(life: Life) -> None:
        life.stats.begin(time.monotonic())
        life.stats.succeeded(time.time(), 0.001, {})
        assert life.stats.reached == 1000.0

    lives(tmp_path / "j.db", first, second)


def test_a_stream_that_is_no_longer_probed_keeps_its_history(tmp_path: Path) -> None:
    async def first(life: Life) -> None:
        begin(life.stats, 1)
        await life.record.save()

    lives(tmp_path / "j.db", first)

    async def second() -> None:
        journal = Journal(tmp_path / "j.db")
        record = Record([stream(1, target="other")], OURSELVES, journal=journal)
        await record.save()
        assert [(item["name"], item["state"]) for item in record.history()] == [
            ("there", "truncated"),
            ("here", "closed"),
        ]
        assert len(await record.find(0, 10, {"target": "there", "path": "service"}, cleared=True)) == 1
        await journal.close()

    run(second())


def test_ending_an_event_twice_is_impossible(tmp_path: Path) -> None:
    """An event that ends and one that was truncated have different ids, however alike their numbers are."""

    async def first(life: Life) -> None:
        begin(life.stats, 1)
        await life.record.save()

    async def second(life: Life) -> None:
        begin(life.stats, 1)
        end(life.stats, 1)
        await life.record.save()
        assert told(life) == [("outage", "truncated"), ("gap", "closed"), ("outage", "closed")]
        assert life.stats.outages == 2

    lives(tmp_path / "j.db", first, second)
