"""Patterns as small tables: one row for each source and path, one letter for each of http, tcp and ws.

. up   x down   f frozen   ? unknown   r refused   t connected, then silent   c the same, and a part got through
b up, with breaks   - no such stream
A row reads `source[/node[/zone]]>target[/node[/zone]] path[/family] letters`. The first target is compared. After the
arrow stand the keys expected, a ! behind those that are likely.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters import catalog
from exporters.verdict.compare import KEYS, Finding, Seen, compare, compare_all, worst

LETTERS: dict[str, dict[str, Any]] = {
    ".": {"state": "up"},
    "x": {"state": "down", "cause": "connect_timeout"},
    "f": {"state": "frozen", "cause": "peer_frozen"},
    "?": {"state": "unknown"},
    "r": {"state": "down", "cause": "refused"},
    "t": {"state": "down", "cause": "response_timeout"},
    "c": {"state": "down", "cause": "stalled"},
    "b": {"state": "up", "breaks": 2},
    "B": {"state": "down", "breaks": 1},
}

ONE_TARGET = """
nothing fails ->
    bastion>shop  loadbalancer  ...
    n1>shop       pod           .?.

nothing is known -> not_enough_known
    bastion>shop  loadbalancer  ???
    n1>shop       pod           ???

one stream fails and nothing beside it is known -> not_enough_known
    bastion>shop  loadbalancer  x??

one source and path is too little to blame a target -> not_enough_known
    n1>shop       pod           xxx
    n2>shop       pod           ???

all paths, peers' too -> target_down!
    bastion>shop  loadbalancer  xxx
    bastion>shop  route         x--
    n1>shop       pod           xxx

all paths that are known -> target_down
    bastion>shop  loadbalancer  xxx
    bastion>shop  nodeport      xxx
    n1>shop       pod           ???

all sources of a mesh with one path -> target_down
    n1>n3         service       xxx
    n2>n3         service       xxx
    n3>n1         service       xxx

connected and silent everywhere -> peer_frozen!
    bastion>shop  loadbalancer  fff
    n1>shop       pod           tff

silent, and not known to be frozen -> target_down!
    bastion>shop  loadbalancer  ttt
    n1>shop       pod           ttt

a part gets through, on every path -> big_answers_lost!
    bastion>shop  loadbalancer  ccf
    n1>shop       pod           cct

a part gets through between nodes -> big_answers_lost!
    n1/a>shop/a   pod           ...
    n2/b>shop/a   pod           ccc

a part gets through on one path, nothing on another -> nodeports_down! big_answers_lost!
    bastion>shop/n1  nodeport      xxx
    bastion>shop/n2  nodeport      xxx
    bastion>shop     loadbalancer  ccc
    bastion>shop     route         .--
    n1>shop          pod           ...

one is not even connected -> target_down!
    bastion>shop  loadbalancer  cxc
    n1>shop       pod           xxx

silent, but not even connected elsewhere -> target_down!
    bastion>shop  loadbalancer  xxx
    n1>shop       pod           fff

all paths from outside, peers reach it -> external_down!
    bastion>shop  loadbalancer  xxx
    bastion>shop  nodeport      xxx
    bastion>shop  route         x--
    n1>shop       pod           ...

all paths from outside, and it reaches peers -> external_down!
    bastion>n1    loadbalancer  xxx
    bastion>n1    route         x--
    n1>n2         pod           ...

the only path from outside -> external_down
    bastion>shop  loadbalancer  xxx
    n1>shop       pod           ...

from outside, and what a peer sees is only partly known -> external_down
    bastion>shop  loadbalancer  xxx
    bastion>shop  route         x--
    n1>shop       pod           .?.

load balancer alone -> loadbalancer_down!
    bastion>shop  loadbalancer  xxx
    bastion>shop  nodeport      ...
    bastion>shop  route         .--
    n1>shop       pod           ...

load balancer down, node port up, nothing else known -> loadbalancer_down
    bastion>shop  loadbalancer  xxx
    bastion>shop  nodeport      ...
    bastion>shop  route         ?--

load balancer and node ports down, route up -> nodeports_down path_down
    bastion>shop/n1  nodeport      xxx
    bastion>shop     loadbalancer  xxx
    bastion>shop     route         .--
    n1>shop          pod           ?..

one node's port -> node_gateway_down!
    bastion>shop/n1  nodeport      xxx
    bastion>shop/n2  nodeport      ...
    bastion>shop/n3  nodeport      ...
    n1>shop          pod           ...

all node ports, mesh up -> nodeports_down!
    bastion>shop/n1  nodeport      xxx
    bastion>shop/n2  nodeport      xxx
    n1>shop          pod           ...

