"""Asks again and again where to look, while something changes, beside the event loop."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Literal, cast

from exporters import catalog, times
from exporters.bastion.look import Placed, look, same
from exporters.bastion.pull import Pull
from exporters.bastion.ways import entered
from exporters.gentle import turns
from exporters.identity import Identity
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.verdict.compare import Seen

State = Literal["up", "down", "frozen", "unknown"]
Compared = tuple[list[Placed], list[Placed], Mapping[str, int], Mapping[str, str]]

EVERY = 1.0  # seconds; more where comparing takes longer than a tenth of it
LATELY = 60.0  # seconds for which a broken connection counts
LOT = 50  # streams: a fifth of a millisecond


class Lookout:
    """What is to blame for what fails now is in `findings`, worst first."""

    def __init__(self, record: Record, pull: Pull) -> None:
        self.findings: list[dict[str, Any]] = []
        self._record = record
        self._pull = pull
        self._texts = catalog.exported().where_to_look
        self._compared: Compared | None = None
        self._streams: dict[Stats, tuple[tuple[object, ...], Placed]] = {}  # what was known of each, and what it made

    async def watch(self) -> None:
        """Keep `findings` up to date."""
        while True:
            began = monotonic()
            items = [*self._record.history(0, self._record.max_history), *self._pull.heard.shown()]
            names = same(self._pull.answering())
            state = (await self._own(), self._pull.fresh(), broken(items, time.time()), names)
            # Thousands of streams take longer to compare than a probe may be late.
            await asyncio.to_thread(self._compare, state)
            await asyncio.sleep(max(EVERY, 10 * (monotonic() - began)))

    async def _own(self) -> list[Placed]:
        """Our own streams; of one that is as it was the same object, so that the collector has little to look at."""
        before, self._streams = self._streams, {}
        now = monotonic()
        async for lot in turns(list(self._record.stats.values()), LOT):
            for stats in lot:
                known = (stats.watching(now) and stats.now_state, stats.since, stats.cause, stats.peer)
                kept = before.get(stats)
                placed = kept[1] if kept and kept[0] == known else seen(stats, self._record.identity, now)
                self._streams[stats] = known, placed
        return [placed for _, placed in self._streams.values()]

    def _compare(self, state: Compared) -> None:
        if state != self._compared:
            own, told, breaks, names = state
            self.findings = look([*own, *told], breaks, names, self._texts)
            self._compared = state


def seen(stats: Stats, identity: Identity, now: float) -> Placed:
    """A stream of ours as it stands; one that was not observed lately is unknown."""
    spec = stats.spec
    return Placed(
        spec.key,
        Seen(
            source=spec.source,
            target=spec.target,
            path=spec.path,
            protocol=spec.protocol,
            state=cast("State", stats.now_state) if stats.watching(now) else "unknown",
            family=spec.family,
            since=stats.since,
            cause=stats.cause,
            source_node=identity.node,
            target_node=spec.target_node or entered(spec.target, spec.path, stats.peer.get("node", ""), spec.host),
            source_zone=identity.zone,
            target_zone=spec.target_zone or stats.peer.get("zone", ""),
        ),
    )


def broken(items: Iterable[Mapping[str, Any]], now: float) -> Counter[str]:
    """How many connections of each stream broke lately; `now` is wall time."""
    ended = ((item["stream"], item["end_time"] or item["start_time"]) for item in items if item["kind"] == "break")
    return Counter(stream for stream, end in ended if now - times.seconds(end) < LATELY)
