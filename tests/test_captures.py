"""What comes of captures of OVS and the kernel, of mangled ones, and of what no capture has."""

import json
import math
import re
from pathlib import Path

import captures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters import catalog
from exporters.node import addresses, bonds, processes, rtnl
from exporters.node.collectors import version
from exporters.node.failing import GarbledError
from exporters.node.ovs import bonds as ovs_bonds
from exporters.node.ovs import coverage, database, datapath, interfaces, memory, upcall
from exporters.node.rows import tables

NAMES = captures.names()
VERSIONS = ("3.1.0", "3.5.0")
OVN = ("23.03.1", "25.03.0")


def test_there_are_captures_of_two_versions_and_each_says_what_it_is() -> None:
    both = {name.rpartition("_")[0] for name in NAMES if name.endswith(VERSIONS[0])}
    assert both == {name.rpartition("_")[0] for name in NAMES if name.endswith(VERSIONS[1])}
    assert both >= {
        "coverage_show",
        "dpctl_show",
        "upcall_show",
        "memory_show",
        "bond_show",
        "lacp_show",
        "ovsdb_select",
    }
    for path in captures.DATA.glob("*.txt"):
        head = path.read_text().partition("\n")[0]
        assert re.search(r"; ((?:Open vSwitch|OVN) \d\S+, \d{4}-\d\d-\d\d|synthetic, after .+)$", head), path.name
        assert ("synthetic" in head) == path.stem.endswith("_synthetic")


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_of_a_capture(name: str) -> None:
    read = captures.reader(name)
    assert read
    assert captures.shown(read(captures.text(name))) == (captures.DATA / f"{name}.rows").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_row_stands_in_the_catalogue_with_its_labels(name: str) -> None:
    read = captures.reader(name)
    assert read
    assert tables(read(captures.text(name)), catalog.load())


@pytest.mark.parametrize("command", sorted({name.rpartition("_")[0] for name in NAMES if name.endswith(VERSIONS)}))
def test_two_versions_come_to_the_same_metrics(command: str) -> None:
    """What a version counts or keeps differs (events, items); the metrics do not, but for the number of handlers."""
    old, new = (
        {line.split(" ")[0] for line in (captures.DATA / f"{command}_{each}.rows").read_text().splitlines()}
        for each in VERSIONS
    )
    assert old - {"ovnwatch_ovs_handlers"} == new - {"ovnwatch_ovs_handlers"}


@pytest.mark.parametrize("command", sorted({name.rpartition("_")[0] for name in NAMES if name.endswith(OVN)}))
def test_two_versions_of_ovn_come_to_the_same_metrics(command: str) -> None:
    """There are parts of the engine and stopwatches that only one has, so that more labels may be; metrics are not."""
    old, new = (
        {line.split(" ")[0] for line in (captures.DATA / f"{command}_{each}.rows").read_text().splitlines()}
        for each in OVN
    )
    assert old == new


@pytest.mark.parametrize("of", VERSIONS)
def test_single_values_of_both_versions(of: str) -> None:
    assert version(captures.text(f"version_{of}")) == of
    assert datapath.names(captures.text(f"dpctl_dump_dps_{of}")) == ["system@ovs-system"]
    assert datapath.count(captures.text(f"ct_get_nconns_{of}")) == 1
    assert datapath.count(captures.text(f"ct_get_maxconns_{of}")) == 3_000_000


def pieces(text: str) -> st.SearchStrategy[str]:
    """The text with a piece cut out, doubled, or something else put in its place."""
    place = st.integers(0, len(text))
    other = st.one_of(st.just(""), st.text(max_size=20), st.sampled_from(["9" * 5000, "-1", "\x00", ":", "\n", "%s"]))

    def mangle(begin: int, end: int, put: str, twice: bool) -> str:
        begin, end = min(begin, end), max(begin, end)
        return text[:begin] + put + (text[begin:end] if twice else "") + text[end:]

    return st.builds(mangle, place, place, other, st.booleans())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("ovsdb_select")])
