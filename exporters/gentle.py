"""Long work in a thread beside an event loop that probes: done in lots, with pauses in which the loop has its way.

A loop gives the interpreter away at each system call and gets it back only when the thread beside it pauses or has had
its turn. With 11 000 streams and pauses of 1 ms a scrape took the loop a third of its time for a second, and one probe
in six came 50 ms late; with 4 ms it takes a twentieth.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from time import sleep
from typing import TypeVar

PAUSE = 0.004  # seconds

Each = TypeVar("Each")


def lots(items: Iterable[Each], size: int, pause: float = PAUSE) -> Iterator[list[Each]]:
    """Hand out `items`, at most `size` at a time, with a pause (seconds; 0 for none) after each full lot."""
    rest = iter(items)
    while lot := list(islice(rest, size)):
        yield lot
        if pause and len(lot) == size:
            sleep(pause)
