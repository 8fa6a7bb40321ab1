"""The journal: what was put survives a crash; bad files are set aside; a disk that takes nothing loses nothing."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from box import run, telling, until
from running import disk, fill

from exporters import journal as journals
from exporters.journal import (
    APPLICATION,
    MOST_WAITING,
    VERSION,
    Journal,
    JournalError,
    ReadError,
    Row,
    about,
    file_name,
    read_only,
)


def row(seq: int, key: str = "", *, state: str = "closed", **changes: Any) -> Row:
    key = key or f"e{seq}"
    item = json.dumps({"seq": seq, "id": key, "state": state})
    plain = Row(seq, key, "outage", state, f"a|b{seq % 2}|pod|tcp|4", f"b{seq % 2}", "pod", time.time(), item)
    return plain._replace(**changes)


def reopened(path: Path | None) -> list[Row]:
    """What a process finds that opens the file next."""

    async def scenario() -> list[Row]:
        journal = Journal(path)
        try:
            return journal.rows()
        finally:
            await journal.close()

    return run(scenario())


def using(path: Path | None, work: Callable[[Journal], Coroutine[Any, Any, None]]) -> Journal:
    """Do some work with a journal, then close it."""

    async def scenario() -> Journal:
        journal = Journal(path)
        try:
            await work(journal)
        finally:
            await journal.close()
        return journal

    return run(scenario())


# --- what is kept


@pytest.mark.parametrize("path", ["j.db", None])
def test_what_was_put_is_served_once_it_is_kept_and_found_by_what_it_is(tmp_path: Path, path: str | None) -> None:
    async def work(journal: Journal) -> None:
        assert (journal.seq, journal.served) == (0, 0)
        for seq in range(1, 7):
            journal.put(row(seq, kind="blip" if seq == 4 else "outage"))
        assert (journal.seq, journal.served) == (6, 0)
        await journal.save()
        assert journal.served == 6
        assert [seq for seq, _, _ in await journal.find(0, 10, {})] == [1, 2, 3, 4, 5, 6]
        assert [seq for seq, _, _ in await journal.find(2, 2, {})] == [3, 4]
        assert [key for _, key, _ in await journal.find(0, 10, {"target": "b1", "kind": "outage"})] == [
            "e1",
            "e3",
            "e5",
        ]
        assert await journal.find(0, 10, {"path": "'; DROP TABLE events; --"}) == []
        assert [json.loads(item)["seq"] for _, _, item in await journal.find(0, 10, {}, hidden=5)] == [6]

    using(tmp_path / path if path else None, work)


def test_a_change_takes_the_place_of_what_it_changes_with_a_number_of_its_own(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.put(row(1, "x", state="open"))
        journal.put(row(2, "y", state="open"))
        await journal.save()
        journal.put(row(3, "x"))
        await journal.save()
        assert [(seq, key) for seq, key, _ in await journal.find(0, 10, {})] == [(2, "y"), (3, "x")]
        assert [key for _, key, _ in await journal.find(0, 10, {}, hidden=3)] == ["y"]  # open, whatever is hidden

    using(tmp_path / "j.db", work)
    assert [(each.seq, each.id, each.state) for each in reopened(tmp_path / "j.db")] == [
        (2, "y", "open"),
        (3, "x", "closed"),
    ]


def test_numbers_and_name_go_on_where_they_were_and_each_run_has_its_own(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.put(row(journal.seq + 1))

    first, second = (using(tmp_path / "j.db", work) for _ in range(2))
    assert first.id == second.id
    assert (first.run, second.run) == (1, 2)
    assert [each.seq for each in reopened(tmp_path / "j.db")] == [1, 2]


def test_counters_are_saved_with_the_next_transaction_and_only_when_somebody_waits(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        taken = iter(range(100))
        journal.snapshot = telling(lambda: b"%d" % next(taken))
        await journal.save()
        journal.put(row(1))
        journal.put(row(2))
        await until(lambda: journal.served == 2)
        assert next(taken) == 1  # one asked so far
        await asyncio.gather(*(journal.save() for _ in range(50)))
        assert next(taken) <= 4  # those that wait at one time share

    before = time.time()
    using(tmp_path / "j.db", work)

    async def look() -> None:
        journal = Journal(tmp_path / "j.db")
        saved = journal.saved()
        assert saved is not None
        assert (saved.seq, int(saved.value) > 1) == (2, True)
        assert before <= saved.at <= time.time()
        await journal.close()

    run(look())


def test_an_event_that_comes_while_the_counters_are_taken_is_in_the_same_transaction(tmp_path: Path) -> None:
    """Else the counters had it and the journal would, after a crash, have it open: it would be counted twice."""

    async def work(journal: Journal) -> None:
        taking, taken = asyncio.Event(), asyncio.Event()

        async def snapshot() -> bytes:
            taking.set()
            await taken.wait()
            return b"counters"

        journal.put(row(1))
        await until(lambda: journal.served == 1)
        journal.snapshot = snapshot
        saving = asyncio.create_task(journal.save())
        await until(taking.is_set)
        journal.put(row(2))
        taken.set()
        await saving
        assert journal.served == 2
        saved = journal.saved()
        assert saved is not None
        assert saved.seq == 1  # the counters may lack it: those beside it count
        journal.snapshot = telling(bytes)

    using(tmp_path / "j.db", work)


def test_who_closes_while_the_counters_are_taken_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "WAIT_SECONDS", 0.3)

    async def work(journal: Journal) -> None:
        async def snapshot() -> bytes:
            await asyncio.sleep(0.4)
            return b"counters"

        journal.snapshot = snapshot
        saving = asyncio.create_task(journal.save())
        await asyncio.sleep(0)
        journal.put(row(1))
        await saving

    using(tmp_path / "j.db", work)
    assert [each.seq for each in reopened(tmp_path / "j.db")] == [1]


def test_what_is_put_in_one_go_is_one_transaction(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        taken: list[int] = []
        write = journal._write

        def noted(now: float, seq: int, value: bytes) -> tuple[Sequence[Row], str]:
            taken.append(len(journal._waiting))
            return write(now, seq, value)

        journal._write = noted  # type: ignore[method-assign]
        for seq in range(1, 4):
            journal.put(row(seq))
            time.sleep(0.02)  # noqa: ASYNC251 - the thread would have its turn
        await until(lambda: journal.served == 3)
        assert taken == [3]

    using(tmp_path / "j.db", work)


def test_who_is_cancelled_while_a_save_gets_through_is_cancelled(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        saving = asyncio.create_task(journal.save())
        await asyncio.sleep(0)
        assert journal._turn is not None
        journal._turn.add_done_callback(lambda _: saving.cancel())
        await asyncio.wait([saving])
        assert saving.cancelled()

    using(tmp_path / "j.db", work)


def test_numbers_do_not_come_again_when_all_events_are_gone(tmp_path: Path) -> None:
    async def old(journal: Journal) -> None:
        journal.snapshot = telling(lambda: b"counters")
        for seq in range(1, 4):
            journal.put(row(seq, at=time.time() - 31 * 86400))
        await journal.save()
        journal._tidied = 0.0

    async def new(journal: Journal) -> None:
        assert journal.rows() == []
        assert (journal.seq, journal.served) == (3, 3)

    using(tmp_path / "j.db", old)
    using(tmp_path / "j.db", new)


def test_old_events_go_and_open_ones_stay(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        old = time.time() - 31 * 86400
        for each in (row(1, at=old), row(2, state="open", at=old), row(3)):
            journal.put(each)
        await journal.save()
        journal._tidied = 0.0
        await journal.save()

    using(tmp_path / "j.db", work)
    assert [each.seq for each in reopened(tmp_path / "j.db")] == [2, 3]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_WAITING", 50)

    async def work(journal: Journal) -> None:
        for seq in range(1, 301):
            journal.put(row(seq))
            await journal.save()
        assert len(await journal.find(0, 1000, {})) <= 52

    using(None, work)
    assert MOST_WAITING > 50


# --- whose it is, and what it is


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    async def work(_: Journal) -> None:
        with pytest.raises(
            JournalError, match=f"j.db is in use by process {os.getpid()}; give this one another source"
        ):
            Journal(tmp_path / "j.db")

    using(tmp_path / "j.db", work)
    assert reopened(tmp_path / "j.db") == []


def of_version(path: Path, version: int, application: int) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE events (seq)")
        base.execute(f"PRAGMA application_id = {application}")
        base.execute(f"PRAGMA user_version = {version}")
    base.close()


BAD: dict[str, Callable[[Path], object]] = {
    "newer": lambda path: of_version(path, VERSION + 1, APPLICATION),
    "foreign": lambda path: of_version(path, 0, 0),
    "corrupt": lambda path: path.write_bytes(b"no database at all, but as long as the head of one would be" * 100),
}


@pytest.mark.parametrize("word", BAD)
def test_a_file_that_is_none_of_ours_is_set_aside_and_said(
    tmp_path: Path, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.db"
    BAD[word](path)
    kept = path.read_bytes()

    async def work(journal: Journal) -> None:
        journal.put(row(1))

    using(path, work)
    (aside,) = tmp_path.glob(f"j.db.{word}-*")
    assert aside.read_bytes() == kept
    assert [each.seq for each in reopened(path)] == [1]
    assert str(aside) in caplog.text


def test_pages_that_went_bad_are_found_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def work(journal: Journal) -> None:
        for seq in range(1, 500):
            journal.put(row(seq))

    using(path, work)
    data = bytearray(path.read_bytes())
    data[4096:12288] = os.urandom(8192)
    path.write_bytes(data)
    assert reopened(path) == []
    assert len(list(tmp_path.glob("j.db.corrupt-*"))) == 1


@pytest.mark.parametrize("source", ["node-1", "node-1.example.com", "böse", "../../etc/passwd", "a/b"])
def test_any_source_has_a_file_name_within_the_folder(tmp_path: Path, source: str) -> None:
    assert (tmp_path / file_name("peer", source)).parent == tmp_path


def test_it_can_be_read_beside_its_owner(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()
        assert [each.seq for each in read_only(tmp_path / "j.db")] == [1]

    using(tmp_path / "j.db", work)
    with pytest.raises(JournalError, match=r"no\.db: there is no such file"):
        list(read_only(tmp_path / "no.db"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(JournalError, match="text: file is not a database"):
        list(read_only(tmp_path / "text"))


@pytest.mark.needs_root("mount")
def test_a_copy_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()

    using(tmp_path / "j.db", work)
    with disk(tmp_path / "archive", "1m") as archive:
        shutil.copy(tmp_path / "j.db", archive)
        subprocess.run(["mount", "-o", "remount,ro", archive], check=True)
        assert [each.seq for each in read_only(archive / "j.db")] == [1]


# --- disks that take nothing


class Full:
    """Stands for a disk: while `full`, no transaction gets through."""

    def __init__(self, journal: Journal) -> None:
        self.limit(journal, pages=1)

    @staticmethod
    def limit(journal: Journal, pages: int) -> None:
        """SQLite itself says that the disk is full where a file would have more pages."""
        journal._base.execute(f"PRAGMA max_page_count = {pages}")


def test_while_the_disk_is_full_events_wait_are_served_and_enter_it_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.01)

    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()
        Full.limit(journal, 1)
        for seq in range(2, 400):  # more than the pages at hand take
            journal.put(row(seq, "same" if seq % 100 == 0 else ""))
        await until(lambda: journal.errors > 2)
        assert "full" in journal.trouble
        assert journal.served == 399
        found = [seq for seq, _, _ in await journal.find(0, 1000, {})]
        assert found == sorted({*range(1, 400)} - {100, 200})
        await journal.save()  # a scrape does not wait for it
        Full.limit(journal, 1_000_000)
        await until(lambda: not journal.trouble)
        assert len(await journal.find(0, 1000, {})) == 397

    using(tmp_path / "j.db", work)
    assert len(reopened(tmp_path / "j.db")) == 397
    assert caplog.text.count("database or disk is full") == 1
    assert "takes events again" in caplog.text


def test_a_folder_that_cannot_be_made_leaves_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")

    async def work(journal: Journal) -> None:
        assert journal.errors == 1
        journal.put(row(1))
        await journal.save()
        assert [seq for seq, _, _ in await journal.find(0, 10, {})] == [1]
        await until(lambda: journal.errors == 2)
        await journal.save()
        await until(lambda: journal.errors == 3)  # one error before the first scrape would be no alert
        assert "exists" in journal.trouble
        assert [seq for seq, _, _ in await journal.find(0, 10, {})] == [1]
        assert journal.served == 1

    using(tmp_path / "file" / "j.db", work)
    assert "events are kept in memory until the next start" in caplog.text


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """No transaction gets through, nor fails: SQLite waits for a lock that another connection has."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_while_a_transaction_hangs_reads_answer_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "WAIT_SECONDS", 0.3)

    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()
        journal._base.execute("PRAGMA busy_timeout = 600000")
        with hanging(tmp_path / "j.db"):
            journal.put(row(2))
            began = time.monotonic()
            assert [seq for seq, _, _ in await journal.find(0, 10, {})] == [1]  # not in the file: not told
            print(f"read beside a transaction that hangs in {time.monotonic() - began:.3f} s")
            await until(lambda: journal.errors >= 2)  # it is told as long as it lasts
            assert journal.trouble == "a transaction takes longer than 0.3 s"
            journal.put(row(3))
            assert journal.served == 3
            assert [seq for seq, _, _ in await journal.find(0, 10, {})] == [1, 2, 3]
            await journal.save()  # a scrape does not wait for it
        await until(lambda: not journal.trouble and journal.served == 3)

    using(tmp_path / "j.db", work)
    assert [each.seq for each in reopened(tmp_path / "j.db")] == [1, 2, 3]
    assert caplog.text.count("takes longer than") == 1
    assert "takes events again" in caplog.text


