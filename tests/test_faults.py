"""What a real prober says of real interruptions between network namespaces, against when they truly happened.

Many lanes at once, each with a server, a prober (http, tcp and ws, IPv4 and IPv6) and its own random plan of all
faults. Times are printed; what must hold on any machine is asserted: every interruption long enough is seen and in its
own book, the bounds hold the truth, and nothing is seen that was not there.
"""

import json
import math
import os
import sys
import time
from dataclasses import asdict, replace

import pytest
from faults import Prober, Row, Table, any_of, carry_out, judge, plan

from exporters.calibrate.faults import FAULTS
from exporters.calibrate.injection import Bracket
from exporters.calibrate.namespaces import Lane, lanes
from exporters.probing.stall import GAP
from exporters.settings import Stream
from exporters.targets import PORTS, Protocol

INJECTIONS = int(os.environ.get("OVNWATCH_INJECTIONS", "20"))  # of each fault
LANES = 10
TIMES = {"http": (0.5, 0.15), "tcp": (0.1, 0.06), "ws": (0.1, 0.06)}  # T and R of a peer
SHARP = 0.05  # seconds an edge of the truth may be uncertain
AFTERMATH = 1.0  # seconds after an interruption in which a busy server still makes it look longer
ASKED = 0.75  # of the injections, so many at least must be worth judging
LATE = GAP  # a probe may leave so much after its grid point before that is told as a stall
BRIEF = 0.3  # seconds; a server that answers one question so late was busy, and says nothing of the network
RETRANSMITTED = 0.3  # seconds after which a lost heartbeat has been sent again, and lost again if the flow is gone
PEER = [sys.executable, "-m", "tests.echo_peer"]

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]


@pytest.fixture(scope="module")
def table() -> Table:
    """All faults, injected on all lanes and judged; what looks wrong, only where the truth is known well enough."""
    total = Table((), ())
    repeats = math.ceil(INJECTIONS / LANES)
    with lanes("owfaults", LANES) as all_lanes:
        probers = []
        for lane in all_lanes:
            lane.start_server(PEER, list(PORTS.values()))
            streams = [stream(lane, protocol, family) for protocol in PORTS for family in (4, 6)]
            probers.append((streams, Prober(lane, prober(streams))))
        time.sleep(3)  # every stream has been up for a while
        plans = [
            (lane, plan(FAULTS, repeats, any_of(0.12, 0.3, 1.0, 2.0), seed=number))
            for number, lane in enumerate(all_lanes)
        ]
        # A fault that did not take effect is no measurement; a few more than asked for make up for it.
        for (streams, running), done in zip(probers, carry_out(plans, limit=60 * repeats * len(FAULTS)), strict=True):
            lines = running.finish()
            stalls = [(each["begin"], each["end"]) for each in lines if each["kind"] == "stall"]
            judged = judge(done.injections, lines, [each.key for each in streams], done.voids)
            clear = [row for row in judged.rows if well(row) or (known(row, done.voids) and not hidden(row, stalls))]
            print(
                f"{len(done.injections)} injected, {len(clear)} of {len(judged.rows)} rows are worth judging,",
                f"prober stalled {sum(end - begin for begin, end in stalls):.3f} s",
                *done.reasons,
            )
            total += replace(judged, rows=tuple(clear))
    print(total)
    return total


def stream(lane: Lane, protocol: Protocol, family: int) -> Stream:
    interval, prompt = TIMES[protocol]
    address = lane.addresses["server", 4 if family == 4 else 6]
    return Stream(lane.name, "server", "pod", protocol, family, address, PORTS[protocol], interval, prompt, 3.0)


def prober(streams: list[Stream]) -> list[str]:
    return [sys.executable, "-m", "tests.prober", json.dumps([asdict(each) for each in streams])]


def well(row: Row) -> bool:
    return row.held if row.seen else not must_be_seen(row)


def known(row: Row, voids: list[Bracket]) -> bool:
    """Is the truth sharp, and was the server never kept from running meanwhile, which is an interruption too?"""
    start, end = row.injection.start, row.injection.end
    sharp = max(start.after - start.before, end.after - end.before) <= SHARP
    return sharp and not any(void.after > start.before and void.before < end.after + AFTERMATH for void in voids)


def hidden(row: Row, stalls: list[tuple[float, float]]) -> bool:
    """Could a stall of the prober's own have hidden it? Then nobody can be asked to have seen it."""
    return any(end > row.injection.start.before and begin < row.injection.end.after for begin, end in stalls)


def must_be_seen(row: Row) -> bool:
    interval, prompt = TIMES[row.protocol]
    if row.injection.expectation == "break":
        instant = row.injection.kind == "flow_reset"
        return row.protocol != "http" and (instant or row.injection.shortest >= interval + RETRANSMITTED)
    return row.injection.shortest >= interval + LATE + (prompt if row.injection.expectation == "frozen" else 0)


@pytest.mark.parametrize("protocol", PORTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_every_interruption_long_enough_is_seen_in_its_own_book(table: Table, kind: str, protocol: str) -> None:
    rows = [row for row in table.rows if row.injection.kind == kind and row.protocol == protocol]
    assert len(rows) >= ASKED * INJECTIONS, "the machine was too busy, or too few injections took effect"
    assert [row for row in rows if must_be_seen(row) and not row.seen] == []


@pytest.mark.parametrize("protocol", PORTS)
def test_the_bounds_hold_the_truth(table: Table, protocol: str) -> None:
    seen = [row for row in table.rows if row.protocol == protocol and row.seen]
    wrong = [(row.injection, row.events) for row in seen if not row.held]
    assert len(wrong) <= 0.01 * len(seen), wrong


def test_nothing_is_seen_that_was_not_there(table: Table) -> None:
    """A moment in which the server was slow to answer was there, though nobody injected it: it is no outage."""
    busy = [each for each in table.false if each["kind"] == "frozen" and each["duration"]["upper"] < BRIEF]
    assert [each for each in table.false if each not in busy] == []
    assert len(busy) <= 0.01 * len(table.rows)


def test_a_break_of_flows_is_no_outage_to_fresh_connections(table: Table) -> None:
    http = [row for row in table.rows if row.protocol == "http" and row.injection.expectation == "break"]
    assert http
    assert [row for row in http if row.seen or row.beside] == []
