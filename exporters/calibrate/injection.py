"""What one injected interruption was: its kind, when it truly began and ended, and what a right prober says of it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

# path: the way is cut, every connection fails; frozen: connections are accepted and nothing is answered;
# break: established connections are lost while fresh ones work. These are the three books of the prober.
Expectation = Literal["path", "frozen", "break"]


class Bracket(NamedTuple):
    """One true edge: it happened between `before` and `after`, both float seconds of CLOCK_MONOTONIC."""

    before: float
    after: float


Truth = tuple[Bracket, Bracket]  # start and end


@dataclass(frozen=True, slots=True)
class Injection:
    """One interruption with its truth. An instantaneous one (a reset) has the same bracket at both edges."""

    kind: str
    start: Bracket
    end: Bracket
    expectation: Expectation
    where: str = ""  # the lane or relay it happened on
    family: int | None = None  # 4 or 6 when the truth is that family's alone: links come back for each in its own time

    @property
    def shortest(self) -> float:
        """Seconds it lasted at least."""
        return max(0.0, self.end.before - self.start.after)

    @property
    def longest(self) -> float:
        """Seconds it lasted at most."""
        return self.end.after - self.start.before


class NotInjectedError(Exception):
    """The interruption did not take effect, or its truth is not known: nothing may be judged by it."""
