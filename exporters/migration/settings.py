"""What `ovnwatch migration` is told: who it is, where it serves, where its journal is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from exporters import options, remotes, targets
from exporters.options import Option
from exporters.remotes import Remote
from exporters.settings import (
    FIRST,
    KEPT,
    LOGGED,
    TOKEN,
    BasicFile,
    Basics,
    JournalKeys,
    Program,
    Web,
    bad_listeners,
    basics,
    bearer_token,
    journal_folder,
    read,
    telemetry,
)
from exporters.strictyaml import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSettings(Basics):
    """All that `ovnwatch migration` needs to know."""

    token: str | None
    max_history: int
    journal: Path | None  # the folder of its file; None: in memory only
    nodes: tuple[Remote, ...]  # node exporters; one without a name is called as it says itself
    node_interval: float  # seconds between two looks at each

    def summary(self) -> str:
        return f"phases by hand, {len(self.nodes)} node exporters"


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


class MigrationFile(BasicFile):
    web: Web = Web()
    journal: JournalKeys = JournalKeys()
    nodes: list[Any] = Field(default_factory=list)
    node_interval: Annotated[float, AfterValidator(_every)] | None = None


# fmt: off
OPTIONS = (
    *FIRST,
    Option("web_listen", targets.address, ":9482", "--web.listen-address", "", "web.listen_address",
           "address of metrics, health, /history and the phases that are marked"),
    Option("nodes", node_urls, "", "--node.url", "OVNWATCH_NODE_URLS", "",
           "node exporters, with commas, NAME=URL or URL: whose daemons start anew is in the journal"),
    Option("node_interval", lambda text: _every(options.number(text)), "10", "--node.interval", "", "node_interval",
           "seconds between two looks at a node exporter"),
    telemetry(),
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
    token = bearer_token(given, said.folder, problems)
    if problems:
        raise BadInput([*dict.fromkeys(problems), *said.doubts])
    return MigrationSettings(
        **basics(said),
        token=token,
        max_history=given["max_history"].value,
        journal=journal_folder(given["journal_path"], said.document.name, said.folder),
        nodes=nodes,
        node_interval=given["node_interval"].value,
    )


MIGRATION = Program("migration", OPTIONS, load_migration)
