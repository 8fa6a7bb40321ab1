"""Links as the kernel tells them: messages as bytes, real links that come, change and go, and /proc/net/dev."""

import contextlib
import os
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import captures
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporters import catalog
from exporters.calibrate.namespaces import Namespace
from exporters.node import addresses, links, netlink, rtnl
from exporters.node.failing import GarbledError, NotCollectedError
from exporters.node.host import Host, Paths
from exporters.node.links import Links
from exporters.node.netlink import LostError
from exporters.node.rows import tables
from exporters.node.rpc import Deadline

PATIENT = 30.0
COLUMNS = {  # of /proc/net/dev, by direction
    "receive": ("bytes", "packets", "errors", "dropped+missed", None, None, None, "multicast"),
    "transmit": ("bytes", "packets", "errors", "dropped", None, None, None, None),
}
Values = dict[str, dict[str, float]]  # by metric without ovnwatch_node_link_, then by link


def attribute(kind: int, value: bytes) -> bytes:
    return rtnl.ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def link_message(
    name: str, *, index: int = 7, flags: int = 0x41, info: bytes = b"", more: bytes = b"", family: int = 0
) -> bytes:
    head = rtnl.IFINFO.pack(family, 1, index, flags, 0)
    return head + attribute(rtnl.IFLA_IFNAME, name.encode() + b"\0") + attribute(rtnl.IFLA_LINKINFO, info) + more


VLAN = attribute(rtnl.IFLA_INFO_KIND, b"vlan\0") + attribute(
    rtnl.IFLA_INFO_DATA, attribute(rtnl.IFLA_VLAN_ID, struct.pack("=H", 10))
)


def known(*messages: tuple[int, bytes]) -> dict[int, links.Known]:
    return links.after({}, [(kind, data, 0, len(data)) for kind, data in messages], lambda _: None)


def test_a_vlan_tells_its_number_and_what_carries_it() -> None:
    parent = link_message("eth0", index=2)
    vlan = link_message("eth0.10", index=3, info=VLAN, more=attribute(rtnl.IFLA_LINK, struct.pack("=I", 2)))
    table = known((rtnl.RTM_NEWLINK, parent), (rtnl.RTM_NEWLINK, vlan))
    assert (table[3].link.vlan_id, links.name_of(table, table[3].link.parent)) == (10, "eth0")
    rows = {table.sample_name: list(table.rows()) for table in tables(links.attributes(table), catalog.load())}
    ((labels, value),) = rows["ovnwatch_node_vlan_info"]
    assert (labels.pairs, value) == ({"link": "eth0.10", "vlan_id": "10", "parent": "eth0"}, 1)


@given(st.lists(st.binary(min_size=1, max_size=15), min_size=2, max_size=2, unique=True))
@example([b"a\xff", rb"a\xff"])
@example([b"\\", rb"\\\\"])
def test_links_of_two_names_have_two_labels(names: list[bytes]) -> None:
    texts = [rtnl.name_of(each) for each in names]
    assert texts[0] != texts[1]
    assert [rtnl.bytes_of(each) for each in texts] == names