def test_a_stop_of_our_own_is_no_trouble_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "WAIT_SECONDS", 0.3)

    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()
        journal._base.execute("PRAGMA busy_timeout = 600000")
        with hanging(tmp_path / "j.db"):
            journal.put(row(2))
            await asyncio.sleep(0.01)  # its transaction has begun
            time.sleep(0.3 + 2 * journals.LATE_SECONDS)  # noqa: ASYNC251 - as if stopped
        await until(lambda: journal.served == 2)
        assert journal.errors == 0

    using(tmp_path / "j.db", work)


def test_what_enters_the_file_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited when the reading began and does no more when that ends: it is in neither, if one looks then."""
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.01)

    async def work(journal: Journal) -> None:
        read = journal._read

        async def slow(query: str, arguments: Sequence[Any]) -> list[tuple[int, str, str]]:
            found = await read(query, arguments)
            Full.limit(journal, 1_000_000)
            await until(lambda: not journal.trouble)
            return found

        journal.put(row(1, "a", state="open"))
        await journal.save()
        Full.limit(journal, 1)
        for seq in range(2, 200):  # more than the pages at hand take
            journal.put(row(seq))
        await until(lambda: journal.trouble)
        journal._read = slow  # type: ignore[method-assign]
        assert [seq for seq, _, _ in await journal.find(0, 1000, {})] == list(range(1, 200))

    using(tmp_path / "j.db", work)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*), '', '' FROM n"


def test_a_read_that_takes_too_long_is_ended_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "WAIT_SECONDS", 0.3)

    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()
        with pytest.raises(ReadError, match=r"not read in 0\.3 s"):
            await journal._read(ENDLESS, ())
        assert journal._stuck is not None
        await until(journal._stuck.done)
        assert [seq for seq, _, _ in await journal.find(0, 10, {})] == [1]
        with pytest.raises(ReadError, match="no such table"):
            await journal._read("SELECT * FROM nowhere", ())

    using(tmp_path / "j.db", work)


def test_while_reads_hang_nobody_waits_for_them_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "WAIT_SECONDS", 0.3)

    async def work(journal: Journal) -> None:
        mended = threading.Event()

        def wait() -> int:
            assert mended.wait(30)
            return 1

        journal._reading.create_function("wait", 0, wait)
        for expected in ("not read in", "does not answer"):
            with pytest.raises(ReadError, match=expected):
                await journal._read("SELECT wait(), '', ''", ())
        mended.set()
        assert journal._stuck is not None
        await until(journal._stuck.done)
        assert await journal.find(0, 10, {}) == []

    using(tmp_path / "j.db", work)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "disk", "512k") as folder:
        yield folder


@pytest.mark.needs_root("mount")
def test_a_disk_that_is_really_full_and_then_is_not(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.01)
    filler = small_disk / "filler"

    async def work(journal: Journal) -> None:
        journal.put(row(1))
        await journal.save()
        fill(small_disk)
        for seq in range(2, 300):
            journal.put(row(seq))
        await until(lambda: journal.errors > 2)
        assert journal.served == 299
        filler.unlink()
        await until(lambda: not journal.trouble)

    using(small_disk / "j.db", work)
    assert [each.seq for each in reopened(small_disk / "j.db")] == list(range(1, 300))


FILLS = """
import asyncio, os, sys
from pathlib import Path
from exporters.journal import Journal
from running import fill
from box import telling
from test_journal import row

