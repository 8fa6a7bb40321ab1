"""Was it too much? Explained outages, a window's coverage and limits in, a verdict with every limit held out. Pure.

1. Seconds are those in which anything of a group was out: what is out at the same time counts once. Whatever explains
   them, they count; only `unexplained` and `collateral` look at the reason.
2. The estimate is held against the limit, its bounds are told beside it.
3. More observing can only add seconds: what fails, fails. What would pass is `inconclusive` where a path was observed
   for less than ENOUGH of the window, or nothing was to be observed at all.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from exporters.verdict.coverage import ENOUGH, Covered, Span, union
from exporters.verdict.explain import SETTLE, Explained, Outage, Phase

Verdict = Literal["pass", "fail", "inconclusive"]
ROUNDING = 1e-6  # seconds
MOST_NAMED = 20  # paths that were not observed enough; the rest are counted
NEAR = 60.0  # seconds between two phases of a node that still are of one turn


@dataclass(frozen=True)
class Limits:
    """Seconds that a window may cost; None: as many as it likes. `paths`: by path (pod, service, ...)."""

    paths: Mapping[str, float] = field(default_factory=dict)
    total: float | None = None
    turn: float | None = None
    longest: float | None = None
    collateral: float | None = None
    unexplained: float | None = 0.0


class Cost(NamedTuple):
    """Seconds: lower bound, estimate, upper bound."""

    lower: float
    estimate: float
    upper: float


class Turn(NamedTuple):
    """A node's turn: its phases, one after the other, without a break longer than NEAR."""

    node: str
    begin: float
    end: float
    phases: tuple[str, ...]


class Check(NamedTuple):
    """One limit, what was spent of it, and whether that is too much."""

    name: str
    limit: float
    spent: Cost
    passed: bool


class Judged(NamedTuple):
    """`missing`: why it cannot be said that it passed."""

    verdict: Verdict
    checks: tuple[Check, ...]
    missing: tuple[str, ...]


def judge(
    found: Sequence[Explained],
    phases: Iterable[Phase],
    covered: Mapping[tuple[str, str], Covered],
    window: Span,
    limits: Limits,
) -> Judged:
    """A window's verdict; `covered` is by target and path, `found` all that broke a path in it."""
    checks = tuple(_checks(found, turns(phases), window, limits))
    missing = tuple(_missing(covered))
    if not all(each.passed for each in checks):
        return Judged("fail", checks, missing)
    return Judged("inconclusive" if missing else "pass", checks, missing)


def cost(outages: Iterable[Outage], window: Span) -> Cost:
    """The seconds of the window in which any of them lasted."""
    known = [(each.inner or each.span, each.span, each.outer or each.span) for each in outages]
    lower, estimate, upper = (
        (union(_within(spans, window)) for spans in zip(*known, strict=True)) if known else (0.0,) * 3
    )
    return Cost(lower, min(max(lower, estimate), max(lower, upper)), max(lower, upper))


def _within(spans: Iterable[tuple[float, float]], window: Span) -> list[tuple[float, float]]:
    return [
        (max(begin, window.begin), min(end, window.end))
        for begin, end in spans
        if min(end, window.end) > max(begin, window.begin)
    ]


def turns(phases: Iterable[Phase]) -> list[Turn]:
    """Whose turn was when, by begin."""
    known: dict[str, list[Turn]] = defaultdict(list)
    for each in sorted(phases, key=lambda phase: (phase.begin, phase)):
        of = known[each.node]
        if each.node and of and each.begin - of[-1].end <= NEAR:
            last = of.pop()
            of.append(Turn(each.node, last.begin, max(last.end, each.end), (*last.phases, each.name)))
        elif each.node:
            of.append(Turn(each.node, each.begin, each.end, (each.name,)))
    return sorted((turn for of in known.values() for turn in of), key=lambda turn: (turn.begin, turn.node))


def of_turn(turn: Turn, found: Iterable[Explained]) -> list[Outage]:
    """The outages that a turn explains, collateral too."""
    return [
        each.outage
        for each in found
        if each.node == turn.node and turn.begin - SETTLE <= each.outage.begin <= turn.end + SETTLE
    ]


def left(found: Iterable[Explained], window: Span) -> Cost:
    """The seconds that nothing explains; of an explained outage those that came too late for its reason."""
    late = []
    for each in found:
        outage = each.outage
        if each.left > 0:
            begin = outage.end - each.left
            inner, outer = outage.inner or outage.span, outage.outer or outage.span
            whole = begin <= outage.begin
            late.append(
                outage._replace(
                    begin=begin,
                    inner=inner if whole else (max(inner[0], begin), max(inner[1], begin)),
                    outer=outer if whole else (max(outer[0], begin), max(outer[1], begin)),
                )
            )
    return cost(late, window)


def _checks(found: Sequence[Explained], all_turns: Iterable[Turn], window: Span, limits: Limits) -> Iterable[Check]:
    def check(name: str, limit: float, spent: Cost) -> Check:
        return Check(name, limit, spent, spent.estimate <= limit + ROUNDING)

    if limits.unexplained is not None:
        yield check("unexplained", limits.unexplained, left(found, window))
    if limits.collateral is not None:
        collateral = (each.outage for each in found if each.verdict == "collateral")
        yield check("collateral", limits.collateral, cost(collateral, window))
    if limits.total is not None:
        yield check("total", limits.total, cost((each.outage for each in found), window))
    for path, limit in limits.paths.items():
        of_path = (each.outage for each in found if each.outage.path == path)
        yield check(f"path {path}", limit, cost(of_path, window))
    if limits.turn is not None:
        for turn in all_turns:
            yield check(f"turn of {turn.node}", limits.turn, cost(of_turn(turn, found), window))
    if limits.longest is not None:
        lengths = [cost([each.outage], window) for each in found]
        yield check("longest", limits.longest, max(lengths, key=lambda each: each.estimate, default=Cost(0, 0, 0)))


def _missing(covered: Mapping[tuple[str, str], Covered]) -> Iterable[str]:
    if not covered:
        yield "nothing was observed"
    short = sorted((each.share, *path) for path, each in covered.items() if not each.enough)
    for share, target, path in short[:MOST_NAMED]:
        percent = min(share * 100, 98.99)  # never rounded up to enough
        yield f"{target} by {path} was observed for {percent:.2f} % of the time, {ENOUGH:.0%} are wanted"
    if len(short) > MOST_NAMED:
        yield f"and {len(short) - MOST_NAMED} paths more"
