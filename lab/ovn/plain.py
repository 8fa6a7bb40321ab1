"""Workloads on a plain bridge of each chassis, routed by its kernel, and their way from there to OVN, one by one.

1. The bridge has the addresses, MAC and IP, of the gateway that a workload has in OVN: the workload notices no more of
   it than that its packets are lost for a while.
2. Plain workloads reach each other by routes between chassis, and what is in OVN by the gateway router on their own
   chassis; OVN reaches a plain one by the same router, which translates nothing that stays within the cluster.
3. Outside sees a plain workload with its chassis' address.
"""

from collections.abc import Iterator

from lab.ovn import build, change, run
from lab.ovn.build import Run, nbctl
from lab.ovn.topology import CLUSTER, UNDERLAY, Lab, address, gateway, gateway_address, join_address, number, underlay

BRIDGE = "plain"
WITHIN = "within"  # OVN's name of the addresses that are not translated


def begin(lab: Lab) -> None:
    """Take all workloads out of OVN and put them on plain bridges."""
    run.run(nbctl(lab, *exempted(lab)))
    for chassis in lab.chassis_names:
        run.run_all(bridged(lab, chassis))
    run.run(nbctl(lab, "--wait=hv", "sync"))


def leave(lab: Lab, workload: str) -> None:
    """Take a workload off its bridge: it is nowhere."""
    chassis = _home(workload)
    run.run(build.batch(lab.namespace(chassis), f"link set v-{workload} nomaster"))


def come_back(lab: Lab, workload: str) -> None:
    """Put a workload that is nowhere back on its bridge."""
    run.run(build.batch(lab.namespace(_home(workload)), f"link set v-{workload} master {BRIDGE}"))


def enter(lab: Lab, workload: str) -> None:
    """Let OVN have a workload that is nowhere, and wait until all chassis know."""
    run.run_all(entered(lab, workload))
    run.run_all(change.settled(lab, workload, _home(workload)))


def exempted(lab: Lab) -> Iterator[str]:
    """The arguments of one `ovn-nbctl`: what stays within the cluster keeps its address in all NATs there are."""
    yield from ["--id=@within", "create", "Address_Set", f"name={WITHIN}", f'addresses="{CLUSTER}"']
    rows = run.run(nbctl(lab, "--bare", "--columns=_uuid", "find", "NAT", f'logical_ip="{CLUSTER}"'))
    for row in rows.split():
        yield from ["--", "set", "NAT", row, "exempted_ext_ips=@within"]


def bridged(lab: Lab, chassis: str) -> Iterator[Run]:
    """A chassis' workload out of OVN and on a bridge, and how everybody reaches it there. Pure."""
    at, space = number(chassis), lab.namespace(chassis)
    workload, others = f"w{at}", [each for each in lab.chassis_names if each != chassis]
    yield build.vsctl(lab, chassis, "--if-exists", "del-port", "br-int", f"v-{workload}")
    yield build.batch(
        space,
        f"link add {BRIDGE} address 0a:00:00:00:{at:02x}:01 type bridge",
        f"link set {BRIDGE} up",
        f"address add 10.0.{at}.1/24 dev {BRIDGE}",
        f"link set v-{workload} master {BRIDGE} up",
        *(f"route add 10.0.{number(each)}.0/24 via {underlay(each)}" for each in others),
    )
    yield Run(("sysctl", "-qw", "net.ipv4.ip_forward=1"), space)
    hook = "type nat hook postrouting priority 100; policy accept;"
    seen = f"ip saddr 10.0.{at}.0/24 ip daddr {UNDERLAY}.0/24 masquerade"
    yield Run(("nft", "-f", "-"), space, text=f"table ip {BRIDGE} {{\nchain out {{ {hook} {seen}; }}\n}}\n")
    ways = ("--", "lr-route-add", gateway(chassis), f"{address(workload)}/32", underlay(chassis))
    yield nbctl(lab, "lr-route-add", "cr", f"{address(workload)}/32", join_address(chassis), *ways)


def entered(lab: Lab, workload: str) -> Iterator[Run]:
    """A workload that was on a bridge as a logical port; the bridge goes. Pure."""
    home = _home(workload)
    for each in lab.chassis_names:
        if each != home:
            way = f"route replace 10.0.{number(workload)}.0/24 via {gateway_address(each)}"
            yield build.batch(lab.namespace(each), way)
    gone = f"{address(workload)}/32"
    yield nbctl(lab, "lr-route-del", "cr", gone, "--", "lr-route-del", gateway(home), gone)
    yield build.batch(lab.namespace(home), f"link delete {BRIDGE}")
    yield from build.bound(lab, workload, home)


def _home(workload: str) -> str:
    return f"ch{number(workload)}"
