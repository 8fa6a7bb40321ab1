"""Coverage: what nobody observed is a gap, what anybody observed is none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.verdict.coverage import Covered, Span, Watch, cover

WINDOW = Span(0.0, 100.0)


def of(*watches: Watch) -> Covered:
    return cover({"a": watches}, WINDOW)["a"]


def test_who_watched_all_the_time_covers_all_of_it() -> None:
    assert of(Watch(-50.0, 150.0)) == Covered(1.0, (), ())


def test_one_sources_gap_is_one_when_nobody_else_looked() -> None:
    found = of(Watch(0.0, 100.0, (Span(10.0, 12.0, "stall"),)))
    assert found == Covered(0.98, (Span(10.0, 12.0, "stall"),), ())
    assert not found.enough


def test_a_second_source_fills_the_first_ones_gap() -> None:
    ours = Watch(0.0, 100.0, (Span(10.0, 20.0, "restart"), Span(50.0, 60.0, "stall")))
    theirs = Watch(0.0, 100.0, (Span(15.0, 25.0, "stall"),))
    assert of(ours, theirs) == Covered(0.95, (Span(15.0, 20.0, "restart stall"),), ())


def test_nobody_at_all_covers_nothing() -> None:
    assert of() == Covered(0.0, (Span(0.0, 100.0, "nobody"),), ())


def test_who_came_late_or_left_early_did_not_observe_the_rest() -> None:
    assert of(Watch(10.0, 90.0)) == Covered(0.8, (Span(0.0, 10.0, "nobody"), Span(90.0, 100.0, "nobody")), ())
    assert of(Watch(200.0, 300.0)).share == 0.0


def test_gaps_that_overlap_or_touch_count_once() -> None:
    found = of(Watch(0.0, 100.0, (Span(20.0, 30.0, "stall"), Span(10.0, 25.0, "restart"), Span(30.0, 35.0, "stall"))))
    assert found == Covered(0.75, (Span(10.0, 35.0, "restart stall"),), ())


def test_gaps_outside_the_window_are_none() -> None:
    found = of(Watch(-50.0, 150.0, (Span(-20.0, 1.0, "stall"), Span(100.0, 110.0, "stall"), Span(-9.0, -8.0, "stall"))))
    assert found == Covered(0.99, (Span(0.0, 1.0, "stall"),), ())
    assert found.enough


def test_a_peers_reboot_is_listed_and_is_no_missing_coverage() -> None:
    reboot = Span(40.0, 70.0, "peer_reboot")
    seen_by_both = (Watch(0.0, 100.0, (), (reboot,)), Watch(0.0, 100.0, (), (reboot,)))
    assert of(*seen_by_both) == Covered(1.0, (), (reboot,))


def test_paths_are_apart() -> None:
    found = cover({"a": [Watch(0.0, 100.0)], "b": [Watch(0.0, 50.0)]}, WINDOW)
    assert (found["a"].share, found["b"].share) == (1.0, 0.5)


@pytest.mark.parametrize("end", [0.0, -1.0, math.nan])
def test_a_window_has_a_length(end: float) -> None:
    with pytest.raises(ValueError, match="window"):
        cover({}, Span(0.0, end))


spans = st.tuples(st.integers(-5, 25), st.integers(-5, 25)).map(lambda pair: Span(min(pair), max(pair), "x"))
many = st.lists(st.builds(Watch, st.integers(-5, 25), st.integers(-5, 25), st.lists(spans, max_size=4).map(tuple)))


@given(many)
def test_a_moment_is_covered_exactly_if_somebody_watched_it_and_had_no_gap(watches: list[Watch]) -> None:
    found = cover({"a": watches}, Span(0, 20))["a"]
    covered = 0
    for second in range(20):
        moment = second + 0.5
        seen = any(
            each.begin < moment < each.end and not any(gap.begin < moment < gap.end for gap in each.gaps)
            for each in watches
        )
        covered += seen
        assert any(gap.begin < moment < gap.end for gap in found.gaps) != seen
    assert found.share == pytest.approx(covered / 20)
