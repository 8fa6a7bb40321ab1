"""Reads records, peers and marks into the page's state, step by step: what is as it was costs a comparison.

1. No event, and no state of a stream that belongs to one, is shown before the journal has it.
2. What peers tell is read once: a source that told nothing new since is passed over.
3. Other tasks have their turns: no step holds the loop for longer than some hundred comparisons.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any

from exporters.bastion import covered, state
from exporters.bastion.marks import Marks
from exporters.bastion.pull import Peer, Pull, Source
from exporters.bastion.watched import Watched
from exporters.journal import ReadError
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.verdict.coverage import Span, Watch

MOST_EVENTS = 2000
MOST_STREAMS = 20_000  # of peers' streams; peers are strangers
PER_TURN = 100
OPEN_SECONDS = 1.0  # between two looks at what is open
COVERAGE_SECONDS = 5.0
SUMMARY_SECONDS = 1.0
MOST_FINDINGS = 20
MOST_SOURCES = 100  # that left, and are remembered
MOST_SPANS = 20  # in which one of them was not there
WAIT_SECONDS = 2.0  # for the journal
STEADY_SECONDS = 1.0  # a peer's times jitter by less, as our notion of its clock does

Findings = Callable[[], Sequence[Mapping[str, Any]]]
Cell = tuple[str, float, str]
WORST = ("down", "frozen", "up", "unknown")


class View:
    """The state of one bastion's page; `look` tells what is to blame."""

    def __init__(self, record: Record, pull: Pull, marks: Marks, look: Findings) -> None:
        self._record = record
        self._pull = pull
        self._marks = marks
        self._look = look
        self.state = state.empty()
        self._about: dict[str, Any] = {}
        self._numbers: dict[str, str] = {}  # of streams, by key
        self._last = 0  # of the numbers
        self._named: dict[str, list[Any]] = {}  # streams, by number
        self._mesh: dict[str, Cell] = {}  # peers' cells, by number
        self._mesh_streams: dict[str, list[Any]] = {}
        self._told: dict[tuple[str, str], tuple[Source, bool]] = {}  # by peer and source: what of it was read last
        self._parts: dict[tuple[str, str], dict[str, Cell]] = {}
        self._began: dict[str, float] = {}  # by number: since when the stream is watched
        self._watched: dict[str, Watched] = {}  # streams of ours, by number
        self._reached: dict[str, float] = {}  # by number: since when the target is known to have been there
        self._unfresh: dict[tuple[str, str], tuple[float, str]] = {}  # since when no word counts, and the journal then
        self._absent: dict[str, list[Span]] = defaultdict(list)  # by source, when it did not observe as far as we know
        self._left: dict[str, float] = {}  # sources that are there no more, and since when
        self._heard = -1  # version
        self._seq = 0
        self._unread = ""  # why the journal could not be read
        self._opened = -inf
        self._covered = -inf
        self._marked = -1
        self._summed = -inf
        self._started = self._since = time.time()
        self.left_out = 0  # streams of peers that are too many
        self._read_journal()
        self.about(source=record.self_source, started=round(self._since))

    def _read_journal(self) -> None:
        """The newest events of the processes before us."""
        if self._record.journal is None:
            return
        rows = self._record.journal.rows("kind NOT IN ('window', 'note')", newest=MOST_EVENTS)
        self.state["events"] = {row.id: state.event(json.loads(row.item)) for row in rows}
        self._seq = rows[-1].seq if rows else 0
        self._since = min([self._since, *(row.at for row in rows[:1])])

    def about(self, **facts: Any) -> None:
        """What is said of the bastion itself."""
        self._about.update(facts)

    async def step(self) -> dict[str, Any] | None:
        """Bring the state up to date; what changed, None if nothing."""
        before = dict(self.state)
        now, wall = monotonic(), time.time()
        await self._cells(now, wall)
        await self._events(now)
        self._read_marks()
        await self._facts(before, now, wall)
        return state.diff(before, self.state)

    # -- streams and peers

    async def _cells(self, now: float, wall: float) -> None:
        streams: dict[str, list[Any]] = {}
        cells: dict[str, Cell] = {}
        before = self.state["cells"]
        for place, (key, stats) in enumerate(list(self._record.stats.items())):
            number = self._number(f"out|{key}")
            if number not in self._named:
                self._named[number] = _own_stream(stats)
                self._watch(number, stats, now, wall)
            elif self._named[number][-1] != stats.spec.interval:  # a reload has changed it
                self._named[number] = _own_stream(stats)
                self._watched[number].slack = _slack(stats)
            streams[number] = self._named[number]
            cells[number] = _own_cell(stats, before.get(number), now, wall)
            if stats.seen():
                self._reached[number] = stats.reached
            if place % PER_TURN == PER_TURN - 1:
                await asyncio.sleep(0)
        if await self._ask_peers(now, wall):
            self._merge()
        streams |= self._mesh_streams
        if self._named.keys() - streams.keys():
            self._numbers = {key: number for key, number in self._numbers.items() if number in streams}
            self._named = {number: self._named[number] for number in streams}
            self._began = {number: self._began[number] for number in streams}
            self._watched = {number: each for number, each in self._watched.items() if number in streams}
            self._reached = {number: since for number, since in self._reached.items() if number in streams}
        self._put("streams", streams)
        self._put("cells", cells | self._mesh)
        self._put("peers", {peer.name: _peer(peer) for peer in (*self._pull.known(), *self._pull.journals())})

    def _watch(self, number: str, stats: Stats, now: float, wall: float) -> None:
        """Account for what is observed of a stream from its beginning, and that of the processes before us."""
        clock = self._record.clock(now)
        begin, observed = stats.began or (clock, 0.0)
        self._began[number] = self._since if observed else wall - (clock - begin)
        self._watched[number] = Watched(begin, observed, _slack(stats))

    async def _ask_peers(self, now: float, wall: float) -> bool:
        """Read what each source told since; whether any of it is new."""
        there: set[tuple[str, str]] = set()
        changed = False
        for peer in self._pull.known():
            fresh = self._pull.lately(peer, now) if peer.heard and peer.sources else {}
            for name, source in list(peer.sources.items()):
                place = (peer.name, name)
                there.add(place)
                seen = (source, name in fresh)
                if self._told.get(place) == seen:
                    continue
                self._told[place] = seen
                told = wall - (now - source.at)
                since = told if peer.heard else peer.since
                self._account(place, source, fresh=seen[1], since=since, wall=wall)
                was = self._parts.get(place, {})
                part = self._read(source, was, (peer.since, told), None if seen[1] else since)
                changed = changed or part != was
                self._parts[place] = part
                await asyncio.sleep(0)
        for place in self._parts.keys() - there:
            since, _ = self._unfresh.pop(place, (wall, ""))
            if place[0] in self._pull.peers:  # else nobody asks for it any more
                self._left[place[1]] = since
            del self._told[place], self._parts[place]
            changed = True
        self._left = dict(list(self._left.items())[-MOST_SOURCES:])
        return changed

    def _account(self, place: tuple[str, str], source: Source, *, fresh: bool, since: float, wall: float) -> None:
        """When did a source not observe? One that comes back with its journal tells it by itself."""
        if not fresh:
            self._unfresh.setdefault(place, (since, source.journal))
            return
        name = place[1]
        since, journal = self._unfresh.pop(place, (self._left.get(name, wall), source.journal))
        self._left.pop(name, None)
        if since < wall and journal != source.journal:
            self._absent[name] = [*self._absent[name], Span(since, wall, "silent")][-MOST_SPANS:]
            self._absent = defaultdict(list, list(self._absent.items())[-MOST_SOURCES:])

    def _read(
        self, source: Source, before: Mapping[str, Cell], heard: tuple[float, float], unknown_since: float | None
    ) -> dict[str, Cell]:
        """The cells of one source, `heard` since when and last; `unknown_since`: its word counts no more."""
        part: dict[str, Cell] = {}
        for _, seen, observed, reached in source.streams:
            number = self._number(f"in|{seen.source}|{seen.target}|{seen.path}|{seen.protocol}|{seen.family}")
            if number not in self._named:
                self._named[number] = ["in", seen.source, seen.target, seen.path, seen.protocol, seen.family, 0]
                # What it observed before we heard it counts: its gaps are in its history.
                self._began[number] = min(heard[0], heard[1] - observed)
            was = before.get(number)
            if unknown_since is not None:
                part[number] = was if was and was[0] == "unknown" else ("unknown", round(unknown_since, 3), "")
                continue
            cell = (seen.state, round(seen.since, 3), seen.cause)
            if seen.state != "unknown":
                self._reached[number] = min(self._reached.get(number, reached), reached)
            same = was is not None and was[::2] == cell[::2] and abs(was[1] - cell[1]) < STEADY_SECONDS
            part[number] = was if was is not None and same else cell
        return part

    def _merge(self) -> None:
        """All sources' cells. What two tell of one stream is the worse of it: nobody can hide what another sees."""
        mesh: dict[str, Cell] = {}
        self.left_out = 0
        for part in self._parts.values():
            if len(mesh) >= MOST_STREAMS:  # nobody makes this take long
                self.left_out += len(part)
                continue
            for number, cell in part.items():
                known = mesh.get(number)
                if number not in self._named:
                    continue  # was left out before; its source is read again soon
                if known is None or WORST.index(cell[0]) < WORST.index(known[0]):
                    mesh[number] = cell
        self.left_out += max(0, len(mesh) - MOST_STREAMS)
        self._mesh = dict(list(mesh.items())[:MOST_STREAMS])
        self._mesh_streams = {number: self._named[number] for number in self._mesh}

    def _number(self, key: str) -> str:
        if key not in self._numbers:
            self._last += 1
            self._numbers[key] = str(self._last)
        return self._numbers[key]

    def _put(self, section: str, values: Mapping[str, Any]) -> None:
        """What is as it was stays the very same."""
        if values != self.state[section]:
            self.state[section] = values

    # -- events

    async def _events(self, now: float) -> None:
        events: dict[str, Any] = dict(self.state["events"])
        await self._settled()
        await self._read_own(events)
        for place, entry in enumerate(self._pull.heard.changed(self._heard)):
            shown = entry.shown
            key = f"{shown['journal']}/{shown['id']}"
            events[key] = {**state.event(shown, entry.offset), "via": entry.peer}
            self._heard = max(self._heard, entry.version)
            if place % PER_TURN == PER_TURN - 1:
                await asyncio.sleep(0)
        if now - self._opened >= OPEN_SECONDS:
            self._opened = now
            await self._look_at_open(events, now)
        if len(events) > MOST_EVENTS:
            events = state.newest(events, MOST_EVENTS)
        self._put("events", events)

    async def _read_own(self, events: dict[str, Any]) -> None:
        """What the journal has that is new. While it cannot be read, this is put off, and said."""
        self._unread = ""
        while self._seq < (served := self._record.served):
            try:
                found = await self._record.find(self._seq, PER_TURN, {}, cleared=True)
            except ReadError as error:
                self._unread = f"not read: {error}"
                return
            items = [json.loads(text) for _, text in found]
            events |= {item["id"]: state.event(item) for item in items if item["kind"] not in ("window", "note")}
            # What is served by now may not be in it.
            self._seq = max([seq for seq, _ in found], default=served)

    async def _look_at_open(self, events: dict[str, Any], now: float) -> None:
        """What is open may turn out to be of another kind, or have another cause."""
        for place, stats in enumerate(list(self._record.troubled)):
            for each in stats.unfinished(now):
                key = stats.event_id(each.number)
                if key in events and events[key]["end"] is None:
                    events[key] = state.event(stats.item(each, 0, state="open"))
            if place % PER_TURN == PER_TURN - 1:
                await asyncio.sleep(0)

    async def _settled(self) -> None:
        """Wait until what happened so far may be told."""
        seq, deadline = self._record.seq, monotonic() + WAIT_SECONDS
        while self._record.served < seq and monotonic() < deadline:  # noqa: ASYNC110 - told by no event
            await asyncio.sleep(0.005)

    def _read_marks(self) -> None:
        if self._marks.version != self._marked:
            self._marked = self._marks.version
            self._put("marks", {key: state.mark(item) for key, item in self._marks.items.items()})

    # -- facts

    async def _facts(self, before: Mapping[str, Any], now: float, wall: float) -> None:
        facts = {**self.state["facts"], "about": dict(self._about)}

        def other(*sections: str) -> bool:
            return any(self.state[each] is not before[each] for each in sections)

        facts["look"] = state.findings(self._look())[:MOST_FINDINGS]
        trouble = self._record.journal.trouble if self._record.journal else ""
        trouble = trouble or self._unread
        facts["watcher"] = {"journal": trouble, "left_out": self.left_out}
        if "verdict" not in facts or other("cells", "streams", "peers"):
            facts["verdict"] = self._verdict()
        about = state.period(self.state["marks"].values(), self._since, wall)
        if other("events", "marks") or now - self._summed >= SUMMARY_SECONDS:
            self._summed = now
            events = list(self.state["events"].values())
            facts["summary"] = state.summary(events, about, wall)
            if "windows" not in facts or other("events", "marks"):
                facts["windows"] = state.windows(self.state["marks"], events, wall)
        if now - self._covered >= COVERAGE_SECONDS:
            self._covered = now
            facts["coverage"] = await self._coverage(about.begin, now, wall)
        self._put("facts", facts)

    def _verdict(self) -> dict[str, Any]:
        sides: dict[str, list[Any]] = {"out": [], "in": []}
        for number, cell in self.state["cells"].items():
            sides[self.state["streams"][number][0]].append(cell)
        unheard = [peer.name for peer in self._pull.known() if peer.heard is False]
        return state.verdict(state.counted(sides["out"]), state.counted(sides["in"]), unheard)

    async def _coverage(self, begin: float, now: float, wall: float) -> dict[str, Any] | None:
        """None where it cannot be said yet."""
        if wall - begin < COVERAGE_SECONDS:
            return None
        silent = ((name, Watch(begin, since)) for name, since in self._silent(wall))
        watches = covered.gathered(self._seen(begin, now, wall), silent, begin)
        # Many paths times many sources take longer to compare than a probe may be late.
        return await asyncio.to_thread(covered.coverage, watches, Span(begin, wall))

    def _silent(self, wall: float) -> list[tuple[str, float]]:
        """Sources that say nothing, and since when: those that left, those that were heard, and peers never heard."""
        unheard = {peer.name: peer.since for peer in self._pull.known() if peer.heard is False and not peer.sources}
        quiet = {name: since for (_, name), (since, _) in self._unfresh.items()}
        return [(name, min(since, wall)) for name, since in {**self._left, **unheard, **quiet}.items()]

    def _seen(self, begin: float, now: float, wall: float) -> Iterator[covered.Seen]:
        """What each stream's source saw since `begin`. What our own process did not, its streams know best."""
        gaps: dict[str, list[Span]] = defaultdict(list)
        ours, clock = self._record.self_source, self._record.clock(now)
        for name, spans in self._absent.items():
            gaps[name] += spans
        for each in self.state["events"].values():
            end = (each["end"] or [wall, wall])[1]
            before_us = each["name"] != ours or end < self._started + 1
            if each["kind"] == "gap" and each["stream"] is None and end > begin and before_us:
                gaps[each["name"]].append(Span(each["start"][0], end, each["cause"]))
        for key, stats in self._record.stats.items():
            watched = self._watched.get(self._numbers.get(f"out|{key}", ""))
            if watched is not None:
                watched.tell(clock, wall, stats.observed_seconds)
        for number, (side, source, target, path, *_) in self.state["streams"].items():
            lost = self._watched[number].spans if side == "out" else self._unknown(number, wall)
            known = ours if side == "out" else source
            watch = Watch(self._began[number], wall, (*gaps[known], *lost))
            yield covered.Seen(known, (target, path), self._reached.get(number), watch)

    def _unknown(self, number: str, wall: float) -> list[Span]:
        word, since, _ = self.state["cells"][number]
        return [Span(since, wall, "unknown")] if word == "unknown" and since < wall else []


def _slack(stats: Stats) -> float:
    """Seconds that may not be counted as observed yet."""
    return stats.spec.interval + stats.spec.prompt + STEADY_SECONDS / 2


def _own_stream(stats: Stats) -> list[Any]:
    spec = stats.spec
    return ["out", spec.source, spec.target, spec.path, spec.protocol, spec.family, spec.interval]


def _own_cell(stats: Stats, before: Cell | None, now: float, wall: float) -> Cell:
    if stats.watching(now):
        if before and before[0] == stats.now_state and before[2] == stats.cause and before[1] == round(stats.since, 3):
            return before
        return stats.now_state, round(stats.since, 3), stats.cause
    if before and before[0] == "unknown":
        return before
    return "unknown", round(wall - (now - stats.decided) if stats.decided else stats.since, 3), ""


def _peer(peer: Peer) -> dict[str, Any]:
    return {
        "heard": peer.heard,
        "since": round(peer.since, 3),
        "url": "" if peer.heard else peer.url or peer.ways[0].url,
        "error": "" if peer.heard else peer.error,
        "sources": sorted(peer.sources),
        **({"journal": True} if peer.journal else {}),
    }
