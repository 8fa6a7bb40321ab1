"""Asks every peer for its status and its history, by every way there is.

1. One look per peer and interval, on a connection of its own: behind one address several replicas may answer. A slow or
   broken peer delays no other.
2. An answer is a stranger's: bounded in bytes, time, number and depth, never redirected, never unpacked. Who gives one
   that is none is not asked again soon.
3. A peer that no way hears is unknown from then on, which is neither health nor an outage. A target that answers probes
   and is no ovnwatch is no peer.
4. The bearer token is sent only where a peer has been heard, and only to clear its history.
5. A journal is asked as a peer is, for its events alone: its streams are not ours to show, nor its history to clear.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters import catalog, times
from exporters.bastion import told, ways
from exporters.bastion.heard import Heard
from exporters.bastion.kept import Kept
from exporters.bastion.look import Placed, placed
from exporters.bastion.told import RefusedError
from exporters.bastion.ways import Rest, Way
from exporters.fetch import Conversation, FetchError, Resolver, client_context
from exporters.probing.schedule import phase
from exporters.process import Tasks
from exporters.remotes import Remote
from exporters.targets import Stream, Tls, same_name

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # that one way has for all of it
HEAD_BYTES = 16 * 1024
LONGEST_SLEEP = 2.0  # a reload may shorten the interval meanwhile
AT_A_TIME = 24  # looks under way; each takes a descriptor of the spare ones
PAGES = 10  # of history in one look
FRESH_SECONDS = 1.0  # and two looks: for so long counts what a source told of its streams
FORGOTTEN_SECONDS = 60.0  # and ten looks: a source that did not answer for so long is there no more
MOST_SOURCES = 64  # behind one peer's addresses

# Why a peer was not heard by a way; nothing else becomes a label.
REASONS = ("no_address", "unreachable", "tls", "timeout", "http_status", "refused")


@dataclass(slots=True)
class Source:
    """What one process behind a peer's addresses told last; `at` is monotonic."""

    at: float
    streams: Sequence[Placed]
    journal: str = ""


@dataclass(slots=True, eq=False)
class Peer:
    """One that is asked. `heard` is None until the first look, `since` the wall time from which it is as it is."""

    name: str
    ways: tuple[Way, ...]
    journal: bool = False
    heard: bool | None = None
    since: float = field(default_factory=time.time)
    last: float = 0.0  # wall time at which it was heard last; 0: never
    offset: float = 0.0  # seconds its clock is ahead of ours
    url: str = ""  # by which it was heard, or not
    error: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    foreign: bool = False
    turn: int = 0
    rests: dict[Way, Rest] = field(default_factory=dict)

    def now(self, *, heard: bool) -> None:
        if heard is self.heard:
            return
        self.heard, self.since = heard, time.time()
        if heard:
            log.info("%s is heard by %s", self.name, self.url)
        if heard and not self.journal:
            names = sorted(self.sources)
            if same_name(self.name) not in map(same_name, names):
                log.warning(
                    "%s calls itself %s: alerts hold what it sees beside what we see only where names are the same",
                    self.name,
                    ", ".join(names),
                )
        if not heard:
            log.warning("%s is not heard by %s: %s", self.name, self.url, self.error)


