"""Which path or component is to blame? What fails, held against what works: states in, keys of findings out. Pure.

1. What is unknown neither works nor fails. Nothing fails: no finding. Nothing is known, or nothing fits:
   `not_enough_known`.
2. A source that reaches none of its targets, two at least, is suspected itself, unless others miss them all, too; what
   a suspect says of targets is left aside. When nobody reaches anything, it is the network.
3. `RULES` go from the most telling to the least. What one rule explains, the next do not explain again, but every
   stream of the target stays there to be held against.
4. A group of streams works if any of them does, and fails if some are known and none works.
5. A finding is likely if its rule says so, nothing it compared is unknown, and no side rests on a single stream; else
   it is possible.

What a key means and where to look stands under `where_to_look` in metrics.yaml.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeVar

Result = TypeVar("Result")
Steps = Generator[None, None, Result]  # work that may be left between any two of them

# To add a pattern: its key here, at its place from worst to mildest, a rule in RULES, its texts in metrics.yaml.
KEYS = (
    "network_down",
    "observer_suspect",
    "target_down",
    "peer_frozen",
    "external_down",
    "egress_down",
    "nodeports_down",
    "loadbalancer_down",
    "router_down",
    "service_down",
    "tunnel_down",
    "zones_apart",
    "path_down",
    "node_gateway_down",
    "new_connections_fail",
    "big_answers_lost",
    "one_way",
    "one_family",
    "one_protocol",
    "some_sources",
    "established_broken",
    "not_enough_known",
)

MESH = frozenset({"pod", "service"})  # the paths within the cluster
NEW = frozenset({"http"})  # a new connection for each probe; the other protocols keep one
# Causes that tell more than "down": the port answered, and not as it should; connected, and then heard nothing.
ANSWERED = frozenset({"refused", "tls", "ws_upgrade", "http_status", "bad_response", "reset", "closed"})
SILENT = frozenset({"response_timeout", "stalled", "peer_frozen"})
CUT = "stalled"  # connected, and then a part of what was said got through


class Seen(NamedTuple):
    """One stream as it stands. `since`: seconds on any one clock; `breaks`: connections broken lately; "" is unknown.

    `cause` is the last failure's, one of probing.protocols.CAUSES. Nodes and zones are those of the two ends.
    """

    source: str
    target: str
    path: str
    protocol: str
    state: Literal["up", "down", "frozen", "unknown"]
    family: int = 4
    since: float = 0.0
    cause: str = ""
    breaks: int = 0
    source_node: str = ""
    target_node: str = ""
    source_zone: str = ""
    target_zone: str = ""

    @property
    def key(self) -> str:
        return f"{self.source}|{self.target}|{self.path}|{self.protocol}|{self.family}"

    @property
    def fails(self) -> bool:
        return self.state in ("down", "frozen")


class Finding(NamedTuple):
    """A pattern that was found, and the keys of the streams it rests on: those that fail, those that work.

    `source` is that of `observer_suspect`, `target` that of all others; both are "" for `network_down`. `since` is the
    earliest of those that fail, None where none does.
    """

    key: str
    target: str
    source: str
    sure: Literal["likely", "possible"]
    failing: tuple[str, ...]
    working: tuple[str, ...]
    since: float | None


class Hint(NamedTuple):
    """What a rule says: these fail, those work, and all that it compared; `clear`: nothing else would look like it."""

    key: str
    failing: Sequence[Seen]
    working: Sequence[Seen]
    compared: Sequence[Seen]
    clear: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """The streams to one target, those from it, and what no rule has explained so far."""

    toward: tuple[Seen, ...]
    away: tuple[Seen, ...]
    left: Set[Seen]

    def on(self, paths: Iterable[str]) -> list[Seen]:
        return [each for each in self.toward if each.path in paths]

    @property
    def inbound(self) -> list[Seen]:
        """By the paths that lead into the cluster."""
        return [each for each in self.toward if each.path not in MESH and each.path != "egress"]


def compare(toward: Sequence[Seen], away: Sequence[Seen] = ()) -> list[Finding]:
    """What is to blame for one target, worst first; `toward`: the streams to it; `away`: those whose source it is."""
    left = {each for each in toward if each.fails or each.breaks}
    if toward and not left and not _known(toward):
        return [at_once(_finding([Hint("not_enough_known", (), (), toward)], toward[0].target))]
    if not left:
        return []
    case = Case(tuple(sorted(toward)), tuple(sorted(away)), frozenset())
    hints: dict[str, list[Hint]] = defaultdict(list)
    for rule in RULES:
        if not left:
            break
        for hint in list(rule(Case(case.toward, case.away, frozenset(left)))):
            explained = [each for each in hint.failing if each in left]
            if explained:
                hints[hint.key].append(hint._replace(failing=explained))
                left.difference_update(explained)
    return sorted((at_once(_finding(each, case.toward[0].target)) for each in hints.values()), key=_rank)


def compare_all(streams: Iterable[Seen]) -> list[Finding]:
    """What is to blame for all that one or more sources see, worst first."""
    return at_once(comparing(streams))


def comparing(streams: Iterable[Seen]) -> Steps[list[Finding]]:
    """The same in small steps, for whoever has other things to do between them."""
    everything: list[Seen] = []
    toward, away = defaultdict[str, list[Seen]](list), defaultdict[str, list[Seen]](list)
    reaching: set[str] = set()  # sources that reach anything
    missed = defaultdict[str, set[str]](set)  # targets, by source
    for each in streams:
        yield
        everything.append(each)
        toward[each.target].append(each)
        away[each.source].append(each)
        if each.fails:
            missed[each.source].add(each.target)
        elif each.state == "up":
            reaching.add(each.source)
    if not reaching and len(missed) > 1 and len(set().union(*missed.values())) > 1:
        return [(yield from _finding([Hint("network_down", _failing(everything), (), everything)]))]
    findings: list[Finding] = []
    suspects: set[str] = set()
    for source, targets in missed.items():
        yield
        if source not in reaching and len(targets) > 1 and (hint := _suspect(away[source], targets, toward)):
            suspects.add(source)
            findings.append((yield from _finding([hint], source=source)))
    for target, seen in toward.items():
        yield
        findings += compare([each for each in seen if each.source not in suspects], away.get(target, ()))
    return sorted(findings, key=_rank)


def at_once(steps: Steps[Result]) -> Result:
    """Take all steps; what they come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def worst(streams: Iterable[Seen]) -> Finding | None:
    """The one finding that matters most of all that one or more sources see; None when nothing fails."""
    return next(iter(compare_all(streams)), None)


