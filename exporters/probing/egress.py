"""Did the address change that what is outside sees us with? Pure.

An egress may have several addresses and take another one for each connection: one that we were seen with a moment ago
is no change. Whatever we are told, no more than so many changes are listed in a minute.
"""

import math
from collections import deque

ALTERNATING_SECONDS = 5.0
MOST_ADDRESSES = 8  # that are remembered
MOST_CHANGES, CHANGES_SECONDS = 8, 60.0


class Addresses:
    """Those that one stream was seen with; times are Unix times."""

    def __init__(self) -> None:
        self.left: dict[str, float] = {}  # addresses before this one: until when we were seen with them
        self._listed: deque[float] = deque(maxlen=MOST_CHANGES)

    def change(self, before: str, after: str, last: float, wall: float) -> bool:
        """We were seen as `before` at `last`, and as another one at `wall`: is that to be listed?"""
        self.left[before] = last
        alternates = 0 <= wall - self.left.pop(after, -math.inf) < ALTERNATING_SECONDS
        if len(self.left) > MOST_ADDRESSES:
            del self.left[min(self.left, key=self.left.__getitem__)]
        many = len(self._listed) == MOST_CHANGES and 0 <= wall - self._listed[0] < CHANGES_SECONDS
        if alternates or many:
            return False
        self._listed.append(wall)
        return True
