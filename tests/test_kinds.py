"""Phases of recorded API histories, moment by moment: what an observer should say is written beside them."""

from itertools import pairwise

import pytest
from histories import moments

from exporters.migration.kinds import KINDS, Node, State, cni_swap, egress, moves, node, rollout
from exporters.migration.names import NONE


def turns(story: str) -> dict[str, list[tuple[str, bool]]]:
    """By node, its phase at each moment and whether it had just booted."""
    before: dict[str, Node] = {}
    told: dict[str, list[tuple[str, bool]]] = {}
    for _, objects in moments(story):
        for each in objects:
            if each["kind"] == "Node":
                name = each["metadata"]["name"]
                before[name] = node(each, before.get(name))
                told.setdefault(name, []).append((before[name].phase, before[name].rebooted))
    return told


def test_a_reboot_by_the_machine_config_operator() -> None:
    told = turns("node-reboot")
    changed = {name: states for name, states in told.items() if any(phase != NONE for phase, _ in states)}
    assert [[phase for phase, _ in states] for states in changed.values()] == [
        [NONE, "update pending", "draining", "drained", "down", "down", "booted, not ready", "ready, cordoned", NONE]
    ]
    assert [rebooted for _, rebooted in next(iter(changed.values()))].count(True) == 1


def test_a_reboot_by_hand_and_one_that_only_the_boot_id_shows() -> None:
    told = turns("node-reboot-plain")
    assert [phase for phase, _ in told["edge-wk-1"]] == [
        NONE, "cordoned", "down", "booted, not ready", "ready, cordoned", NONE, NONE
    ]  # fmt: skip
    assert told["edge-wk-2"] == [(NONE, False)] * 6 + [(NONE, True)]


NODES = State("node roll-out", 0.0, rolls=True)
NOT_YET, CONTROL = State("cluster update, network not yet"), State("control plane roll-out")
DONE = State("cluster update, network done")


@pytest.mark.parametrize(
    ("story", "states"),
    [
        (
            "ovnk-rollout",
            [State(), NOT_YET, NODES, NODES._replace(progress=2 / 6), NODES._replace(progress=5 / 6), CONTROL, DONE,
             State()],
        ),
        (
            "ovnk-rollout-hung",
            [State(), NOT_YET, NODES, NODES._replace(progress=2 / 6), State("node roll-out, hung", 2 / 6, rolls=True),
             NODES._replace(progress=3 / 6), CONTROL, DONE, State()],
        ),
    ],
)  # fmt: skip
def test_a_rollout(story: str, states: list[State]) -> None:
    assert [rollout(objects) for _, objects in moments(story)] == states


def test_a_swap_of_the_network() -> None:
    new = State("new CNI roll-out", 0.0)
    assert [cni_swap(objects) for _, objects in moments("cni-swap")] == [
        State(), State("old CNI removed"), State("no CNI", 0.0), new, new, new._replace(progress=2 / 6),
        new._replace(progress=5 / 6), State("completed", 1.0), State()
    ]  # fmt: skip


@pytest.mark.parametrize("story", ["egressip", "node-reboot", "node-reboot-plain", "discovery"])
def test_what_a_cluster_does_not_do_is_absent(story: str) -> None:
    for number, objects in moments(story):
        assert {kind: read(objects, NONE).phase for kind, read in KINDS.items()} == dict.fromkeys(KINDS, NONE), number


def story(name: str, kind: str) -> list[str]:
    """The phases of a kind, each told what was before."""
    told: list[str] = []
    for _, objects in moments(name):
        told.append(KINDS[kind](objects, told[-1] if told else NONE).phase)
    return told


def test_a_live_migration_from_openshift_sdn() -> None:
    rounds = ["routable MTU round"] * 3
    switch = ["CNI switch round"] * 3
    assert story("sdn-to-ovn-live", "sdn_live") == [
        NONE, "requested", "target CNI deploying", "target CNI deploying", "routable MTU requested", *rounds,
        "routable MTU ready", "CNI switch requested", *switch, "target CNI in use", "purging the original CNI",
        "completed"
    ]  # fmt: skip
    assert set(story("sdn-to-ovn-live", "mtu")) == {NONE}


def test_a_change_of_the_mtu() -> None:
    assert story("mtu-migration", "mtu") == [
        NONE, "requested", "first round preparing", "first round", "first round", "waiting for the administrator",
        "second round preparing", "second round", "completed"
    ]  # fmt: skip
    assert set(story("mtu-migration", "sdn_live")) == {NONE}


def test_egress_addresses_move_and_do_not_move_back() -> None:
    seen = [egress(objects) for _, objects in moments("egressip")]
    short = [
        [(name, address[-3:], *(node.partition(".")[0] for node in nodes)) for name, address, *nodes in moved]
        for moved in (moves(*pair) for pair in pairwise(seen))
    ]
    assert short == [
        [("billing", "101", "wk-0", ""), ("mail-out", "110", "wk-0", "wk-1")],
        [],
        [("billing", "101", "", "wk-2")],
        [],
        [("billing", "102", "wk-1", "wk-0"), ("mail-out", "110", "wk-1", "wk-2")],
    ]


def test_a_swap_is_no_rollout_and_a_rollout_no_swap() -> None:
    assert {rollout(objects).phase for _, objects in moments("cni-swap")} == {NONE}
    assert {cni_swap(objects).phase for _, objects in moments("ovnk-rollout")} == {NONE}


@pytest.mark.parametrize("kind", KINDS)
def test_without_objects_there_is_no_phase(kind: str) -> None:
    assert KINDS[kind]([], NONE) == State()


def test_an_object_without_fields_is_no_bug() -> None:
    assert node({"kind": "Node", "metadata": {"name": "a", "annotations": None}}, None).phase == "down"
