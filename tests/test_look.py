"""Where to look: what the bastion sees, held against what peers tell, by names that all can be compared by."""

import asyncio
import gc
import json
import time
from types import MappingProxyType
from typing import Any

import pytest
from stage import Stage, outside

from exporters import catalog, times
from exporters.bastion import look as looking
from exporters.bastion.look import Placed, placed, same
from exporters.bastion.lookout import LATELY, Lookout, broken
from exporters.bastion.told import Status, read
from exporters.gentle import TURN, taken
from exporters.verdict.compare import Seen, Steps, at_once

TEXTS = catalog.load().where_to_look
NONE: MappingProxyType[str, Any] = MappingProxyType({})


def look(*arguments: Any) -> list[dict[str, Any]]:
    return at_once(looking.look(*arguments))


def streams(target: str, path: str, state: str, source: str = "bastion", cause: str = "") -> list[Placed]:
    """A stream of each protocol, all in one state."""
    return [
        Placed(f"{source}|{target}|{path}|{protocol}|4", Seen(source, target, path, protocol, state, cause=cause))  # type: ignore[arg-type]
        for protocol in ("http", "tcp", "ws")
    ]


def test_one_target_by_its_several_names_is_compared_path_by_path() -> None:
    (found,) = look(
        [
            *streams("peer-1-lb", "loadbalancer", "down", cause="connect_timeout"),
            *streams("peer-1-np", "nodeport", "up"),
            *streams("peer-1-route", "route", "up"),
        ],
        NONE,
        NONE,
        TEXTS,
    )
    assert (found["key"], found["target"]) == ("loadbalancer_down", "peer-1")
    assert found["streams"] == [f"bastion|peer-1-lb|loadbalancer|{protocol}|4" for protocol in ("http", "tcp", "ws")]
    assert "bastion|peer-1-np|nodeport|tcp|4" in found["working"]
    assert found["text"].startswith(f"peer-1: {TEXTS['loadbalancer_down'].summary} ")
    assert found["blames"] == TEXTS["loadbalancer_down"].blames


def test_what_a_peer_sees_counts_for_the_target_that_leads_to_it() -> None:
    outside = [*streams("shop", "loadbalancer", "down"), *streams("shop", "route", "down")]
    inside = [*streams("node-1", "pod", "up", "node-2"), *streams("node-2", "pod", "up", "node-1")]
    (alone,) = look(outside, NONE, NONE, TEXTS)
    (together,) = look([*outside, *inside], NONE, {"node-1": "shop"}, TEXTS)
    assert alone["key"] == "target_down"
    assert together["key"] == "external_down"


def test_a_source_that_reaches_nothing_and_is_reached_is_flagged_and_nothing_of_it_is_left_out() -> None:
    lost = [*streams("node-2", "pod", "down", "node-1"), *streams("node-3", "pod", "down", "node-1")]
    others = [*streams("node-1", "pod", "up", "node-2"), *streams("node-2", "pod", "up", "node-3")]
    others += [*streams("node-3", "pod", "up", "node-2"), *streams("node-1", "pod", "up", "node-3")]
    (found,) = look([*lost, *others], NONE, NONE, TEXTS)
    assert (found["key"], found["source"], found["target"], found["sure"]) == (
        "observer_suspect", "node-1", "", "likely",
    )  # fmt: skip
    assert found["streams"] == sorted(each.key for each in lost)


def test_nothing_that_fails_is_nothing_to_say() -> None:
    assert look(streams("shop", "route", "up"), NONE, NONE, TEXTS) == []


def test_one_way_of_two_that_lead_to_the_same_path_is_told_apart() -> None:
    nodes = [
        each._replace(seen=each.seen._replace(target_node=each.seen.target.partition("@")[2]))
        for each in [*streams("shop@n1", "nodeport", "down"), *streams("shop@n2", "nodeport", "up")]
    ]
    (found,) = look(nodes, NONE, NONE, TEXTS)
    assert found["key"] == "node_gateway_down"
    assert {key.split("|")[1] for key in found["streams"]} == {"shop@n1"}
    assert {key.split("|")[1] for key in found["working"]} == {"shop@n2"}


def test_connections_that_broke_lately_count() -> None:
    up = streams("shop", "route", "up")
    (found,) = look(up, {"bastion|shop|route|tcp|4": 2}, NONE, TEXTS)
    assert (found["key"], found["streams"], found["since"]) == (
        "established_broken",
        ["bastion|shop|route|tcp|4"],
        None,
    )