def test_a_link_of_a_name_that_is_no_text_is_read_by_its_files(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff")
    (tmp_path / "net/bonding").mkdir(parents=True)
    for each in (name, r"a\xff"):
        (tmp_path / "net/bonding" / each).write_text(captures.text("bonding_active_backup_synthetic"))
    with contextlib.closing(Links()) as found:
        assert sorted(Host(Paths(proc=tmp_path), found).bonds()) == [r"a\\xff", r"a\xff"]


def test_what_a_bridge_says_of_its_port_is_not_about_the_link() -> None:
    port = link_message("eth0", index=2, family=7)
    table = known((rtnl.RTM_NEWLINK, link_message("eth0", index=2)), (rtnl.RTM_DELLINK, port))
    assert table[2].link.name == "eth0"


def test_a_link_that_changes_its_name_or_goes() -> None:
    first, second = link_message("eth0", index=2), link_message("wan", index=2, flags=0)
    assert known((rtnl.RTM_NEWLINK, first), (rtnl.RTM_NEWLINK, second))[2].link.name == "wan"
    assert not known((rtnl.RTM_NEWLINK, first), (rtnl.RTM_DELLINK, first))


def test_statistics_with_a_filler_before_them_are_read_too() -> None:
    counters = struct.pack(f"={len(rtnl.COUNTERS)}Q", *range(len(rtnl.COUNTERS)))
    plain = rtnl.IFSTATS.pack(0, 7, 1) + attribute(rtnl.IFLA_STATS_LINK_64, counters)
    filled = rtnl.IFSTATS.pack(0, 7, 1) + attribute(0, b"") + attribute(rtnl.IFLA_STATS_LINK_64, counters)
    for body in (plain, filled, plain + b"\0" * 8):
        assert rtnl.stats(body, 0, len(body)) == (7, tuple(range(len(rtnl.COUNTERS))))
    with pytest.raises(GarbledError):
        rtnl.stats(plain, 0, 100)


@pytest.mark.parametrize("read", [rtnl.link, rtnl.stats, rtnl.address, rtnl.route])
@given(data=st.data())
def test_any_bytes_are_a_message_or_garbled(read: Callable[..., object], data: st.DataObject) -> None:
    message = link_message("eth0", info=VLAN)
    cut = st.builds(lambda at, put: message[:at] + put, st.integers(0, 60), st.binary(max_size=80))
    body = data.draw(st.binary(max_size=300) | cut)
    with contextlib.suppress(GarbledError):
        read(body, 0, len(body))


@given(st.binary(max_size=200))
def test_any_datagram_is_messages_or_garbled(data: bytes) -> None:
    with contextlib.suppress(GarbledError):
        for _, _, _, start, end in netlink.messages(data):
            assert 16 <= start <= end <= len(data)


def test_what_the_kernel_refuses_is_told() -> None:
    with netlink.Netlink() as kernel, pytest.raises(NotCollectedError, match="refuses"):
        kernel.dump(1000, bytes(8), Deadline(PATIENT))


def values(looked: Links) -> Values:
    found = tables(looked.collect(Deadline(PATIENT)), catalog.load())
    return {
        table.sample_name.removeprefix("ovnwatch_node_link_"): {
            labels.pairs["link"]: value for labels, value in table.rows()
        }
        for table in found
    }


def proc_net_dev() -> dict[str, list[int]]:
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return {
        name.strip(): [int(each) for each in counts.split()] for name, _, counts in (x.partition(":") for x in lines)
    }


def test_counters_are_those_of_proc_net_dev() -> None:
    looked = Links()
    before, ours, after = proc_net_dev(), values(looked), proc_net_dev()
    looked.close()
    assert before.keys() == after.keys() == ours["receive_bytes_total"].keys()
    for at, (direction, columns) in enumerate(COLUMNS.items()):
        for index, column in enumerate(columns):
            if column is None:
                continue
            for link, told in before.items():
                value = sum(ours[f"{direction}_{each}_total"][link] for each in column.split("+"))
                assert told[8 * at + index] <= value <= after[link][8 * at + index], (link, column)


@pytest.fixture
def space() -> Iterator[Namespace]:
    name = "owlinks"
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with contextlib.closing(Namespace(name)) as made:
            yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", "-n", "owlinks", *" ".join(words).split()], check=True)


@pytest.mark.needs_root
def test_links_come_change_and_go(space: Namespace) -> None:
    looked = space.call(Links)
    assert set(values(looked)["up"]) == {"lo"}
    ip("link add la mtu 1400 type veth peer name lb")
    ip("link add br0 type bridge")
    ip("link set la master br0")
    found = values(looked)
    assert set(found["up"]) == {"lo", "la", "lb", "br0"} == set(found["receive_bytes_total"])
    assert found["mtu_bytes"]["la"] == 1400
    assert found["up"]["la"] == found["admin_up"]["la"] == 0
    assert found["speed_bytes_per_second"]["la"] == 10_000_000_000 / 8  # what veth says of itself
    assert "br0" not in found["speed_bytes_per_second"] or found["up"]["br0"]
    changes = found["carrier_changes_total"]["la"]
    ip("link set la up")
    ip("link set lb up mtu 1300 name c")
    found = values(looked)
    assert set(found["up"]) == {"lo", "la", "c", "br0"}
    assert found["up"]["la"] == found["admin_up"]["la"] == 1
    assert found["mtu_bytes"]["c"] == 1300
    assert found["carrier_changes_total"]["la"] > changes
    ip("link del la")
    found = values(looked)
    assert {link for of_it in found.values() for link in of_it} == {"lo", "br0"}  # no series is left over
    looked.close()


@pytest.mark.needs_root
def test_lost_notifications_cost_a_list_and_no_truth(space: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "NOTIFICATIONS", 2048)
    looked = space.call(Links)
    values(looked)
    for number in range(40):
        ip(f"link add v{number} type veth peer name w{number}")
    with pytest.raises(LostError):
        list(looked._changes.notifications())
    for number in range(40, 80):
        ip(f"link add v{number} type veth peer name w{number}")
    ip("link set v3 name other")
    assert set(values(looked)["up"]) == {"lo", "other"} | {f"{c}{n}" for n in range(80) for c in "vw"} - {"v3"}
    looked.close()


@pytest.mark.needs_root
def test_links_nobody_wants_are_not_shown(space: Namespace) -> None:
    ip("link add la type veth peer name lb")
    looked = space.call(lambda: Links(re.compile("lb|lo")))
    assert {link for of_it in values(looked).values() for link in of_it} == {"la"}
    looked.close()


@pytest.mark.needs_root
def test_what_reaches_the_node_is_what_ip_says(space: Namespace) -> None:
    ip("link add la type veth peer name lb")
    ip("link set la up")
    ip("link set lb up")
    ip("addr add 192.0.2.1/24 dev la")
    ip("addr add 192.0.2.9/24 dev la valid_lft 600 preferred_lft 600")
    ip("-6 addr add 2001:db8::1/64 dev la nodad")
    ip("route add default via 192.0.2.254")
    ip("route add 198.51.100.0/24 via 192.0.2.254 proto dhcp")
    ip("-6 route add default via 2001:db8::ff dev la")
    looked = space.call(Links)

    def reached() -> dict[tuple[str, str], float]:
        host = Host(Paths(root=Path("/nowhere")), looked)
        deadline = Deadline(PATIENT)
        rows = addresses.rows(host.reached(host.table(deadline), deadline))
        return {(row.name, row.labels[0]): row.value for row in rows}

    found = space.call(reached)
    looked.close()
    told = subprocess.run(["ip", "-n", "owlinks", "-o", "addr"], check=True, capture_output=True, text=True).stdout
    assert found["ovnwatch_node_addresses", "4"] == len(re.findall(r" inet ", told)) == 2
    assert found["ovnwatch_node_addresses", "6"] == len(re.findall(r" inet6 ", told))
    for family in "46":
        ran = subprocess.run(["ip", "-n", "owlinks", f"-{family}", "route"], check=True, capture_output=True, text=True)
        lines = [line for line in ran.stdout.splitlines() if not line.startswith(("multicast", "anycast", "local"))]
        assert found["ovnwatch_node_routes", family] == len(lines)
        assert found["ovnwatch_node_default_routes", family] == 1
    assert found["ovnwatch_node_dhcp_links", "4"] == 1
    assert found["ovnwatch_node_nameservers", "4"] == 0
