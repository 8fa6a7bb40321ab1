"""Outages against phases: whose turn it was explains them, anybody else's does not, nor does a shuffled night."""

import random
from collections.abc import Iterable, Sequence
from itertools import permutations
from math import inf
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.verdict.explain import NODES, Event, Explained, Outage, Phase, explain

NAMES = ("n1", "n2", "n3", "n4")


def out(source: str, target: str, begin: float, end: float, path: str = "pod") -> Outage:
    """On this site a node is called as the peer on it; whatever has another name is outside."""
    inside = source if source in NAMES else ""
    return Outage(f"{source}-{target}-{begin}", source, target, path, "tcp", begin, end, inside, frozenset({target}))


def turn(node: str, begin: float, end: float = inf) -> Phase:
    return Phase("reboot", begin, end, node)


def mesh(names: Sequence[str] = NAMES) -> list[tuple[str, str, str]]:
    return [(a, b, b) for a, b in permutations(names, 2)]


def lost(node: str, begin: float, end: float) -> list[Outage]:
    """A node nobody reaches, and that reaches nobody."""
    return [out(*pair, begin, end) for other in NAMES if other != node for pair in ((node, other), (other, node))]


def verdicts(outages: Iterable[Outage], phases: Iterable[Phase], events: Iterable[Event] = ()) -> list[str]:
    return [each.verdict for each in explain(outages, phases, events, mesh())]


RESTART = Event("restart of OVS", "n1", 108.0, 110.0)
ROLL = Phase("roll-out", 0.0, 900.0, "", rolls=True)


@pytest.mark.parametrize(
    ("outage", "phases", "events", "verdict"),
    [
        # its target's turn, its source's, everybody's
        (out("n2", "n1", 110, 112), [turn("n1", 100, 200)], [], "expected"),
        (out("n1", "n2", 110, 112), [turn("n1", 100, 200)], [], "expected"),
        (out("n1", "n2", 110, 112), [turn(NODES, 100, 200)], [], "expected"),
        (out("outside", "n1", 110, 112, "lb"), [turn("n1", 100)], [], "expected"),
        # a little before it, for the clocks; a little after it, since it settles
        (out("n2", "n1", 99, 101), [turn("n1", 100, 200)], [], "expected"),
        (out("n2", "n1", 210, 212), [turn("n1", 100, 200)], [], "expected"),
        # too early, too late, nobody's
        (out("n2", "n1", 97, 150), [turn("n1", 100, 200)], [], "unexplained"),
        (out("n2", "n1", 216, 217), [turn("n1", 100, 200)], [], "unexplained"),
        (out("n2", "n1", 110, 112), [], [], "unexplained"),
        # another node's turn, where nothing tells that it had trouble
        (out("n2", "n3", 110, 112), [turn("n1", 100, 200)], [], "unexplained"),
        # and where something does
        (out("n2", "n3", 111, 112), [turn("n1", 100, 200)], [RESTART], "collateral"),
        # the whole cluster's phase explains nothing by itself; one that rolls does with an event
        (out("n2", "n1", 110, 112), [Phase("migration", 0.0, 900.0)], [], "unexplained"),
        (out("n2", "n1", 110, 112), [Phase("migration", 0.0, 900.0)], [RESTART], "unexplained"),
        (out("n2", "n1", 110, 112), [ROLL], [RESTART], "expected"),
        (out("n2", "n3", 110, 112), [ROLL], [RESTART], "collateral"),
        (out("n2", "n1", 310, 312), [ROLL], [RESTART], "unexplained"),
        # a crash in no turn
        (out("n2", "n1", 109, 112), [], [RESTART], "unexplained"),
    ],
)
def test_one_outage(outage: Outage, phases: list[Phase], events: list[Event], verdict: str) -> None:
    assert verdicts([outage], phases, events) == [verdict]


def test_a_replica_that_answered_before_makes_it_that_nodes() -> None:
    moved = out("outside", "shop", 110, 111, "service")._replace(nodes=frozenset({"n1", "n3"}))
    assert verdicts([moved], [turn("n3", 100, 200)]) == ["expected"]
    assert verdicts([moved], [turn("n2", 100, 200)]) == ["unexplained"]


