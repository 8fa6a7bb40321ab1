"""What collectors read from: this node's files, its links and OVS' sockets. The thin edge of the node exporter."""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporters.node import addresses, bonds, bridges, daemons, processes, rtnl
from exporters.node.failing import NotCollectedError
from exporters.node.links import Links, Table
from exporters.node.netlink import Message, Netlink
from exporters.node.ovn import raft
from exporters.node.ovn.remote import Files, Remote
from exporters.node.ovn.watch import Watch
from exporters.node.ovs import interfaces
from exporters.node.rpc import Deadline
from exporters.node.rtnl import Address, Route
from exporters.node.state import Seen, names_with
from exporters.node.unixctl import Unixctl, pid_of

MOST_TEXT = 1 << 20  # bytes of a file of the kernel's
LEASES = ("var/lib/NetworkManager", "run/systemd/netif/leases")
ALL_ADDRESSES, ALL_ROUTES = bytes(rtnl.IFA.size), bytes(rtnl.RTM.size)  # of every family
CLOCK_TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the node's files are, as we see them; `ovs` and `ovn` are folders that somebody named."""

    root: Path = Path("/")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    ovs: str | None = None
    ovn: str | None = None
    snap_common: str = ""


@dataclass(frozen=True, slots=True)
class Databases:
    """Where OVN's databases are; none: on this node, if it has them. `chassis`: how many are shown one by one."""

    northbound: tuple[Remote, ...] = ()
    southbound: tuple[Remote, ...] = ()
    files: Files = field(default_factory=Files)
    chassis: int | None = 50  # None: all
    hashed: bool = False


