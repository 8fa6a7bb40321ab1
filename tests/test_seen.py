"""What watches hold, step by step: phases and events come once, a restart repeats none, what is unheard is unknown."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest
from histories import moments
from hypothesis import given
from hypothesis import strategies as st

from exporters.migration.kinds import KINDS
from exporters.migration.names import NODE, NONE
from exporters.migration.resources import NEEDS, RESOURCES, rules
from exporters.migration.seen import UNKNOWN_SECONDS, Change, Event, Gap, Memory, Phase, Seen, pack, unpack
from exporters.objects import Fields, Key, Known, Resource, key_of, listed

BEGIN = 1000.0
STEP = 10.0  # seconds between two moments
STORIES = ("cni-swap", "discovery", "egressip", "mtu-migration", "node-reboot", "node-reboot-plain", "ovnk-rollout",
           "ovnk-rollout-hung", "sdn-to-ovn-live")  # fmt: skip
Objects = list[dict[str, Any]]


def fits(resource: Resource, each: Mapping[str, Any]) -> bool:
    about = each["metadata"]
    return (
        (each["kind"], each["apiVersion"]) == (resource.kind, resource.api_version)
        and resource.only in ("", about["name"])
        and resource.namespace in ("", about.get("namespace"))
    )


def read(resource: Resource, each: Mapping[str, Any]) -> Fields:
    """As a watch keeps it; its version is what it says."""
    version = str(hash(msgspec.json.encode(each)))
    whole = {**each, "metadata": {**each["metadata"], "uid": "u", "resourceVersion": version}}
    return {**resource.read(msgspec.json.encode(whole)), "kind": resource.kind, "apiVersion": resource.api_version}


def known(objects: Iterable[Mapping[str, Any]], before: Mapping[str, Known], now: float) -> dict[str, Known]:
    told: dict[str, Known] = {}
    for resource in RESOURCES:
        found: dict[Key, Fields] = {}
        for each in objects:
            if fits(resource, each):
                one = read(resource, each)
                found[key_of(one)] = one
        held = before[resource.name].objects if before else {}
        told[resource.name] = Known(listed(held, found, now), now, 0.0, up=True)
    return told


def told(story: str) -> Iterator[tuple[Objects, dict[str, Known], float]]:
    """Each moment of a story, and what is known then."""
    before: dict[str, Known] = {}
    for number, (_, objects) in enumerate(moments(story)):
        now = BEGIN + STEP * (number + 1)
        before = known(objects, before, now)
        yield objects, before, now


def fresh() -> Seen:
    return Seen(BEGIN, {}, Memory())


def step(seen: Seen, now_known: Mapping[str, Known], now: float, began: float = BEGIN) -> list[Change]:
    """With ages as of then, by a process that began at that time."""
    aged = {name: each._replace(age=now - each.heard) if each.heard else each for name, each in now_known.items()}
    return seen.step(aged, now, now - began)


def phases(changes: Iterable[Change], kind: str) -> list[str]:
    return [each.name for each in changes if isinstance(each, Phase) and each.kind == kind]


def expected(story: str, kind: str) -> list[str]:
    """The phases of a kind, each once, by the function alone."""
    said = [NONE]
    for _, objects in moments(story):
        said.append(KINDS[kind](objects, said[-1]).phase)
    return [after for before, after in pairwise(said) if after != before]


@pytest.mark.parametrize("story", STORIES)
def test_what_is_kept_of_objects_tells_the_same_phases_as_the_whole(story: str) -> None:
    seen = fresh()
    changes = [each for _, now_known, now in told(story) for each in step(seen, now_known, now)]
    assert {kind: phases(changes, kind) for kind in KINDS} == {kind: expected(story, kind) for kind in KINDS}


@pytest.mark.parametrize("story", STORIES)
def test_neither_a_second_look_nor_a_restart_nor_a_new_list_repeats_anything(story: str) -> None:
    seen = fresh()
    for _, now_known, now in told(story):
        step(seen, now_known, now)
        assert not step(seen, now_known, now + 1)
        after = Seen(now + 2, seen.shown, unpack(pack(seen.memory())))
        relisted = {name: each._replace(heard=now + 3) for name, each in now_known.items()}
        assert not step(after, relisted, now + 3)
        assert (after.shown, after.states, after.conditions) == (seen.shown, seen.states, seen.conditions)


def test_turns_of_nodes_and_their_reboots() -> None:
    seen = fresh()
    changes = [each for _, now_known, now in told("node-reboot-plain") for each in step(seen, now_known, now)]
    assert [(each.node, each.name) for each in changes if isinstance(each, Phase)] == [
        ("edge-wk-1", name) for name in ("cordoned", "down", "booted, not ready", "ready, cordoned", NONE)
    ]
    reboots = [each for each in changes if isinstance(each, Event)]
    assert [(each.name, each.node) for each in reboots] == [("reboot", "edge-wk-1"), ("reboot", "edge-wk-2")]
    assert all(each.latest - each.earliest == STEP for each in reboots), "between two looks"
    assert {name: each.booted_at for name, each in seen.nodes.items() if each.booted_at} == {
        each.node: each.latest for each in reboots
    }


def test_a_node_that_fails_of_itself_is_not_at_its_turn() -> None:
    seen = fresh()
    changes: list[Change] = []
    failing: list[dict[str, str]] = []
    for _, now_known, now in told("egressip"):
        changes += step(seen, now_known, now)
        failing.append(seen.failing())
    assert not phases(changes, NODE)
    lost = "wk-0.harbor.example"
    events = [(each.node, each.name) for each in changes if isinstance(each, Event) and "egressip" not in each.more]
    assert events == [(lost, "not ready"), (lost, "reboot")]
    assert failing == [{}, {}, {lost: "down"}, {lost: "down"}, {}, {}]


def test_addresses_that_move_are_events() -> None:
    seen = fresh()
    changes = [each for _, now_known, now in told("egressip") for each in step(seen, now_known, now)]
    moved = [each for each in changes if isinstance(each, Event) and "egressip" in each.more]
    assert [(each.more["address"][-3:], each.node[:4]) for each in moved] == [
        ("101", "wk-0"), ("110", "wk-1"), ("101", "wk-2"), ("102", "wk-0"), ("110", "wk-2")
    ]  # fmt: skip
    assert moved[1].name == "egress IP 192.0.2.110 of mail-out from wk-0.harbor.example to wk-1.harbor.example"
    assert moved[2].name.endswith("from nowhere to wk-2.harbor.example")


def in_a_round() -> tuple[Seen, dict[str, Known], float]:
    """The first round of a live migration, nodes at their turn."""
    seen = fresh()
    for _, now_known, now in list(told("sdn-to-ovn-live"))[:7]:
        step(seen, now_known, now)
    assert seen.shown["sdn_live", ""][0] == "routable MTU round"
    assert any(kind == NODE for kind, _ in seen.shown)
    return seen, now_known, now


def cut(now_known: Mapping[str, Known]) -> dict[str, Known]:
    return {name: each._replace(up=False) for name, each in now_known.items()}


def test_what_is_not_heard_is_an_age_and_then_no_phase() -> None:
    seen, now_known, heard = in_a_round()
    shown = dict(seen.shown)
    assert not step(seen, cut(now_known), heard + UNKNOWN_SECONDS)
    assert seen.shown == shown, "last known"
    ended = step(seen, cut(now_known), heard + 600.0)
    assert {(each.kind, each.node) for each in ended if isinstance(each, Phase) and each.name == NONE} == shown.keys()
    assert {each.at for each in ended if isinstance(each, Phase)} == {heard}, "until then it was known"
    assert (seen.shown, seen.conditions, seen.known_nodes, seen.failing()) == ({}, {}, False, {})
    assert set(seen.progress().values()) == {None}
    assert not step(seen, cut(now_known), heard + 700.0)
    back = step(seen, {name: each._replace(heard=heard + 800.0) for name, each in now_known.items()}, heard + 800.0)
    assert [each for each in back if isinstance(each, Gap)] == [Gap(heard, heard + 800.0)]
    assert {(each.kind, each.node): (each.name, each.rolls) for each in back if isinstance(each, Phase)} == shown


def test_what_happened_while_nothing_was_heard_lies_between() -> None:
    seen, now_known, heard = in_a_round()
    step(seen, cut(now_known), heard + 600.0)
    _, later, _ = list(told("sdn-to-ovn-live"))[7]
    back = step(seen, {name: each._replace(heard=heard + 800.0) for name, each in later.items()}, heard + 800.0)
    reboots = [each for each in back if isinstance(each, Event) and each.name == "reboot"]
    assert reboots
    assert {(each.earliest, each.latest) for each in reboots} == {(heard, heard + 800.0)}


def test_what_was_open_at_a_restart_lasts_until_it_is_known_better_or_unknown() -> None:
    seen, now_known, heard = in_a_round()
    nothing = {name: Known() for name in now_known}
    after = Seen(heard + 50.0, seen.shown, unpack(pack(seen.memory())))
    assert not step(after, nothing, heard + 51.0, heard + 50.0)
    assert after.shown == seen.shown
    ended = step(after, nothing, heard + 51.0 + UNKNOWN_SECONDS, heard + 50.0)
    assert {each.at for each in ended if isinstance(each, Phase)} == {heard}
    assert after.shown == {}


def test_while_a_watch_is_interrupted_what_was_last_known_stays() -> None:
    steps = list(told("ovnk-rollout"))
    seen = fresh()
    for _, now_known, now in steps[:5]:
        step(seen, now_known, now)
    shown = dict(seen.shown)
    _, after, now = steps[5]
    behind = {
        **after,
        "clusteroperators/network": steps[4][1]["clusteroperators/network"]._replace(up=False, heard=now),
    }
    assert not step(seen, behind, now)
    assert seen.shown == shown
    assert phases(step(seen, after, now + 1), "rollout") == ["control plane roll-out"]


def test_of_a_kind_that_is_not_known_as_a_whole_nothing_is_said() -> None:
    _, now_known, now = list(told("ovnk-rollout"))[2]
    for name in NEEDS["rollout"]:
        seen = fresh()
        assert not phases(step(seen, {**now_known, name: Known()}, now), "rollout")
        assert "rollout" not in seen.states


def test_what_a_cluster_does_not_have_is_no_obstacle() -> None:
    objects = [each for each in list(moments("node-reboot-plain"))[1][1] if each["kind"] == "Node"]
    now_known = known(objects, {}, BEGIN)
    now_known |= {
        name: Known(heard=BEGIN, absent=True)
        for name, each in now_known.items()
        if not each.objects and name != "nodes"
    }
    seen = fresh()
    assert phases(step(seen, now_known, BEGIN), NODE) == ["cordoned"]
    assert seen.states.keys() == KINDS.keys()


def test_a_node_that_is_deleted_is_in_no_phase() -> None:
    _, now_known, now = list(told("node-reboot-plain"))[1]
    seen = fresh()
    step(seen, now_known, now)
    left = {key: each for key, each in now_known["nodes"].objects.items() if key[1] != "edge-wk-1"}
    gone = {**now_known, "nodes": Known(left, now + 1, up=True)}
    assert phases(step(seen, gone, now + 1), NODE) == [NONE]
    assert "edge-wk-1" not in seen.nodes


def test_events_that_were_not_saved_are_recalled() -> None:
    steps = list(told("node-reboot-plain"))
    seen = fresh()
    for _, now_known, now in steps[:6]:
        step(seen, now_known, now)
    memory = pack(seen.memory())
    _, now_known, now = steps[6]
    (event,) = step(seen, now_known, now)
    assert isinstance(event, Event)
    after = Seen(now, seen.shown, unpack(memory))
    after.recall(event.more, event.node, event.latest)
    assert not step(after, now_known, now + 1)


@cache
def seventh() -> tuple[Objects, dict[str, Known], float]:
    return next(islice(told("sdn-to-ovn-live"), 6, None))


@given(st.permutations(range(len(RESOURCES))))
def test_the_order_in_which_resources_are_known_at_first_does_not_matter(order: list[int]) -> None:
    _, whole, now = seventh()
    seen, have = fresh(), {name: Known() for name in whole}
    changes: list[Change] = []
    for number in order:
        name = RESOURCES[number].name
        have[name] = whole[name]
        changes += step(seen, have, now)
    assert phases(changes, "sdn_live") == ["routable MTU round"]


def test_the_rules_name_what_is_watched_and_nothing_that_holds_a_secret() -> None:
    found = rules()
    assert len(found) == len(RESOURCES)
    assert {(group, plural) for group, plural, _ in found} == {
        ("", "nodes"), ("apps", "daemonsets"), ("apps", "deployments"), ("config.openshift.io", "clusteroperators"),
        ("config.openshift.io", "clusterversions"), ("config.openshift.io", "networks"),
        ("operator.openshift.io", "networks"), ("machineconfiguration.openshift.io", "machineconfigpools"),
        ("k8s.ovn.org", "egressips"),
    }  # fmt: skip
