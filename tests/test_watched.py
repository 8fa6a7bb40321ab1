"""What of a stream was not observed: seconds that it did not count, at about the time when it did not."""

from hypothesis import given
from hypothesis import strategies as st

from exporters.bastion.watched import MOST, Watched
from exporters.verdict.coverage import Span

WALL = 1e6  # Unix time less the clock's


def lost(watched: Watched) -> float:
    return sum(span.end - span.begin for span in watched.spans)


def test_what_is_counted_late_is_not_lost() -> None:
    watched = Watched(0.0, 0.0, slack=1.5)
    for second in range(100):
        watched.tell(second, WALL + second, max(0.0, second - 1.2))
    assert watched.spans == []


def test_a_time_without_observation_is_a_span_that_stays() -> None:
    watched = Watched(0.0, 50.0, slack=1.0)
    for second in range(0, 101, 5):
        observed = min(second, 20) + max(0, second - 40)  # nothing from 20 to 40
        watched.tell(second, WALL + second, 50.0 + observed)
    (span,) = watched.spans
    assert (span.begin, span.end) == (WALL + 21, WALL + 40)


def test_nobody_looked_for_long_and_the_sum_is_right() -> None:
    watched = Watched(0.0, 0.0, slack=1.0)
    watched.tell(1000.0, WALL + 1000, 900.0)
    assert watched.spans == [Span(WALL + 901, WALL + 1000, "unobserved")]


def test_a_stream_that_begins_anew_lost_nothing() -> None:
    watched = Watched(0.0, 0.0, slack=1.0)
    watched.tell(100.0, WALL + 100, 100.0)
    watched.tell(110.0, WALL + 110, 0.5)
    watched.tell(120.0, WALL + 120, 10.0)
    assert watched.spans == []


@given(st.lists(st.booleans(), max_size=4 * MOST + 50))
def test_what_is_lost_is_all_that_was_not_counted_but_the_slack(seen: list[bool]) -> None:
    watched = Watched(0.0, 0.0, slack=0.5)
    for second in range(len(seen)):
        watched.tell(second + 1.0, WALL + second + 1, float(sum(seen[: second + 1])))
    assert abs(lost(watched) - max(0.0, seen.count(False) - 0.5)) < 1e-6
    assert len(watched.spans) <= MOST
    assert all(one.end <= other.begin for one, other in zip(watched.spans, watched.spans[1:], strict=False))
