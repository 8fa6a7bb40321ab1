"""The page's state: what changed is told and nothing else, outages cost what they cost, and unknown is no health."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters import times
from exporters.bastion import state
from exporters.verdict.coverage import union

values = st.integers(0, 3)
sections = st.dictionaries(st.sampled_from("abcd"), values)
states = st.fixed_dictionaries(dict.fromkeys(state.SECTIONS, sections))


def applied(before: state.State, change: dict[str, Any] | None) -> state.State:
    """As the page does it."""
    after = {section: dict(known) for section, known in before.items()}
    for section, known in (change or {"set": {}})["set"].items():
        after[section].update(known)
    for section, keys in (change or {"gone": {}})["gone"].items():
        for key in keys:
            del after[section][key]
    return after


@given(states, states)
def test_a_difference_makes_one_state_of_the_other(before: state.State, after: state.State) -> None:
    change = state.diff(before, after)
    assert applied(before, change) == after
    assert (change is None) == (before == after)


@given(states)
def test_pieces_make_the_whole(whole: state.State) -> None:
    found: state.State = state.empty()
    for piece in state.pieces(whole, at_a_time=2):
        assert sum(map(len, piece["set"].values())) <= 2
        found = applied(found, piece)
    assert found == whole


@pytest.mark.parametrize(
    ("ours", "theirs", "unheard", "level", "text"),
    [
        ({"up": 4}, {"up": 6}, [], "up", "All 10 streams up"),
        ({"up": 1}, {}, [], "up", "The one stream is up"),
        ({"up": 3, "down": 2}, {"frozen": 1, "unknown": 4}, [], "down", "2 of 10 streams down, 1 frozen"),
        ({"up": 3, "unknown": 1}, {}, [], "unknown", "3 of 4 streams up, 1 not known"),
        ({"up": 3}, {}, ["a"], "unknown", "3 up, 1 peer not heard"),
        ({"up": 3, "down": 1}, {}, ["a", "b"], "down", "1 of 4 streams down, 2 peers not heard"),
        ({"unknown": 4}, {"unknown": 2}, ["a"], "none", "Not observing"),
        ({}, {}, [], "none", "Not observing"),
    ],
)
def test_the_verdict(ours: dict[str, int], theirs: dict[str, int], unheard: list[str], level: str, text: str) -> None:
    found = state.verdict(Counter(ours), Counter(theirs), unheard)
    assert (found["level"], found["text"]) == (level, text)


def an_event(
    start: float, end: float | None, kind: str = "outage", name: str = "a", slack: float = 0.0
) -> dict[str, Any]:
    return {
        "kind": kind,
        "stream": ["here", name, "service", "tcp", "4"],
        "start": [start - slack, start + slack],
        "begin": start,
        "end": None if end is None else [end - slack, end + slack],
        "length": None if end is None else [end - start - 2 * slack, end - start, end - start + 2 * slack],
    }


def test_outages_at_one_time_cost_once_and_bounds_are_kept() -> None:
    events = [an_event(10, 20, slack=1), an_event(15, 22, name="b", slack=1), an_event(15, 16, kind="break")]
    found = state.summary(events, state.Period(0, "x", 30.0), 100)
    assert found["spent"] == [10.0, 12.0, 14.0]
    assert found["counts"] == {"outage": 2, "break": 1}
    assert found["worst"] == [["here", "a", "service", "tcp", "4"], 10.0]
    assert found["budget"] == 30.0


def test_what_is_open_costs_until_now_and_what_was_before_costs_nothing() -> None:
    events = [an_event(1, 5), an_event(8, 12), an_event(90, None)]
    assert state.summary(events, state.Period(10, "x"), 100)["spent"] == [12.0, 12.0, 12.0]


def test_an_outage_that_a_restart_hid_the_beginning_of_is_where_it_is_likely_to_be() -> None:
    item = an_item(start={"earliest": times.iso(400.0), "latest": times.iso(1000.1)})
    item["duration"]["upper"] = 602.1
    found = state.event(item)
    assert found["begin"] == 1000.0
    assert state.summary([found], state.Period(0, "x"), 2000)["spent"] == [1.8, 2.0, 602.1]
    assert state.summary([found], state.Period(900, "x"), 2000)["spent"] == [1.8, 2.0, 102.1]


@pytest.mark.parametrize(("at", "begin"), [(800.0, 999.9), (1200.0, 1000.1)])
def test_an_event_begins_within_its_bounds_whatever_a_peer_says(at: float, begin: float) -> None:
    assert state.event(an_item(start_time=times.iso(at)))["begin"] == begin


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: (min(pair), max(pair)))))
def test_a_union_is_what_any_of_them_covers(spans: list[tuple[int, int]]) -> None:
    covered = sum(any(begin < second + 0.5 < end for begin, end in spans) for second in range(20))
    assert union(spans) == covered


def a_mark(kind: str, start: float, end: float | None = None) -> dict[str, Any]:
    return {"kind": kind, "start": start, "end": end, "text": "night", "budget": 9.0}


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([], (500.0, "the start", None)),
        ([a_mark("cleared", 700)], (700, "the clearing", None)),
        ([a_mark("cleared", 300)], (500, "the start", None)),
        ([a_mark("window", 800), a_mark("cleared", 900)], (800, "night", 9.0)),
        ([a_mark("window", 800, 850), a_mark("note", 900)], (500, "the start", None)),
    ],
)
def test_a_summary_is_about_the_open_window_else_since_the_clearing(
    marks: list[dict[str, Any]], expected: tuple[float, str, float | None]
) -> None:
    assert state.period(marks, 500.0, 1000.0) == state.Period(*expected)


def test_without_a_window_an_hour_is_the_longest() -> None:
    assert state.period([], 0.0, 7259.0) == state.Period(3600.0, "the last hour")


def test_a_window_that_is_over_cost_what_was_in_it() -> None:
    marks = {"w": a_mark("window", 10, 20), "open": a_mark("window", 30), "n": a_mark("note", 12)}
    events = [an_event(5, 12), an_event(18, 25), an_event(19, None), an_event(40, 50)]
    found = state.windows(marks, events, 100.0)
    assert found.keys() == {"w"}
    assert found["w"]["spent"] == [4.0, 4.0, 4.0]
    assert found["w"]["counts"] == {"outage": 3}
    assert found["w"]["worst"] == [["here", "a", "service", "tcp", "4"], 5.0]


def an_item(**more: Any) -> dict[str, Any]:
    plain = {
        "kind": "outage",
        "state": "closed",
        "stream": "here|a|service|tcp|4",
        "name": "a",
        "source": "bastion",
        "start_time": times.iso(1000.0),
        "end_time": times.iso(1002.0),
        "duration_sec": 2.0,
        "start": {"earliest": times.iso(999.9), "latest": times.iso(1000.1)},
        "end": {"earliest": times.iso(1001.9), "latest": times.iso(1002.1)},
        "duration": {"lower": 1.8, "estimate": 2.0, "upper": 2.2},
        "cause": "refused",
        "causes": {"refused": 20},
        "before": {"source": "a", "node": "node-a", "instance": "0123456789abcdef"},
        "after": {},
        "unconfirmed": False,
        "stall_overlap": False,
    }
    return {**plain, **more}


def test_an_event_has_unix_times_of_our_clock() -> None:
    found = state.event(an_item(), offset=100.0)
    assert found["start"] == [899.9, 900.1]
    assert found["end"] == [901.9, 902.1]
    assert found["length"] == [1.8, 2.0, 2.2]
    assert found["before"] == "a on node-a (01234567)"


def test_a_kind_that_nobody_knows_is_another() -> None:
    assert state.event(an_item(kind="stale tip"))["kind"] == "other"


def test_what_is_open_has_no_end_and_no_length_yet() -> None:
    found = state.event(an_item(state="open", end_time=None, end={"earliest": None, "latest": None}))
    assert (found["end"], found["length"]) == (None, None)


@pytest.mark.parametrize("text", ["0000-00-00T00:00:00+00:00", "::::::::::::::::::::::", "9999-99-99T99:99:99.9+99:99"])
def test_nonsense_of_a_peers_edges_is_passed_over(text: str) -> None:
    edge = {"earliest": text, "latest": None}
    found = state.event(an_item(start=edge, end=edge, stream="<b>|" * 9))
    assert found["start"] == [1000.0, 1000.0]
    assert found["end"] == [1002.0, 1002.0]
    assert found["stream"] is None


def a_finding(target: str, text: str, sure: str = "likely") -> dict[str, Any]:
    return {"key": "k", "sure": sure, "target": target, "source": "", "since": None, "text": f"{target}: {text}"}


def test_what_several_have_in_common_is_said_once() -> None:
    found = state.findings(
        [a_finding("n10", "x"), a_finding("n9", "x"), a_finding("n1", "y"), a_finding("n2", "x", "no")]
    )
    assert [(each["likely"], each["text"]) for each in found] == [
        (True, "n9, n10: x"),
        (True, "n1: y"),
        (False, "n2: x"),
    ]
    many = state.findings([a_finding(f"n{number}", "x") for number in range(12)], most=2)
    assert many == [{"likely": True, "text": "n0, n1 and 10 more: x"}]


@given(st.lists(st.text()))
def test_any_names_have_an_order(names: list[str]) -> None:
    assert sorted(sorted(names, key=state.natural)) == sorted(names)


def test_of_too_many_events_what_is_open_and_what_ended_last_is_kept() -> None:
    events = {str(number): an_event(number, number + 1) for number in range(10)} | {"open": an_event(0, None)}
    assert set(state.newest(events, 3)) == {"open", "9", "8"}


@pytest.mark.parametrize(
    ("kind", "cause", "before", "after"),
    [("target_change", "address", "192.0.2.1", "192.0.2.2"), ("outage", "reset", "a (0123abcd)", "a (4567cdef)")],
)
def test_a_changed_address_shows_the_addresses_and_an_outage_who_answered(
    kind: str, cause: str, before: str, after: str
) -> None:
    edge = {"earliest": None, "latest": None}
    found = state.event(
        {
            "kind": kind,
            "state": "closed",
            "stream": "a|b|egress|tcp|4",
            "name": "b",
            "source": "pod",
            "start_time": "2026-01-02T03:04:05+00:00",
            "end_time": None,
            "duration_sec": 0.0,
            "start": edge,
            "end": edge,
            "duration": {"lower": 0.0, "estimate": 0.0, "upper": 0.0},
            "cause": cause,
            "causes": {},
            "before": {"source": "a", "instance": "0123abcdef", "address": "192.0.2.1"},
            "after": {"source": "a", "instance": "4567cdef00", "address": "192.0.2.2"},
            "unconfirmed": False,
            "stall_overlap": False,
        }
    )
    assert (found["before"], found["after"]) == (before, after)
