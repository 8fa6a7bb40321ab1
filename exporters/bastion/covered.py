"""How much of a window was observed: each path by any source, each source by any of its streams. Pure.

A path that no stream ever reached is unknown: it is listed, and neither raises nor lowers what is said of the others.
Until it was reached first, nothing of it was observed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from exporters.verdict.coverage import Span, Watch, cover

MOST_LISTED = 10  # paths, and sources
LEAST_SECONDS = 5.0  # that a source missed, to be named

Place = tuple[str, str]  # a target and a path


class Seen(NamedTuple):
    """What one stream's source saw of it; `reached`: since when it is known to have been there, None: it never was."""

    source: str
    place: Place
    reached: float | None
    watch: Watch


class Watches(NamedTuple):
    """Who watched each path, and when each source watched anything; `unknown` are the paths never reached."""

    paths: Mapping[Place, Sequence[Watch]]
    sources: Mapping[str, Sequence[Watch]]
    unknown: Sequence[Place]


def gathered(streams: Iterable[Seen], silent: Iterable[tuple[str, Watch]], begin: float) -> Watches:
    """All streams' watches since `begin`; `silent`: sources of which nothing is known any more."""
    paths: dict[Place, list[Watch]] = defaultdict(list)
    sources: dict[str, list[Watch]] = defaultdict(list)
    whole: set[Place | str] = set()  # somebody missed nothing of it, and what others missed does not matter
    places: set[Place] = set()
    for source, place, reached, watch in streams:
        places.add(place)
        if reached is None:
            continue
        since = watch._replace(begin=max(watch.begin, reached))
        for known, key, each in ((paths, place, since), (sources, source, watch)):
            if key in whole:
                continue
            if each.begin <= begin and not each.gaps:
                known[key] = [each]  # type: ignore[index]
                whole.add(key)
            else:
                known[key].append(each)  # type: ignore[index]
    for source, watch in silent:
        if source not in sources:
            sources[source] = [watch]
    return Watches(paths, sources, sorted(places - paths.keys()))


def coverage(watches: Watches, window: Span) -> dict[str, Any] | None:
    """What the page says of it; None: nothing is probed. May take long, where paths and sources are many.

    `share` is that of the `worst` path, None where none was reached; `missed` names sources and their seconds.
    """
    if not watches.paths and not watches.unknown:
        return None
    found = cover(watches.paths, window)
    missed = {source: _missed(each, window) for source, each in watches.sources.items()}
    named = sorted(
        (name for name, seconds in missed.items() if seconds >= LEAST_SECONDS), key=lambda name: -missed[name]
    )
    worst = min(found, key=lambda place: found[place].share, default=None)
    share = found[worst].share if worst else None
    return {
        "share": None if share is None else int(share * 1e4) / 1e4,  # never up: all is all
        "enough": worst is not None and found[worst].enough,
        "worst": list(worst) if worst else None,
        "lacking": sum(not each.enough for each in found.values()),
        "paths": len(found),
        "unknown": [list(place) for place in watches.unknown[:MOST_LISTED]],
        "unknowns": len(watches.unknown),
        "sources": len(missed),
        "missed": [[name, round(missed[name])] for name in named[:MOST_LISTED]],
        "misses": len(named),
    }


def _missed(watches: Sequence[Watch], window: Span) -> float:
    """Seconds that a source did not observe, from when we know of it: before, it may have observed all the same."""
    known = window._replace(begin=max(window.begin, min(each.begin for each in watches)))
    if known.end <= known.begin:
        return 0.0
    return (1 - cover({"": watches}, known)[""].share) * (known.end - known.begin)
