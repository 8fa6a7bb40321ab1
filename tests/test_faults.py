"""What a real prober says of real interruptions between network namespaces, against when they truly happened.

Many lanes at once, each with a server, a prober (http, tcp and ws, IPv4 and IPv6) and its own random plan of all
faults. Times are printed; what must hold on any machine is asserted: every interruption long enough is seen and in its
own book, the bounds hold the truth, and nothing is seen that was not there.
"""

import os

import pytest

from exporters.calibrate.command import INTERVALS
from exporters.calibrate.faults import FAULTS
from exporters.calibrate.judge import Table
from exporters.calibrate.measure import Wanted, measure, prompt
from exporters.calibrate.plan import any_of
from exporters.calibrate.promises import Times, broken, busy, due
from exporters.calibrate.report import Said, text
from exporters.targets import PORTS, PROTOCOLS

INJECTIONS = int(os.environ.get("OVNWATCH_INJECTIONS", "20"))  # of each fault
ASKED = 0.25  # of the rows, so many at least must be worth judging
TIMES: dict[str, Times] = {each: Times(INTERVALS[each], prompt(INTERVALS[each])) for each in PROTOCOLS}

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]


@pytest.fixture(scope="module")
def table() -> Table:
    """All faults, injected on all lanes and judged; only what the truth is known of."""
    wanted = Wanted(
        PROTOCOLS, tuple(FAULTS), INTERVALS, seed=7, injections=INJECTIONS, lengths=any_of(0.12, 0.3, 1.0, 2.0)
    )
    measured = measure("namespaces", wanted)
    found = broken(measured.table, TIMES, measured.stalled)
    print(text(Said("namespaces", wanted, measured, TIMES, found)))
    return measured.table


@pytest.mark.parametrize("protocol", PORTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_every_interruption_long_enough_is_seen_in_its_own_book(table: Table, kind: str, protocol: str) -> None:
    rows = [row for row in table.rows if row.injection.kind == kind and row.protocol == protocol]
    known = [row for row in rows if row.known]
    assert len(known) >= ASKED * len(rows) >= ASKED * INJECTIONS, "the machine was too busy"
    missed = [row for row in known if due(row, TIMES[row.protocol]) and not row.seen]
    assert [row for row in missed if not row.beside] == []
    assert len(missed) <= 1  # on a busy machine a fresh connection may come so late that a short one looks like a break


@pytest.mark.parametrize("protocol", PORTS)
def test_the_bounds_hold_the_truth(table: Table, protocol: str) -> None:
    seen = [row for row in table.rows if row.protocol == protocol and row.known and row.seen]
    wrong = [(row.injection, row.events) for row in seen if not (row.held and row.edges)]
    assert len(wrong) <= 0.01 * len(seen), wrong


def test_nothing_is_seen_that_was_not_there(table: Table) -> None:
    """A moment in which the server was slow to answer was there, though nobody injected it: it is no outage."""
    assert [each for each in table.false if not busy(each)] == []
    assert len(table.false) <= 0.01 * len(table.rows)


def test_a_break_of_flows_is_no_outage_to_fresh_connections(table: Table) -> None:
    http = [row for row in table.rows if row.protocol == "http" and row.injection.expectation == "break"]
    assert http
    assert [row for row in http if row.known and (row.seen or row.beside)] == []
