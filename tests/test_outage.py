"""The twelve rules as timelines; letters and constants are those of `timelines`, times are seconds from point 0."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timelines import (
    DELTA,
    ERROR,
    T,
    Told,
    Verdict,
    closed,
    http,
    late,
    lost_heartbeat,
    no_answer,
    no_handshake,
    refused,
    tcp,
    told,
    up,
)

from exporters.probing.outage import NEVER, Book, Counted, Down, Event, Finished, Late, Opened, Up

R = 0.06


def start(event: Event) -> tuple[float, float]:
    return event.start_earliest, event.start_latest


def end(event: Event) -> tuple[float, float | None]:
    return event.end_earliest, event.end_latest


def lasted(event: Event) -> tuple[float, float, float]:
    return event.lower, event.estimate, event.upper


def about(*numbers: float) -> object:
    return pytest.approx(numbers, abs=1e-9)


# -- nothing to tell


@pytest.mark.parametrize("line", ["......", "..s...", "", "ssss.."])
def test_answers_and_skipped_points_are_no_event(line: str) -> None:
    assert told(http(line)).changes == []
    assert told(tcp(line)).changes == []


@pytest.mark.parametrize("line", ["xxxxxx", "rrrrrr", "ffffff", "xrfxsx"])
def test_a_target_never_reached_has_no_outage(line: str) -> None:
    story = told(http(line))
    assert story.changes == []
    assert not story.book.seen
    assert story.book.open_event(9.0) is None


def test_failures_before_the_first_answer_are_not_counted_after_it() -> None:
    story = told(http("xxx..x.."))
    assert story.kinds == ["blip"]
    assert start(story.only.event) == about(0.4, 0.5 + DELTA)


# -- rules 1 to 7: what one probe proves, and the bounds made of it


def test_an_outage_has_bounds_and_an_estimate() -> None:
    finished = told(http("..xxx..")).only
    event = finished.event
    assert (event.kind, finished.ledger, event.cause, event.grid_points) == ("outage", "path", "connect_timeout", 3)
    assert start(event) == about(0.1, 0.2 + DELTA)
    assert end(event) == about(0.4, 0.501)
    assert lasted(event) == about(0.18, 0.3, 0.401)
    assert not event.unconfirmed


def test_the_connection_kept_sees_the_same_outage_as_new_ones_do() -> None:
    kept, new = told(tcp("..xxx..")).only.event, told(http("..xxx..")).only.event
    assert (start(kept), end(kept), lasted(kept)) == (start(new), end(new), lasted(new))


def test_rule_1_a_good_probe_proves_the_path_up_somewhere_in_its_exchange_only() -> None:
    """The end is no earlier than the reply of the first good probe, the start no later than the start of the last."""
    slow = [up(0.0), up(0.1, e=0.15), no_handshake(0.2, 2), up(0.3, e=0.35), up(0.4)]
    event = told(slow).only.event
    assert start(event) == about(0.1, 0.22)
    assert end(event) == about(0.2, 0.35)


def test_rule_2_the_deadline_moves_detection_and_no_bound() -> None:
    hasty = told([up(0.0), *(Verdict(0.13, v.since, v.evidence) for v in http("sx")), up(0.2)]).only.event
    patient = told([up(0.0), *(Verdict(0.9, v.since, v.evidence) for v in http("sx")), up(0.2)]).only.event
    assert (hasty.detected, patient.detected) == about(0.13, 0.9)
    assert (start(hasty), end(hasty), lasted(hasty)) == (start(patient), end(patient), lasted(patient))


def test_rule_3_an_explicit_error_bounds_the_start_at_its_own_time() -> None:
    assert start(told(http("..rrr..")).only.event) == about(0.1, 0.2 + ERROR)
    assert told(http("..rrr..")).only.event.lower == pytest.approx(0.2 - ERROR)


def test_rule_3_silence_bounds_the_start_at_the_last_write_and_a_round_trip() -> None:
    assert start(told(http("..fff..")).only.event) == about(0.1, 0.2 + 0.001 + DELTA)


def test_rule_4_a_probe_rescued_late_is_no_good_probe_though_it_started_before_the_others() -> None:
    """An answer at 0.35 to the probe of 0.1: the outage begins after the probe of 0.0, the last one that was good."""
    story = told([up(0.0), no_handshake(0.1, 1), no_handshake(0.2, 2), late(0.1, 0.35), up(0.4)])
    assert start(story.only.event) == about(0.0, 0.12)


def test_rule_4_a_late_answer_is_proof_of_life_at_its_end() -> None:
    event = told([*http("..xx"), late(0.2, 0.37, 2), up(0.4)]).only.event
    assert end(event) == about(0.3, 0.37)
    assert lasted(event) == about(0.08, 0.2, 0.27)


@pytest.mark.parametrize(("line", "points"), [("..l..........", 1), ("..ll.........", 2), ("..l.l........", 1)])
def test_rule_4_rescued_probes_count_as_failed_grid_points(line: str, points: int) -> None:
    story = told(http(line))
    assert {finished.event.grid_points for finished in story.finished} == {points}
    assert story.counted("path") == pytest.approx(line.count("l") * T)


def test_rule_5_what_the_stream_keeps_to_itself_leaves_no_trace() -> None:
    """A point without evidence, its heartbeat queued behind a lost one, is neither down nor an end."""
    event = told([*http("..x"), up(0.4, 4)]).only.event
    assert end(event) == about(0.2, 0.401)
    assert event.grid_points == 1


def test_rule_6_the_last_good_probe_is_the_last_whose_reply_came_before_the_first_failure() -> None:
    """The probe of 0.18 started before the failure of 0.2 but was answered after it."""
    overlapping = [up(0.0), up(0.1), up(0.18, 8, e=0.23), no_handshake(0.2, 2), up(0.3), up(0.4)]
    assert start(told(overlapping).only.event) == about(0.1, 0.22)


def test_rule_6_an_answer_to_a_probe_from_before_the_last_failure_is_no_end() -> None:
    overlapping = [up(0.0), up(0.1), up(0.18, 8, e=0.23), no_handshake(0.2, 2), no_handshake(0.3, 3), up(0.4)]
    story = told(overlapping)
    assert end(story.only.event) == about(0.3, 0.401)


def test_rule_6_the_start_is_bounded_by_the_earliest_error_even_of_a_later_probe() -> None:
    mixed = [up(0.1, 1), no_handshake(0.2, 2), refused(0.205, 3, grid=False), up(0.3, 4)]
    assert start(told(mixed).only.event) == about(0.1, 0.207)


@pytest.mark.parametrize(("after", "ends"), [(2 * DELTA - 0.005, 0.401), (2 * DELTA + 0.005, 0.345)])
def test_rule_6_a_late_answer_soon_after_a_failure_may_have_left_before_it(after: float, ends: float) -> None:
    event = told([*http("..xx"), late(0.2, 0.3 + after, 2), up(0.4)]).only.event
    assert end(event) == about(0.3, ends)


def test_rule_7_bounds_are_of_the_intervals_and_lower_is_never_below_zero() -> None:
    event = told(http("..x..")).only.event
    assert event.kind == "blip"
    assert lasted(event) == about(0.0, 0.1, 0.201)
    assert told(http("..xxxxx...")).only.event.lower == pytest.approx(0.4 - DELTA)


# -- rule 8: one outage or two


def test_rule_8_a_good_probe_between_makes_two_outages() -> None:
    first, second = (finished.event for finished in told(http("..xx.xx..")).finished)
    assert end(first) == about(0.3, 0.401)
    assert start(second) == about(0.4, 0.52)
    assert first.number < second.number


def test_rule_8_a_late_answer_between_makes_two_outages_and_the_second_begins_after_the_firsts_last_failure() -> None:
    first, second = (finished.event for finished in told([*http("..xxxxx.."), late(0.2, 0.47, 2)]).finished)
    assert (first.grid_points, second.grid_points) == (3, 2)
    assert end(first) == about(0.4, 0.47)
    assert start(second) == about(0.4, 0.52)


def test_rule_8_a_good_probe_that_overlaps_a_failure_splits_nothing() -> None:
    """Started after the first failure, answered after the second: the path need not have been up in between."""
    assert len(told([*http("..xx.."), up(0.27, 9, e=0.32)]).finished) == 1
    assert len(told([*http("..xx.."), up(0.27, 9, e=0.29)]).finished) == 2


# -- rule 9: a stall of our own (the stream moves the verdicts)


def test_rule_9_a_close_read_after_a_stall_is_no_sharp_start() -> None:
    sharp, vague = (
        told([up(0.0), closed(0.08, sharp=sharp), refused(0.08, 2, grid=False), refused(0.1, 3), up(0.2, 4)]).only.event
        for sharp in (True, False)
    )
    assert sharp.estimate == pytest.approx((0.1 + 0.201) / 2 - 0.08)
    assert vague.estimate == pytest.approx(T)
    assert start(sharp) == start(vague)


def test_rule_9_points_missed_in_a_stall_only_widen_the_bounds() -> None:
    event = told(http("..ssxxss..")).only.event
    assert start(event) == about(0.1, 0.42)
    assert end(event) == about(0.5, 0.801)
    assert lasted(event) == about(0.08, 0.2, 0.701)


# -- rule 10: path, flow and peer


def test_rule_10_the_three_answers_of_the_old_connection() -> None:
    """One heartbeat lost, the next connection works: what it was, only the old connection can tell."""
    silent, rescued, slow = (told(tcp(f"..{what}..")).only for what in "buw")
    assert (silent.event.kind, silent.ledger, silent.event.cause) == ("break", "flow", "stalled")
    assert (rescued.event.kind, rescued.ledger, rescued.event.unconfirmed) == ("blip", "path", True)
    assert (slow.event.kind, slow.ledger, slow.event.cause) == ("frozen", "peer", "peer_frozen")
    assert not silent.event.unconfirmed


def test_rule_10_what_the_other_kernel_acknowledged_was_not_lost() -> None:
    """Nor was the answer, if the peer wrote it just before it came."""
    lost = lost_heartbeat(0.2, 1)
    assert isinstance(lost.evidence, Down)
    arrived = replace(lost, evidence=lost.evidence._replace(arrived=True))
    soon, held_up = (Verdict(0.45, NEVER, Late(0.2, 0.45, 1, way=way)) for way in (0.03, 0.24))
    slow = told([up(0.1), arrived, up(0.35, 2), soon]).only
    assert (slow.event.kind, slow.ledger, slow.event.unconfirmed) == ("frozen", "peer", True)
    assert told([up(0.1), lost, up(0.35, 2), soon]).kinds == ["blip"]  # the request was sent again
    assert told([up(0.1), arrived, up(0.35, 2), held_up]).kinds == ["blip"]  # the answer may have been
    assert told([up(0.1), arrived, up(0.35, 2), late(0.2, 0.45)]).kinds == ["blip"]
    assert told([up(0.1), arrived, up(0.35, 2)]).kinds == ["break"]


def test_rule_10_seconds_counted_for_the_path_are_those_of_an_outage() -> None:
    """A second heartbeat is lost before a fresh connection was tried, and then the peer turns out to have been slow."""
    lost = [lost_heartbeat(0.2, 1), lost_heartbeat(0.3, 2)]
    story = told([up(0.1), *lost, late(0.2, 0.37, 1), late(0.3, 0.375, 2)], latency=0.001)
    assert story.kinds == ["outage"]
    assert story.counted("path") == story.only.event.estimate
    assert story.counted("peer") == 0


def test_rule_10_a_second_retransmission_is_a_break_too() -> None:
    story = told([*tcp("..b....."), late(0.2, 0.2 + 0.61)])
    assert story.kinds == ["break"]


@pytest.mark.parametrize("answered", [0.23, 0.32])
def test_rule_10_old_and_new_connection_answered_together_are_a_frozen_peer(answered: float) -> None:
    """At a time when a retransmission, or none, could explain the old one; but the new one waited for as long."""
    lost = Verdict(0.35, 0.2, lost_heartbeat(0.2, 1).evidence)
    together = [up(0.1), lost, up(0.35, 2, e=0.2 + answered), late(0.2, 0.2002 + answered)]
    assert [(f.event.kind, f.event.unconfirmed) for f in told(together, latency=0.001).finished] == [("frozen", False)]
    ordinary = [up(0.1), lost, up(0.35, 2), late(0.2, 0.2002 + answered)]
    assert told(ordinary, latency=0.001).kinds == ["blip" if answered < 0.3 else "break"]
    assert told(together, latency=0.05).kinds == told(ordinary, latency=0.05).kinds  # no wait for such a path


def test_rule_10_the_stream_is_back_when_the_fresh_connection_answered() -> None:
    event = told(tcp("..b..")).only.event
    assert end(event) == about(0.2, 0.2 + R + 0.001)
    assert event.estimate == pytest.approx(0.261 - 0.15)


def test_rule_10_a_reset_is_a_break_from_the_close_on() -> None:
    finished = told(tcp("..R..")).only
    event = finished.event
    assert (event.kind, finished.ledger, event.cause) == ("break", "flow", "reset")
    assert start(event) == about(0.2, 0.23)
    assert end(event) == about(0.23, 0.231)
    assert event.estimate == pytest.approx(0.001)


def test_rule_10_a_reset_met_by_a_heartbeat_is_a_break() -> None:
    story = told([up(0.0), up(0.1), *tcp("ssr")[:1], up(0.2 + ERROR, 2), up(0.3, 2)])
    assert (story.kinds, story.only.event.cause) == (["break"], "reset")


def test_rule_10_a_close_then_refused_is_an_outage_from_the_close_on() -> None:
    finished = told(tcp("..Krr..")).only
    event = finished.event
    assert (event.kind, finished.ledger) == ("outage", "path")
    assert start(event) == about(0.2, 0.23 + ERROR)
    assert end(event) == about(0.4, 0.501)
    assert event.estimate == pytest.approx(0.4505 - 0.23)  # not 2 T: the close tells the start


def test_rule_10_a_peer_that_thaws_is_frozen_and_not_an_outage() -> None:
    for stream in (http, tcp):
        finished = told(stream("..fff..", thaw=0.47)).only
        event = finished.event
        assert (event.kind, finished.ledger, event.cause) == ("frozen", "peer", "peer_frozen")
        assert end(event) == about(0.4, 0.47)
        assert not event.unconfirmed


def test_rule_10_a_frozen_peer_is_seen_on_one_connection() -> None:
    finished = told(http("..f..", thaw=0.27)).only
    assert (finished.event.kind, finished.ledger) == ("frozen", "peer")
    assert end(finished.event) == about(0.2, 0.27)


def test_rule_10_handshakes_without_answers_and_without_a_thaw_are_an_outage() -> None:
    """A path that carries small packets only."""
    for stream in (http, tcp):
        finished = told(stream("..fff..")).only
        assert (finished.event.kind, finished.ledger, finished.event.cause) == ("outage", "path", "response_timeout")


def test_rule_10_one_connection_still_waiting_means_no_thaw() -> None:
    waiting = [up(0.1, 1), no_answer(0.2, 2), no_answer(0.3, 3), late(0.3, 0.38, 3), up(0.4, 4)]
    assert told(waiting).kinds == ["outage"]
    assert told([*waiting, late(0.2, 0.381, 2)]).kinds == ["frozen"]


def test_rule_10_a_connection_no_longer_watched_is_not_waited_for() -> None:
    book = Book(T)
    for verdict in [up(0.1, 1), no_answer(0.2, 2), no_answer(0.3, 3)]:
        book.add(verdict.evidence, verdict.at, NEVER, DELTA)
    book.forget(2)
    for verdict in [late(0.3, 0.38, 3), up(0.4, 4)]:
        book.add(verdict.evidence, verdict.at, NEVER, DELTA)
    (finished,) = book.advance(5.0, NEVER, DELTA)
    assert isinstance(finished, Finished)
    assert finished.event.kind == "frozen"


def test_rule_10_answers_that_retransmissions_spread_are_no_thaw() -> None:
    spread = [up(0.1, 1), no_answer(0.2, 2), no_answer(0.3, 3), late(0.3, 0.37, 3), late(0.2, 0.82, 2)]
    assert told([*spread, up(0.4, 4)]).kinds == ["outage"]


def test_rule_10_one_handshake_before_connections_fail_is_an_outage() -> None:
    """The path broke between a handshake and its request; a retransmission was answered when it was back."""
    verdicts = [up(0.1, 1), no_answer(0.2, 2), *(no_handshake(k * T, k) for k in range(3, 8)), late(0.2, 0.8, 2)]
    finished = told([*verdicts, up(0.9, 9)]).only
    assert (finished.event.kind, finished.ledger) == ("outage", "path")
    syn_again = told([*verdicts, late(0.3, 0.745, 3), up(0.9, 9)]).only  # which never shook hands, so says nothing
    assert (syn_again.event.kind, syn_again.ledger) == ("outage", "path")


def test_rule_10_a_frozen_peer_whose_queue_is_full_is_still_frozen() -> None:
    """Two connections were let in and answered together, the others got no handshake."""
    verdicts = [up(0.1, 1), no_answer(0.2, 2), no_answer(0.3, 3), no_handshake(0.4, 4), no_handshake(0.5, 5)]
    finished = told([*verdicts, late(0.2, 0.57, 2), late(0.3, 0.571, 3), up(0.6, 6)]).only
    assert (finished.event.kind, finished.ledger) == ("frozen", "peer")


def test_rule_10_no_handshake_first_is_an_outage_though_later_ones_thaw() -> None:
    verdicts = [up(0.1, 1), no_handshake(0.2, 2), no_answer(0.3, 3), no_answer(0.4, 4)]
    assert told([*verdicts, late(0.3, 0.47, 3), late(0.4, 0.471, 4), up(0.5, 5)]).kinds == ["outage"]


# -- rule 11: the estimate


@pytest.mark.parametrize("points", [1, 2, 3, 10])
def test_rule_11_the_estimate_is_the_failed_grid_points(points: int) -> None:
    for stream in (http, tcp):
        story = told(stream(".." + "x" * points + ".."))
        assert story.counted("path") == pytest.approx(points * T)
        assert story.only.event.estimate == pytest.approx(points * T)


def test_rule_11_fresh_connections_off_the_grid_add_nothing_to_the_estimate() -> None:
    extra = [no_handshake(0.23, 21, grid=False), no_handshake(0.26, 22, grid=False)]
    event = told([*http("..xx.."), *extra]).only.event
    assert (event.kind, event.grid_points) == ("outage", 2)
    assert event.estimate == pytest.approx(0.2)


@pytest.mark.parametrize("line", ["..xx", "..rr", "..xssssx", "..rsssrsssr", "..xssssss", "..xfff"])
@pytest.mark.parametrize("extra", [[], [no_handshake(0.23, 21, grid=False), no_handshake(0.29, 22, grid=False)]])
def test_rule_11_of_an_open_outage_no_less_is_counted_than_its_lower_bound(line: str, extra: list[Verdict]) -> None:
    story = told([*http(line), *extra])
    so_far = story.book.open_event(1.5)
    assert so_far is not None
    assert so_far.kind == "outage"
    assert so_far.lower - 1e-9 <= story.counted("path") <= so_far.estimate
    ended = told([*http(line), *extra, up(1.6)])
    assert story.counted("path") <= ended.counted("path") == pytest.approx(ended.only.event.estimate)


def test_rule_11_the_ordinary_latency_is_left_out() -> None:
    assert told(http("..xxx.."), latency=0.03).only.event.estimate == pytest.approx(0.27)


def test_rule_11_a_thaw_is_the_end() -> None:
    event = told(http("..fff..", thaw=0.43)).only.event
    assert event.estimate == pytest.approx(0.43 - 0.15)


def test_rule_11_a_thaw_after_the_first_proof_of_life_is_not_the_end() -> None:
    event = told(http("..fff....", thaw=0.75)).only.event
    assert event.kind == "frozen"
    assert event.estimate == pytest.approx(3 * T)


def test_rule_11_one_late_answer_is_the_end_of_a_freeze_and_of_nothing_else() -> None:
    frozen = told(http("..f..", thaw=0.27)).only.event
    assert frozen.kind == "frozen"
    assert frozen.estimate == pytest.approx(0.27 - 0.15)
    rescued = told([*http("..x"), late(0.2, 0.27, 2), up(0.3)]).only.event
    assert rescued.kind == "blip"
    assert rescued.estimate == pytest.approx(T)


def test_rule_11_two_late_answers_on_one_connection_are_no_thaw() -> None:
    event = told([*http("..x"), late(0.2, 0.27, 2), late(0.23, 0.2701, 2), up(0.3)]).only.event
    assert event.estimate == pytest.approx(T)


def test_rule_11_the_estimate_stays_within_the_bounds() -> None:
    """A point served late, and a path whose latency is T."""
    hurried = told([up(0.05), no_handshake(0.1, 2), up(0.13, 3)]).only.event
    assert hurried.estimate == hurried.upper == pytest.approx(0.081)
    far = [up(0.0), *(no_handshake(s, n) for n, s in enumerate([0.1, 0.2, 0.34])), up(0.4, 4)]
    event = told(far, latency=T).only.event
    assert event.estimate == event.lower == pytest.approx(0.34 - 0.12)


def test_rule_11_skipped_points_take_the_middles() -> None:
    event = told(http("..xsx..")).only.event
    assert event.grid_points == 2
    assert event.estimate == pytest.approx((0.4 + 0.501) / 2 - 0.15)


# -- rule 12: the order of times


TCP_PIECES = ("..", "b.", "u.", "w.", "R", "K.", "Kr.", "xx.", "rx.", "fff.", "s")
TIMELINES = st.one_of(
    st.text(".xrfls", max_size=25).map(lambda line: http("." + line + "...", thaw=2.7)),
    st.text(".xrfls", max_size=25).map(lambda line: http("." + line + "...")),
    st.lists(st.sampled_from(TCP_PIECES), max_size=9).map(lambda pieces: tcp("." + "".join(pieces) + "...", thaw=1.23)),
)


@given(TIMELINES, st.sampled_from([0.05, 0.2, 1.0]), st.integers(0, 2**32))
def test_rule_12_the_order_of_decisions_changes_nothing(verdicts: list[Verdict], most: float, seed: int) -> None:
    """The same evidence, each probe decided up to so many seconds later than it was."""
    dice = random.Random(seed)
    delayed = [v if v.since == NEVER else Verdict(v.at + most * dice.random(), v.since, v.evidence) for v in verdicts]
    in_order, out_of_order = (
        sorted((start(f.event), end(f.event), lasted(f.event), f.event.kind, f.ledger) for f in told(each).finished)
        for each in (verdicts, delayed)
    )
    assert in_order == out_of_order


def test_rule_12_what_comes_after_an_event_settled_is_too_late_though_nobody_looked_in_between() -> None:
    assert told(http(".f....", thaw=0.15)).kinds == ["frozen"]
    assert told(http(".f....", thaw=1.5)).kinds == ["blip"]


def test_rule_12_evidence_waits_for_the_oldest_undecided_probe() -> None:
    book = Book(T)
    book.add(up(0.0).evidence, 0.001, NEVER, DELTA)
    assert book.add(refused(0.2, 2).evidence, 0.202, 0.1, DELTA) == []  # the probe of 0.1 may still be good
    assert not book.failing
    (opened,) = book.add(up(0.1, e=0.15).evidence, 0.21, NEVER, DELTA)
    assert isinstance(opened, Opened)
    event = book.open_event(0.3)
    assert event is not None
    assert event.start_earliest == 0.1


# -- counted seconds, and the open event


def test_seconds_are_counted_when_the_next_point_is_down_too() -> None:
    story = told(http("..xxx"), until=0.5)
    assert [c for c in story.changes if isinstance(c, Counted)] == [Counted("path", T), Counted("path", T)]
    assert story.finished == []


def test_seconds_go_to_the_book_of_their_point_and_the_rest_to_the_book_of_the_event() -> None:
    story = told([*http("..ff"), *http("ssssxx"), up(0.6, 6)])
    assert story.kinds == ["outage"]
    assert (story.counted("peer"), story.counted("path")) == about(2 * T, 2 * T)


def test_an_open_outage_says_what_is_known() -> None:
    story = told(http("..xxx"), until=0.5)
    event = story.book.open_event(0.6)
    assert event is not None
    assert (event.kind, event.end_latest, event.grid_points, event.cause) == ("outage", None, 3, "connect_timeout")
    assert start(event) == about(0.1, 0.22)
    assert lasted(event) == about(0.18, 0.45, 0.5)
    assert story.book.failing
    assert not story.book.idle


@pytest.mark.parametrize(
    ("verdicts", "kind"),
    [
        (http("..ff"), "frozen"),
        (tcp("..ff"), "frozen"),
        (tcp("..x"), "outage"),
        (tcp("..Kr"), "outage"),
        (tcp("..x")[:3], "break"),
        (tcp("..R")[:4], "break"),
        (http("..fxx"), "outage"),
        (http("..ffx"), "frozen"),
    ],
)
def test_an_open_event_has_the_kind_it_looks_like(verdicts: list[Verdict], kind: str) -> None:
    event = told(verdicts, until=verdicts[-1].at).book.open_event(verdicts[-1].at)
    assert event is not None
    assert event.kind == kind


def test_a_frozen_peer_that_is_gone_by_now_is_an_outage() -> None:
    """It froze, and then its node was switched off: nobody is left who could be answered."""
    book = Book(T)
    for verdict in [up(0.1, 1), no_answer(0.2, 2), no_answer(0.3, 3), refused(0.4, 4)]:
        book.add(verdict.evidence, verdict.at, NEVER, DELTA)
    assert kind_now(book) == "frozen"
    book.forget(2)
    assert kind_now(book) == "frozen"  # the other one may yet be answered
    book.forget(3)
    for verdict in [refused(0.5, 5), refused(0.55, 55), no_answer(0.6, 6), no_answer(0.7, 7)]:
        book.add(verdict.evidence, verdict.at, NEVER, DELTA)
        assert (kind_now(book) == "outage") == (verdict.at > 0.55)  # one alone may be another's doing
    for verdict in [late(0.6, 0.78, 6), late(0.7, 0.781, 7), up(0.8, 8)]:  # of its successor, which was slow to begin
        book.add(verdict.evidence, verdict.at, NEVER, DELTA)
    (finished,) = book.advance(5.0, NEVER, DELTA)
    assert isinstance(finished, Finished)
    assert (finished.event.kind, finished.ledger, finished.event.cause) == ("outage", "path", "response_timeout")
    assert end(finished.event) == about(0.7, 0.78)


def test_connections_that_were_left_half_answered_are_an_outage() -> None:
    """As with a smaller MTU on the way: they are made, small packets come, and bigger ones never do."""
    book = Book(T)
    for verdict in [up(0.1, 1), *(no_answer(k * T, k) for k in range(2, 6))]:
        book.add(verdict.evidence, verdict.at, NEVER, DELTA)
    book.forget(9, cut=True)  # what answered long ago was not silent
    book.forget(2)
    assert kind_now(book) == "frozen"
    book.forget(3, cut=True)
    assert (kind_now(book), book.cut) == ("frozen", False)  # one alone may have been stopped between two packets
    book.forget(4, cut=True)
    assert (kind_now(book), book.cut) == ("outage", True)
    book.add(no_handshake(0.55, 55).evidence, 0.59, NEVER, DELTA)
    assert (kind_now(book), book.cut) == ("outage", False)  # it is not only the bigger ones
    book.add(up(0.6, 6).evidence, 0.601, NEVER, DELTA)
    (finished,) = book.advance(5.0, NEVER, DELTA)
    assert isinstance(finished, Finished)
    assert (finished.event.kind, finished.ledger, finished.event.cause) == ("outage", "path", "response_timeout")


def kind_now(book: Book) -> str:
    event = book.open_event(1.0)
    assert event is not None
    return event.kind


def test_an_ended_event_is_not_open_though_its_kind_is_not_known_yet() -> None:
    story = told(tcp("..b.")[:4], until=0.27)
    assert story.book.open_event(0.27) is None
    assert story.finished == []
    assert 0.27 < story.book.wake() <= 0.2 + 0.31
    (finished,) = story.book.advance(story.book.wake(), NEVER, DELTA)
    assert isinstance(finished, Finished)
    assert story.book.idle


def check_open(story: Told, now: float) -> None:
    """What must hold of an open event, and of the seconds counted for it so far."""
    event = story.book.open_event(now)
    if event is None:
        return
    assert event.end_latest is None
    assert 0 <= event.lower <= event.estimate <= event.upper
    opened = max(index for index, change in enumerate(story.changes) if isinstance(change, Opened))
    counted = [change.seconds for change in story.changes[opened:] if isinstance(change, Counted)]
    assert sum(counted) <= event.estimate + 1e-9


@given(TIMELINES, st.sampled_from([0.0, 0.001, 0.05, 0.3]))
def test_whatever_happens_bounds_are_bounds_and_counted_seconds_add_up(verdicts: list[Verdict], latency: float) -> None:
    story = told(verdicts, latency=latency, watch=check_open)
    events = [finished.event for finished in story.finished]
    for event in events:
        assert event.end_latest is not None
        assert event.start_earliest <= event.start_latest
        assert event.end_earliest <= event.end_latest
        assert event.start_earliest <= event.end_earliest
        assert event.start_latest <= event.end_latest
        assert 0 <= event.lower <= event.estimate <= event.upper
    for before, after in pairwise(sorted(events, key=lambda event: event.number)):
        assert before.end_latest is not None
        assert before.end_earliest <= after.start_earliest
        assert before.end_latest <= after.start_latest
    seconds = [c.seconds for c in story.changes if isinstance(c, Counted | Finished)]
    assert min(seconds, default=0.0) >= 0.0
    assert sum(seconds) == pytest.approx(sum(event.estimate for event in events))


def test_one_reset_after_the_other_is_one_break_after_the_other() -> None:
    story = told(tcp("..R.R.R.."))
    assert story.kinds == ["break", "break", "break"]
    assert story.counted("path") == 0.0


def test_several_events_settle_each_by_its_own_evidence() -> None:
    story = told(tcp("..b....u....w....xxx..K..R.."))
    assert story.kinds == ["break", "blip", "frozen", "outage", "blip", "break"]
    assert [finished.ledger for finished in story.finished] == ["flow", "path", "peer", "path", "path", "flow"]


def test_causes_mix_and_the_most_frequent_names_the_outage() -> None:
    event = told(http("..rxxf..")).only.event
    assert event.causes == {"refused": 1, "connect_timeout": 2, "response_timeout": 1}
    assert event.cause == "connect_timeout"


def test_a_target_that_somebody_reached_before_is_out_when_its_first_probe_fails() -> None:
    book = Book(T, good=-5.0)
    lost = [no_handshake(0.1, 1), no_handshake(0.2, 2)]
    assert book.add(lost[1].evidence, lost[1].at, 0.1, DELTA) == []  # the one before is not decided yet
    assert not book.seen
    changes = book.add(lost[0].evidence, lost[0].at, NEVER, DELTA)
    assert [type(change) for change in changes] == [Opened, Counted]
    assert book.seen
    going_on = book.open_event(0.25)
    assert going_on is not None
    assert going_on.estimate == pytest.approx(0.25 - 0.1 + T / 2)
    book.add(up(0.3, 3).evidence, 0.31, NEVER, DELTA)
    (finished,) = book.advance(2.0, NEVER, DELTA)
    assert isinstance(finished, Finished)
    assert finished.event.kind == "outage"
    assert finished.event.start_earliest == -5.0
    assert finished.event.start == pytest.approx(0.1 - T / 2)
    assert finished.event.estimate == pytest.approx(2 * T)  # of what was watched


def test_a_heartbeat_lost_is_judged_when_its_connection_could_have_been_rescued() -> None:
    """Not before: until then it may still turn out to be a blip."""
    story = told([up(0.1), lost_heartbeat(0.2, 1), up(0.26, 2)], until=0.45)
    assert story.finished == []
    assert told([up(0.1), lost_heartbeat(0.2, 1), up(0.26, 2)], until=0.51).kinds == ["break"]


@pytest.mark.parametrize(("resent", "kind"), [(False, "frozen"), (True, "blip")])
def test_a_lone_probe_that_shook_hands_was_frozen_out_only_if_nothing_was_sent_again(resent: bool, kind: str) -> None:
    """Else the path broke between the handshake and the request."""
    book = Book(0.5)
    book.add(Up(0.0, 0.001, 1), 0.001, NEVER, 0.02)
    book.add(Down(0.5, 0.52, "peer", "response_timeout", True, 2), 0.65, NEVER, 0.02)
    changes = book.add(Late(0.5, 0.91, 2, resent), 0.91, NEVER, 0.02)
    changes += book.advance(2.0, NEVER, 0.02)
    assert [change.event.kind for change in changes if isinstance(change, Finished)] == [kind]
