"""Where a history is read from: an exporter's /history in pages, or a journal's file beside its owner.

An exporter is a stranger: its answers are bounded in bytes, number and time, and must go forward.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec

from exporters.history.items import Page, RefusedError, read_page, seq_of
from exporters.journal import About, JournalError, Row, Saved, about, read_only, saved_beside
from exporters.reach import Reach

Data = TypeVar("Data")
Result = TypeVar("Result")

PAGE = 1000  # entries; no exporter gives more in one answer
MOST_BYTES = 32 * 1024 * 1024  # of one answer; a thousand entries have two or three
MOST_ENTRIES = 2_000_000  # no journal keeps as many
PAGE_SECONDS = 60.0
READ_BYTES = 64 * 1024
MOST_REASON = 1024  # bytes


class SourceError(Exception):
    """The history cannot be read; the message says in one line what is wrong with what was given."""


class TornError(SourceError):
    """What was read contradicts itself: numbers that fall, a page that does not end where it says."""


class _Refusal(msgspec.Struct):
    error: str


class Entry(NamedTuple):
    """An entry as it was told, unread, and the row it stands in where it comes from a file."""

    seq: int
    told: bytes | str | msgspec.Raw
    row: Row | None = None


def base_url(text: str) -> str:
    """An exporter's address without `/history`. Raises ValueError that says what is wanted."""
    parts = urlsplit(text)  # raises ValueError, too
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"want http://HOST:PORT or https://HOST:PORT, not {text!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"want no user, query or fragment in it: {text!r}")
    return urlunsplit(parts).rstrip("/").removesuffix("/history")


class Remote:
    """An exporter's history; `with` closes the connection. Reading raises SourceError."""

    def __init__(
        self, url: str, wanted: Mapping[str, str], reach: Reach | None = None, *, seconds: float = 0.0
    ) -> None:
        """`wanted`: values by which the exporter itself shall choose; `seconds`: for an answer, else a page's."""
        self.name = url
        self._wanted = wanted
        self.journal = ""
        self._runner = asyncio.Runner()
        self._reach = reach or Reach()
        self._seconds = seconds or PAGE_SECONDS
        self._session: aiohttp.ClientSession | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    def entries(self) -> Iterator[Entry]:
        """All entries, the oldest change first."""
        since = told = 0
        while True:
            page = self._page({"since": str(since), "limit": str(PAGE), "cleared": "1", **self._wanted})
            self._same_journal(page)
            for each in page.items:
                seq = self._read(seq_of, each)
                if seq <= since:
                    raise TornError(f"{self.name}: seq {seq} comes after {since}")
                since = seq
                yield Entry(seq, each)
            if page.next != since:
                raise TornError(f"{self.name}: a page ends at seq {since} and says {page.next}")
            if not page.items:
                return
            told += len(page.items)
            if told > MOST_ENTRIES:
                raise SourceError(f"{self.name}: more than {MOST_ENTRIES} entries; no journal keeps as many")

    def _same_journal(self, page: Page) -> None:
        if self.journal not in ("", page.journal):
            raise SourceError(
                f"{self.name}: the journal changed between two pages: another exporter answers now; "
                "ask one by its own address"
            )
        self.journal = page.journal

    def _page(self, query: Mapping[str, str]) -> Page:
        return self._read(read_page, self.answer("/history", query))

    def answer(self, path: str, query: Mapping[str, str]) -> bytes:
        """What it answers to a GET. Raises SourceError."""
        try:
            return self._runner.run(self._get(path, query))
        except TimeoutError:
            raise SourceError(f"{self.name}: no whole answer in {self._seconds:.0f} s") from None
        except aiohttp.ClientConnectorError as error:  # its text speaks of TLS where there is none
            fault = error.os_error
            why = os.strerror(fault.errno) if isinstance(fault, ConnectionError) and fault.errno else str(fault)
            raise SourceError(f"{self.name}: cannot connect to {error.host}:{error.port}: {why}"[:300]) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceError(f"{self.name}: {str(error) or type(error).__name__}"[:300]) from None

    def _read(self, reader: Callable[[Data], Result], data: Data) -> Result:
        try:
            return reader(data)
        except RefusedError as error:
            raise SourceError(f"{self.name}: not a history: {error}") from None

    async def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._reach.tls),
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                auto_decompress=False,  # a few bytes could become any number
                headers={"Accept": "application/json", "Accept-Encoding": "identity", **self._reach.headers},
            )
        async with (
            asyncio.timeout(self._seconds),
            self._session.get(f"{self.name}{path}", params=query, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                why = _reason(await answer.content.read(MOST_REASON))
                raise SourceError(f"{self.name}: {path} answered with status {answer.status}{why}")
            body = bytearray()
            async for data in answer.content.iter_chunked(READ_BYTES):
                body += data
                if len(body) > MOST_BYTES:
                    raise SourceError(f"{self.name}: an answer of more than {MOST_BYTES >> 20} MB; no exporter's is")
            return bytes(body)


def _reason(body: bytes) -> str:
    """What an exporter says of a request that it refuses; "" if it says nothing that we understand."""
    try:
        return f": {msgspec.json.decode(body, type=_Refusal).error}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


class File:
    """A journal's file, which its owner may be writing meanwhile. Reading raises SourceError."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def about(self) -> About:
        """Who it is, and what SQLite finds wrong with it."""
        try:
            return about(self._path)
        except JournalError as error:
            raise SourceError(str(error)) from None

    def saved(self) -> Saved | None:
        """Its counters, as they were saved last."""
        try:
            return saved_beside(self._path)
        except JournalError as error:
            raise SourceError(str(error)) from None

    def entries(self) -> Iterator[Entry]:
        """All entries, the oldest change first."""
        try:
            for row in read_only(self._path):
                yield Entry(row.seq, row.item, row)
        except JournalError as error:
            raise SourceError(str(error)) from None
