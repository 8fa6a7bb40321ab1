"""How much a peer's clock is ahead of ours, from the times its answers carry. Pure; all times are wall seconds.

A peer read its clock somewhere within the round trip: taken as its middle, that is wrong by half of it at most. The
best reading of the last minute counts, for a short round trip says more than a late one.
"""

from __future__ import annotations

from math import inf

KEEP = 60.0  # seconds: clocks drift by some ten microseconds a second
EXACT = 1e-6  # seconds, of a float that holds Unix time
STEP = 0.5  # seconds that a clock moves at once: somebody set it


class Offset:
    """The clock of one peer against ours: `seconds` ahead, off by at most `error` (infinite: not known)."""

    __slots__ = ("_at", "_instance", "error", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error = inf
        self._at = 0.0
        self._instance = ""

    def way(self, wall: float, told: float, instance: str) -> float:
        """The most seconds that an answer of that peer's was on its way which came at `wall`; infinite: not known."""
        longest = wall - told + self.seconds + self.error
        return longest if told and instance == self._instance and longest >= 0 else inf

    def read(self, wall: float, round_trip: float, told: float, instance: str) -> float:
        """An answer at `wall` says that it was `told` there; returns how far that clock was set since, if at all.

        `instance`: who answered. Another one has another clock.
        """
        error = round_trip / 2
        ahead = told - wall + error
        moved = ahead - self.seconds
        disagrees = abs(moved) > error + self.error + EXACT
        if error <= self.error or disagrees or wall - self._at > KEEP or wall < self._at:
            same = instance == self._instance and self.error < inf
            self.seconds, self.error, self._at, self._instance = ahead, error, wall, instance
            return moved if same and disagrees and abs(moved) > STEP else 0.0
        return 0.0
