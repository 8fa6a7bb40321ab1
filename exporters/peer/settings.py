"""What `ovnwatch peer` is told beside what all exporters that probe share: names of peers, the choice among them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from exporters import kube, options, targets
from exporters.options import Option
from exporters.probing import mesh
from exporters.settings import File, Program, Said, Settings, read, settle, table
from exporters.strictyaml import BadInput, Problem
from exporters.targets import STRICT, Entry, Host, Target

DISCOVERIES = ("endpoints", "dns")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings(Settings):
    """All that `ovnwatch peer` needs to know."""

    not_observed: tuple[str, ...]  # names of peers that are left to other peers
    service: str  # whose endpoints are peers, NAME or NAMESPACE/NAME; "": none is looked at
    cluster: str  # that has it: a kubeconfig, or kube.IN_CLUSTER
    discovery: str  # how they are found, one of DISCOVERIES


class Mesh(BaseModel):
    model_config = STRICT
    full_up_to: Annotated[int, Field(ge=0, le=10_000)] | None = None
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None


class KubernetesKeys(BaseModel):
    model_config = STRICT
    service: str | None = None
    config: str | None = None
    discovery: str | None = None


class PeerFile(File):
    peers: list[Host] | None = None
    mesh: Mesh = Mesh()
    kubernetes: KubernetesKeys = KubernetesKeys()


def names(text: str) -> list[str]:
    """The names between commas. Raises BadInput with all that are none."""
    found, problems = [], []
    for each in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(targets.reachable(each))
        except ValueError as error:
            problems.append(Problem("", str(error)))
    if problems:
        raise BadInput(problems)
    return found


def service(text: str) -> str:
    part = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if not re.fullmatch(f"({part}/)?{part}", text):
        raise ValueError(f"want the name of a Service, or NAMESPACE/NAME: {text!r}")
    return text


# fmt: off
OPTIONS = table(
    own=[
        Option("peers", names, "", "--peers", "PEERS", "peers", "names of all peers, with commas; our own is left out"),
        Option("full_up_to", options.count, "40", "", "", "mesh.full_up_to",
               "up to so many other peers, all are probed"),
        Option("k", options.count, "10", "", "", "mesh.k", "of more, so many are chosen"),
        Option("service", service, "", "--kubernetes.service", "OVNWATCH_KUBERNETES_SERVICE", "kubernetes.service",
               "headless Service whose endpoints are peers too, NAME or NAMESPACE/NAME; they are watched"),
        Option("discovery", options.one_of(*DISCOVERIES), "endpoints", "--kubernetes.discovery",
               "OVNWATCH_KUBERNETES_DISCOVERY", "kubernetes.discovery",
               "endpoints: by the API, with the names of nodes; dns: by the Service's name, without rights"),
        Option("cluster", targets.file_name, kube.IN_CLUSTER, "--kubernetes.config", "OVNWATCH_KUBERNETES_CONFIG",
               "kubernetes.config", "the cluster that has it: a kubeconfig, or in-cluster for our service account"),
    ],
    web_listen=Option("web_listen", targets.address, ":8083", "--web.listen-address", "", "web.listen_address",
                      "address of metrics and health"),
    intervals={"http": "0.5", "tcp": "0.1", "ws": "0.1"},
)
# fmt: on


def load_peer(
    argv: Sequence[str],
    environ: Mapping[str, str],
    descriptors: int | None = None,
    found: Sequence[Target] = (),
    gone: Sequence[Target] = (),
) -> PeerSettings:
    """Settings from flags, the environment, the files they name, and the peers found; see `settings.settle`.

    Those that are `gone` are probed beside whatever is chosen.
    """
    said = read(OPTIONS, PeerFile, argv, environ)
    chosen, not_observed = _chosen(said)
    others, left = _of_service(said, found, gone)
    of = said.given["service"].value or ""
    discovery = said.given["discovery"].value or DISCOVERIES[0]
    if discovery == "dns" and said.given["cluster"].place != "default":
        said.problems.append(Problem(said.given["cluster"].place, "without effect: DNS takes no way to a cluster"))
    settings = settle(
        PeerSettings,
        said,
        [*chosen, *others],
        descriptors,
        unnamed="" if of else "name peers in PEERS, --peers or the file's `targets:`",
        not_observed=(*not_observed, *left),
        service=of,
        cluster=said.given["cluster"].value or kube.IN_CLUSTER,
        discovery=discovery,
    )
    return replace(settings, doubts=(*settings.doubts, *_stranger(said)))


def _stranger(said: Said) -> Iterator[Problem]:
    """The same list goes to every node: who is not in it may be there by another name, and would probe itself."""
    peers = said.given["peers"]
    if peers.value and not {targets.same_name(each) for each in peers.value} & said.own:
        text = f"none of them is our own name, {said.source}: if one means us, say so with NODE_NAME or --source"
        yield Problem(peers.place, text)


def _chosen(said: Said) -> tuple[list[Entry], tuple[str, ...]]:
    """Entries of the peers to probe, and the names left to other peers."""
    given = said.given
    peers = given["peers"]
    known: dict[str, str] = {}
    for peer in peers.value or []:
        same = targets.same_name(peer)
        if same in known:
            also = f", the same as {known[same]}" if known[same] != peer else ""
            said.problems.append(Problem(peers.place, f"duplicate name: {peer}{also}"))
        known.setdefault(same, peer)
    ours = sorted(peer for same, peer in known.items() if same in said.own)
    others = dict.fromkeys(set(known.values()) - set(ours), "")
    chosen, rest = mesh.choose(said.source, others, given["full_up_to"].value, given["k"].value)
    return [Entry(Target(name=peer), lambda *_: peers.place, Path()) for peer in [*chosen, *ours]], rest


def _of_service(said: Said, found: Sequence[Target], gone: Sequence[Target]) -> tuple[list[Entry], tuple[str, ...]]:
    """Entries of those that the Service leads, or led, to and that are probed from here, and names left to others."""
    given = said.given
    node, zone = given["node"].value, given["zone"].value or ""
    others = [each for each in found if targets.same_name(each.name) not in said.own and each.node != node]
    zones = {each.name: each.zone for each in others}
    chosen, rest = mesh.choose(said.source, zones, given["full_up_to"].value, given["k"].value, zone)
    probed = [*(each for each in others if each.name in chosen), *gone]
    return [Entry(each, lambda *_: given["service"].place, Path()) for each in probed], rest


PEER = Program("peer", OPTIONS, load_peer)
