"""What moved from one holder to another: an address, a gateway, a chassis that came back. Pure.

1. A thing has moved when somebody holds it who did not when it last was held; nobody holding it is no move by itself.
2. What nobody holds is remembered, so that a move with a gap between is one; the MOST newest of them.
3. The first look counts nothing. A look after a lost connection does: what moved meanwhile counts once.
"""

from collections.abc import Iterator, Mapping, Set

from exporters.node.rows import Row, named

MOST = 20_000


class Moves:
    """How often anything of a kind moved since the first look, and when it last did, in Unix time; None: never."""

    def __init__(self) -> None:
        self.count = 0
        self.last: float | None = None
        self._held: dict[str, frozenset[str]] | None = None

    def look(self, held: Mapping[str, Set[str]], now: float) -> None:
        """Take over who holds what."""
        before = self._held
        after = dict(before or {})
        for thing, holders in held.items():
            if not holders:
                continue
            known = after.pop(thing, None)  # and put it at the end: those longest without a holder go first
            if known is not None and not holders <= known:
                self.count += 1
                self.last = now
            after[thing] = frozenset(holders)
        while len(after) > max(MOST, len(held)):
            del after[next(iter(after))]
        self._held = after

    def rows(self, total: str, last: str) -> Iterator[Row]:
        yield Row(total, (), self.count)
        yield from named({last: self.last})