# Who looks.


def _suspect(mine: Sequence[Seen], missed: Iterable[str], toward: Mapping[str, Sequence[Seen]]) -> Hint | None:
    """Why a source that reaches nothing is suspected itself: others reach what it does not, or nobody else looks."""
    others = [each for target in missed for each in toward[target] if each.source != mine[0].source]
    if _fails(others):
        return None
    return Hint("observer_suspect", _failing(mine), _working(others), mine, clear=_works(others))


# The rules of one target.


def _peer_frozen(case: Case) -> Iterator[Hint]:
    """Connections are made, nobody gets an answer; whether it asks others and is answered is another thing."""
    failing = _failing(case.toward)
    frozen = any(each.state == "frozen" for each in failing)
    if frozen and _silent(failing) and not _cut(failing) and not _works(case.toward):
        yield Hint("peer_frozen", failing, (), case.toward)


def _big_answers_lost(case: Case) -> Iterator[Hint]:
    """On one way connections are made, and of what is said on them a part gets through."""
    for own in _groups(case.toward, "source", "path", "target_node", "family").values():
        if _fails(own) and _cut(_failing(own)):
            yield Hint("big_answers_lost", _failing(own), _working(case.toward), own)


def _one_way(case: Case) -> Iterator[Hint]:
    """A does not reach B, and B reaches A; or nobody reaches B, not even from inside, and B reaches somebody."""
    if _fails(case.on(MESH)) and not _works(case.toward) and _works(case.away):
        yield Hint("one_way", _failing(case.toward), _working(case.away), [*case.toward, *case.away])
    ways_back = _groups(case.away, "target", "path")
    for way, mine in _groups(case.toward, "source", "path").items():
        back = ways_back.get(way, [])
        if _fails(mine) and _works(back):
            yield Hint("one_way", _failing(mine), _working(back), [*mine, *back])


def _egress_down(case: Case) -> Iterator[Hint]:
    out = case.on({"egress"})
    if _fails(out) and (_works(case.toward) or len({each.source for each in out}) > 1):
        yield Hint("egress_down", _failing(out), _working(case.toward), case.toward)


def _target_down(case: Case) -> Iterator[Hint]:
    """Nobody reaches it by any path, nor does it reach anybody."""
    failing = _failing(case.toward)
    paths, ways = {each.path for each in failing}, {(each.source, each.path) for each in failing}
    if len(ways) > 1 and not _works(case.toward + case.away):
        yield Hint("target_down", failing, (), case.toward, clear=bool(paths & MESH and paths - MESH))


