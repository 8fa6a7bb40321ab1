"""All streams of one exporter: their events and our gaps as a history, which with the counters outlives a restart.

The streams write into it, scrapes and pages read from it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, time
from typing import Any, NamedTuple

import msgspec
from prometheus_client.core import Metric

from exporters import catalog
from exporters.api import KEY, fits
from exporters.gentle import lots, turns
from exporters.identity import Identity
from exporters.journal import SAVE_SECONDS, Journal, Row
from exporters.probing.egress import Addresses
from exporters.probing.histogram import Histogram
from exporters.probing.metrics import Survey, collect
from exporters.probing.outage import Event
from exporters.probing.saved import Saved, SavedShape, Totals
from exporters.probing.stall import Pile
from exporters.probing.stats import MARK_SECONDS, MARKS, Shape, Stats
from exporters.probing.status import connections, status
from exporters.probing.throttling import Throttling
from exporters.settings import Stream as Spec
from exporters.times import iso, seconds

SKIPPED = ("late", "unresolved")
# Why the exporter as a whole did not observe; no second is in two of them. A stream that cannot be probed by itself (no
# address yet, no descriptor left) lowers its own coverage.
GAPS = ("stall", "throttled", "suspended", "restart")
LOT = 100  # streams: less than a millisecond
JUST_NOW = 5.0  # seconds: what changes slowly need not be asked of thousands of streams again sooner
LISTED = 1.0  # seconds; a shorter gap is counted, and listed only with others
CLEARED = "json_extract(item, '$.cause') = 'cleared'"  # of a window: it is where somebody cleared, and has no length
MOST_NODES = 10_000  # whose boots are remembered
MOST_BOOTS = 32  # of one node

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A line of the history; item is None while the event is open. (A window that is open has one all the same.)"""

    seq: int
    number: int
    stats: Stats | None  # None: of an earlier run
    item: dict[str, Any] | None

    @property
    def over(self) -> bool:
        return self.item is not None and self.item["state"] != "open"


def _open(stats: Stats, number: int, now: float) -> list[Event]:
    """The event of that number as it stands, if it is not finished."""
    return [event for event in stats.unfinished(now) if event.number == number]


def _saved(journal: Journal) -> Saved | None:
    """The counters as they were saved last; None if there are none, or none that we can read."""
    saved = journal.saved()
    if saved is None:
        return None
    try:
        return msgspec.msgpack.decode(saved.value, type=Saved)
    except msgspec.DecodeError as error:
        log.warning("journal %s: the counters begin at 0: %s", journal.path, error)
        return None


