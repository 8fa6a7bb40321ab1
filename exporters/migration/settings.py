"""What `ovnwatch migration` is told: who it is, what it watches, where it serves, where its journal is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from exporters import kube, options, remotes, targets
from exporters.options import Option
from exporters.remotes import Remote
from exporters.settings import (
    FIRST,
    KEPT,
    LOGGED,
    TOKEN,
    WEB_CONFIG,
    BasicFile,
    Basics,
    JournalKeys,
    Program,
    Said,
    Web,
    bad_listeners,
    basics,
    bearer_token,
    beside,
    journal_folder,
    read,
    telemetry,
    web_config,
)
from exporters.strictyaml import BadInput, Problem
from exporters.targets import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSettings(Basics):
    """All that `ovnwatch migration` needs to know."""

    token: str | None
    token_file: Path | None  # where it is from
    max_history: int
    journal: Path | None  # the folder of its file; None: in memory only
    nodes: tuple[Remote, ...]  # node exporters; one without a name is called as it says itself
    node_interval: float  # seconds between two looks at each
    cluster: str  # a kubeconfig, or kube.IN_CLUSTER; "": none is watched
    context: str
    hashed: bool  # addresses in metrics
    microovn: Path | None  # its control socket

    def summary(self) -> str:
        watched = [
            self.nodes and f"{len(self.nodes)} node exporters'",
            self.cluster and "a cluster's",
            self.microovn and "MicroOVN's",
        ]
        return f"phases by hand{''.join(f' and {each}' for each in watched if each)}"


def _every(seconds: float) -> float:
    if not 1 <= seconds <= 3600:
        raise ValueError("must be from 1 to 3600 seconds")
    return seconds


def node_urls(text: str) -> tuple[Remote, ...]:
    """`ch1=http://node-1:9481,http://node-2:9481`: node exporters, a name before each if it shall not say its own."""
    found = []
    for each in filter(None, map(str.strip, text.split(","))):
        name, equals, rest = each.partition("=")
        named = bool(equals) and "/" not in name
        found.append(remotes.remote(targets.name(name) if named else "", remotes.url(rest if named else each)))
    return tuple(found)


class KubernetesKeys(BaseModel):
    model_config = STRICT
    config: str | None = None
    context: str | None = None
    addresses: str | None = None


class MicroovnKeys(BaseModel):
    model_config = STRICT
    socket: str | None = None


class MigrationFile(BasicFile):
    kubernetes: KubernetesKeys = KubernetesKeys()
    microovn: MicroovnKeys = MicroovnKeys()
    web: Web = Web()
    journal: JournalKeys = JournalKeys()
    nodes: list[Any] = Field(default_factory=list)
    node_interval: Annotated[float, AfterValidator(_every)] | None = None


# fmt: off
WATCHED = (
    Option("cluster", targets.file_name, "", "--kubernetes.config", "OVNWATCH_KUBERNETES_CONFIG", "kubernetes.config",
           "the cluster to watch: a kubeconfig, or in-cluster for our pod's service account; none if not given"),
    Option("context", targets.file_name, "", "--kubernetes.context", "", "kubernetes.context",
           "context of the kubeconfig; its current one if not given"),
    Option("addresses", options.one_of("plain", "hashed"), "hashed", "--kubernetes.addresses", "",
           "kubernetes.addresses", "how addresses of EgressIPs are shown in metrics: plain or hashed"),
    Option("microovn", targets.file_name, "", "--microovn.socket", "", "microovn.socket",
           "MicroOVN's control socket, for its upgrades: /var/snap/microovn/common/state/control.socket"),
)
OPTIONS = (
    *FIRST,
    *WATCHED,
    Option("web_listen", targets.address, ":9482", "--web.listen-address", "", "web.listen_address",
           "address of metrics, health, /history and the phases that are marked"),
    Option("nodes", node_urls, "", "--node.url", "OVNWATCH_NODE_URLS", "",
           "node exporters, with commas, NAME=URL or URL: whose daemons start anew is in the journal"),
    Option("node_interval", lambda text: _every(options.number(text)), "10", "--node.interval", "", "node_interval",
           "seconds between two looks at a node exporter"),
    telemetry(),
    WEB_CONFIG,
    *TOKEN,
    *KEPT,
    *LOGGED,
)
# fmt: on


def load_migration(argv: Sequence[str], environ: Mapping[str, str], _: int | None = None) -> MigrationSettings:
    """Settings from flags, the environment and the files they name. Raises BadInput with all problems."""
    said = read(OPTIONS, MigrationFile, argv, environ)
    given, problems = said.given, said.problems
    nodes = (*(given["nodes"].value or ()), *remotes.listed(said, "nodes"))
    problems[:0] = said.document.in_order()
    if given["web_listen"].value:
        problems += bad_listeners([given["web_listen"]])
    token, token_file = bearer_token(said)
    web_config(said)
    cluster = _cluster(said, problems)
    if problems:
        raise BadInput([*dict.fromkeys(problems), *said.doubts])
    return MigrationSettings(
        **basics(said),
        token=token,
        token_file=token_file,
        max_history=given["max_history"].value,
        journal=journal_folder(given["journal_path"], said.document.name, said.folder),
        nodes=nodes,
        node_interval=given["node_interval"].value,
        cluster=cluster,
        context=given["context"].value or "",
        hashed=given["addresses"].value == "hashed",
        microovn=beside(said, given["microovn"]) if given["microovn"].value else None,
    )


def _cluster(said: Said, problems: list[Problem]) -> str:
    """The kubeconfig, tried; or IN_CLUSTER; "" for none."""
    given = said.given["cluster"]
    if not given.value:
        if said.given["context"].value:
            problems.append(Problem(said.given["context"].place, "needs --kubernetes.config"))
        return ""
    if not kube.installed():
        problems.append(Problem(given.place, "needs the Python package kubernetes: install ovnwatch[kubernetes]"))
        return ""
    config = kube.IN_CLUSTER if given.value == kube.IN_CLUSTER else str(beside(said, given))
    try:
        kube.Cluster(config, said.given["context"].value or "").close()
    except kube.ConfigError as error:
        problems.append(Problem(given.place, f"{config}: {error}"))
    return config


MIGRATION = Program("migration", OPTIONS, load_migration)
