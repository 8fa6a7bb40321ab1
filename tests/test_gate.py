"""The gate: quiet, observed and within the budget, or the next node waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.verdict.gate import Seen, decide

CALM = Seen(now=1000.0, since=100.0, streams=6, last_end=900.0)


@pytest.mark.parametrize(
    ("seen", "verdict", "reason"),
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
def test_a_moment(seen: Seen, verdict: str, reason: str) -> None:
    found = decide(seen, 60.0, 5.0)
    assert found.verdict == verdict
    assert reason in found.reasons


def test_a_budget_that_is_just_spent_is_enough_where_none_shall_be_left() -> None:
    assert decide(CALM._replace(budget=10.0, spent=10.0)).verdict == "go"
    assert decide(CALM._replace(budget=10.0, spent=10.1)).verdict == "stop"


def test_without_a_budget_the_reasons_say_so() -> None:
    assert "no budget is set" in decide(CALM).reasons


names = st.lists(st.just("a"), max_size=2)


@given(
    st.builds(
        Seen, st.just(1000.0), st.floats(0, 1000), st.integers(0, 2), names, names, names,
        st.none() | st.floats(0, 1000), st.floats(0, 20), st.none() | st.floats(0, 20),
    )
)  # fmt: skip
def test_it_goes_only_where_all_is_known_and_quiet(seen: Seen) -> None:
    found = decide(seen, 60.0, 1.0)
    assert found.reasons
    if found.verdict == "go":
        assert seen.streams
        assert not any((seen.out, seen.unknown, seen.unheard))
        assert seen.last_end is None or seen.now - seen.last_end >= 60
        assert seen.budget is None or seen.budget - seen.spent >= 1
