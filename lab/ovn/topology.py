"""What the lab is made of: its hosts, their names, addresses and daemons. Pure.

    outside ──┐                          every chassis: br-ex (its address, and eth0 in it), br-int, geneve between them
    central ──┤ underlay 172.31.0.0/24   w1 … wN: a workload on each chassis' own logical switch, 10.0.i.0/24
    ch1 … chN ┘                          cr: the cluster's router; gr1 … grN: a gateway router pinned to each chassis

1. Everything is in network namespaces `PREFIX-HOST`, one of them (`net`) being the switches between the others. The
   only link outside is `PREFIX-mgmt`, the machine's own port of the management network.
2. The management network (198.18.x.0/24, x by prefix) is beside all that is broken: what is scraped goes there.
3. A workload goes out by its switch's gateway router and is seen with that one's address (SNAT), unless it has an
   egress address. What goes to OUTSIDE_BY_HA is sent through the router `ha`, whose gateway fails over between chassis
   by BFD.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_CHASSIS = 39  # one VIP each, from .161 on, below .200
MOST_CENTRALS = 3
UNDERLAY = "172.31.0"
CLUSTER = "10.0.0.0/16"
OUTSIDE, OUTSIDE_BY_HA = f"{UNDERLAY}.200", f"{UNDERLAY}.201"
HA_GATEWAY = f"{UNDERLAY}.99"
EGRESS = tuple(f"{UNDERLAY}.{last}" for last in range(150, 160))  # addresses to give to workloads
VIP = f"{UNDERLAY}.160"  # LoadBalancer of all workloads, from outside; .161 on: one for each of them
CLUSTER_VIP = "10.96.0.10"  # the same from inside
PORTS = (8080, 8081, 8082)  # that VIPs carry: an exporter's echoes
NB_PORT, SB_PORT, NB_RAFT_PORT, SB_RAFT_PORT = 6641, 6642, 6643, 6644
DATABASES = {"nb": ("OVN_Northbound", NB_PORT, NB_RAFT_PORT), "sb": ("OVN_Southbound", SB_PORT, SB_RAFT_PORT)}


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab as asked for. `centrals`: 1, or 3 for databases that are a RAFT cluster."""

    prefix: str
    folder: Path
    chassis: int = 3
    centrals: int = 1

    @property
    def chassis_names(self) -> list[str]:
        return [f"ch{number}" for number in range(1, self.chassis + 1)]

    @property
    def central_names(self) -> list[str]:
        return [f"central{number}" for number in range(1, self.centrals + 1)]

    @property
    def workloads(self) -> list[str]:
        return [f"w{number}" for number in range(1, self.chassis + 1)]

    @property
    def hosts(self) -> list[str]:
        """Whatever has a namespace, but for the switches."""
        return [*self.central_names, *self.chassis_names, *self.workloads, "outside"]

    @property
    def link(self) -> str:
        """The machine's own port of the management network."""
        return f"{self.prefix}-mgmt"

    def namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def rundir(self, host: str, of: str) -> Path:
        """Where a host's daemons keep pid files and sockets; of: "openvswitch" or "ovn"."""
        return self.folder / host / of

    def management(self, host: str) -> str:
        """A host's address on the management network; "": the machine's own."""
        start = {"ch": 0, "central": 50, "w": 100, "outside": 200, "": 254}
        return f"198.18.{zlib.crc32(self.prefix.encode()) % 256}.{start[kind(host)] + number(host)}"

    def remotes(self, database: str) -> str:
        """How "nb" or "sb" is reached from a chassis."""
        port = DATABASES[database][1]
        return ",".join(f"tcp:{underlay(central)}:{port}" for central in self.central_names)

    def sockets(self, database: str) -> str:
        """How "nb" or "sb" is reached from any namespace of this machine."""
        return ",".join(f"unix:{self.rundir(each, 'ovn')}/ovn{database}_db.sock" for each in self.central_names)


def kind(host: str) -> str:
    """ch, central, w or outside."""
    return host.rstrip("0123456789")


def number(host: str) -> int:
    """3 of ch3; 0 of a host that is alone."""
    return int(host[len(kind(host)) :] or 0)


def underlay(host: str) -> str:
    """The address of a chassis, a central or outside on the network that carries the tunnels."""
    start = {"ch": 0, "central": 100, "outside": 200}[kind(host)]
    return f"{UNDERLAY}.{start + number(host)}"


def address(workload: str) -> str:
    return f"10.0.{number(workload)}.11"


def mac(workload: str) -> str:
    return f"0a:00:00:00:{number(workload):02x}:11"