@settings(max_examples=60)
@given(data=st.data())
def test_a_mangled_text_is_garbled_or_gives_rows_that_a_page_can_have(name: str, data: st.DataObject) -> None:
    read = captures.reader(name)
    assert read
    text = data.draw(st.one_of(pieces(captures.text(name)), st.text(max_size=200)))
    try:
        rows = list(read(text))
    except GarbledError:
        return
    assert all(math.isfinite(row.value) and row.value >= 0 for row in rows)
    for table in tables(rows, catalog.load()):
        labels = [labels.text for labels, _ in table.rows()]
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    "read",
    [
        coverage.parse,
        datapath.parse,
        upcall.parse,
        memory.parse,
        ovs_bonds.parse,
        ovs_bonds.parse_lacp,
        bonds.parse,
        datapath.names,
        datapath.count,
        coverage.number,
    ],
)
def test_a_text_about_something_else_is_garbled(read: captures.Read) -> None:
    """It gives no empty answer, which would pass for a switch without flows."""
    with pytest.raises(GarbledError):
        read("Nobody knows\nthe trouble I see\n")


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.floats(), st.just(10**30), st.just("\ud800"),
    st.sampled_from([["set", []], ["map", []], ["map", [["a", 1]]], ["uuid", "x"], ["set", [["uuid", "x"], 5]], []]),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300)
@given(data=st.data())
def test_a_database_with_odd_values_is_garbled_or_gives_rows_that_a_page_can_have(data: st.DataObject) -> None:
    """One value of one row is another; the rest is as a real database answered."""
    answers = json.loads(captures.text("ovsdb_select_3.5.0"))
    rows = data.draw(st.sampled_from([each["rows"] for each in answers if each["rows"]]))
    row = data.draw(st.sampled_from(rows))
    read_columns = {each for wanted in (*database.TABLES.values(), *interfaces.TABLES.values()) for each in wanted}
    row[data.draw(st.sampled_from(sorted(row.keys() & read_columns)))] = data.draw(ODD)
    read = captures.reader("ovsdb_select")
    assert read
    try:
        found = tables(read(json.dumps(answers)), catalog.load())
    except GarbledError:
        return
    for table in found:
        "".join(labels.text for labels, _ in table.rows()).encode()
        assert all(math.isfinite(value) and value >= 0 for _, value in table.rows())


def test_spaces_before_a_line_may_change() -> None:
    text = captures.text("dpctl_show_3.1.0")
    assert datapath.parse(text.replace("  ", "\t")) == datapath.parse(text)


def test_an_event_never_hit_is_0_where_it_is_counted_and_absent_where_it_is_not() -> None:
    there = frozenset(("rconn_overflow", "rconn_sent", "nobody_asked"))
    rows = {row.labels[0]: row.value for row in coverage.rows({"rconn_sent": 7, "hmap_expand": 3}, there, False)}
    assert rows == {"rconn_sent": 7, "rconn_overflow": 0}
    every = {row.labels[0] for row in coverage.rows({"hmap_expand": 3}, there, True)}
    assert every == {"hmap_expand", *there}


def test_dropped_packets_are_told_by_reason() -> None:
    rows = list(coverage.rows({"drop_action_congestion": 2, "datapath_drop_meter": 1}, frozenset(), False))
    assert {(row.name, row.labels[0], row.value) for row in rows} == {
        ("ovnwatch_ovs_drops_total", "drop_action_congestion", 2),
        ("ovnwatch_ovs_drops_total", "datapath_drop_meter", 1),
    }


def interface(name: str, kind: str = "workload", **counts: int) -> interfaces.Interface:
    return interfaces.Interface(
        f"uuid-{name}", name, "br-int", name, kind, counts, True, True, 0, None, 1500, {}, None, False
    )  # fmt: skip


def test_of_many_workloads_the_worst_and_the_busiest_are_shown_and_all_else() -> None:
    ports = [interface(f"p{number}", rx_bytes=number) for number in range(10)]
    bad = interface("bad", rx_dropped=1)
    tunnels = [interface(f"t{number}", "geneve") for number in range(3)]
    shown = interfaces.shown([*ports, bad, *tunnels], 3)
    assert [each.name for each in shown] == ["t0", "t1", "t2", "bad", "p9", "p8"]
    assert interfaces.shown(ports, 0) == []
    assert len(interfaces.shown(ports, None)) == 10


