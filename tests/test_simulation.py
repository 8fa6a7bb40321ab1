"""What the rules make of simulated faults, against a truth that is known exactly.

Examples are the same at every run. OVNWATCH_SIMULATIONS=20000 tries as many of each, other ones every time.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulation import Fault, Kind, Prober, Protocol, Setting, finished, seconds, sequence, simulate

from exporters.probing.outage import Event

SOAK = int(os.environ.get("OVNWATCH_SIMULATIONS", "0"))
EXAMPLES = settings(
    max_examples=SOAK or 120, derandomize=not SOAK, database=None, phases=[Phase.explicit, Phase.generate, Phase.shrink]
)
SLOT = 0.005  # a probe starts, and is judged, this much later at the most

PATH_KINDS: tuple[Kind, ...] = ("drop", "drop_request", "drop_reply", "refuse", "kill")
PEER_KINDS: tuple[Kind, ...] = ("frozen",)
RATES = ((0.1, 0.06), (0.5, 0.15), (1.0, 0.15))  # T, R


@st.composite
def settings_of(draw: st.DrawFn, *protocols: Protocol) -> Setting:
    """A stream whose ordinary answers take less than 0.7 R (a ws connection's first: six latencies, two answers)."""
    interval, prompt = draw(st.sampled_from(RATES))
    return Setting(
        protocol=draw(st.sampled_from(protocols or ("http", "tcp", "ws"))),
        interval=interval,
        prompt=prompt,
        phase=draw(st.floats(0, interval)),
        latency=draw(st.floats(0.0001, prompt / 14)),
        answer=draw(st.floats(0.0001, prompt / 8)),
    )


LENGTHS = st.one_of(st.floats(0.02, 0.4), st.floats(0.02, 10.0))
BEGINS = st.floats(3.0, 4.0)
PAUSES = st.floats(0.01, 2.0)


def holds(event: Event, begin: float, end: float) -> bool:
    """Is the truth within the bounds, and the estimate too?"""
    assert event.end_latest is not None
    starts = event.start_earliest <= begin <= event.start_latest
    ends = event.end_earliest <= end <= event.end_latest
    return (
        starts and ends and event.lower <= end - begin <= event.upper and event.lower <= event.estimate <= event.upper
    )


def through(setting: Setting, *faults: Fault) -> Prober:
    """The prober after the faults and all that may follow them."""
    return simulate(setting, faults, faults[-1].end + 9.0)


def kinds(prober: Prober, *ledgers: str) -> list[str]:
    return [each.event.kind for each in finished(prober, *ledgers)]


# -- no fault


@EXAMPLES
@given(settings_of())
def test_without_a_fault_there_is_no_event(setting: Setting) -> None:
    prober = simulate(setting, [], 20.0)
    assert prober.changes == []
    assert prober.answers >= 18


@EXAMPLES
@given(settings_of(), st.sampled_from([*PATH_KINDS, "frozen"]))
def test_never_reached_is_no_event(setting: Setting, kind: Kind) -> None:
    prober = simulate(setting, [Fault(kind, 0.0, 30.0)], 20.0)
    assert prober.changes == []
    assert prober.answers == 0
    assert not prober.book.seen


# -- one fault


@EXAMPLES
@given(settings_of(), st.sampled_from([*PATH_KINDS, "frozen", "full"]), BEGINS, LENGTHS)
def test_bounds_hold_the_truth(setting: Setting, kind: Kind, begin: float, length: float) -> None:
    prober = through(setting, Fault(kind, begin, begin + length))
    events = [each.event for each in finished(prober, "path", "peer")]
    assert len(events) <= 1
    assert all(holds(event, begin, begin + length) for event in events)


@EXAMPLES
@given(settings_of(), st.sampled_from(PATH_KINDS), BEGINS, LENGTHS)
def test_a_path_down_for_t_is_seen_as_an_outage(setting: Setting, kind: Kind, begin: float, length: float) -> None:
    prober = through(setting, Fault(kind, begin, begin + setting.interval + SLOT + length))
    assert kinds(prober) in (["outage"], ["blip"])


@EXAMPLES
@given(settings_of(), BEGINS, LENGTHS)
def test_a_peer_frozen_for_t_and_r_is_seen_as_frozen(setting: Setting, begin: float, length: float) -> None:
    """Where answers take longer than 10 ms a new connection that waited for the thaw may look like an ordinary one."""
    shortest = setting.interval + setting.prompt + 2 * SLOT
    prober = through(setting, Fault("frozen", begin, begin + shortest + length))
    slow = setting.protocol != "http" and 2 * setting.latency + setting.answer > 0.010
    assert kinds(prober) in ([["frozen"], ["blip"], ["break"]] if slow and length < 0.2 else [["frozen"]])


@EXAMPLES
@given(settings_of(), BEGINS, LENGTHS)
def test_a_frozen_peer_of_any_length_is_no_outage_unless_unconfirmed(
    setting: Setting, begin: float, length: float
) -> None:
    prober = through(setting, Fault("frozen", begin, begin + length))
    assert all(each.event.unconfirmed for each in finished(prober, "path"))


# -- faults of the flow


@EXAMPLES
@given(settings_of("tcp", "ws"), BEGINS, LENGTHS)
def test_established_connections_lost_are_a_break(setting: Setting, begin: float, length: float) -> None:
    """From T and a first retransmission on (0.35 s at T = 0.1 s); before, a break, a blip, or nothing."""
    prober = through(setting, Fault("established", begin, begin + length))
    assert set(kinds(prober)) <= {"break", "blip"}
    assert all(each.event.unconfirmed for each in finished(prober, "path"))
    if length >= setting.interval + 0.25:
        assert kinds(prober) == ["break"]


@EXAMPLES
@given(settings_of("tcp", "ws"), BEGINS)
def test_a_reset_is_a_break_with_the_moment_of_the_reset_in_its_bounds(setting: Setting, begin: float) -> None:
    (only,) = finished(through(setting, Fault("reset", begin, begin)))
    assert only.event.kind == "break"
    assert only.event.start_earliest <= begin <= only.event.start_latest
    assert only.event.end_latest is not None
    assert only.event.end_latest - begin <= 0.7 * setting.prompt  # the fresh connection answered


@EXAMPLES
@given(settings_of("http"), st.sampled_from(["established", "reset"]), BEGINS, LENGTHS)
def test_new_connections_do_not_notice_what_old_ones_suffer(
    setting: Setting, kind: Kind, begin: float, length: float
) -> None:
    """Unless the fault begins in the midst of an exchange."""
    prober = through(setting, Fault(kind, begin, begin + length))
    point = (begin - setting.phase) % setting.interval
    assert finished(prober) == [] or point <= 0.7 * setting.prompt + SLOT


# -- two faults


@EXAMPLES
@given(
    settings_of(),
    st.sampled_from([*PATH_KINDS, "frozen"]),
    st.sampled_from([*PATH_KINDS, "frozen"]),
    BEGINS,
    LENGTHS,
    PAUSES,
    LENGTHS,
)
def test_two_faults_are_found_apart_or_as_one(
    setting: Setting, first: Kind, second: Kind, begin: float, length: float, pause: float, other: float
) -> None:
    """Each event begins with a fault and ends with that one or a later one; a good pause between long ones splits."""
    one = Fault(first, begin, begin + length)
    two = Fault(second, one.end + pause, one.end + pause + other)
    prober = through(setting, one, two)
    events = [each.event for each in finished(prober, "path", "peer")]
    for event in events:
        assert holds(event, one.begin, one.end) or holds(event, two.begin, two.end) or holds(event, one.begin, two.end)
    assert len(events) <= 2
    visible = setting.interval + setting.prompt + 2 * SLOT
    if min(length, other) >= visible and pause >= visible:
        assert len(events) == 2


# -- the prober stalls


@st.composite
def naps(draw: st.DrawFn, until: float) -> list[tuple[float, float]]:
    """Sleeps of the prober: many short ones, or long ones now and then."""
    shortest, longest, pause = draw(st.sampled_from([(0.02, 0.15, 0.5), (0.2, 2.0, 2.0)]))
    sleeps: list[tuple[float, float]] = []
    at = draw(st.floats(1.0, 2.0))
    while at < until and len(sleeps) < 12:
        awake = at + draw(st.floats(shortest, longest))
        sleeps.append((at, awake))
        at = awake + draw(st.floats(0.1, pause))
    return sleeps


@EXAMPLES
@given(settings_of(), naps(8.0))
def test_stalls_of_our_own_are_no_event(setting: Setting, sleeps: list[tuple[float, float]]) -> None:
    prober = simulate(replace(setting, sleeps=sleeps), [], 12.0)
    assert finished(prober) == []


@EXAMPLES
@given(settings_of(), naps(8.0), st.sampled_from([*PATH_KINDS, "frozen"]), BEGINS, LENGTHS)
def test_bounds_hold_the_truth_through_stalls(
    setting: Setting, sleeps: list[tuple[float, float]], kind: Kind, begin: float, length: float
) -> None:
    prober = through(replace(setting, sleeps=sleeps), Fault(kind, begin, begin + length))
    events = [each.event for each in finished(prober, "path", "peer")]
    assert len(events) <= 1
    assert all(holds(event, begin, begin + length) for event in events)


# -- totals


@pytest.mark.slow
@pytest.mark.parametrize(("interval", "prompt"), RATES[:2])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("kind", ["drop", "refuse", "kill"])
def test_totals_of_outages_are_unbiased(kind: Kind, protocol: Protocol, interval: float, prompt: float) -> None:
    """Of 0.02 to 2 s, those never seen among them: each alone may be wrong by T, their sum is not."""
    faults = sequence(kind, 2000, 0.02, 2.0)
    prober = simulate(Setting(protocol, interval, prompt, phase=0.03), faults, faults[-1].end + 9.0)
    true = sum(fault.end - fault.begin for fault in faults)
    assert seconds(prober, "path") == pytest.approx(true, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("interval", "prompt"), RATES[:2])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_totals_of_freezes_are_unbiased_where_each_is_seen(protocol: Protocol, interval: float, prompt: float) -> None:
    faults = sequence("frozen", 2000, interval + prompt + 2 * SLOT, 2.5)
    prober = simulate(Setting(protocol, interval, prompt, phase=0.03), faults, faults[-1].end + 9.0)
    true = sum(fault.end - fault.begin for fault in faults)
    assert seconds(prober, "peer") == pytest.approx(true, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("interval", "prompt", "least"), [(0.1, 0.06, 0.9), (0.5, 0.15, 0.75)])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_totals_of_short_freezes_are_too_small_and_never_too_large(
    protocol: Protocol, interval: float, prompt: float, least: float
) -> None:
    """A freeze shorter than R only makes a slow answer, and up to T + R it may fall between two probes."""
    faults = sequence("frozen", 2000, 0.02, 2.0)
    prober = simulate(Setting(protocol, interval, prompt, phase=0.03), faults, faults[-1].end + 9.0)
    true = sum(fault.end - fault.begin for fault in faults)
    assert least * true <= seconds(prober, "path", "peer") <= 1.005 * true
