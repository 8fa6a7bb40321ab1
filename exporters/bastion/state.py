"""What the page shows, as sections of small values by key; how two states differ, and what they come to. Pure.

A state is {section: {key: value}}; a change is told as {"set": {section: {key: value}}, "gone": {section: [key]}}:

    streams   number: [side, source, target, path, protocol, family, interval]; side `out` is ours, `in` a peer's
    cells     number: [state, since, cause]; up, down, frozen or unknown; Unix time
    peers     name: {"heard", "since", "url", "error", "sources"}
    events    id: see `event`
    marks     id: {"kind", "start", "end", "text", "budget"}; kind is window, note or cleared
    facts     about, verdict, summary, coverage (see covered.py), watcher, look

Nobody changes a section: who has another one puts it in the old one's place, so that what is the same is `is` the same.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporters import times
from exporters.api import KINDS
from exporters.verdict.coverage import union

State = Mapping[str, Mapping[str, Any]]

SECTIONS = ("streams", "cells", "peers", "events", "marks", "facts")
COSTS = ("outage", "blip")  # those that cost a budget: the path did not carry
ABOUT = 5  # parts of a stream's key


def empty() -> dict[str, Mapping[str, Any]]:
    return {section: {} for section in SECTIONS}


def diff(before: State, after: State) -> dict[str, Any] | None:
    """What turns one state into the other; None if nothing."""
    set_: dict[str, dict[str, Any]] = {}
    gone: dict[str, list[str]] = {}
    for section in SECTIONS:
        old, new = before[section], after[section]
        if old is new:
            continue
        if others := {key: value for key, value in new.items() if key not in old or old[key] != value}:
            set_[section] = others
        if left := [key for key in old if key not in new]:
            gone[section] = left
    return {"set": set_, "gone": gone} if set_ or gone else None


# Events.


def event(item: Mapping[str, Any], offset: float = 0.0) -> dict[str, Any]:
    """An entry of a history as the page has it: Unix times of our clock, which `offset` seconds are taken off for.

    `begin` is when it began in one number, to which its length belongs: within the bounds of `start`, which a restart
    makes wide, and not in their middle. `length` is None while it is open: it grows, and whoever shows it counts.
    """
    begin = times.seconds(item["start_time"]) - offset
    start = _edge(item["start"], begin, offset)
    is_open = item["state"] == "open"
    end = None
    if not is_open:
        fallback = times.seconds(item["end_time"]) - offset if item["end_time"] else begin + item["duration_sec"]
        end = _edge(item["end"], fallback, offset)
    parts = item["stream"].split("|")
    length = item["duration"]
    return {
        "kind": item["kind"] if item["kind"] in KINDS else "other",
        "state": item["state"],
        "stream": parts if len(parts) == ABOUT else None,
        "name": item["name"],
        "source": item["source"],
        "start": start,
        "begin": start[0] if item["kind"] == "gap" else min(max(round(begin, 3), start[0]), start[1]),
        "end": end,
        "length": None if is_open else [length["lower"], length["estimate"], length["upper"]],
        "cause": item["cause"],
        "causes": item["causes"],
        "before": _seen(item, "before"),
        "after": _seen(item, "after"),
        "unconfirmed": item["unconfirmed"],
        "stalled": item["stall_overlap"],
        **({"text": item.get("text", ""), "node": item.get("node", "")} if item["kind"] == "phase" else {}),
    }


def _seen(item: Mapping[str, Any], side: str) -> str:
    """Who answered before or after an event; of a changed address, the address."""
    peer = item[side]
    return str(peer.get(item["cause"], "")) if item["kind"] == "target_change" else who(peer)


def _edge(edge: Mapping[str, str | None], fallback: float, offset: float) -> list[float]:
    """[earliest, latest]; peers may tell nonsense."""
    found = []
    for name in ("earliest", "latest"):
        try:
            found.append(times.seconds(edge[name] or "") - offset)
        except (ValueError, OverflowError):
            found.append(fallback)
    return sorted(round(each, 3) for each in found)


def who(peer: Mapping[str, str]) -> str:
    """Who answered, in a line; "" if nobody said."""
    names = [peer.get("source", ""), f"on {peer['node']}" if peer.get("node") else ""]
    instance = peer.get("instance", "")
    return " ".join(filter(None, [*names, f"({instance[:8]})" if instance else ""]))


def mark(item: Mapping[str, Any]) -> dict[str, Any]:
    """A window, a note or a clearing as the page has it."""
    return {
        "kind": "cleared" if item["cause"] == "cleared" else item["kind"],
        "start": round(times.seconds(item["start_time"]), 3),
        "end": round(times.seconds(item["end_time"]), 3) if item["end_time"] else None,
        "text": item.get("text", ""),
        "budget": item.get("budget_seconds"),
    }


# What it comes to.


def verdict(ours: Counter[str], theirs: Counter[str], unheard: Sequence[str]) -> dict[str, Any]:
    """In one line: are all paths up? `ours` and `theirs` count streams by state; `unheard` are peers that are not.

    level: down, unknown (not all is known to be up), up, or none: nothing at all is observed.
    """
    total = ours + theirs
    count, up, down, frozen = total.total(), total["up"], total["down"], total["frozen"]
    words = [f"{number} of {_streams(count)} {word}" for number, word in ((down, "down"), (frozen, "frozen")) if number]
    if up + down + frozen == 0:
        level, text = "none", "Not observing"
    elif words:
        level, text = "down", words[0] + (f", {frozen} frozen" if down and frozen else "")
    elif up == count and not unheard:
        level, text = "up", f"All {_streams(count)} up" if count > 1 else "The one stream is up"
    else:
        level, text = "unknown", f"{up} of {_streams(count)} up, {count - up} not known" if count > up else f"{up} up"
    if unheard and level != "none":
        text += f", {len(unheard)} peer{'s' if len(unheard) > 1 else ''} not heard"
    sides = {"out": dict(ours), "in": dict(theirs)}
    return {"level": level, "text": text, "sides": sides, "unheard": list(unheard)[:20]}


def _streams(count: int) -> str:
    return f"{count} stream{'s' if count != 1 else ''}"


def findings(look: Iterable[Mapping[str, Any]], most: int = 10) -> list[dict[str, Any]]:
    """Where to look, in sentences: what several have in common is said once, of all of them."""
    grouped: dict[tuple[bool, str], list[str]] = {}
    for each in look:
        about = each["target"] or each["source"]
        said = each["text"].removeprefix(f"{about}: ")
        grouped.setdefault((each["sure"] == "likely", said), []).append(about)
    found = []
    for (likely, said), names in grouped.items():
        known = sorted({*filter(None, names)}, key=natural)
        more = f" and {len(known) - most} more" if len(known) > most else ""
        text = f"{', '.join(known[:most])}{more}: {said}" if known else said
        found.append({"likely": likely, "text": text})
    return found


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key by which node-10 comes after node-9."""
    parts = re.split(r"([0-9]{1,15})", name)
    return [(0, int(part)) if place % 2 else (1, part) for place, part in enumerate(parts)]


