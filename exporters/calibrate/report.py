"""What `ovnwatch calibrate` says: a table for people, JSON for machines. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from exporters.calibrate.judge import Cell, Row
from exporters.calibrate.measure import Measured, Wanted
from exporters.calibrate.promises import Broken, Times, busy, due, verdict

HEAD = (  # as wide as _line
    f"{'fault':16} {'protocol':8} {'n':>4}  {'known':>5}  {'seen':>4}  {'due':>7}  {'bias (± s.e.)':>14}  "
    f"{'|error| p50/p95':>17}  {'true':>5}  {'edges':>5}  {'width p50':>9}  {'detected p50/p95':>16}  {'false':>5}"
)
LEGEND = (
    "n: interruptions times streams; known: those whose truth is; all that follows is of these. seen: % of all; due:",
    "of those that had to be. bias: estimate less truth, the unseen as 0; true, edges: % of bounds that hold the",
    "duration, and start and end. Times are milliseconds.",
)
RELAY = (
    "A relay freezes like a peer and cannot lose packets of a path: it refuses, resets and freezes, and its server is",
    "killed. As root, --method=namespaces drops (both ways, one way), rejects and cuts links too.",
)


class Said(NamedTuple):
    """All that a report is about."""

    method: str
    wanted: Wanted
    measured: Measured
    times: Mapping[str, Times]
    broken: Sequence[Broken]


def text(said: Said) -> str:
    """The table, what it is of, and the verdict."""
    measured = said.measured
    lines = [HEAD, *(_line(*each) for each in _cells(said)), *LEGEND, ""]
    lines += RELAY if said.method == "relay" else ()
    outside = [each for each in measured.table.false if not any(each in row.wrong for row in measured.table.rows)]
    slow = sum(map(busy, measured.table.false))
    lines.append(
        f"{measured.streams} streams, {measured.seconds:.0f} s, seed {said.wanted.seed}; seen outside of any "
        f"interruption: {len(outside)}, of all false ones {slow} a peer slow once; not judged, for something else "
        f"happened too: {len(measured.table.excused)}"
    )
    slow_paths = {row.stream for row in measured.table.rows if row.slow}
    stalled = f"machine stalled {100 * measured.stalled:.2f} % of the time"
    lines.append(f"{stalled}; {len(slow_paths)} streams took their path for slow")
    lines += [f"not injected: {reason}" for reason in measured.failed]
    return "\n".join([*lines, "", *verdict_lines(said)])


def verdict_lines(said: Said) -> list[str]:
    """The verdict, and every promise that was not kept, by its cell."""
    lines = []
    for each in said.broken:
        where = " ".join(filter(None, (each.fault, each.protocol)))
        lines.append(f"{where}: {each.text}" + (f" (not judged: {each.not_judged})" if each.not_judged else ""))
    words = {
        "pass": "PASS: every promise was kept",
        "fail": f"FAIL: {sum(each.judged for each in said.broken)} promises were not kept",
        "inconclusive": "INCONCLUSIVE: not all could be judged",
    }
    return [*lines, words[verdict(said.broken)]]


def data(said: Said) -> dict[str, Any]:
    """The same for machines; times in seconds."""
    measured = said.measured
    return {
        "verdict": verdict(said.broken),
        "method": said.method,
        "seed": said.wanted.seed,
        "streams": measured.streams,
        "seconds": round(measured.seconds, 3),
        "stalled_share": round(measured.stalled, 6),
        "times": {protocol: times._asdict() for protocol, times in said.times.items()},
        "cells": [_data(*each) for each in _cells(said)],
        "broken": [each._asdict() for each in said.broken],
        "false": [dict(each) for each in measured.table.false],
        "slow_streams": sorted({row.stream for row in measured.table.rows if row.slow}),
        "excused": len(measured.table.excused),
        "not_injected": list(measured.failed),
    }


Named = tuple[str, str, Cell, tuple[int, int]]


def _cells(said: Said) -> list[Named]:
    """Fault, protocol, numbers, and (seen, all) of those that had to be seen; in the order of the faults."""
    table = said.measured.table
    rows = table.by(lambda row: (row.injection.kind, row.protocol))
    found = [(*key, cell, _due(rows[key], said.times[key[1]])) for key, cell in table.cells().items()]
    order = list(said.wanted.faults)
    return sorted(found, key=lambda each: (order.index(each[0]), each[1]))


def _due(rows: Sequence[Row], times: Times) -> tuple[int, int]:
    asked = [row for row in rows if row.known and due(row, times)]
    return sum(row.seen for row in asked), len(asked)


def _line(fault: str, protocol: str, cell: Cell, asked: tuple[int, int]) -> str:
    bias = "-" if cell.bias is None else f"{cell.bias[0] * 1e3:+.1f} ± {cell.bias[1] * 1e3:.1f}"
    width = "-" if cell.width is None else f"{cell.width[0] * 1e3:.0f}"
    return (
        f"{fault:16} {protocol:8} {cell.n:4}  {cell.known:5}  {_percent(cell.seen, cell.known):>4}  "
        f"{'/'.join(map(str, asked)):>7}  {bias:>14}  {_pair(cell.error):>17}  "
        f"{_percent(cell.held, cell.seen):>5}  {_percent(cell.edges, cell.seen):>5}  {width:>9}  "
        f"{_pair(cell.delay):>16}  {cell.wrong:5}"
    )


def _data(fault: str, protocol: str, cell: Cell, asked: tuple[int, int]) -> dict[str, Any]:
    return {
        "fault": fault,
        "protocol": protocol,
        "injected": cell.n,
        "known": cell.known,
        "seen": cell.seen,
        "due": asked[1],
        "due_seen": asked[0],
        "bias": _named(cell.bias, "mean", "standard_error"),
        "absolute_error": _named(cell.error, "p50", "p95"),
        "bounds_true": cell.held,
        "edges_true": cell.edges,
        "split": cell.split,
        "width": _named(cell.width, "p50", "p95"),
        "detection": _named(cell.delay, "p50", "p95"),
        "false": cell.wrong,
    }


def _named(pair: tuple[float, float] | None, *names: str) -> dict[str, float] | None:
    return None if pair is None else {name: round(value, 6) for name, value in zip(names, pair, strict=True)}


def _percent(part: int, whole: int) -> str:
    """Rounded down: 100 is all."""
    return "-" if not whole else f"{1000 * part // whole / 10:g}"


def _pair(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{pair[0] * 1e3:.0f}/{pair[1] * 1e3:.0f}"