def _external_down(case: Case) -> Iterator[Hint]:
    """All paths from outside fail, and inside it is alive."""
    alive = _working([*case.on(MESH), *case.away])
    paths = {each.path for each in _known(case.inbound)}
    if _fails(case.inbound) and alive and paths != {"nodeport"}:
        yield Hint("external_down", _failing(case.inbound), alive, case.toward, clear=len(paths) > 1)


def _nodeports_down(case: Case) -> Iterator[Hint]:
    ports = case.on({"nodeport"})
    others = _working([each for each in case.toward if each.path != "nodeport"])
    if _fails(ports) and others:
        inside = any(each.path in MESH for each in others)
        nodes = {each.target_node for each in ports}
        yield Hint("nodeports_down", _failing(ports), others, case.toward, clear=inside and len(nodes) > 1)


def _node_gateway_down(case: Case) -> Iterator[Hint]:
    ports = case.on({"nodeport"})
    for node, own in _groups(ports, "target_node").items():
        if node and _fails(own) and _works(ports):
            yield Hint("node_gateway_down", _failing(own), _working(ports), ports)


def _loadbalancer_down(case: Case) -> Iterator[Hint]:
    balancer, ports, routes = case.on({"loadbalancer"}), case.on({"nodeport"}), case.on({"route", "ingress"})
    both = _works(ports) and _works(routes)
    if _fails(balancer) and (_works(ports) or (_works(routes) and not _fails(ports))):
        beside = [*ports, *routes]
        yield Hint("loadbalancer_down", _failing(balancer), _working(beside), [*balancer, *beside], clear=both)


def _router_down(case: Case) -> Iterator[Hint]:
    for path in ("route", "ingress"):
        routes, beside = case.on({path}), case.on({"loadbalancer", "nodeport"})
        balancer, ports = _alike(case.on({"loadbalancer"}), routes), _alike(case.on({"nodeport"}), routes)
        if _fails(routes) and (_works(balancer) or (_works(ports) and not _fails(balancer))):
            yield Hint("router_down", _failing(routes), _working(beside), [*routes, *balancer], clear=_works(balancer))


def _service_down(case: Case) -> Iterator[Hint]:
    services, pods = case.on({"service"}), case.on({"pod"})
    if _fails(services) and _works(pods):
        yield Hint("service_down", _failing(services), _working(pods), [*services, *pods])


def _tunnel_down(case: Case) -> Iterator[Hint]:
    """Between nodes nothing gets through, within the node it does; or the same of zones."""
    for path in MESH:
        placed = [each for each in case.on({path}) if each.source_node and each.target_node]
        near = [each for each in placed if each.source_node == each.target_node]
        far = [each for each in placed if each.source_node != each.target_node]
        if _fails(far) and _works(near):
            yield Hint("tunnel_down", _failing(far), _working(near), placed)
        zoned = [each for each in far if each.source_zone and each.target_zone]
        within = [each for each in zoned if each.source_zone == each.target_zone]
        across = [each for each in zoned if each.source_zone != each.target_zone]
        if _fails(across) and _works(within):
            yield Hint("zones_apart", _failing(across), _working(within), zoned)


def _path_down(case: Case) -> Iterator[Hint]:
    for path, own in _groups(case.toward, "path").items():
        sources = {each.source for each in _known(own)}
        others = [each for each in case.toward if each.path != path]
        mine = [each for each in others if each.source in sources]
        if _fails(own) and _works(_alike(mine if _known(mine) else others, own)):
            yield Hint("path_down", _failing(own), _working(case.toward), case.toward)


def _some_sources(case: Case) -> Iterator[Hint]:
    for own in _groups(case.toward, "path").values():
        for mine in _groups(own, "source").values():
            if _fails(mine) and _works(own):
                yield Hint("some_sources", _failing(mine), _working(own), own)


def _one_family(case: Case) -> Iterator[Hint]:
    for own in _groups(case.toward, "source", "path", "target_node").values():
        for alike in _groups(own, "family").values():
            if _fails(alike) and _works(own):
                yield Hint("one_family", _failing(alike), _working(own), own)


def _protocols(case: Case) -> Iterator[Hint]:
    """Some protocols of one source and path fail, the others work: is it new connections, or established ones?"""
    by_source = _groups(case.toward, "source")
    for own in _groups(case.toward, "source", "path", "target_node", "family").values():
        failing, working = _failing(own), _working(own)
        mine = by_source[own[0].source]
        if failing and _new(_known(own)) and _fails([each for each in mine if each.protocol in NEW]):
            working = _working(mine)  # nothing is kept on this path; on others it is
        if not failing or not working:
            continue
        if _new(failing):
            yield Hint(_of_new_ones(failing), failing, working, own)
        elif _new(working) and _cut(failing):  # whoever asks for big answers only works: big requests are lost
            yield Hint("big_answers_lost", failing, working, own)
        elif all(each.breaks for each in failing) or (len(failing) > 1 and _new(working)):
            yield Hint("established_broken", failing, working, own, clear=all(each.breaks for each in failing))
        else:
            yield Hint("one_protocol", failing, working, own)


