"""More is due than can be done: nothing else waits for it, verdicts go first, and everybody has a turn."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
import uvloop
from box import OURSELVES, until

from exporters.probing.engine import EXTRA, Engine
from exporters.probing.record import Record
from exporters.probing.schedule import SLOT
from exporters.probing.ticker import Ticker

GRIDS = 300
WORK = 0.001  # seconds for each point: three times as much as there is time for
T = 0.1


def busy(seconds: float) -> None:
    until = monotonic() + seconds
    while monotonic() < until:
        pass


def with_engine(scenario: Callable[[Engine], Any]) -> None:
    async def main() -> None:
        engine = Engine([], OURSELVES, Record([], OURSELVES), asyncio.get_running_loop())
        engine.start()
        await scenario(engine)
        await engine.stop()

    uvloop.run(main())


@pytest.mark.slow
def test_grids_that_are_too_many_are_served_in_turn_and_others_have_their_turns_between() -> None:
    served: list[int] = []
    turns: list[int] = []  # how many had been served when others had their turn

    def grid(number: int) -> Callable[[float], None]:
        def point(_now: float) -> None:
            served.append(number)
            busy(WORK)

        return point

    async def scenario(engine: Engine) -> None:
        now = monotonic()
        for number in range(GRIDS):
            engine.wheel.every(now + T * number / GRIDS, T, grid(number))
        while len(served) < 4 * GRIDS:
            turns.append(len(served))
            await asyncio.sleep(0)

    with_engine(scenario)
    often = Counter(served[GRIDS:])  # the first round is as it fell
    assert set(often) == set(range(GRIDS))
    assert max(often.values()) - min(often.values()) <= 2
    longest = max(after - before for before, after in pairwise(turns))
    print(f"{longest} of {GRIDS} grids were served in one turn at most")
    assert longest <= GRIDS / 2  # 8 of them; many more at once would be all that are due


def test_verdicts_do_not_wait_for_grids() -> None:
    order: list[str] = []

    def point(_now: float) -> None:
        order.append("point")
        busy(WORK)

    async def scenario(engine: Engine) -> None:
        now = monotonic()
        for number in range(GRIDS):
            engine.wheel.every(now + number * 1e-6, T, partial(point))
        engine.wheel.at(now + 2 * SLOT, lambda _now: order.append("verdict"))
        await until(lambda: "verdict" in order)

    with_engine(scenario)
    assert order.count("point") < GRIDS


def test_who_is_refused_an_optional_connection_is_asked_again_in_turn() -> None:
    asked: list[int] = []

    class Wanting:
        def __init__(self, number: int) -> None:
            self.number = number

        def again(self, _now: float) -> None:
            asked.append(self.number)
            assert engines[0].admit_optional(self)  # type: ignore[arg-type]

    engines: list[Engine] = []

    async def scenario(engine: Engine) -> None:
        engines.append(engine)
        engine._extra = 0
        many = [Wanting(number) for number in range(4 * EXTRA)]
        for each in many:
            assert not engine.admit_optional(each)  # type: ignore[arg-type]
            assert not engine.admit_optional(each)  # type: ignore[arg-type]
        rounds = 0
        while len(asked) < len(many):
            before = len(asked)
            await asyncio.sleep(0.001)
            rounds += len(asked) > before
        assert rounds >= 2  # they are not all let in at once

    with_engine(scenario)
    assert asked == list(range(4 * EXTRA))


def test_who_asks_later_does_not_overtake_those_who_wait() -> None:
    asked: list[str] = []

    class Asking:
        def __init__(self, engine: Engine, name: str) -> None:
            self.engine = engine
            self.name = name

        def again(self, _now: float) -> None:
            if self.engine.admit_optional(self):  # type: ignore[arg-type]
                asked.append(self.name)

    async def scenario(engine: Engine) -> None:
        engine._extra = 0
        first, later = Asking(engine, "first"), Asking(engine, "later")
        first.again(0.0)
        engine._extra = EXTRA  # as at the begin of a tick, in which a retry that is due asks before the queue is served
        later.again(0.0)
        assert not asked
        await until(lambda: len(asked) == 2)

    with_engine(scenario)
    assert asked == ["first", "later"]


def test_a_ticker_comes_at_whole_multiples_until_it_is_closed() -> None:
    at: list[float] = []

    async def scenario() -> None:
        ticker = Ticker(asyncio.get_running_loop(), SLOT, lambda: at.append(monotonic()), monotonic())
        await until(lambda: len(at) >= 20)
        busy(5 * SLOT)
        count = len(at)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(at) <= count + 2  # what passed meanwhile made one call
        ticker.close()
        count = len(at)
        await asyncio.sleep(5 * SLOT)
        assert len(at) == count

    uvloop.run(scenario())
    numbers = [int(each / SLOT) for each in at]
    assert len(set(numbers)) >= len(numbers) - 1  # one for each multiple, never early
