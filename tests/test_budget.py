"""Limits and the verdict of a window: what fails fails, what was not observed never passes."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.verdict.budget import Cost, Limits, Turn, cost, judge, left, of_turn, turns
from exporters.verdict.coverage import Covered, Span
from exporters.verdict.explain import Explained, Outage, Phase

WINDOW = Span(0.0, 1000.0)
ALL = {("b", "pod"): Covered(1.0, (), ())}
SOME = {("b", "pod"): Covered(0.98, (Span(0.0, 20.0, "restart"),), ())}


def out(begin: float, end: float, path: str = "pod", *, wide: float = 0.0) -> Outage:
    inner, outer = (begin + wide, max(begin + wide, end - wide)), (begin - wide, end + wide)
    return Outage(f"{begin}", "a", "b", path, "tcp", begin, end, "a", frozenset({"b"}), inner=inner, outer=outer)


def unexplained(outage: Outage) -> Explained:
    return Explained(outage, "unexplained", "", ("no phase was under way",), outage.end - outage.begin)


def expected(outage: Outage, node: str = "b", left: float = 0.0) -> Explained:
    return Explained(outage, "expected", node, ("its turn",), left)


TURN = Phase("reboot", 90.0, 200.0, "b")


@pytest.mark.parametrize(
    ("found", "limits", "failed"),
    [
        ([], Limits(), []),
        ([expected(out(100, 110))], Limits(), []),
        ([unexplained(out(100, 110))], Limits(), ["unexplained"]),
        ([unexplained(out(100, 110))], Limits(unexplained=10.0), []),
        ([unexplained(out(100, 110))], Limits(unexplained=None), []),
        ([expected(out(100, 210), left=5.0)], Limits(), ["unexplained"]),
        ([expected(out(100, 110))], Limits(paths={"pod": 9.9, "lb": 0.0}), ["path pod"]),
        ([expected(out(100, 110)), expected(out(105, 115))], Limits(paths={"pod": 15.0}, total=15.0), []),
        ([expected(out(100, 110)), expected(out(105, 115, "lb"))], Limits(total=14.0), ["total"]),
        ([expected(out(100, 110)), expected(out(120, 125))], Limits(turn=14.9), ["turn of b"]),
        ([expected(out(100, 110)), expected(out(120, 125))], Limits(turn=15.0, longest=10.0), []),
        ([expected(out(100, 110))], Limits(longest=9.0), ["longest"]),
        ([expected(out(100, 110))._replace(verdict="collateral")], Limits(collateral=5.0), ["collateral"]),
    ],
)
def test_a_limit_holds_or_fails(found: list[Explained], limits: Limits, failed: list[str]) -> None:
    judged = judge(found, [TURN], ALL, WINDOW, limits)
    assert [each.name for each in judged.checks if not each.passed] == failed
    assert judged.verdict == ("fail" if failed else "pass")


def test_what_was_not_observed_is_inconclusive_unless_it_fails_already() -> None:
    judged = judge([], [], SOME, WINDOW, Limits())
    assert judged.verdict == "inconclusive"
    assert judged.missing == ("b by pod was observed for 98.00 % of the time, 99% are wanted",)
    assert judge([unexplained(out(1, 2))], [], SOME, WINDOW, Limits()).verdict == "fail"
    assert judge([], [], {}, WINDOW, Limits()).missing == ("nothing was observed",)


def test_bounds_stand_beside_the_estimate() -> None:
    assert cost([out(100, 110, wide=1.0)], WINDOW) == Cost(8.0, 10.0, 12.0)
    assert cost([], WINDOW) == Cost(0, 0, 0)


def test_only_what_is_in_the_window_counts() -> None:
    assert cost([out(-10, 10), out(990, inf)], WINDOW) == Cost(20.0, 20.0, 20.0)
    assert cost([out(1000, 1010), out(-10, 0)], WINDOW) == Cost(0, 0, 0)


def test_phases_of_a_node_make_one_turn_unless_they_are_far_apart() -> None:
    drain, boot, again = Phase("drain", 0, 90, "b"), Phase("boot", 90, 200, "b"), Phase("drain", 900, 950, "b")
    assert turns([again, boot, drain, Phase("migration", 0)]) == [
        Turn("b", 0, 200, ("drain", "boot")),
        Turn("b", 900, 950, ("drain",)),
    ]
    first, second = expected(out(100, 110)), expected(out(910, 911))
    assert of_turn(turns([drain, boot, again])[1], [first, second]) == [second.outage]


def test_only_what_is_late_of_an_explained_outage_is_left() -> None:
    assert left([expected(out(100, 200), left=30.0)], WINDOW) == Cost(30.0, 30.0, 30.0)
    assert left([unexplained(out(100, 110, wide=2.0))], WINDOW) == Cost(6.0, 10.0, 14.0)


spans = st.tuples(st.integers(-100, 1100), st.integers(0, 300)).map(lambda each: out(each[0], each[0] + each[1]))


@given(st.lists(spans, max_size=8))
def test_together_they_cost_no_more_than_one_by_one(outages: list[Outage]) -> None:
    together = cost(outages, WINDOW)
    assert 0 <= together.lower <= together.estimate <= together.upper <= 1000
    assert together.estimate <= sum(cost([each], WINDOW).estimate for each in outages)
