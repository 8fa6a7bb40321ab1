"""What broke, held against what was being done: outages, phases and events in, a reason for each outage out. Pure.

1. A turn is a phase of one node. An outage is `expected` if it began within the turn of a node of its own: of its
   source, or one that answered before or after it. It may begin SETTLE after the turn's end, and SLACK off for clocks.
2. Outages of one moment are held against each other. When a node that is not under way has lost more other nodes than
   the one under way, it is the better suspect, and that turn explains none of its outages. Of two turns,
   that in which more of the outage was is it, or else that of the node that has lost more; one that is over, only where
   no turn that is under way explains it.
3. In a turn of another node an outage is `collateral`, but only where that node was seen in trouble at that moment: an
   outage that its turn explains, or an event of its own.
4. A phase of the whole cluster explains nothing by itself: in a long one everything would be expected. In one that
   `rolls` from node to node without naming them, an event says whose turn it was; NODES stands for all of them at once.
5. What fails for all targets of a source while others still reach the source is the `observer`'s, not the path's.
   Told apart and never forgiven: it may be the network all the same.
6. The rest is `unexplained`, a crash of a node's OVS outside every turn, too. So are the seconds of an outage that
   lasts longer than SETTLE after the turn that explains it.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from math import inf
from typing import Literal, NamedTuple, TypeVar

from exporters import times

Verdict = Literal["expected", "collateral", "unexplained", "observer"]

NODES = "*"  # as a phase's node: all of them
SLACK = 2.0  # seconds that two machines' clocks may be apart
SETTLE = 15.0  # seconds after a turn or an event in which its consequences may begin, or its outages end
FELT = 3.0  # seconds within which one cause is felt by all streams; what begins later is another moment's
LEAD = 300.0  # seconds: a node is away for so long before the start that tells of it
RESTART = "restart of "  # how the name of an event begins that a daemon's start is; the daemon's comes next
MOST_TOLD = 5  # events that are told of one outage
OUTSIDE = frozenset({"egress"})  # paths whose target is no node of the cluster


class Outage(NamedTuple):
    """A stream that got no answer; Unix times, an open one ends when it was asked for.

    `nodes`: of its target and the replicas that answered before and after; `source_node` may be "".
    """

    id: str
    source: str
    target: str
    path: str
    protocol: str
    begin: float
    end: float
    source_node: str = ""
    nodes: frozenset[str] = frozenset()
    stall_overlap: bool = False
    inner: tuple[float, float] | None = None  # in which it was out for sure; None: begin and end are all we know
    outer: tuple[float, float] | None = None  # outside of which it was not

    @property
    def span(self) -> tuple[float, float]:
        return self.begin, self.end

    @property
    def touched(self) -> frozenset[str]:
        """The nodes it is about."""
        return (self.nodes | {self.source_node}) - {""}


class Phase(NamedTuple):
    """A step of a migration; `node` is "" for the whole cluster, `end` infinite while it lasts. `rolls`: see rule 4."""

    name: str
    begin: float
    end: float = inf
    node: str = ""
    rolls: bool = False


class Event(NamedTuple):
    """What happened to a node, and when at the earliest and latest: a reboot, a start of OVS, an egress move."""

    name: str
    node: str
    earliest: float
    latest: float


class Explained(NamedTuple):
    """Why an outage was. `left`: its seconds that are unexplained all the same, all of them where the verdict is."""

    outage: Outage
    verdict: Verdict
    node: str  # under way, which explains it; "" where none does
    evidence: tuple[str, ...]
    left: float


def explain(
    outages: Iterable[Outage],
    phases: Iterable[Phase],
    events: Iterable[Event],
    streams: Iterable[tuple[str, str, str]] = (),
) -> list[Explained]:
    """Each outage with its reason, by its begin; `streams`: (source, target, target's node) of all there were."""
    site = _Site(sorted(outages, key=lambda each: (each.begin, each.id)), sorted(phases), sorted(events), set(streams))
    first = [site.own(each) for each in site.outages]
    site.troubled = {found.outage.id: found.node for found in first if found is not None}
    return [found or site.later(outage) for outage, found in zip(site.outages, first, strict=True)]


class _Site:
    """All that is known, to ask of one outage after the other."""

    def __init__(
        self,
        outages: Sequence[Outage],
        phases: Sequence[Phase],
        events: Sequence[Event],
        streams: Set[tuple[str, str, str]],
    ) -> None:
        self.outages = outages
        self.troubled: dict[str, str] = {}  # outages that a turn of their own explains, by id: the node
        self._moments = _moments(outages, phases, events, {node for *_, node in streams} - {""})
        self._targets: defaultdict[str, set[str]] = defaultdict(set)
        self._reached_by: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for source, target, node in streams:
            self._targets[source].add(target)
            self._reached_by[target].add((source, target))
            if node:
                self._reached_by[node].add((source, target))

    # -- who was under way

    def own(self, outage: Outage, *, over: bool = False) -> Explained | None:
        """By the turn of a node of its own, or an event of one that rolled; `over`: of a moment ago, too."""
        for phase, node in sorted(self._own_turns(outage, over=over), key=lambda each: self._likely(outage, *each)):
            if not self._suspect(outage, node):
                return self._by("expected", outage, node, phase)
        for phase, event in self._rolled(outage):
            if event.node in outage.touched:
                return self._by("expected", outage, event.node, phase, event=event)
        return None

    def _own_turns(self, outage: Outage, *, over: bool) -> Iterator[tuple[Phase, str]]:
        """The turns of its own nodes."""
        for phase in self._turns(outage, over=over):
            nodes = sorted(outage.touched) if phase.node == NODES else [phase.node]
            yield from ((phase, node) for node in nodes if node in outage.touched)

    def _likely(self, outage: Outage, phase: Phase, node: str) -> tuple[float, int]:
        """Of two turns of its nodes, that comes first in which more of it was, then that of who lost more others."""
        return -_shared(phase, outage), -len(self._at(outage).lost.get(node, ()))

    def others(self, outage: Outage, *, over: bool = False) -> Explained | None:
        """By the turn of another node that was in trouble, or its event."""
        for phase in sorted(self._turns(outage, over=over), key=lambda each: -_shared(each, outage)):
            event = next(
                (each for each in self._at(outage).events if each.node == phase.node and _near(each, outage)), None
            )
            if event is not None:
                return self._by("collateral", outage, phase.node, phase, event=event)
            beside = next(self._beside(outage, phase.node), None)
            if beside is not None and not self._suspect(outage, phase.node):
                return self._by("collateral", outage, phase.node, phase, beside=beside)
        for phase, event in self._rolled(outage):
            return self._by("collateral", outage, event.node, phase, event=event)
        return None

    def later(self, outage: Outage) -> Explained:
        """Where no turn of its own that is under way explains it."""
        there_was = self.own(outage, over=True) or self.others(outage, over=True)
        return self.others(outage) or there_was or self.without(outage)

    def without(self, outage: Outage) -> Explained:
        """By no phase: the observer's own, or unexplained."""
        length = outage.end - outage.begin
        evidence = self._circumstances(outage)
        alone = self._observer(outage)
        if alone:
            return Explained(outage, "observer", "", (alone, *evidence), length)
        return Explained(outage, "unexplained", "", evidence, length)

    def _at(self, outage: Outage) -> "_Moment":
        return self._moments[_moment(outage)]

    def _beside(self, outage: Outage, node: str) -> Iterator[Outage]:
        """Those of a node under way at that time."""
        out = self._at(outage).out
        return (each for each in out if self.troubled.get(each.id) == node and _together(each, outage))

    def _turns(self, outage: Outage, *, over: bool = True) -> Iterable[Phase]:
        return (
            each
            for each in self._at(outage).phases
            if each.node and _began_in(each, outage) and (over or outage.begin <= each.end)
        )

    def _rolled(self, outage: Outage) -> Iterable[tuple[Phase, Event]]:
        for phase in self._at(outage).phases:
            if phase.rolls and not phase.node and _began_in(phase, outage):
                yield from (
                    (phase, event) for event in self._at(outage).events if _near(event, outage) and _in(phase, event)
                )

    def _by(
        self,
        verdict: Verdict,
        outage: Outage,
        node: str,
        phase: Phase,
        *,
        event: Event | None = None,
        beside: Outage | None = None,
    ) -> Explained:
        """What of it the phase, or the event, does not explain any more is what comes SETTLE after it."""
        over = max(phase.end, event.latest if event else -inf)
        left = max(0.0, outage.end - max(over + SETTLE, outage.begin))
        where = "all nodes" if phase.node == NODES else phase.node or "the cluster"
        evidence = [f"{phase.name} of {where} was under way"]
        near = [each for each in self._at(outage).events if each.node == node and _near(each, outage)]
        happened = dict.fromkeys([event, *near] if event else near)
        evidence += [_happened(each, outage) for each in [*happened][:MOST_TOLD]]
        if beside:
            evidence.append(f"{node} was out for {beside.source} -> {beside.target} at that time")
        if left:
            evidence.append(f"it lasted {left:.1f} s longer than that explains")
        if outage.stall_overlap:
            evidence.append("its source stalled meanwhile")
        return Explained(outage, verdict, node, tuple(evidence), left)

    # -- what speaks against it

    def _suspect(self, outage: Outage, under_way: str) -> str:
        """A node of its own, not under way, that lost more others at that moment than the one under way; "" if none."""
        lost = self._at(outage).lost
        busy = {phase.node for phase in self._turns(outage)}
        if NODES in busy:
            return ""
        most = max(len(lost.get(under_way, ())), 1)
        worse = [(len(lost.get(node, ())), node) for node in outage.touched - busy]
        return max((each for each in worse if each[0] > most), default=(0, ""))[1]

    def _observer(self, outage: Outage) -> str:
        """Why it is the source's own fault, as far as others tell; "" if they do not."""
        missed = self._at(outage).missed
        targets = self._targets[outage.source]
        if len(targets) < 2 or not targets <= missed[outage.source]:
            return ""
        names = {outage.source, outage.source_node} - {""}
        watchers = sorted({pair for name in names for pair in self._reached_by[name] if pair[0] != outage.source})
        reaching = next((source for source, target in watchers if target not in missed.get(source, ())), "")
        told = f"{outage.source} missed all {len(targets)} targets while {reaching} still reached it"
        return told if reaching else ""

    def _circumstances(self, outage: Outage) -> tuple[str, ...]:
        """What is known of that time and explains nothing."""
        said = [
            f"{each.name} of {each.node or 'the cluster'} was under way, which explains nothing here"
            for each in self._at(outage).phases
            if _began_in(each, outage)
        ]
        near = [each for each in self._at(outage).events if _near(each, outage)]
        said += [f"{_happened(each, outage)}, in no turn of its" for each in near[:MOST_TOLD]]
        if outage.stall_overlap:
            said.append("its source stalled meanwhile")
        return tuple(said) or ("no phase was under way",)


def _happened(event: Event, outage: Outage) -> str:
    """An event as evidence: what it was, and when, as seen from the outage."""
    if not event.name.startswith(RESTART):
        return f"{event.name} of {event.node} {event.earliest - outage.begin:+.1f} s from its begin"
    when = f"{times.iso(event.latest)[11:19]}Z, {event.latest - outage.begin:+.1f} s from its begin"
    return f"{event.name.removeprefix(RESTART)} of {event.node} restarted at {when}"


def _began_in(phase: Phase, outage: Outage) -> bool:
    return phase.begin - SLACK <= outage.begin <= phase.end + SETTLE


def _shared(phase: Phase, outage: Outage) -> float:
    """Seconds of the outage that lie in the phase."""
    return max(0.0, min(phase.end, outage.end) - max(phase.begin, outage.begin))


def _near(event: Event, outage: Outage) -> bool:
    """May it be the event's doing? It began no earlier, or lasts into it: a node stops before it starts."""
    return event.earliest - LEAD <= outage.begin <= event.latest + SETTLE and event.earliest - SLACK <= outage.end


def _in(phase: Phase, event: Event) -> bool:
    return phase.begin - SLACK <= event.latest and event.earliest <= phase.end + SLACK


def _together(one: Outage, other: Outage) -> bool:
    return one.begin <= other.end + SLACK and other.begin <= one.end + SLACK


class _Moment(NamedTuple):
    """What was out at one time: by node, the other nodes it lost; by source, the targets it missed.

    And the phases and events that may have to do with it.
    """

    lost: Mapping[str, Set[str]]
    missed: Mapping[str, Set[str]]
    out: Sequence[Outage]
    phases: Sequence[Phase]
    events: Sequence[Event]


def _moment(outage: Outage) -> int:
    return round(outage.begin / SLACK)


def _moments(
    outages: Sequence[Outage], phases: Iterable[Phase], events: Iterable[Event], probed: Set[str]
) -> dict[int, _Moment]:
    """Each moment in which an outage began, by its number; `probed`: nodes of all targets."""
    numbers = sorted({_moment(each) for each in outages})
    inside = probed | {node for each in outages if each.path not in OUTSIDE for node in each.nodes}
    return {
        number: _Moment(*_failing(out, inside), out, under_way, happened)
        for number, out, under_way, happened in zip(
            numbers,
            _around(numbers, ((each.begin - FELT, each.end + SLACK, each) for each in outages)),
            _around(numbers, ((each.begin - SLACK, each.end + SETTLE, each) for each in phases)),
            _around(numbers, ((each.earliest - LEAD, each.latest + SETTLE, each) for each in events)),
            strict=True,
        )
    }


Thing = TypeVar("Thing", Outage, Phase, Event)


def _around(numbers: Sequence[int], things: Iterable[tuple[float, float, Thing]]) -> Iterator[list[Thing]]:
    """Of things with begin and end, those that last at each moment, or at one beside it."""
    coming = deque(sorted(things, key=lambda each: each[:2]))
    lasting: list[tuple[float, float, Thing]] = []
    for number in numbers:
        while coming and coming[0][0] <= (number + 1) * SLACK:
            lasting.append(coming.popleft())
        lasting = [each for each in lasting if each[1] >= (number - 1) * SLACK]
        yield [thing for _, _, thing in lasting]


def _failing(out: Iterable[Outage], inside: Set[str]) -> tuple[Mapping[str, Set[str]], Mapping[str, Set[str]]]:
    """What `_Moment` says of outages; who is not `inside` the cluster is counted with nobody."""
    lost: defaultdict[str, set[str]] = defaultdict(set)
    missed: defaultdict[str, set[str]] = defaultdict(set)
    for each in out:
        missed[each.source].add(each.target)
        if each.source_node in inside:
            for node in each.nodes - {each.source_node}:
                lost[each.source_node].add(node)
                lost[node].add(each.source_node)
    return lost, missed