class Pull(Collector):
    """Looks at all peers that `update` named; what it learns is in `peers` and in `heard`.

    `address` knows the address of a name that is probed, `foreign` whether who answers there is no ovnwatch.
    """

    def __init__(
        self,
        source: str,
        agent: str,
        heard: Heard,
        address: Callable[[str, int], str | None],
        foreign: Callable[[Way], bool],
        *,
        kept: Kept | None = None,
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.heard = heard
        self._source = source
        self._agent = agent
        self._address = address
        self._foreign = foreign
        self._kept = kept
        self._resolver = Resolver()
        self._interval = 1.0
        self._tasks = Tasks()
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._failures = dict.fromkeys(REASONS, 0)
        self._catalog = catalog.exported()

    def update(self, streams: Iterable[Stream], interval: float, journals: Iterable[Remote] = ()) -> None:
        """Ask the peers that these lead to, and the journals, from now on; what is known of those that stay is kept."""
        self._interval = interval
        self._contexts.clear()  # certificates may have been renewed under their names
        wanted = ways.peers(streams)
        beside = {each.name: (ways.of_journal(each),) for each in journals}
        wanted |= beside
        for name in [each for each in self.peers if each not in wanted]:
            del self.peers[name]  # its task ends by itself
        for name, leading in wanted.items():
            if name in self.peers:
                peer = self.peers[name]
                peer.ways, peer.rests, peer.journal = leading, {}, name in beside
            else:
                self.peers[name] = Peer(name, leading, journal=name in beside)
                self._tasks.spawn(self._follow(self.peers[name]))
        self.heard.keep(self.peers)

    async def close(self) -> None:
        """End all looks."""
        await self._tasks.close()
        self._resolver.close()

    def known(self) -> list[Peer]:
        """All peers but the targets that turned out to be none."""
        return [peer for peer in list(self.peers.values()) if not peer.foreign and not peer.journal]

    def journals(self) -> list[Peer]:
        """The journals beside them."""
        return [peer for peer in list(self.peers.values()) if peer.journal]

    def fresh(self) -> list[Placed]:
        """The streams of all sources whose word still counts."""
        now = monotonic()
        heard = (peer for peer in self.known() if peer.heard)
        return [each for peer in heard for source in self.lately(peer, now).values() for each in source.streams]

    def answering(self) -> dict[str, Set[str]]:
        """By peer, the sources that answer behind it, or did when it was heard last."""
        return {
            peer.name: self.lately(peer, max(source.at for source in peer.sources.values())).keys()
            for peer in self.known()
            if peer.sources
        }

    def lately(self, peer: Peer, now: float) -> dict[str, Source]:
        """The sources of a peer whose word still counts at `now` (monotonic).

        Several sources behind one address come round in turn, so that each counts the longer.
        """
        since = now - (FRESH_SECONDS + 2 * self._interval) * len(peer.sources)
        return {name: source for name, source in peer.sources.items() if source.at > since}

    async def clear(self, token: str) -> dict[str, str]:
        """Have every peer that was heard clear its history, by all ways at once; by peer, "" or what went wrong."""
        asked = [(peer.name, way) for peer in self.known() if peer.last for way in peer.ways]
        said = await asyncio.gather(*(self._clear(way, token) for _, way in asked))
        results: dict[str, str] = {}
        for (name, _), wrong in zip(asked, said, strict=True):
            results[name] = wrong if results.get(name, wrong) else ""  # one way that works is enough
        return results

    def collect(self) -> Iterator[Metric]:
        """Which peers are heard, since when, and why looks failed."""
        heard = self._gauge("ovnwatch_peer_heard")
        last = self._gauge("ovnwatch_peer_last_heard_timestamp_seconds")
        for peer in (*self.known(), *self.journals()):
            labels = [self._source, peer.name]
            if peer.heard is not None:
                heard.add_metric(labels, float(peer.heard))
            if peer.last:
                last.add_metric(labels, peer.last)
        failures = self._catalog.metric("ovnwatch_peer_look_failures_total")
        family = CounterMetricFamily(failures.name, failures.help, labels=failures.labels)
        for reason, count in self._failures.items():
            family.add_metric([self._source, reason], count)
        yield from (heard, last, family)

    def _gauge(self, name: str) -> GaugeMetricFamily:
        metric = self._catalog.metric(name)
        return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)

    # -- looking

    async def _follow(self, peer: Peer) -> None:
        """Look at a peer time and again, as long as it is one of ours."""
        await asyncio.sleep(phase(peer.name, min(self._interval, LONGEST_SLEEP)))  # not all at once
        while self.peers.get(peer.name) is peer:
            began = monotonic()
            await self._look(peer)
            await asyncio.sleep(0.05)
            while (left := began + self._interval - monotonic()) > 0:  # noqa: ASYNC110 - told by no event
                await asyncio.sleep(min(left, LONGEST_SLEEP))

    async def _look(self, peer: Peer) -> None:
        own = [way for way in peer.ways if not self._foreign(way)]
        peer.foreign = not own
        if peer.foreign:
            return
        peer.turn += 1
        for way in ways.order(own, peer.turn, peer.rests, monotonic()):
            try:
                await self._ask(peer, way)
            except FetchError as error:
                self._failures[error.reason] += 1
                strict = error.reason == "refused"
                peer.rests[way] = Rest(monotonic() + (ways.LONG_REST if strict else ways.REST), strict)
                peer.url, peer.error = way.url, error.said
            else:
                peer.rests.pop(way, None)
                peer.url, peer.error, peer.last = way.url, "", time.time()
                peer.now(heard=True)
                return
        peer.now(heard=False)

    async def _ask(self, peer: Peer, way: Way) -> None:
        """One look by one way. Raises FetchError."""
        async with self._conversation(way) as talk:
            before = time.time()
            status = await _read(talk, way, "/status", told.Status)
            peer.offset = times.seconds(status.timestamp) - (before + time.time()) / 2
            peer.status = status.model_dump(exclude={"streams"})
            now = monotonic()
            streams = () if peer.journal else placed(status, peer.offset)
            peer.sources[status.source] = Source(now, streams, status.journal)
            old = now - FORGOTTEN_SECONDS - 10 * self._interval
            peer.sources = {name: source for name, source in peer.sources.items() if source.at > old}
            if len(peer.sources) > MOST_SOURCES:
                del peer.sources[min(peer.sources, key=lambda name: peer.sources[name].at)]
            await self._catch_up(talk, peer, way, status)
            self.heard.refresh(status.journal, [each.open for each in status.streams if each.open])

    async def _catch_up(self, talk: Conversation, peer: Peer, way: Way, status: told.Status) -> None:
        """Read what is new in the journal of whoever answers. Raises FetchError."""
        journal = status.journal
        since = self.heard.answered(peer.name, status.source, journal)
        if peer.journal and self._kept is not None:
            self._kept.answered(peer.name, status.source, journal)
        for _ in range(PAGES):
            page = await _read(talk, way, f"/history?since={since}&limit={told.PAGE}", told.History)
            if page.journal != journal and since > self.heard.answered(peer.name, "", page.journal):
                # Another replica, for which this begins too late. By chance, lest we keep step with who hands us round.
                since = random.choice(self.heard.cursors(peer.name))  # noqa: S311
                continue
            journal = page.journal
            since = self.heard.add(peer.name, journal, page.items, peer.offset)
            if peer.journal and self._kept is not None:
                self._kept.add(peer.name, journal, page.items, peer.offset)
            if len(page.items) < told.PAGE:
                return

    async def _clear(self, way: Way, token: str) -> str:
        headers = f"Authorization: Bearer {token}\r\nContent-Length: 0\r\n"
        try:
            async with self._conversation(way) as talk:
                answer = await talk.request("POST", f"{way.base}/admin/clear_history", told.MOST_BYTES, headers)
        except FetchError as error:
            return error.said
        return "" if answer.status == 200 else f"answers {answer.status}"

    @asynccontextmanager
    async def _conversation(self, way: Way) -> AsyncIterator[Conversation]:
        """A place among those who ask, and a connection of one's own. Raises FetchError."""
        own = way.path == ways.JOURNAL  # no stream has its name
        address = await self._resolver.address(way.host) if own else self._address(way.host, way.family)
        if address is None:
            raise FetchError("no_address", f"{way.host} has no address yet")
        bearer = f"Authorization: Bearer {way.token}\r\n" if way.token else ""
        head = f"Host: {way.host_header}\r\nUser-Agent: {self._agent}\r\nAccept: application/json\r\n{bearer}"
        tls, server_name = self._context(way.tls), (way.tls and way.tls.server_name) or way.host
        async with self._places:
            try:
                async with (
                    asyncio.timeout(LOOK_SECONDS),
                    Conversation(address, way.port, tls, server_name, head) as talk,
                ):
                    yield talk
            except TimeoutError:
                raise FetchError("timeout", "no whole answer in time") from None

    def _context(self, tls: Tls | None) -> ssl.SSLContext | None:
        if tls is not None and tls not in self._contexts:
            self._contexts[tls] = client_context(tls)
        return self._contexts[tls] if tls is not None else None


async def _read(talk: Conversation, way: Way, path: str, model: type[told.Told]) -> told.Told:
    """What a peer answers to a GET, checked. Raises FetchError."""
    answer = await talk.request("GET", way.base + path, told.MOST_BYTES + HEAD_BYTES)
    if answer.status != 200:
        raise FetchError("http_status", f"answers {answer.status} to {path.partition('?')[0]}")
    if answer.packed:
        raise FetchError("refused", "the answer is packed")
    try:
        return told.read(model, answer.body)
    except RefusedError as error:
        raise FetchError("refused", f"no answer of a peer's: {error.args[0]}") from None
