"""A peer's clock against ours: within its error always, however answers come."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from exporters.probing.offset import KEEP, Offset

SHARES = st.floats(0, 1)
TRIPS = st.floats(1e-5, 2.0)


@given(st.floats(-4000, 4000), st.lists(st.tuples(TRIPS, SHARES, st.floats(0, 30)), min_size=1, max_size=50))
def test_the_true_offset_lies_within_the_error(ahead: float, answers: list[tuple[float, float, float]]) -> None:
    """However a round trip is shared between both ways, and however long ago the best one was."""
    offset, wall = Offset(), 1.7e9
    for trip, share, pause in answers:
        wall += trip + pause
        assert offset.read(wall, trip, wall - trip * share + ahead, "a") == 0.0
        assert abs(offset.seconds - ahead) <= offset.error + 1e-6


def test_a_better_answer_counts_until_it_is_old() -> None:
    offset = Offset()
    offset.read(1000.0, 0.002, 1000.0, "a")
    offset.read(1001.0, 0.2, 1001.0, "a")
    assert offset.error == 0.001
    offset.read(1001.0 + KEEP, 0.2, 1001.0 + KEEP, "a")
    assert offset.error == 0.1


def test_a_clock_that_is_set_is_told_once_and_followed_at_once() -> None:
    offset = Offset()
    moves = [
        offset.read(1000.0 + number, 0.01, 1000.0 + number + (3600.0 if number > 5 else 0.0), "a")
        for number in range(10)
    ]
    assert [round(move) for move in moves] == [0, 0, 0, 0, 0, 0, 3600, 0, 0, 0]
    assert abs(offset.seconds - 3600) < 0.01


def test_another_peer_behind_the_same_address_is_no_step() -> None:
    offset = Offset()
    assert offset.error == inf
    assert offset.read(1000.0, 0.01, 1000.0, "a") == 0.0
    assert offset.read(1001.0, 0.01, 2001.0, "b") == 0.0
    assert round(offset.seconds) == 1000
