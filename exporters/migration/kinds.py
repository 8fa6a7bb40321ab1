"""Objects of a Kubernetes API in, phases out: a function for each kind of migration. Pure.

1. What a cluster does not have is absent: a function that finds none of its objects says NONE.
2. A phase is read from the state, not from its changes, so that who starts late says the same. Only a reboot needs what
   was before: nothing but the boot id tells one that took 35 s.
3. A field that is absent is 0 where the API leaves zeros out.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from exporters.migration.names import NONE

Object = Mapping[str, Any]
MCO = "machineconfiguration.openshift.io/"
RELEASE = "release.openshift.io/version"
HUNG = "networkoperator.openshift.io/rollout-hung"  # its value is empty: that it is there says so
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
    """A node's phase, and what has to be remembered of it: its boot id, and whether it booted in this turn."""

    phase: str
    boot_id: str
    booted: bool = False
    rebooted: bool = False  # just now


def node(found: Object, before: Node | None) -> Node:
    """Drain, reboot and return of a node, with and without the machine config operator.

    `desiredDrain` is drain-X or uncordon-X, and done when `lastAppliedDrain` is the same.
    """
    boot_id = str(_at(found, "status", "nodeInfo").get("bootID", ""))
    rebooted = before is not None and boot_id not in ("", before.boot_id) and before.boot_id != ""
    in_turn = before is not None and before.phase != NONE
    booted = in_turn and (rebooted or (before is not None and before.booted))
    phase = _node_phase(found, booted)
    return Node(phase, boot_id or (before.boot_id if before else ""), booted and phase != NONE, rebooted)


def _node_phase(found: Object, booted: bool) -> str:
    notes = _at(found, "metadata", "annotations")
    desired, applied = notes.get(f"{MCO}desiredDrain", ""), notes.get(f"{MCO}lastAppliedDrain", "")
    cordoned = bool(_at(found, "spec").get("unschedulable"))
    if condition(found, "Ready") != "True":
        return "booted, not ready" if booted else "down"
    if desired.startswith("drain-") and desired != applied:
        return "draining"
    if cordoned:
        if booted or (desired.startswith("uncordon-") and desired != applied):
            return "ready, cordoned"
        return "drained" if desired.startswith("drain-") else "cordoned"
    pending = notes.get(f"{MCO}currentConfig") != notes.get(f"{MCO}desiredConfig")
    return "update pending" if pending else NONE


def rollout(objects: Iterable[Object]) -> State:
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


def cni_swap(objects: Iterable[Object]) -> State:
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


# To add a kind: a function of all objects, and a line here.
KINDS: Mapping[str, Callable[[Iterable[Object]], State]] = {"rollout": rollout, "cni_swap": cni_swap}
