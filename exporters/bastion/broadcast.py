"""One stream of changes for all tabs that watch: each change is built once, as one text that all of them are sent.

1. Nothing is built while nobody watches. Who comes then is told of what changed meanwhile, too.
2. A change has a number, and the last ones are kept: who names the last one it had is told only what came after it.
   Who names none, or one of another run, is told everything.
3. A tab that does not take what it is sent is cut off; it comes back by itself and names what it had.
4. Every second all are told the time, so that silence is not taken for health; but not while a look hangs, on a disk
   say: what they have is no more what is, and they shall take it for stale.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

import msgspec

from exporters.bastion import state
from exporters.process import Tasks

EVERY = 0.2  # seconds between two looks for changes; more where a look takes longer than a twentieth of it
BEAT = 1.0
HANGING = 4.0  # seconds without a look that ended: one that waits for the journal takes two, and a pause
MOST_TABS = 100
MOST_WAITING = 64  # texts for a tab that is slow
MOST_KEPT = 512  # changes
MOST_BYTES = 4 * 1024 * 1024  # of them

Step = Callable[[], Awaitable[dict[str, Any] | None]]
encode = msgspec.json.encode


class FullError(Exception):
    """There are too many tabs already."""


class Tab:
    """One that watches. `cut` ends its connection."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self.texts: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self.cut = cut


class Broadcast:
    """Tells all tabs of the changes that `step` makes to `state`; `run` tells this process from others."""

    def __init__(self, step: Step, current: Callable[[], state.State], run: str) -> None:
        self._step = step
        self._current = current
        self._run = run
        self._tasks = Tasks()
        self._tabs: set[Tab] = set()
        self._turn = asyncio.Lock()
        self._watched = asyncio.Event()
        self._number = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._coming = 0  # tabs that wait to be told the first time
        self._looked = monotonic()
        self._snapshot = (-1, b"")

    def start(self) -> None:
        """Begin to look for changes, as long as anybody watches."""
        self._tasks.spawn(self._look())
        self._tasks.spawn(self._beat())

    async def close(self) -> None:
        """End all."""
        await self._tasks.close()
        for tab in list(self._tabs):
            tab.cut()

    async def watch(self, last: str, cut: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """What to send to a tab that had `last` ("": nothing), without end. Raises FullError."""
        if len(self._tabs) + self._coming >= MOST_TABS:
            raise FullError
        tab = Tab(cut)
        try:
            self._coming += 1
            try:
                async with self._turn:  # no change comes between what is told now and what will be
                    await self._change()
                    first = await self._since(last)
                    self._tabs.add(tab)
                    self._watched.set()
            finally:
                self._coming -= 1
            yield first + _beat()
            while True:
                yield await tab.texts.get()
        finally:
            self._tabs.discard(tab)
            if not self._tabs:
                self._watched.clear()

    async def fresh(self) -> state.State:
        """The state as it is now."""
        async with self._turn:
            await self._change()
            return dict(self._current())

    async def _look(self) -> None:
        while True:
            await self._watched.wait()
            began = monotonic()
            async with self._turn:
                await self._change()
            await asyncio.sleep(max(EVERY, min(20 * (monotonic() - began), 1.0)))

    async def _beat(self) -> None:
        while True:
            await self._watched.wait()
            if monotonic() - self._looked < HANGING:
                self._send(_beat())
            await asyncio.sleep(BEAT)

    async def _change(self) -> None:
        change = await self._step()
        self._looked = monotonic()
        if change is None:
            return
        self._number += 1
        text = _text("change", change, self._id)
        self._kept.append((self._number, text))
        self._bytes += len(text)
        while len(self._kept) > MOST_KEPT or self._bytes > MOST_BYTES:
            self._bytes -= len(self._kept.popleft()[1])
        self._send(text)

    @property
    def _id(self) -> str:
        return f"{self._run}-{self._number}"

    def _send(self, text: bytes) -> None:
        for tab in list(self._tabs):
            try:
                tab.texts.put_nowait(text)
            except asyncio.QueueFull:
                self._tabs.discard(tab)
                tab.cut()

    async def _since(self, last: str) -> bytes:
        """What somebody lacks who had `last`."""
        run, _, number = last.rpartition("-")
        oldest = self._kept[0][0] if self._kept else self._number + 1
        if run == self._run and number.isdecimal() and oldest - 1 <= int(number[:18]) <= self._number:
            return b"".join(text for each, text in self._kept if each > int(number[:18]))
        if self._snapshot[0] != self._number:
            self._snapshot = self._number, await self._whole()
        return self._snapshot[1]

    async def _whole(self) -> bytes:
        """The state, piece by piece: it may be a megabyte."""
        texts = [_text("reset", {"run": self._run})]
        for piece in state.pieces(dict(self._current())):
            texts.append(_text("change", piece))
            await asyncio.sleep(0)
        return b"".join([*texts, _text("ready", {}, self._id)])


def _beat() -> bytes:
    return _text("beat", {"at": round(time.time(), 3)})


def _text(kind: str, data: Mapping[str, Any], number: str = "") -> bytes:
    """A server-sent event. JSON has no line ends of its own."""
    head = f"id: {number}\nevent: {kind}\ndata: " if number else f"event: {kind}\ndata: "
    return b"%b%b\n\n" % (head.encode(), encode(data))