def test_sums_begin_at_0_and_never_fall() -> None:
    a, b = interface("a", rx_bytes=100), interface("b", rx_bytes=50)
    sums = interfaces.step(None, [a, b])
    assert sums.totals["workload", "rx_bytes"] == 0  # what was before us is not ours
    sums = interfaces.step(sums, [interface("a", rx_bytes=130), b])
    assert sums.totals["workload", "rx_bytes"] == 30
    sums = interfaces.step(sums, [b])  # a is gone
    assert sums.totals["workload", "rx_bytes"] == 30
    sums = interfaces.step(sums, [b, interface("c", rx_bytes=7)])  # c is new: all it carried is since then
    assert sums.totals["workload", "rx_bytes"] == 37
    sums = interfaces.step(sums, [interface("b")])  # its counts are missing for a while
    sums = interfaces.step(sums, [b])
    sums = interfaces.step(sums, [interface("b", rx_bytes=5)])  # b began anew
    assert sums.totals["workload", "rx_bytes"] == 42


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 1000)), max_size=8))
def test_no_order_of_events_makes_a_sum_fall(looks: list[dict[str, int]]) -> None:
    sums, last = None, 0
    for look in looks:
        sums = interfaces.step(sums, [interface(name, rx_bytes=count) for name, count in look.items()])
        assert sums.totals.get(("workload", "rx_bytes"), 0) >= last
        last = sums.totals.get(("workload", "rx_bytes"), 0)


STAT = (
    "77 (ovs-vswitchd) S 1 77 77 0 -1 4194560 2209 0 4 0 150 50 0 0 10 -10 3 0 5555 77742080 10520 18446744073709551615"
)


def test_a_process_is_read_whatever_its_name() -> None:
    usage = processes.parse(STAT, boot=1000, ticks=100, page=4096)
    assert usage == processes.Usage("ovs-vswitchd", 2.0, 10520 * 4096, 77742080, 3, 1055.55)
    assert processes.parse(STAT.replace("ovs-vswitchd", "a) (b c"), 0, 100, 4096).command == "a) (b c"
    assert processes.is_it(usage, "ovs-vswitchd")
    assert not processes.is_it(usage, "ovsdb-server")


@pytest.mark.parametrize(
    "text", ["", "77 (x", "77 (x) S 1 2 3", STAT.replace("5555", "x"), STAT.replace("10520", "-1")]
)
def test_a_process_that_cannot_be_read_is_garbled(text: str) -> None:
    with pytest.raises(GarbledError):
        processes.parse(text, 0, 100, 4096)


def test_nameservers_are_addresses_only() -> None:
    text = "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nsearch x\n nameserver fe80::1%eth0\nnameserver dns.example\n"
    assert addresses.nameservers(text) == ["192.0.2.1", "fe80::1%eth0"]
    assert addresses.nameservers("nameserver 192.0.2.1\n" * 1000) == ["192.0.2.1"] * addresses.MOST_NAMESERVERS


def test_who_has_a_lease() -> None:
    ours = [
        rtnl.Address(2, "4", "192.0.2.1/24", True),
        rtnl.Address(3, "4", "192.0.2.2/24", False),
        rtnl.Address(3, "6", "2001:db8::1/64", True),  # a router's advertisement
        rtnl.Address(4, "6", "2001:db8::2/128", True),
    ]
    routes = [rtnl.Route("4", True, 5, "192.0.2.254", "dhcp", 100)]
    files = ["internal-00000000-1111-2222-3333-444444444444-eth6.lease", "7", "timestamps", "NetworkManager.state"]
    found = addresses.leases(ours, routes, files, {"eth6": 6})
    assert found == {("4", 2), ("6", 4), ("4", 5), ("4", 6), ("4", 7)}


def test_data_holds_nothing_of_a_machine() -> None:
    paths = [path for path in Path(captures.DATA).iterdir() if path.suffix in (".txt", ".rows")]
    assert all("/home/" not in path.read_text() and "/root/" not in path.read_text() for path in paths)