def vip(workload: str) -> str:
    """Where a workload's own LoadBalancer is reached from outside."""
    return f"{UNDERLAY}.{160 + number(workload)}"


def gateway(chassis: str) -> str:
    """The gateway router that belongs to a chassis."""
    return f"gr{number(chassis)}"


def gateway_address(chassis: str) -> str:
    """A gateway router's address outside, with which workloads of its switch are seen there."""
    return f"{UNDERLAY}.{50 + number(chassis)}"


def join_address(chassis: str) -> str:
    """A gateway router's address towards the cluster's router."""
    return f"100.64.0.{10 + number(chassis)}"


# --- daemons


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon of a host: how it is started, and the file that has its pid then."""

    host: str
    name: str
    argv: tuple[str, ...]
    pid_file: Path


def environ(lab: Lab, host: str) -> dict[str, str]:
    """What tells the tools and daemons of a host, and whoever looks at them, where everything is."""
    folder = lab.folder / host
    ovs, ovn = lab.rundir(host, "openvswitch"), lab.rundir(host, "ovn")
    found = {"OVN_NB_DB": lab.sockets("nb"), "OVN_SB_DB": lab.sockets("sb")}
    if kind(host) in ("ch", "central"):
        found |= {"OVS_RUNDIR": str(ovs), "OVS_DBDIR": str(folder / "db"), "OVS_LOGDIR": str(folder / "log")}
        found |= {"OVN_RUNDIR": str(ovn), "OVN_DBDIR": str(folder / "db"), "OVN_LOGDIR": str(folder / "log")}
    return found


def daemons(lab: Lab, host: str) -> dict[str, Daemon]:
    """A host's daemons by name, in the order in which they are started."""
    found = {"central": _of_central, "ch": _of_chassis}.get(kind(host), _of_nothing)(lab, host)
    return {daemon.name: daemon for daemon in found}


def all_daemons(lab: Lab) -> list[Daemon]:
    return [each for host in lab.hosts for each in daemons(lab, host).values()]


def _of_nothing(_: Lab, __: str) -> Iterator[Daemon]:
    yield from ()


def _of_central(lab: Lab, host: str) -> Iterator[Daemon]:
    ovn, folder = lab.rundir(host, "ovn"), lab.folder / host
    for short, (_, port, _) in DATABASES.items():
        name = f"ovn{short}_db"  # as ovn-ctl calls them
        argv = [
            *("ovsdb-server", f"{folder}/db/ovn{short}.db"),
            *(f"--remote=punix:{ovn}/{name}.sock", f"--remote=ptcp:{port}:0.0.0.0"),
            *(f"--unixctl={ovn}/{name}.ctl", f"--pidfile={ovn}/{name}.pid"),
            *_detached(f"{folder}/log/ovsdb-server-{short}.log"),
        ]
        yield Daemon(host, f"ovsdb-{short}", tuple(argv), ovn / f"{name}.pid")
    databases = [f"--ovn{short}-db={lab.remotes(short)}" for short in DATABASES]
    yield _plain(lab, host, "ovn-northd", "ovn", *databases)


def _of_chassis(lab: Lab, host: str) -> Iterator[Daemon]:
    socket = lab.rundir(host, "openvswitch") / "db.sock"
    database = lab.folder / host / "db/conf.db"
    remotes = (f"--remote=punix:{socket}", "--remote=db:Open_vSwitch,Open_vSwitch,manager_options")
    yield _plain(lab, host, "ovsdb-server", "openvswitch", str(database), *remotes)
    yield _plain(lab, host, "ovs-vswitchd", "openvswitch", f"unix:{socket}")
    yield _plain(lab, host, "ovn-controller", "ovn", f"unix:{socket}")


def _plain(lab: Lab, host: str, name: str, of: str, *argv: str) -> Daemon:
    """A daemon with its files where the package would have them."""
    pid_file = lab.rundir(host, of) / f"{name}.pid"
    detached = _detached(f"{lab.folder}/{host}/log/{name}.log")
    return Daemon(host, name, (name, *argv, f"--pidfile={pid_file}", *detached), pid_file)


def _detached(log: str) -> Iterator[str]:
    yield from ("--detach", "--no-chdir", "-vconsole:err", f"--log-file={log}")


def folders(lab: Lab) -> list[Path]:
    """The folders that daemons write to."""
    hosts = [*lab.central_names, *lab.chassis_names]
    return [lab.folder / host / each for host in hosts for each in ("openvswitch", "ovn", "db", "log")]


def plain(lab: Lab) -> Mapping[str, object]:
    """A lab as JSON can say it."""
    return {"prefix": lab.prefix, "chassis": lab.chassis, "centrals": lab.centrals}
