"""What `ovnwatch migration` watches of a cluster, and what it keeps of each object: what the kinds of migration read.

Only nodes, machine config pools and egress IPs are watched as a whole; everything else is one object by its name, and
its metadata alone where that says all. No pods, and nothing that holds a secret.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Required, TypedDict

import msgspec
from msgspec import Meta

from exporters.migration.kinds import ASKED, HUNG, MCO, OTHERS, OVNK, RELEASE
from exporters.objects import Fields, Resource

Name = Annotated[str, Meta(max_length=253, pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Holder = Annotated[str, Meta(max_length=253, pattern="^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")]
Word = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
MOST_ITEMS = 1000  # conditions, versions, addresses: of one object
NOTES = (MCO, RELEASE, HUNG, ASKED, *OTHERS.values())  # how annotations begin that are kept


class _Metadata(TypedDict, total=False):
    name: Required[Name]
    namespace: Name | None
    uid: Word
    resourceVersion: Word
    generation: Count
    annotations: dict[str, str] | None


class _Condition(TypedDict, total=False):
    type: Word
    status: Word
    reason: str | None  # of some operators it is a list of reasons


_Conditions = Annotated[list[_Condition], Meta(max_length=MOST_ITEMS)] | None


class _Version(TypedDict):
    name: Word
    version: Word


class _Item(TypedDict):
    node: Holder
    egressIP: Annotated[str, Meta(max_length=64)]


_typed_dict: Any = TypedDict  # made of what is only known here, which type checkers refuse


def _part(**fields: Any) -> Any:
    """A part of an object, of which nothing is required, and which may be null."""
    return _typed_dict("Part", fields, total=False) | None


def _reader(**parts: Any) -> Callable[[bytes], Fields]:
    """What makes of an object's JSON the parts that are kept; all else is passed over. Raises msgspec.DecodeError."""
    shape = _typed_dict("Shape", {"metadata": Required[_Metadata], **parts}, total=False)
    decode = msgspec.json.Decoder(shape).decode

    def read(data: bytes) -> Fields:
        found: Fields = decode(data)
        about = found["metadata"]
        notes = about.get("annotations") or {}
        about["annotations"] = {name: text for name, text in notes.items() if name.startswith(NOTES)}
        if about.get("namespace") is None:
            about.pop("namespace", None)
        return found

    return read


_PROGRESS = dict.fromkeys(
    ("observedGeneration", "desiredNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"), Count
)
_SHARE = dict.fromkeys(("machineCount", "updatedMachineCount"), Count)
_MIGRATION = _part(networkType=Word | None, mode=Word | None, mtu=dict[str, Any] | None, features=dict[str, Any] | None)
bare = _reader()
READERS: Mapping[str, Callable[[bytes], Fields]] = {
    "nodes": _reader(
        spec=_part(unschedulable=bool),
        status=_part(nodeInfo=_part(bootID=Word), conditions=_Conditions),
    ),
    "daemonsets": _reader(status=_part(**_PROGRESS)),
    "clusteroperators": _reader(
        status=_part(conditions=_Conditions, versions=Annotated[list[_Version], Meta(max_length=MOST_ITEMS)] | None)
    ),
    "clusterversions": _reader(
        spec=_part(desiredUpdate=_part(version=Word)),
        status=_part(desired=_part(version=Word), conditions=_Conditions),
    ),
    "networks.config": _reader(
        spec=_part(networkType=Word),
        status=_part(networkType=Word, migration=_MIGRATION, conditions=_Conditions),
    ),
    "networks.operator": _reader(spec=_part(migration=_MIGRATION)),
    "machineconfigpools": _reader(status=_part(**_SHARE, conditions=_Conditions)),
    "egressips": _reader(status=_part(items=Annotated[list[_Item], Meta(max_length=MOST_ITEMS)] | None)),
}


def _daemon_set(name: str) -> Resource:
    """In whichever namespace it is. Of another network's it counts that it is there."""
    ours = name == "ovnkube-node"
    read = READERS["daemonsets"] if ours else bare
    return Resource(f"daemonsets/{name}", "apps/v1", "DaemonSet", "daemonsets", read, only=name, metadata_only=not ours)


def _openshift(group: str, kind: str, plural: str, only: str = "", read: str = "") -> Resource:
    name = f"{read or plural}/{only}" if only else plural
    return Resource(name, f"{group}.openshift.io/v1", kind, plural, READERS[read or plural], only=only)


# fmt: off
RESOURCES = (
    Resource("nodes", "v1", "Node", "nodes", READERS["nodes"]),
    *(_daemon_set(name) for name in ("ovnkube-node", *OTHERS)),
    Resource("deployments/ovnkube-control-plane", "apps/v1", "Deployment", "deployments", bare, namespace=OVNK,
             only="ovnkube-control-plane", metadata_only=True),
    _openshift("config", "ClusterOperator", "clusteroperators", "network"),
    _openshift("config", "ClusterVersion", "clusterversions", "version"),
    _openshift("config", "Network", "networks", "cluster", "networks.config"),
    _openshift("operator", "Network", "networks", "cluster", "networks.operator"),
    _openshift("machineconfiguration", "MachineConfigPool", "machineconfigpools"),
    Resource("egressips", "k8s.ovn.org/v1", "EgressIP", "egressips", READERS["egressips"]),
)
# fmt: on
_NAMES = [each.name for each in RESOURCES]


def _named(*beginnings: str) -> Sequence[str]:
    return [name for name in _NAMES if name.startswith(beginnings)]


# What each kind of migration reads.
NEEDS: Mapping[str, Sequence[str]] = {
    "rollout": _named("daemonsets/ovnkube-node", "deployments/", "clusteroperators/", "clusterversions/"),
    "cni_swap": _named("nodes", "daemonsets/"),
    "sdn_live": _named("networks.", "machineconfigpools"),
    "mtu": _named("networks.", "machineconfigpools"),
}


def rules(resources: Iterable[Resource] = RESOURCES) -> list[tuple[str, str, str]]:
    """(API group, resource, name) of each that is listed and watched; "" for all names, and for the core group."""
    return [(each.api_version.rpartition("/")[0], each.plural, each.only) for each in resources]
