"""What scenarios and tests do to a lab: move, restart, hold, cut and mend. Each raises LabError when it cannot be done.

They return when it is done: a daemon that was ended has gone, one that was started answers, chassis have done what the
databases say. What is held or cut stays so until it is told to go on or mended.
"""

import json
import signal
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

from lab.ovn import build, run, topology
from lab.ovn.build import HA_PORT, Run
from lab.ovn.run import LabError
from lab.ovn.topology import DATABASES, Daemon, Lab, gateway, join_address, underlay

GONE_SECONDS = 10.0  # for a daemon that is told to end
GENEVE = 6081

# --- workloads


def move(lab: Lab, workload: str, chassis: str) -> None:
    """Let another chassis carry a workload, which keeps its interface, address and connections; it is cut meanwhile."""
    if carrier(lab, workload) != chassis:
        unplug(lab, workload)
    plug(lab, workload, chassis)


def unplug(lab: Lab, workload: str) -> None:
    """Let no chassis carry a workload; its port stays in a namespace."""
    run.run(unplugged(lab, workload, carrier(lab, workload)))


def plug(lab: Lab, workload: str, chassis: str) -> None:
    """Let a chassis carry a workload that none carries, and wait until all chassis know."""
    run.run_all(plugged(lab, workload, carrier(lab, workload), chassis))
    run.run_all(settled(lab, workload, chassis))


def unplugged(lab: Lab, workload: str, here: str) -> Run:
    """The command of it. Pure."""
    return build.vsctl(lab, here, "--if-exists", "del-port", "br-int", f"v-{workload}")


def plugged(lab: Lab, workload: str, here: str, there: str) -> Iterator[Run]:
    """The commands of it, the port being in the namespace of `here`. Pure."""
    if here != there:
        yield build.batch(lab.namespace(here), f"link set v-{workload} netns {lab.namespace(there)}")
    yield from build.bound(lab, workload, there)


def settled(lab: Lab, workload: str, chassis: str) -> Iterator[Run]:
    """Wait until the southbound database has a workload up on a chassis, and all chassis know."""
    row = run.run(build.sbctl(lab, "get", "Chassis", chassis, "_uuid")).strip()
    yield build.sbctl(lab, "wait-until", "Port_Binding", workload, f"chassis={row}", "up=true")
    yield build.nbctl(lab, "--wait=hv", "sync")


def carrier(lab: Lab, workload: str) -> str:
    """The chassis whose namespace has a workload's port."""
    for chassis in lab.chassis_names:
        links = json.loads(run.run(Run(("ip", "-n", lab.namespace(chassis), "-json", "link", "show"))))
        if any(link["ifname"] == f"v-{workload}" for link in links):
            return chassis
    raise LabError(f"no chassis has the port of {workload}")


# --- gateways and egress addresses


class Egress(NamedTuple):
    """The rows of a workload's egress address: its policy, its SNAT, and the name of the router that has that."""

    policy: str
    nat: str
    router: str


def set_egress(lab: Lab, workload: str, chassis: str, address: str) -> None:
    """Let a workload go out by a chassis' gateway with an egress address: its first, or another place or address."""
    run.run(build.nbctl(lab, "--wait=hv", *egress_set(egress(lab, workload), workload, chassis, address)))


def no_egress(lab: Lab, workload: str) -> None:
    """Let a workload go out as its network does."""
    now = egress(lab, workload)
    if now:
        policy = ("lr-policy-del", "cr", str(build.EGRESS_PRIORITY), build.egress_match(workload))
        run.run(build.nbctl(lab, "--wait=hv", *policy, "--", *_nat_gone(now, workload)))


def egress(lab: Lab, workload: str) -> Egress | None:
    """A workload's egress address as it is now; None: it has none."""
    bare = ("--bare", "--columns=_uuid", "find")
    match = f'match="{build.egress_match(workload)}"'
    policy = run.run(
        build.nbctl(lab, *bare, "Logical_Router_Policy", f"priority={build.EGRESS_PRIORITY}", match)
    ).strip()
    if not policy:
        return None
    address = f'logical_ip="{topology.address(workload)}"'
    nat = run.run(build.nbctl(lab, *bare, "NAT", "type=snat", address)).strip()
    router = run.run(build.nbctl(lab, "--bare", "--columns=name", "find", "Logical_Router", f"nat{{>=}}{nat}")).strip()
    return Egress(policy, nat, router)


def egress_set(now: Egress | None, workload: str, chassis: str, address: str) -> list[str]:
    """One transaction that gives a workload's egress its place and address. Pure.

    What is there is changed: nothing can be removed and added again in one transaction.
    """
    if now is None:
        return [*build.egress(workload, chassis, address)]
    policy = ["set", "Logical_Router_Policy", now.policy, f"nexthops={join_address(chassis)}", "--"]
    if now.router == gateway(chassis):
        return [*policy, "set", "NAT", now.nat, f"external_ip={address}"]
    added = ["lr-nat-add", gateway(chassis), "snat", address, topology.address(workload)]
    return [*policy, *_nat_gone(now, workload), "--", *added]


def _nat_gone(now: Egress, workload: str) -> list[str]:
    return ["lr-nat-del", now.router, "snat", topology.address(workload)]


