"""The clock: an absolute grid, phases spread evenly, missed points counted, calls in the order of their times."""

from itertools import chain, count, pairwise
from math import log
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.probing.schedule import SLOT, SLOT_MS, Wheel, first_point, phase, serve, turn

INTERVALS = st.sampled_from([0.1, 0.25, 0.5, 1.0, 3.0])
TIMES = st.floats(0, 1e6)
EXACT = 1e-6  # seconds; what floats may be wrong by


class Setting(NamedTuple):
    key: str
    interval: float


def keys(count: int) -> list[str]:
    return [f"node-{n}|node-{n * 7 % 40}|service|{('http', 'tcp', 'ws')[n % 3]}|4" for n in range(count)]


# -- the grid


@given(st.text(), INTERVALS)
def test_a_phase_lies_within_the_interval_and_never_changes(key: str, interval: float) -> None:
    assert 0 <= phase(key, interval) < interval
    assert phase(key, interval) == phase(key, interval)


def test_a_phase_is_the_same_after_a_restart() -> None:
    """Python's own hash is not: it is seeded at every start."""
    assert phase("a|b|service|tcp|4", 1.0) == pytest.approx(0.857644, abs=1e-6)


def test_in_turn_is_the_order_in_which_grids_come() -> None:
    grids = [Setting(key, 1.0) for key in keys(100)]
    firsts = [first_point(phase(each.key, 1.0), 1.0, 100.0) for each in sorted(grids, key=turn)]
    assert firsts == sorted(firsts)
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("interval", [0.1, 0.5])
def test_phases_are_spread_evenly(interval: float) -> None:
    """Chi-square over 20 bins of 2 000 streams: above 43.8 only once in a thousand (19 degrees of freedom)."""
    bins = [0] * 20
    for key in keys(2000):
        bins[int(phase(key, interval) / interval * 20)] += 1
    assert sum((count - 100) ** 2 / 100 for count in bins) < 43.8


def test_the_largest_gap_between_phases_is_that_of_chance() -> None:
    """Of n points on a circle it is about (ln n) / n; 5 / n more only once in a hundred and fifty."""
    phases = sorted(phase(key, 1.0) for key in keys(1000))
    gaps = [after - before for before, after in pairwise([*phases, phases[0] + 1.0])]
    assert max(gaps) < (log(1000) + 5) / 1000


@given(st.floats(0, 0.999), INTERVALS, TIMES)
def test_the_first_point_is_the_next_of_the_grid(share: float, interval: float, now: float) -> None:
    offset = share * interval
    point = first_point(offset, interval, now)
    assert -EXACT <= point - now <= interval + EXACT or point == offset
    steps = (point - offset) / interval
    assert steps == pytest.approx(round(steps), abs=1e-4)


@given(INTERVALS, TIMES, st.integers(0, 1_000_000), st.floats(0, 100))
def test_what_passed_after_a_point_was_missed_and_the_next_is_still_to_come(
    interval: float, first: float, number: int, late: float
) -> None:
    now = first + number * interval + late
    lag, missed = serve(first, interval, number, now)
    assert lag == pytest.approx(late, abs=EXACT)
    following = first + (number + missed + 1) * interval
    assert -EXACT <= following - now <= interval + EXACT


def test_missed_points_are_skipped_and_never_replayed() -> None:
    missed = [serve(10.0, 0.5, 4, now)[1] for now in (12.004, 12.499, 12.501, 17.2)]
    assert missed == [0, 0, 1, 10]


def test_the_grid_is_absolute_however_long_it_lasts() -> None:
    """A year of tenths of a second later, on a machine up for as long, the point is where the first says."""
    first = 31_557_600.037
    lag, missed = serve(first, 0.1, 315_576_000, first + 31_557_600.003)
    assert lag == pytest.approx(0.003, abs=EXACT)
    assert missed == 0


# -- the wheel


class Calls:
    """Files calls that note when and as which they were made."""

    def __init__(self, wheel: Wheel) -> None:
        self.wheel = wheel
        self.made: list[tuple[float, float]] = []  # (when it was due, when it was made)

    def file(self, when: float) -> None:
        self.wheel.at(when, lambda now: self.made.append((when, now)))

    def run(self, now: float) -> None:
        for call in chain(*self.wheel.due(now)):
            call(now)


def test_calls_come_in_the_order_of_their_times() -> None:
    calls = Calls(Wheel(100.0))
    for when in (100.3, 100.1, 100.2, 100.25):
        calls.file(when)
    calls.run(101.0)
    assert [when for when, _ in calls.made] == [100.1, 100.2, 100.25, 100.3]


def test_calls_of_one_slot_come_as_they_were_filed() -> None:
    calls = Calls(Wheel(100.0))
    filed = [100.0995, 100.0992, 100.0999, 100.0991]
    for when in filed:
        calls.file(when)
    calls.run(100.2)
    assert [when for when, _ in calls.made] == filed


def test_no_call_comes_before_its_time_or_twice() -> None:
    calls = Calls(Wheel(100.0))
    calls.file(100.1)
    calls.run(100.099)
    assert calls.made == []
    calls.run(100.1 + SLOT)
    calls.run(100.1 + SLOT)
    calls.run(200.0)
    assert len(calls.made) == 1


