"""What the demo interrupts, in which order and when: a seed in, the steps out. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from exporters.bastion.ways import SUFFIXES
from exporters.calibrate.injection import Expectation

MESH = "pod"  # the path by which peers probe each other
OUTSIDE = "bastion"  # the source that probes from outside, by all other paths
# What is spoken on each path. A Route carries http alone.
PROTOCOLS = {
    MESH: ("http", "tcp", "ws"),
    "loadbalancer": ("http", "tcp", "ws"),
    "nodeport": ("http", "tcp", "ws"),
    "route": ("http",),
}

SETTLE_SECONDS = 3.0  # between two interruptions; late answers are waited for so long
PHASE_SECONDS = 1.0  # at most added to that, so that an interruption falls anywhere on the probes' grids


class Way(NamedTuple):
    """Who probes whom, by which path; a relay stands on each of its streams."""

    source: str
    target: str
    path: str

    def __str__(self) -> str:
        return f"{self.source}>{self.target}{'' if self.path == MESH else SUFFIXES[self.path]}"

    def key(self, protocol: str) -> str:
        """The key of the stream of that protocol."""
        return f"{self.source}|{self.target}|{self.path}|{protocol}|4"

    def streams(self) -> list[str]:
        """The keys of all its streams."""
        return [self.key(protocol) for protocol in PROTOCOLS[self.path]]


class Scene(NamedTuple):
    """A kind of interruption: what is done (a fault of the relay, or "kill"), for how long, and what it should show.

    `reach`: which ways it hits, a key of REACHES. {what} and {seconds} are filled in. `named`: what the bastion must
    say at its end, a key under `where_to_look` in metrics.yaml; "" if it is over before anybody could look.
    """

    fault: str
    reach: str
    seconds: float
    expectation: Expectation
    title: str
    done: str
    look: str
    named: str = ""


# Is a way hit, when that one between two peers was drawn?
REACHES: dict[str, Callable[[Way, Way], bool]] = {
    "one": lambda drawn, way: way == drawn,
    "all": lambda drawn, way: way.target == drawn.target,
    "outside": lambda drawn, way: way.target == drawn.target and way.source == OUTSIDE,
    "balancer": lambda drawn, way: way.target == drawn.target and way.path == "loadbalancer",
}

# To add an interruption: a line here.
SCENES = (
    Scene(
        "refuse", "all", 0.4, "path", "all ways to {what} cut", "every way to {what} is cut for {seconds} s",
        "an outage of {seconds} s on tcp and ws of the peers; http and the bastion ask less often and may miss it",
    ),
    Scene(
        "stall", "all", 2.5, "frozen", "{what} frozen", "{what} takes connections and answers none for {seconds} s",
        "a frozen peer, no outage of the path (a relay gone silent cannot be told from a frozen peer)",
    ),
    Scene(
        "reset", "all", 0.0, "break", "connections to {what} reset", "established connections to {what} are reset once",
        "a break on tcp and ws and no outage: new connections work; http has none to lose",
    ),
    Scene(
        "refuse", "one", 8.5, "path", "only {what} cut", "only the direction {what} is cut, for {seconds} s",
        "an outage on the three streams {what} and nowhere else, and the way back works", "one_way",
    ),
    Scene(
        "refuse", "balancer", 9.0, "path", "LoadBalancer of {what} cut",
        "the LoadBalancer of {what} is cut for {seconds} s, its NodePort and Route are not",
        "an outage of one path from outside, while the other ones and the peers reach {what}", "loadbalancer_down",
    ),
    Scene(
        "flow_drop", "all", 2.0, "break", "flows to {what} dropped",
        "established connections to {what} lose their packets for {seconds} s",
        "a break on tcp and ws, over as soon as a new connection works; no outage",
    ),
    Scene(
        "refuse", "outside", 9.0, "path", "{what} cut from outside",
        "LoadBalancer, NodePort and Route of {what} are cut for {seconds} s",
        "an outage of all ways in, and of none between the peers", "external_down",
    ),
    Scene(
        "refuse", "all", 9.0, "path", "all ways to {what} cut", "every way to {what} is cut for {seconds} s",
        "an outage long enough for OvnwatchStreamDown, seen by everybody; the bastion cannot ask {what} meanwhile",
        "target_down",
    ),
    Scene(
        "kill", "all", 0.0, "path", "{what} killed, restarted", "{what} is killed (-9) and started again",
        "an outage from the kill until {what} listens again; what {what} itself had recorded is there again",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One interruption to make: wait `pause` seconds, then interrupt `ways` for `seconds`. The rest is for readers."""

    fault: str
    target: str
    ways: tuple[Way, ...]
    pause: float
    seconds: float
    expectation: Expectation
    title: str
    done: str
    look: str
    named: str


def between(names: Sequence[str]) -> list[Way]:
    """Every ordered pair of peers."""
    return [Way(source, target, MESH) for source in names for target in names if source != target]


def from_outside(names: Sequence[str]) -> list[Way]:
    """Every way that leads in, to each peer."""
    return [Way(OUTSIDE, target, path) for target in names for path in PROTOCOLS if path != MESH]


def write(seed: int, names: Sequence[str]) -> list[Step]:
    """The steps of one run. The same seed gives the same steps; who is hit and in which phase is drawn."""
    draw = Random(seed)
    return [_step(scene, between(names), from_outside(names), draw) for scene in SCENES]


def _step(scene: Scene, mesh: Sequence[Way], outside: Sequence[Way], draw: Random) -> Step:
    one = draw.choice(mesh)
    hit = REACHES[scene.reach]
    words = {"what": str(one) if scene.reach == "one" else one.target, "seconds": f"{scene.seconds:g}"}
    return Step(
        fault=scene.fault,
        target=one.target,
        ways=tuple(way for way in (*mesh, *outside) if hit(one, way)),
        pause=SETTLE_SECONDS + draw.uniform(0, PHASE_SECONDS),
        seconds=scene.seconds,
        expectation=scene.expectation,
        title=scene.title.format(**words),
        done=scene.done.format(**words),
        look=scene.look.format(**words),
        named=scene.named,
    )
