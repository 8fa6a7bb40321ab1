"""The clock: which stream is due when, on an absolute grid, and everything else that waits for a time.

A stream's grid is t_k = phase + k * T on CLOCK_MONOTONIC, phase = hash(stream) mod T, so that streams interleave, and
do so again after a restart. Due times fall into slots of 5 ms; one timer walks the slots, however many streams there
are. Grid points that passed while nobody looked are skipped and counted, never replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

SLOT = 0.005  # seconds; also the tick that finds our own stalls
PER_SECOND = 200.0  # slots

Call = Callable[[float], None]


def phase(key: str, interval: float) -> float:
    """A stream's offset on its grid: seconds in [0, interval), the same for the same key for ever."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * interval


def first_point(offset: float, interval: float, now: float) -> float:
    """The first grid point at or after `now`."""
    point = offset + int((now - offset) / interval) * interval
    return point if point >= now else point + interval


def next_point(point: float, interval: float, now: float) -> tuple[float, int]:
    """The grid point to wait for after `point` was served at `now`, and how many were missed on the way."""
    missed = int((now - point) / interval)
    return point + (missed + 1) * interval, missed


class Wheel:
    """Calls by the slot they are due in. `at` files a call, `due` hands out what the time has reached, in order."""

    __slots__ = ("_reached", "_slots")

    def __init__(self, now: float) -> None:
        self._slots: dict[int, list[Call]] = {}
        self._reached = int(now * PER_SECOND)

    def at(self, when: float, call: Call) -> None:
        """File `call(now)` for the first slot that begins at or after `when` (at the earliest the next one)."""
        exact = when * PER_SECOND
        slot = int(exact)
        if slot < exact:
            slot += 1
        if slot <= self._reached:
            slot = self._reached + 1
        waiting = self._slots.get(slot)
        if waiting is None:
            self._slots[slot] = [call]
        else:
            waiting.append(call)

    def due(self, now: float) -> list[Call]:
        """All calls whose slot has begun by `now`, earliest slot first."""
        last = int(now * PER_SECOND)
        calls: list[Call] = []
        if last - self._reached > len(self._slots):  # a long sleep: walk the filed slots, not the missed ones
            for slot in sorted(slot for slot in self._slots if slot <= last):
                calls += self._slots.pop(slot)
        else:
            for slot in range(self._reached + 1, last + 1):
                calls += self._slots.pop(slot, ())
        self._reached = max(self._reached, last)
        return calls
