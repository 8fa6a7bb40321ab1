"""What `ovnwatch migration` is told: who it is, where it serves, where its journal is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters import targets
from exporters.options import Option
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

    def summary(self) -> str:
        return "phases by hand"


class MigrationFile(BasicFile):
    web: Web = Web()
    journal: JournalKeys = JournalKeys()


# fmt: off
OPTIONS = (
    *FIRST,
    Option("web_listen", targets.address, ":9482", "--web.listen-address", "", "web.listen_address",
           "address of metrics, health, /history and the phases that are marked"),
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
    )


MIGRATION = Program("migration", OPTIONS, load_migration)