node ports, and nothing else is known -> not_enough_known
    bastion>shop/n1  nodeport      xxx
    bastion>shop/n2  nodeport      xxx

the only node port, mesh up -> nodeports_down
    bastion>shop/n1  nodeport      xxx
    n1>shop          pod           ...

all node ports, load balancer up -> nodeports_down
    bastion>shop/n1  nodeport      xxx
    bastion>shop/n2  nodeport      xxx
    bastion>shop     loadbalancer  ...

route down, load balancer up -> router_down
    bastion>shop  route         x--
    bastion>shop  loadbalancer  ...

route and ingress down, load balancer up -> router_down!
    bastion>shop  route         x--
    bastion>shop  ingress       x--
    bastion>shop  loadbalancer  ...

route and ingress down, node port up -> router_down
    bastion>shop  route         x--
    bastion>shop  ingress       x--
    bastion>shop  nodeport      ...

route down, node port up, load balancer down -> loadbalancer_down path_down
    bastion>shop  route         x--
    bastion>shop  loadbalancer  xxx
    bastion>shop  nodeport      ...

service down, pod up -> service_down!
    n1>shop       service       xxx
    n2>shop       service       xxx
    n1>shop       pod           ...

service down, its pods unknown -> path_down
    n1>shop       service       xxx
    n1>shop       pod           ???
    bastion>shop  loadbalancer  ...

pod down, service up: another replica answers -> path_down!
    n1>shop       service       ...
    n1>shop       pod           xxx

between nodes -> tunnel_down!
    a/n1>shop/n2  pod           xxx
    b/n3>shop/n2  pod           xxx
    c/n2>shop/n2  pod           ...

between nodes and zones, and nobody looks from near -> path_down!
    a/n1/z1>shop/n2/z2  pod           xxx
    b/n3/z1>shop/n2/z2  pod           xxx
    bastion>shop        loadbalancer  ...

between nodes, and the node of one is not known -> tunnel_down! some_sources!
    a/n1>shop/n2  pod           xxx
    b>shop/n2     pod           xxx
    c/n2>shop/n2  pod           ...

between zones -> zones_apart!
    a/n1/z1>shop/n2/z2  pod     xxx
    b/n3/z2>shop/n2/z2  pod     ...

some sources, nothing else in common -> some_sources!
    n1>shop       pod           xxx
    n2>shop       pod           ...
    n3>shop       pod           ...

one way -> one_way!
    n1>n2         pod           xxx
    n3>n2         pod           ...
    n2>n1         pod           ...
    n2>n3         pod           ...

both ways of a pair -> some_sources!
    n1>n2         pod           xxx
    n3>n2         pod           ...
    n2>n1         pod           xxx

nobody reaches it, it reaches others -> one_way!
    bastion>n2    loadbalancer  xxx
    n1>n2         pod           xxx
    n3>n2         pod           xxx
    n2>n4         pod           ...

nobody inside reaches it, somebody outside does -> path_down!
    bastion>n2    loadbalancer  ...
    n1>n2         pod           xxx
    n2>n4         pod           ...

new connections fail -> new_connections_fail
    bastion>shop  loadbalancer  x..

new connections fail on two paths -> new_connections_fail!
    bastion>shop  loadbalancer  x..
    bastion>shop  nodeport      x..

new connections fail, and one path has no others -> new_connections_fail!
    bastion>shop  loadbalancer  x..
    bastion>shop  route         x--
    n1>shop       pod           ...

a route fails and so does http beside it, which is no router's fault -> new_connections_fail!
    bastion>shop  nodeport      x..
    bastion>shop  route         x--

the port of http answers -> one_protocol
    bastion>shop  loadbalancer  r..

big answers are lost -> big_answers_lost!
    n1>shop       pod           t..
    n2>shop       pod           f..

big requests are lost, and who asks for big answers sends small ones -> big_answers_lost
    n1>shop       pod           .cc

established ones are silent at this moment -> established_broken
    n1>shop       pod           .tt

established connections fail -> established_broken
    n1>shop       pod           .xx

established connections of two paths fail -> established_broken
    n1>shop       pod           .xx
    n2>shop       pod           .xx

the only established connection fails -> one_protocol
    n1>shop       pod           .x-

breaks that are still open -> established_broken!
    n1>shop       pod           .BB
    n2>shop       pod           .BB

established connections broke, and the port of new ones refuses -> one_protocol! established_broken
    n1>shop       pod           rbb
    n2>shop       pod           rbb

established connections broke -> established_broken!
    n1>shop       pod           .bb
    n2>shop       pod           .b.

a break that is still open -> established_broken
    n1>shop       pod           .B.

established connections broke, and nothing is known of new ones -> established_broken
    n1>shop       pod           ?b-

