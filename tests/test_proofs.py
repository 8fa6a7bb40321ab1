"""The lab's proofs about its report: they hold of a run as it was, and are refuted where a report is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_report import BEGIN, END, Item, item, journal, out, turn, window

from alerts.report.build import named
from alerts.report.read import Told, told
from exporters import times
from exporters.calibrate.injection import Bracket
from exporters.history.source import File
from lab.ovn import proofs
from lab.story import Deed

pytestmark = pytest.mark.slow

PAIRS = [(one, other) for one in ("ch1", "ch2", "ch3") for other in ("ch1", "ch2", "ch3") if one != other]
STREAMS = [f"{one}|{other}|pod|tcp|4" for one, other in PAIRS]
TURNS = ("ch1", "ch2", "ch3", "ch3", "ch2", "ch1")  # one every 50 seconds
DEEDS = [
    Deed(f"{node} is out", node, {each: (span, span) for each in STREAMS if node in each})
    for number, node in enumerate(TURNS)
    for span in [Bracket(BEGIN + 102.0 + 50 * number, BEGIN + 104.0 + 50 * number)]
]


def begins(found: Mapping[str, Any]) -> dict[str, float]:
    return {each["id"]: times.seconds(each["begin"]) for each in found["outages"]}


def outages(first: int, node: str, begin: float) -> list[Item]:
    hit = [pair for pair in PAIRS if node in pair]
    return [
        out(first + each, *pair, begin, begin + 2.0, reporter_node=pair[0], id=f"o{first + each}")
        for each, pair in enumerate(hit)
    ]


def said(folder: Path, items: Sequence[Item]) -> list[Told]:
    """What journals of three peers tell, and the bastion's."""
    found = []
    for name in ("ch1", "ch2", "ch3", "bastion"):
        own = [
            each for each in items if each["stream"].split("|")[0] == name or (name == "bastion" and not each["stream"])
        ]
        streams = [each for each in STREAMS if each.startswith(name)] or ["bastion|ch1|loadbalancer|tcp|4"]
        file = File(journal(folder / f"{name}.db", own, streams))
        found.append(told(file)._replace(name=name, node="" if name == "bastion" else name))
    return found


def run(folder: Path) -> list[Told]:
    items = [window(1)]
    for number, node in enumerate(TURNS):
        begin = 101.0 + 50 * number
        items += [turn(10 + number, node, begin, begin + 5.0), *outages(100 * (number + 1), node, begin + 1.5)]
    return said(folder, items)


def test_turns_told_of_others_explain_nothing(tmp_path: Path) -> None:
    there = run(tmp_path)
    found = [*proofs.told_otherwise(there, named(there, "night"), DEEDS, begins)]
    assert [(each.wanted, each.verdict, each.wrong) for each in found] == [("fail", "fail", ())] * 2
    assert len([*proofs.table(found)]) == 3


def test_turns_told_as_they_were_refute_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = run(tmp_path)
    monkeypatch.setattr(proofs, "SHUFFLED", TURNS)
    shuffled, idle = proofs.told_otherwise(there, named(there, "night"), DEEDS, begins)
    assert shuffled.verdict == "pass"
    assert len(shuffled.wrong) == 1 + 4 * proofs.APART
    assert proofs.APART > 0
    assert not idle.wrong


@pytest.mark.parametrize(("turns", "wrong"), [([], 0), ([turn(9, "ch1", 100.0, 110.0)], 5)])
def test_what_was_in_no_turn_must_fail(turns: list[Item], wrong: int, tmp_path: Path) -> None:
    there = said(tmp_path, [window(1), *turns, *outages(100, "ch1", 102.5)])
    found = proofs.unexplained(there, named(there, "night"), DEEDS[0], begins)
    assert len(found.wrong) == wrong, found
    nothing = said(tmp_path / "none", [window(1)])
    assert "no outage" in proofs.unexplained(nothing, named(nothing, "night"), DEEDS[0], begins).wrong[-1]


@pytest.mark.parametrize(
    ("gaps", "verdict", "wrong"), [([], "pass", 1), ([item(2, "gap", 100.0, 500.0)], "inconclusive", 0)]
)
def test_what_nobody_watched_must_stay_open(gaps: list[Item], verdict: str, wrong: int, tmp_path: Path) -> None:
    streams = ["bastion|ch1|loadbalancer|tcp|4"]
    there = [told(File(journal(tmp_path / "b.db", [window(1), *gaps], streams, alive=END + 10.0)))]
    found = proofs.unwatched(there, named(there, "night"))
    assert (found.verdict, len(found.wrong)) == (verdict, wrong)