class Period(NamedTuple):
    """What a summary is about: from when to when (Unix times; None: now), what it is called, what it may cost."""

    begin: float
    name: str
    budget: float | None = None
    end: float | None = None


def period(marks: Iterable[Mapping[str, Any]], known_since: float, now: float, longest: float = 3600.0) -> Period:
    """The open window; else what is known since the last clearing, an hour at most."""
    cleared = 0.0
    for each in marks:
        if each["kind"] == "window" and each["end"] is None:
            return Period(each["start"], each["text"], each["budget"])
        if each["kind"] == "cleared":
            cleared = max(cleared, each["start"])
    if now - max(cleared, known_since) > longest:
        return Period((now - longest) // 60 * 60, "the last hour")
    return Period(cleared, "the clearing") if cleared > known_since else Period(known_since, "the start")


def summary(events: Iterable[Mapping[str, Any]], about: Period, now: float) -> dict[str, Any]:
    """What a period cost so far: events by kind, the seconds in which any path was out, and the stream hit worst.

    `spent` is [lower, estimate, upper]: time in which several paths are out counts once.
    """
    until = now if about.end is None else about.end
    counts: Counter[str] = Counter()
    outer: list[tuple[float, float]] = []
    inner: list[tuple[float, float]] = []
    middle: list[tuple[float, float]] = []
    by_stream: Counter[str] = Counter()
    for each in events:
        start, end = each["start"], each["end"] or [now, now]
        if end[1] <= about.begin or start[0] >= until:
            continue
        counts[each["kind"]] += 1
        if each["kind"] not in COSTS:
            continue
        begin = each["begin"]
        last = begin + each["length"][1] if each["length"] else now
        spans = zip((inner, middle, outer), (start[1], begin, start[0]), (end[0], last, end[1]), strict=True)
        for known, first, after in spans:
            known.append((max(first, about.begin), min(after, until)))
        if each["stream"]:
            by_stream["|".join(each["stream"])] += max(0.0, min(last, until) - max(begin, about.begin))
    lower, estimate, upper = map(union, (inner, middle, outer))
    worst = max(by_stream.items(), key=lambda pair: pair[1], default=None)
    return {
        "since": round(about.begin),
        "name": about.name,
        "budget": about.budget,
        "spent": [round(each, 1) for each in (lower, min(max(lower, estimate), upper), upper)],
        "counts": dict(counts),
        "worst": [worst[0].split("|"), round(worst[1], 1)] if worst else None,
    }


def windows(
    marks: Mapping[str, Mapping[str, Any]], events: Sequence[Mapping[str, Any]], now: float, most: int = 5
) -> dict[str, dict[str, Any]]:
    """What each of the last windows that are over cost, by its id."""
    over = [key for key, each in marks.items() if each["kind"] == "window" and each["end"] is not None]
    found = {}
    for key in over[-most:]:
        each = marks[key]
        found[key] = summary(events, Period(each["start"], each["text"], each["budget"], each["end"]), now)
    return found


def newest(events: Mapping[str, dict[str, Any]], most: int) -> dict[str, dict[str, Any]]:
    """What is open, and of the others those that ended last, `most` in all; phases are at most a quarter of it."""

    def age(key: str) -> float:
        end = events[key]["end"]
        return float("inf") if end is None else float(end[1])

    phases = sorted((key for key, each in events.items() if each["kind"] == "phase"), key=age, reverse=True)
    crowd = set(phases[most // 4 :])
    kept = set(sorted((key for key in events if key not in crowd), key=age, reverse=True)[:most])
    return {key: each for key, each in events.items() if key in kept}


def counted(cells: Iterable[Sequence[Any]]) -> Counter[str]:
    """Cells by state."""
    return Counter(cell[0] for cell in cells)


def pieces(state: State, sections: Iterable[str] = SECTIONS, at_a_time: int = 200) -> Iterator[dict[str, Any]]:
    """A state as changes of an empty one, no piece larger than so many values."""
    for section in sections:
        keys = list(state[section])
        for place in range(0, len(keys), at_a_time):
            yield {"set": {section: {key: state[section][key] for key in keys[place : place + at_a_time]}}, "gone": {}}
