"""What `ovnwatch peer` is told beside what all exporters that probe share: names of peers, the choice among them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from exporters import options, targets
from exporters.options import Option
from exporters.probing import mesh
from exporters.settings import File, Program, Said, Settings, read, settle, table
from exporters.strictyaml import BadInput, Problem
from exporters.targets import STRICT, Entry, Host, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings(Settings):
    """All that `ovnwatch peer` needs to know."""

    not_observed: tuple[str, ...]  # names of peers that are left to other peers


class Mesh(BaseModel):
    model_config = STRICT
    full_up_to: Annotated[int, Field(ge=0, le=10_000)] | None = None
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None


class PeerFile(File):
    peers: list[Host] | None = None
    mesh: Mesh = Mesh()


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


# fmt: off
OPTIONS = table(
    own=[
        Option("peers", names, "", "--peers", "PEERS", "peers", "names of all peers, with commas; our own is left out"),
        Option("full_up_to", options.count, "40", "", "", "mesh.full_up_to",
               "up to so many other peers, all are probed"),
        Option("k", options.count, "10", "", "", "mesh.k", "of more, so many are chosen"),
    ],
    web_listen=Option("web_listen", targets.address, ":8083", "--web.listen-address", "", "web.listen_address",
                      "address of metrics and health"),
    intervals={"http": "0.5", "tcp": "0.1", "ws": "0.1"},
)
# fmt: on


def load_peer(argv: Sequence[str], environ: Mapping[str, str], descriptors: int | None = None) -> PeerSettings:
    """Settings from flags, the environment and the files they name; see `settings.settle`."""
    said = read(OPTIONS, PeerFile, argv, environ)
    chosen, not_observed = _chosen(said)
    unnamed = "name peers in PEERS, --peers or the file's `targets:`"
    settings = settle(PeerSettings, said, chosen, descriptors, unnamed=unnamed, not_observed=not_observed)
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


PEER = Program("peer", OPTIONS, load_peer)
