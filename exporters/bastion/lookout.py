"""Asks again and again where to look, while something changes, in small turns of the event loop."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from time import monotonic
from typing import Any, Literal, cast

from exporters import catalog, times
from exporters.bastion.look import Placed, look, same
from exporters.bastion.pull import Pull
from exporters.bastion.ways import entered
from exporters.gentle import taken, turns
from exporters.identity import Identity
from exporters.probing.record import Record
from exporters.probing.stats import Stats
from exporters.verdict.compare import Seen, Steps

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
            await self.ask()
            await asyncio.sleep(max(EVERY, 10 * (monotonic() - began)))

    async def ask(self) -> None:
        """Bring `findings` up to date; thousands of streams take several turns of the loop."""
        items = [*self._record.history(0, self._record.max_history), *self._pull.heard.shown()]
        names = same(self._pull.answering())
        state = (await self._own(), self._pull.fresh(), broken(items, time.time()), names)
        await taken(self._compare(state))

    async def _own(self) -> list[Placed]:
        """Our own streams; of one that is as it was the same objects.

        Made anew each second, those of 11 000 streams had the collector stop us every second, for 10 ms and more.
        """
        before, self._streams = self._streams, {}
        now = monotonic()
        async for lot in turns(list(self._record.stats.values()), LOT):
            for stats in lot:
                known = (stats.watching(now) and stats.now_state, stats.since, stats.cause, stats.peer)
                kept = before.get(stats)
                if kept is None or kept[0] != known:
                    kept = known, seen(stats, self._record.identity, now)
                self._streams[stats] = kept
        return [placed for _, placed in self._streams.values()]

    def _compare(self, state: Compared) -> Steps[None]:
        if self._compared is None or (yield from _changed(self._compared, state)):
            own, told, breaks, names = state
            self.findings = yield from look([*own, *told], breaks, names, self._texts)
            self._compared = state


def _changed(before: Compared, now: Compared) -> Steps[bool]:
    """Is anything other than it was? Mostly the streams are the very same objects, which costs nothing to see."""
    if before[2:] != now[2:] or [len(each) for each in before[:2]] != [len(each) for each in now[:2]]:
        return True
    for one, other in zip(chain(*before[:2]), chain(*now[:2]), strict=True):
        yield
        if one != other:
            return True
    return False


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
    """How many connections of each stream broke lately; `now` is wall time.

    What was cut short by an end of its exporter is left aside: it had no time to be told from an outage.
    """
    breaks = (item for item in items if item["kind"] == "break" and item["state"] != "truncated")
    ended = ((item["stream"], item["end_time"] or item["start_time"]) for item in breaks)
    return Counter(stream for stream, end in ended if now - times.seconds(end) < LATELY)
