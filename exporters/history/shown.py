"""Entries of a history as text for people and programs: a table, CSV, JSON and lines of JSON. Pure.

Names in a history come from elsewhere: nothing in them reaches a terminal as control characters, or a spreadsheet as
a formula.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from exporters import times
from exporters.history.items import Duration, Item, Read, place
from exporters.plain import plain

LONGEST = 48  # characters of a cell in the table
COLUMNS = ("START", "LENGTH", "KIND", "STATE", "SOURCE", "TARGET", "PATH/PROTOCOL", "CAUSE")
MADE = ("window", "phase")  # no measurement: while they are open nobody counts
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell


def table(entries: Iterable[Read], now: float) -> Iterator[str]:
    """A heading and a line for each entry, in columns; the widths need all of them."""
    yield from columns([COLUMNS, *(_cells(each.item, now) for each in entries)])


def lasts(item: Item, now: float) -> Duration:
    """How long an entry lasts: what somebody opened and has not closed, until `now` (Unix time)."""
    if item.state != "open" or item.kind not in MADE:
        return item.duration
    seconds = max(0.0, round(now - times.seconds(item.start_time), 6))
    return Duration(seconds, seconds, seconds)


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, its cells below those of the other rows."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


def _cells(item: Item, now: float) -> Sequence[str]:
    where = place(item)
    length = lasts(item, now)
    family = "" if where["family"] == "4" else f" IPv{where['family']}"
    how = f"{where['path']}/{where['protocol']}{family}"
    cells = (
        item.start_time.replace("+00:00", "Z"),
        f"{length.estimate:.3f} s ({length.lower:.3f}..{length.upper:.3f})",
        item.kind + (" ?" if item.unconfirmed else ""),
        item.state,
        where["source"],
        where["target"] or "-",
        how if where["path"] else "-",
        item.text or item.cause + (", while we stalled" if item.stall_overlap else ""),
    )
    return [_short(plain(each)) for each in cells]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


# The columns of CSV.
CSV: dict[str, Callable[[Item], object]] = {
    "seq": lambda item: item.seq,
    "id": lambda item: item.id,
    "kind": lambda item: item.kind,
    "state": lambda item: item.state,
    **{
        part: lambda item, part=part: place(item)[part]  # type: ignore[misc]
        for part in ("source", "target", "path", "protocol", "family")
    },
    "start_time": lambda item: item.start_time,
    "start_earliest": lambda item: item.start.earliest,
    "start_latest": lambda item: item.start.latest,
    "end_time": lambda item: item.end_time,
    "end_earliest": lambda item: item.end.earliest,
    "end_latest": lambda item: item.end.latest,
    "lower_seconds": lambda item: item.duration.lower,
    "estimate_seconds": lambda item: item.duration.estimate,
    "upper_seconds": lambda item: item.duration.upper,
    "cause": lambda item: item.cause,
    "text": lambda item: item.text,
    "unconfirmed": lambda item: str(item.unconfirmed).lower(),
    "stall_overlap": lambda item: str(item.stall_overlap).lower(),
    "reporter": lambda item: item.reporter,
}


def as_csv(entries: Iterable[Read], now: float) -> Iterator[str]:
    """RFC 4180 with a heading; a cell that a spreadsheet would compute begins with an apostrophe."""
    yield _line(CSV)
    for each in entries:
        item = msgspec.structs.replace(each.item, duration=lasts(each.item, now))
        yield _line(_safe(read(item)) for read in CSV.values())


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def _safe(value: object) -> object:
    if not isinstance(value, str):
        return value
    return f"'{plain(value)}" if value.startswith(FORMULAS) else plain(value)


def as_json(entries: Iterable[Read], _: float) -> Iterator[str]:
    """One array, all that the entries say, as they say it."""
    before = "["
    for each in entries:
        yield f"{before}\n{line(each.whole)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def as_lines(entries: Iterable[Read], _: float) -> Iterator[str]:
    """JSON, an entry a line."""
    return (f"{line(each.whole)}\n" for each in entries)


def line(value: Any) -> str:
    """JSON that a terminal shows as it is."""
    return json.dumps(value).replace("\x7f", "\\u007f")


# To add a form: a function of entries and the time, and a line here.
FORMS: dict[str, Callable[[Iterable[Read], float], Iterator[str]]] = {
    "table": table,
    "csv": as_csv,
    "json": as_json,
    "ndjson": as_lines,
}
