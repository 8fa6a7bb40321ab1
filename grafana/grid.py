"""Where panels stand: sizes in reading order -> places in Grafana's grid, without overlap and without hole."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

WIDTH = 24  # columns of Grafana's grid
ROW_HEIGHT = 1


class Size(NamedTuple):
    """Columns and rows of the grid (a row is about 30 pixels high)."""

    width: int
    height: int


class Place(NamedTuple):
    """A rectangle in the grid; y grows downwards."""

    x: int
    y: int
    w: int
    h: int


def flow(sizes: Sequence[Size], top: int) -> list[Place]:
    """Lines from `top` on, as many panels in each as fit; the last one of a line is widened to fill it.

    All of a line get the height of its highest. Raises ValueError for a width that no line has.
    """
    places: list[Place] = []
    for line in _lines(sizes):
        height = max(size.height for size in line)
        x = 0
        for size in line:
            places.append(Place(x, top, size.width, height))
            x += size.width
        places[-1] = places[-1]._replace(w=WIDTH - places[-1].x)
        top += height
    return places


def bottom(places: Iterable[Place], top: int) -> int:
    """The first free y below all of them; `top` where there are none."""
    return max((place.y + place.h for place in places), default=top)


def _lines(sizes: Sequence[Size]) -> list[list[Size]]:
    lines: list[list[Size]] = []
    room = 0
    for size in sizes:
        if not 0 < size.width <= WIDTH:
            raise ValueError(f"a panel is 1 to {WIDTH} columns wide, not {size.width}")
        if size.width > room:
            lines.append([])
            room = WIDTH
        lines[-1].append(size)
        room -= size.width
    return lines
