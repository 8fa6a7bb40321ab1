"""A window's report: what sources told in, one document out, which every form of it shows. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Any, NamedTuple

from alerts.report.read import Told, about, nodes
from exporters import times
from exporters.history.items import Item
from exporters.verdict.budget import Cost, Limits, cost, judge, left, of_turn, turns
from exporters.verdict.coverage import Covered, Span, Watch, cover
from exporters.verdict.explain import OUTSIDE, Event, Explained, Outage, Phase, explain

COSTS = frozenset({"outage", "blip"})
EVENT = "event"  # the cause of a phase entry that happened and did not last
ENDS = ("open", "truncated", "closed")  # what is known of an entry's end, the least first
SILENT = 300.0  # seconds for which the last word of who tells phases counts, as that of a cluster does
VERDICTS = ("expected", "collateral", "unexplained", "observer")


class Window(NamedTuple):
    """What the report is about."""

    name: str
    span: Span
    budget: float | None = None


class NoWindowError(Exception):
    """There is no such window; args[0] says what there is."""


def named(said: Sequence[Told], name: str) -> Window:
    """The newest window of that name; one that is open ends with the last sign of life. Raises NoWindowError."""
    found = [item for each in said for item in each.items if item.kind == "window" and item.cause == "named"]
    fitting = [item for item in found if item.text == name]
    if not fitting:
        known = ", ".join(sorted({item.text for item in found})[:20])
        raise NoWindowError(f"no window {name!r}" + (f", there are {known}" if known else ", there is none at all"))
    item = max(fitting, key=lambda each: times.seconds(each.start_time))
    last = max(each.alive for each in said)
    end = times.seconds(item.end_time) if item.end_time else last
    begin = times.seconds(item.start_time)
    if end <= begin:
        raise NoWindowError(f"window {name!r} has no length yet")
    return Window(name, Span(begin, end), item.budget_seconds)


def report(said: Sequence[Told], window: Window, limits: Limits) -> dict[str, Any]:
    """All there is to tell of a window; times are ISO 8601, `seconds` [lower, estimate, upper]."""
    where = nodes(said)
    items = _once(said)
    phases = _phases(items, _known_until(said, window))
    events = _events(items, where)
    keys = {one.key for each in said for one in each.streams}
    inside = _inside(said, where)
    streams = {(key[0], key[1], inside.get(key[1], "") if key[2] not in OUTSIDE else "") for key in keys}
    alive = max((each.alive for each in said), default=window.span.end)
    broken = [_outage(item, where, alive) for item in items if item.kind in COSTS]
    found = explain([each for each in broken if _meets(each, window.span)], phases, events, streams)
    covered = _covered(said, window.span)
    judged = judge(found, phases, covered, window.span, limits)
    everything = [item for item in items if _meets(_outage(item, where, alive), window.span)]
    return {
        "verdict": judged.verdict,
        "window": {**_when(window.span), "name": window.name, "seconds": window.span.end - window.span.begin},
        "checks": [{**each._asdict(), "spent": _cost(each.spent)} for each in judged.checks],
        "inconclusive_because": list(judged.missing),
        "seconds": _cost(cost((each.outage for each in found), window.span)),
        "unexplained_seconds": _cost(left(found, window.span)),
        "longest": _longest(found, window.span),
        "explained": {word: sum(each.verdict == word for each in found) for word in VERDICTS},
        "totals": _totals(found, said, everything, window.span),
        "connections": _connections(everything),
        "turns": [
            {
                "node": turn.node,
                **_when(Span(turn.begin, turn.end)),
                "phases": list(turn.phases),
                "outages": len(of := of_turn(turn, found)),
                "seconds": _cost(cost(of, window.span)),
            }
            for turn in turns(phases)
            if turn.begin < window.span.end and turn.end > window.span.begin
        ],
        "coverage": [_share(path, each) for path, each in sorted(covered.items())],
        "phases": [
            {"name": each.name, "node": each.node, **_when(Span(each.begin, each.end))}
            for each in phases
            if each.begin < window.span.end and each.end > window.span.begin
        ],
        "events": [
            {"name": each.name, "node": each.node, **_when(Span(each.earliest, each.latest))}
            for each in events
            if each.earliest < window.span.end and each.latest > window.span.begin
        ],
        "outages": [_told(each) for each in found],
        "sources": sorted(each.name for each in said),
    }


def from_baseline(said: Sequence[Told], window: Window, base: Window) -> Limits:
    """What an ordinary time of the window's length would have cost: the noise to hold a window against."""
    where, alive = nodes(said), max(each.alive for each in said)
    outages = [_outage(item, where, alive) for each in said for item in each.items if item.kind in COSTS]
    met = [each for each in outages if _meets(each, base.span)]
    share = (window.span.end - window.span.begin) / (base.span.end - base.span.begin)
    paths = {key[2] for each in said for key in (one.key for one in each.streams)}
    return Limits(
        paths={
            path: share * cost((each for each in met if each.path == path), base.span).upper for path in sorted(paths)
        },
        longest=max((cost([each], base.span).upper for each in met), default=0.0),
    )


