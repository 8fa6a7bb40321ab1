"""A target that is withdrawn is probed for an hour more: what goes during a migration is what we are here for. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from exporters.discovery.find import Entry, Key, key_of

KEPT_SECONDS = 3600.0


class Last(NamedTuple):
    """An entry as it was last found, and when, in seconds on a clock that nobody sets."""

    entry: Entry
    at: float


def keep(before: Mapping[Key, Last], found: Iterable[Entry], now: float) -> dict[Key, Last]:
    """What is probed now: all that is found, and what was within the last hour.

    One that moved is where it is found; of two with one key the first counts.
    """
    recent = {key: last for key, last in before.items() if now - last.at < KEPT_SECONDS}
    return recent | {key_of(each): Last(each, now) for each in reversed(list(found))}


def entries(kept: Mapping[Key, Last]) -> list[Entry]:
    """Their entries, in the order of their names."""
    return [kept[key].entry for key in sorted(kept)]
