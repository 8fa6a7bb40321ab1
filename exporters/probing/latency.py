"""How long do this stream's answers ordinarily take? A small rolling histogram, and the limits that follow from it."""

from __future__ import annotations

from array import array
from bisect import bisect_right

# Half octaves of microseconds: bucket 2n holds [2^n, 1.5 * 2^n), bucket 2n + 1 the rest up to 2^(n + 1).
BUCKETS = 48


def _edge(index: int) -> float:
    """The upper one of a bucket, in seconds."""
    return (1.5 if index % 2 == 0 else 2.0) * 2.0 ** (index // 2) / 1e6


EDGES = tuple(_edge(index) for index in range(BUCKETS - 1))
ROLL = 2048  # answers after which all counts are halved
SURE = 1000  # answers from which a 99.9th percentile means something
FEW = 20  # answers from which a path may be called slow


class Latency:
    """Round trips of one stream, in seconds."""

    __slots__ = ("_counts", "_largest", "total")

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * BUCKETS))
        self._largest = 0.0
        self.total = 0

    def add(self, seconds: float) -> None:
        self._counts[bisect_right(EDGES, seconds)] += 1
        self.total += 1
        if seconds > self._largest and self.total < SURE:
            self._largest = seconds
        if self.total % ROLL == 0:
            for index, count in enumerate(self._counts):
                self._counts[index] = count // 2

    def quantile(self, q: float) -> float:
        """The upper edge (seconds) of the bucket that holds the q-quantile; 0.0 without answers."""
        wanted = q * sum(self._counts)
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _edge(index)
        return 0.0

    def ceiling(self, prompt: float) -> float:
        """delta: the most a first round trip takes here; 2 ms to `prompt`, at least 20 ms while little is known."""
        if self.total < SURE:
            return min(max(1.5 * self._largest, 0.020), prompt)
        return min(max(1.5 * self.quantile(0.999), 0.002), prompt)

    def deadline(self, prompt: float) -> float:
        """When an unanswered probe is judged: `prompt`, or later on a path whose round trip is above half of it.

        With fewer than SURE answers a percentile that one hiccup moves is no ground: then 90 % of FEW must be slow.
        """
        if self.total < FEW:
            return prompt
        slowest = self.quantile(0.999 if self.total >= SURE else 0.9)
        return prompt if slowest <= prompt / 2 else max(0.150, 2 * slowest)
