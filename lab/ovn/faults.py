"""What is broken in a lab so that alerts arrive: each fault is a function that does it and one that undoes it.

To add one: a Fault in FAULTS, with the alerts it must fire. Faults of one round are done one after the other and last
together, so none may hide what another one shows.
"""

import contextlib
import re
import signal
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from exporters.calibrate.namespaces import Namespace
from lab.ovn import build, change, run, topology
from lab.ovn.build import Run
from lab.ovn.run import LabError
from lab.ovn.topology import EGRESS, Lab

FLOOD = "br-flood"  # a bridge of its own in the datapath of a chassis; its links are `flood` and `flood-far`
DEAF_PORT = 26653
TAKEN_SECONDS = 6.0  # for a gateway to be taken over: BFD, as OVN sets it, sees after 3 s that its chassis is gone
SERVED = "tcp.dst == {8080, 8081, 8082}"  # what is sent to a peer, and not its own probes' answers


class Fault(NamedTuple):
    """One fault, and the alerts that it must fire, without their common beginning.

    again: what is done while they are lacking, where the fault may fade.
    """

    title: str
    fires: tuple[str, ...]
    do: Callable[[Lab], None]
    undo: Callable[[Lab], None]
    again: Callable[[Lab], None] | None = None


def _nothing(_: Lab) -> None:
    """What is over by itself."""


def _vsctl(lab: Lab, chassis: str, words: str) -> None:
    run.run(build.vsctl(lab, chassis, *words.split()))


def _nbctl(lab: Lab, words: str) -> None:
    run.run(build.nbctl(lab, *words.split()))


# --- OVS: flows, rules, controllers, ports


def _flood_bridge(lab: Lab, chassis: str) -> None:
    space = lab.namespace(chassis)
    lines = ("link add flood type veth peer name flood-far", "link set flood up", "link set flood-far up")
    run.run(build.batch(space, *lines))
    added = f"add-br {FLOOD} -- set Bridge {FLOOD} datapath_type=netdev fail_mode=secure"
    _vsctl(lab, chassis, f"{added} -- add-port {FLOOD} flood")
    # So that flows stay that nothing uses, on a busy machine, too.
    _vsctl(lab, chassis, "set Open_vSwitch . other_config:max-idle=120000 other_config:min-revalidate-pps=0")
    # Reading a field makes flows match it whole: a flow for each port.
    _rule(lab, chassis, "priority=1,udp,actions=move:NXM_OF_UDP_DST[]->NXM_NX_REG0[0..15]")


def _no_flood_bridge(lab: Lab, chassis: str) -> None:
    keys = ("max-idle", "min-revalidate-pps", "flow-limit")
    for key in keys:
        run.run(build.vsctl(lab, chassis, "remove", "Open_vSwitch", ".", "other_config", key))
    run.run(build.vsctl(lab, chassis, "--if-exists", "del-br", FLOOD))
    with contextlib.suppress(LabError):
        run.run(build.batch(lab.namespace(chassis), "link del flood"))


def _rule(lab: Lab, chassis: str, rule: str) -> None:
    _ofctl(lab, chassis, "add-flow", FLOOD, rule)


def _ofctl(lab: Lab, chassis: str, *argv: str, text: str = "") -> None:
    run.run(Run(("ovs-ofctl", *argv), environ=topology.environ(lab, chassis), text=text))


def _send(lab: Lab, chassis: str, ports: Sequence[int], size: int = 0) -> None:
    """Send a UDP packet to each port through the flood's link."""
    with closing(Namespace(lab.namespace(chassis))) as namespace:
        namespace.call(_frames, ports, size)


def _frames(ports: Sequence[int], size: int) -> None:
    ethernet = bytes.fromhex("0a0000009901 0a0000009902 0800")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("flood-far", 0))
        for port in ports:
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + size, 0, 0, 64, 17, 0, b"\x0a\x63\0\1", b"\x0a\x63\0\2")
            out.send(ethernet + ip + struct.pack("!HHHH", 9, port, 8 + size, 0) + bytes(size))


