"""Was the machine suspended? Was the wall clock set? What the clocks say of each other.

1. CLOCK_MONOTONIC stands still while the machine is suspended, CLOCK_BOOTTIME does not: what the second gained on the
   first is how long it slept. No probe can be judged by a clock that stood still, so that time is a gap of its own.
2. The wall clock against CLOCK_BOOTTIME: a jump is a step that somebody made. It is told, and nothing else follows, for
   durations are monotonic.
3. Two clocks cannot be read at one moment. A difference counts only if both ends of its reading are close together: we
   may have been stopped in between.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]

SLEPT = 0.1  # seconds; less is no suspension
STEP = 0.5  # seconds between two looks; a clock that is being slewed moves by half a millisecond
CLOSE = 0.001  # seconds between both ends of a reading
TRIES = 5


def ahead(one: Clock, other: Clock) -> float | None:
    """How much `one` is ahead of `other`, to CLOSE seconds; None if we were stopped at every try."""
    for _ in range(TRIES):
        before = other()
        value = one()
        if other() - before < CLOSE:
            return value - before
    return None


class Suspensions:
    """How long the machine slept, by two clocks."""

    __slots__ = ("_ahead", "_boottime", "_limit", "_monotonic")

    def __init__(self, monotonic: Clock, boottime: Clock) -> None:
        self._monotonic = monotonic
        self._boottime = boottime
        first = ahead(boottime, monotonic)
        self._ahead = boottime() - monotonic() if first is None else first
        self._limit = self._ahead + SLEPT

    def ended(self, now: float) -> float:
        """The length of a suspension that ended since the last call, 0.0 for none. `now`: monotonic, just read."""
        if self._boottime() - now < self._limit:
            return 0.0
        return self._measured()

    def _measured(self) -> float:
        found = ahead(self._boottime, self._monotonic)
        if found is None or found < self._limit:  # we were stopped between two readings, and not the machine
            return 0.0
        slept = found - self._ahead
        self._ahead, self._limit = found, found + SLEPT
        return slept


class Steps:
    """Steps of the wall clock."""

    def __init__(self, wall: Clock, boottime: Clock) -> None:
        self._wall = wall
        self._boottime = boottime
        self._ahead = ahead(wall, boottime)

    def seen(self) -> float:
        """By how much it was set forward since the last call (backward: negative); 0.0 if it was not."""
        found = ahead(self._wall, self._boottime)
        if found is None:
            return 0.0
        before, self._ahead = self._ahead, found
        moved = 0.0 if before is None else found - before
        return moved if abs(moved) > STEP else 0.0
