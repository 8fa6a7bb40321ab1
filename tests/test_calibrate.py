"""`ovnwatch calibrate`: what it promises, what it says when a promise is broken, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporters.calibrate import command
from exporters.calibrate.injection import Bracket, Expectation, Injection
from exporters.calibrate.judge import Table, judge
from exporters.calibrate.measure import PREFIX
from exporters.calibrate.namespaces import NETNS
from exporters.calibrate.processes import Prober
from exporters.calibrate.promises import Times, broken, due, verdict

STREAM = "a|b|pod|tcp|4"
TIMES = {"tcp": Times(0.1, 0.06), "http": Times(0.5, 0.15)}


def injections(
    count: int, kind: str = "drop_both", expectation: Expectation = "path", seconds: float = 1.0
) -> list[Injection]:
    """At 10, 20, 30 and so on, with brackets of a millisecond."""
    return [
        Injection(kind, Bracket(at, at + 0.001), Bracket(at + seconds, at + seconds + 0.001), expectation)
        for at in range(10, 10 * count + 1, 10)
    ]


def event(truth: Injection, *, shift: float = 0.0, longer: float = 0.0, late: float = 0.0, wide: float = 0.0) -> Any:
    """What a right prober says of it, and by how much it is falsified."""
    start, end = truth.start.before + shift, truth.end.before + shift + longer
    seconds = end - start
    return {
        "kind": {"path": "outage", "frozen": "frozen", "break": "break"}[truth.expectation],
        "stream": STREAM,
        "unconfirmed": False,
        "mono": {
            "start_earliest": start - 0.05 - wide,
            "start_latest": start + 0.05,
            "end_earliest": end - 0.05,
            "end_latest": end + 0.05 + wide,
            "detected": start + 0.12 + late,
        },
        "duration": {"lower": seconds - 0.1, "estimate": seconds, "upper": seconds + 0.1 + 2 * wide},
    }


def table(**falsified: float) -> Table:
    truths = injections(10)
    return judge(truths, [event(each, **falsified) for each in truths], [STREAM])


def words(found: Table, stalled: float = 0.0) -> list[str]:
    return [each.promise for each in broken(found, TIMES, stalled)]


def test_what_is_right_keeps_every_promise() -> None:
    assert words(table()) == []
    assert verdict([]) == "pass"


@pytest.mark.parametrize(
    ("falsified", "promises"),
    [
        ({"shift": 0.1}, ["edges", "detection"]),
        ({"shift": -0.1}, ["edges"]),
        ({"longer": 0.12}, ["bounds", "edges", "bias"]),
        ({"longer": 0.04}, ["bias"]),  # within the bounds, and wrong on average
        ({"longer": -0.04}, ["bias"]),
        ({"late": 0.1}, ["detection"]),
        ({"wide": 0.05}, ["width"]),
    ],
)
def test_a_falsified_measurement_breaks_a_promise(falsified: dict[str, float], promises: list[str]) -> None:
    found = broken(table(**falsified), TIMES, 0.0)
    assert [each.promise for each in found] == promises
    assert {(each.fault, each.protocol) for each in found} == {("drop_both", "tcp")}
    assert verdict(found) == "fail"


def test_one_of_many_unseen_breaks_a_promise_and_is_named() -> None:
    truths = injections(10)
    found = broken(judge(truths, [event(each) for each in truths[1:]], [STREAM]), TIMES, 0.0)
    assert [(each.promise, each.measured, each.limit) for each in found] == [("seen", 0.9, 1.0)]
    assert found[0].text == "1 of 10 not seen, the longest of 0.999 s"


def test_late_detection_is_not_judged_on_a_machine_that_stalled() -> None:
    found = broken(table(late=0.1), TIMES, 0.02)
    assert [(each.promise, each.judged) for each in found] == [("detection", False)]
    assert verdict(found) == "inconclusive"


SLOW = {"kind": "slow", "stream": STREAM, "deadline": 0.15}


def test_late_detection_and_wide_bounds_are_not_judged_of_a_slow_path() -> None:
    truths = injections(10)
    events = [event(each, late=0.1, wide=0.05) for each in truths]
    found = broken(judge(truths, [*events, SLOW], [STREAM]), TIMES, 0.0)
    assert [(each.promise, each.judged) for each in found] == [("width", False), ("detection", False)]


def test_what_was_not_there_breaks_a_promise() -> None:
    truths = injections(2)
    found = broken(judge(truths[:1], [event(each) for each in truths], [STREAM]), TIMES, 0.0)
    assert [(each.promise, each.measured) for each in found] == [("false", 1)]


def test_a_cell_in_which_nothing_was_due_decides_nothing() -> None:
    short = injections(10, seconds=0.05)
    found = broken(judge(short, [event(each) for each in short], [STREAM]), TIMES, 0.0)
    assert [(each.promise, each.fault, each.protocol) for each in found] == [("known", "drop_both", "tcp")]
    assert verdict(found) == "inconclusive"


def test_a_break_is_nothing_that_http_promises() -> None:
    cut = injections(10, "flow_drop", "break")
    streams = [STREAM, "a|b|pod|http|4"]
    assert broken(judge(cut, [event(each) for each in cut], streams), TIMES, 0.0) == []


@pytest.mark.parametrize(
    ("expectation", "seconds", "stalls", "is_due"),
    [
        ("path", 0.116, [], False),  # a tick longer than the interval
        ("path", 0.119, [], True),
        ("frozen", 0.15, [], False),
        ("frozen", 0.18, [], True),
        ("path", 0.4, [(10.1, 10.3)], False),  # no time left that would hold a probe and its verdict
        ("path", 0.5, [(10.1, 10.3)], True),
        ("break", 0.3, [], False),
        ("break", 0.5, [], True),
        ("break", 0.5, [(10.1, 10.3)], False),
    ],
)
def test_what_is_due(expectation: Expectation, seconds: float, stalls: list[tuple[float, float]], is_due: bool) -> None:
    truth = injections(1, "x", expectation, seconds)
    (row,) = judge(truth, [], [STREAM], stalls=[Bracket(*each) for each in stalls]).rows
    assert due(row, TIMES["tcp"]) is is_due


@pytest.mark.parametrize("expectation", ["path", "frozen"])
@pytest.mark.parametrize(("seconds", "is_due"), [(0.25, False), (0.27, True)])
def test_of_a_slow_path_what_outlasts_its_deadline_is_due(
    expectation: Expectation, seconds: float, is_due: bool
) -> None:
    truth = injections(1, "x", expectation, seconds)
    (row,) = judge(truth, [SLOW], [STREAM]).rows
    assert due(row, TIMES["tcp"]) is is_due


def test_http_has_no_established_connection_to_break() -> None:
    (row,) = judge(injections(1, "x", "break", 5.0), [], ["a|b|pod|http|4"]).rows
    assert not due(row, TIMES["http"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--method=magic"], "--method: want one of auto, relay, namespaces: 'magic'"),
        (["--protocol=http,icmp"], "--protocol: want some of http, tcp, ws, with commas: 'http,icmp'"),
        (["--fault=flood"], "--fault: want some of refuse"),
        (["--method=relay", "--fault=drop_both"], "--fault: drop_both is not for --method=relay, which has refuse"),
        (["--duration=0"], "--duration: must be from 1 to 86400 seconds: '0'"),
        (["--duration=nan"], "--duration: not a number: 'nan'"),
        (["--injections=-1"], "--injections: want a whole number"),
        (["--interval=0.0001"], "--interval: must be from 0.05 to 2 seconds"),
        (["--interval=0.1234"], "--interval: want whole milliseconds"),
        (["--seed=x"], "--seed: want a whole number"),
        (["--output=xml"], "--output: want one of table, json: 'xml'"),
        (["--sed"], "--sed: unknown flag, did you mean --seed?"),
        (["--seed"], "--seed: needs a value"),
    ],
)
def test_a_bad_flag_is_named_in_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"ovnwatch calibrate: {said}")
    assert len(err.splitlines()) == 1


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(option.flag in out and option.help in out for option in command.OPTIONS)


def calibrate(*argv: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "exporters.cli", "calibrate", *argv]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


@contextmanager
def started(*argv: str) -> "Iterator[subprocess.Popen[str]]":
    process = calibrate(*argv)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def check(report: Mapping[str, Any], code: int | None, faults: set[str]) -> None:
    """What holds on any machine: all that had to be seen was, and no bound was wrong."""
    assert code == {"pass": 0, "inconclusive": 1, "fail": 2}[report["verdict"]]
    assert report["streams"] >= 20
    assert {each["fault"] for each in report["cells"]} == faults
    assert {each["protocol"] for each in report["cells"]} == {"http", "tcp", "ws"}
    for cell in report["cells"]:
        assert cell["due_seen"] == cell["due"], cell
        assert cell["bounds_true"] == cell["edges_true"] == cell["seen"], cell
        assert cell["injected"] >= cell["known"]
    assert any(each["due"] for each in report["cells"])


@pytest.mark.slow
def test_by_relay_without_privileges() -> None:
    with started("--method=relay", "--injections=1", "--seed=1", "--output=json") as process:
        out, err = process.communicate(timeout=300)
        check(json.loads(out), process.returncode, {"refuse", "reset", "freeze", "kill"})
        assert "--method=relay --seed=1" in err


@pytest.mark.slow
@pytest.mark.needs_root
def test_between_namespaces() -> None:
    faults = {"drop_both", "drop_to_client", "reject_icmp", "stop"}
    flags = ("--method=namespaces", "--injections=1", "--seed=1", f"--fault={','.join(faults)}")
    with started(*flags, "--output=json") as process:
        out, _ = process.communicate(timeout=300)
        check(json.loads(out), process.returncode, faults)
    assert spaces() == []


@pytest.mark.slow
def test_a_prober_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All it tells is 100 ms off, as if its clock were."""
    finish = Prober.finish

    def lying(prober: Prober) -> list[dict[str, Any]]:
        lines = finish(prober)
        for line in lines:
            line.get("mono", {}).update({edge: when + 0.1 for edge, when in line.get("mono", {}).items()})
        return lines

    monkeypatch.setattr(Prober, "finish", lying)
    flags = ["--method=relay", "--protocol=tcp", "--injections=1", "--fault=refuse", "--seed=1"]
    tries = 1
    while (code := command.main(flags)) == 1 and tries < 5:  # a busy machine held the relay up: nothing is judged
        capsys.readouterr()
        tries += 1
    out = capsys.readouterr().out
    assert code == 2
    assert "refuse tcp: bounds hold start and end in" in out
    assert out.splitlines()[-1].startswith("FAIL")


def spaces() -> list[str]:
    return [each.name for each in NETNS.iterdir() if each.name.startswith(f"{PREFIX}-")] if NETNS.is_dir() else []


def children(pid: int) -> set[int]:
    """The processes that this one started."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found |= {int(each) for each in task.read_text().split()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "number"),
    [("relay", signal.SIGINT), pytest.param("namespaces", signal.SIGTERM, marks=pytest.mark.needs_root)],
)
def test_asked_to_end_it_leaves_nothing_behind(method: str, number: signal.Signals) -> None:
    with started(f"--method={method}", "--seed=2") as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        assert "interruptions" in lines[-1]
        mine = children(process.pid)
        assert mine
        time.sleep(5)  # into an interruption, for most
        mine |= children(process.pid)
        os.killpg(process.pid, number)  # as a terminal does
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err.splitlines()[-1] == "ovnwatch calibrate: asked to end; nothing is left behind"
        assert [pid for pid in mine if Path(f"/proc/{pid}").exists()] == []
    if method == "namespaces":
        assert spaces() == []
