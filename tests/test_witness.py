"""What datagrams prove about a link, as timelines: one every 4 ms, `.` answered, `x` not, `l` late, `v` void."""

import pytest

from exporters.calibrate.injection import Truth
from exporters.calibrate.witness import INTERVAL, PROMPT, Books, Datagram

ROUND_TRIP = 0.001
LATE = 0.1


def truths(timeline: str) -> list[Truth]:
    """The times without an answer, of datagrams sent at 0, 4, 8... ms."""
    books = Books()
    over = []
    for number, mark in enumerate(timeline):
        sent = number * INTERVAL
        answered = {".": sent + ROUND_TRIP, "l": sent + LATE}.get(mark)
        if closed := books.judge(Datagram(sent, sent, answered, void=mark == "v")):
            over.append(closed)
    return over


@pytest.mark.parametrize("timeline", ["", "....", "xxxx", "..xx", "xx..", "..vv.."])
def test_no_time_without_an_answer_is_over(timeline: str) -> None:
    assert truths(timeline) == []


def test_it_began_after_the_last_answered_and_ended_before_the_first() -> None:
    ((start, end),) = truths("..xx.")
    assert start == pytest.approx((1 * INTERVAL, 2 * INTERVAL + PROMPT))
    assert end == pytest.approx((3 * INTERVAL, 4 * INTERVAL + ROUND_TRIP))


def test_what_slept_through_only_widens_the_edges() -> None:
    ((start, end),) = truths("..vxxv.")
    assert start == pytest.approx((1 * INTERVAL, 3 * INTERVAL + PROMPT))
    assert end == pytest.approx((4 * INTERVAL, 6 * INTERVAL + ROUND_TRIP))


def test_a_late_answer_proves_closed_at_its_start_and_open_at_its_end() -> None:
    ((_, end),) = truths("..xl")
    assert end == pytest.approx((3 * INTERVAL, 3 * INTERVAL + LATE))


def test_after_a_late_answer_a_new_time_begins_no_earlier_than_that() -> None:
    books = Books()
    books.judge(Datagram(0.0, 0.0, 0.001))
    books.judge(Datagram(1.0, 1.0))
    assert books.late(2.0) is not None
    books.judge(Datagram(2.5, 2.5))
    closed = books.judge(Datagram(3.0, 3.0, 3.001))
    assert closed is not None
    assert closed[0].before == 2.0
