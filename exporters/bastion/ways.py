"""Which addresses lead to the same peer, and in which order they are asked? Streams in, peers and their ways out. Pure.

1. `peer-1-lb`, `peer-1-np` and `peer-1-route`, as the earlier dashboard's variables call them, are ways to one peer; so
   are `shop@node-1` and `shop@node-2`, two NodePorts of one target; and so are entries of one name.
2. What http reaches at /ping, and below a path of its own that ends so, tells its status and history beside it.
3. Every look asks another way first, and the next one if it fails: over time all replicas are heard, and one broken
   way hides nothing. A way that failed rests, as long as others work.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from exporters.remotes import Remote
from exporters.targets import Stream, Tls, literal_family

SUFFIXES = {
    "pod": "-pod",
    "service": "-svc",
    "nodeport": "-np",
    "loadbalancer": "-lb",
    "route": "-route",
    "ingress": "-ingress",
    "host": "-host",
    "egress": "-egress",
}
JOURNAL = "journal"  # instead of a path: the way to a journal, which no stream probes
REST = 10.0  # seconds for a way that failed, while there are others
LONG_REST = 20.0  # for one whose answer was none, in any case: reading it costs us, and it will not be better soon


def logical(target: str, path: str) -> str:
    """The target that several names may stand for: `peer-1-lb` by path loadbalancer is `peer-1`."""
    return bare(target.partition("@")[0] or target, path)


def bare(name: str, path: str) -> str:
    """A name without what the earlier dashboard's names end in to tell the path."""
    return name.removesuffix(SUFFIXES.get(path, "")) or name  # a peer may tell of paths that we do not know


def entered(target: str, path: str, node: str, host: str = "") -> str:
    """The node that counts for a stream: that of the target, but for a NodePort the one by which it goes in.

    `node`: where the target says it is; `host`: where the stream goes, if that is known. "" is unknown.
    """
    return (target.partition("@")[2] or host) if path == "nodeport" else node


class Way(NamedTuple):
    """One address of a peer's http server, and the stream that probes it."""

    stream: str
    target: str
    path: str
    family: int
    host: str
    port: int
    base: str  # what comes before /status
    tls: Tls | None
    token: str = ""  # of a journal's own

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self._host}:{self.port}{self.base}"

    @property
    def host_header(self) -> str:
        return self._host if self.port == (443 if self.tls else 80) else f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class Rest(NamedTuple):
    """A way is left alone until then (seconds, on the caller's clock); strict: even if there is no other."""

    until: float
    strict: bool


def peers(streams: Iterable[Stream]) -> dict[str, tuple[Way, ...]]:
    """The ways to each peer, by its logical name."""
    found: dict[str, list[Way]] = {}
    for stream in streams:
        if stream.protocol == "http" and stream.url_path.endswith("/ping"):
            base = stream.url_path.removesuffix("/ping")
            name = stream.shown or stream.target
            way = Way(stream.key, name, stream.path, stream.family, stream.host, stream.port, base, stream.tls)
            found.setdefault(logical(stream.target, stream.path), []).append(way)
    return {name: tuple(ways) for name, ways in found.items()}


def of_journal(remote: Remote) -> Way:
    """The way to a journal that nobody probes."""
    family = literal_family(remote.host) or 0
    return Way("", remote.name, JOURNAL, family, remote.host, remote.port, remote.base, remote.tls, remote.token)


def order(ways: Sequence[Way], turn: int, rests: Mapping[Way, Rest], now: float) -> list[Way]:
    """The ways in the order in which the `turn`-th look asks them; those that rest come last or not at all."""
    first = turn % max(len(ways), 1)
    turned = [*ways[first:], *ways[:first]]
    resting = {way: rests[way] for way in turned if way in rests and rests[way].until > now}
    awake = [way for way in turned if way not in resting]
    return awake or [way for way, rest in resting.items() if not rest.strict][:1]