def _fill(lab: Lab, chassis: str, count: int) -> None:
    """Send to so many ports, again and again until almost all have a flow: some packets are lost each time."""
    for _ in range(10):
        _fill_once(lab, chassis, count)
        told = run.run(Run(("ovs-appctl", "--timeout=10", "upcall/show"), environ=topology.environ(lab, chassis)))
        found = re.search(r"current (\d+)", told)
        if found and int(found[1]) > 0.95 * count:
            return
    raise LabError(f"{chassis} has too few flows")


def _fill_once(lab: Lab, chassis: str, count: int) -> None:
    for begin in range(1000, 1000 + count, 100):
        _send(lab, chassis, range(begin, begin + 100))


def _many_flows(lab: Lab) -> None:
    _flood_bridge(lab, "ch1")
    _fill(lab, "ch1", 6000)


def _many_flows_again(lab: Lab) -> None:
    """OVS that is slow to look through them allows fewer, and deletes the rest, until it is faster again."""
    _fill_once(lab, "ch1", 6000)


def _full(lab: Lab) -> None:
    _flood_bridge(lab, "ch2")
    _fill(lab, "ch2", 4000)
    _vsctl(lab, "ch2", "set Open_vSwitch . other_config:flow-limit=1000")
    # Revalidators delete all, twice too many; then it fills up again, to the limit.
    threading.Event().wait(2.0)
    for begin in range(10_000, 13_000, 100):
        _send(lab, "ch2", range(begin, begin + 100))


def _deaf_controller(lab: Lab) -> None:
    """A controller that greets and never reads; then its connection is reset."""
    with closing(Namespace(lab.namespace("ch2"))) as namespace:
        server: socket.socket = namespace.call(socket.create_server, ("127.0.0.1", DEAF_PORT))
    server.settimeout(20)
    settings = "connection_mode=out-of-band controller_burst_limit=100000 controller_rate_limit=1000000"
    target = f"set-controller {FLOOD} tcp:127.0.0.1:{DEAF_PORT} -- set controller {FLOOD} {settings} max_backoff=1000"
    _vsctl(lab, "ch2", target)
    with closing(server), closing(server.accept()[0]) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.sendall(struct.pack("!BBHI", 4, 0, 8, 1))
        deaf.recv(64)
        deaf.sendall(struct.pack("!BBHI", 4, 5, 8, 2))
        _rule(lab, "ch2", "priority=50,udp,actions=controller:1500")
        for _ in range(60):
            _send(lab, "ch2", [9] * 300, 1200)
            threading.Event().wait(0.01)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _many_rules(lab: Lab) -> None:
    for bridge, count in (("br-int", 10_100), ("br-ex", 1_100)):
        rules = "\n".join(f"table=250,priority=1,udp,tp_dst={port},actions=drop" for port in range(count))
        _ofctl(lab, "ch3", "--bundle", "add-flows", bridge, "-", text=rules)


def _no_many_rules(lab: Lab) -> None:
    for bridge in ("br-int", "br-ex"):
        _ofctl(lab, "ch3", "del-flows", bridge, "table=250")


def _bad_ports(lab: Lab) -> None:
    """A bond one of whose links is down, and a port whose device is not there."""
    up = [f"link set {each} up" for each in ("bond-a", "bond-a-far", "bond-b")]
    made = [f"link add {each} type veth peer name {each}-far" for each in ("bond-a", "bond-b")]
    run.run(build.batch(lab.namespace("ch3"), *made, *up))
    _vsctl(lab, "ch3", "add-bond br-ex bond0 bond-a bond-b -- add-port br-ex nobody0")


def _no_bad_ports(lab: Lab) -> None:
    _vsctl(lab, "ch3", "--if-exists del-port br-ex bond0 -- --if-exists del-port br-ex nobody0")
    run.run(build.batch(lab.namespace("ch3"), "link del bond-a", "link del bond-b"))


# --- OVN: addresses, policies, northd, databases


def _egress_moves(lab: Lab) -> None:
    change.set_egress(lab, "w1", "ch3", EGRESS[0])


