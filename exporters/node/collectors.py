"""COLLECTORS: what each reads and yields, by the name its flag has. To add one: a function here and a line there.

1. A function reads through the host, gives what it read to a pure module, and yields that module's rows.
2. It ends by its deadline: every call on a socket has it.
3. What it cannot read it raises, one of FAILURES. Rows yielded before that are shown, for they are fresh.
4. What a node does not have (bonds, PMD threads) is no failure, and has no rows.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporters.node import addresses, bonds, bridges, openflow, ovsdb, processes
from exporters.node.failing import FAILURES, NotCollectedError, RefusedError
from exporters.node.host import Host, text
from exporters.node.ovn import collecting
from exporters.node.ovs import bonds as ovs_bonds
from exporters.node.ovs import coverage, database, datapath, interfaces, memory, pmd, upcall
from exporters.node.rows import Found, Row
from exporters.node.rpc import Deadline
from exporters.node.unixctl import Unixctl

DATABASE = "Open_vSwitch"
VERSION_LENGTH = 40  # characters, of a daemon's answer


class Collector(NamedTuple):
    """What reads one source, and what it reads in a few words."""

    collect: Callable[[Host, Deadline], Iterator[Found]]
    line: str


def links(host: Host, deadline: Deadline) -> Iterator[Found]:
    yield from host.links.collect(deadline)


def kernel_bonds(host: Host, deadline: Deadline) -> Iterator[Found]:
    for name, bond in host.bonds().items():
        yield from bonds.rows(name, bond)


def kernel_bridges(host: Host, deadline: Deadline) -> Iterator[Found]:
    for name, bridge in host.bridges(host.table(deadline)).items():
        yield from bridges.rows(name, bridge)


def reached(host: Host, deadline: Deadline) -> Iterator[Found]:
    yield from addresses.rows(host.reached(host.table(deadline), deadline))


def conntrack(host: Host, deadline: Deadline) -> Iterator[Found]:
    folder = host.paths.proc / "sys/net/netfilter"
    names = {"ovnwatch_node_conntrack_entries": "count", "ovnwatch_node_conntrack_entries_limit": "max"}
    for name, end in names.items():
        try:
            yield Row(name, (), datapath.count(text(folder / f"nf_conntrack_{end}")))
        except FileNotFoundError:  # the kernel tracks none
            return


def daemon_processes(host: Host, deadline: Deadline) -> Iterator[Found]:
    yield Row("ovnwatch_node_processors", (), processes.processors(text(host.paths.proc / "stat")))
    found = host.usage()
    yield from processes.rows(found)
    for daemon in (each for each in ("ovs-vswitchd", "ovsdb-server") if found.get(each)):
        with Unixctl(host.ovs(), daemon, deadline) as server:
            yield Row("ovnwatch_node_daemon_info", (daemon, version(server.run("version"))), 1)


def version(said: str) -> str:
    """`ovs-vswitchd (Open vSwitch) 3.1.0` -> `3.1.0`"""
    words = said.partition("\n")[0].split()
    return words[-1][:VERSION_LENGTH] if words else ""


def ovs_coverage(host: Host, deadline: Deadline) -> Iterator[Found]:
    with host.vswitchd(deadline) as vswitchd:
        totals = coverage.parse(vswitchd.run("coverage/show"))
        if vswitchd.pid not in host.events:
            host.events = {vswitchd.pid: _counted(vswitchd, totals)}
        yield from coverage.rows(totals, host.events[vswitchd.pid], host.every_event)


def _counted(vswitchd: Unixctl, totals: dict[str, int]) -> frozenset[str]:
    """Curated events that this OVS counts: those it does not show it is asked for one by one, once in its life."""
    found = coverage.CURATED & totals.keys()
    for event in sorted(coverage.CURATED - found):
        try:
            coverage.number(vswitchd.run("coverage/read-counter", event))
        except RefusedError:
            continue
        found |= {event}
    return found


def ovs_datapath(host: Host, deadline: Deadline) -> Iterator[Found]:
    with host.vswitchd(deadline) as vswitchd:
        for name in datapath.names(vswitchd.run("dpctl/dump-dps")):
            yield from datapath.rows(name, datapath.parse(vswitchd.run("dpctl/show", name)))


def ovs_conntrack(host: Host, deadline: Deadline) -> Iterator[Found]:
    commands = {
        "ovnwatch_ovs_conntrack_connections": "dpctl/ct-get-nconns",
        "ovnwatch_ovs_conntrack_connections_limit": "dpctl/ct-get-maxconns",
    }
    with host.vswitchd(deadline) as vswitchd:
        for name in datapath.names(vswitchd.run("dpctl/dump-dps")):
            for metric, command in commands.items():
                try:
                    yield Row(metric, (name,), datapath.count(vswitchd.run(command, name)))
                except RefusedError:  # a datapath of the kernel does not tell
                    continue


def ovs_upcall(host: Host, deadline: Deadline) -> Iterator[Found]:
    with host.vswitchd(deadline) as vswitchd:
        # Without a bridge there is no datapath, and nothing to parse.
        if vswitchd.run("dpctl/dump-dps").strip():
            yield from upcall.rows(upcall.parse(vswitchd.run("upcall/show")))


def ovs_memory(host: Host, deadline: Deadline) -> Iterator[Found]:
    for daemon in ("ovs-vswitchd", "ovsdb-server"):
        with Unixctl(host.ovs(), daemon, deadline) as server:
            yield from memory.rows(daemon, memory.parse(server.run("memory/show")))


def ovs_bond(host: Host, deadline: Deadline) -> Iterator[Found]:
    with host.vswitchd(deadline) as vswitchd:
        yield from ovs_bonds.rows(ovs_bonds.parse(vswitchd.run("bond/show")))
        current = ovs_bonds.parse_lacp(vswitchd.run("lacp/show"))
        yield from ovs_bonds.lacp_rows(current, ovs_bonds.parse_lacp_stats(vswitchd.run("lacp/show-stats")))


def ovs_pmd(host: Host, deadline: Deadline) -> Iterator[Found]:
    with host.vswitchd(deadline) as vswitchd:
        for name in datapath.names(vswitchd.run("dpctl/dump-dps")):
            try:
                # This command knows a datapath without its type.
                told = vswitchd.run("dpif-netdev/pmd-perf-show", name.partition("@")[2])
            except RefusedError:  # the kernel's has none
                continue
            yield from pmd.rows(name, pmd.parse(told))


def ovs_database(host: Host, deadline: Deadline) -> Iterator[Found]:
    yield from database.rows(ovsdb.select(host.ovs() / "db.sock", DATABASE, database.TABLES, deadline))


def ovs_interfaces(host: Host, deadline: Deadline) -> Iterator[Found]:
    found = interfaces.parse(ovsdb.select(host.ovs() / "db.sock", DATABASE, interfaces.TABLES, deadline))
    host.interface_sums = interfaces.step(host.interface_sums, found)
    yield from interfaces.sum_rows(found, host.interface_sums)
    yield from interfaces.rows(interfaces.shown(found, host.workloads))


def ovs_openflow(host: Host, deadline: Deadline) -> Iterator[Found]:
    folder = host.ovs()
    with host.vswitchd(deadline) as vswitchd:
        bridges_of_it = vswitchd.run("ofproto/list").split()
    failed = []
    for bridge in bridges_of_it:
        try:
            rules = openflow.aggregate(folder / f"{bridge}.mgmt", deadline).rules
        except FAILURES as error:
            failed.append(f"{bridge}: {error}")
            continue
        yield Row("ovnwatch_ovs_bridge_rules", (bridge,), rules)
    if failed:
        raise NotCollectedError("; ".join(failed))


COLLECTORS = {
    "links": Collector(links, "links: traffic, drops, errors, state, speed, VLANs"),
    "bonds": Collector(kernel_bonds, "bonds of the kernel"),
    "bridges": Collector(kernel_bridges, "bridges of the kernel"),
    "addresses": Collector(reached, "addresses, routes, leases and nameservers"),
    "conntrack": Collector(conntrack, "connections that the kernel tracks"),
    "daemons": Collector(daemon_processes, "CPU, memory, threads, files, start and version of OVS' and OVN's daemons"),
    "ovs-coverage": Collector(ovs_coverage, "events that ovs-vswitchd counts, dropped packets by reason"),
    "ovs-datapath": Collector(ovs_datapath, "lookups, flows, masks and ports of datapaths"),
    "ovs-conntrack": Collector(ovs_conntrack, "connections that datapaths track"),
    "ovs-upcall": Collector(ovs_upcall, "flows, their limit and how long reading them takes"),
    "ovs-memory": Collector(ovs_memory, "what OVS' daemons keep in memory, handlers"),
    "ovs-bonds": Collector(ovs_bond, "bonds of OVS and their LACP"),
    "ovs-pmd": Collector(ovs_pmd, "polling threads of the userspace datapath"),
    "ovs-database": Collector(ovs_database, "configuration, bridges and controllers"),
    "ovs-interfaces": Collector(ovs_interfaces, "interfaces, with BFD"),
    "ovs-openflow": Collector(ovs_openflow, "OpenFlow rules of bridges"),
    "ovn-controller": Collector(collecting.ovn_controller, "ovn-controller: connection, engine, cache, tunnels, ports"),
    "ovn-northd": Collector(collecting.ovn_northd, "ovn-northd: active or not, connections, engine, stopwatches"),
    "ovn-servers": Collector(collecting.ovn_servers, "servers of OVN's databases: size, schema, RAFT"),
    "ovn-northbound": Collector(
        collecting.northbound, "northbound database: configurations, egress addresses, balancers"
    ),
    "microovn": Collector(collecting.micro_ovn, "MicroOVN: members of its cluster, schemas still to be upgraded"),
    "ovn-southbound": Collector(collecting.southbound, "southbound database: lag of each chassis, gateways, ports"),
}
