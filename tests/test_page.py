"""What the page is given: the earlier dashboard's shape, one history of all, and nothing that could be markup."""

import json
import re
from collections.abc import Sequence
from time import monotonic, time
from typing import Any

import pytest
from box import OURSELVES, run, stream
from hypothesis import given
from hypothesis import strategies as st

from exporters import times
from exporters.bastion import page
from exporters.bastion.pull import Peer
from exporters.bastion.ways import peers
from exporters.probing.record import Record
from exporters.targets import Stream

SCRIPTS = {name: (page.ASSETS / name).read_text() for name in page.KINDS if name.endswith(".js")}


def shown_for(*streams: Stream, state: str = "up", decided: bool = True, cause: str = "") -> dict[str, dict[str, Any]]:
    record = Record(streams, OURSELVES)
    now = monotonic()
    for stats in record.stats.values():
        stats.now_state, stats.cause = state, cause
        stats.decided = now if decided else 0.0
    return dict(page.external_tests(list(record.stats.values()), now, time()))


def test_names_are_the_earlier_dashboards() -> None:
    found = shown_for(
        *(stream(1, protocol, target="peer-1-lb", path="loadbalancer") for protocol in ("http", "ws", "tcp")),
        stream(1, "http", target="peer-1-route", path="route"),
    )
    assert set(found) == {"peer-1-lb (HTTP)", "peer-1-lb (WS)", "peer-1-lb (TCP)", "peer-1-route (HTTP)"}
    assert {each["status"] for each in found.values()} == {"connected"}
    assert {each["error"] for each in found.values()} == {None}


def test_a_name_of_several_paths_or_families_is_told_apart() -> None:
    found = shown_for(
        stream(1, "http", target="shop", path="loadbalancer"),
        stream(1, "http", target="shop", path="route", family=4),
        stream(1, "http", target="shop", path="route", family=6),
        stream(1, "tcp", target="shop", path="route"),
    )
    assert set(found) == {"shop-lb (HTTP)", "shop-route IPv4 (HTTP)", "shop-route IPv6 (HTTP)", "shop (TCP)"}


@pytest.mark.parametrize(
    ("state", "decided", "cause", "expected"),
    [
        ("up", True, "", ("connected", None)),
        ("down", True, "refused", ("error", "refused")),
        ("frozen", True, "", ("error", "other")),
        ("unknown", True, "refused", ("unknown", None)),
        ("up", False, "", ("unknown", None)),  # not observed: never health
        ("down", False, "refused", ("unknown", None)),
    ],
)
def test_states_are_the_earlier_words(state: str, decided: bool, cause: str, expected: tuple[str, str | None]) -> None:
    (found,) = shown_for(stream(1), state=state, decided=decided, cause=cause).values()
    assert (found["status"], found["error"]) == expected
    assert times.seconds(found["last_update"]) == pytest.approx(time(), abs=60)


def an_item(state: str, start: float, end: float | None = None) -> dict[str, Any]:
    return {
        "state": state,
        "start_time": times.iso(start),
        "end_time": None if end is None else times.iso(end),
        "duration_sec": 1.0,
    }


def test_both_histories_are_one_newest_first_and_open_before_all() -> None:
    own = [an_item("closed", 1, 5), an_item("open", 2), an_item("truncated", 7)]
    told = [(6.0, an_item("closed", 3, 6)), (float("inf"), an_item("open", 1))]
    found = list(page.merged(own, told, 10))
    assert [(each["state"], times.seconds(each["start_time"])) for each in found] == [
        ("open", 2),
        ("open", 1),
        ("truncated", 7),
        ("closed", 3),
        ("closed", 1),
    ]
    assert list(page.merged(own, told, 2)) == found[:2]


def a_peer(*streams: Stream) -> Peer:
    ((name, ways),) = peers(streams).items()
    return Peer(name, ways)


def test_a_peer_is_called_by_its_route() -> None:
    load_balancer = stream(1, "http", target="peer-1-lb", path="loadbalancer")
    assert page.name_of(a_peer(load_balancer, stream(1, "http", target="peer-1-route", path="route"))) == "peer-1-route"
    assert page.name_of(a_peer(load_balancer)) == "peer-1-lb"


def test_a_peer_that_is_not_heard_is_an_error_with_its_url() -> None:
    peer = a_peer(stream(80, "http", target="peer-1-route", path="route"))
    assert page.said_by(peer) == {"error": "not asked yet", "url": "http://127.0.0.1:80"}
    assert page.shown(peer)["heard"] is None
    peer.now(heard=True)
    peer.status = {"self": "a"}
    assert page.said_by(peer) == {"self": "a"}
    peer.now(heard=False)
    peer.error = "Connection refused"
    assert page.said_by(peer) == {"error": "Connection refused", "url": "http://127.0.0.1:80"}


@given(st.dictionaries(st.text(), st.integers()), st.lists(st.integers()))
def test_pieces_are_json(members: dict[str, int], items: list[int]) -> None:
    assert json.loads("".join(page._object(members.items()))) == members
    assert json.loads("".join(page._array(items))) == items


def test_parts_come_as_they_are() -> None:
    async def collected(parts: Sequence[str]) -> list[str]:
        return [part async for part in page.in_turns(parts)]

    parts = [str(number) for number in range(3 * page.STEPS_PER_TURN)]
    assert run(collected(parts)) == parts


def test_the_scripts_never_make_markup_of_what_they_are_told() -> None:
    text = "".join(SCRIPTS.values())
    assert "textContent" in text
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc|\.src\b|DOMParser"
    assert not re.search(forbidden, text)
    # Only the configured Grafana, and a file made here, lead anywhere.
    leads = {name: text.count(".href") for name, text in SCRIPTS.items() if ".href" in text}
    assert leads == {"dom.js": 1, "export.js": 1}


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    text = (page.ASSETS / "page.html").read_text()
    everything = "".join((page.ASSETS / name).read_text() for name in page.KINDS)
    assert set(re.findall(r"\w+://[\w./]+", everything)) == {"http://www.w3.org/2000/svg"}  # a name, never asked for
    assert not re.search(r"<script>|<style|style=|\bon\w+=|javascript:", text)
    assert "unsafe" not in page.HEADERS["Content-Security-Policy"]


def test_every_asset_is_served_and_all_together_are_light() -> None:
    assert set(page.KINDS) == {each.name for each in page.ASSETS.iterdir()}
    size = sum((page.ASSETS / name).stat().st_size for name in page.KINDS)
    print(f"all assets together: {size} bytes")
    assert size <= 300_000
    imported = {found for text in SCRIPTS.values() for found in re.findall(r'from "\./(\w+\.js)"', text)}
    assert imported == SCRIPTS.keys() - {"page.js", "worker.js"}  # these are asked for by their addresses
