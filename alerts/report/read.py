"""What exporters and journals tell, read for a report: their entries, and what they watched from when to when.

A journal says what broke, not what was watched. That is in the counters beside it, or in the exporter's /status: a
stream counted its seconds up to the last sign of life, so it began as many seconds before that, and its gaps more. What
was not reached yet may have been out or not there at all: nothing of it was observed.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from exporters import times
from exporters.history.items import Item, Key, Name, RefusedError, Time, Word, place, read
from exporters.history.source import File, Remote, SourceError
from exporters.probing.saved import COUNTERS, Saved
from exporters.verdict.coverage import Span, Watch

OBSERVED, REACHED = COUNTERS.index("observed_seconds"), COUNTERS.index("last_success")
LATE = 2.0  # seconds that are decided, and counted, later
NOTED = frozenset({"peer_reboot"})  # causes of gaps that are a target's, not ours


class Stream(NamedTuple):
    """One that was probed; `node`: of the target, as far as it said."""

    key: tuple[str, ...]  # source, target, path, protocol, family
    node: str
    watch: Watch


class Told(NamedTuple):
    """All that one source told; `node` is its own, `alive` the last sign of life in Unix time, 0 if there is none."""

    name: str
    node: str
    alive: float
    items: Sequence[Item]
    streams: Sequence[Stream]


class _Counted(NamedTuple):
    """What a stream's counters say, and the node its target told."""

    key: str
    observed: float
    reached: float | None  # Unix time since which it is known to have been there; 0: not told, None: it never was
    node: str = ""


class _Stream(msgspec.Struct):
    stream: Key
    last_success: Time | None = None
    reached_since: Time | None = None
    observed_seconds: Annotated[float, Meta(ge=0, lt=1e11)] = 0.0
    peer: dict[Word, Name] = {}


class _Status(msgspec.Struct):
    timestamp: Time
    source: Name = ""
    node: Name = ""
    streams: list[_Stream] = []


_status = msgspec.json.Decoder(_Status).decode
_saved = msgspec.msgpack.Decoder(Saved).decode


def told(source: Remote | File) -> Told:
    """Read a source to its end. Raises SourceError."""
    items = list(_items(source))
    try:
        if isinstance(source, Remote):
            status = _status(source.answer("/status", {}))
            alive, node = times.seconds(status.timestamp), status.node
            counted = [
                _Counted(each.stream, each.observed_seconds, _reached(each), each.peer.get("node", ""))
                for each in status.streams
            ]
        else:
            saved = source.saved()
            alive, node = saved.at if saved else 0.0, ""
            streams = _saved(saved.value).streams if saved and saved.value else {}
            counted = [
                _Counted(key, each.counters[OBSERVED], each.reached if each.counters[REACHED] > 0 else None)
                for key, each in streams.items()
            ]
    except (msgspec.DecodeError, ValueError, IndexError, OverflowError) as error:
        raise SourceError(f"{source.name}: what it watched cannot be read: {error}"[:300]) from None
    return Told(source.name, node, alive, items, [*_streams(items, counted, alive)])


def _reached(stream: _Stream) -> float | None:
    if stream.last_success is None:
        return None
    return times.seconds(stream.reached_since) if stream.reached_since else 0.0


def _items(source: Remote | File) -> Iterator[Item]:
    for entry in source.entries():
        try:
            item = read(entry.told).item
            for text in (item.start_time, item.end_time, *msgspec.structs.astuple(item.start)):
                if text is not None:
                    times.seconds(text)
            for text in msgspec.structs.astuple(item.end):
                if text is not None:
                    times.seconds(text)
        except (RefusedError, ValueError, OverflowError) as error:
            raise SourceError(f"{source.name}: seq {entry.seq}: {error}; `history verify` tells all") from None
        yield item


def _streams(items: Sequence[Item], counted: Sequence[_Counted], alive: float) -> Iterator[Stream]:
    gaps = [(item.stream, item.cause, _span(item)) for item in items if item.kind == "gap"]
    ours = tuple(span for stream, cause, span in gaps if not stream and cause not in NOTED)
    lost = sum(span.end - span.begin for span in ours)
    for each in counted:
        parts = tuple(each.key.split("|"))
        if len(parts) != 5:
            continue
        noted = tuple(span for stream, cause, span in gaps if stream == each.key and cause in NOTED)
        begin, end = alive - each.observed - lost - LATE, alive + LATE
        until = end if each.reached is None else each.reached - LATE  # as early as its beginning
        why = "never_reached" if each.reached is None else "not_reached_yet"
        missed = (*ours, Span(begin, until, why)) if until > begin + LATE else ours
        yield Stream(parts, each.node, Watch(begin, end, missed, noted))


def _span(item: Item) -> Span:
    begin = times.seconds(item.start_time)
    return Span(begin, begin + item.duration.estimate, re.sub(r"\s+", "_", item.cause))


def nodes(said: Sequence[Told]) -> dict[str, str]:
    """By name of a source, or of a target with one replica, the node it is on, as answers told."""
    found: dict[str, str] = {}
    several: set[str] = set()
    for each in said:
        for who in [who for item in each.items for who in (item.before, item.after)]:
            if who.get("source") and who.get("node"):
                found[who["source"]] = who["node"]
        for stream in each.streams:
            source, target, *_ = stream.key
            if each.node:
                found[source] = each.node
            if stream.node and found.setdefault(target, stream.node) != stream.node:
                several.add(target)
    return {name: node for name, node in found.items() if name not in several}


def about(item: Item) -> tuple[str, ...]:
    """The parts of its stream's key."""
    return tuple(place(item).values())
