"""What the rules make of simulated faults, against a truth that is known exactly.

Examples are the same at every run. OVNWATCH_SIMULATIONS=20000 tries as many of each, other ones every time.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulation import Fault, Kind, Prober, Protocol, Setting, finished, seconds, sequence, simulate

from exporters.probing.outage import Event
from exporters.probing.schedule import SLOT  # a probe starts, and is judged, this much later at the most

SOAK = int(os.environ.get("OVNWATCH_SIMULATIONS", "0"))
EXAMPLES = settings(
    max_examples=SOAK or settings().max_examples,
    derandomize=not SOAK,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)

PATH_KINDS: tuple[Kind, ...] = ("drop", "drop_request", "drop_reply", "refuse", "kill")
VISIBLE: tuple[Kind, ...] = (*PATH_KINDS, "frozen")
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


@st.composite
def fault(draw: st.DrawFn, setting: Setting, kinds: Sequence[Kind], after: float = 3.0, least: float = 0.0) -> Fault:
    """One that begins within a second after `after`, and lasts at least so long.

    Every other edge is put where edges matter: within a probe's exchange, or where it is judged.
    """
    begin = draw(st.floats(after, after + 1.0))
    end = begin + least + draw(LENGTHS)
    if draw(st.booleans()):
        begin = draw(near_a_probe(setting, begin))
    if draw(st.booleans()):
        end = draw(near_a_probe(setting, end))
    return Fault(draw(st.sampled_from(kinds)), begin, max(end, begin + least + 0.02))


@st.composite
def near_a_probe(draw: st.DrawFn, setting: Setting, moment: float) -> float:
    point = setting.phase + math.ceil((moment - setting.phase) / setting.interval) * setting.interval
    judged = draw(st.sampled_from([0.0, setting.prompt]))
    return point + judged + draw(st.floats(-SLOT, 0.7 * setting.prompt))


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
@given(settings_of(), st.sampled_from(VISIBLE))
def test_never_reached_is_no_event(setting: Setting, kind: Kind) -> None:
    prober = simulate(setting, [Fault(kind, 0.0, 30.0)], 20.0)
    assert prober.changes == []
    assert prober.answers == 0
    assert not prober.book.seen


# -- one fault


@EXAMPLES
@given(settings_of(), st.data())
def test_bounds_hold_the_truth(setting: Setting, data: st.DataObject) -> None:
    only = data.draw(fault(setting, [*VISIBLE, "full"]))
    events = [each.event for each in finished(through(setting, only), "path", "peer")]
    assert len(events) <= 1
    assert all(holds(event, only.begin, only.end) for event in events)


@EXAMPLES
@given(settings_of(), st.data())
def test_a_path_down_for_t_is_seen_as_an_outage(setting: Setting, data: st.DataObject) -> None:
    only = data.draw(fault(setting, PATH_KINDS, least=setting.interval + SLOT))
    assert kinds(through(setting, only)) in (["outage"], ["blip"])


@EXAMPLES
@given(settings_of(), st.data())
def test_a_broken_path_of_any_length_is_no_frozen_peer(setting: Setting, data: st.DataObject) -> None:
    assert "frozen" not in kinds(through(setting, data.draw(fault(setting, PATH_KINDS))))


@pytest.mark.parametrize("acknowledge", [0.0, 0.04])
@pytest.mark.parametrize("kind", ["drop", "drop_request", "drop_reply"])
def test_a_path_that_broke_between_request_and_answer_is_no_slow_peer(kind: Kind, acknowledge: float) -> None:
    """A busy server's kernel acknowledges what it is long in answering, and the answer may be what gets lost."""
    seen = set()
    for answer in (0.06, 0.09):
        setting = Setting("tcp", 0.5, 0.15, answer=answer, acknowledge=acknowledge)
        for begin, length in product(range(-20, 110, 20), (30, 70, 110)):
            asked = 5.0 + begin / 1000
            seen |= {*kinds(through(setting, Fault(kind, asked, asked + length / 1000)))}
    assert seen <= {"blip", "outage", "break"}
    assert "blip" in seen