def _of_new_ones(failing: Sequence[Seen]) -> str:
    """Their answers are also the bigger ones, and their port is another one; the cause tells which it is."""
    if all(each.cause in ANSWERED for each in failing):
        return "one_protocol"
    return "big_answers_lost" if _silent(failing) else "new_connections_fail"


def _breaks(case: Case) -> Iterator[Hint]:
    """Connections broke while fresh ones worked, and now all is well."""
    broken = [each for each in case.toward if each.breaks and not each.fails]
    ways = {(each.source, each.path, each.family) for each in broken}
    beside = [each for each in case.toward if each.protocol in NEW and (each.source, each.path, each.family) in ways]
    yield Hint("established_broken", broken, _working(beside), beside, clear=_works(beside))


def _not_enough_known(case: Case) -> Iterator[Hint]:
    yield Hint("not_enough_known", sorted(case.left), (), case.toward, clear=False)


RULES: tuple[Callable[[Case], Iterator[Hint]], ...] = (
    _peer_frozen,
    _big_answers_lost,
    _one_way,
    _egress_down,
    _target_down,
    _external_down,
    _loadbalancer_down,
    _nodeports_down,
    _node_gateway_down,
    _router_down,
    _service_down,
    _tunnel_down,
    _path_down,
    _some_sources,
    _one_family,
    _protocols,
    _breaks,
    _not_enough_known,
)


# Groups of streams.


def _known(streams: Iterable[Seen]) -> list[Seen]:
    return [each for each in streams if each.state != "unknown"]


def _failing(streams: Iterable[Seen]) -> list[Seen]:
    return [each for each in streams if each.fails]


def _working(streams: Iterable[Seen]) -> list[Seen]:
    return [each for each in streams if each.state == "up"]


def _works(streams: Iterable[Seen]) -> bool:
    return any(each.state == "up" for each in streams)


def _fails(streams: Iterable[Seen]) -> bool:
    known = _known(streams)
    return bool(known) and not _works(known)


def _silent(failing: Iterable[Seen]) -> bool:
    """Connected, and no answer."""
    return all(each.state == "frozen" or each.cause in SILENT for each in failing)


def _cut(failing: Sequence[Seen]) -> bool:
    """The same, and one of them knows that it is for want of a part."""
    return _silent(failing) and any(each.state == "down" and each.cause == CUT for each in failing)


def _new(streams: Iterable[Seen]) -> bool:
    return all(each.protocol in NEW for each in streams)


def _alike(streams: Sequence[Seen], own: Iterable[Seen]) -> Sequence[Seen]:
    """Those over the protocols of `own`, where any is known: a path may be probed over http alone."""
    protocols = {each.protocol for each in _known(own)}
    alike = [each for each in streams if each.protocol in protocols]
    return alike if _known(alike) else streams


def _groups(streams: Iterable[Seen], *fields: str) -> dict[Any, list[Seen]]:
    """By one field's value, or by the tuple of several."""
    groups: dict[Any, list[Seen]] = defaultdict(list)
    of = attrgetter(*fields)
    for each in streams:
        groups[of(each)].append(each)
    return dict(groups)


def _finding(hints: Sequence[Hint], target: str = "", source: str = "") -> Steps[Finding]:
    """One finding of all that rules said under one key. Ways in by several nodes share a key, and are several."""
    failing: set[tuple[str, str]] = set()
    working: set[tuple[str, str]] = set()
    since: float | None = None
    known = True
    for hint in hints:
        for each in hint.failing:
            yield
            failing.add((each.key, each.target_node))
            if each.fails and (since is None or each.since < since):
                since = each.since
        for each in hint.working:
            yield
            working.add((each.key, each.target_node))
        known = known and all(each.state != "unknown" for each in hint.compared)
    clear = all(hint.clear for hint in hints) and known and len(failing) > 1 and len(working) != 1
    return Finding(
        key=hints[0].key,
        target=target,
        source=source,
        sure="likely" if clear else "possible",
        failing=tuple(sorted({key for key, _ in failing})),
        working=tuple(sorted({key for key, _ in working})),
        since=since,
    )


def _rank(finding: Finding) -> tuple[int, bool, int, str, str]:
    wide = -len(finding.failing)
    return (KEYS.index(finding.key), finding.sure == "possible", wide, finding.target, finding.source)