async def main():
    journal = Journal(Path(sys.argv[1]))
    journal.put(row(1))
    await journal.save()
    fill(Path(sys.argv[1]).parent)
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.needs_root("mount")
def test_a_disk_that_is_full_after_a_crash_keeps_nobody_from_starting(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "RETRY_SECONDS", 0.01)
    subprocess.run([sys.executable, "-c", FILLS, small_disk / "j.db"], check=True, cwd=Path(__file__).parent)

    async def work(journal: Journal) -> None:
        assert "full" in journal.trouble
        assert (journal.run, journal.seq, journal.errors) == (2, 1, 1)
        journal.put(row(2))
        assert journal.served == 2
        (small_disk / "filler").unlink()
        await until(lambda: not journal.trouble)

    using(small_disk / "j.db", work)
    assert [each.seq for each in reopened(small_disk / "j.db")] == [1, 2]
    assert about(small_disk / "j.db").run == 3


# --- crashes

WRITER = """
import asyncio, sys
from pathlib import Path
from exporters.journal import Journal
from box import telling
from test_journal import row

async def main():
    journal = Journal(Path(sys.argv[1]))
    seq = journal.seq
    journal.snapshot = telling(lambda: b"%d" % seq)
    for _ in range(100_000):
        seq += 1
        journal.put(row(seq))
        if seq % 3 == 0:
            await journal.save()
        else:
            await asyncio.sleep(0)
        print(journal.served, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_what_was_served_is_there_after_a_sigkill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    for turn in range(8):
        log = tmp_path / f"log-{turn}"
        with log.open("wb") as out:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=out, cwd=Path(__file__).parent)
        deadline = time.monotonic() + 60
        while log.stat().st_size < 200 + 37 * turn and time.monotonic() < deadline:
            time.sleep(0.003)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        told = [int(line) for line in log.read_text().split("\n")[:-1]]
        kept = [each.seq for each in reopened(path)]
        assert kept == list(range(1, len(kept) + 1))
        assert max(told) <= len(kept)
        assert max(told) > 0