def _egress_back(lab: Lab) -> None:
    change.set_egress(lab, "w1", "ch2", EGRESS[0])


def _doubled(lab: Lab) -> None:
    added = (f"lr-nat-add gr{at} snat {EGRESS[8]} 10.0.{at}.50" for at in (2, 3))
    _nbctl(lab, " -- ".join(added))


def _not_doubled(lab: Lab) -> None:
    _nbctl(lab, "lr-nat-del gr2 snat 10.0.2.50 -- lr-nat-del gr3 snat 10.0.3.50")


def _policy(workload: str, match: str) -> tuple[Callable[[Lab], None], Callable[[Lab], None]]:
    """Drop what comes to a workload, and stop that."""
    switch = f"sw{topology.number(workload)}"
    whole = f"ip4.dst == {topology.address(workload)} && {match}"

    def do(lab: Lab) -> None:
        run.run(build.nbctl(lab, "--wait=hv", "acl-add", switch, "to-lport", "1000", whole, "drop"))

    def undo(lab: Lab) -> None:
        run.run(build.nbctl(lab, "acl-del", switch, "to-lport", "1000", whole))

    return do, undo


def _northd(lab: Lab, command: str) -> None:
    for central in lab.central_names:
        folder = lab.rundir(central, "ovn")
        at = folder / f"ovn-northd.{(folder / 'ovn-northd.pid').read_text().strip()}.ctl"
        run.run(Run(("ovs-appctl", "--timeout=5", "-t", str(at), command)))


def _northd_paused(lab: Lab) -> None:
    _northd(lab, "pause")
    wanted = int(run.run(build.nbctl(lab, "get", "NB_Global", ".", "nb_cfg")).strip())
    run.run(build.nbctl(lab, "set", "NB_Global", ".", f"nb_cfg={wanted + 1}"))


def _northd_resumed(lab: Lab) -> None:
    _northd(lab, "resume")


def _held_controller(lab: Lab) -> None:
    change.hold(lab, "ch2", "ovn-controller")
    run.run(build.nbctl(lab, "--wait=sb", "sync"))


def _lagging(lab: Lab) -> None:
    leader = change.leader(lab, "nb")
    held = [each for each in lab.central_names if each != leader][-1]
    change.hold(lab, held, "ovsdb-nb")
    # By the leader's own socket: a client that tried the one that is held would wait.
    tool = ("ovn-nbctl", build.PATIENCE, f"--db=unix:{lab.rundir(leader, 'ovn')}/ovnnb_db.sock")
    for number in range(60):
        run.run(Run((*tool, "set", "NB_Global", ".", f"external_ids:alarm={number}")))


def _not_lagging(lab: Lab) -> None:
    for central in lab.central_names:
        change.go_on(lab, central, "ovsdb-nb")


def _no_leader(lab: Lab) -> None:
    for central in lab.central_names[1:]:
        change.stop(lab, central, "ovsdb-sb", signal.SIGKILL)


def _leader_again(lab: Lab) -> None:
    for central in lab.central_names[1:]:
        change.start(lab, central, "ovsdb-sb")


# --- nodes


def _held_vswitchd(lab: Lab) -> None:
    """A chassis whose tunnels are all down takes no gateway: ch2 must have seen by ch3 that ch1 alone is gone."""
    threading.Event().wait(TAKEN_SECONDS)
    change.hold(lab, "ch3", "ovs-vswitchd")
    with contextlib.suppress(LabError):  # nobody applies it
        waits = ("ovs-vsctl", "--timeout=1", "set", "Open_vSwitch", ".", "external_ids:alarm=1")
        run.run(Run(waits, environ=topology.environ(lab, "ch3")))


def _killed_controller(lab: Lab) -> None:
    change.stop(lab, "ch3", "ovn-controller", signal.SIGKILL)


