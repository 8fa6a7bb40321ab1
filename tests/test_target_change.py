"""The address that what is outside sees us with: its changes are listed, and nothing fills the history with them."""

import msgspec
from box import OURSELVES, only, stream

from exporters.history import items
from exporters.history.checks import Checker
from exporters.probing.egress import MOST_ADDRESSES, MOST_CHANGES, Addresses
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.times import iso


def seen_as(stats: Stats, address: str, wall: float) -> None:
    stats.succeeded(wall, 0.001, {"node": "n", "boot_id": "b", "address": address})


def changes(record: Record) -> list[tuple[str, str]]:
    """(before, after) of each change of address that is listed."""
    items = [item for item in record.history(0, 1000) if item["kind"] == "target_change"]
    return [(item["before"]["address"], item["after"]["address"]) for item in items]


def test_an_egress_that_changes_its_address_is_listed_with_the_moments_between_which_it_did() -> None:
    record = Record([stream(1, path="egress")], OURSELVES)
    stats = only(record)
    for wall, address in ((1000.0, "192.0.2.1"), (1000.5, "192.0.2.1"), (1003.0, "192.0.2.2"), (1003.5, "192.0.2.2")):
        seen_as(stats, address, wall)
    (item,) = record.history()
    assert (item["kind"], item["cause"], item["state"]) == ("target_change", "address", "closed")
    assert (item["stream"], item["name"]) == (stats.spec.key, "there")
    assert changes(record) == [("192.0.2.1", "192.0.2.2")]
    edge = (item["start"]["earliest"], item["start"]["latest"], item["end_time"])
    assert edge == (iso(1000.5), iso(1003.0), iso(1003.0))
    assert stats.outages == 0
    assert [*Checker().add(items.read(msgspec.json.encode(item)).item)] == []


def test_on_other_paths_nobody_watches_our_address() -> None:
    record = Record([stream(1, path="service")], OURSELVES)
    for number in range(10):
        seen_as(only(record), f"192.0.2.{number}", 1000.0 + 100 * number)
    assert record.history() == []


def test_an_egress_of_several_addresses_is_no_change_each_time() -> None:
    record = Record([stream(1, path="egress")], OURSELVES)
    for number in range(1000):
        seen_as(only(record), f"192.0.2.{number % 3}", 1000.0 + 0.5 * number)
    assert len(changes(record)) == 2  # to each of the other two, once


def test_two_changes_one_after_the_other_are_both_listed() -> None:
    record = Record([stream(1, path="egress")], OURSELVES)
    for wall, address in ((1000.0, "192.0.2.1"), (1000.5, "192.0.2.2"), (1001.0, "192.0.2.3")):
        seen_as(only(record), address, wall)
    assert changes(record) == [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.3")]


def test_an_egress_that_goes_back_is_another_change() -> None:
    record = Record([stream(1, path="egress")], OURSELVES)
    for wall, address in ((1000.0, "192.0.2.1"), (1010.0, "192.0.2.2"), (1020.0, "192.0.2.1")):
        seen_as(only(record), address, wall)
    assert changes(record) == [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")]


def test_whoever_tells_another_address_each_time_does_not_fill_the_history() -> None:
    record = Record([stream(1, path="egress")], OURSELVES)
    for number in range(1000):
        seen_as(only(record), f"address {number}", 1000.0 + 0.1 * number)
    listed = len(changes(record))
    assert MOST_CHANGES <= listed <= 2 * MOST_CHANGES  # in 100 s
    seen_as(only(record), "", 2000.0)
    assert len(changes(record)) == listed


def test_few_addresses_are_remembered() -> None:
    seen = Addresses()
    for number in range(1000):
        seen.change(str(number), str(number + 1), 100.0 * number, 100.0 * number + 1)
    assert len(seen.left) <= MOST_ADDRESSES
