"""Objects of a Kubernetes API in, phases out: a function for each kind of migration. Pure.

1. What a cluster does not have is absent: a function that finds none of its objects says NONE.
2. A phase is read from the state, as far as that tells it, so that who starts late says the same. A reboot needs what
   was before, since nothing but the boot id tells one that took 35 s, and so do rounds of reboots that leave no mark.
3. A field that is absent is 0 where the API leaves zeros out.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from exporters.migration.names import NONE

Object = Mapping[str, Any]
MCO = "machineconfiguration.openshift.io/"
RELEASE = "release.openshift.io/version"
ASKED = "network.openshift.io/network-type-migration"
HUNG = "networkoperator.openshift.io/rollout-hung"  # its value is empty: that it is there says so
DOWN, BOOTED = "down", "booted, not ready"
OPERATOR = ("Available", "Progressing", "Degraded")
LIVE = tuple(
    f"NetworkTypeMigration{each}"
    for each in ("InProgress", "MTUReady", "TargetCNIAvailable", "TargetCNIInUse", "OriginalCNIPurged")
)
COUNTS = ("machineCount", "updatedMachineCount")
OVNK = "openshift-ovn-kubernetes"

# Other networks than OVN-Kubernetes, by their DaemonSet: the annotations they leave on nodes.
OTHERS = {
    "kube-flannel-ds": "flannel.alpha.coreos.com/",
    "calico-node": "projectcalico.org/",
    "cilium": "network.cilium.io/",
    "kube-router": "kube-router.io/",
}


class State(NamedTuple):
    """The phase of the cluster in one kind of migration; `progress` 0 to 1, None where it cannot be said."""

    phase: str = NONE
    progress: float | None = None
    rolls: bool = False


class Node(NamedTuple):
    """A node's phase, and what has to be remembered of it: its boot id, and whether it booted in this turn.

    `turn`: somebody is at it. A node that fails of itself is in a phase, too, and that excuses nothing.
    """

    phase: str
    boot_id: str
    booted: bool = False
    rebooted: bool = False  # just now
    turn: bool = False


def node(found: Object, before: Node | None) -> Node:
    """Drain, reboot and return of a node, with and without the machine config operator.

    `desiredDrain` is drain-X or uncordon-X, and done when `lastAppliedDrain` is the same.
    """
    boot_id = str(_at(found, "status", "nodeInfo").get("bootID", ""))
    rebooted = before is not None and boot_id not in ("", before.boot_id) and before.boot_id != ""
    in_turn = before is not None and before.phase != NONE
    booted = in_turn and (rebooted or (before is not None and before.booted))
    phase = _node_phase(found, booted)
    turn = phase not in (NONE, DOWN, BOOTED) or (phase != NONE and _announced(found))
    return Node(phase, boot_id or (before.boot_id if before else ""), booted and phase != NONE, rebooted, turn)


def _announced(found: Object) -> bool:
    """Is it cordoned, or has the machine config operator something to do on it?"""
    return bool(_at(found, "spec").get("unschedulable")) or _pending(_at(found, "metadata", "annotations"))


def _pending(notes: Mapping[str, Any]) -> bool:
    return notes.get(f"{MCO}currentConfig") != notes.get(f"{MCO}desiredConfig")


def _node_phase(found: Object, booted: bool) -> str:
    notes = _at(found, "metadata", "annotations")
    desired, applied = notes.get(f"{MCO}desiredDrain", ""), notes.get(f"{MCO}lastAppliedDrain", "")
    cordoned = bool(_at(found, "spec").get("unschedulable"))
    if condition(found, "Ready") != "True":
        return BOOTED if booted else DOWN
    if desired.startswith("drain-") and desired != applied:
        return "draining"
    if cordoned:
        if booted or (desired.startswith("uncordon-") and desired != applied):
            return "ready, cordoned"
        return "drained" if desired.startswith("drain-") else "cordoned"
    return "update pending" if _pending(notes) else NONE


def rollout(objects: Iterable[Object], _: str = NONE) -> State:
    """A new version of OVN-Kubernetes on OpenShift: the nodes' part, then the control plane; hung or not.

    The operator writes the version it rolls out on both, and on itself when all of it is done.
    """
    known = {(each["kind"], _name(each)): each for each in objects}
    nodes, control = known.get(("DaemonSet", "ovnkube-node")), known.get(("Deployment", "ovnkube-control-plane"))
    operator, cluster = known.get(("ClusterOperator", "network")), known.get(("ClusterVersion", "version"))
    if nodes is None or operator is None or _at(nodes, "metadata").get("namespace") != OVNK:
        return State()
    versions = _at(operator, "status").get("versions") or []
    have = next((each["version"] for each in versions if each["name"] == "operator"), "")
    if _version(nodes) != have and not settled(nodes):
        hung = ", hung" if HUNG in _at(nodes, "metadata", "annotations") else ""
        return State(f"node roll-out{hung}", _share(nodes, "updatedNumberScheduled"), rolls=True)
    if _version(nodes) != have or (control is not None and _version(control) != have):
        hung = ", hung" if control is not None and HUNG in _at(control, "metadata", "annotations") else ""
        return State(f"control plane roll-out{hung}")
    if cluster is not None and condition(cluster, "Progressing") == "True":
        wanted = _at(cluster, "spec", "desiredUpdate").get("version") or _at(cluster, "status", "desired").get(
            "version"
        )
        return State("cluster update, network done" if wanted == have else "cluster update, network not yet")
    return State()


def cni_swap(objects: Iterable[Object], _: str = NONE) -> State:
    """Another network replaced by OVN-Kubernetes, without an operator: DaemonSets, and what they leave on nodes."""
    known = list(objects)
    sets = {_name(each): each for each in known if each["kind"] == "DaemonSet"}
    nodes = [each for each in known if each["kind"] == "Node"]
    old = [name for name in OTHERS if name in sets]
    new = sets.get("ovnkube-node")
    left = any(
        note.startswith(tuple(OTHERS.values())) for each in nodes for note in _at(each, "metadata", "annotations")
    )
    if not left or (old and new is None):
        return State()
    if new is None:
        ready = any(condition(each, "Ready") == "True" for each in nodes)
        return State("old CNI removed") if ready else State("no CNI", 0.0)
    if old or not settled(new):
        return State("new CNI roll-out", _share(new, "numberReady"))
    return State("completed", 1.0)


def sdn_live(objects: Iterable[Object], before: str = NONE) -> State:
    """OpenShift SDN to OVN-Kubernetes, live (4.15 and 4.16), in the order that the operator's code has.

    `status.networkType` turns at the start of the second round, and MTUReady is true between the rounds only: neither
    says by itself what goes on. Conditions are older than the pools while the operator is progressing.
    """
    known = list(objects)
    config, operator = _network(known, "config"), _network(known, "operator")
    started = _condition(config, "InProgress")
    status = _at(config, "status")
    if not started:
        wanted = _at(config, "spec").get("networkType") != status.get("networkType")
        asked = ASKED in _at(config, "metadata", "annotations")
        return State("requested") if asked and wanted else State()
    if started != "True":
        return State("completed") if _reason(config, "InProgress").endswith("Completed") else State()
    if _condition(config, "TargetCNIInUse") == "True":
        going = _at(operator, "spec", "migration")
        return State("target CNI in use") if going else State("purging the original CNI", rolls=True)
    return _sdn_round(config, _updated(known), before)


def _sdn_round(config: Object, done: float | None, before: str) -> State:
    """Which of the two rounds of reboots there is; one that has begun lasts until a condition says that it is over."""
    status = _at(config, "status")
    if _at(status, "migration", "mtu"):
        if done is None and _condition(config, "MTUReady") == "True":
            return State("routable MTU ready")
        begun = done is not None or before == "routable MTU round"
        return State("routable MTU round", done) if begun else State("routable MTU requested")
    if status.get("networkType") == _at(config, "spec").get("networkType"):
        begun = done is not None or before == "CNI switch round"
        return State("CNI switch round", done) if begun else State("CNI switch requested")
    return State("target CNI deploying", rolls=True)


def mtu(objects: Iterable[Object], before: str = NONE) -> State:
    """A change of the cluster's MTU: two rounds of reboots, with the administrator's word between them.

    Between the rounds nothing but what was before tells that a round is over; `clusterNetworkMTU` shows the target at
    the beginning.
    """
    known = list(objects)
    config, operator = _network(known, "config"), _network(known, "operator")
    asked, going = _at(operator, "spec", "migration", "mtu"), _at(config, "status", "migration", "mtu")
    if _at(config, "status", "migration").get("networkType"):
        return State()  # a part of another migration
    done = _updated(known)
    if asked and not going and before in (NONE, "requested", "completed"):  # later it is news that came out of order
        return State("requested")
    return _first_round(done, before) if asked else _second_round(done, before)


def _first_round(done: float | None, before: str) -> State:
    if done is not None:
        return State("first round", done)
    over = before in ("first round", "waiting for the administrator")
    return State("waiting for the administrator") if over else State("first round preparing", rolls=True)


def _second_round(done: float | None, before: str) -> State:
    """After the administrator's word, of which only what was before knows."""
    waited = before in ("first round", "waiting for the administrator", "second round preparing")
    if done is not None and (waited or before == "second round"):
        return State("second round", done)
    if waited:
        return State("second round preparing", rolls=True)
    return State("completed", 1.0) if done is None and before in ("second round", "completed") else State()


