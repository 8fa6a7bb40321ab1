"""A target that is withdrawn is probed for an hour more: what goes during a migration is what we are here for. Pure."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from exporters import times
from exporters.discovery.find import Entry, Key, key_of

KEPT_SECONDS = 3600.0
MOST_GONE = 1000  # that are probed still, the last that went


class Last(NamedTuple):
    """An entry as it was last found, and when, in seconds on a clock that nobody sets."""

    entry: Entry
    at: float


def keep(before: Mapping[Key, Last], found: Iterable[Entry], now: float) -> dict[Key, Last]:
    """What is probed now: all that is found, and what was within the last hour.

    One that moved is where it is found; of two with one key the first counts.
    """
    there = {key_of(each): Last(each, now) for each in reversed(list(found))}
    gone = [key for key, last in before.items() if key not in there and now - last.at < KEPT_SECONDS]
    gone.sort(key=lambda key: before[key].at, reverse=True)
    return {key: before[key] for key in gone[:MOST_GONE]} | there


def entries(kept: Mapping[Key, Last]) -> list[Entry]:
    """Their entries, in the order of their names."""
    return [kept[key].entry for key in sorted(kept)]


def withdrawn(kept: Mapping[Key, Last], before: Mapping[Key, str], now: float, wall: float) -> dict[Key, str]:
    """When what was not found `now` was seen last, as text; what was said `before` of it stays as it was said."""
    gone = {key: last.at for key, last in kept.items() if last.at < now}
    return {key: before.get(key) or times.iso(wall - (now - at)) for key, at in sorted(gone.items())}


def resumed(listed: Iterable[Entry], seen: Mapping[Key, str], now: float, wall: float) -> dict[Key, Last]:
    """What a file of before lists: seen last when it says so, and now if it says nothing, or a time to come."""
    kept = keep({}, listed, now)
    for key in kept.keys() & seen.keys():
        with suppress(ValueError):
            kept[key] = kept[key]._replace(at=now - max(0.0, wall - times.seconds(seen[key])))
    return kept