def _ends_in_order(lab: Lab) -> None:
    folder = lab.rundir("ch1", "ovn")
    at = folder / f"ovn-controller.{(folder / 'ovn-controller.pid').read_text().strip()}.ctl"
    run.run(Run(("ovs-appctl", "--timeout=5", "-t", str(at), "exit")))
    for _ in range(200):
        if not run.pid(change.daemon(lab, "ch1", "ovn-controller")):
            return
        threading.Event().wait(0.05)
    raise LabError("ovn-controller of ch1 does not end")


ONE_PATH, ALL_PATHS = _policy("w3", f"ip4.src == 10.0.0.0/16 && {SERVED}")
NO_HTTP, HTTP = _policy("w1", "ip4.src == 10.0.0.0/16 && tcp.dst == 8082")
NO_WAY_IN, WAYS_IN = _policy("w2", f"ip4.src != 10.0.0.0/16 && {SERVED}")

ROUNDS: tuple[tuple[Fault, ...], ...] = (
    (
        Fault("6 000 flows in ch1's datapath", ("DatapathFlowsHigh", "FlowsPerRuleHigh"), _many_flows,
              lambda lab: _no_flood_bridge(lab, "ch1"), again=_many_flows_again),
        Fault("four times the flows that ch2 may have", ("FlowsKilled", "FlowLimitReached"), _full, _nothing),
        Fault("a controller of ch2 that is deaf", ("OvsMessagesOverflowed", "OvsMessagesDiscarded"), _deaf_controller,
              lambda lab: _no_flood_bridge(lab, "ch2")),
        Fault("10 100 rules in ch3's br-int, 1 100 in br-ex",
              ("IntegrationBridgeRulesHigh", "ExternalBridgeRulesHigh"), _many_rules, _no_many_rules),
        Fault("ch3: half a bond, and a port without a device", ("BondDegraded", "InterfaceBroken"), _bad_ports,
              _no_bad_ports),
        Fault("w3 is closed to peers", ("OnePathDown", "ViewsDisagree", "OneWay", "StreamDown", "OutageEnded"),
              ONE_PATH, ALL_PATHS),
        Fault("w1 takes no http from peers", ("NewConnectionsFail",), NO_HTTP, HTTP),
        Fault("w2 is closed to outside", ("ExternalPathsDown",), NO_WAY_IN, WAYS_IN),
        Fault("w1's egress address moves to gr3", ("SnatMoved",), _egress_moves, _egress_back),
        Fault("an address on two gateway routers", ("SnatDoubled",), _doubled, _not_doubled),
        Fault("ch2's ovn-controller is held", ("ChassisBehind", "CollectorFailing"), _held_controller,
              lambda lab: change.go_on(lab, "ch2", "ovn-controller")),
        Fault("every northd is paused", ("NorthdInactive", "NorthdBehind"), _northd_paused, _northd_resumed),
        Fault("a follower of the northbound database is held", ("RaftLagging",), _lagging, _not_lagging),
    ),
    (
        Fault("ch1 is cut off", ("ControllerDisconnected", "TunnelsDown", "GatewayMoved", "PeerNotHeard"),
              lambda lab: change.cut(lab, "ch1"), lambda lab: change.mend(lab, "ch1")),
        Fault("ch3's ovs-vswitchd is held", ("OvsConfigBehind", "AllPathsDown", "SourceReachesNothing"),
              _held_vswitchd, lambda lab: change.go_on(lab, "ch3", "ovs-vswitchd")),
        Fault("ch3's ovn-controller is killed, then started", ("DaemonDown", "DaemonRestarted"), _killed_controller,
              lambda lab: change.start(lab, "ch3", "ovn-controller")),
    ),
    (
        Fault("ch1's ovn-controller ends in order, then starts", ("PortsDown", "ChassisReappeared"), _ends_in_order,
              lambda lab: change.start(lab, "ch1", "ovn-controller")),
    ),
    (
        Fault("two of three servers of the southbound database are killed",
              ("RaftWithoutLeader", "DatabaseDisconnected"), _no_leader, _leader_again),
    ),
)  # fmt: skip
# Those that fire only once a fault is over.
AFTERWARDS = {"OutageEnded", "DaemonRestarted", "ChassisReappeared"}
