"""One exporter's events and counters in a file that survives a crash: SQLite, one writer, nothing on the event loop.

1. An event is in the file before it is served (`served` says up to which `seq`); counters are, before a scrape is.
2. One thread writes, in transactions that take whatever has gathered; SQLite syncs each (synchronous=FULL). Another
   one reads, by a connection of its own that cannot write, so that no read waits for a write.
3. A file belongs to one process. One that is corrupt or of a newer version is set aside, never deleted.
4. A disk that takes nothing more (full, read-only, hanging) never stops measuring: events wait in memory, are served
   from there, and enter the file when it takes them again. `errors` counts what failed, `trouble` says what is wrong.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

from exporters.ends import StartError

log = logging.getLogger(__name__)

VERSION = 1  # of the tables
APPLICATION = 0x6F766E77  # "ovnw": so that no other program's file is taken for ours
MOST_WAITING = 10_000  # events kept for a disk that takes nothing; beyond it the oldest are lost to the file
RETRY_SECONDS = 1.0
WAIT_SECONDS = 2.0  # nobody waits longer for a disk that hangs; a transaction that takes longer is trouble
LATE_SECONDS = 0.5  # by which we look late: then we were stopped or starved ourselves
SAVE_SECONDS = 5.0  # nobody asks for longer: the counters are saved all the same
RETENTION_DAYS = 30
MOST_EVENTS = 1_000_000  # in a file; in memory, as many as may wait
DAY = 86400.0
TIDY_SECONDS = 3600.0

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('journal', lower(hex(randomblob(16)))), ('run', '0');
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, state TEXT NOT NULL, stream TEXT NOT NULL,
  target TEXT NOT NULL, path TEXT NOT NULL, at REAL NOT NULL, item TEXT NOT NULL, totals BLOB NOT NULL
);
CREATE INDEX events_at ON events (at);
CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, at REAL NOT NULL, value BLOB NOT NULL
);
"""
PUT = """
INSERT INTO events (seq, id, kind, state, stream, target, path, at, item, totals) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, kind = excluded.kind, state = excluded.state, at = excluded.at,
  item = excluded.item, totals = excluded.totals
"""
COUNT_RUN = "UPDATE meta SET value = ? WHERE key = 'run'"
SAVE = "INSERT OR REPLACE INTO state (one, seq, at, value) VALUES (1, ?, ?, ?)"
TIDY = "DELETE FROM events WHERE (at < ? OR seq < ?) AND state <> 'open'"


class JournalError(StartError):
    """The journal cannot be used at all; the text says why and what to do."""


class ReadError(Exception):
    """The file cannot be read now; the text says why. What waits in memory would not be the whole of it."""


class Row(NamedTuple):
    """An event as it is kept: `item` is its JSON, `at` Unix time; `totals` is the counters of its stream after it."""

    seq: int
    id: str
    kind: str
    state: str  # open, closed or truncated
    stream: str
    target: str
    path: str
    at: float
    item: str
    totals: bytes = b""


class Saved(NamedTuple):
    """The counters as they were saved last: when (Unix time), after which event, and what the caller made of them."""

    seq: int
    at: float
    value: bytes


Snapshot = Callable[[], Awaitable[bytes]]


async def _nothing() -> bytes:
    return b""


def file_name(command: str, source: str) -> str:
    """The name of an exporter's journal in its folder; a source is a DNS name or so, other characters are replaced."""
    safe = "".join(each if each.isalnum() or each in "._-" else "_" for each in source)
    return f"{command}-{safe}.db"


