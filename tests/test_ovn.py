"""OVN's daemons and databases: what is not in captures, daemons that are gone, and a whole OVN in a lab."""

import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fake_daemon import daemon
from hypothesis import given
from hypothesis import strategies as st

from exporters import catalog
from exporters.node.failing import GarbledError
from exporters.node.host import Host, Paths
from exporters.node.links import Links
from exporters.node.ovn import controller, daemons, raft, remote, watch
from exporters.node.ovn import replica as replicas
from exporters.node.ovn.moves import Moves
from exporters.node.ovn.northbound import Northbound
from exporters.node.ovn.remote import Files
from exporters.node.ovn.replica import NUMBER, OPTIONAL, SET, TEXT, Replica, lacking, options, request
from exporters.node.ovn.southbound import Southbound
from exporters.node.ovn.watch import Watch
from exporters.node.rows import Row, tables
from exporters.node.scrape import Scrape


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


# --- what the databases hold

SHAPE = {"T": {"name": TEXT, "many": SET, "at": OPTIONAL, "map": options("a")}, "N": {"number": NUMBER}, "Counted": {}}


def row(replica: Replica) -> tuple[object, ...]:
    return replica.rows["T"]["1"]


def test_what_is_modified_in_a_set_or_map_is_a_difference_and_else_the_new_value() -> None:
    replica = Replica(SHAPE)
    one, other = ["uuid", "x"], ["uuid", "y"]
    replica.apply({"T": {"1": {"initial": {"name": "n", "many": ["set", [one, other]], "at": one}}}})
    assert row(replica) == ("n", {"x", "y"}, "x", {})
    replica.apply({"T": {"1": {"modify": {"many": one, "at": ["set", []], "map": ["map", [["a", "1"], ["b", "2"]]]}}}})
    assert row(replica) == ("n", {"y"}, None, {"a": "1"})
    replica.apply({"T": {"1": {"modify": {"name": "m", "at": other, "map": ["map", [["a", "3"]]]}}}})
    assert row(replica) == ("m", {"y"}, "y", {"a": "3"})
    replica.apply({"T": {"1": {"modify": {"map": ["map", [["a", "3"]]]}}}})
    assert row(replica)[3] == {}


def test_a_table_without_columns_is_counted_and_nothing_of_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "MOST_ROWS", 10)
    assert request(SHAPE)["Counted"] == [{"columns": [], "select": {"initial": False, "modify": False}}]
    replica = Replica(SHAPE)
    replica.counted("Counted", [{"rows": [{}] * 1000}])
    assert replica.apply({"Counted": {"1": {"insert": {}}, "2": {"insert": {}}}}) == {"Counted"}
    replica.apply({"Counted": {"1": {"delete": None}}})
    assert replica.count("Counted") == 1001
    wrongs: list[object] = [None, [], [{"error": "no"}], [{"rows": {}}]]
    for wrong in wrongs:
        with pytest.raises(GarbledError):
            replica.counted("Counted", wrong)


@pytest.mark.parametrize(
    "updates",
    [
        [],
        {"X": {}},
        {"T": []},
        {"T": {"1": {"modify": {}}}},
        {"T": {"1": {"delete": None}}},
        {"T": {"1": None}},
        {"T": {"1": {"initial": {"map": "text"}}}},
        {"T": {"1": {"initial": {"name": ["set", ["a", "b"]]}}}},
        {"T": {"1": {"initial": {"name": ["set", []]}}}},
        {"T": {"1": {"initial": {"name": 1}}}},
        {"N": {"1": {"initial": {"number": "1"}}}},
        {"N": {"1": {"initial": {"number": True}}}},
        {"N": {"1": {"initial": {"number": 1 << 70}}}},
    ],
)
def test_updates_that_make_no_sense_are_garbled(updates: object) -> None:
    with pytest.raises(GarbledError):
        Replica(SHAPE).apply(updates)


