"""What watches hold of a cluster in, phases and events out: what changed since the last step. Pure.

1. A phase is told when it is another one than before: no restart, no new list and no repetition tells it anew.
2. What is known counts for UNKNOWN_SECONDS after it was current. Then there is no phase, since then, until it is known
   again; what has to be remembered of the time before (boot ids, addresses, rounds) stays remembered.
3. Until everything that a kind reads is known, it says nothing. What was open before a restart lasts so long. While one
   of its watches is interrupted the others are ahead of it, so that what was last known stays.
4. A node that fails of itself is not at its turn: that it did is an event, and excuses nothing.
5. Events lie between the moment as of which it was still so and the one in which it was not any more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from exporters.migration.kinds import DOWN, KINDS, Node, State, conditions, egress, moves, node
from exporters.migration.kinds import condition as condition_of
from exporters.migration.names import NODE, NONE
from exporters.migration.resources import NEEDS
from exporters.objects import Held, Key, Known

UNKNOWN_SECONDS = 300.0
LONGEST_NAME = 100  # in the text of an event
CONDITIONS = ("clusteroperators/network", "networks.config/cluster")


class Phase(NamedTuple):
    """From `at` on (Unix time) the cluster ("") or a node is in it; NONE ends the one before."""

    kind: str
    node: str
    name: str
    rolls: bool
    at: float


class Event(NamedTuple):
    """What happened to a node between two Unix times; `more` is what its entry says besides."""

    name: str
    node: str
    earliest: float
    latest: float
    more: Mapping[str, Any] = {}


class Gap(NamedTuple):
    """Something was not known between these Unix times, for longer than what was last known counts."""

    begin: float
    end: float


Change = Phase | Event | Gap


class Kept(msgspec.Struct, array_like=True):
    """What is remembered of a node; `booted_at` in Unix time, 0.0 where nobody saw it boot."""

    phase: str
    boot_id: str
    booted: bool
    booted_at: float
    turn: bool
    ready: bool

    @property
    def before(self) -> Node:
        return Node(self.phase, self.boot_id, self.booted, turn=self.turn)


class Memory(msgspec.Struct):
    """What outlives us. `egress`: by name and address the node; None while nobody looked."""

    nodes: dict[str, Kept] = {}
    egress: list[tuple[str, str, str]] | None = None
    phases: dict[str, str] = {}  # by kind
    heard: dict[str, float] = {}  # as of when what we know of a resource was current


class Seen:
    """The cluster as it was at the last step. `shown`: the phases that are open, by kind and node, and if they roll."""

    def __init__(self, started: float, shown: Mapping[tuple[str, str], tuple[str, bool]], memory: Memory) -> None:
        self.shown = dict(shown)
        self.states: dict[str, State] = {}  # of kinds that are known
        self.nodes = dict(memory.nodes)
        self.egress = None if memory.egress is None else {(name, at): node for name, at, node in memory.egress}
        self.conditions: dict[str, bool] = {}
        self.known_nodes = self.known_egress = False
        self._phases = dict(memory.phases)
        self._heard = dict(memory.heard)  # at the last step, by resource
        self._started = started
        self._read: dict[tuple[str, str], Mapping[Key, Held]] = {}  # what was judged last, by kind and resource
        self._missing_since: float | None = None

    def memory(self) -> Memory:
        assigned = None if self.egress is None else [(*key, node) for key, node in self.egress.items()]
        return Memory(self.nodes, assigned, self._phases, self._heard)

    def progress(self) -> dict[str, float | None]:
        """How much of each kind's phase is done; None where that is unknown."""
        return {kind: self.states[kind].progress if kind in self.states else None for kind in KINDS}

    def failing(self) -> dict[str, str]:
        """By node its phase, of those that are in one without being at their turn."""
        nodes = self.nodes if self.known_nodes else {}
        return {name: each.phase for name, each in nodes.items() if each.phase != NONE and not each.turn}

    def recall(self, more: Mapping[str, Any], node: str, at: float) -> None:
        """Of an event that is in the journal, and happened after the memory was saved."""
        if "boot_id" in more and node in self.nodes:
            self.nodes[node].boot_id, self.nodes[node].booted_at = str(more["boot_id"]), at
        if "egressip" in more and self.egress is not None:
            self.egress[str(more["egressip"]), str(more["address"])] = str(more["to"])

    def step(self, known: Mapping[str, Known], now: float, running: float) -> list[Change]:
        """What changed up to `now` (Unix time), in order; `known` is by resource. We run for so many seconds."""
        fresh = {name for name, each in known.items() if each.age <= UNKNOWN_SECONDS}
        changes = [
            *self._nodes(known["nodes"], "nodes" in fresh, now, running),
            *self._egress(known["egressips"], "egressips" in fresh),
            *(change for kind in KINDS for change in self._kind(kind, known, fresh, now, running)),
        ]
        told = [each.object for name in CONDITIONS if name in fresh for each in known[name].objects.values()]
        self.conditions = conditions(told)
        changes += self._gap(known, fresh, now)
        self._heard |= {name: each.heard for name, each in known.items() if each.heard}
        return sorted(changes, key=lambda each: each.latest if isinstance(each, Event) else each[-1])

    def _gap(self, known: Mapping[str, Known], fresh: Iterable[str], now: float) -> Iterator[Gap]:
        """What was known and is not any more, once it is known again."""
        missing = [each.heard for name, each in known.items() if name not in fresh and each.heard]
        if missing and self._missing_since is None:
            self._missing_since = min(missing)
        elif not missing and self._missing_since is not None:
            yield Gap(self._missing_since, now)
            self._missing_since = None

    def _lost(self, names: Iterable[str], known: Mapping[str, Known], running: float) -> float | None:
        """Since when it is unknown what these hold; None while what was last known counts, or we have just begun."""
        if max(min(known[name].age, running) for name in names) <= UNKNOWN_SECONDS:
            return None
        return min(known[name].heard or self._heard.get(name, self._started) for name in names)

    def _tell(self, kind: str, node: str, name: str, rolls: bool, at: float) -> Iterator[Phase]:
        before = self.shown.get((kind, node), (NONE, False))
        if before != (name, rolls):
            self.shown[kind, node] = (name, rolls)
            if name == NONE:
                del self.shown[kind, node]
            yield Phase(kind, node, name, rolls, at)

    # -- kinds of migration of the whole cluster

    def _kind(
        self, kind: str, known: Mapping[str, Known], fresh: Iterable[str], now: float, running: float
    ) -> Iterator[Phase]:
        needed = NEEDS[kind]
        if not all(name in fresh for name in needed):
            lost = self._lost(needed, known, running)
            if lost is not None:
                self.states.pop(kind, None)
                yield from self._tell(kind, "", NONE, False, lost)
            return
        if not all(known[name].up or known[name].absent for name in needed):
            return
        different = [at for name in needed for at in self._different(kind, name, known[name])]
        if kind in self.states and not different:
            return
        objects = [each.object for name in needed for each in known[name].objects.values()]
        state = self.states[kind] = KINDS[kind](objects, self._phases.get(kind, NONE))
        self._phases[kind] = state.phase
        yield from self._tell(kind, "", state.phase, state.rolls, min(different, default=now))

    def _different(self, kind: str, name: str, known: Known) -> list[float]:
        """When what differs from what was judged last came; what is gone went as of when that is known."""
        before, self._read[kind, name] = self._read.get((kind, name), {}), known.objects
        came = [each.at for key, each in known.objects.items() if before.get(key) is not each]
        return [*came, known.heard] if before.keys() - known.objects.keys() else came

    # -- nodes

    def _nodes(self, known: Known, fresh: bool, now: float, running: float) -> Iterator[Change]:
        if not fresh:
            lost = self._lost(["nodes"], {"nodes": known}, running)
            self.known_nodes &= lost is None
            for _, name in [key for key in sorted(self.shown) if key[0] == NODE and lost is not None]:
                yield from self._tell(NODE, name, NONE, False, lost or now)
            return
        before, resumed = self._read.get((NODE, "nodes"), {}), not self.known_nodes
        self.known_nodes, self._read[NODE, "nodes"] = True, known.objects
        for key, held in known.objects.items():
            if resumed or before.get(key) is not held:
                yield from self._node(key[1], held, known.heard if resumed else held.at)
        present = {name for _, name in known.objects}
        for name in sorted((self.nodes.keys() | {name for kind, name in self.shown if kind == NODE}) - present):
            self.nodes.pop(name, None)
            yield from self._tell(NODE, name, NONE, False, known.heard)

    def _node(self, name: str, held: Held, at: float) -> Iterator[Change]:
        kept = self.nodes.get(name)
        found = node(held.object, kept.before if kept else None)
        earliest = min(self._heard.get("nodes", at), at)
        ready = condition_of(held.object, "Ready") == "True"
        booted_at = at if found.rebooted else kept.booted_at if kept else 0.0
        self.nodes[name] = Kept(found.phase, found.boot_id, found.booted, booted_at, found.turn, ready)
        yield from self._tell(NODE, name, found.phase if found.turn else NONE, False, at)
        failed = found.phase == DOWN and not found.turn
        if failed and kept is not None and (kept.turn or kept.phase == NONE):
            yield Event("not ready", name, earliest, at)
        if found.rebooted:
            yield Event("reboot", name, earliest, at, {"boot_id": found.boot_id})

    # -- addresses

    def _egress(self, known: Known, fresh: bool) -> Iterator[Event]:
        resumed, self.known_egress = not self.known_egress, fresh
        different = self._different("egress", "egressips", known) if fresh else []
        if not different and not (fresh and resumed):
            return
        before, after = self.egress, dict(egress(each.object for each in known.objects.values()))
        self.egress = after
        at = min(different, default=known.heard)
        for name, address, left, got in moves(before, after) if before is not None else ():
            places = (each[:LONGEST_NAME] or "nowhere" for each in (left, got))
            said = f"egress IP {address} of {name[:LONGEST_NAME]} from {' to '.join(places)}"
            more = {"egressip": name, "address": address, "from": left, "to": got}
            yield Event(said, got or left, min(self._heard.get("egressips", at), at), at, more)


Encode = Callable[[Memory], bytes]
pack: Encode = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(Memory).decode