class Record:
    """All streams of one exporter. `reported_as` is what an earlier system's `source` field says: pod or bastion."""

    def __init__(
        self,
        streams: Sequence[Spec],
        identity: Identity,
        max_history: int = 200,
        reported_as: str = "pod",
        journal: Journal | None = None,
    ) -> None:
        self.identity = identity
        self.self_source = identity.source
        self.reported_as = reported_as
        self.journal = journal
        self.journal_id = journal.id if journal else uuid.uuid4().hex
        self.run = journal.run if journal else 1
        self.max_history = max_history
        self.catalog = catalog.exported()
        self.lag = self._histogram("ovnwatch_schedule_lag_seconds")
        self.skipped = dict.fromkeys(SKIPPED, 0)
        self.gaps = dict.fromkeys(GAPS, 0.0)
        self.stall_seconds = 0.0
        self.throttling: Throttling | None = None
        self.ticked: Callable[[], float] = monotonic  # when the loop of the streams was alive last
        self._slept = 0.0  # seconds, of this run
        self._pile = Pile()  # of gaps that are too short to be listed one by one
        self._marked = (0.0,) * (MARKS + 1)
        self._mark = 0  # number of the last one
        self._boots: dict[str, list[str]] = {}  # that each node told
        self._seen: dict[str, Addresses] = {}  # by key, of streams whose address outside has changed
        self.shapes: dict[tuple[str, str], Shape] = {}
        self._seq = journal.seq if journal else 0
        self._items: OrderedDict[str, Entry] = OrderedDict()  # by id
        self._over: OrderedDict[str, None] = OrderedDict()  # ids of those that are
        self._cleared = 0
        self.cleared_at = 0.0
        self._added = 0
        self.stats: dict[str, Stats] = {}
        self.troubled: set[Stats] = set()  # those that have events which are not finished
        self._surveyed = Survey()
        self._saved = _saved(journal) if journal else None
        self.beside = self._saved.beside if self._saved else b""  # saved with the counters, and there after a restart
        for spec in streams:
            self.add(spec)
        if journal:
            journal.snapshot = self.snapshot
            self._resume(journal)

    def _histogram(self, name: str) -> Histogram:
        return Histogram(self.catalog.metric(name).buckets)

    def add(self, spec: Spec) -> None:
        """A stream is probed from now on; its series begin."""
        serial = self.next_serial()
        shape = self.shapes.get((spec.path, spec.protocol))
        if shape is None:
            shape = Shape(
                self._histogram("ovnwatch_probe_duration_seconds"), self._histogram("ovnwatch_outage_duration_seconds")
            )
            self.shapes[spec.path, spec.protocol] = shape
        stats = self.stats[spec.key] = Stats(spec, self, shape, serial)
        if self._saved and spec.key in self._saved.streams:
            stats.resume(self._saved.streams.pop(spec.key))

    def next_serial(self) -> int:
        self._added += 1
        return self._added

    # -- what we did not observe

    def stalled(self, seconds: float) -> None:
        """We did not run for so long; as far as our cgroup was throttled meanwhile, that is why."""
        throttled = min(self.throttling.grown(), seconds) if self.throttling else 0.0
        self.stall_seconds += seconds
        self.gaps["throttled"] += throttled
        self.gaps["stall"] += seconds - throttled
        reason = "throttled" if throttled > seconds / 2 else "stall"
        if seconds > LISTED:
            log.warning("did not run for %.1f s (%s); nothing was observed meanwhile", seconds, reason)
        self._gap_until_now(reason, seconds)

    def suspended(self, seconds: float) -> None:
        """The machine slept for so long, which the monotonic clock does not know."""
        self._slept += seconds
        self.gaps["suspended"] += seconds
        self._gap_until_now("suspended", seconds)

    def _gap_until_now(self, reason: str, seconds: float) -> None:
        now = time()
        self.list_short(now)
        if seconds > LISTED:
            self.gap(reason, now - seconds, now)
        else:
            self._pile = self._pile.with_one(reason, now, seconds)

    def list_short(self, now: float) -> None:
        """List what short gaps came to, if their time is over at `now` (Unix time): who reads us knows of no others."""
        pile = self._pile
        if pile.over(now):
            self._pile = Pile()
            if pile.counts:
                self.gap(pile.reason, pile.last - pile.seconds, pile.last)

    def gap(self, reason: str, start: float, end: float, spec: Spec | None = None, slack: float = 0.0) -> None:
        """List a gap, in Unix times; of one target if `spec` is given, else of all that we observe.

        slack: it may have begun by so many seconds later.
        """
        self._seq += 1
        item = self._own_item("gap", reason, start, end, self._seq)
        if slack:
            item["start"]["latest"] = iso(start + slack)
            item["duration"]["lower"] = round(end - start - slack, 6)
        if spec is not None:
            item |= {"stream": spec.key, "name": spec.shown or spec.target}
        self._enter(Entry(self._seq, 0, None, item), item["id"])
        if self.journal is not None:
            self._write(item)

    def met(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None:
        """A peer answered that is another one than before, or says other things of itself or us: did its node boot?

        By an egress it tells which address we have outside; on other paths that is nobody's to watch.
        """
        if stats.spec.path == "egress":
            self._seen_as(stats, peer, wall)
        node, boot = peer.get("node") or peer.get("source", ""), peer.get("boot_id", "")
        if not node or not boot:
            return
        known = self._boots.get(node)
        if known is None:
            if len(self._boots) < MOST_NODES:
                self._boots[node] = [boot]
        elif boot not in known and len(known) < MOST_BOOTS:  # two nodes of one name would boot for ever
            known.append(boot)
            before = stats.peer.get("node") or stats.peer.get("source", "")
            start = stats.last_success if before == node else wall
            self.gap("peer_reboot", min(start, wall), wall, stats.spec)

    def _seen_as(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None:
        before, after = stats.peer.get("address", ""), peer.get("address", "")
        if before and after and before != after:
            seen = self._seen.setdefault(stats.spec.key, Addresses())
            if seen.change(before, after, stats.last_success, wall):
                self._target_change(stats, peer, wall)

    def _target_change(self, stats: Stats, peer: Mapping[str, str], wall: float) -> None:
        """List a moment: after the last answer of the old, before the first of the new."""
        self._seq += 1
        spec = stats.spec
        item = self._own_item("target_change", "address", wall, wall, self._seq)
        item["start"]["earliest"] = iso(min(stats.last_success, wall))
        item |= {"stream": spec.key, "name": spec.shown or spec.target, "protocol": spec.protocol}
        item |= {"before": dict(stats.peer), "after": dict(peer)}
        self._enter(Entry(self._seq, 0, None, item), item["id"])
        if self.journal is not None:
            self._write(item)

    # -- coverage

    def clock(self, now: float) -> float:
        """Monotonic time, and what we slept: time that passed for those whom we should observe."""
        return now + self._slept

    @property
    def oldest_mark(self) -> tuple[float, int]:
        """When (see `clock`) the oldest mark of the window was made, and its number; the time is 0 if there is none."""
        number = self._mark - MARKS + 1
        return self._marked[number % (MARKS + 1)] if number > 0 else 0.0, number

    def mark(self, now: float) -> None:
        """Every MARK_SECONDS, from whatever thread: remember what was observed by now. Sooner calls do nothing."""
        at, number = self.clock(now), self._mark + 1
        if self._mark and at - self._marked[self._mark % (MARKS + 1)] < MARK_SECONDS:
            return
        for lot in lots(list(self.stats.values()), 5 * LOT):
            for stats in lot:
                stats.mark(number)
        self._marked = tuple(at if place == number % (MARKS + 1) else was for place, was in enumerate(self._marked))
        self._mark = number

    def remove(self, key: str) -> None:
        """A stream is probed no longer; its series end. What it saw stays in the history, what is open as truncated."""
        self._seen.pop(key, None)
        stats = self.stats.pop(key, None)
        if stats is not None:
            self.troubled.discard(stats)
            for event in stats.unfinished(monotonic()):
                self.put(stats, event.number, event, state="truncated")

    # -- history

    @property
    def seq(self) -> int:
        """Of the newest change."""
        return self._seq

    @property
    def served(self) -> int:
        """Changes up to this `seq` may be told: the journal has them, or has trouble."""
        return self._seq if self.journal is None else self.journal.served

    def put(
        self,
        stats: Stats,
        number: int,
        event: Event | None,
        *,
        state: str = "closed",
        stall_overlap: bool = False,
    ) -> None:
        """Enter an event, or what became of it; each change gets the next `seq`. None: it is open, ask the stream."""
        self._seq += 1
        now = monotonic()
        stats.entered = self._seq
        item = stats.item(event, self._seq, state=state, stall_overlap=stall_overlap) if event is not None else None
        self._enter(Entry(self._seq, number, stats, item), stats.event_id(number))
        if self.journal is not None:
            as_it_stands = (stats.item(each, self._seq, state="open") for each in _open(stats, number, now))
            known = item or next(as_it_stands, None)
            if known is not None:
                self._write(known, Totals(stats.saved(), stats.shape.outages.saved()))

    def _enter(self, entry: Entry, key: str) -> None:
        self._items.pop(key, None)
        self._items[key] = entry
        self._over.pop(key, None)
        if entry.over:
            self._over[key] = None
        while len(self._items) > self.max_history:
            # What is over goes before what is open, the oldest first.
            if self._over:
                del self._items[self._over.popitem(last=False)[0]]
            else:
                self._items.popitem(last=False)

    def _write(self, item: dict[str, Any], totals: Totals | None = None) -> None:
        assert self.journal is not None
        parts = item["stream"].split("|")
        target, path = parts[1:3] if len(parts) == len(KEY) else ("", "")
        text, packed = json.dumps(item), msgspec.msgpack.encode(totals) if totals else b""
        place = (item["stream"], target, path)
        self.journal.put(Row(item["seq"], item["id"], item["kind"], item["state"], *place, time(), text, packed))

    def history(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        """Entries changed after `since`, the oldest change first, at most `limit`; open ones as they stand now.

        Of what is over only the newest `max_history` are known here, and none that the journal does not have yet.
        """
        now, served = monotonic(), self.served
        found: list[dict[str, Any]] = []
        for entry in self._items.values():
            if not since < entry.seq <= served or (entry.over and entry.seq <= self._cleared):
                continue
            if len(found) == limit:
                break
            if entry.item is not None:
                found.append(entry.item)
            elif entry.stats is not None:
                stats = entry.stats
                found += [stats.item(each, entry.seq, state="open") for each in _open(stats, entry.number, now)]
        return found

    async def find(self, since: int, limit: int, wanted: Mapping[str, str], *, cleared: bool) -> list[tuple[int, str]]:
        """(seq, JSON) of entries as `history` gives them, but of all there ever were; `cleared` ones only if asked for.

        `wanted`: values of kind, state, target and path that they must have.
        """
        if self.journal is None:
            items = [item for item in self.history(since, self.max_history) if fits(item, wanted)]
            return [(item["seq"], json.dumps(item)) for item in items[:limit]]
        found = await self.journal.find(since, limit, wanted, 0 if cleared else self._cleared)
        live = {item["id"]: item for item in self.history() if item["state"] == "open"} if found else {}
        return [(seq, json.dumps(live[key]) if key in live else text) for seq, key, text in found]

    def note(self, kind: str, cause: str, start: float, end: float, more: Mapping[str, Any]) -> dict[str, Any]:
        """Enter a window or a note that somebody made, in Unix times; `more` is what else its item says.

        With the `id` of an earlier one it is what became of that.
        """
        self._seq += 1
        item = {**self._own_item(kind, cause, start, end, self._seq), **more}
        self._enter(Entry(self._seq, 0, None, item), item["id"])
        if self.journal is not None:
            self._write(item)
        return item

    def clear(self, now: float) -> dict[str, Any]:
        """Set a marker at `now` (Unix time): what ended before is listed no longer. It stays, and so do the numbers.

        Returns its item, which only the journal lists.
        """
        self.cleared_at = now
        self._cleared = self._seq
        for stats in self.stats.values():
            stats.clear(monotonic())
        self._seq += 1
        marker = self._own_item("window", "cleared", now, now, self._seq)
        if self.journal is not None:
            self._write(marker)
        return marker

    # -- over restarts

    async def save(self) -> None:
        """Wait until everything that was told so far is in the journal."""
        if self.journal is not None:
            await self.journal.save()

    async def save_now_and_then(self) -> None:
        """For ever: so that the journal says when we were last alive."""
        while True:
            self.list_short(time())
            await self.save()
            await asyncio.sleep(SAVE_SECONDS)

    async def snapshot(self) -> bytes:
        """All counters, packed; what was asked of each stream by the way is `surveyed`.

        Each stream at once: of thousands of lists that live until the last is read the collector would make a stall.
        """
        streams: dict[str, Any] = {}
        survey = Survey()
        async for lot in turns(list(self.stats.values()), LOT):
            for stats in lot:
                streams[stats.spec.key] = msgspec.Raw(msgspec.msgpack.encode(stats.saved()))
                survey.add(stats)
        self._surveyed = survey
        saved = Saved(
            streams,
            [
                SavedShape(
                    path,
                    protocol,
                    shape.durations.saved(),
                    shape.outages.saved(),
                    dict(shape.failures),
                    dict(shape.unknown),
                )
                for (path, protocol), shape in list(self.shapes.items())
            ],
            self.lag.saved(),
            dict(self.skipped),
            dict(self.gaps),
            self.stall_seconds,
            self.beside,
            self._seq,
        )
        return msgspec.msgpack.encode(saved)

    def surveyed(self) -> Survey:
        """What is asked of all streams at once, as it is or was just now; safe to call from another thread."""
        survey = self._surveyed
        if monotonic() - survey.at > JUST_NOW:
            survey = Survey()
            for lot in lots(list(self.stats.values()), LOT):
                for stats in lot:
                    survey.add(stats)
            self._surveyed = survey
        return survey

    def _resume(self, journal: Journal) -> None:
        """Go on where the process before us ended: its counters, its history, and what it left open."""
        before = journal.saved()
        if self._saved is not None:
            self._resume_shared(self._saved)
        since = before.seq if before else 0
        for row in journal.rows("seq > ? AND length(totals) > 0", (since,)):
            self._add_totals(row)
        for row in journal.rows(f"kind = 'window' AND {CLEARED}", newest=1):
            self._cleared, self.cleared_at = row.seq, row.at
        marks = journal.rows(f"kind IN ('window', 'phase') AND state = 'open' AND NOT {CLEARED}")
        over = journal.rows(f"state <> 'open' AND NOT (kind = 'window' AND {CLEARED})", newest=self.max_history)
        for row in sorted([*marks, *over]):
            self._enter(Entry(row.seq, 0, None, json.loads(row.item)), row.id)
        now = time()
        for row in journal.rows("state = 'open' AND kind NOT IN ('window', 'phase')"):
            self._truncate(row, now)
        alive = before.at if before else max((row.at for row in journal.rows(newest=1)), default=now)
        counted = self._saved.gaps_seq if self._saved else 0
        for row in journal.rows("seq > ? AND kind = 'gap'", (since,)):  # told by a process that ended before it saved
            item = json.loads(row.item)
            if item["cause"] in self.gaps and row.seq > counted:  # else it is one of a peer, or we have it
                self.gaps[item["cause"]] += item["duration"]["estimate"]
            alive = max(alive, row.at)
        if now > alive:
            self.gaps["restart"] += round(now - alive, 6)
            self.gap("restart", alive, now, slack=min(SAVE_SECONDS, now - alive))

    def _resume_shared(self, saved: Saved) -> None:
        self.lag.resume(saved.lag)
        self.stall_seconds = saved.stall_seconds
        self.skipped |= {key: count for key, count in saved.skipped.items() if key in self.skipped}
        self.gaps |= {key: length for key, length in saved.gaps.items() if key in self.gaps}
        for each in saved.shapes:
            shape = self.shapes.get((each.path, each.protocol))
            if shape is not None:
                shape.durations.resume(each.durations)
                shape.outages.resume(each.outages)
                shape.failures.update({key: count for key, count in each.failures.items() if key in shape.failures})
                shape.unknown.update({key: count for key, count in each.unknown.items() if key in shape.unknown})

    def _add_totals(self, row: Row) -> None:
        """What happened after the counters were saved last."""
        stats = self.stats.get(row.stream)
        if stats is None:
            return
        try:
            totals = msgspec.msgpack.decode(row.totals, type=Totals)
        except msgspec.DecodeError:
            return
        stats.resume(totals.stream)
        stats.shape.outages.resume(totals.outages)

    def _truncate(self, row: Row, now: float) -> None:
        """End an event that was open when the process before us ended; it may have lasted until now."""
        self._seq += 1
        item, stats = json.loads(row.item), self.stats.get(row.stream)
        known = stats.left_open.get(row.id) if stats else None
        length = item["duration"]
        if known is not None and known.kind:
            item["kind"] = known.kind
            length |= {"lower": round(known.lower, 6), "estimate": round(known.estimate, 6)}
        if known is not None:  # counted seconds never move
            length["estimate"] = max(length["estimate"], known.counted)
        length["upper"] = max(round(now - seconds(item["start"]["earliest"]), 6), length["estimate"])
        item |= {"seq": self._seq, "state": "truncated", "duration_sec": round(length["estimate"], 2)}
        self._enter(Entry(self._seq, 0, None, item), row.id)
        if stats is None:
            self._write(item)
            return
        stats.entered = self._seq
        stats.truncated(item, known.counted if known else 0.0)
        self._write(item, Totals(stats.saved(), stats.shape.outages.saved()))

    def _own_item(self, kind: str, cause: str, start: float, end: float, seq: int) -> dict[str, Any]:
        """An entry about ourselves, of the same form as all; times are Unix times."""
        length = round(end - start, 6)
        return {
            "seq": seq,
            "id": f"{self.journal_id[:8]}-{self.run}-0-{seq}",
            "kind": kind,
            "state": "closed",
            "stream": "",
            "name": self.self_source,
            "protocol": "",
            "source": self.reported_as,
            "reporter": self.identity.pod,
            "start_time": iso(start),
            "end_time": iso(end),
            "duration_sec": round(length, 2),
            "start": {"earliest": iso(start), "latest": iso(start)},
            "end": {"earliest": iso(end), "latest": iso(end)},
            "duration": {"lower": length, "estimate": length, "upper": length},
            "cause": cause,
            "causes": {},
            "before": {},
            "after": {},
            "unconfirmed": False,
            "stall_overlap": False,
        }

    # -- for pages and scrapes

    def connections(self) -> dict[str, dict[str, str]]:
        """An earlier system's view (see `status.connections`)."""
        return connections(self.stats.values())

    def status(self) -> list[dict[str, Any]]:
        """One dictionary for each stream (see `status.status`)."""
        return status(self.stats.values())

    def collect(self) -> Iterator[Metric]:
        """All families; safe to call from another thread (counts may be a probe apart from each other)."""
        return collect(self)
