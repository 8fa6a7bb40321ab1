"""Is a history in itself right? Entries in, one by one, what is wrong with them out. Pure.

1. Numbers rise, no entry is there twice, and what is over does not open again.
2. An entry says of itself what its columns say, has bounds in order, and an end if it is closed.
3. Times are compared on one clock only: bounds of one edge, and `mono`. Between start and end the wall clock may have
   been set.
4. What was open when its exporter ended is truncated by the next one: only the newest run has open entries.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from exporters import times
from exporters.history.items import Item, place, run_of

ROUNDING = 2e-6  # seconds; what is told is rounded to microseconds


class Checker:
    """Reads a history from its beginning; `add` tells what is wrong with an entry, `end` with the whole."""

    def __init__(self) -> None:
        self.entries = 0
        self.seq = 0
        self.newest_run = 0
        self._open: dict[str, int] = {}  # of each open entry, its run
        self._over: set[str] = set()

    def add(self, item: Item, columns: Mapping[str, Any] | None = None) -> Iterator[str]:
        """`columns`: what its journal has beside it, by name."""
        self.entries += 1
        yield from (f"seq {item.seq}: {wrong}" for wrong in self._wrongs(item, columns or {}))
        self.seq = max(self.seq, item.seq)
        run = run_of(item.id) or 0
        self.newest_run = max(self.newest_run, run)
        self._open.pop(item.id, None)
        if item.state == "open":
            self._open[item.id] = run
        else:
            self._over.add(item.id)

    def _wrongs(self, item: Item, columns: Mapping[str, Any]) -> Iterator[str]:
        if item.seq <= self.seq:
            yield f"comes after {self.seq}"
        if item.id in self._over and item.state == "open":
            yield f"{item.id} was over, and is open again"
        elif item.id in self._over | self._open.keys() and columns:
            yield f"{item.id} is there twice"
        told = {**{name: getattr(item, name) for name in ("seq", "id", "kind", "state", "stream")}, **_where(item)}
        for name, value in columns.items():
            if told[name] != value:
                yield f"{name} is {told[name]!r} in the entry and {value!r} beside it"
        yield from _lengths(item)
        yield from _edges(item)

    def end(self, newest_run: int = 0) -> Iterator[str]:
        """`newest_run`: how often the journal was opened, where that is known."""
        newest = max(newest_run, self.newest_run)
        for key, run in self._open.items():
            if 0 < run < newest:
                yield f"{key} is open, but run {run} is over: the newest is {newest}"


def _where(item: Item) -> dict[str, str]:
    where = place(item)
    return {"target": where["target"], "path": where["path"]}


def _lengths(item: Item) -> Iterator[str]:
    length = item.duration
    if not length.lower <= length.estimate + ROUNDING <= length.upper + 2 * ROUNDING:
        yield f"not lower <= estimate <= upper: {length.lower}, {length.estimate}, {length.upper}"


def _edges(item: Item) -> Iterator[str]:
    told = {
        "start_time": item.start_time,
        "end_time": item.end_time,
        "start.earliest": item.start.earliest,
        "start.latest": item.start.latest,
        "end.earliest": item.end.earliest,
        "end.latest": item.end.latest,
    }
    wall: dict[str, float] = {}
    for name, text in told.items():
        try:
            if text is not None:
                wall[name] = times.seconds(text)
        except (ValueError, OverflowError):
            yield f"{name} is no time: {text!r}"
            return
    if item.state == "closed" and any(wall.get(name) is None for name in ("end_time", "end.earliest", "end.latest")):
        yield "closed, and has no end"
    if item.state == "open" and "end_time" in wall:
        yield "open, and has an end"
    orders = [("start.earliest", "start_time", "start.latest"), ("end.earliest", "end.latest")]
    if item.mono is None:  # about the exporter itself: stamped by one clock
        orders.append(("start_time", "end_time"))
    for order in orders:
        known = [wall[name] for name in order if name in wall]
        if known != sorted(known) and max(known) - min(known) > ROUNDING:
            yield f"not in order: {' <= '.join(name for name in order if name in wall)}"
    yield from _mono(item)


def _mono(item: Item) -> Iterator[str]:
    mono = item.mono
    if mono is None or mono.end_latest is None:
        return
    if not (mono.start_earliest <= mono.start_latest and mono.end_earliest <= mono.end_latest):
        yield "not in order: an edge's earliest and latest on the monotonic clock"
    if mono.start_earliest > mono.end_latest:
        yield "it ends before it begins on the monotonic clock"