def test_others_that_fail_with_the_node_under_way_are_collateral() -> None:
    found = explain([*lost("n1", 110, 120), out("n2", "n3", 111, 113)], [turn("n1", 100, 200)], [], mesh())
    assert [each.verdict for each in found] == ["expected"] * 6 + ["collateral"]
    assert found[-1].node == "n1"
    assert "n1 was out" in " ".join(found[-1].evidence)


def test_a_node_that_loses_more_than_the_one_under_way_is_the_better_suspect() -> None:
    assert set(verdicts(lost("n2", 110, 120), [turn("n1", 100, 200)])) == {"unexplained"}


def test_what_lasts_longer_than_the_turn_is_left_unexplained() -> None:
    found = explain([out("n2", "n1", 110, 500)], [turn("n1", 100, 200)], [])[0]
    assert (found.verdict, found.left) == ("expected", 285.0)


def test_an_outage_without_reason_is_left_whole() -> None:
    assert explain([out("n2", "n1", 110, 112)], [], [])[0].left == 2.0


def test_a_source_that_alone_misses_everything_is_the_observer() -> None:
    mine = [out("n1", each, 110, 120) for each in NAMES[1:]]
    assert verdicts(mine, []) == ["observer"] * 3
    evidence = explain(mine, [], [], mesh())[0].evidence
    assert evidence[0] == "n1 missed all 3 targets while n2 still reached it"
    assert set(verdicts(lost("n1", 110, 120), [])) == {"unexplained"}, "nobody reached it either"
    assert verdicts(mine[:2], []) == ["unexplained"] * 2, "it reached somebody"


def night(gap: float = 60.0) -> tuple[list[Outage], list[Phase]]:
    """Node after node in its turn, each lost for some seconds of it."""
    outages: list[Outage] = []
    phases: list[Phase] = []
    for number, node in enumerate(NAMES):
        begin = 1000.0 + number * (100.0 + gap)
        phases.append(turn(node, begin, begin + 100.0))
        outages += lost(node, begin + 20.0, begin + 35.0)
    return outages, phases


def test_a_night_is_explained() -> None:
    assert set(verdicts(*night())) == {"expected"}


@given(st.permutations(NAMES))
def test_with_the_nodes_shuffled_each_turn_of_another_explains_nothing(names: Sequence[str]) -> None:
    outages, phases = night()
    shuffled = [phase._replace(node=node) for phase, node in zip(phases, names, strict=True)]
    right = {(each.node, each.begin) for each in phases} & {(each.node, each.begin) for each in shuffled}
    found = explain(outages, shuffled, [], mesh())
    for each in found:
        begin = each.outage.begin - 20.0
        want = "expected" if any(at == begin for _, at in right) else "unexplained"
        assert each.verdict == want


@given(st.floats(40.0, 140.0))
def test_with_all_turns_at_other_times_nothing_is_explained(later: float) -> None:
    outages, phases = night(gap=200.0)
    moved = [each._replace(begin=each.begin + later, end=each.end + later) for each in phases]
    assert set(verdicts(outages, moved)) == {"unexplained"}


times = st.integers(0, 400).map(float)
outages_of_any_kind = st.builds(
    lambda pair, begin, length: out(pair[0], pair[1], begin, begin + length),
    st.sampled_from(list(permutations(NAMES, 2))),
    times,
    st.integers(1, 90).map(float),
)
phases_of_any_kind = st.builds(
    lambda node, begin, length, rolls: Phase("p", begin, begin + length, node, rolls),
    st.sampled_from([*NAMES, "", NODES]),
    times,
    st.integers(1, 200).map(float),
    st.booleans(),
)
events_of_any_kind = st.builds(lambda node, at: Event("e", node, at, at + 2.0), st.sampled_from(NAMES), times)


@given(
    st.lists(outages_of_any_kind, max_size=12, unique_by=lambda each: each.id),
    st.lists(phases_of_any_kind, max_size=5),
    st.lists(events_of_any_kind, max_size=5),
    st.randoms(use_true_random=False),
)
def test_the_order_says_nothing_and_every_outage_gets_one_reason(
    outages: list[Outage], phases: list[Phase], events: list[Event], order: random.Random
) -> None:
    found = explain(outages, phases, events, mesh())
    assert sorted(each.outage for each in found) == sorted(outages)
    order.shuffle(outages)
    order.shuffle(phases)
    order.shuffle(events)
    assert explain(outages, phases, events, mesh()) == found
    for each in found:
        length = each.outage.end - each.outage.begin
        assert 0 <= each.left <= length
        assert each.evidence
        assert (each.verdict in ("expected", "collateral")) == bool(each.node)
        assert each.node or each.left == length