def conditions(objects: Iterable[Object]) -> dict[str, bool]:
    """Of the network operator and of a live migration, by the API's own names; an unknown one is absent."""
    found: dict[str, bool] = {}
    for each in objects:
        ours = OPERATOR if each["kind"] == "ClusterOperator" else LIVE if each["kind"] == "Network" else ()
        for name in ours:
            if (said := condition(each, name)) in ("True", "False"):
                found[name] = said == "True"
    return found


Assigned = Mapping[tuple[str, str], str]


def egress(objects: Iterable[Object]) -> Assigned:
    """By name of an EgressIP and address, the node that has it; an address that waits for one is absent."""
    return {
        (_name(each), str(item.get("egressIP", ""))): str(item.get("node", ""))
        for each in objects
        if each["kind"] == "EgressIP"
        for item in _at(each, "status").get("items") or []
    }


def moves(before: Assigned, after: Assigned) -> list[tuple[str, str, str, str]]:
    """(EgressIP, address, from, to) of each that moved; "" for no node."""
    keys = sorted({*before, *after})
    return [(*key, before.get(key, ""), after.get(key, "")) for key in keys if before.get(key) != after.get(key)]


def settled(found: Object) -> bool:
    """Has a DaemonSet's controller seen what is wanted, and has it done it on every node?"""
    status = _at(found, "status")
    wanted = status.get("desiredNumberScheduled", 0)
    seen = status.get("observedGeneration", 0) >= _at(found, "metadata").get("generation", 0)
    done = (status.get(name, 0) for name in ("updatedNumberScheduled", "numberReady", "numberAvailable"))
    return bool(seen and all(each >= wanted for each in done))