# Entries as the verdict wants them.


def _inside(said: Iterable[Told], where: Mapping[str, str]) -> dict[str, str]:
    """By target its node; where nobody ever told one it stands for it, for it is in the cluster all the same.

    Of a target that was told of several nodes it is left open which one.
    """
    streams = [one for each in said for one in each.streams]
    nameless = {one.key[1] for one in streams} - {one.key[1] for one in streams if one.node}
    return {**{name: name for name in nameless}, **where}


def _outage(item: Item, where: Mapping[str, str], alive: float) -> Outage:
    source, target, path, protocol, _ = about(item)
    begin = times.seconds(item.start_time)
    first = times.seconds(item.start.earliest or item.start_time)
    last = times.seconds(item.start.latest or item.start_time)
    end = max(begin + item.duration.estimate, alive if item.state == "open" else begin)
    answered = {who["node"] for who in (item.before, item.after) if who.get("node")}
    return Outage(
        id=item.id,
        source=source,
        target=target,
        path=path,
        protocol=protocol,
        begin=begin,
        end=end,
        source_node=where.get(source, source),
        nodes=frozenset(answered or {where.get(target, target)} - {""}),
        stall_overlap=item.stall_overlap,
        inner=(last, max(last, last + item.duration.lower)),
        outer=(first, max(first + item.duration.upper, end)),
    )


def _once(said: Iterable[Told]) -> list[Item]:
    """Two may tell of one entry, as a bastion does of a migration exporter's; a copy may be behind, and still open."""
    found: dict[str, Item] = {}
    for item in (item for each in said for item in each.items):
        before = found.setdefault(item.id, item)
        if ENDS.index(item.state) > ENDS.index(before.state):
            found[item.id] = item
    return [*found.values()]


def _known_until(said: Iterable[Told], window: Window) -> dict[str, float]:
    """By id, how long what is open lasted as far as is known: not longer than the last sign of life of who tells it."""
    found: dict[str, float] = {}
    for each in said:
        silent = 0 < each.alive < window.span.end - SILENT
        for item in each.items:
            if item.state == "open":
                found[item.id] = max(found.get(item.id, -inf), each.alive if silent else inf)
    return found


def _phases(items: Iterable[Item], known_until: Mapping[str, float]) -> list[Phase]:
    found = []
    for item in items:
        if item.kind == "phase" and item.cause != EVENT:
            begin = times.seconds(item.start_time)
            end = times.seconds(item.end_time) if item.end_time else max(begin, known_until.get(item.id, inf))
            if item.state == "truncated":  # who told of it ended: until then it is known
                end = begin + item.duration.estimate
            found.append(Phase(item.text, begin, end, item.node, item.rolls))
    return sorted(found, key=lambda each: (each.begin, each))