def move_gateway(lab: Lab, chassis: str, to: str) -> None:
    """Pin the gateway router that belongs to a chassis to another one, with its address, VIPs and SNAT."""
    run.run(build.nbctl(lab, "--wait=hv", "set", "Logical_Router", gateway(chassis), f"options:chassis={to}"))


def ha_carrier(lab: Lab) -> str:
    """The chassis that carries the gateway of the router `ha`; "": none does now."""
    query = ("--bare", "--columns=chassis", "find", "Port_Binding", f"logical_port=cr-{HA_PORT}")
    row = run.run(build.sbctl(lab, *query)).strip()
    return run.run(build.sbctl(lab, "get", "Chassis", row, "name")).strip().strip('"') if row else ""


# --- daemons


def daemon(lab: Lab, host: str, name: str) -> Daemon:
    """A daemon of a host. Raises LabError if it has none of that name."""
    found = topology.daemons(lab, host).get(name)
    if found is None:
        raise LabError(f"{host} has no {name!r}; it has {' '.join(topology.daemons(lab, host)) or 'no daemons'}")
    return found


def stop(lab: Lab, host: str, name: str, how: signal.Signals = signal.SIGTERM) -> None:
    """End a daemon and wait until it has gone."""
    one = daemon(lab, host, name)
    run.tell(one, how)
    if how != signal.SIGKILL and run.state(one) == "stopped":
        run.tell(one, signal.SIGCONT)
    deadline = time.monotonic() + GONE_SECONDS
    while run.pid(one):
        if time.monotonic() > deadline:
            raise LabError(f"{name} of {host} does not end")
        time.sleep(0.01)


def start(lab: Lab, host: str, name: str) -> None:
    """Start a daemon that does not run."""
    run.run_all(build.start(lab, daemon(lab, host, name)))


def restart(lab: Lab, host: str, name: str, how: signal.Signals = signal.SIGTERM) -> None:
    """End a daemon and start it again; its control socket has another name then."""
    stop(lab, host, name, how)
    start(lab, host, name)


def restart_chassis(lab: Lab, chassis: str) -> None:
    """End all daemons of a chassis and start them again, as an upgrade of its packages does."""
    stop_chassis(lab, chassis)
    start_chassis(lab, chassis)


def stop_chassis(lab: Lab, chassis: str) -> None:
    for name in reversed([*topology.daemons(lab, chassis)]):
        stop(lab, chassis, name)


def start_chassis(lab: Lab, chassis: str) -> None:
    """Start all daemons of a chassis and wait until it has done what the databases say."""
    run.run_all(build.starts(lab, chassis))
    run.run(build.nbctl(lab, "--wait=hv", "sync"))


def hold(lab: Lab, host: str, name: str) -> None:
    """Stop a daemon where it stands: it answers nobody, and its sockets stay."""
    run.tell(daemon(lab, host, name), signal.SIGSTOP)


def go_on(lab: Lab, host: str, name: str) -> None:
    """Let a daemon that is held go on."""
    run.tell(daemon(lab, host, name), signal.SIGCONT)


def leader(lab: Lab, database: Literal["nb", "sb"]) -> str:
    """The central that leads the RAFT cluster of a database; "": none does now, or those that run do not know."""
    name = DATABASES[database][0]
    for central in lab.central_names:
        if run.pid(daemon(lab, central, f"ovsdb-{database}")):
            control = lab.rundir(central, "ovn") / f"ovn{database}_db.ctl"
            told = run.run(Run(("ovs-appctl", "--timeout=5", "-t", str(control), "cluster/status", name)))
            if "Role: leader" in told:
                return central
    return ""


# --- the underlay


def cut_tunnel(lab: Lab, one: str, other: str) -> None:
    """Lose what two chassis send to each other in tunnels; everything else between them passes."""
    run.run(Run(("nft", "-f", "-"), lab.namespace("net"), text=tunnel_cut(one, other)))


def mend_tunnel(lab: Lab, one: str, other: str) -> None:
    run.run(Run(("nft", "delete", "table", "netdev", _table(one, other)), lab.namespace("net")))


def tunnel_cut(one: str, other: str) -> str:
    """A packet filter where a chassis' packets reach the switch; one in its own namespace is none to OVS. Pure."""
    lines = [f"table netdev {_table(one, other)} {{"]
    for here, there in ((one, other), (other, one)):
        lost = f"ip saddr {underlay(here)} ip daddr {underlay(there)} udp dport {GENEVE} counter drop"
        hook = f'type filter hook ingress device "{here}" priority 0; policy accept;'
        lines.append(f"chain from_{here} {{ {hook} {lost}; }}")
    return "\n".join([*lines, "}"])


def _table(one: str, other: str) -> str:
    return "_".join(("cut", *sorted((one, other))))


def cut(lab: Lab, host: str) -> None:
    """Take a host's link to the underlay down: a chassis loses tunnels, databases and what is outside."""
    run.run(build.batch(lab.namespace("net"), f"link set {host} down"))


def mend(lab: Lab, host: str) -> None:
    run.run(build.batch(lab.namespace("net"), f"link set {host} up"))
