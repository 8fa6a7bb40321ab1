"""A histogram that costs next to nothing to fill, and goes on after a restart."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts by bucket; an observation costs a bisection and two additions."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """(cumulative counts by upper edge, sum of the values), as prometheus_client wants them."""
        total = 0
        cumulated: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            cumulated.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
        return cumulated, self._sum

    def saved(self) -> list[float]:
        """What `resume` takes."""
        return [self._sum, *self._counts]

    def resume(self, saved: Sequence[float]) -> None:
        """Go on from there, unless the buckets are others now."""
        if len(saved) == 1 + len(self._counts):
            self._sum = max(self._sum, saved[0])
            self._counts = [max(int(then), now) for then, now in zip(saved[1:], self._counts, strict=True)]
