"""Links of this node: counters by RTM_GETSTATS at each scrape, attributes kept and corrected by notifications.

1. All links are listed once, and again every FRESH seconds, after lost notifications, and when counters come for a link
   that is not known.
2. What a scrape writes for a link's labels is made when the link changes, not at each scrape.
3. A link whose counters did not come is gone, and so are its series.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from exporters.exposition import Labels
from exporters.node import rtnl
from exporters.node.netlink import LINK_GROUP, Ethtool, LostError, Message, Netlink
from exporters.node.rows import Found, Lot, made
from exporters.node.rpc import Deadline
from exporters.node.rtnl import Counters, Link

FRESH = 300.0  # seconds; a link may change its speed without a word
LINK = ("link",)
# Metric -> its place in the kernel's counters.
COUNTED = {
    f"ovnwatch_node_link_{metric}_total": rtnl.COUNTERS.index(counter)
    for metric, counter in {
        "receive_bytes": "rx_bytes",
        "receive_packets": "rx_packets",
        "receive_errors": "rx_errors",
        "receive_dropped": "rx_dropped",
        "receive_missed": "rx_missed_errors",
        "receive_nohandler": "rx_nohandler",
        "receive_multicast": "multicast",
        "transmit_bytes": "tx_bytes",
        "transmit_packets": "tx_packets",
        "transmit_errors": "tx_errors",
        "transmit_dropped": "tx_dropped",
    }.items()
}


class Known(NamedTuple):
    """A link, its speed in bits per second, and the labels of its series."""

    link: Link
    speed: int | None
    labels: Labels


Table = Mapping[int, Known]  # by index


class Snapshot(NamedTuple):
    """All links at one moment, with their counters."""

    known: Table
    counters: Sequence[tuple[Known, Counters]]


class Links:
    """The links of the network namespace this is made in; `exclude` matches names that nobody wants to see."""

    def __init__(self, exclude: re.Pattern[str] | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._exclude = exclude
        self._now = now
        self._changes = Netlink(LINK_GROUP)  # before the first list, so that no change falls between
        self._asking = Netlink()
        self._ethtool = Ethtool()
        self._known: dict[int, Known] = {}
        self._listed = -FRESH
        self._attributes: list[Found] | None = None

    def close(self) -> None:
        for each in (self._changes, self._asking, self._ethtool):
            each.close()

    def read(self, deadline: Deadline) -> Snapshot:
        """All links and their counters as they are now. Raises NotCollectedError, OSError."""
        with self._lock:
            return self._read(deadline)

    def collect(self, deadline: Deadline) -> Iterator[Found]:
        """Their metrics."""
        with self._lock:
            snapshot = self._read(deadline)
            if self._attributes is None:
                self._attributes = list(attributes(snapshot.known, self._exclude))
            kept = self._attributes
        yield from counters(snapshot)
        yield from kept

    def _read(self, deadline: Deadline) -> Snapshot:
        self._follow(deadline)
        dumped = self._asking.dump(rtnl.RTM_GETSTATS, rtnl.STATS_REQUEST, deadline)
        found = [rtnl.stats(data, start, end) for _, data, start, end in dumped]
        if any(index not in self._known for index, _ in found):
            self._list(deadline)
        there = {index for index, _ in found}
        if not there >= self._known.keys():
            self._change({index: known for index, known in self._known.items() if index in there})
        wanted = [(self._known[index], of_it) for index, of_it in found if index in self._known]
        if self._exclude:
            wanted = [each for each in wanted if not self._exclude.fullmatch(each[0].link.name)]
        return Snapshot(self._known, wanted)

    def _follow(self, deadline: Deadline) -> None:
        """Take over what changed since the last time."""
        try:
            changes = list(self._changes.notifications())
        except LostError:
            changes, self._listed = [], -FRESH
            with suppress(LostError):
                list(self._changes.notifications())
        if self._now() - self._listed >= FRESH:
            self._list(deadline)
        elif changes:
            self._change(after(self._known, changes, self._ethtool.speed))

    def _list(self, deadline: Deadline) -> None:
        dumped = self._asking.dump(rtnl.RTM_GETLINK, rtnl.LINKS_REQUEST, deadline)
        self._change(after({}, dumped, self._ethtool.speed))
        self._listed = self._now()

    def _change(self, known: dict[int, Known]) -> None:
        self._known, self._attributes = known, None


def after(known: Table, messages: Iterable[Message], speed: Callable[[str], int | None]) -> dict[int, Known]:
    """The table when these messages are taken over. Raises GarbledError."""
    table = dict(known)
    for kind, data, start, end in messages:
        if kind not in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK):
            continue
        link = rtnl.link(data, start, end)
        if link is None:
            continue
        if kind == rtnl.RTM_DELLINK:
            table.pop(link.ifindex, None)
        else:
            table[link.ifindex] = Known(link, speed(link.name), made(LINK, (link.name,)))
    return table


def counters(snapshot: Snapshot) -> Iterator[Lot]:
    """The counters of all links."""
    pairs = [(known.labels, of_it) for known, of_it in snapshot.counters]
    for name, index in COUNTED.items():
        yield Lot(name, _column(pairs, index))


def _column(pairs: Sequence[tuple[Labels, Counters]], index: int) -> Callable[[], Iterable[tuple[Labels, float]]]:
    return lambda: ((labels, of_it[index]) for labels, of_it in pairs)


def name_of(known: Table, index: int) -> str:
    """A link's name by its index; empty where it is none of this namespace."""
    return known[index].link.name if index in known else ""


def attributes(table: Table, exclude: re.Pattern[str] | None = None) -> Iterator[Lot]:
    """What changes only when a link does."""
    every = [each for each in table.values() if not exclude or not exclude.fullmatch(each.link.name)]
    single: dict[str, Sequence[tuple[Labels, float]]] = {
        "ovnwatch_node_link_up": [(each.labels, int(each.link.up)) for each in every],
        "ovnwatch_node_link_admin_up": [(each.labels, int(each.link.admin_up)) for each in every],
        "ovnwatch_node_link_mtu_bytes": [(each.labels, each.link.mtu) for each in every],
        "ovnwatch_node_link_speed_bytes_per_second": [
            (each.labels, each.speed / 8) for each in every if each.speed is not None
        ],
        "ovnwatch_node_link_carrier_changes_total": [
            (each.labels, each.link.carrier_changes) for each in every if each.link.carrier_changes is not None
        ],
        "ovnwatch_node_link_info": [
            (_info(each.link, name_of(table, each.link.master)), 1) for each in every
        ],
        "ovnwatch_node_vlan_info": [
            (_vlan(each.link, name_of(table, each.link.parent)), 1) for each in every if each.link.vlan_id is not None
        ],
    }  # fmt: skip
    for name, values in single.items():
        yield Lot(name, _giving(values))


def _giving(values: Sequence[tuple[Labels, float]]) -> Callable[[], Iterable[tuple[Labels, float]]]:
    return lambda: values


def _info(link: Link, master: str) -> Labels:
    return made(("link", "kind", "master", "hwaddr"), (link.name, link.kind, master, link.hwaddr))


def _vlan(link: Link, parent: str) -> Labels:
    return made(("link", "vlan_id", "parent"), (link.name, str(link.vlan_id), parent))