def condition(found: Object, kind: str) -> str:
    """Its status, True, False or Unknown; "" where it is not there."""
    conditions = _at(found, "status").get("conditions") or []
    return next((str(each.get("status", "")) for each in conditions if each.get("type") == kind), "")


def _condition(config: Object, name: str) -> str:
    return condition(config, f"NetworkTypeMigration{name}")


def _reason(config: Object, name: str) -> str:
    conditions = _at(config, "status").get("conditions") or []
    return next(
        (each.get("reason", "") for each in conditions if each.get("type") == f"NetworkTypeMigration{name}"), ""
    )


def _network(objects: Iterable[Object], group: str) -> Object:
    """The cluster's Network of that API group; empty where there is none."""
    wanted = f"{group}.openshift.io/"
    found = (each for each in objects if each["kind"] == "Network" and each.get("apiVersion", "").startswith(wanted))
    return next(found, {})


def _updated(objects: Iterable[Object]) -> float | None:
    """Of all machines in pools that are updating, how many are done; None where no pool is."""
    pools = [each for each in objects if each["kind"] == "MachineConfigPool"]
    if not any(condition(each, "Updating") == "True" for each in pools):
        return None
    machines, done = (sum(_at(each, "status").get(name, 0) for each in pools) for name in COUNTS)
    return float(min(1.0, done / machines)) if machines else 0.0


def _share(found: Object, what: str) -> float:
    wanted = _at(found, "status").get("desiredNumberScheduled", 0)
    return min(1.0, _at(found, "status").get(what, 0) / wanted) if wanted else 0.0


def _version(found: Object) -> str:
    return str(_at(found, "metadata", "annotations").get(RELEASE, ""))


def _name(found: Object) -> str:
    return str(_at(found, "metadata").get("name", ""))


def _at(found: Object, *path: str) -> Mapping[str, Any]:
    """A part of it; nothing where it, or a part on the way, is absent or null."""
    for each in path:
        found = found.get(each) or {}
    return found


# To add a kind: a function of all objects and the phase before, and a line here.
KINDS: Mapping[str, Callable[[Iterable[Object], str], State]] = {
    "rollout": rollout,
    "cni_swap": cni_swap,
    "sdn_live": sdn_live,
    "mtu": mtu,
}