ATOMS = st.one_of(st.text(), st.booleans(), st.integers(), st.floats(), st.just(10**400))
VALUES = st.one_of(
    ATOMS,
    st.lists(ATOMS, max_size=2).map(lambda each: ["set", each]),
    st.text().map(lambda each: ["uuid", each]),
    st.dictionaries(st.text(), ATOMS, max_size=2).map(lambda each: ["map", [*map(list, each.items())]]),
)


@pytest.mark.parametrize("make", [Northbound, Southbound])
@given(data=st.data())
def test_a_database_of_odd_values_is_garbled_or_gives_rows_that_a_page_can_have(
    make: Callable[[], Northbound | Southbound], data: st.DataObject
) -> None:
    """A server's answer, whatever it is, costs its own collector at most."""
    view, known = make(), catalog.exported()
    replica = Replica(view.shape)
    with suppress(GarbledError):
        for change in ("initial", "modify"):
            for table in (table for table, columns in view.shape.items() if columns):
                wanted = st.fixed_dictionaries({}, optional=dict.fromkeys(view.shape[table], VALUES))
                replica.apply({table: {"1": {change: data.draw(wanted)}}})
            view.look(replica, 1.0, 1.0)
            for each in tables(view.rows(replica, 2.0), known):
                assert all(math.isfinite(value) for _, value in each.rows())


def test_what_a_schema_lacks_is_named() -> None:
    schema: object = {
        "tables": {"T": {"columns": {"name": {}, "many": {}, "map": {}}}, "N": {"columns": {"number": {}}}}
    }
    assert list(lacking(SHAPE, schema)) == ["column T.at", "table Counted"]


def test_a_move_is_another_holder_also_after_a_gap() -> None:
    moves = Moves()
    for now, holders in enumerate([{"a"}, {"a"}, set(), {"a"}, {"a", "b"}, {"b"}, set(), {"c"}]):
        moves.look({"thing": holders}, float(now))
    assert (moves.count, moves.last) == (2, 7.0)
    moves.look({"thing": {"c"}, "new": {"a"}}, 8.0)
    assert moves.count == 2


def southbound(number: int, chassis: int) -> Replica:
    replica = Replica(Southbound.shape)
    replica.apply({"SB_Global": {"g": {"initial": {"nb_cfg": number}}}})
    replica.apply({"Chassis_Private": {"1": {"initial": {"name": "ch1", "nb_cfg": chassis, "nb_cfg_timestamp": 1500}}}})
    return replica


def test_the_lag_of_a_chassis_is_since_a_later_configuration_was_wanted() -> None:
    view, replica = Southbound(), southbound(5, 4)
    view.look(replica, 7000.0, 100.0)
    replica.apply({"SB_Global": {"g": {"modify": {"nb_cfg": 6}}}})
    view.look(replica, 3000.0, 110.0)  # somebody set the clock

    def lag(steady: float) -> float:
        return next(row.value for row in view.rows(replica, steady) if row.name == "ovnwatch_ovn_chassis_lag_seconds")

    assert lag(112.0) == 12.0
    replica.apply({"Chassis_Private": {"1": {"modify": {"nb_cfg": 5}}}})
    assert lag(112.0) == 2.0
    replica.apply({"Chassis_Private": {"1": {"modify": {"nb_cfg": 6}}}})
    assert lag(112.0) == 0.0


def test_only_the_chassis_most_behind_are_shown_one_by_one() -> None:
    view, replica = Southbound(shown=1), southbound(2, 2)
    replica.apply({"Chassis_Private": {"2": {"initial": {"name": "ch2", "nb_cfg": 1}}}})
    view.look(replica, 1.0, 1.0)
    rows = [row for row in view.rows(replica, 3.0) if row.name.startswith("ovnwatch_ovn_chassis")]
    assert {row.labels[0] for row in rows if row.labels} == {"ch2"}
    assert next(row.value for row in rows if row.name == "ovnwatch_ovn_chassis_behind") == 1


