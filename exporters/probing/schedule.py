"""The clock: which stream is due when, on an absolute grid, and everything else that waits for a time.

A stream's grid is t_k = phase + k * T on CLOCK_MONOTONIC, phase = hash(stream) mod T, so that streams interleave, and
do so again after a restart. Due times fall into slots of 10 ms; one timer walks the slots, however many streams
there are. Grid points that passed while nobody looked are skipped and counted, never replayed.

A grid is filed once: T is a whole number of milliseconds, so that after T, or up to ten of it, the same slots come
round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from math import ceil, gcd
from typing import Protocol

SLOT = 0.01  # seconds; also the tick that finds our own stalls
SLOT_MS = 10
PER_SECOND = 100.0  # slots
EXACT = 1e-5  # slots: what floats of a machine up for years may be wrong by

Call = Callable[[float], None]


def phase(key: str, interval: float) -> float:
    """A stream's offset on its grid: seconds in [0, interval), the same for the same key for ever."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * interval


class Grid(Protocol):
    """What has a grid."""

    @property
    def key(self) -> str: ...

    @property
    def interval(self) -> float: ...


def turn(grid: Grid) -> float:
    """To sort by before streams are made: then they lie in memory in the order in which their grids have them come."""
    return phase(grid.key, grid.interval)


def first_point(offset: float, interval: float, now: float) -> float:
    """The first grid point at or after `now`."""
    point = offset + int((now - offset) / interval) * interval
    return point if point >= now else point + interval


def serve(first: float, interval: float, number: int, now: float) -> tuple[float, int]:
    """How late (seconds) point `number` of the grid from `first` is at `now`, and how many after it passed.

    It is not due yet if that is -1.
    """
    lag = now - (first + number * interval)
    if 0 <= lag < interval:
        return lag, 0
    return max(lag, 0.0), int(lag / interval) if lag > 0 else -(lag < -EXACT * SLOT)


class Wheel:
    """Calls by the slot they are due in, once or for good; `due` hands out what the time has reached, in order."""

    __slots__ = ("_reached", "_rings", "_slots")

    def __init__(self, now: float) -> None:
        self._slots: defaultdict[int, list[Call]] = defaultdict(list)
        self._rings: dict[int, dict[int, tuple[Call, ...]]] = {}  # by length; slot modulo length -> calls
        self._reached = int(now * PER_SECOND)

    def at(self, when: float, call: Call) -> None:
        """File `call(now)` for the first slot that begins at or after `when` (at the earliest the next one)."""
        slot = ceil(when * PER_SECOND)
        if slot <= self._reached:
            slot = self._reached + 1
        self._slots[slot].append(call)

    def every(self, first: float, interval: float, call: Call) -> None:
        """File `call(now)` for `first` and each `interval` (seconds, in whole milliseconds) after it, for good.

        Where it was filed comes round before `first` and, after a sleep, too often: `serve` tells what is due.
        """
        for ring, place in self._places(first, interval):
            ring[place] = (*ring.get(place, ()), call)

    def never(self, first: float, interval: float, call: Call) -> None:
        """Take back what `every` filed with the same arguments."""
        for ring, place in self._places(first, interval):
            at = ring[place].index(call)
            ring[place] = ring[place][:at] + ring[place][at + 1 :]

    def _places(self, first: float, interval: float) -> Iterator[tuple[dict[int, tuple[Call, ...]], int]]:
        period = round(interval * 1000)
        rounds = SLOT_MS // gcd(period, SLOT_MS)
        length = period * rounds // SLOT_MS
        ring = self._rings.setdefault(length, {})
        for number in range(rounds):
            yield ring, ceil((first + number * interval) * PER_SECOND - EXACT) % length

    def due(self, now: float) -> tuple[list[Call], tuple[Call, ...]]:
        """All calls whose slot has begun by `now`, earliest slot first: those filed once, and those that recur."""
        last = int(now * PER_SECOND)
        begin = self._reached + 1
        calls: list[Call] = []
        recurring: tuple[Call, ...] = ()
        if last < begin:
            return calls, recurring
        self._reached = last
        if last == begin:  # as nearly always
            calls = self._slots.pop(last, calls)
        elif last - begin >= len(self._slots):  # a long sleep: walk the filed slots, not the missed ones
            for slot in sorted(slot for slot in self._slots if slot <= last):
                calls += self._slots.pop(slot)
        else:
            for slot in range(begin, last + 1):
                calls += self._slots.pop(slot, ())
        for length, ring in self._rings.items():
            for slot in (last,) if last == begin else range(max(begin, last - length + 1), last + 1):
                recurring += ring.get(slot % length, ())  # of one ring, as nearly always, the very tuple
        return calls, recurring
