"""OVN's daemons and databases: what is not in captures, daemons that are gone, and a whole OVN in a lab."""

from collections.abc import Callable

import pytest

from exporters.node.failing import GarbledError
from exporters.node.ovn import controller, daemons, raft
from exporters.node.rows import Row


def test_a_newer_engine_says_cancel_and_parts_that_only_read_are_left_out() -> None:
    told = "".join(
        f"Node: {name}\n- recompute: 3\n- compute: 2\n- cancel: 1\n" for name in ("SB_chassis", "runtime_data")
    )
    rows = list(daemons.engine_rows("ovn-controller", daemons.engine(told)))
    assert {row.labels[1:]: row.value for row in rows} == {
        ("runtime_data", "recompute"): 3,
        ("runtime_data", "compute"): 2,
        ("runtime_data", "cancel"): 1,
    }


def test_a_stopwatch_says_its_unit_and_one_that_never_ran_has_no_times() -> None:
    lines = ["Maximum: 7 usec", "Minimum: 0 usec", "95th percentile: 1.5 usec", "Short term average: 0.0 usec"]
    block = "".join(f"  {each}\n" for each in (*lines, "Long term average: 0.0 usec"))
    told = f"Statistics for 'a'\n  Total samples: 2\n{block}Statistics for 'b'\n  Total samples: 0\n{block}"
    rows = {(row.name, row.labels[1]): row.value for row in daemons.stopwatch_rows("d", daemons.stopwatches(told))}
    assert rows["ovnwatch_ovn_stopwatch_most_seconds", "a"] == pytest.approx(7e-6)
    assert [name for name, stopwatch in rows if stopwatch == "b"] == ["ovnwatch_ovn_stopwatch_samples_total"]


@pytest.mark.parametrize(
    "read", [daemons.engine, daemons.stopwatches, daemons.connected, daemons.northd_state, controller.cache, raft.parse]
)
@pytest.mark.parametrize("text", ["nonsense\n", "Node: x\n- recompute: 1\n", "Statistics for 'a'\n", "Role: leader\n"])
def test_nonsense_is_garbled(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(GarbledError):
        read(text)


def test_another_leader_is_a_change_and_nobody_leading_is_none() -> None:
    led = raft.step(None, "aaaa", 1.0)
    for leader, now in (("aaaa", 2.0), ("", 3.0), ("aaaa", 4.0)):
        led = raft.step(led, leader, now)
    assert led == raft.Led("aaaa", 0, None)
    led = raft.step(raft.step(led, "", 5.0), "bbbb", 6.0)
    assert led == raft.Led("bbbb", 1, 6.0)
    assert raft.step(raft.step(None, "", 1.0), "aaaa", 2.0).changes == 0


def bfd(enable: str, state: str, ofport: object = 3) -> Row:
    row = {"type": "geneve", "bfd": {"enable": enable}, "bfd_status": {"state": state}, "ofport": ofport, "error": []}
    found = controller.tunnel("ch2", row)
    return Row("", (), found.up)


def test_a_tunnel_is_up_by_its_bfd_or_else_if_it_could_be_made() -> None:
    assert bfd("true", "up").value
    assert not bfd("true", "down").value
    assert bfd("false", "").value
    assert not bfd("false", "", -1).value
    assert not bfd("true", "up", []).value
