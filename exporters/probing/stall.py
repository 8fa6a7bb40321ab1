"""Did *we* stall? Then an unanswered probe proves nothing yet, and the time was not observed.

A tick every 10 ms; two ticks more than 17 ms apart are a stall [g0, g1]. A probe that overlaps one gets its verdict
later: 10 ms after the stall if its request had been written before (the answer, if it came, waits in the socket), a
whole prompt limit after it if the stall held up its own connect or write. Not without end: of a connection that needs
several exchanges each may be held up once.
Short ones pile up (`Pile`): of half a minute their sum is told, where it is more than a verdict may lack.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import NamedTuple

GAP = 0.017  # seconds; a tick is late by 7 ms then
PILE_SECONDS = 30.0
PILE_SHARE = 0.01  # of that time: what is lost of a window beyond it makes a verdict inconclusive
GRACE = 0.010
REMEMBER = 60.0
MOVES = 8  # of one verdict: sockets are read after each stall, and who has too much to do stalls without end


class Stalls:
    """The stalls of this process, from the ticks it is told of. Times are monotonic seconds."""

    __slots__ = ("_ended", "_recent", "last", "seconds")

    def __init__(self, now: float) -> None:
        self.last = now  # tick
        self._recent: deque[tuple[float, float]] = deque()
        self._ended = -inf  # the newest of them
        self.seconds = 0.0

    def tick(self, now: float) -> float:
        """Note a tick; returns the length of the stall that it ended, 0.0 for none."""
        last, self.last = self.last, now
        gap = now - last
        if gap <= GAP:
            return 0.0
        self._recent.append((last, now))
        self._ended = now
        self.seconds += gap
        while self._recent[0][1] < now - REMEMBER:
            self._recent.popleft()
        return gap

    def verdict(self, started: float, wrote: float, due: float, prompt: float) -> float:
        """When a probe may be judged that is due at `due`. wrote: when its request was written, 0.0 if it was not."""
        since: list[tuple[float, float]] = []
        for stall in reversed(self._recent):
            if stall[1] <= started:
                break
            since.append(stall)
        moved = 0
        for begin, end in reversed(since):
            if begin < due and moved < MOVES:
                held_up = not wrote or wrote > begin
                later = end + (prompt if held_up else GRACE)
                moved += later > due
                due = max(due, later)
        return due

    def overlap(self, begin: float, end: float) -> bool:
        """Was any of [begin, end] within a stall?"""
        if begin >= self._ended:  # as nearly always
            return False
        for g0, g1 in reversed(self._recent):
            if g1 <= begin:
                return False  # and so are all before it
            if g0 < end:
                return True
        return False

    def just_ended(self, now: float, within: float) -> bool:
        return bool(self._recent) and now - self._recent[-1][1] <= within


class Pile(NamedTuple):
    """Gaps that are short: their sum, and when the first and the last of them ended (Unix time)."""

    begin: float = 0.0
    last: float = 0.0
    seconds: float = 0.0
    reason: str = ""  # of the longest
    longest: float = 0.0

    def with_one(self, reason: str, now: float, seconds: float) -> Pile:
        """And one more, which ended now."""
        longest, reason = max((self.longest, self.reason), (seconds, reason))
        return Pile(self.begin if self.seconds else now, now, self.seconds + seconds, reason, longest)

    def over(self, now: float) -> bool:
        """Is it time to look at it, and to begin another one? A clock that was set back ends it, too."""
        return self.seconds > 0 and not 0 <= now - self.begin < PILE_SECONDS

    @property
    def counts(self) -> bool:
        """Would coverage be wrong without it?"""
        return self.seconds > PILE_SHARE * PILE_SECONDS