@given(st.lists(outages_of_any_kind, min_size=1, max_size=12, unique_by=lambda each: each.id))
def test_without_phases_nothing_is_explained(outages: list[Outage]) -> None:
    found: list[Explained] = explain(outages, [], [Event("e", "n1", 0.0, 400.0)], mesh())
    assert {each.verdict for each in found} <= {"unexplained", "observer"}


@pytest.mark.slow
def test_many_outages_take_no_square() -> None:
    """Ten times the outages, not a hundred times the time; printed, and held to a bound no square keeps."""
    used = []
    for count in (2_000, 20_000):
        outages = [
            out(f"s{number % 50}", NAMES[number % 4], number * 5.0, number * 5.0 + 3.0) for number in range(count)
        ]
        phases = [turn(NAMES[number % 4], number * 500.0, number * 500.0 + 400.0) for number in range(count // 100)]
        began = process_time()
        explain(outages, phases, [], mesh())
        used.append(process_time() - began)
    print(f"2 000 outages {used[0]:.3f} s, 20 000 outages {used[1]:.3f} s of CPU")
    assert used[1] < 50 * max(used[0], 0.01)


@pytest.mark.parametrize("begin", [99.4, 100.0])
def test_of_two_turns_one_after_the_other_that_in_which_it_was_is_it(begin: float) -> None:
    """n1's turn has just ended when n2, in its own, is lost by n1."""
    turns = [Phase("reboot", 90.0, 99.45, "n1"), Phase("reboot", 99.5, 120.0, "n2")]
    lost = Outage("o", "n1", "n2", "pod", "tcp", begin, 103.0, "n1", frozenset({"n2"}))
    assert [(each.verdict, each.node) for each in explain([lost], turns, [])] == [("expected", "n2")]


def test_of_two_turns_at_one_time_that_of_the_node_that_lost_more_is_it() -> None:
    turns = [Phase("reboot", 90.0, 120.0, "n1"), Phase("reboot", 90.0, 120.0, "n2")]
    lost = [
        Outage(f"{source}{target}", source, target, "pod", "tcp", 100.0, 103.0, source, frozenset({target}))
        for source, target in (("n1", "n2"), ("n2", "n1"), ("n3", "n2"), ("n2", "n3"))
    ]
    assert [(each.verdict, each.node) for each in explain(lost, turns, [])] == [("expected", "n2")] * 4


def test_who_loses_a_node_and_is_lost_by_nobody_is_one_of_the_cluster_all_the_same() -> None:
    """n1 is lost by n2 and n3; nothing says that n3 is a node of the cluster but that others probe it."""
    lost = [
        Outage(source, source, "n1", "pod", "tcp", 100.0, 103.0, source, frozenset({"n1"})) for source in ("n2", "n3")
    ]
    turn = [Phase("reboot", 90.0, 120.0, "n3")]
    streams = [(one, other, other) for one in ("n1", "n2", "n3") for other in ("n1", "n2", "n3") if one != other]
    assert {each.verdict for each in explain(lost, turn, [], streams)} == {"unexplained"}


def test_a_turn_that_is_over_explains_only_what_none_under_way_does() -> None:
    """n1 goes out by n2, whose OVS is restarted when n1's own turn has just ended."""
    gone = Outage("o", "n1", "far", "egress", "tcp", 105.0, 107.0, "n1", frozenset({"far"}))
    over, under_way = Phase("reboot", 90.0, 100.0, "n1"), Phase("upgrade", 104.0, 120.0, "n2")
    restart = Event("restart of ovs-vswitchd", "n2", 104.5, 106.5)
    (found,) = explain([gone], [over, under_way], [restart])
    assert (found.verdict, found.node) == ("collateral", "n2")
    (found,) = explain([gone], [over], [])
    assert (found.verdict, found.node) == ("expected", "n1")
