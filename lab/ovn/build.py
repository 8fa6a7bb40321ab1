"""The commands that build a lab, in order. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lab.ovn import topology
from lab.ovn.topology import (
    CLUSTER,
    CLUSTER_VIP,
    DATABASES,
    EGRESS,
    HA_GATEWAY,
    OUTSIDE_BY_HA,
    PORTS,
    UNDERLAY,
    VIP,
    Daemon,
    Lab,
    address,
    gateway,
    gateway_address,
    join_address,
    mac,
    number,
    underlay,
    vip,
)

OVS_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
OVN_SCHEMA = "/usr/share/ovn/ovn-{}.ovsschema"
PATIENCE = "--timeout=30"  # seconds; else the tools wait for ever for a daemon that does not answer
# The datapath's row would else be made by ovn-controller, which reads there at once what OVS can.
BRIDGES = """
add-br br-int -- set Bridge br-int datapath_type=netdev fail_mode=secure other-config:disable-in-band=true
-- add-br br-ex -- set Bridge br-ex datapath_type=netdev -- add-port br-ex eth0
-- --id=@it create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:netdev=@it
"""
OVERLAY_MTU = 1400  # of workloads: a tunnel adds 58 bytes, and what is longer than 1500 is lost in it
HA_JOIN = "100.64.0.100"
HA_PORT = "ha-ext-ha"  # the port of the router `ha` that leads outside; its gateway fails over
EGRESS_PRIORITY, HA_PRIORITY = 100, 200  # of the router's policies


class Run(NamedTuple):
    """A command: in which namespace ("": the machine's own), with what in its environment and on its standard input."""

    argv: tuple[str, ...]
    within: str = ""
    environ: Mapping[str, str] = {}
    text: str = ""


def commands(lab: Lab) -> Iterator[Run]:
    """Everything, from nothing to a lab that forwards."""
    yield from network(lab)
    for central in lab.central_names:
        yield from databases(lab, central)
    for central in lab.central_names:
        yield from starts(lab, central)
    yield from joined(lab)
    yield nbctl(lab, *logical(lab))
    for chassis in lab.chassis_names:
        yield from new_chassis(lab, chassis)
    for workload in lab.workloads:
        yield from plugged(lab, workload, f"ch{number(workload)}")
    yield from ready(lab)


def network(lab: Lab) -> Iterator[Run]:
    """Namespaces, the two switches between them, and addresses; a workload's eth0 is not plugged in yet."""
    spaces = [lab.namespace(host) for host in ("net", *lab.hosts)]
    yield batch("", *(f"netns add {space}" for space in spaces))
    net = lab.namespace("net")
    yield batch(net, "link set lo up", *(f"link add {name} type bridge" for name in ("ul", "mgmt")),
                "link set ul up", "link set mgmt up")  # fmt: skip
    veths = [f"link add m-{host} netns {net} type veth peer mgmt0 netns {lab.namespace(host)}" for host in lab.hosts]
    on_underlay = [host for host in lab.hosts if host not in lab.workloads]
    veths += [f"link add {host} netns {net} type veth peer eth0 netns {lab.namespace(host)}" for host in on_underlay]
    yield batch("", f"link add {lab.link} type veth peer m-host netns {net}", *veths)
    ports = {f"m-{host}": "mgmt" for host in ("host", *lab.hosts)} | dict.fromkeys(on_underlay, "ul")
    yield batch(net, *(f"link set {port} master {switch} up" for port, switch in ports.items()))
    yield batch("", f"address add {lab.management('')}/24 dev {lab.link}", f"link set {lab.link} up")
    for host in lab.hosts:
        own = [f"address add {lab.management(host)}/24 dev mgmt0", "link set lo up", "link set mgmt0 up"]
        if host in on_underlay:
            own.append("link set eth0 up")
        if topology.kind(host) in ("central", "outside"):
            own.append(f"address add {underlay(host)}/24 dev eth0")
        if host == "outside":
            own.append(f"address add {OUTSIDE_BY_HA}/24 dev eth0")
        yield batch(lab.namespace(host), *own)
    for host in on_underlay:
        yield whole_checksums(lab, host)


def whole_checksums(lab: Lab, host: str) -> Run:
    """Let a host's eth0 fill in checksums: what goes through OVS in userspace arrives as it was sent, and TCP fails."""
    return Run(("ethtool", "-K", "eth0", "tx", "off"), lab.namespace(host))


def databases(lab: Lab, central: str) -> Iterator[Run]:
    """Make the databases of one central: alone, or the first of a cluster, or one that joins it."""
    first, *_ = lab.central_names
    for short, (name, _, raft) in DATABASES.items():
        file, schema = f"{lab.folder}/{central}/db/ovn{short}.db", OVN_SCHEMA.format(short)
        mine, theirs = (f"tcp:{underlay(each)}:{raft}" for each in (central, first))
        if lab.centrals == 1:
            yield Run(("ovsdb-tool", "create", file, schema))
        elif central == first:
            yield Run(("ovsdb-tool", "create-cluster", file, schema, mine))
        else:
            yield Run(("ovsdb-tool", "join-cluster", file, name, mine, theirs))


def starts(lab: Lab, host: str) -> Iterator[Run]:
    """Start all daemons of a host."""
    for daemon in topology.daemons(lab, host).values():
        yield from start(lab, daemon)


def start(lab: Lab, daemon: Daemon) -> Iterator[Run]:
    """Start a daemon, the first or another one, that does not run."""
    yield Run(daemon.argv, lab.namespace(daemon.host), topology.environ(lab, daemon.host))
    if daemon.name == "ovs-vswitchd":
        yield no_zero_snat(lab, daemon.host)


def no_zero_snat(lab: Lab, chassis: str) -> Run:
    """Hide from OVN that OVS can translate to 0.0.0.0, which to OVN means: to what it is.

    In userspace OVS 3.1.0 aborts on the next packet of such a connection that is over but not yet forgotten, as when a
    client takes its port again (`conn_type == CT_CONN_TYPE_DEFAULT failed in conn_update_state()`). It writes what it
    can into its database whenever it has started: that is waited for.
    """
    can = ["capabilities", "includes", ["map", [["ct_zero_snat", "true"]]]]
    wait = {"op": "wait", "timeout": 10_000, "columns": ["_uuid"], "until": "!=", "rows": []}
    removal = {"op": "mutate", "mutations": [["capabilities", "delete", ["set", ["ct_zero_snat"]]]]}
    where = {"table": "Datapath", "where": [can]}
    socket = f"unix:{lab.rundir(chassis, 'openvswitch')}/db.sock"
    operations = ["Open_vSwitch", {**where, **wait}, {**where, **removal}]
    return Run(("ovsdb-client", PATIENCE, "transact", socket, json.dumps(operations)))


def joined(lab: Lab) -> Iterator[Run]:
    """Wait until every member of a cluster is one."""
    for central in lab.central_names if lab.centrals > 1 else ():
        for short, (name, _, _) in DATABASES.items():
            yield Run(("ovsdb-client", PATIENCE, "wait", _socket(lab, central, short), name, "connected"))


def _socket(lab: Lab, central: str, database: str) -> str:
    return f"unix:{lab.rundir(central, 'ovn')}/ovn{database}_db.sock"


def new_chassis(lab: Lab, chassis: str) -> Iterator[Run]:
    """An OVS with an address for its tunnels on br-ex, and a controller.

    In userspace OVS sends tunnels itself, through the bridge that has their address: eth0 must be a port of it. The
    kernel hears what comes to eth0 beside OVS, and must not answer there for an address of br-ex: who believed that
    answer would send its tunnels to eth0, where OVS takes none.
    """
    daemons, space = topology.daemons(lab, chassis), lab.namespace(chassis)
    ids = {
        "system-id": chassis,
        "hostname": chassis,
        "ovn-remote": f'"{lab.remotes("sb")}"',
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": underlay(chassis),
        "ovn-bridge-datapath-type": "netdev",
        "ovn-bridge-mappings": "physnet1:br-ex",
        "ovn-monitor-all": "true",
    }
    yield Run(("sysctl", "-qw", "net.ipv4.conf.eth0.arp_ignore=1"), space)
    yield Run(("ovsdb-tool", "create", f"{lab.folder}/{chassis}/db/conf.db", OVS_SCHEMA))
    yield from start(lab, daemons["ovsdb-server"])
    told = (f"external-ids:{name}={value}" for name, value in ids.items())
    yield vsctl(lab, chassis, "--no-wait", "init", "--", "set", "Open_vSwitch", ".", *told, "--", *BRIDGES.split())
    yield from start(lab, daemons["ovs-vswitchd"])
    yield batch(space, f"address add {underlay(chassis)}/24 dev br-ex", "link set br-ex up")
    yield from start(lab, daemons["ovn-controller"])


def plugged(lab: Lab, workload: str, chassis: str) -> Iterator[Run]:
    """A workload's eth0, with its other end in br-int of a chassis."""
    port, here, there = f"v-{workload}", lab.namespace(workload), lab.namespace(chassis)
    yield batch("", f"link add {port} netns {there} type veth peer eth0 netns {here}")
    own = [
        f"link set eth0 address {mac(workload)} mtu {OVERLAY_MTU} up",
        f"address add {address(workload)}/24 dev eth0",
    ]
    yield batch(here, *own, f"route add default via 10.0.{number(workload)}.1")
    yield whole_checksums(lab, workload)
    yield from bound(lab, workload, chassis)


def bound(lab: Lab, workload: str, chassis: str) -> Iterator[Run]:
    """Make a chassis carry a workload whose port is in its namespace."""
    port = f"v-{workload}"
    yield batch(lab.namespace(chassis), f"link set {port} up")
    names = ("--", "set", "Interface", port, f"external_ids:iface-id={workload}")
    yield vsctl(lab, chassis, "--may-exist", "add-port", "br-int", port, *names)


def ready(lab: Lab) -> Iterator[Run]:
    """Wait until all chassis are known, carry their workloads and have done what the databases say."""
    for chassis in lab.chassis_names:
        yield sbctl(lab, "wait-until", "Chassis", chassis, f"name={chassis}")
    for workload in lab.workloads:
        yield carried(lab, workload)
    yield nbctl(lab, "--wait=hv", "sync")


def carried(lab: Lab, workload: str) -> Run:
    """Wait until a chassis carries a workload."""
    return sbctl(lab, "wait-until", "Port_Binding", workload, "up=true")


# --- what is logical


def logical(lab: Lab) -> Iterator[str]:
    """The arguments of one `ovn-nbctl`: switches, routers, load balancers, and who goes out by which gateway."""
    yield from ["lr-add", "cr", "--", "ls-add", "join"]
    yield from _port("cr", "join", "0a:58:64:40:00:01", "100.64.0.1/24")
    for chassis, workload in zip(lab.chassis_names, lab.workloads, strict=True):
        yield from _switch(chassis, workload)
    for chassis in lab.chassis_names:
        yield from _gateway_router(chassis)
    yield from _ha_router(lab)
    backends = [address(workload) for workload in lab.workloads]
    yield from _balancer("lb", {CLUSTER_VIP: backends, VIP: backends})
    yield from f"-- lr-lb-add {gateway('ch1')} lb".split()
    for workload in lab.workloads:
        yield from _balancer(f"lb-{workload}", {vip(workload): [address(workload)]})
        at = number(workload)
        yield from f"-- ls-lb-add sw{at} lb -- lr-lb-add {gateway(f'ch{at}')} lb-{workload}".split()
    yield "--"
    yield from egress("w1", lab.chassis_names[:2][-1], EGRESS[0])


def _switch(chassis: str, workload: str) -> Iterator[str]:
    at = number(chassis)
    yield from f"-- ls-add sw{at}".split()
    yield from _port("cr", f"sw{at}", f"0a:00:00:00:{at:02x}:01", f"10.0.{at}.1/24")
    yield from f"-- lsp-add sw{at} {workload} -- lsp-set-addresses {workload}".split()
    yield f"{mac(workload)} {address(workload)}"
    # Of what leaves the cluster, each network's own gateway router takes care.
    yield from f"-- --policy=src-ip lr-route-add cr 10.0.{at}.0/24 {join_address(chassis)}".split()


def _gateway_router(chassis: str) -> Iterator[str]:
    router, at = gateway(chassis), number(chassis)
    yield from f"-- lr-add {router} -- set Logical_Router {router} options:chassis={chassis}".split()
    # Answers of what came in by a VIP go back the way they came.
    yield "options:lb_force_snat_ip=router_ip"
    yield from _port(router, "join", f"0a:58:64:40:00:{10 + at:02x}", f"{join_address(chassis)}/24")
    yield from _outer(router, f"ext{at}", f"0a:58:ac:1f:00:{50 + at:02x}", gateway_address(chassis))
    yield from f"-- lr-nat-add {router} snat {gateway_address(chassis)} {CLUSTER}".split()


def _ha_router(lab: Lab) -> Iterator[str]:
    """A router whose gateway is on the first chassis that the others reach."""
    yield from ["--", "lr-add", "ha"]
    yield from _port("ha", "join", "0a:58:64:40:00:64", f"{HA_JOIN}/24")
    yield from _outer("ha", "ext-ha", "0a:58:ac:1f:00:63", HA_GATEWAY)
    for chassis in lab.chassis_names:
        yield from f"-- lrp-set-gateway-chassis {HA_PORT} {chassis} {100 - number(chassis)}".split()
    yield from f"-- lr-nat-add ha snat {HA_GATEWAY} {CLUSTER} -- lr-policy-add cr {HA_PRIORITY}".split()
    yield f"ip4.dst == {OUTSIDE_BY_HA}"
    yield from f"reroute {HA_JOIN}".split()


def _port(router: str, switch: str, mac_address: str, network: str) -> Iterator[str]:
    """A router's port, and the switch's that is joined to it."""
    port, peer = f"{router}-{switch}", f"{switch}-{router}"
    yield from f"-- lrp-add {router} {port} {mac_address} {network} -- lsp-add {switch} {peer}".split()
    yield from f"-- lsp-set-type {peer} router -- lsp-set-addresses {peer} router".split()
    yield from f"-- lsp-set-options {peer} router-port={port} nat-addresses=router".split()


def _outer(router: str, switch: str, mac_address: str, at: str) -> Iterator[str]:
    """A router's port to the underlay, by a switch of its own, and its way back to the cluster."""
    yield from f"-- ls-add {switch}".split()
    yield from _port(router, switch, mac_address, f"{at}/24")
    yield from f"-- lsp-add {switch} {switch}-net -- lsp-set-type {switch}-net localnet".split()
    yield from f"-- lsp-set-addresses {switch}-net unknown -- lsp-set-options {switch}-net".split()
    yield "network_name=physnet1"
    yield from f"-- lr-route-add {router} {CLUSTER} 100.64.0.1".split()


def _balancer(name: str, vips: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for at, backends in vips.items():
        for port in PORTS:
            yield from f"-- lb-add {name} {at}:{port} {','.join(f'{each}:{port}' for each in backends)} tcp".split()


def egress(workload: str, chassis: str, at: str) -> Iterator[str]:
    """Let a workload that has no egress address go out by a chassis' gateway, and be seen there with that address."""
    yield from f"lr-policy-add cr {EGRESS_PRIORITY}".split()
    yield egress_match(workload)
    yield from f"reroute {join_address(chassis)} -- lr-nat-add {gateway(chassis)} snat {at} {address(workload)}".split()


def egress_match(workload: str) -> str:
    """What a workload's egress address is for: whatever leaves the cluster."""
    return f"ip4.src == {address(workload)} && ip4.dst == {UNDERLAY}.0/24"


# --- the tools


def batch(space: str, *lines: str) -> Run:
    """Lines of `ip`, in a namespace or in the machine's own."""
    return Run(("ip", *(("-n", space) if space else ()), "-batch", "-"), text="\n".join(lines))


def vsctl(lab: Lab, chassis: str, *argv: str) -> Run:
    return Run(("ovs-vsctl", PATIENCE, *argv), environ=topology.environ(lab, chassis))


def nbctl(lab: Lab, *argv: str) -> Run:
    return Run(("ovn-nbctl", PATIENCE, f"--db={lab.sockets('nb')}", *argv))


def sbctl(lab: Lab, *argv: str) -> Run:
    return Run(("ovn-sbctl", PATIENCE, f"--db={lab.sockets('sb')}", *argv))
