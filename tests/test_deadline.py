"""What a stream learns of its path's latency, never from what an outage did to it; and when it judges a probe."""

from collections.abc import Iterable
from random import Random
from types import SimpleNamespace

import pytest
from box import OURSELVES, stream

from exporters.probing.engine import Engine
from exporters.probing.protocols import Hello, Reply
from exporters.probing.record import Record
from exporters.probing.schedule import Wheel
from exporters.probing.stall import Stalls
from exporters.probing.stream import Link, Probe, Stream

SPEC = stream(1, prompt=0.06)  # T 0.1 s, patience 3 s


class Quiet:
    """An engine that does nothing."""

    poller = None
    wheel = Wheel(0.0)
    stalls = Stalls(0.0)

    def number(self) -> int:
        return 1

    def admit(self) -> bool:
        return True

    def admit_optional(self, stream: Stream) -> bool:
        return False

    def waiting(self, stream: Stream, link: Link) -> None:
        pass

    def met_itself(self, stream: Stream) -> None:
        pass


def learner() -> Stream:
    record = Record([SPEC], OURSELVES)
    hello = Hello("here", "i", "there", 1, tls=False)
    made = Stream(SPEC, hello, None, Quiet(), record.stats[SPEC.key])  # type: ignore[arg-type]
    made._late_since = 0.0
    return made


def learn(made: Stream, answers: Iterable[tuple[float, float]]) -> None:
    """Answers at these times, with these round trips."""
    for now, round_trip in answers:
        made._learn(round_trip, now, lost=round_trip > made._deadline)


def test_answers_that_tcp_rescued_do_not_stretch_the_deadline() -> None:
    """A path with hiccups above R/2, and now and then a lost packet: the deadline stays below a retransmission."""
    rng = Random(7)
    made = learner()
    hiccups, rescued = (0.045, 0.12), (0.21, 0.25, 0.4)
    trips = [rng.choice(hiccups + rescued) if rng.random() < 0.05 else 0.002 for _ in range(20_000)]
    learn(made, ((number * 0.1, trip) for number, trip in enumerate(trips)))
    assert made.stats.slow
    assert made._deadline == 0.150


def test_what_is_answered_in_a_burst_after_a_long_outage_is_not_learnt() -> None:
    made = learner()
    learn(made, ((number * 0.1, 0.002) for number in range(1500)))
    learn(made, ((160.0 + number * 0.001, 9.0 - number * 0.1) for number in range(90)))
    learn(made, ((161.0 + number * 0.1, 0.002) for number in range(100)))
    assert (made._deadline, made.stats.slow) == (SPEC.prompt, False)


def test_the_first_answer_after_each_long_outage_is_not_learnt() -> None:
    """It waited for a retransmission; one in 500 answers is enough to stretch a deadline to seconds."""
    made = learner()
    for number in range(20):
        begin = number * 60.0
        learn(made, ((begin + point * 0.1, 0.002) for point in range(500)))
        learn(made, [(begin + 56.0, 3.2), (begin + 56.2, 1.06)])
    assert (made._deadline, made.stats.slow) == (SPEC.prompt, False)


def test_a_path_that_becomes_slow_for_good_is_learnt() -> None:
    made = learner()
    learn(made, ((number * 0.1, 0.002) for number in range(1500)))
    learn(made, ((150.0 + number * 0.1, 0.3) for number in range(1500)))
    assert made.stats.slow
    assert 0.6 <= made._deadline <= 1.2


@pytest.mark.parametrize(
    ("took", "resent", "prompt"), [(0.05, True, True), (0.07, False, True), (0.07, True, False), (1.0, True, False)]
)
def test_a_handshake_was_late_if_its_path_made_it_so(took: float, resent: bool, prompt: bool) -> None:
    conn = SimpleNamespace(started=5.0, connected=5.0 + took, resent=resent)
    assert learner()._shook_promptly(conn) is prompt  # type: ignore[arg-type]


def waiting(made: Stream, *starts: float) -> Link:
    """A connection on which nothing that was asked at these times is answered yet; numbers from 1 on."""
    link = Link(SimpleNamespace(number=1, close=lambda: None))  # type: ignore[arg-type]
    made._links[1] = link
    for number, start in enumerate(starts, 1):
        made._watch(link, Probe(start, start, number, grid=True, fresh=False, clean=number == 1, big=False))
    return link


def test_each_probe_is_judged_in_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner()
    judged = []

    def judge(_link: Link, probe: Probe, _now: float) -> None:
        judged.append(probe.seq)
        made._decide(probe)

    monkeypatch.setattr(made, "_judge", judge)
    waiting(made, 10.0, 10.02, 10.1)
    assert made._horizon() == 10.0
    for now, seen in ((10.05, []), (10.061, [1]), (10.061, [1]), (10.09, [1, 2]), (11.0, [1, 2, 3])):
        made._on_due(now)
        assert judged == seen
    assert made._horizon() == float("inf")


def test_who_turns_out_to_be_this_process_is_met_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it answers twice in one go."""
    made = learner()
    met = []

    def end(stream: Stream) -> None:
        met.append(stream)
        stream.stop()

    monkeypatch.setattr(made._shared, "met_itself", end)
    link = waiting(made, 10.0, 10.02)
    ours = {"instance": made._hello.instance}
    replies = [Reply(1, ours), Reply(2, ours)]
    link.exchange = SimpleNamespace(feed=lambda _data: replies, owed=bytes, ready=True)
    made.received(link.conn, b"both")
    assert met == [made]


def test_the_engine_is_what_the_quiet_one_stands_for() -> None:
    assert {"number", "admit", "admit_optional", "waiting", "met_itself"} <= set(dir(Engine))