def test_a_chassis_is_on_the_host_that_its_row_names_and_on_none_once_that_has_gone() -> None:
    view, replica = Southbound(), southbound(2, 2)

    def hosts() -> list[tuple[str, ...]]:
        return [row.labels for row in view.rows(replica, 3.0) if row.name == "ovnwatch_ovn_chassis_info"]

    assert hosts() == [("ch1", "")]
    replica.apply({"Chassis": {"c": {"initial": {"name": "ch1", "hostname": "worker-1"}}}})
    replica.apply({"Chassis_Private": {"1": {"modify": {"chassis": ["uuid", "c"]}}}})
    assert hosts() == [("ch1", "worker-1")]
    replica.apply({"Chassis": {"c": {"delete": None}}})
    assert hosts() == [("ch1", "")]


def test_addresses_may_be_hashed_and_a_balancer_without_backends_is_counted() -> None:
    view, replica = Northbound(hashed=True), Replica(Northbound.shape)
    nat = {"type": "snat", "external_ip": "192.0.2.1", "logical_ip": "10.0.0.1"}
    replica.apply({"NAT": {"n": {"initial": nat}}})
    replica.apply({"Logical_Router": {"r": {"initial": {"name": "gr", "nat": ["uuid", "n"]}}}})
    replica.apply({"Load_Balancer": {"l": {"initial": {"vips": ["map", [["a:1", ""], ["b:1", "c:1"]]]}}}})
    rows = {row.name: row for row in view.rows(replica, 1.0)}
    assert "192.0.2.1" not in rows["ovnwatch_ovn_snat_info"].labels
    assert rows["ovnwatch_ovn_load_balancer_addresses_unserved"].value == 1
    replica.apply({"Load_Balancer": {"l": {"modify": {"vips": ["map", [["a:1", "d:1"], ["b:1", "c:1"]]]}}}})
    rows = {row.name: row for row in view.rows(replica, 1.0)}
    assert rows["ovnwatch_ovn_load_balancer_addresses"].value == 1
    assert rows["ovnwatch_ovn_load_balancer_addresses_unserved"].value == 0


def test_addresses_of_databases() -> None:
    told = "unix:/run/ovn/ovnsb_db.sock,tcp:192.0.2.1:6642,ssl:[fd00::1]:6642"
    assert ",".join(map(str, remote.parse(told))) == told
    for wrong in ("", "tcp:host", "unix:db.sock", "tcp:host:0", "tcp:host:70000", "http:host:1"):
        with pytest.raises(ValueError, match="want unix"):
            remote.parse(wrong)


def test_the_last_daemon_of_a_folder_that_ends_fails_alone(tmp_path: Path) -> None:
    names = ("ovn-controller", "ovn-northd", "ovn-servers", "ovn-southbound")
    paths = Paths(root=tmp_path, proc=tmp_path, ovs=str(tmp_path), ovn=str(tmp_path))
    scrape = Scrape(Host(paths, Links()), names, 5.0, catalog.exported())

    def failing() -> set[str]:
        return {name for name, each in scrape.run(told=False).items() if each.failure}

    try:
        assert failing() == set(names), "nothing of OVN is where somebody said that it is"
        (tmp_path / "ovn-controller.pid").write_text("77\n")
        assert failing() == {"ovn-controller"}
        (tmp_path / "ovn-controller.pid").unlink()
        assert failing() == {"ovn-controller"}
    finally:
        scrape.host.close()


def test_a_server_that_never_answers_does_not_keep_a_watch_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 60.0)
    asked, enough = threading.Event(), threading.Event()

    def talk(caller: socket.socket) -> None:
        caller.recv(1)
        asked.set()
        enough.wait(60)

    with daemon(tmp_path / "s", talk):
        watching = Watch(Northbound(), remote.parse(f"unix:{tmp_path}/s"), Files())
        assert asked.wait(30)
        began = time.monotonic()
        watching.close()
        took = time.monotonic() - began
        enough.set()
    print(f"ended after {took:.2f} s")
    assert took < 30
