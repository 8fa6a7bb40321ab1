"""The judge of a calibration, on injections and events made by hand; truth is [10, 10.01] to [11, 11.01]."""

import random
from typing import Any

import pytest

from exporters.calibrate.injection import Bracket, Expectation, Injection
from exporters.calibrate.judge import Table, judge
from exporters.calibrate.plan import any_of, log_uniform, plan

STREAM = "a|b|pod|tcp|4"


def injection(expectation: Expectation = "path", *, at: float = 10.0, family: int | None = None) -> Injection:
    return Injection("fault", Bracket(at, at + 0.01), Bracket(at + 1, at + 1.01), expectation, "lane", family)


def event(
    kind: str = "outage",
    start: tuple[float, float] = (9.95, 10.05),
    end: tuple[float, float | None] = (10.9, 11.1),
    bounds: tuple[float, float | None] = (0.85, 1.15),
    *,
    estimate: float = 1.0,
    detected: float = 10.2,
    unconfirmed: bool = False,
    stream: str = STREAM,
    probes: int = 3,
) -> dict[str, Any]:
    mono = {"start_earliest": start[0], "start_latest": start[1], "end_earliest": end[0], "end_latest": end[1]}
    return {
        "kind": kind,
        "stream": stream,
        "unconfirmed": unconfirmed,
        "causes": {"response_timeout": probes},
        "mono": mono | {"detected": detected},
        "duration": {"lower": bounds[0], "upper": bounds[1], "estimate": estimate},
    }


def verdict(expectation: Expectation, *events: dict[str, Any]) -> Table:
    return judge([injection(expectation)], events, [STREAM])


def test_a_right_event_is_seen_and_held() -> None:
    table = verdict("path", event())
    (cell,) = table.cells().values()
    assert (cell.n, cell.seen, cell.held, cell.edges, cell.split, table.false) == (1, 1, 1, 1, 0, ())
    assert cell.width == pytest.approx((0.3, 0.3))
    assert cell.delay == pytest.approx((0.2, 0.2))


def test_what_no_stream_saw_counts() -> None:
    table = judge([injection()], [], [STREAM, "a|b|pod|ws|4"])
    assert [(cell.n, cell.seen, cell.width) for cell in table.cells().values()] == [(1, 0, None), (1, 0, None)]


@pytest.mark.parametrize(
    ("bounds", "held"),
    # The truth lasted between 0.99 and 1.01 s.
    [((1.005, 1.5), True), ((1.02, 1.5), False), ((0.5, 0.995), True), ((0.5, 0.98), False)],
)
def test_bounds_hold_when_compatible_with_the_brackets(bounds: tuple[float, float], held: bool) -> None:
    (row,) = verdict("path", event(bounds=bounds)).rows
    assert row.held is held


@pytest.mark.parametrize(
    ("start", "end", "edges"),
    [
        ((9.0, 10.0), (11.01, 12.0), True),
        ((9.0, 9.9), (10.9, 11.1), False),
        ((10.02, 10.05), (10.9, 11.1), False),
        ((9.9, 10.1), (11.02, 11.1), False),
        ((9.9, 10.1), (10.9, 10.99), False),
    ],
)
def test_edges_hold_when_both_meet_theirs(start: tuple[float, float], end: tuple[float, float], edges: bool) -> None:
    (row,) = verdict("path", event(start=start, end=end)).rows
    assert row.edges is edges


def test_a_split_is_seen_and_not_held() -> None:
    table = verdict("path", event(end=(10.4, 10.5)), event(start=(10.6, 10.7)))
    (cell,) = table.cells().values()
    assert (cell.seen, cell.held, cell.split, table.false) == (1, 0, 1, ())


def test_an_open_event_is_seen_and_not_held() -> None:
    (row,) = verdict("path", event(end=(10.9, None), bounds=(0.85, None))).rows
    assert (row.seen, row.held) == (True, False)


@pytest.mark.parametrize(("probes", "false"), [(1, 0), (2, 1)])
def test_one_exchange_that_was_cut_may_look_like_a_frozen_peer(probes: int, false: int) -> None:
    assert len(verdict("path", event("frozen", probes=probes)).false) == false
    assert len(verdict("break", event("frozen", probes=probes)).false) == 1


@pytest.mark.parametrize(
    ("expectation", "kind", "unconfirmed", "what"),
    [
        ("path", "outage", False, "seen"),
        ("path", "blip", False, "seen"),
        ("path", "blip", True, "seen"),
        ("path", "break", False, "beside"),
        ("path", "frozen", False, "false"),
        ("frozen", "frozen", False, "seen"),
        ("frozen", "break", False, "beside"),
        ("frozen", "blip", True, "beside"),
        ("frozen", "blip", False, "false"),
        ("frozen", "outage", False, "false"),
        ("break", "break", False, "seen"),
        ("break", "blip", True, "beside"),
        ("break", "outage", False, "false"),
        ("break", "frozen", False, "false"),
        ("break", "gap", False, "nothing"),
    ],
)
def test_each_kind_has_its_place(expectation: Expectation, kind: str, unconfirmed: bool, what: str) -> None:
    table = verdict(expectation, event(kind, unconfirmed=unconfirmed))
    (row,) = table.rows
    assert (row.seen, bool(row.beside), bool(table.false)) == (what == "seen", what == "beside", what == "false")


