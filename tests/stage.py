"""A bastion's page over measurements that a test makes up: streams that go down and up when told, and peers that tell.

As a program (`python stage.py TARGETS PATHS PEERS`) it prints its port, serves such a page until its input ends, and
takes lines: `down NUMBER`, `up NUMBER` or `churn PER_SECOND`.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from box import OURSELVES, stream

from exporters.api import add_book
from exporters.bastion.broadcast import Broadcast
from exporters.bastion.gate import Gate
from exporters.bastion.heard import Heard
from exporters.bastion.live import Live
from exporters.bastion.look import Placed
from exporters.bastion.marks import Marks, NewNote
from exporters.bastion.page import Page
from exporters.bastion.pull import Peer, Pull, Source
from exporters.bastion.view import View
from exporters.bastion.ways import Way
from exporters.journal import Journal
from exporters.probing.outage import Event, Finished, Opened
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.settings import Stream
from exporters.verdict.compare import Seen
from exporters.web import Serving, new_app, serve

PROTOCOLS = ("http", "tcp", "ws")
PATHS = ("loadbalancer", "nodeport", "route")
TOKEN = "secret"


def outside(targets: int, paths: int = 3) -> list[Stream]:
    """Streams to so many targets by so many paths, each over all protocols."""
    return [
        stream(1, protocol, target=f"peer-{number}", path=path, source="bastion-1", interval=1.0)
        for number in range(1, targets + 1)
        for path in PATHS[:paths]
        for protocol in PROTOCOLS
    ]


def told_by(
    source: str, targets: Sequence[str], state: Any = "up", observed: float = 0.0, **more: Any
) -> tuple[Placed, ...]:
    """What a peer tells of others, each of which it observed for so many seconds."""
    seen = [
        Seen(
            source=source, target=target, path="service", protocol=protocol, state=state, since=time.time() - 60, **more
        )
        for target in targets
        for protocol in PROTOCOLS
        if target != source
    ]
    return tuple(Placed(f"{each.source}|{each.target}|service|{each.protocol}|4", each, observed) for each in seen)


class Stage:
    """`record`, `pull` and `marks` are real; nothing probes."""

    def __init__(self, streams: Sequence[Stream], journal: Path | None = None, token: str | None = TOKEN) -> None:
        self.journal = Journal(journal)
        self.record = Record(streams, OURSELVES, reported_as="bastion", journal=self.journal)
        for stats in self.record.stats.values():
            stats.decided = inf  # for ever just now
            stats.begin(monotonic())
            stats.state("up")
        self.pull = Pull("bastion-1", "test", Heard(2000), lambda _host, _family: None, lambda _: False)
        self.marks = Marks(self.record)
        self.findings: list[Mapping[str, Any]] = []
        self.view = View(self.record, self.pull, self.marks, lambda: self.findings)
        self.view.about(version="1", grafana="https://grafana.example.com", acts=bool(token))
        self.broadcast = Broadcast(self.view.step, lambda: self.view.state, OURSELVES.instance[:12])
        self.token = token
        self.serving: Serving | None = None
        self._events: dict[str, Event] = {}
        self._observing: asyncio.Task[None] | None = None
        self._number = 0

    @property
    def port(self) -> int:
        assert self.serving is not None
        return self.serving.port

    @property
    def streams(self) -> list[Stats]:
        return list(self.record.stats.values())

    async def start(self) -> None:
        app = new_app()
        Page(self.record, self.pull, self.marks, self.broadcast, look=lambda: self.findings, token=self.token).add_to(
            app, "/metrics"
        )
        Live(self.record, self.marks, self.broadcast, self.token).add_to(app)
        Gate(self.record, self.broadcast, time.time()).add_to(app)
        add_book(app, OURSELVES, self.record, 200)
        self.serving = await serve(app, "127.0.0.1", 0)
        self.broadcast.start()
        self._observing = asyncio.create_task(self._observe())

    async def _observe(self) -> None:
        """All but the blind streams count the time; peers that are heard have told lately."""
        before = monotonic()
        while True:
            await asyncio.sleep(0.2)
            now = monotonic()
            for stats in self.streams:
                stats.observed_seconds += (now - before) if stats.decided else 0.0
            for peer in self.pull.peers.values():
                for source in peer.sources.values() if peer.heard else ():
                    source.at = now
            before = now

    async def close(self) -> None:
        if self._observing is not None:
            self._observing.cancel()
        await self.broadcast.close()
        if self.serving is not None:
            await self.serving.close()
        await self.journal.close()

    # -- what happens

    def down(self, stats: Stats, cause: str = "refused", kind: Any = "outage") -> None:
        """A stream fails from now on."""
        self._number += 1
        now = monotonic()
        event = Event(
            self._number, kind, now - 0.5, now, now, None, 0.0, 0.25, 0.5, now, cause, {cause: 1}, 1, unconfirmed=False
        )
        self._events[stats.spec.key] = event
        stats.cause = cause
        stats.opened(Opened(event.number, now), lambda _: [event])
        stats.state("frozen" if kind == "frozen" else "down")

    def up(self, stats: Stats) -> None:
        """And works again."""
        event = self._events.pop(stats.spec.key)
        now = monotonic()
        event.end_earliest, event.end_latest = now - 0.1, now
        event.upper = now - event.start_earliest
        event.lower = max(0.0, event.end_earliest - event.start_latest)
        event.estimate = (event.lower + event.upper) / 2
        stats.finished(Finished(event, "path", event.estimate), stall_overlap=False)
        stats.unfinished = lambda _: []
        stats.state("up")

    def turn(self, number: int, cause: str = "refused") -> None:
        """A stream that works fails from now on, one that fails works again."""
        stats = self.streams[number]
        if stats.now_state == "up":
            self.down(stats, cause)
        else:
            self.up(stats)

    def note(self, note: NewNote, at: float) -> None:
        """Somebody said so at that Unix time."""
        self.marks.note(note, at)

    def blind(self, *numbers: int) -> None:
        """These streams, or all, are not observed."""
        for number in numbers or range(len(self.streams)):
            self.streams[number].decided = 0.0

    def peer(
        self, name: str, told: Sequence[Placed] = (), heard: bool = True, error: str = "", journal: str = ""
    ) -> Peer:
        """A peer that tells that, or is not heard."""
        way = Way("", name, "route", 4, "127.0.0.1", 1, "", None)
        peer = self.pull.peers.setdefault(name, Peer(name, (way,)))
        peer.error = error
        if heard:
            peer.last = time.time()
            peer.sources[name] = Source(monotonic(), tuple(told), journal)
        peer.now(heard=heard)
        return peer

    def renew(self) -> None:
        """All peers tell anew what they told before."""
        for peer in self.pull.peers.values():
            for name, source in peer.sources.items():
                peer.sources[name] = Source(monotonic(), tuple(each._replace() for each in source.streams))


@contextlib.asynccontextmanager
async def stage(streams: Sequence[Stream], **options: Any) -> AsyncIterator[Stage]:
    on = Stage(streams, **options)
    await on.start()
    try:
        yield on
    finally:
        await on.close()


async def _main(targets: int, paths: int, peers: int) -> None:
    names = [f"node-{number}" for number in range(1, peers + 1)]
    async with stage(outside(targets, paths)) as on:
        for name in names:
            on.peer(name, told_by(name, names))
        print(on.port, flush=True)
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[str] = asyncio.Queue()

        def read() -> None:
            line = sys.stdin.readline()
            lines.put_nowait(line)
            if not line:
                loop.remove_reader(sys.stdin)

        loop.add_reader(sys.stdin, read)
        churn, number = 0.0, 0
        due = loop.time()
        while True:
            try:
                line = await asyncio.wait_for(lines.get(), 1 / max(churn, 1.0))
            except TimeoutError:
                if churn:
                    which = number // 2 % len(on.streams)
                    on.turn(which)
                    number += 1
                if loop.time() >= due:
                    due = loop.time() + 1.0
                    on.renew()
                continue
            if not line:
                return
            word, _, argument = line.strip().partition(" ")
            if word == "churn":
                churn = float(argument)
            else:
                {"down": on.down, "up": on.up}[word](on.streams[int(argument)])


if __name__ == "__main__":
    asyncio.run(_main(*map(int, sys.argv[1:4])))
