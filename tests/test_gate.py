"""The gate: quiet, observed and within the budget, or the next node waits; asked over HTTP and by the command."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from box import run
from hypothesis import given
from hypothesis import strategies as st
from stage import Stage, outside, stage

from alerts.report.gate import main
from exporters.bastion.gate import seen
from exporters.bastion.marks import NewWindow
from exporters.verdict.gate import Seen, decide

CALM = Seen(now=1000.0, since=100.0, streams=6, last_end=900.0)


@pytest.mark.parametrize(
    ("moment", "verdict", "reason"),
    [
        (CALM, "go", "quiet for 100 s"),
        (CALM._replace(last_end=None), "go", "quiet for 900 s"),
        (CALM._replace(last_end=941.0), "wait", "quiet for 59 s, 60 s are wanted"),
        (CALM._replace(since=990.0, last_end=None), "wait", "quiet for 10 s, 60 s are wanted"),
        (CALM._replace(out=["a -> b"]), "wait", "out: a -> b"),
        (CALM._replace(out=[f"s{each}" for each in range(9)]), "wait", "out: s0, s1, s2, s3, s4 and 4 more"),
        (CALM._replace(unknown=["a -> b"]), "wait", "not observed: a -> b"),
        (CALM._replace(unheard=["n1"]), "wait", "not heard: n1"),
        (CALM._replace(streams=0), "wait", "nothing is observed"),
        (CALM._replace(budget=10.0, spent=4.0), "go", "6.0 s of the budget are left"),
        (CALM._replace(budget=10.0, spent=8.0), "stop", "2.0 s of the budget are left, 5 s are wanted"),
        (CALM._replace(budget=10.0, spent=11.0, out=["a"]), "stop", "-1.0 s of the budget are left, 5 s are wanted"),
    ],
)
def test_a_moment(moment: Seen, verdict: str, reason: str) -> None:
    found = decide(moment, 60.0, 5.0 if moment.budget is not None else 0.0)
    assert found.verdict == verdict
    assert reason in found.reasons


def test_a_budget_that_is_just_spent_is_enough_where_none_shall_be_left() -> None:
    assert decide(CALM._replace(budget=10.0, spent=10.0)).verdict == "go"
    assert decide(CALM._replace(budget=10.0, spent=10.1)).verdict == "stop"


def test_without_a_budget_the_reasons_say_so() -> None:
    assert "no budget is set" in decide(CALM).reasons


def test_of_a_budget_that_nobody_set_nothing_is_left() -> None:
    found = decide(CALM, 60.0, 5.0)
    assert found.verdict == "wait"
    assert found.reasons == ("5 s of a budget are wanted, and no window with one is open",)


names = st.lists(st.just("a"), max_size=2)


@given(
    st.builds(
        Seen, st.just(1000.0), st.floats(0, 1000), st.integers(0, 2), names, names, names,
        st.none() | st.floats(0, 1000), st.floats(0, 20), st.none() | st.floats(0, 20),
    )
)  # fmt: skip
def test_it_goes_only_where_all_is_known_and_quiet(moment: Seen) -> None:
    found = decide(moment, 60.0, 1.0)
    assert found.reasons
    if found.verdict == "go":
        assert moment.streams
        assert not any((moment.out, moment.unknown, moment.unheard))
        assert moment.last_end is None or moment.now - moment.last_end >= 60
        assert moment.budget is None or moment.budget - moment.spent >= 1


async def asked(on: Stage, query: str = "") -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{on.port}/gate{query}") as answer:
        return answer.status, json.loads(await answer.text())


def test_a_bastion_answers_what_its_page_knows() -> None:
    async def scenario() -> None:
        async with stage(outside(2)) as on:
            assert (await asked(on))[1]["verdict"] == "wait", "it has just begun"
            _, found = await asked(on, "?quiet=0")
            assert (found["verdict"], found["budget_left_seconds"]) == ("go", None)
            on.down(on.streams[0])
            _, found = await asked(on, "?quiet=0")
            assert found["verdict"] == "wait"
            assert found["quiet_seconds"] is None
            assert found["reasons"] == ["out: bastion-1 -> peer-1 by loadbalancer/http"]
            on.up(on.streams[0])
            assert (await asked(on, "?quiet=0"))[1]["verdict"] == "go"
            assert (await asked(on, "?quiet=30"))[1]["verdict"] == "wait"
            before = seen(await on.broadcast.fresh(), time.time(), 0.0).last_end or 0.0
            on.down(on.streams[1], kind="frozen")
            assert (await asked(on, "?quiet=0"))[1]["verdict"] == "wait"
            on.up(on.streams[1])
            assert (seen(await on.broadcast.fresh(), time.time(), 0.0).last_end or 0.0) > before
            on.marks.start(NewWindow(name="night", budget_seconds=600.0), time.time())
            _, found = await asked(on, "?quiet=0&budget_left=601")
            assert found["verdict"] == "stop"
            assert found["budget_left_seconds"] <= 600
            on.peer("n9", heard=False)
            _, found = await asked(on, "?quiet=0")
            assert (found["verdict"], found["reasons"]) == ("wait", ["not heard: n9"])

    run(scenario())


@pytest.mark.parametrize("query", ["?quiet=-1", "?quiet=soon", "?quiet=nan", "?budget_left=1e9", "?quiet=1_0"])
def test_a_question_that_is_none_is_refused(query: str) -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on:
            status, found = await asked(on, query)
            assert status == 400
            assert "want seconds from 0" in found["error"]

    run(scenario())


@pytest.mark.parametrize("query", ["?budget-left=10", "?quite=60", "?quiet=0&quiet=60", "?quiet=0&x"])
def test_a_misspelt_question_is_not_another_one(query: str) -> None:
    """It would be answered as if nothing had been asked for, and the next node might go."""

    async def scenario() -> None:
        async with stage(outside(1)) as on:
            status, found = await asked(on, query)
            assert status == 400
            assert found["error"].startswith("want quiet and budget_left, each once")

    run(scenario())


def test_the_command_waits_goes_stops_and_gives_up(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> list[int]:
        async with stage(outside(1)) as on:
            url = f"--url=http://127.0.0.1:{on.port}"
            codes = [await asyncio.to_thread(main, [url, "--quiet=0", "--timeout=0"])]
            on.down(on.streams[0])
            codes.append(await asyncio.to_thread(main, [url, "--quiet=0", "--timeout=0"]))
            waiting = asyncio.create_task(asyncio.to_thread(main, [url, "--quiet=0", "--timeout=1m"]))
            while "out: bastion-1" not in (said := capsys.readouterr().err):
                assert "Traceback" not in said
                await asyncio.sleep(0.05)
            on.up(on.streams[0])
            codes.append(await waiting)
            on.marks.start(NewWindow(name="night", budget_seconds=5.0), time.time())
            codes.append(await asyncio.to_thread(main, [url, "--quiet=0", "--budget-left=10s"]))
            return codes

    assert run(scenario()) == [0, 2, 0, 2]
    assert "STOP: " in capsys.readouterr().out


def test_a_bastion_that_does_not_answer_is_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url=http://127.0.0.1:1", "--timeout=0"]) == 1
    assert "TIMEOUT: not known" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--quiet=soon", "--timeout=-1", "--budget-left=25h", "--url=ftp://x"])
def test_flags_that_are_none(flag: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--url=http://127.0.0.1:1", flag])
    assert ended.value.code == 1
