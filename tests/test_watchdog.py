"""The watchdog: a stuck loop is told of while it is stuck, once, with the place; it is blamed for nothing else."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest
import uvloop
from box import OURSELVES, PATIENCE, probing, run, stream, until
from prometheus_client import CollectorRegistry, generate_latest
from servers import healthy

from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.probing.watchdog import EVERY, STUCK, Watchdog


def watchdog(ticked: Callable[[], float], ident: int | None = None) -> Watchdog:
    loop = asyncio.new_event_loop()
    loop.close()  # it is asked for nothing
    return Watchdog(loop, threading.get_ident() if ident is None else ident, ticked)


def looks(last: float, times: list[float]) -> list[bool]:
    """What is found at these times when the loop ticked last at `last`; it looked first at 0."""
    dog = watchdog(lambda: last)
    return [dog.look(at) for at in times]


def test_a_loop_without_ticks_is_stuck_after_a_while() -> None:
    assert looks(0.0, [1.0, 2.0, 3.0, 4.0]) == [False, False, True, True]


def test_a_loop_that_ticks_is_not() -> None:
    now = 0.0
    dog = watchdog(lambda: now - 0.004)
    for _ in range(100):
        now += EVERY
        assert not dog.look(now)


def test_who_slept_too_long_itself_blames_nobody() -> None:
    """After SIGSTOP or a throttled minute either thread may come first."""
    assert looks(0.5, [1.0, 60.0, 61.0]) == [False, False, True]  # a second later it is the loop's fault


def test_it_is_told_once_in_a_stall_with_the_place(caplog: pytest.LogCaptureFixture) -> None:
    last = 0.0
    dog = watchdog(lambda: last)

    def the_guilty_function() -> None:
        for at in range(1, 20):
            dog.look(float(at))

    the_guilty_function()
    (line,) = [each.getMessage() for each in caplog.records]
    assert "stuck for 3.0 s" in line
    assert "the_guilty_function" in line
    last = 20.0
    for at in range(20, 30):
        dog.look(float(at))
    assert len(caplog.records) == 2


def test_a_thread_that_is_gone_is_at_an_unknown_place(caplog: pytest.LogCaptureFixture) -> None:
    dog = watchdog(lambda: 0.0, -1)
    dog.look(STUCK - 1.0)
    assert dog.look(STUCK)
    assert "unknown place" in caplog.text


def test_a_bug_in_a_chore_reaches_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.probing.watchdog.EVERY", 0.01)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        bugs: list[object] = []
        loop.set_exception_handler(lambda _, context: bugs.append(context.get("exception")))

        def chore(_now: float) -> None:
            raise AttributeError("a bug")

        dog = Watchdog(loop, threading.get_ident(), time.monotonic, [chore])
        dog.start()
        await until(lambda: bugs)
        dog.stop()
        assert isinstance(bugs[0], AttributeError)

    uvloop.run(scenario())


def observed(record: Record) -> bool:
    """As a scrape tells it, which is made in another thread."""
    registry = CollectorRegistry()
    registry.register(record)
    lines = generate_latest(registry).decode().splitlines()
    (line,) = [line for line in lines if line.startswith("ovnwatch_stream_observed{")]
    return line.endswith(" 1.0")


@pytest.mark.slow
def test_a_scrape_made_while_the_loop_is_stuck_says_that_nothing_is_observed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("exporters.probing.watchdog.EVERY", 0.1)
    monkeypatch.setattr("exporters.probing.watchdog.STUCK", 0.5)
    caplog.set_level(logging.WARNING)
    seen: list[bool] = []
    let_go = threading.Event()

    def scrape(record: Record) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and ("stuck for" not in caplog.text or observed(record)):
            time.sleep(0.05)
        seen.append(observed(record))
        let_go.set()

    async def scenario() -> None:
        server = await healthy("tcp")
        # An interval so long that the last outcome alone would pass for lately.
        async with probing(
            stream(server.port, interval=30.0, prompt=0.15), stream(server.port, target="often")
        ) as record:
            del record.stats["here|there|service|tcp|4"]
            await until(lambda: observed(record))
            thread = threading.Thread(target=scrape, args=(record,))
            thread.start()
            let_go.wait(PATIENCE)  # the loop is stuck here
            await until(lambda: observed(record))
            thread.join()
            # Told afterwards, as a gap.
            await until(lambda: record.gaps["stall"] + record.gaps["throttled"] > 0.5)
            (gap,) = [item for item in Record.history(record) if item["kind"] == "gap"][-1:]
            assert (gap["cause"], gap["state"], gap["stream"]) == ("stall", "closed", "")
        await server.close()

    run(scenario())
    assert seen == [False]
    assert "let_go.wait" in caplog.text
    assert caplog.text.count("stuck for") == 1


def test_the_thread_ends_with_the_engine() -> None:
    async def scenario() -> None:
        engine = Engine([], OURSELVES, Record([], OURSELVES), asyncio.get_running_loop())
        engine.start()
        assert "watchdog" in {each.name for each in threading.enumerate()}
        await engine.stop()
        assert "watchdog" not in {each.name for each in threading.enumerate()}

    run(scenario())
