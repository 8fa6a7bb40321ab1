"""What the clocks say of each other: suspensions, steps of the wall clock, and neither where we were only stopped."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.probing.clocks import SLEPT, STEP, Steps, Suspensions, ahead


class Machine:
    """Three clocks of one machine; each reading of one takes a microsecond, and what `stops` says of that reading."""

    def __init__(self, stops: Iterable[float] = ()) -> None:
        self.awake, self.asleep, self.set = 1000.0, 50.0, 1.7e9
        self.stops = iter(stops)

    def monotonic(self) -> float:
        self.awake += 1e-6 + next(self.stops, 0.0)
        return self.awake

    def boottime(self) -> float:
        return self.monotonic() + self.asleep

    def wall(self) -> float:
        return self.boottime() + self.set


def test_a_suspension_is_as_long_as_boottime_gained() -> None:
    machine = Machine()
    suspensions = Suspensions(machine.monotonic, machine.boottime)
    machine.asleep += 3600.0
    assert suspensions.ended(machine.monotonic()) == pytest.approx(3600.0, abs=0.001)
    assert suspensions.ended(machine.monotonic()) == 0.0
    machine.asleep += 0.5
    assert suspensions.ended(machine.monotonic()) == pytest.approx(0.5, abs=0.001)


def test_time_that_passes_is_no_suspension_and_nor_is_a_step_of_the_wall_clock() -> None:
    machine = Machine()
    suspensions = Suspensions(machine.monotonic, machine.boottime)
    for _ in range(1000):
        machine.awake += 10.0
        machine.set -= 100.0
        assert suspensions.ended(machine.monotonic()) == 0.0


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0002, 0.5, 10.0]), max_size=60), st.booleans())
def test_being_stopped_between_two_readings_is_no_suspension(stops: list[float], before: bool) -> None:
    machine = Machine([*([0.0] * (0 if before else 3)), *stops])
    suspensions = Suspensions(machine.monotonic, machine.boottime)
    for _ in range(20):
        assert suspensions.ended(machine.monotonic()) == 0.0


def test_a_suspension_that_could_not_be_measured_at_once_is_measured_later() -> None:
    machine = Machine()
    suspensions = Suspensions(machine.monotonic, machine.boottime)
    machine.asleep += 5.0
    machine.stops = itertools.repeat(0.1, 17)
    assert suspensions.ended(machine.monotonic()) == 0.0
    assert suspensions.ended(machine.monotonic()) == pytest.approx(5.0, abs=0.001)


def test_very_short_ones_add_up_until_they_count() -> None:
    machine = Machine()
    suspensions = Suspensions(machine.monotonic, machine.boottime)
    found = []
    for _ in range(10):
        machine.asleep += 0.6 * SLEPT
        found.append(suspensions.ended(machine.monotonic()))
    assert sum(found) == pytest.approx(6 * SLEPT, abs=0.01)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 0.6, -0.6])
def test_a_step_of_the_wall_clock_is_told_once(step: float) -> None:
    machine = Machine()
    steps = Steps(machine.wall, machine.boottime)
    machine.set += step
    assert steps.seen() == pytest.approx(step, abs=0.002)
    assert steps.seen() == 0.0


def test_a_clock_that_is_slewed_or_set_by_little_is_not_told_nor_is_sleep() -> None:
    machine = Machine()
    steps = Steps(machine.wall, machine.boottime)
    for _ in range(100):
        machine.set += 0.9 * STEP
        machine.asleep += 100.0
        machine.awake += 1.0
        assert steps.seen() == 0.0


def test_who_is_stopped_at_every_try_has_not_read_two_clocks() -> None:
    machine = Machine(itertools.repeat(0.01))
    assert ahead(machine.wall, machine.boottime) is None
    steps = Steps(machine.wall, machine.boottime)  # began blind
    machine.stops = iter(())
    assert steps.seen() == 0.0
    machine.set += 5.0
    assert steps.seen() == pytest.approx(5.0, abs=0.002)