def test_of_a_break_only_the_start_is_judged() -> None:
    (late_end,) = verdict("break", event("break", end=(12.0, 12.1), bounds=(2.0, 2.2))).rows
    assert (late_end.held, late_end.edges) == (True, True)
    (late_start,) = verdict("break", event("break", start=(10.5, 10.6))).rows
    assert not late_start.held


def test_an_event_that_overlaps_nothing_is_false() -> None:
    assert len(verdict("path", event(start=(12.0, 12.1), end=(12.5, 12.6))).false) == 1


def test_where_nothing_is_known_nothing_is_false() -> None:
    voids = [Bracket(9.0, 12.0)]
    table = judge([], [event()], [STREAM], voids)
    assert (table.rows, table.false, len(table.excused)) == ((), (), 1)
    table = judge([injection("frozen")], [event("outage"), event(start=(20, 20), end=(21, 21))], [STREAM], voids)
    assert (len(table.rows), len(table.false), len(table.excused)) == (1, 1, 1)


def test_an_event_belongs_to_the_injection_it_overlaps_most() -> None:
    table = judge([injection(at=10), injection(at=11.5)], [event(start=(10.9, 11.4), end=(12.4, 12.6))], [STREAM])
    assert [row.seen for row in table.rows] == [False, True]


def test_a_truth_of_one_family_is_for_its_streams_alone() -> None:
    six = "a|b|pod|tcp|6"
    table = judge([injection(family=4), injection(at=10.1, family=6)], [event(), event(stream=six)], [STREAM, six])
    assert [(row.stream, row.injection.family, row.seen) for row in table.rows] == [(STREAM, 4, True), (six, 6, True)]


def test_tables_add_up() -> None:
    both = verdict("path", event()) + verdict("path", event("frozen"))
    (cell,) = both.cells().values()
    assert (cell.n, cell.seen, cell.wrong, len(both.false)) == (2, 1, 1, 1)


def test_the_error_of_a_duration_nobody_saw_is_all_of_it() -> None:
    both = verdict("path", event(estimate=1.2)) + verdict("path")
    assert [row.error for row in both.rows] == pytest.approx([0.2, -1.0])
    (cell,) = both.cells().values()
    assert cell.bias == pytest.approx((-0.4, 0.6))
    assert cell.error == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize(
    ("void", "known"),
    [((9, 10), False), ((10.5, 10.6), True), ((10.5, 11.0), False), ((11.5, 12), False), ((12.1, 13), True)],
)
def test_what_happened_at_an_edge_or_soon_after_makes_the_truth_unknown(void: tuple[float, float], known: bool) -> None:
    (row,) = judge([injection()], [event()], [STREAM], [Bracket(*void)]).rows
    assert row.known is known


def test_a_blurred_edge_makes_the_truth_unknown() -> None:
    blurred = Injection("fault", Bracket(10, 10.06), Bracket(11, 11), "path")
    assert [row.known for row in judge([blurred], [event()], [STREAM]).rows] == [False]


def test_what_is_not_known_is_counted_and_no_more() -> None:
    table = judge([injection()], [event()], [STREAM], [Bracket(9, 10)])
    (cell,) = table.cells().values()
    assert (cell.n, cell.known, cell.seen, cell.width) == (1, 0, 0, None)


@pytest.mark.parametrize(
    ("stalls", "watched"),
    [([], 0.99), ([(9.0, 10.1)], 0.9), ([(10.2, 10.3), (10.9, 10.95)], 0.6), ([(9.0, 12.0)], 0.0), ([(8, 9)], 0.99)],
)
def test_only_time_without_a_stall_was_watched(stalls: list[tuple[float, float]], watched: float) -> None:
    (row,) = judge([injection()], [], [STREAM], stalls=[Bracket(*each) for each in stalls]).rows
    assert max(0.0, row.watched) == pytest.approx(watched)


def test_a_plan_repeats_each_kind_in_an_order_of_its_seed() -> None:
    steps = plan(["x", "y"], 5, any_of(0.1, 1.0), seed=7)
    assert sorted(step.kind for step in steps) == ["x"] * 5 + ["y"] * 5
    assert steps == plan(["x", "y"], 5, any_of(0.1, 1.0), seed=7) != plan(["x", "y"], 5, any_of(0.1, 1.0), seed=8)
    assert {step.seconds for step in steps} <= {0.1, 1.0}
    assert all(0.05 <= log_uniform(0.05, 3.0)(random.Random(seed)) <= 3.0 for seed in range(50))
