"""Which patterns did the interruptions show: which alerts must compare paths rightly, what must the bastion say? Pure.

1. A way (source, target, path) fails when all of its streams do: in an outage or a frozen peer, not in a break.
2. An alert of a pattern may fire for any interruption that shows it, and must for one that lasted long enough.
3. What a peer that was killed measured is not known any more, so that its ways neither fail nor work.
4. The bastion named an interruption rightly if, in its last seconds, what it held for the worst was that.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import takewhile
from typing import NamedTuple

from exporters.settings import Stream
from exporters.verdict.compare import MESH
from lab.alarms import NOTICE_SECONDS, Alarm
from lab.judge import Injected, shortest
from lab.script import Way

LAST_SECONDS = 3.0  # of an interruption, in which the bastion must have named it: three of its looks
SETTLED_SECONDS = 1.5  # streams of one way do not fail at once, and the bastion compares them once a second


class Look(NamedTuple):
    """What the bastion held for the worst at one time (monotonic): a key under `where_to_look` and its target."""

    at: float
    key: str
    target: str


def _all_down(fails: Set[Way], works: Set[Way]) -> Iterator[str]:
    for target in {way.target for way in fails}:
        ways = {(way.source, way.path) for way in fails if way.target == target}
        if len(ways) > 1 and not _any(works, target=target):
            yield target


def _external_down(fails: Set[Way], works: Set[Way]) -> Iterator[str]:
    for target in {way.target for way in fails if way.path not in MESH}:
        if _any(works, target=target) and not _any_external(works, target):
            yield target


def _one_path_down(fails: Set[Way], works: Set[Way]) -> Iterator[str]:
    for _, target, path in fails:
        others = _any(works, target=target) and not _any(works, target=target, path=path)
        if others and (path in MESH or _any_external(works, target)):
            yield f"{target}|{path}"


def _one_way(fails: Set[Way], works: Set[Way]) -> Iterator[str]:
    for source, target, path in fails:
        if Way(target, source, path) in works:
            yield f"{source}|{target}|{path}"


# To add an alert of a pattern: a function of the ways that fail and those that work, and a line here.
ALERTS: dict[str, Callable[[Set[Way], Set[Way]], Iterator[str]]] = {
    "OvnwatchAllPathsDown": _all_down,
    "OvnwatchExternalPathsDown": _external_down,
    "OvnwatchOnePathDown": _one_path_down,
    "OvnwatchOneWay": _one_way,
}


def _any(ways: Set[Way], **fields: str) -> bool:
    return any(all(getattr(way, name) == value for name, value in fields.items()) for way in ways)


def _any_external(ways: Set[Way], target: str) -> bool:
    return any(way.target == target and way.path not in MESH for way in ways)


def shown(injected: Injected, streams: Mapping[str, Stream]) -> tuple[set[Alarm], set[Alarm]]:
    """The alerts that an interruption surely shows, and those that it may show."""
    if injected.expectation == "break":
        return set(), set()
    everything = {_way(stream) for stream in streams.values()}
    works = {_way(stream) for key, stream in streams.items() if key not in injected.truths}
    known = {way for way in works if way.source != injected.killed}
    sure, maybe = (
        {Alarm(name, about) for name, show in ALERTS.items() for about in show(everything - works, those)}
        for those in (known, works)
    )
    return sure & maybe, sure | maybe


def _way(stream: Stream) -> Way:
    return Way(stream.source, stream.target, stream.path)


def due(made: Sequence[Injected], streams: Mapping[str, Stream], waits: Mapping[str, float]) -> set[Alarm]:
    """The alerts of patterns that had to fire; waits: alert -> seconds that it must hold first."""
    alarms = set()
    for injected in made:
        lasted = min(map(shortest, injected.truths.values()))
        slowest = max(streams[key].interval + streams[key].prompt for key in injected.truths)
        for alarm in shown(injected, streams)[0]:
            if lasted >= waits[alarm.name] + slowest + NOTICE_SECONDS:
                alarms.add(alarm)
    return alarms


def causes(made: Sequence[Injected], streams: Mapping[str, Stream]) -> dict[Alarm, list[float]]:
    """The alerts of patterns that may fire, and when what shows them began."""
    found: dict[Alarm, list[float]] = {}
    for injected in made:
        begin = min(start.before for start, _ in injected.truths.values())
        for alarm in shown(injected, streams)[1]:
            found.setdefault(alarm, []).append(begin)
    return found


def settled(looks: Sequence[Look]) -> bool:
    """Has the last look lasted since SETTLED_SECONDS ago, and the one before not yet?"""
    since = [look.at for look in takewhile(lambda look: look[1:] == looks[-1][1:], reversed(looks))]
    return len(since) > 1 and since[1] - since[-1] < SETTLED_SECONDS <= since[0] - since[-1]


def misnamed(made: Sequence[Injected], looks: Sequence[Look]) -> list[str]:
    """Interruptions that the bastion had to name, and did not."""
    found = []
    for injected in made:
        last, right = _last(injected, looks), (injected.named, injected.target)
        if injected.named and right not in [look[1:] for look in last]:
            title = f"#{injected.number} {injected.title}"
            found.append(f"{title}: the bastion says {_said(last)}, not {injected.named} of {injected.target}")
    return found


def _last(injected: Injected, looks: Sequence[Look]) -> list[Look]:
    end = min(end.before for _, end in injected.truths.values())
    return [look for look in looks if end - LAST_SECONDS <= look.at <= end]


def _said(looks: Sequence[Look]) -> str:
    return ", ".join(dict.fromkeys(f"{look.key} of {look.target}" for look in looks)) or "nothing"