@dataclass(slots=True)
class Host:
    """The node, and what collectors keep between two scrapes; no two collectors keep the same thing."""

    paths: Paths
    links: Links
    every_event: bool = False
    workloads: int | None = 20  # None: all
    interface_sums: interfaces.Sums | None = None
    events: dict[int, frozenset[str]] = field(default_factory=dict)  # that ovs-vswitchd counts, by its pid
    ran: set[str] = field(default_factory=set)  # daemons that were found running, or left a pid file
    ovn_seen: set[str] = field(default_factory=set)  # daemons of OVN that were here
    ovn_led: dict[str, raft.Led] = field(default_factory=dict)  # by database
    databases: Databases = field(default_factory=Databases)
    watches: dict[str, Watch] = field(default_factory=dict)  # by database

    def close(self) -> None:
        self.links.close()
        for each in self.watches.values():
            each.close()

    # Daemons.

    def ovs(self) -> Path:
        """The folder of OVS' sockets. Raises NotCollectedError where there is none."""
        return self._folder(daemons.OVS_FOLDERS, daemons.OVS_DAEMONS, self.paths.ovs, "OVS")

    def ovn(self) -> Path:
        """The folder of OVN's sockets. Raises NotCollectedError where there is none."""
        return self._folder(daemons.OVN_FOLDERS, daemons.OVN_DAEMONS, self.paths.ovn, "OVN")

    def _folder(self, folders: Collection[str], names: Collection[str], given: str | None, what: str) -> Path:
        looked = daemons.candidates(folders, given, str(self.paths.root), self.paths.snap_common)
        found = daemons.choose({each: _listing(Path(each)) for each in looked}, names)
        if found is None:
            raise NotCollectedError(f"there is no {what} in {', '.join(looked)}")
        return Path(found)

    def microovn(self) -> Path | None:
        """MicroOVN's socket; None where there never was one. Raises NotCollectedError where it has gone."""
        common = Path(self.paths.snap_common) if self.paths.snap_common else self.paths.root / daemons.MICROOVN
        socket = common / daemons.CONTROL
        if socket.exists():
            self.ovn_seen.add("microovn")
        elif "microovn" in self.ovn_seen:
            raise NotCollectedError(f"MicroOVN does not run: there is no {socket}")
        else:
            return None
        return socket

    def vswitchd(self, deadline: Deadline) -> Unixctl:
        """A connection to ovs-vswitchd."""
        return Unixctl(self.ovs(), "ovs-vswitchd", deadline)

    def usage(self) -> dict[str, processes.Usage | None]:
        """Each daemon that is or was here; None: it does not run. Raises NotCollectedError where no daemon ever was.

        One that ends in order takes its pid file along.
        """
        found: dict[str, processes.Usage | None] = {}
        boot = processes.boot_time(text(self.paths.proc / "stat"))
        ovs, ovn = self._known(self.ovs), self._known(self.ovn)
        if not ovs and not ovn and not self.ran:
            self.ovs()
        for folder, names, always in ((ovs, daemons.OVS_DAEMONS, True), (ovn, daemons.OVN_DAEMONS, False)):
            for daemon in names:
                if folder and (always or (folder / f"{daemon}.pid").exists()):
                    self.ran.add(daemon)
                if daemon in self.ran:
                    found[daemon] = self._usage(folder, daemon, boot) if folder else None
        return found

    @staticmethod
    def _known(folder: Callable[[], Path]) -> Path | None:
        try:
            return folder()
        except NotCollectedError:
            return None

    def _usage(self, folder: Path, daemon: str, boot: float) -> processes.Usage | None:
        try:
            process = self.paths.proc / str(pid_of(folder, daemon))
            usage = processes.parse(text(process / "stat"), boot, CLOCK_TICKS, PAGE)
        except (NotCollectedError, FileNotFoundError, ProcessLookupError):
            return None
        if not processes.is_it(usage, daemons.COMMANDS.get(daemon, daemon)):
            return None
        try:
            files = len(os.listdir(process / "fd"))  # noqa: PTH208 - there may be a hundred thousand
            most = processes.open_files_limit(text(process / "limits"))
        except OSError:  # not allowed, or gone meanwhile
            return usage
        return usage._replace(files=files, most_files=most)

    # The kernel's network.

    def table(self, deadline: Deadline) -> Table:
        return self.links.read(deadline).known

    def bonds(self) -> dict[str, bonds.Bond]:
        folder = self.paths.proc / "net/bonding"
        return {name: bonds.parse(text(folder / _file(name))) for name in sorted(_links(folder))}

    def bridges(self, table: Table) -> dict[str, bridges.Bridge]:
        net = self.paths.sys / "class/net"
        names = sorted(known.link.name for known in table.values() if known.link.kind == "bridge")
        found = {}
        for name in names:
            ports = net / _file(name) / "brif"
            states = {port: _text_if_any(ports / _file(port) / "state").strip() for port in _links(ports)}
            states = {port: state for port, state in states.items() if state}  # some may have gone meanwhile
            found[name] = bridges.Bridge(texts(net / _file(name) / "bridge"), states)
        return found

    def seen(self, deadline: Deadline) -> Seen:
        """All that /state tells."""
        links = self.links.read(deadline)
        known, net = links.known, self.paths.sys / "class/net"
        names = [each.link.name for each in known.values()]
        found = self.bonds()
        ipv6 = self.paths.proc / "sys/net/ipv6/conf"
        return Seen(
            time=time.time(),
            links=links,
            reached=self.reached(known, deadline),
            bonds=found,
            bond_options={name: texts(net / _file(name) / "bonding") for name in found},
            bridges=self.bridges(known),
            autoconf=names_with({name: _text_if_any(ipv6 / _file(name) / "autoconf") for name in names}),
            ipv6=(self.paths.proc / "net/if_inet6").exists(),
            daemons=self._daemons(),
        )

    def _daemons(self) -> dict[str, processes.Usage | None]:
        try:
            return self.usage()
        except NotCollectedError:  # there are none
            return {}

    def reached(self, table: Table, deadline: Deadline) -> addresses.Reached:
        with Netlink() as kernel:
            ours = [rtnl.address(*_span(each)) for each in kernel.dump(rtnl.RTM_GETADDR, ALL_ADDRESSES, deadline)]
            routes = [rtnl.route(*_span(each)) for each in kernel.dump(rtnl.RTM_GETROUTE, ALL_ROUTES, deadline)]
        return self._reached(table, [each for each in ours if each], [each for each in routes if each])

    def _reached(self, table: Table, ours: Sequence[Address], routes: Sequence[Route]) -> addresses.Reached:
        files = [name for folder in LEASES for name in _listing(self.paths.root / folder)]
        indexes = {known.link.name: index for index, known in table.items()}
        try:
            servers = addresses.nameservers(text(within(self.paths.root, "etc/resolv.conf")))
        except FileNotFoundError:
            servers = []
        return addresses.Reached(ours, routes, addresses.leases(ours, routes, files, indexes), servers)


def within(root: Path, name: str) -> Path:
    """A file below the node's root; a link that begins with / is meant from there, not from where we see it."""
    path = root / name
    target = path.readlink() if path.is_symlink() else path
    return root / target.relative_to("/") if path != target and target.is_absolute() else path


def _span(message: Message) -> tuple[bytes, int, int]:
    _, data, start, end = message
    return data, start, end


def _text_if_any(path: Path) -> str:
    """What a file of the kernel's holds; empty where it is not there."""
    try:
        return text(path)
    except OSError:
        return ""


def text(path: Path) -> str:
    """What a file of the kernel's holds, its beginning if it is long. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MOST_TEXT).decode("utf-8", "replace")


def texts(folder: Path) -> Mapping[str, str]:
    """What the readable files of a folder of the kernel's hold, without the end of the line."""
    found = {}
    for name in sorted(_listing(folder)):
        try:
            found[name] = text(folder / name).strip()
        except OSError:  # some may only be written to
            continue
    return found


def _links(folder: Path) -> list[str]:
    """Links by the names of files."""
    return [rtnl.name_of(os.fsencode(name)) for name in _listing(folder)]


def _file(link: str) -> str:
    """The name that a link's file has."""
    return os.fsdecode(rtnl.bytes_of(link))


def _listing(folder: Path) -> list[str]:
    """Names in a folder; none where it is not there or not ours to read."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are all we want
    except OSError:
        return []
