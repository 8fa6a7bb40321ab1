"""A thread beside the loop: it notices while the loop is stuck, which the tick knows only afterwards.

Once a second. If it slept too long itself, the whole process did not run (it was stopped, throttled or starved), and
the loop is not to blame: the tick will tell.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from time import monotonic

EVERY = 1.0  # seconds
STUCK = 3.0  # seconds without a tick; a shorter stall is counted and not told
FRAMES = 20  # of the stack, the innermost

log = logging.getLogger(__name__)


class Watchdog:
    """Watches `loop`, which runs in thread `ident`; `ticked`: when (monotonic) it ticked last.

    `chores` are done at each look, in this thread; a bug in one reaches the loop's exception handler.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ident: int,
        ticked: Callable[[], float],
        chores: Sequence[Callable[[float], None]] = (),
    ) -> None:
        self._loop = loop
        self._ident = ident
        self._ticked = ticked
        self._chores = chores
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked = 0.0
        self._told = -1.0  # the tick after which it was stuck

    def start(self) -> None:
        self._looked = monotonic()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it waits for a look that is under way."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(EVERY)

    def _watch(self) -> None:
        try:
            while not self._over.wait(EVERY):
                now = monotonic()
                self.look(now)
                for chore in self._chores:
                    chore(now)
        except BaseException as bug:  # noqa: BLE001 - it ends the process, as every bug does
            self._loop.call_soon_threadsafe(_raise, bug)

    def look(self, now: float) -> bool:
        """Is the loop stuck at `now`? It is told once in a stall, with the place where it is."""
        slept, self._looked = now - self._looked, now
        last = self._ticked()
        if now - last < STUCK or slept > 2 * EVERY:
            return False
        if last != self._told:
            self._told = last
            log.warning("stuck for %.1f s, and nothing is observed meanwhile; at:\n%s", now - last, self._place())
        return True

    def _place(self) -> str:
        frame = sys._current_frames().get(self._ident)
        return "".join(traceback.format_stack(frame)[-FRAMES:]) if frame is not None else "an unknown place"


def _raise(bug: BaseException) -> None:
    raise bug
