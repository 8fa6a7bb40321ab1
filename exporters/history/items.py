"""An entry of a history, read as from a stranger: bytes in, a checked item out; and which items somebody wants. Pure.

1. What we show or compute with has the type and length it should have, or the entry is refused.
2. What a newer exporter adds is passed over here, and kept where entries are exported as they are.
3. Times are text until somebody computes with them: the wall clock may step, so only bounds and `mono` are durations.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from exporters import times

PARTS = ("source", "target", "path", "protocol", "family")  # of a stream's key

Word = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(max_length=253)]
Key = Annotated[str, Meta(max_length=1100)]  # four names and more
Time = Annotated[str, Meta(max_length=40)]
Number = Annotated[int, Meta(ge=0, lt=1 << 53)]
Seconds = Annotated[float, Meta(ge=0, lt=1e11)]


class Edge(msgspec.Struct):
    """When something began or ended: ISO 8601; null while it has not."""

    earliest: Time | None
    latest: Time | None


class Duration(msgspec.Struct):
    lower: Seconds
    estimate: Seconds
    upper: Seconds


class Mono(msgspec.Struct):
    """The same edges on the monotonic clock of the process that saw them, in seconds; not of what is about itself."""

    start_earliest: float
    start_latest: float
    end_earliest: float
    end_latest: float | None


class Item(msgspec.Struct):
    """An outage, blip, break, frozen peer, gap or mark, as /history tells it."""

    seq: Number
    id: Word
    kind: Word
    state: Literal["open", "closed", "truncated"]
    stream: Key
    name: Name
    protocol: Word
    source: Word
    reporter: Name
    start_time: Time
    end_time: Time | None
    duration_sec: Seconds
    start: Edge
    end: Edge
    duration: Duration
    cause: Word
    causes: Annotated[dict[Word, Number], Meta(max_length=64)] = {}
    unconfirmed: bool = False
    stall_overlap: bool = False
    before: Annotated[dict[Word, Name], Meta(max_length=16)] = {}  # who answered last
    after: Annotated[dict[Word, Name], Meta(max_length=16)] = {}
    text: Annotated[str, Meta(max_length=500)] = ""  # a window's name, what a note says, what a phase is called
    budget_seconds: Seconds | None = None  # of a window
    node: Name = ""  # whose phase it is, "" for the whole cluster's
    rolls: bool = False  # a phase goes from node to node without naming them
    mono: Mono | None = None


class Read(NamedTuple):
    """An entry that was read: `whole` is all it said."""

    item: Item
    whole: dict[str, Any]


class Page(msgspec.Struct):
    """An answer of /history?since=."""

    journal: Word
    next: Number
    items: list[msgspec.Raw]


class _Numbered(msgspec.Struct):
    seq: Number


class RefusedError(Exception):
    """The bytes are none of ours; args[0] says why in one line."""


_read_item = msgspec.json.Decoder(Item).decode
_read_page = msgspec.json.Decoder(Page).decode
_read_number = msgspec.json.Decoder(_Numbered).decode


def _trying(what: str, decode: Callable[[Any], Any], data: Any) -> Any:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(f"{what}: {error}"[:300]) from None


def read(data: object) -> Read:
    """One entry, of bytes or text. Raises RefusedError."""
    if not isinstance(data, bytes | str | msgspec.Raw):
        raise RefusedError("an entry: not text")
    item = _trying("an entry", _read_item, data)
    return Read(item, _trying("an entry", msgspec.json.decode, data))


def seq_of(data: msgspec.Raw) -> int:
    """Its number, whatever else it says. Raises RefusedError."""
    numbered: _Numbered = _trying("an entry", _read_number, data)
    return numbered.seq


def read_page(data: bytes) -> Page:
    """An answer; its entries are yet to be read. Raises RefusedError."""
    page: Page = _trying("the answer", _read_page, data)
    return page


def place(item: Item) -> dict[str, str]:
    """Source, target, path, protocol and family of an entry; of one about an exporter itself only the source."""
    parts = item.stream.split("|")
    if len(parts) == len(PARTS):
        return dict(zip(PARTS, parts, strict=True))
    return {**dict.fromkeys(PARTS, ""), "source": item.name}


def run_of(item_id: str) -> int | None:
    """Which run of its exporter an entry is of; None if the id does not say."""
    found = re.fullmatch(r"[0-9a-f]{8}-([0-9]{1,15})-[0-9]+-[0-9]+", item_id)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Wanted:
    """Which entries somebody asks for: no words of a sort are all words; since and until are Unix times."""

    kind: frozenset[str] = frozenset()
    path: frozenset[str] = frozenset()
    target: frozenset[str] = frozenset()
    state: frozenset[str] = frozenset()
    since: float | None = None
    until: float | None = None

    def fits(self, item: Item) -> bool:
        """Is it one of them? It is of a time if any part of it may be; what has no end may last until now.

        Raises ValueError for an entry whose times are none.
        """
        where = place(item)
        for words, word in (
            (self.kind, item.kind),
            (self.path, where["path"]),
            (self.target, where["target"]),
            (self.state, item.state),
        ):
            if words and word not in words:
                return False
        if self.until is not None and times.seconds(item.start.earliest or item.start_time) > self.until:
            return False
        end = item.end.latest or item.end_time
        return self.since is None or end is None or times.seconds(end) >= self.since
