"""What the demo interrupts, in which order and when: a seed in, the steps out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from exporters.calibrate.injection import Expectation

SETTLE_SECONDS = 3.0  # between two interruptions; late answers are waited for so long
PHASE_SECONDS = 1.0  # at most added to that, so that an interruption falls anywhere on the probes' grids


class Pair(NamedTuple):
    """Who probes whom; a relay stands on each such way."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}>{self.target}"


class Scene(NamedTuple):
    """A kind of interruption: what is done (a fault of the relay, or "kill"), for how long, and what it should show.

    `everyone`: on the ways of all sources to one target; else on one way only. {what} and {seconds} are filled in.
    """

    fault: str
    everyone: bool
    seconds: float
    expectation: Expectation
    title: str
    done: str
    look: str


# To add an interruption: a line here.
SCENES = (
    Scene(
        "refuse", True, 0.4, "path", "path to {what} cut", "every path to {what} is cut for {seconds} s",
        "an outage of {seconds} s on tcp and ws; http asks every 0.5 s and may miss it",
    ),
    Scene(
        "stall", True, 2.5, "frozen", "{what} frozen", "{what} takes connections and answers none for {seconds} s",
        "a frozen peer, no outage of the path (a relay gone silent cannot be told from a frozen peer)",
    ),
    Scene(
        "reset", True, 0.0, "break", "connections to {what} reset", "established connections to {what} are reset once",
        "a break on tcp and ws and no outage: new connections work; http has none to lose",
    ),
    Scene(
        "refuse", False, 2.5, "path", "path {what} cut", "only the path {what} is cut, for {seconds} s",
        "an outage on the three streams {what} and nowhere else; too short for OvnwatchStreamDown",
    ),
    Scene(
        "flow_drop", True, 2.0, "break", "flows to {what} dropped",
        "established connections to {what} lose their packets for {seconds} s",
        "a break on tcp and ws, over as soon as a new connection works; no outage",
    ),
    Scene(
        "refuse", True, 8.0, "path", "path to {what} cut", "every path to {what} is cut for {seconds} s",
        "an outage long enough for OvnwatchStreamDown to fire while it lasts",
    ),
    Scene(
        "kill", True, 0.0, "path", "{what} killed, restarted", "the process of {what} is killed (-9) and started again",
        "an outage from the kill until {what} listens again; what {what} itself had recorded is gone",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One interruption to make: wait `pause` seconds, then interrupt `pairs` for `seconds`. The rest is for readers."""

    fault: str
    target: str
    pairs: tuple[Pair, ...]
    pause: float
    seconds: float
    expectation: Expectation
    title: str
    done: str
    look: str


def pairs(names: Sequence[str]) -> list[Pair]:
    """Every ordered pair of peers."""
    return [Pair(source, target) for source in names for target in names if source != target]


def write(seed: int, names: Sequence[str]) -> list[Step]:
    """The steps of one run. The same seed gives the same steps; who is hit and in which phase is drawn."""
    draw = Random(seed)
    return [_step(scene, pairs(names), draw) for scene in SCENES]


def _step(scene: Scene, everyone: Sequence[Pair], draw: Random) -> Step:
    one = draw.choice(everyone)
    hit = tuple(pair for pair in everyone if pair.target == one.target) if scene.everyone else (one,)
    words = {"what": one.target if scene.everyone else str(one), "seconds": f"{scene.seconds:g}"}
    return Step(
        fault=scene.fault,
        target=one.target,
        pairs=hit,
        pause=SETTLE_SECONDS + draw.uniform(0, PHASE_SECONDS),
        seconds=scene.seconds,
        expectation=scene.expectation,
        title=scene.title.format(**words),
        done=scene.done.format(**words),
        look=scene.look.format(**words),
    )
