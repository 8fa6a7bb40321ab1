"""Every query of every board finds something in a Prometheus that watched a migration of a real OVN."""

import asyncio
import json
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from scraped import Samples
from test_lab import NEEDS, prefix
from watched_lab import migrate, watched

from grafana import asking
from grafana.asking import Asked

pytestmark = [
    pytest.mark.needs_root(*NEEDS),
    pytest.mark.system("prometheus", "prometheus-alertmanager"),
    pytest.mark.slow,
]

BOARDS = {
    file.stem: json.loads(file.read_text())
    for file in sorted((Path(__file__).parents[1] / "grafana/dashboards").glob("*.json"))
}
PAUSE = 4.0  # seconds between the steps of the migration
STEP = 2
BEFORE = 20  # seconds that are compared with
RATE = {"__rate_interval": "10s", "before": f"{BEFORE}s"}
# What the lab cannot have, and why. Nothing else may find nothing.
KERNEL = "OVS' datapath of the kernel is not in the lab's kernel; its own has no such table"
EXCEPTED = {
    ("ovs", "Masks in the datapath"): KERNEL,
    ("ovs", "Polling threads, busy share"): "a thread of OVS' own polls only with DPDK",
    ("network", "VLANs"): "the lab's kernel has no VLANs",
    ("itself", "Stopped by a CPU quota"): "the lab's kernel counts no throttling outside a cgroup with a quota",
}
SHARE = 0.05  # of all panels that may be excepted


class Found(NamedTuple):
    """A query of a board and what it found."""

    board: str
    query: Asked
    samples: Samples


async def look(folder: Path, name: str) -> list[Found]:
    async with watched(folder, name) as lab:
        began = time.time()
        await migrate(lab, PAUSE)
        await lab.prometheus.until("max(target:ovnwatch_outage_seconds:increase2m) > 0")
        await asyncio.sleep(BEFORE)
        at = time.time()
        seconds = int(at - began)
        return [
            Found(
                board, query, await lab.prometheus.ask(query.expr, at, 0 if query.instant else seconds, step=query.step)
            )
            for board, document in BOARDS.items()
            for query in asking.asked(document, seconds, STEP, RATE)
        ]


def test_every_panel_shows_something_of_a_migration(tmp_path: Path, subtests: pytest.Subtests) -> None:
    found = asyncio.run(look(tmp_path, prefix("b")))
    empty = {(each.board, each.query.panel): each.query for each in found if not each.samples}
    assert [f"{board}: {query.name}: {query.expr}" for (board, panel), query in empty.items()
            if (board, panel) not in EXCEPTED] == []  # fmt: skip
    assert empty.keys() == EXCEPTED.keys()
    for claim in CLAIMS:
        with subtests.test(claim.__name__):
            claim(found)


def test_few_panels_are_excepted() -> None:
    panels = {(board, panel["title"]) for board, document in BOARDS.items() for panel in asking.panels(document)}
    assert EXCEPTED.keys() <= panels
    assert len(EXCEPTED) <= SHARE * len(panels)


def of(found: list[Found], board: str, name: str) -> Samples:
    """What a query found, by its panel's title and its letter."""
    (one,) = (each.samples for each in found if (each.board, each.query.name) == (board, name))
    return one


def nodes_have_their_names(found: list[Found]) -> None:
    told = {labels["k8s_node"] for labels, _ in of(found, "ovs", "Flows in the datapath A")}
    assert told >= {"ch1", "ch2", "ch3"}  # and what they were called before


def the_turn_of_a_node_that_was_interrupted_cost_seconds(found: list[Found]) -> None:
    turns = {labels["k8s_node"] for labels, _ in of(found, "migration", "Turns of nodes A")}
    assert turns >= {"ch1", "ch2", "ch3"}
    lost = {labels["k8s_node"]: values[-1] for labels, values in of(found, "migration", "Nodes C")}
    assert lost["ch2"] > 1.0


def a_restart_is_counted_where_it_was(found: list[Found]) -> None:
    started = {labels["k8s_node"]: values[-1] for labels, values in of(found, "migration", "Nodes E")}
    assert started["ch2"] == 3
    assert started["ch1"] == started["ch3"] == 0


def the_egress_address_is_on_two_chassis_one_after_the_other(found: list[Found]) -> None:
    lines = of(found, "ovn", "Egress addresses, where they are A")
    assert len({labels["chassis"] for labels, _ in lines if labels["external"].endswith(".150")}) == 2
    assert of(found, "ovn", "Moves in the range A")[0][1][-1] > 0


CLAIMS = (
    nodes_have_their_names,
    the_turn_of_a_node_that_was_interrupted_cost_seconds,
    a_restart_is_counted_where_it_was,
    the_egress_address_is_on_two_chassis_one_after_the_other,
)