@pytest.mark.parametrize("calls_filed", [1, 1000])
def test_after_a_long_sleep_all_that_was_due_comes_in_order(calls_filed: int) -> None:
    """With few slots filed and with many: the wheel walks the fewer, slots filed or slots slept through."""
    for slept in (0.02, 3600.0):
        calls = Calls(Wheel(100.0))
        times = [100.0 + n * 7919 % calls_filed * slept / calls_filed for n in range(calls_filed)]
        for when in times:
            calls.file(when)
        calls.file(100.0 + slept + 1.0)
        calls.run(100.0 + slept + 2 * SLOT)
        made = [when for when, _ in calls.made]
        assert len(made) == calls_filed
        assert all(later > earlier - SLOT for earlier, later in pairwise(made))
        calls.run(100.0 + slept + 2.0)
        assert len(calls.made) == calls_filed + 1


def test_what_is_filed_for_the_past_comes_at_the_next_slot() -> None:
    calls = Calls(Wheel(100.0))
    calls.file(42.0)
    calls.run(100.0)
    assert calls.made == []
    calls.run(100.0 + SLOT)
    assert len(calls.made) == 1


def test_a_call_may_file_another_and_itself() -> None:
    wheel = Wheel(100.0)
    made: list[float] = []

    def again(now: float) -> None:
        made.append(now)
        wheel.at(now, again)

    wheel.at(100.0, again)
    for tick in range(1, 11):
        for call in chain(*wheel.due(100.0 + tick * SLOT + 0.0001)):
            call(100.0 + tick * SLOT + 0.0001)
    assert len(made) == 10


STEPS = st.lists(st.tuples(st.integers(0, 2000), st.lists(st.integers(-100, 3000), max_size=8)), max_size=30)


@given(STEPS)
def test_whatever_is_filed_comes_once_and_with_the_first_slot_after_its_time(
    steps: list[tuple[int, list[int]]],
) -> None:
    """In milliseconds: sleep so long, make what is due, then file these. Half a millisecond keeps off slots' edges."""
    now = 5_000_000
    calls = Calls(Wheel((now + 0.5) / 1000))
    waiting: list[tuple[int, int, float]] = []  # (slot, number, when)
    expected: list[float] = []
    number = count()
    for sleep, delays in [*steps, (10_000, [])]:
        now += sleep
        calls.run((now + 0.5) / 1000)
        expected += [when for slot, _, when in sorted(waiting) if slot <= now // SLOT_MS]
        waiting = [each for each in waiting if each[0] > now // SLOT_MS]
        assert [when for when, _ in calls.made] == expected
        for delay in delays:
            when = (now + delay + 0.5) / 1000
            waiting.append((max((now + delay) // SLOT_MS, now // SLOT_MS) + 1, next(number), when))
            calls.file(when)
    assert waiting == []


# -- what recurs


def recurring(interval: float, first: float, times: list[float]) -> list[int]:
    """How often a point of a grid is served at each of these moments in turn."""
    served: list[float] = []
    points = 0
    wheel = Wheel(times[0] - 1.0)

    def on_point(now: float) -> None:
        nonlocal points
        _lag, missed = serve(first, interval, points, now)
        points += 1 + missed
        if missed >= 0:
            served.append(now)

    wheel.every(first, interval, on_point)
    counts = []
    for now in times:
        before = len(served)
        for call in chain(*wheel.due(now)):
            call(now)
        counts.append(len(served) - before)
    return counts


@pytest.mark.parametrize("interval", [0.1, 0.25, 0.333, 1.0, 1.001, 3.0])
def test_what_recurs_comes_with_the_first_slot_after_each_of_its_points(interval: float) -> None:
    first = 5000.0021
    ticks = [first - 0.9 + number * SLOT for number in range(int(10 * interval / SLOT) + 180)]
    came = [now for now, made in zip(ticks, recurring(interval, first, ticks), strict=True) if made]
    points = [first + number * interval for number in range(len(came))]
    assert len(came) >= 10
    assert all(0 <= now - point < 2 * SLOT for now, point in zip(came, points, strict=True))


@pytest.mark.parametrize("interval", [0.1, 0.333, 3.0])
@pytest.mark.parametrize("slept", [0.02, 0.35, 1.2, 3600.0])
def test_after_a_sleep_what_recurs_comes_at_most_once(interval: float, slept: float) -> None:
    begin = 5000.0021
    first, second = recurring(interval, begin, [begin + 0.01, begin + 0.01 + slept])
    assert first == 1
    assert second == (1 if slept + 0.01 > interval else 0)


def test_what_recurs_can_be_taken_back() -> None:
    wheel = Wheel(100.0)
    made: list[float] = []
    wheel.every(100.1, 0.333, made.append)
    wheel.never(100.1, 0.333, made.append)
    assert [wheel.due(100.0 + number * 0.1) for number in range(30)] == [([], ())] * 30


@given(st.floats(0, 1e7), st.sampled_from([0.1, 0.15, 0.333, 1.0, 7.001]), st.integers(0, 1000))
def test_a_recurring_call_is_filed_where_each_of_its_points_falls(first: float, interval: float, number: int) -> None:
    """However far along: at the point's slot it comes, and not in the three slots before."""
    now = first + number * interval
    wheel = Wheel(now - 4 * SLOT)
    wheel.every(first, interval, print)
    before = wheel.due(now - 1.1 * SLOT)
    assert before == ([], ())
    assert wheel.due(now + 1.1 * SLOT) == ([], (print,))