@EXAMPLES
@given(settings_of(), st.data())
def test_a_peer_frozen_for_t_and_r_is_seen_as_frozen(setting: Setting, data: st.DataObject) -> None:
    """Where answers take longer than 10 ms a new connection that waited for the thaw may look like an ordinary one."""
    visible = setting.interval + setting.prompt + 2 * SLOT
    only = data.draw(fault(setting, ["frozen"], least=visible))
    slow = setting.protocol != "http" and 2 * setting.latency + setting.answer > 0.010
    unsure = slow and only.end - only.begin < visible + 0.2
    assert kinds(through(setting, only)) in ([["frozen"], ["blip"], ["break"]] if unsure else [["frozen"]])


@EXAMPLES
@given(settings_of(), st.data())
def test_a_frozen_peer_of_any_length_is_no_outage(setting: Setting, data: st.DataObject) -> None:
    prober = through(setting, data.draw(fault(setting, ["frozen"])))
    assert not finished(prober, "path")


# -- faults of the flow


@EXAMPLES
@given(settings_of("tcp", "ws"), st.data())
def test_established_connections_lost_are_a_break(setting: Setting, data: st.DataObject) -> None:
    """From T and a first retransmission on (0.35 s at T = 0.1 s); before, a break, a blip, or nothing."""
    only = data.draw(fault(setting, ["established"]))
    prober = through(setting, only)
    assert set(kinds(prober)) <= {"break", "blip"}
    assert all(each.event.unconfirmed for each in finished(prober, "path"))
    if only.end - only.begin >= setting.interval + 0.25:
        assert kinds(prober) == ["break"]


@EXAMPLES
@given(settings_of("tcp", "ws"), st.data())
def test_a_reset_is_a_break_with_the_moment_of_the_reset_in_its_bounds(setting: Setting, data: st.DataObject) -> None:
    only = data.draw(fault(setting, ["reset"]))
    (event,) = (each.event for each in finished(through(setting, only)))
    assert event.kind == "break"
    assert event.start_earliest <= only.begin <= event.start_latest
    assert event.end_latest is not None
    assert event.end_latest - only.begin <= 0.7 * setting.prompt  # the fresh connection answered


@EXAMPLES
@given(settings_of("http"), st.data())
def test_new_connections_do_not_notice_what_old_ones_suffer(setting: Setting, data: st.DataObject) -> None:
    """Unless the fault begins in the midst of an exchange."""
    only = data.draw(fault(setting, ["established", "reset"]))
    within = (only.begin - setting.phase) % setting.interval <= 0.7 * setting.prompt + SLOT
    assert finished(through(setting, only)) == [] or within


# -- two faults


@EXAMPLES
@given(settings_of(), st.data())
def test_two_faults_are_found_apart_or_as_one(setting: Setting, data: st.DataObject) -> None:
    """Each event begins with a fault and ends with that one or a later one; a good pause between long ones splits."""
    one = data.draw(fault(setting, VISIBLE))
    two = data.draw(fault(setting, VISIBLE, after=one.end + data.draw(st.sampled_from([SLOT, 2 * setting.interval]))))
    events = [each.event for each in finished(through(setting, one, two), "path", "peer")]
    for event in events:
        assert holds(event, one.begin, one.end) or holds(event, two.begin, two.end) or holds(event, one.begin, two.end)
    assert len(events) <= 2
    visible = setting.interval + setting.prompt + 2 * SLOT
    if min(one.end - one.begin, two.begin - one.end, two.end - two.begin) >= visible:
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
    assert finished(simulate(replace(setting, sleeps=sleeps), [], 12.0)) == []


@EXAMPLES
@given(settings_of(), naps(8.0), st.data())
def test_bounds_hold_the_truth_through_stalls(
    setting: Setting, sleeps: list[tuple[float, float]], data: st.DataObject
) -> None:
    only = data.draw(fault(setting, VISIBLE))
    events = [each.event for each in finished(through(replace(setting, sleeps=sleeps), only), "path", "peer")]
    assert len(events) <= 1
    assert all(holds(event, only.begin, only.end) for event in events)


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
