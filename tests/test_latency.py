"""The rolling histogram of round trips, and the limits that follow from it: delta and the deadline."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.probing.latency import FEW, ROLL, SURE, Latency

R = 0.06
EDGE = 1.5  # a bucket's upper edge is at most so many times its lower one


def after(*answers: tuple[int, float]) -> Latency:
    """So many answers of so many seconds."""
    latency = Latency()
    for count, seconds in answers:
        for _ in range(count):
            latency.add(seconds)
    return latency


# -- the histogram


def test_without_answers_nothing_is_known() -> None:
    assert Latency().quantile(0.5) == 0.0
    assert Latency().total == 0


@given(st.lists(st.floats(1e-5, 10.0), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.999, 1.0]))
def test_a_quantile_is_the_upper_edge_of_its_bucket(answers: list[float], q: float) -> None:
    true = sorted(answers)[max(ceil(q * len(answers)) - 1, 0)]
    found = after(*((1, answer) for answer in answers)).quantile(q)
    assert true - 1e-6 <= found <= true * EDGE + 3e-6


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 100.0, 1e5])
def test_answers_beyond_the_scale_count_at_its_ends(seconds: float) -> None:
    latency = after((3, seconds))
    assert latency.total == 3
    assert latency.quantile(0.5) > 0.0


def test_what_was_long_ago_counts_less_and_less() -> None:
    latency = after((ROLL, 0.001), (ROLL, 0.010))
    assert latency.quantile(0.5) == pytest.approx(0.012, rel=0.3)
    assert latency.quantile(0.25) < 0.002
    for _ in range(8 * ROLL):
        latency.add(0.010)
    assert latency.quantile(0.01) > 0.009
    assert latency.total == 10 * ROLL


# -- delta, the ceiling of a first round trip


def test_delta_is_at_least_twenty_milliseconds_while_little_is_known() -> None:
    assert Latency().ceiling(R) == 0.020
    assert after((500, 0.0002)).ceiling(R) == 0.020


def test_delta_is_one_and_a_half_times_the_largest_while_little_is_known() -> None:
    assert after((500, 0.0002), (1, 0.030)).ceiling(R) == pytest.approx(0.045)
    assert after((1, 0.030), (500, 0.0002)).ceiling(R) == pytest.approx(0.045)


def test_delta_is_never_above_r() -> None:
    assert after((10, 0.055)).ceiling(R) == R
    assert after((SURE, 0.055)).ceiling(R) == R
    assert Latency().ceiling(0.012) == 0.012


def test_delta_of_a_known_path_follows_its_tail_and_no_single_answer() -> None:
    known = after((SURE + 500, 0.005), (1, 0.055))
    assert 1.5 * 0.005 <= known.ceiling(R) <= 1.5 * 0.005 * EDGE
    tail = after((990, 0.005), (10, 0.025))
    assert 1.5 * 0.025 <= tail.ceiling(R) <= R


def test_delta_of_a_fast_path_is_two_milliseconds() -> None:
    assert after((SURE, 0.0002)).ceiling(R) == 0.002


@given(st.lists(st.floats(0.0001, 0.05), min_size=1, max_size=60))
def test_delta_is_no_less_than_any_answer_while_little_is_known(answers: list[float]) -> None:
    assert after(*((1, answer) for answer in answers)).ceiling(R) >= max(answers)


# -- the deadline


def test_the_deadline_of_an_ordinary_path_is_r() -> None:
    assert Latency().deadline(R) == R
    assert after((SURE + 1, 0.001)).deadline(R) == R
    assert after((SURE + 1, 0.015)).deadline(R) == R


def test_few_answers_are_no_ground_to_call_a_path_slow() -> None:
    assert after((FEW - 1, 0.100)).deadline(R) == R
    assert after((FEW, 0.100)).deadline(R) > R


def test_hiccups_do_not_make_a_path_slow_while_little_is_known() -> None:
    assert after((100, 0.001), (9, 0.100)).deadline(R) == R


def test_a_slow_path_gets_twice_its_tail_and_at_least_150_milliseconds() -> None:
    assert after((100, 0.035)).deadline(R) == 0.150
    assert 0.200 <= after((100, 0.100)).deadline(R) <= 0.200 * EDGE
    assert 0.600 <= after((SURE, 0.300)).deadline(R) <= 0.600 * EDGE


def test_with_many_answers_the_slowest_of_a_thousand_decides() -> None:
    assert after((1990, 0.001), (10, 0.100)).deadline(R) >= 0.200
    assert after((1999, 0.001), (1, 0.100)).deadline(R) == R


def test_a_path_that_was_slow_is_ordinary_again_when_its_answers_are() -> None:
    latency = after((200, 0.100), (100, 0.001))
    assert latency.deadline(R) > R
    for _ in range(20 * ROLL):
        latency.add(0.001)
    assert latency.deadline(R) == R
