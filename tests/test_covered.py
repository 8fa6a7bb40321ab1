"""Coverage of paths by any source: who was dead is named all the same, and what was never reached is unknown."""

from typing import Any

from exporters.bastion.covered import MOST_LISTED, Seen, coverage, gathered
from exporters.verdict.coverage import Span, Watch

WINDOW = Span(0.0, 100.0)


def found(*streams: Seen, silent: tuple[tuple[str, Watch], ...] = ()) -> dict[str, Any]:
    told = coverage(gathered(streams, silent, WINDOW.begin), WINDOW)
    assert told is not None
    return told


def seen(source: str, target: str = "t", reached: float | None = 0.0, begin: float = 0.0, gaps: Any = ()) -> Seen:
    return Seen(source, (target, "pod"), reached, Watch(begin, WINDOW.end, tuple(Span(*each) for each in gaps)))


def test_a_path_is_whole_by_any_source_and_the_one_that_was_dead_is_named() -> None:
    told = found(seen("a"), seen("b", gaps=[(10, 40)]), seen("b", "u"))
    assert (told["share"], told["enough"], told["missed"], told["misses"]) == (1.0, True, [], 0)  # b saw another one
    told = found(seen("a"), seen("b", gaps=[(10, 40)]), silent=(("c", Watch(0.0, 80.0)),))
    assert (told["share"], told["missed"]) == (1.0, [["b", 30], ["c", 20]])
    assert told["sources"] == 3
    told = found(seen("a"), silent=(("a", Watch(0.0, 50.0)),))  # by another way it is heard
    assert told["missed"] == []


def test_the_worst_path_counts_and_gaps_of_all_who_saw_it_meet() -> None:
    told = found(seen("a", gaps=[(10, 40)]), seen("b", gaps=[(30, 50)]), seen("a", "u"))
    assert (told["share"], told["worst"], told["lacking"], told["paths"]) == (0.9, ["t", "pod"], 1, 2)


def test_a_path_never_reached_is_unknown_and_listed() -> None:
    told = found(seen("a"), *(seen("a", f"u{number:02}", reached=None) for number in range(20)))
    assert (told["share"], told["paths"], told["unknowns"]) == (1.0, 1, 20)
    assert told["unknown"] == [[f"u{number:02}", "pod"] for number in range(MOST_LISTED)]
    told = found(seen("a", reached=None))
    assert (told["share"], told["worst"], told["enough"]) == (None, None, False)
    assert coverage(gathered([], [], 0.0), WINDOW) is None


def test_until_a_path_was_reached_first_nothing_of_it_was_observed() -> None:
    told = found(seen("a", reached=40.0), seen("b", reached=60.0), seen("a", "u", reached=-5.0))
    assert (told["share"], told["worst"], told["lacking"]) == (0.6, ["t", "pod"], 1)
    assert told["missed"] == []  # the sources were there


def test_before_we_knew_of_a_source_it_missed_nothing_though_the_path_was_not_observed() -> None:
    told = found(seen("a", begin=60.0))
    assert (told["share"], told["missed"]) == (0.4, [])