@pytest.mark.parametrize(
    ("answering", "names"),
    [
        ({"peer-1": {"node-1"}, "peer-2": {"node-2"}}, {"node-1": "peer-1", "node-2": "peer-2"}),
        ({"service": {"a", "b"}}, {}),  # replicas: which one is it?
        ({"one": {"a"}, "two": {"a"}}, {}),  # two names for one
        ({"one": set()}, {}),
    ],
)
def test_names_are_one_where_it_is_sure(answering: dict[str, set[str]], names: dict[str, str]) -> None:
    assert same(answering) == names


def test_a_peers_streams_stand_on_our_clock_and_what_it_did_not_observe_is_unknown() -> None:
    now = time.time()
    plain = {"source": "a", "target": "b", "path": "pod", "family": 4, "since": times.iso(now), "state": "down"}
    body = {
        "self": "a", "timestamp": times.iso(now), "source": "a", "instance": "i", "journal": "j", "connections": {},
        "node": "node-a", "zone": "z",
        "streams": [
            {**plain, "stream": "1", "protocol": "tcp", "cause": "refused", "peer": {"node": "node-b"}},
            {**plain, "stream": "2", "protocol": "ws", "observed": False},
        ],
    }  # fmt: skip
    one, two = placed(read(Status, json.dumps(body).encode()), 3600.0)
    assert (one.key, one.seen.state, one.seen.cause) == ("1", "down", "refused")
    assert one.seen.since == pytest.approx(now - 3600, abs=0.001)
    assert (one.seen.source_node, one.seen.target_node, one.seen.source_zone) == ("node-a", "node-b", "z")
    assert two.seen.state == "unknown"


def test_streams_that_stay_as_they_are_leave_the_collector_nothing() -> None:
    stage = Stage(outside(200))
    lookout = Lookout(stage.record, stage.pull)

    async def ask() -> int:
        await lookout.ask()
        return len(gc.get_objects())

    async def observe() -> None:
        first = await ask()
        for _ in range(3):
            assert await ask() < first + 100
        assert lookout.findings == []
        for stats in stage.streams[::2]:
            stats.state("down")
        await lookout.ask()
        assert {each["key"] for each in lookout.findings} == {"one_protocol"}
        told = lookout.findings
        await lookout.ask()
        assert lookout.findings is told

    asyncio.run(observe())


def test_long_work_of_the_loop_is_left_in_the_middle() -> None:
    order: list[str] = []

    def steps() -> Steps[str]:
        for _ in range(3):
            until = time.monotonic() + 2 * TURN
            while time.monotonic() < until:
                yield
            order.append("step")
        return "done"

    async def others() -> None:
        for _ in range(3):
            order.append("other")
            await asyncio.sleep(0)

    async def both() -> None:
        beside = asyncio.create_task(others())
        assert await taken(steps()) == "done"
        await beside

    asyncio.run(both())
    assert order.index("other") < order.index("step", 1)
    assert order.count("other") == order.count("step") == 3


def test_a_break_counts_for_a_while() -> None:
    def item(kind: str, end: float | None) -> dict[str, Any]:
        began = times.iso(0.0)
        state = "closed" if end else "open"
        over = end if end is None else times.iso(end)
        return {"kind": kind, "state": state, "stream": kind, "start_time": began, "end_time": over}

    items = [item("break", 1000.0), item("break", 1010.0), item("outage", 1010.0), item("break", None)]
    cut_short = {**item("break", None), "state": "truncated", "start_time": times.iso(1010.0)}
    items.append(cut_short)  # by a kill: it may have been an outage
    assert broken(items, 1011.0) == {"break": 2}
    assert broken(items, 1005.0 + LATELY) == {"break": 1}


def test_a_peer_whose_clock_is_centuries_ahead_breaks_nothing() -> None:
    told = {
        "self": "a", "timestamp": times.iso(0.0), "source": "a", "instance": "i", "journal": "j", "connections": {},
        "streams": [{
            "stream": "a|b|pod|tcp|4", "source": "a", "target": "b", "path": "pod", "protocol": "tcp", "state": "down",
            "since": times.iso(0.0),
        }],
    }  # fmt: skip
    (found,) = placed(read(Status, json.dumps(told).encode()), offset=9e10)
    assert times.seconds(times.iso(found.seen.since or 0.0)) == 0.0
