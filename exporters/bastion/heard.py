"""All histories as one: items of many peers in, by whatever way they came; each event once out. Pure.

1. An event is known by its journal and id, whoever brings it; a later change (a higher `seq`) replaces an earlier one.
2. How far a journal was read is remembered by peer and journal: several replicas behind one address answer in turn.
3. A source that answers with a new journal was restarted: what the old one left open is truncated, its end unknown.
4. Nothing grows without bound. When there is too much, the peer that has most gives up its oldest, hidden ones first.
5. Clearing hides what has ended; it stays where it is, and what comes later and ended before is hidden, too.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar

from exporters import times
from exporters.bastion.told import Item

V = TypeVar("V")

MARKS = ("window", "phase", "note")  # a peer's own; those of journals are kept in our own one (kept.py)
MOST_JOURNALS = 64  # of one peer; one that changes its journal more often is read from the beginning again


@dataclass(slots=True)
class Read:
    """What of one peer was read: the `seq` reached in each journal, and the journal each source answered with last."""

    cursors: OrderedDict[str, int] = field(default_factory=OrderedDict)
    journals: OrderedDict[str, str] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class Entry:
    """An item as it is shown. `end` is in wall seconds of our own clock, infinite while it is open.

    `offset`: the seconds its times are ahead of our clock; `version`: of the whole, when it changed last.
    """

    shown: dict[str, Any]
    peer: str
    end: float
    offset: float
    version: int
    hidden: bool = False


class Heard:
    """The merged history of all peers, at most `limit` items of it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.cleared = 0.0  # wall seconds
        self.version = 0  # rises whenever an entry changes
        self._entries: dict[tuple[str, str], Entry] = {}  # by journal and id
        self._read: defaultdict[str, Read] = defaultdict(Read)  # by peer

    def answered(self, peer: str, source: str, journal: str) -> int:
        """A source ("": who knows which) answered with that journal; returns the `seq` up to which it was read."""
        read = self._read[peer]
        if source:
            before = read.journals.pop(source, journal)
            if before != journal:
                self._truncate(before)
            _put(read.journals, source, journal)
        _put(read.cursors, journal, read.cursors.pop(journal, 0))
        return read.cursors[journal]

    def cursors(self, peer: str) -> list[int]:
        """The `seq` up to which each of a peer's journals was read, in any order."""
        return list(self._read[peer].cursors.values())

    def add(self, peer: str, journal: str, items: Iterable[Item], offset: float) -> int:
        """Take a page of a journal that answered; returns how far it is read now.

        `offset`: the seconds that the peer's clock is ahead of ours.
        """
        cursor = self._read[peer].cursors.get(journal, 0)
        for item in items:
            cursor = max(cursor, item.seq)
            if item.kind in MARKS:
                continue
            known = self._entries.get((journal, item.id))
            if known is None or known.shown["seq"] < item.seq:
                end = _end(item, offset)
                shown = {**item.model_dump(), "journal": journal}
                self.version += 1
                hidden = end <= self.cleared
                self._entries[journal, item.id] = Entry(shown, peer, end, offset, self.version, hidden)
        self._make_room()
        _put(self._read[peer].cursors, journal, cursor)
        return cursor

    def refresh(self, journal: str, items: Iterable[Item]) -> None:
        """Bring open items up to date with how their peer's status shows them, which knows no `seq`."""
        for item in items:
            entry = self._entries.get((journal, item.id))
            if entry is not None and item.state == "open" and entry.shown["state"] != "closed":
                entry.shown = {**item.model_dump(), "journal": journal, "seq": entry.shown["seq"]}
                entry.end = inf
                self._changed(entry)

    def clear(self, now: float) -> None:
        """Hide what has ended; `now` is in wall seconds."""
        self.cleared = now
        for entry in self._entries.values():
            entry.hidden = entry.hidden or entry.end <= now

    def items(self) -> list[tuple[float, dict[str, Any]]]:
        """What is not hidden, each with the wall seconds of its end, infinity while it is open."""
        return [(entry.end, entry.shown) for entry in self._entries.values() if not entry.hidden]

    def shown(self) -> list[dict[str, Any]]:
        """All of it, hidden or not."""
        return [entry.shown for entry in self._entries.values()]

    def changed(self, version: int) -> list[Entry]:
        """What changed since that version, hidden or not."""
        return [entry for entry in self._entries.values() if entry.version > version]

    def keep(self, peers: Container[str]) -> None:
        """Forget which journals all other peers have; what they told stays."""
        for peer in [each for each in self._read if each not in peers]:
            del self._read[peer]

    def _truncate(self, journal: str) -> None:
        for (of, _), entry in self._entries.items():
            if of == journal and entry.end == inf:
                entry.shown = {**entry.shown, "state": "truncated"}
                entry.end = times.seconds(entry.shown["start_time"]) + entry.shown["duration_sec"]
                self._changed(entry)

    def _changed(self, entry: Entry) -> None:
        self.version += 1
        entry.version = self.version

    def _make_room(self) -> None:
        excess = len(self._entries) - self.limit
        if excess <= 0:
            return
        by_peer: defaultdict[str, list[tuple[bool, float, tuple[str, str]]]] = defaultdict(list)
        for key, entry in self._entries.items():
            by_peer[entry.peer].append((not entry.hidden, entry.end, key))
        for entries in by_peer.values():
            entries.sort(reverse=True)
        for _ in range(excess):
            _, _, key = max(by_peer.values(), key=len).pop()
            del self._entries[key]


def _put(latest: OrderedDict[str, V], key: str, value: V) -> None:
    latest[key] = value
    if len(latest) > MOST_JOURNALS:
        latest.popitem(last=False)


def _end(item: Item, offset: float) -> float:
    if item.state == "open":
        return inf
    ended = times.seconds(item.end_time) if item.end_time else times.seconds(item.start_time) + item.duration_sec
    return ended - offset
