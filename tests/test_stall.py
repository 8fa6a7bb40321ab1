"""Rule 9: a gap between two ticks is a stall of ours, and moves the verdicts of the probes it overlaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.probing.schedule import SLOT
from exporters.probing.stall import GAP, GRACE, MOVES, REMEMBER, Stalls

R = 0.06


def stalled(*stalls: tuple[float, float]) -> Stalls:
    """Ticks in time from 0 on, but for these stalls."""
    book = Stalls(0.0)
    now = 0.0
    for begin, end in stalls:
        while now < begin - SLOT:
            now += SLOT
            book.tick(now)
        book.tick(begin)
        book.tick(end)
        now = end
    return book


def test_punctual_ticks_are_no_stall() -> None:
    stalls = Stalls(0.0)
    assert [stalls.tick(n * SLOT) for n in range(1, 1000)] == [0.0] * 999
    assert stalls.seconds == 0.0
    assert not stalls.overlap(0.0, 10.0)


def test_a_gap_of_more_than_seventeen_milliseconds_is_a_stall() -> None:
    stalls = Stalls(1.0)
    assert stalls.tick(1.0 + 0.99 * GAP) == 0.0
    assert stalls.tick(1.1) == pytest.approx(0.1 - 0.99 * GAP)
    assert stalls.seconds == pytest.approx(0.1 - 0.99 * GAP)


def test_stalled_seconds_add_up() -> None:
    stalls = stalled((1.0, 1.5), (2.0, 2.1), (3.0, 3.02))
    assert stalls.seconds == pytest.approx(0.62)


# What of a probe that is due at s + R and meets the stall from 1.0 to 1.5?
VERDICTS = {
    "over before it": (0.90, 0.90, 0.96, 0.96),
    "begun after it": (1.60, 1.60, 1.66, 1.66),
    "begun as it ended": (1.50, 1.50, 1.56, 1.56),
    "due as it began": (0.94, 0.94, 1.00, 1.00),
    "written before it: the answer waits in the socket": (0.97, 0.97, 1.03, 1.5 + GRACE),
    "written before it, with a request after the handshake": (0.96, 0.99, 1.02, 1.5 + GRACE),
    "written as it began": (0.97, 1.00, 1.03, 1.5 + GRACE),
    "due long after it anyhow": (0.99, 0.99, 1.80, 1.80),
    "not written before it, for the handshake took that long": (0.97, 1.50, 1.03, 1.5 + R),
    "not written at all": (0.97, 0.00, 1.03, 1.5 + R),
    "begun within it, in the midst of a connect": (1.20, 1.50, 1.26, 1.5 + R),
    "begun within it and not written": (1.49, 0.00, 1.55, 1.5 + R),
}


@pytest.mark.parametrize(("started", "wrote", "due", "expected"), VERDICTS.values(), ids=VERDICTS.keys())
def test_rule_9(started: float, wrote: float, due: float, expected: float) -> None:
    assert stalled((1.0, 1.5)).verdict(started, wrote, due, R) == pytest.approx(expected)


def test_a_verdict_that_moves_into_the_next_stall_moves_again() -> None:
    stalls = stalled((1.0, 1.5), (1.505, 1.7), (1.9, 2.0))
    assert stalls.verdict(0.97, 0.97, 1.03, R) == pytest.approx(1.7 + GRACE)
    assert stalls.verdict(0.97, 0.00, 1.03, R) == pytest.approx(1.7 + R)
    assert stalls.verdict(0.97, 1.503, 1.03, R) == pytest.approx(1.7 + GRACE)


def test_overlap_asks_for_any_common_moment() -> None:
    stalls = stalled((1.0, 1.5), (3.0, 3.1))
    assert stalls.overlap(0.5, 2.0)
    assert stalls.overlap(1.2, 1.3)
    assert stalls.overlap(1.4, 2.0)
    assert stalls.overlap(2.0, 4.0)
    assert not stalls.overlap(0.0, 1.0)
    assert not stalls.overlap(1.5, 3.0)
    assert not stalls.overlap(3.2, 9.0)


def test_a_stall_has_just_ended_for_a_while() -> None:
    assert not Stalls(0.0).just_ended(0.0, R)
    stalls = stalled((1.0, 1.5))
    assert stalls.just_ended(1.5, R)
    assert stalls.just_ended(1.55, R)
    assert not stalls.just_ended(1.57, R)


def test_stalls_are_remembered_as_long_as_events_may_ask() -> None:
    stalls = stalled((1.0, 1.5), (REMEMBER, REMEMBER + 1.0))
    assert stalls.overlap(1.2, 1.3)
    stalls.tick(REMEMBER + 1.5 + 1.0)
    assert not stalls.overlap(1.2, 1.3)
    assert stalls.overlap(REMEMBER, REMEMBER + 2.0)
    assert stalls.seconds > 2.0  # the sum forgets nothing


@given(
    st.lists(st.tuples(st.floats(0.02, 0.5), st.floats(0.013, 1.0)), max_size=6),
    st.floats(0, 5),
    st.floats(0, 0.2),
    st.booleans(),
)
def test_a_verdict_never_comes_sooner_nor_without_need(
    stalls: list[tuple[float, float]], started: float, took: float, written: bool
) -> None:
    spans = []
    at = 0.0
    for awake, asleep in stalls:
        spans.append((at + awake, at + awake + asleep))
        at += awake + asleep
    book = stalled(*spans)
    due = started + R
    verdict = book.verdict(started, started + took if written else 0.0, due, R)
    assert verdict >= due
    assert (verdict > due) <= book.overlap(started, due)
    assert verdict <= max([due, *(end + R for _, end in spans)])


@given(st.floats(0.0, 0.05), st.booleans())
def test_who_stalls_without_end_gives_a_verdict_all_the_same(due: float, was_written: bool) -> None:
    """Ticks 20 ms apart for ever, as of a process that has too much to do: each would move the verdict once more."""
    stalls = Stalls(0.0)
    for number in range(1, 500):
        stalls.tick(number * 0.02)
    moved = GRACE if was_written else R
    assert stalls.verdict(0.001, 0.001 if was_written else 0.0, due, R) <= due + (MOVES + 1) * (0.02 + moved)
