"""Many histories to one: once each, whoever brings them, and bounded."""

from collections.abc import Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters import times
from exporters.bastion.heard import MOST_JOURNALS, Heard
from exporters.bastion.told import Item


def item(seq: int, name: str = "", state: str = "closed", start: float = 100.0, seconds: float = 1.0) -> Item:
    """An item that began at `start` and lasted for so long, both in seconds."""
    return Item.model_validate(
        {
            "seq": seq,
            "id": name or f"e{seq}",
            "kind": "outage",
            "state": state,
            "stream": "a|b|service|tcp|4",
            "name": "b",
            "protocol": "TCP",
            "start_time": times.iso(start),
            "end_time": times.iso(start + seconds) if state == "closed" else None,
            "duration_sec": seconds,
            "duration": {"lower": 0.0, "estimate": seconds, "upper": seconds},
        }
    )


def tell(heard: Heard, items: Sequence[Item], peer: str = "p", journal: str = "j", offset: float = 0.0) -> int:
    heard.answered(peer, f"source of {journal}", journal)
    return heard.add(peer, journal, items, offset)


def shown(heard: Heard) -> list[tuple[str, str]]:
    return sorted((each["id"], each["state"]) for _, each in heard.items())


def test_an_event_heard_by_three_ways_is_one() -> None:
    heard = Heard(100)
    for peer in ("shop", "shop", "other"):
        tell(heard, [item(1), item(2)], peer)
    assert shown(heard) == [("e1", "closed"), ("e2", "closed")]


def test_the_same_id_in_another_journal_is_another_event() -> None:
    heard = Heard(100)
    tell(heard, [item(1)], journal="one")
    tell(heard, [item(1)], journal="two")
    assert len(heard.items()) == 2


def test_a_later_change_replaces_an_earlier_one_and_never_the_other_way_round() -> None:
    heard = Heard(100)
    tell(heard, [item(1, "e", "open")])
    tell(heard, [item(2, "e")])
    tell(heard, [item(1, "e", "open")], peer="late")
    assert shown(heard) == [("e", "closed")]


def test_each_journal_is_read_from_where_it_was_left() -> None:
    heard = Heard(100)
    assert tell(heard, [item(3), item(7)], journal="one") == 7
    assert heard.answered("p", "b", "two") == 0
    assert heard.answered("p", "a", "one") == 7
    assert heard.answered("other", "a", "one") == 0


def test_a_source_that_restarted_leaves_what_was_open_truncated() -> None:
    heard = Heard(100)
    heard.answered("p", "node-1", "before")
    heard.add("p", "before", [item(1, "open", "open"), item(2, "over")], 0.0)
    heard.answered("p", "node-2", "another replica")
    assert ("open", "open") in shown(heard)
    heard.answered("p", "node-1", "after")
    assert shown(heard) == [("open", "truncated"), ("over", "closed")]
    assert inf not in [end for end, _ in heard.items()]


def test_open_items_follow_their_peers_status() -> None:
    heard = Heard(100)
    tell(heard, [item(5, "e", "open", seconds=1.0)])
    heard.refresh("j", [item(0, "e", "open", seconds=9.0), item(0, "never told", "open")])
    ((end, found),) = heard.items()
    assert (end, found["duration_sec"], found["seq"]) == (inf, 9.0, 5)
    tell(heard, [item(6, "e")])
    heard.refresh("j", [item(0, "e", "open", seconds=10.0)])
    assert shown(heard) == [("e", "closed")]


def test_clearing_hides_what_is_over_and_what_is_told_later_of_before() -> None:
    heard = Heard(100)
    tell(heard, [item(1, "over"), item(2, "on", "open")])
    heard.clear(200.0)
    assert shown(heard) == [("on", "open")]
    tell(heard, [item(3, "late", start=150.0), item(4, "new", start=250.0)])
    assert shown(heard) == [("new", "closed"), ("on", "open")]
    assert len(heard.shown()) == 4
    tell(heard, [item(5, "on", start=150.0, seconds=60.0)])
    assert ("on", "closed") in shown(heard)


def test_a_peers_clock_is_taken_into_account_when_clearing() -> None:
    heard = Heard(100)
    heard.clear(200.0)
    tell(heard, [item(1, "before", start=350.0)], offset=200.0)
    tell(heard, [item(2, "after", start=150.0)], offset=-200.0)
    assert shown(heard) == [("after", "closed")]


def test_who_tells_most_gives_up_first() -> None:
    heard = Heard(10)
    tell(heard, [item(1, "quiet")], peer="quiet", journal="q")
    for seq in range(1, 200):
        tell(heard, [item(seq, start=seq)], peer="loud")
    assert len(heard.items()) == 10
    assert ("quiet", "closed") in shown(heard)
    assert ("e199", "closed") in shown(heard)
    tell(heard, [item(200, "open", "open", start=0.0), *(item(seq, start=seq) for seq in range(201, 300))], peer="loud")
    assert ("open", "open") in shown(heard)


def test_a_peer_with_ever_new_journals_costs_no_more() -> None:
    heard = Heard(10)
    for number in range(1000):
        tell(heard, [item(1)], journal=f"j{number}")
    assert len(heard.items()) == 10
    assert len(heard._read["p"].cursors) == len(heard._read["p"].journals) == MOST_JOURNALS
    heard.keep({"another"})
    assert not heard._read


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("jk"), st.integers(1, 6)), max_size=30))
def test_whatever_comes_in_whatever_order_each_event_is_there_once(told: list[tuple[str, str, int]]) -> None:
    heard = Heard(1000)
    for peer, journal, seq in told:
        tell(heard, [item(seq)], peer, journal)
    found: list[dict[str, Any]] = [each for _, each in heard.items()]
    assert sorted((each["journal"], each["id"]) for each in found) == sorted({(j, f"e{seq}") for _, j, seq in told})


@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_than_the_limit(limit: int) -> None:
    heard = Heard(limit)
    tell(heard, [item(seq, state="open" if seq % 2 else "closed") for seq in range(1, 50)])
    assert len(heard.shown()) == limit