def _events(items: Iterable[Item], where: Mapping[str, str]) -> list[Event]:
    found = []
    for item in items:
        rebooted = item.kind == "gap" and item.cause == "peer_reboot"
        if rebooted or (item.kind == "phase" and item.cause == EVENT):
            target = about(item)[1]
            node = where.get(target, target) if rebooted else item.node
            begin = times.seconds(item.start.earliest or item.start_time)
            end = times.seconds(item.end.latest or item.end_time or item.start_time)
            found.append(Event("reboot" if rebooted else item.text, node, begin, max(begin, end)))
    return sorted(set(found), key=lambda each: (each.earliest, each))


def _covered(said: Sequence[Told], window: Span) -> dict[tuple[str, str], Covered]:
    watches: defaultdict[tuple[str, str], list[Watch]] = defaultdict(list)
    for each in said:
        for stream in each.streams:
            watches[stream.key[1], stream.key[2]].append(stream.watch)
    return cover(watches, window)


def _meets(outage: Outage, window: Span) -> bool:
    return outage.begin < window.end and outage.end >= window.begin


# And the verdict as a document.


def _cost(spent: Cost) -> list[float]:
    return [round(each, 3) for each in spent]


def _when(span: Span) -> dict[str, str | None]:
    return {"begin": times.iso(span.begin), "end": None if span.end == inf else times.iso(span.end)}


def _share(path: tuple[str, str], covered: Covered) -> dict[str, Any]:
    gaps = [{**_when(each), "reason": each.reason} for each in covered.gaps[:20]]
    noted = [{**_when(each), "reason": each.reason} for each in covered.noted[:20]]
    return {"target": path[0], "path": path[1], "share": covered.share, "gaps": gaps, "noted": noted}


def _longest(found: Sequence[Explained], window: Span) -> dict[str, Any] | None:
    longest = max(found, key=lambda each: cost([each.outage], window).estimate, default=None)
    return None if longest is None else _told(longest)


def _told(each: Explained) -> dict[str, Any]:
    outage = each.outage
    return {
        "id": outage.id,
        **{name: getattr(outage, name) for name in ("source", "target", "path", "protocol")},
        **_when(Span(outage.begin, outage.end)),
        "seconds": _cost(cost([outage], Span(-inf, inf))),
        "nodes": sorted(outage.touched),
        "verdict": each.verdict,
        "node": each.node,
        "evidence": list(each.evidence),
        "left_seconds": round(each.left, 3),
    }


def _totals(
    found: Sequence[Explained], said: Sequence[Told], items: Sequence[Item], window: Span
) -> list[dict[str, Any]]:
    """By path and protocol, all that were probed."""
    streams = {stream.key for each in said for stream in each.streams} | {about(item) for item in items if item.stream}
    rows = []
    for path, protocol in sorted({(key[2], key[3]) for key in streams}):
        outages = [each.outage for each in found if (each.outage.path, each.outage.protocol) == (path, protocol)]
        kinds = [item.kind for item in items if about(item)[2:4] == (path, protocol)]
        rows.append(
            {
                "path": path,
                "protocol": protocol,
                "streams": sum(key[2:4] == (path, protocol) for key in streams),
                **{f"{kind}s": kinds.count(kind) for kind in ("outage", "blip", "break")},
                "frozen": kinds.count("frozen"),
                "seconds": _cost(cost(outages, window)),
                "longest_seconds": max((cost([each], window).estimate for each in outages), default=0.0),
            }
        )
    return rows


def _connections(items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """How long until there was an answer again: of new connections, and of those that were there and broke."""
    new = [item for item in items if item.kind in COSTS and item.protocol.lower() == "http"]
    lost = [item for item in items if item.kind == "break" or (item.kind in COSTS and item.protocol.lower() != "http")]
    return {"new": _recovery(new), "established": _recovery(lost)}


def _recovery(items: Sequence[Item]) -> dict[str, Any]:
    lengths = [item.duration.estimate for item in items if item.state == "closed"]
    return {
        "broken": len(items),
        "median_seconds": round(median(lengths), 3) if lengths else None,
        "longest_seconds": round(max(lengths), 3) if lengths else None,
    }
