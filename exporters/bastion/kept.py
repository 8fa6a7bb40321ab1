"""What journals beside the bastion tell of a migration, kept in its own: phases, node events and notes, each once.

1. An entry is known by its journal and id; a later change (a higher `seq`) of one that is open replaces it, and what is
   over stays as it is. So a stranger can make us write each twice at most, and MOST of them in all.
2. The id begins as the journal's does, else it could take the place of one of ours, or of another journal's.
3. Times are put on our clock, which is the one that outages from outside are told by.
4. A source that answers with a new journal was restarted: what the old one left open is truncated.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from exporters import times
from exporters.bastion.told import Item
from exporters.probing.record import Record

log = logging.getLogger(__name__)

KINDS = ("phase", "note")
MOST = 50_000  # entries of one journal's name
OLDEST, NEWEST = 31 * 86400.0, 60.0  # seconds before and after now in which entries may begin
PREFIX = 8  # characters of a journal's id that begin those of its entries


class Known(NamedTuple):
    """An entry of ours: by which name it came, of which journal and source, its `seq` there, and what it says."""

    via: str
    journal: str
    seq: int
    item: dict[str, Any]

    @property
    def open(self) -> bool:
        return str(self.item["state"]) == "open"


class Kept:
    """Writes into the record of one bastion; `noted` is told of notes."""

    def __init__(self, record: Record, noted: Callable[[dict[str, Any]], object]) -> None:
        self._record = record
        self._noted = noted
        self._known: dict[str, Known] = {}
        self._open: dict[str, Known] = {}
        self._alive: dict[tuple[str, str], float] = {}  # by name and journal: when it answered last
        self._counts: Counter[str] = Counter()
        self._full: set[str] = set()
        if record.journal is not None:
            for row in record.journal.rows("kind IN ('phase', 'note')"):
                item = json.loads(row.item)
                if "origin" in item:
                    origin = item["origin"]
                    self._keep(Known(origin["via"], origin["journal"], origin["seq"], item))

    def answered(self, via: str, source: str, journal: str) -> None:
        """A source answers by that name with that journal."""
        self._alive[via, journal] = time.time()
        left = [
            each
            for each in self._open.values()
            if each.via == via and each.item["name"] == source and each.journal != journal
        ]
        for each in left:
            begin = times.seconds(each.item["start_time"])
            heard = self._alive.get((via, each.journal), each.item["origin"]["heard"])
            more = {"state": "truncated", "end_time": None, "end": {"earliest": None, "latest": None}}
            self._enter(each, begin, max(begin, heard), more)

    def add(self, via: str, journal: str, items: Iterable[Item], offset: float) -> None:
        """Take what is new; `offset`: the seconds that its clock is ahead of ours."""
        now = time.time()
        for item in items:
            begin = times.seconds(item.start_time) - offset
            end = times.seconds(item.end_time) - offset if item.end_time else begin + item.duration_sec
            if item.kind not in KINDS or not self._ours(via, journal, item):
                continue
            if not now - OLDEST < begin < now + NEWEST:
                continue
            before = self._known.get(item.id)
            begin = times.seconds(before.item["start_time"]) if before else begin
            more: dict[str, Any] = {} if item.state == "closed" else {"end_time": None, "end": item.end.model_dump()}
            said = {
                "id": item.id,
                "name": item.name,
                "reporter": item.reporter,
                "text": item.text,
                "node": item.node,
                "rolls": item.rolls,
            }
            origin = {"via": via, "journal": journal, "seq": item.seq, "heard": round(now, 3)}
            whole = Known(via, journal, item.seq, {"kind": item.kind, "cause": item.cause, **said, "origin": origin})
            self._enter(whole, begin, max(begin, end), {"state": item.state, **more})

    def _ours(self, via: str, journal: str, item: Item) -> bool:
        """Is it one to take, and may it have its id?"""
        before = self._known.get(item.id)
        if before is not None:
            return before.open and (before.via, before.journal) == (via, journal) and before.seq < item.seq
        start = journal[:PREFIX]
        if len(start) < PREFIX or start == self._record.journal_id[:PREFIX] or not item.id.startswith(f"{start}-"):
            return False
        if self._counts[via] >= MOST:
            if via not in self._full:
                self._full.add(via)
                log.warning("%s tells more than %d phases and notes; what is new is not kept", via, MOST)
            return False
        return True

    def _enter(self, known: Known, begin: float, end: float, more: dict[str, Any]) -> None:
        said = {name: known.item[name] for name in ("id", "name", "reporter", "text", "node", "rolls", "origin")}
        item = self._record.note(known.item["kind"], known.item["cause"], begin, end, {**said, **more})
        self._keep(known._replace(item=item))
        if item["kind"] == "note":
            self._noted(item)

    def _keep(self, known: Known) -> None:
        self._counts[known.via] += known.item["id"] not in self._known
        self._known[known.item["id"]] = known
        self._open.pop(known.item["id"], None)
        if known.open:
            self._open[known.item["id"]] = known