one protocol -> one_protocol!
    n1>shop       pod           .x.
    n2>shop       pod           .x.

one IP version -> one_family!
    n1>shop       pod           ...
    n1>shop       pod/6         xxx

egress -> egress_down!
    n1>bastion    egress        xxx
    n2>bastion    egress        xxx

egress as one source alone sees it -> not_enough_known
    n1>bastion    egress        xxx

egress of one node -> some_sources!
    n1>bastion    egress        xxx
    n2>bastion    egress        ...

two things at once -> router_down established_broken
    bastion>shop  route         x--
    bastion>shop  loadbalancer  .bb
"""

MANY_TARGETS = """
nothing fails ->
    bastion>a  loadbalancer  ...
    bastion>b  loadbalancer  ...

the bastion reaches nothing, peers do -> observer_suspect!
    bastion>a  loadbalancer  xxx
    bastion>b  route         x--
    a>b        pod           ...
    b>a        pod           ...

the bastion reaches nothing, and nobody else looks -> observer_suspect
    bastion>a  loadbalancer  xxx
    bastion>b  route         x--

the bastion's only target is no reason to suspect the bastion -> target_down
    bastion>a  loadbalancer  xxx
    bastion>a  nodeport      xxx

the bastion reaches nothing, for peers do not either -> target_down! target_down!
    bastion>a  loadbalancer  xxx
    bastion>b  loadbalancer  xxx
    c>a        pod           xxx
    c>b        pod           xxx
    c>d        pod           ...

one peer of a mesh is cut off -> observer_suspect! target_down
    a>b  pod  ...
    a>c  pod  xxx
    b>a  pod  ...
    b>c  pod  xxx
    c>a  pod  xxx
    c>b  pod  xxx

a peer that reaches nothing is reached by others -> observer_suspect!
    a>b  pod  xxx
    a>c  pod  xx-
    b>a  pod  ...
    b>c  pod  ...
    c>a  pod  ...

it is suspected though one of its targets is down for others, too -> observer_suspect! some_sources!
    a>b  pod  xxx
    a>c  pod  xxx
    b>a  pod  ...
    b>c  pod  ...
    d>a  pod  ...
    d>b  pod  ...
    d>c  pod  xxx

nobody reaches anybody -> network_down!
    a>b  pod  xxx
    a>c  pod  xxx
    b>a  pod  xxx
    b>c  pod  xxx

two peers that lost each other -> network_down!
    a>b  pod  xxx
    b>a  pod  xxx

worst first -> target_down! loadbalancer_down new_connections_fail
    bastion>a  loadbalancer  x..
    bastion>b  loadbalancer  xxx
    bastion>b  nodeport      ...
    bastion>c  loadbalancer  xxx
    d>c        pod           xxx
