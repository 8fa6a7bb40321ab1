"""How much of a window did anybody observe? Gaps of each source in, coverage of each path and its own gaps out. Pure.

1. A path was observed at a moment when at least one source observed it: their gaps count only where all of them meet.
2. Who did not watch yet, or no longer, did not observe: a source counts from its beginning to its end, within the
   window. Nobody at all is a gap with the reason `nobody`.
3. What is worth telling and no gap of ours, a peer's own reboot say, is listed and lowers nothing.
4. Two streams of one source are in one process and stall together; two sources are not. So nothing else is asked of
   independence: who shares a gap has it in both.

A path here is whatever shall be accounted for alone: a target and how it is reached, as a rule.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

NOBODY = "nobody"
ENOUGH = 0.99  # of a window; below it a verdict is inconclusive

Path = TypeVar("Path", bound=Hashable)


class Span(NamedTuple):
    """An interval, seconds on any one clock, and why it is told of."""

    begin: float
    end: float
    reason: str = ""


class Watch(NamedTuple):
    """One source's watch over a path: from when to when, less its gaps (in any order, overlapping or not).

    `noted`: what happened to the target meanwhile and is no gap of ours.
    """

    begin: float
    end: float
    gaps: tuple[Span, ...] = ()
    noted: tuple[Span, ...] = ()


class Covered(NamedTuple):
    """`share`: of the window, 0 to 1; `gaps`: what nobody observed, in order, no two touching; `noted`: see Watch."""

    share: float
    gaps: tuple[Span, ...]
    noted: tuple[Span, ...]

    @property
    def enough(self) -> bool:
        return self.share >= ENOUGH


def cover(watches: Mapping[Path, Iterable[Watch]], window: Span) -> dict[Path, Covered]:
    """How each path was covered in `window`, by all who watched it. Raises ValueError for a window without length."""
    if not window.end > window.begin:
        raise ValueError("a window ends after it begins")
    return {path: _covered(list(each), window) for path, each in watches.items()}


def union(spans: Iterable[tuple[float, float]]) -> float:
    """How long any of the spans lasts."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _covered(watches: Sequence[Watch], window: Span) -> Covered:
    missed = [_missed(each, window) for each in watches] or [[Span(*window[:2], NOBODY)]]
    gaps = missed[0]
    for other in missed[1:]:
        gaps = _both(gaps, other)
    lost = sum(gap.end - gap.begin for gap in gaps)
    noted = {clipped for each in watches for span in each.noted if (clipped := _clipped(span, window))}
    return Covered(max(0.0, 1 - lost / (window.end - window.begin)), tuple(gaps), tuple(sorted(noted)))


def _missed(watch: Watch, window: Span) -> list[Span]:
    """What one source did not observe of the window."""
    outside = (Span(window.begin, watch.begin, NOBODY), Span(watch.end, window.end, NOBODY))
    return _joined(clipped for each in (*outside, *watch.gaps) if (clipped := _clipped(each, window)))


def _clipped(span: Span, window: Span) -> Span | None:
    begin, end = max(span.begin, window.begin), min(span.end, window.end)
    return Span(begin, end, span.reason) if end > begin else None


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The same time in order, what overlaps or touches as one."""
    joined: list[Span] = []
    reasons: dict[int, set[str]] = defaultdict(set)
    for span in sorted(spans):
        if joined and span.begin <= joined[-1].end:
            joined[-1] = joined[-1]._replace(end=max(joined[-1].end, span.end))
        else:
            joined.append(span)
        reasons[len(joined)].update(span.reason.split())
    return [span._replace(reason=" ".join(sorted(reasons[number]))) for number, span in enumerate(joined, 1)]


def _both(ones: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The time in both of two lists, each in order and its spans apart; with the reasons of both."""
    met: list[Span] = []
    one = other = 0
    while one < len(ones) and other < len(others):
        a, b = ones[one], others[other]
        begin, end = max(a.begin, b.begin), min(a.end, b.end)
        if end > begin:
            met.append(Span(begin, end, " ".join(sorted({*a.reason.split(), *b.reason.split()}))))
        if a.end <= b.end:
            one += 1
        else:
            other += 1
    return met
