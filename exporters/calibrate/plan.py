"""What to interrupt, when and for how long: random, and the same for the same seed. Pure."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

Seconds = Callable[[random.Random], float]


def any_of(*values: float) -> Seconds:
    """One of these durations."""
    return lambda rng: rng.choice(values)


def log_uniform(low: float, high: float) -> Seconds:
    """As many short ones as long ones."""
    return lambda rng: math.exp(rng.uniform(math.log(low), math.log(high)))


class Step(NamedTuple):
    """Wait `pause` seconds, then interrupt for `seconds`."""

    kind: str
    seconds: float
    pause: float


def steps(kinds: Sequence[str], seconds: Seconds, *, seed: int, pause: Seconds | None = None) -> Iterator[Step]:
    """Steps without end, in rounds of each kind once, in random order: wherever it is cut off, all had their share.

    Pauses are random, so no phase of a prober's clock is preferred.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret, a plan
    between = pause or (lambda rng: rng.uniform(3.2, 4.4))  # after the patience of 3 s nothing is on its way any more
    while True:
        for kind in rng.sample(kinds, len(kinds)):
            yield Step(kind, seconds(rng), between(rng))


def plan(kinds: Sequence[str], repeats: int, seconds: Seconds, *, seed: int) -> list[Step]:
    """Each kind `repeats` times."""
    return list(itertools.islice(steps(kinds, seconds, seed=seed), repeats * len(kinds)))
