"""Which daemons of OVS and OVN started anew? What node exporters tell of their starts in, starts out. Pure.

1. A start is told when a daemon's start time is another, later one than before. A node that is not read, or a daemon
   that does not run, changes nothing of what is known.
2. What is seen for the first time was started anew if that was after `since`: the last sign of life of the process
   before us, else our own beginning. So neither our restart nor a new node is one of its daemons.
3. Times are on our clock. A node's clock that is set moves its start times along with its own word of the time.
4. A daemon that starts over and over is told so often an hour, and no more.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from exporters.verdict.explain import RESTART

SAME = 2.0  # seconds that the same start may be told apart
AWAY = 60.0  # seconds: a daemon is not taken to have been away for longer before its start
HOUR, MOST_AN_HOUR = 3600.0, 60  # starts of one node
MOST_DAEMONS = 32  # of one node


class Told(NamedTuple):
    """What a node exporter told at `at`: when each daemon started, without those that do not run; Unix times."""

    node: str
    at: float
    started: Mapping[str, float]


class Start(NamedTuple):
    """It ended at `earliest` at the earliest, and began again at `latest`; Unix times."""

    node: str
    daemon: str
    earliest: float
    latest: float

    @property
    def name(self) -> str:
        return f"{RESTART}{self.daemon}"


class _Known(NamedTuple):
    started: float
    seen: float  # when it was told to run last


class Starts:
    """What is known of all nodes. `before`: the latest start that is in the journal, by node and daemon."""

    def __init__(self, since: float, before: Mapping[tuple[str, str], float] | None = None) -> None:
        self._since = since
        self._before = dict(before or {})
        self._known: dict[str, dict[str, _Known]] = {}
        self._lately: dict[str, deque[float]] = {}

    def step(self, told: Told) -> list[Start]:
        """The starts that are new."""
        known = self._known.setdefault(told.node, {})
        lately = self._lately.setdefault(told.node, deque())
        while lately and told.at - lately[0] > HOUR:
            lately.popleft()
        found = []
        for daemon, started in sorted(told.started.items()):
            if daemon not in known and len(known) >= MOST_DAEMONS:
                continue
            was = known.get(daemon)
            ran = was.seen if was else self._since
            known[daemon] = _Known(started, told.at)
            if not self._is_new(told.node, daemon, started, was) or len(lately) >= MOST_AN_HOUR:
                continue
            lately.append(told.at)
            found.append(Start(told.node, daemon, min(started, max(ran, started - AWAY)), started))
        return found

    def _is_new(self, node: str, daemon: str, started: float, was: _Known | None) -> bool:
        if was is not None:
            return started > was.started + SAME
        return started > max(self._since, self._before.get((node, daemon), 0.0) + SAME)
