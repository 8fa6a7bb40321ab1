"""The numbers that several boards open with: what they ask is the same, what is said of it is the board's own."""

from collections.abc import Sequence

from grafana import looks, panels
from grafana.grid import Size
from grafana.parts import Link, Panel, Query
from grafana.queries import KNOWN, about_at_worst, all_states, at_least, at_most, now_of, worst


def down_now(more: str = "", links: Sequence[Link] = ()) -> Panel:
    return panels.stat(
        "down-now",
        "Down now",
        "Streams with an open outage of their path. Good: 0. Streams that are not observed, and those whose "
        f"target never answered, are not counted here: see the states beside.{more}",
        [Query(f"sum({now_of(KNOWN)} == bool {looks.DOWN.code})", "down")],
        unit="count",
        size=Size(3, 4),
        mappings=looks.bad_above_zero(looks.VERMILION),
        links=links,
    )


def streams_by_state(more: str) -> Panel:
    return panels.stat(
        "streams-by-state",
        "Streams by state",
        f"How many streams are in which state now. Good: all are up. {more}",
        [Query(f'count_values("state", {all_states()})', "{{state}}")],
        unit="count",
        size=Size(6, 4),
        overrides=panels.state_names(),
    )


def outage_seconds(more: str, size: Size) -> Panel:
    return panels.stat(
        "outage-seconds",
        "Outage seconds, worst stream",
        "What the stream that lost most lost in the range: at least, about and at most, as of the last minute. "
        f"Good: 0 s{more}",
        [
            Query(worst(at_least()), "at least"),
            Query(worst(about_at_worst()), "about"),
            Query(worst(at_most()), "at most"),
        ],
        unit="seconds",
        size=size,
        threshold="OvnwatchOutageEnded",
        decimals=2,
    )
