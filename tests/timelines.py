"""Timelines: a character for each grid point becomes the evidence that a stream would send, in the order of verdicts.

Grid points are T = 0.1 s apart from 0 on, R = 0.06 s, delta = 0.02 s, an answer takes 1 ms, an error comes after 2 ms.

With `http` each probe is a connection of its own:

    .  answered                 x  lost, not even a handshake       r  refused
    f  handshake, no answer     l  lost, its SYN is answered a second later
    s  skipped: nothing was sent

With `tcp` there is one connection, and the first lost heartbeat is followed at once by a fresh connection at its
verdict; as long as that fails each grid point has one of its own.

    .  answered                 x  nothing answers any more         f  handshakes, but no answers
    b  only this heartbeat is lost; the fresh connection works, the old one is never heard of again
    u  the same, but the old one is answered after 0.21 s, by its first retransmission
    w  the same, but the old one is answered after 0.1 s, when nothing can have been retransmitted yet
    R  answered; 30 ms later somebody resets the connection, and a fresh one works at once
    K  answered; 30 ms later the peer closes the connection, and a fresh one is refused
    r  refused                  s  skipped: nothing was sent

thaw: when every connection that shook hands, and the old one, are answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from exporters.probing.outage import NEVER, SILENCE, Book, Change, Closed, Counted, Down, Evidence, Finished, Late, Up

T = 0.1
R = 0.06
DELTA = 0.02
ANSWER = 0.001
ERROR = 0.002


@dataclass(order=True)
class Verdict:
    """Evidence, when it was found (`at`), and since when it was looked for (NEVER for what was not)."""

    at: float
    since: float
    evidence: Evidence = field(compare=False)


@dataclass
class Told:
    """What a book said to a timeline."""

    book: Book
    changes: list[Change]

    @property
    def finished(self) -> list[Finished]:
        return [change for change in self.changes if isinstance(change, Finished)]

    @property
    def only(self) -> Finished:
        """The one event there is."""
        (finished,) = self.finished
        return finished

    @property
    def kinds(self) -> list[str]:
        return [change.event.kind for change in self.finished]

    def counted(self, ledger: str) -> float:
        """All seconds of one book."""
        return sum(c.seconds for c in self.changes if isinstance(c, Counted | Finished) and c.ledger == ledger)


def up(s: float, conn: int = 1, e: float | None = None) -> Verdict:
    e = s + ANSWER if e is None else e
    return Verdict(e, s, Up(s, e, conn))


def late(s: float, e: float, conn: int = 1) -> Verdict:
    return Verdict(e, NEVER, Late(s, e, conn))


def no_handshake(s: float, conn: int, *, grid: bool = True) -> Verdict:
    return Verdict(s + R, s, Down(s, s + DELTA, "path", "connect_timeout", grid, conn))


def no_answer(s: float, conn: int, *, grid: bool = True) -> Verdict:
    """Down although the handshake was done after a millisecond."""
    return Verdict(s + R, s, Down(s, s + ANSWER + DELTA, "peer", SILENCE, grid, conn))


def refused(s: float, conn: int, *, grid: bool = True) -> Verdict:
    return Verdict(s + ERROR, s, Down(s, s + ERROR, "path", "refused", grid, conn))


def lost_heartbeat(s: float, conn: int) -> Verdict:
    return Verdict(s + R, s, Down(s, s + DELTA, "flow", SILENCE, grid=True, conn=conn))


def reset_heartbeat(s: float, conn: int) -> Verdict:
    return Verdict(s + ERROR, s, Down(s, s + ERROR, "flow", "reset", grid=True, conn=conn))


def closed(f: float, conn: int = 1, cause: str = "closed", *, sharp: bool = True) -> Verdict:
    return Verdict(f, NEVER, Closed(f, cause, sharp, conn))


def http(line: str, *, thaw: float | None = None) -> list[Verdict]:
    """The evidence of a stream that opens a connection for each probe."""
    verdicts: list[Verdict] = []
    for point, what in enumerate(line):
        s = point * T
        if what == ".":
            verdicts.append(up(s, point))
        elif what == "l":
            verdicts += [no_handshake(s, point), late(s, s + 1.0, point)]
        elif what != "s":
            verdicts += FAILED[what](s, point, True, thaw)
    return sorted(verdicts)


def tcp(line: str, *, thaw: float | None = None) -> list[Verdict]:
    """The evidence of a stream that keeps its connection."""
    verdicts: list[Verdict] = []
    numbers = count(1)
    live: int | None = next(numbers)
    for point, what in enumerate(line):
        s = point * T
        if what == ".":
            live = live or next(numbers)
            verdicts.append(up(s, live))
        elif what in FAILED:
            fresh = s if live is None else s + (ERROR if what == "r" else R)
            if live is not None:
                verdicts += [reset_heartbeat(s, live) if what == "r" else lost_heartbeat(s, live)]
                verdicts += [late(s, thaw, live)] if what == "f" and thaw is not None else []
            verdicts += FAILED[what](fresh, next(numbers), live is None, thaw)
            live = None
        elif what != "s":
            assert live is not None, f"{what} needs a connection that works"
            old, fresh_one = live, next(numbers)
            verdicts += ON_LIVE[what](s, old, fresh_one)
            live = None if what == "K" else fresh_one
    return sorted(verdicts)


FAILED: dict[str, Callable[[float, int, bool, float | None], list[Verdict]]] = {
    "x": lambda s, conn, grid, _thaw: [no_handshake(s, conn, grid=grid)],
    "r": lambda s, conn, grid, _thaw: [refused(s, conn, grid=grid)],
    "f": lambda s, conn, grid, thaw: [no_answer(s, conn, grid=grid), *([] if thaw is None else [late(s, thaw, conn)])],
}
ON_LIVE: dict[str, Callable[[float, int, int], list[Verdict]]] = {
    "b": lambda s, old, new: [lost_heartbeat(s, old), up(s + R, new)],
    "u": lambda s, old, new: [lost_heartbeat(s, old), up(s + R, new), late(s, s + 0.21, old)],
    "w": lambda s, old, new: [lost_heartbeat(s, old), up(s + R, new), late(s, s + 0.1, old)],
    "R": lambda s, old, new: [up(s, old), closed(s + 0.03, old, "reset"), up(s + 0.03, new)],
    "K": lambda s, old, new: [up(s, old), closed(s + 0.03, old), refused(s + 0.03, new, grid=False)],
}


def told(
    verdicts: Iterable[Verdict],
    *,
    latency: float = 0.0,
    until: float | None = None,
    watch: Callable[[Told, float], None] = lambda _story, _now: None,
) -> Told:
    """Give a book the evidence in the order it was found, each with the horizon of that moment; then let time pass.

    `watch` sees the story so far after each piece.
    """
    verdicts = sorted(verdicts)
    story = Told(Book(T), [])
    for index, verdict in enumerate(verdicts):
        undecided = (other.since for other in verdicts[index + 1 :] if other.since <= verdict.at)
        story.changes += story.book.add(verdict.evidence, verdict.at, min(undecided, default=NEVER), DELTA, latency)
        watch(story, verdict.at)
    end = verdicts[-1].at if verdicts else 0.0
    story.changes += story.book.advance(end + 5.0 if until is None else until, NEVER, DELTA, latency)
    return story