"""


def cases(text: str) -> list[Any]:
    blocks = [block.strip().splitlines() for block in text.strip().split("\n\n")]
    titles = [block[0].rpartition("->") for block in blocks]
    return [
        pytest.param([seen for row in block[1:] for seen in streams(row)], expected.split(), id=title.strip())
        for block, (title, _, expected) in zip(blocks, titles, strict=True)
    ]


def streams(row: str) -> list[Seen]:
    ends, way, letters = row.split()
    (source, source_node, source_zone), (target, target_node, target_zone) = (
        (*end.split("/"), "", "")[:3] for end in ends.split(">")
    )
    path, _, family = way.partition("/")
    return [
        Seen(
            source=source,
            target=target,
            path=path,
            protocol=protocol,
            family=int(family or 4),
            source_node=source_node,
            target_node=target_node,
            source_zone=source_zone,
            target_zone=target_zone,
            **LETTERS[letter],
        )
        for protocol, letter in zip(("http", "tcp", "ws"), letters, strict=True)
        if letter != "-"
    ]


def told(findings: list[Finding]) -> list[str]:
    return [each.key + ("!" if each.sure == "likely" else "") for each in findings]


@pytest.mark.parametrize(("seen", "expected"), cases(ONE_TARGET))
def test_a_pattern_is_recognized(seen: list[Seen], expected: list[str]) -> None:
    target = seen[0].target
    toward = [each for each in seen if each.target == target]
    assert told(compare(toward, [each for each in seen if each.source == target])) == expected


@pytest.mark.parametrize(("seen", "expected"), cases(MANY_TARGETS))
def test_who_looks_is_doubted_before_what_is_seen(seen: list[Seen], expected: list[str]) -> None:
    findings = compare_all(seen)
    assert told(findings) == expected
    assert worst(seen) == (findings[0] if findings else None)


def test_every_key_has_a_case_and_its_texts() -> None:
    shown = {
        key.rstrip("!")
        for _, expected in (case.values for case in cases(ONE_TARGET + MANY_TARGETS))
        for key in expected
    }
    assert shown == set(KEYS)
    assert set(catalog.load().where_to_look) == set(KEYS)


def test_a_finding_names_what_it_rests_on() -> None:
    down = [each._replace(since=since) for each, since in zip(streams("o>t route xx-"), (7.0, 5.0), strict=True)]
    (finding,) = compare([*down, *streams("o>t loadbalancer .--")])

    assert finding == Finding(
        key="router_down",
        target="t",
        source="",
        sure="possible",
        failing=("o|t|route|http|4", "o|t|route|tcp|4"),
        working=("o|t|loadbalancer|http|4",),
        since=5.0,
    )


def test_a_suspect_is_named() -> None:
    found = worst(streams("o>t route x--") + streams("o>u route x--") + streams("p>u pod .--"))
    assert found is not None
    assert (found.key, found.source, found.target, found.failing) == (
        "observer_suspect", "o", "", ("o|t|route|http|4", "o|u|route|http|4"),
    )  # fmt: skip


def test_what_only_broke_has_no_beginning() -> None:
    (finding,) = compare(streams("o>t pod .b-"))
    assert (finding.since, finding.failing) == (None, ("o|t|pod|tcp|4",))


def test_nothing_seen_is_nothing_found() -> None:
    assert compare([]) == []
    assert compare_all([]) == []
    assert worst([]) is None


NAMES = st.sampled_from(["a", "b", "c"])
PLACES = st.sampled_from(["", "n1", "n2"])
STATES = st.sampled_from(["up", "down", "frozen", "unknown"])
SEEN = st.builds(
    Seen,
    source=NAMES,
    target=NAMES,
    path=st.sampled_from(["pod", "service", "nodeport", "loadbalancer", "route", "ingress", "host", "egress"]),
    protocol=st.sampled_from(["http", "tcp", "ws"]),
    state=STATES,
    family=st.sampled_from([4, 6]),
    since=st.floats(0, 100),
    cause=st.sampled_from(["", "refused", "connect_timeout", "response_timeout", "unreachable"]),
    breaks=st.integers(0, 2),
    source_node=PLACES,
    target_node=PLACES,
    source_zone=PLACES,
    target_zone=PLACES,
)
MIXES = st.lists(SEEN, max_size=25)


@given(MIXES)
def test_every_failing_stream_is_explained_once_and_only_failing_ones(seen: list[Seen]) -> None:
    toward = [each._replace(target="a") for each in seen]
    away = [each._replace(source="a") for each in seen]
    findings = compare(toward, away)
    failing = {each.key for each in toward if each.fails or each.breaks}

    assert {key for each in findings for key in each.failing} == failing
    assert len({each.key for each in findings}) == len(findings)


@given(MIXES, st.data())
def test_the_order_of_streams_is_nothing(seen: list[Seen], data: st.DataObject) -> None:
    assert compare_all(data.draw(st.permutations(seen))) == compare_all(seen)


@given(MIXES)
def test_nothing_is_blamed_while_nothing_fails(seen: list[Seen]) -> None:
    well = [each._replace(state="unknown" if each.state == "unknown" else "up", breaks=0) for each in seen]
    assert {each.key for each in compare_all(well)} <= {"not_enough_known"}


@given(MIXES)
def test_what_is_unknown_is_neither_health_nor_outage(seen: list[Seen]) -> None:
    unknown = [each._replace(state="unknown", breaks=0) for each in seen]
    found = compare_all(unknown)
    assert {each.target for each in found} == {each.target for each in unknown}
    assert {(each.key, each.failing, each.working) for each in found} <= {("not_enough_known", (), ())}


@given(MIXES)
def test_unknown_streams_beside_add_no_finding(seen: list[Seen]) -> None:
    """They may only make it less sure."""
    beside = [each._replace(state="unknown", breaks=0, protocol="udp") for each in seen]
    known = {each.target for each in seen if each.state != "unknown"}
    lone = [(each.key, each.target, each.failing) for each in compare_all(seen) if each.target in known | {""}]
    both = [(each.key, each.target, each.failing) for each in compare_all(seen + beside) if each.target in known | {""}]
    assert sorted(lone) == sorted(both)


def test_ten_thousand_streams_are_compared_at_once() -> None:
    """Linear, not the square: a hundred times a hundred peers, a third of them down."""
    seen = [
        Seen(f"n{source}", f"n{target}", "pod", "tcp", "down" if target % 3 == 0 else "up")
        for source in range(100)
        for target in range(100)
        if source != target
    ]
    findings = compare_all(seen)
    assert {each.key for each in findings} == {"one_way"}
    assert len(findings) == 34
