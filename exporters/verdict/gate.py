"""May the next node go? What is seen now and what the window cost in: go, wait or stop with reasons out. Pure.

1. `stop`: less of the budget is left than shall be. It stays so; who asks need not ask again.
2. `wait`: something is out, or was a moment ago, or is not observed: what is not known is no quiet. So it is where
   something shall be left of a budget that nobody set.
3. `go` otherwise. Who wants nothing left of a budget need not have one, and the reasons say so.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Verdict = Literal["go", "wait", "stop"]
MOST_NAMED = 5
QUIET = 60.0  # seconds without an outage, if nobody says how many


class Seen(NamedTuple):
    """What is known at `now` (Unix time).

    `last_end`: when the last outage ended, as late as it may have been; `since`: when observing began. `budget` None:
    there is none, or no window is open. `spent`: seconds, the upper bound of what the window cost so far.
    """

    now: float
    since: float
    streams: int
    out: Sequence[str] = ()
    unknown: Sequence[str] = ()
    unheard: Sequence[str] = ()
    last_end: float | None = None
    spent: float = 0.0
    budget: float | None = None


class Decision(NamedTuple):
    """`quiet`: seconds for which nothing was out, None while something is; `left`: of the budget, None without one."""

    verdict: Verdict
    reasons: tuple[str, ...]
    quiet: float | None
    left: float | None


def decide(seen: Seen, quiet: float = QUIET, budget_left: float = 0.0) -> Decision:
    """Go, wait or stop; `quiet` and `budget_left` are the seconds there must be of each."""
    left = None if seen.budget is None else seen.budget - seen.spent
    calm = None if seen.out else max(0.0, seen.now - max(seen.since, seen.last_end or seen.since))
    if left is not None and (left < budget_left or left < 0):
        return Decision("stop", (f"{left:.1f} s of the budget are left, {budget_left:g} s are wanted",), calm, left)
    waits = [*_waits(seen)]
    if calm is not None and calm < quiet:
        waits.append(f"quiet for {calm:.0f} s, {quiet:g} s are wanted")
    if left is None and budget_left > 0:
        waits.append(f"{budget_left:g} s of a budget are wanted, and no window with one is open")
    if waits:
        return Decision("wait", tuple(waits), calm, left)
    budget = "no budget is set" if left is None else f"{left:.1f} s of the budget are left"
    return Decision("go", (f"quiet for {calm or 0.0:.0f} s", budget), calm, left)


def _waits(seen: Seen) -> list[str]:
    if not seen.streams:
        return ["nothing is observed"]
    told = (("out", seen.out), ("not observed", seen.unknown), ("not heard", seen.unheard))
    return [f"{word}: {_named(names)}" for word, names in told if names]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