class Journal:
    """The journal in `path`, in memory if that is None. Raises JournalError when another process has it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.errors = 0
        self.trouble = ""
        self._refused = ""  # why the file could not be opened: trouble that lasts as long as we do
        self.lost = 0  # events the file will never have
        self.snapshot: Snapshot = _nothing  # tells the counters, packed
        self._taking: asyncio.Future[bytes] | None = None  # they are being told
        self._lock: IO[str] | None = None
        self._base, self._reading = self._open()
        self._waiting: deque[Row] = deque()
        self.most = MOST_WAITING if self.path is None else MOST_EVENTS
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        # What is in memory has one connection, and its transactions do not hang.
        self._reader = self._thread if self.path is None else ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._stuck: Future[Any] | None = None  # a read that nobody waits for any more
        self._turn: asyncio.Future[None] | None = None  # the transaction under way
        self._next: asyncio.Future[None] | None = None  # the one after it
        self._closed = False
        self._tried = -RETRY_SECONDS
        self.id = str(self._one("SELECT value FROM meta WHERE key = 'journal'"))
        # How often it was opened: makes ids of events unique, so no event enters before it.
        self.run = int(self._one("SELECT value FROM meta WHERE key = 'run'")) + 1
        self._run_kept = False
        # Old events go; their numbers do not come again.
        self.seq = int(
            self._one("SELECT max(coalesce(max(seq), 0), (SELECT coalesce(max(seq), 0) FROM state)) FROM events")
        )
        self._kept = self.seq
        self._tidied = 0.0
        self._saved = 0.0  # monotonic
        self._save = False  # was it asked for since the last transaction began?
        self._told("" if self.trouble else self._count_run())

    @property
    def served(self) -> int:
        """Events up to this `seq` may be served: they are in the file, or the file has trouble."""
        return self.seq if self.trouble else self._kept

    # -- at start

    def saved(self) -> Saved | None:
        """The counters saved last, if there are any."""
        row = self._base.execute("SELECT seq, at, value FROM state").fetchone()
        return None if row is None else Saved(*row)

    def rows(self, where: str = "1", arguments: Sequence[Any] = (), *, newest: int = -1) -> list[Row]:
        """Events for which an SQL condition holds, in the order of `seq`; `newest`: only so many of the last."""
        query = f"SELECT * FROM events WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - conditions are our own
        return [Row(*each) for each in self._base.execute(query, (*arguments, newest))][::-1]

    # -- while it runs; all of it from the loop's thread

    def put(self, row: Row) -> None:
        """Take an event, or a change of one; its transaction begins at once or after the one under way."""
        self.seq = max(self.seq, row.seq)
        self._waiting.append(row)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
        if not self._closed:
            self._begin()

    async def save(self) -> None:
        """Wait until all that was put, and the counters as they are after this call, are in the file.

        In trouble, or after WAIT_SECONDS, it returns all the same: what is served then may be lost in a crash.
        """
        if self._closed:
            return
        self._save = True
        if self.trouble:
            self._begin()
            return
        if self._turn is None:
            turn = self._begin()
        else:
            turn = self._next = self._next or asyncio.get_running_loop().create_future()
        # Not wait_for, which up to Python 3.11 forgets that it was cancelled when what it waits for is done by then.
        await asyncio.wait([turn], timeout=WAIT_SECONDS)

    async def find(
        self, since: int, limit: int, wanted: Mapping[str, str], hidden: int = 0
    ) -> list[tuple[int, str, str]]:
        """(seq, id, JSON) of up to `limit` events changed after `since`, oldest change first; `wanted` is by column.

        Of those up to `hidden` only what is open. Raises ReadError, after WAIT_SECONDS at the latest.
        """
        where = " AND ".join(["seq > ?", "(seq > ? OR state = 'open')", *(f"{column} = ?" for column in wanted)])
        query = f"SELECT seq, id, item FROM events WHERE {where} ORDER BY seq LIMIT ?"  # noqa: S608 - as above
        arguments = (since, hidden, *wanted.values(), limit)
        # Taken before the file is read: what enters it meanwhile waits no more, and may not be in what is read.
        waiting = [row for row in self._waiting if self.trouble and row.seq > since and _fits(row, wanted)]
        newest = {row.id: (row.seq, row.id, row.item) for row in waiting}
        for each in await self._read(query, arguments):
            newest[each[1]] = max(each, newest.get(each[1], each))
        return sorted(newest.values())[:limit]

    async def _read(self, query: str, arguments: Sequence[Any]) -> list[tuple[int, str, str]]:
        if self._stuck is not None and not self._stuck.done():
            raise ReadError("the disk does not answer")
        work = self._reader.submit(lambda: self._reading.execute(query, arguments).fetchall())
        reading = asyncio.wrap_future(work)
        reading.add_done_callback(lambda each: each.cancelled() or each.exception())  # of one that nobody waits for
        if not (await asyncio.wait([reading], timeout=WAIT_SECONDS))[0]:
            if not work.cancel():  # it has begun
                self._stuck = work
                self._reading.interrupt()
            raise ReadError(f"not read in {WAIT_SECONDS:g} s")
        try:
            return reading.result()
        except sqlite3.Error as error:
            raise ReadError(str(error)) from None

    async def close(self) -> None:
        """Save once more and let go of the file."""
        await self.save()
        if self._taking is not None and not self._taking.done():  # then what waits for it is not in the thread's hands
            await asyncio.wait([self._taking], timeout=WAIT_SECONDS)
            await asyncio.sleep(0)
        self._closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reader, self._reading.close)
        await loop.run_in_executor(self._thread, self._base.close)
        self._reader.shutdown(wait=False)
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            self._lock.close()

    def _begin(self) -> asyncio.Future[None]:
        """Have a transaction made of what waits, unless one is under way; while in trouble, only one a second."""
        loop = asyncio.get_running_loop()
        if self._turn is None:
            turn = self._turn = loop.create_future()
            if self.trouble:
                loop.call_later(max(self._tried + RETRY_SECONDS - time.monotonic(), 0), self._start, turn)
            else:  # soon, so that what is put in one go, as at a start, is in the file whole or not at all
                loop.call_soon(self._start, turn)
        return self._turn

    def _start(self, turn: asyncio.Future[None]) -> None:
        if self._closed:
            return
        self._tried = time.monotonic()
        # The counters of a stream stand beside its events, so that the whole need not be saved with each.
        save, self._save = self._save or self._tried - self._saved > SAVE_SECONDS, False
        now, seq = time.time(), self.seq
        if not save:
            self._hand_over(turn, now, seq, b"")
            return
        # They come first, so that no event is in them whose end is not in the same transaction. What comes while they
        # are taken has its own counters beside it, and a higher number than they say.
        self._taking = asyncio.ensure_future(self.snapshot())
        self._taking.add_done_callback(lambda taken: self._taken(turn, now, seq, taken))

    def _taken(self, turn: asyncio.Future[None], now: float, seq: int, taken: asyncio.Future[bytes]) -> None:
        if not taken.cancelled():  # as when the loop ends
            self._hand_over(turn, now, seq, taken.result())

    def _hand_over(self, turn: asyncio.Future[None], now: float, seq: int, value: bytes) -> None:
        if self._closed:
            return
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._write, now, seq, value)
        done.add_done_callback(lambda future: self._written(turn, *future.result()))
        self._watch(turn)

    def _watch(self, turn: asyncio.Future[None]) -> None:
        """Say again and again that a transaction hangs, as each try on a full disk is told."""
        loop = asyncio.get_running_loop()
        due = loop.time() + WAIT_SECONDS

        def look() -> None:
            if loop.time() - due < LATE_SECONDS:  # else it is we who hung, and the disk has the same time again
                self._told(f"a transaction takes longer than {WAIT_SECONDS:g} s")
            self._watch(turn)

        timer = loop.call_later(WAIT_SECONDS, look)
        turn.add_done_callback(lambda _: timer.cancel())

    def _written(self, turn: asyncio.Future[None], rows: Sequence[Row], trouble: str) -> None:
        if not trouble:
            if self.trouble and self.path:
                log.warning("journal %s takes events again, %d waited", self.path, len(rows))
            for row in rows:
                if self._waiting and self._waiting[0] is row:  # else it was lost meanwhile
                    self._waiting.popleft()
            self._kept = max([self._kept, *(row.seq for row in rows)])
            self.trouble = ""
        self._told(trouble or self._refused)
        following, self._turn, self._next = self._next, None, None
        turn.set_result(None)
        if self._closed:
            return
        if following is not None:
            self._turn = following
            self._start(following)
        elif self._waiting:
            self._begin()

    def _count_run(self) -> str:
        """Returns what went wrong; then the first transaction counts it."""
        try:
            self._base.execute(COUNT_RUN, (str(self.run),))
        except sqlite3.Error as error:
            return str(error)
        self._run_kept = True
        return ""

    def _told(self, trouble: str) -> None:
        if trouble:
            self.errors += 1
            if not self.trouble and not self._refused:
                log.error("journal %s: %s; measuring goes on, events wait in memory", self.path, trouble)
            self.trouble = trouble

    # -- in the thread

    def _write(self, now: float, seq: int, value: bytes) -> tuple[Sequence[Row], str]:
        """One transaction of what waits; returns that, and what went wrong, "" if nothing did.

        `value`: the counters, b"" if they are not to be saved, as they were at `now` after event `seq`.
        """
        rows = list(self._waiting)
        try:
            with self._base:
                self._base.execute("BEGIN IMMEDIATE")
                if not self._run_kept:
                    self._base.execute(COUNT_RUN, (str(self.run),))
                self._base.executemany(PUT, rows)
                if value:
                    self._base.execute(SAVE, (seq, now, value))
                    self._saved = time.monotonic()
                if now - self._tidied > TIDY_SECONDS or self.path is None:
                    self._base.execute(TIDY, (now - RETENTION_DAYS * DAY, self.seq - self.most))
                    self._tidied = now
        except sqlite3.Error as error:
            return rows, str(error)
        self._run_kept = True
        return rows, ""

    # -- opening

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """A connection to write by, and one to read by: the same of what is in memory."""
        if self.path is None:
            return (_connected(":memory:"),) * 2
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            return self._sound(self.path), _read_only(self.path)
        except (OSError, sqlite3.Error) as error:
            self.errors += 1
            self.trouble = self._refused = str(error)
            log.error("journal %s: %s; events are kept in memory until the next start", self.path, self.trouble)  # noqa: TRY400
            self.path = None
            return (_connected(":memory:"),) * 2

    def _sound(self, path: Path) -> sqlite3.Connection:
        """The file, or a new one after a bad one was set aside. Raises OSError and sqlite3.Error."""
        try:
            return _connected(str(path))
        except UnusableError as error:
            why, word = str(error), error.word
        except sqlite3.OperationalError:
            raise  # of the disk, not of what the file holds
        except sqlite3.DatabaseError as error:
            why, word = str(error), "corrupt"
        aside = f"{path}.{word}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        log.error("journal %s: %s; it is kept as %s, and a new one begins", path, why, aside)
        return _connected(str(path))

    def _one(self, query: str) -> Any:
        return self._base.execute(query).fetchone()[0]


def _read_only(path: Path, more: str = "") -> sqlite3.Connection:
    # A name may hold what means something in a URI: ? # %
    uri = f"{path.absolute().as_uri()}?mode=ro{more}"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=WAIT_SECONDS)


class UnusableError(Exception):
    """A file that is no journal of this version; `word` says what it is, for the name it gets."""

    def __init__(self, word: str, why: str) -> None:
        super().__init__(why)
        self.word = word


def _connected(path: str) -> sqlite3.Connection:
    """A connection to a file with our tables. Raises sqlite3.Error, and UnusableError for what is not ours to write."""
    base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        empty = _checked(base)  # before anything of it is changed
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = FULL")
        if empty:
            base.executescript(
                f"BEGIN; {TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
    except BaseException:
        base.close()
        raise
    return base


def _checked(base: sqlite3.Connection) -> bool:
    """Is it an empty file? Raises UnusableError for one that is neither that nor ours."""
    (version,) = base.execute("PRAGMA user_version").fetchone()
    (application,) = base.execute("PRAGMA application_id").fetchone()
    (tables,) = base.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION:
        raise UnusableError("foreign", "another program's file")
    if version > VERSION:
        raise UnusableError("newer", f"of version {version}, we know up to {VERSION}")
    (health,) = base.execute("PRAGMA quick_check(1)").fetchone()
    if health != "ok":
        raise UnusableError("corrupt", health)
    return not tables


def _locked(path: Path) -> IO[str]:
    """The lock that says that the journal is ours. Raises JournalError if it is another process'."""
    lock = Path(f"{path}.lock").open("a+", encoding="ascii")  # noqa: SIM115 - held as long as we live
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read(20).strip()
        lock.close()
        by = f"process {owner}" if owner.isdigit() else "another process"
        raise JournalError(
            f"journal {path} is in use by {by}; give this one another source or --journal.path"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _fits(row: Row, wanted: Mapping[str, str]) -> bool:
    return all(getattr(row, column) == value for column, value in wanted.items())


class About(NamedTuple):
    """A journal's id, how often it was opened, and what SQLite finds wrong with its file."""

    id: str
    run: int
    wrong: tuple[str, ...]


def about(path: Path) -> About:
    """Look at a journal's file, every page of it, beside its owner. Raises JournalError for what is no journal."""
    with _beside(path) as base:
        try:
            wrong = tuple(str(text) for (text,) in base.execute("PRAGMA integrity_check(20)") if text != "ok")
            meta = dict(base.execute("SELECT key, value FROM meta").fetchall())
        except sqlite3.DatabaseError as error:
            return About("", 0, (str(error),))
    run = str(meta.get("run", ""))
    if "journal" not in meta or not run.isdecimal():
        wrong += ("it does not say its id, or how often it was opened",)
    return About(str(meta.get("journal", "")), int(run) if run.isdecimal() else 0, wrong)


def read_only(path: Path) -> Iterator[Row]:
    """The events of a journal's file, which its owner may be writing meanwhile. Raises JournalError."""
    with _beside(path) as base:
        rows = base.execute(f"SELECT {', '.join(Row._fields)} FROM events ORDER BY seq")  # noqa: S608 - names of ours
        yield from (Row(*each) for each in rows)


def saved_beside(path: Path) -> Saved | None:
    """The counters in a journal's file as they were saved last. Raises JournalError."""
    with _beside(path) as base:
        row = base.execute("SELECT seq, at, value FROM state").fetchone()
        return None if row is None else Saved(*row)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing. Raises JournalError for any error of SQLite's, and what is no journal."""
    if path.is_dir():
        raise JournalError(f"{path} is a folder, not a journal")
    if not path.exists():
        raise JournalError(f"{path}: there is no such file")
    # Where nothing can be written SQLite cannot share a file with its owner; without a log beside it there is none.
    alone = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
    try:
        with contextlib.closing(_read_only(path, "&immutable=1" if alone else "")) as base:
            if base.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                raise JournalError(f"{path} is no journal")
            version = base.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise JournalError(f"{path} is a journal of version {version}, we know up to {VERSION}")
            yield base
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}") from None
