"""Where to look: what we and the peers see, held against each other, as sentences. Pure.

A peer calls itself by its source name, and we call it by the name of the target that leads to it. Where one source, and
no other, answers behind a target, both names are one, so that what it sees itself counts for what we see of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

from exporters import times
from exporters.bastion.told import Status
from exporters.bastion.ways import entered, logical
from exporters.catalog import Advice
from exporters.verdict.compare import Finding, Seen, Steps, comparing


class Placed(NamedTuple):
    """A stream as it stands, the key by which its source knows it, and for how many seconds that has observed it.

    `reached`: Unix time of our clock since which its target is known to have been there, 0 if that is not told.
    """

    key: str
    seen: Seen
    observed: float = 0.0
    reached: float = 0.0


def placed(status: Status, offset: float) -> tuple[Placed, ...]:
    """The streams of a peer's status; `offset`: the seconds its clock is ahead of ours."""
    return tuple(
        Placed(
            each.stream,
            Seen(
                source=each.source,
                target=each.target,
                path=each.path,
                protocol=each.protocol,
                state=each.state if each.observed else "unknown",
                family=each.family,
                since=max(0.0, times.seconds(each.since) - offset),
                cause=each.cause,
                source_node=status.node,
                target_node=entered(each.target, each.path, each.peer.get("node", "")),
                source_zone=status.zone,
                target_zone=each.peer.get("zone", ""),
            ),
            each.observed_seconds,
            max(0.0, times.seconds(each.reached_since) - offset) if each.reached_since else 0.0,
        )
        for each in status.streams
    )


def same(answering: Mapping[str, Set[str]]) -> dict[str, str]:
    """Source names that are another name of a target; `answering`: the sources that answer behind each target."""
    found: dict[str, list[str]] = defaultdict(list)
    for target, sources in answering.items():
        for source in sources:
            found[source].append(target)
    return {source: names[0] for source, names in found.items() if len(names) == 1 and answering[names[0]] == {source}}


def look(
    streams: Iterable[Placed], breaks: Mapping[str, int], names: Mapping[str, str], texts: Mapping[str, Advice]
) -> Steps[list[dict[str, Any]]]:
    """What is to blame, worst first; `breaks`: connections lately broken, by stream; `names`: see `same`."""
    keys: dict[tuple[str, bool], list[str]] = defaultdict(list)

    def renamed() -> Iterator[Seen]:
        for key, seen, *_ in streams:
            target = logical(seen.target, seen.path)
            one = seen._replace(
                source=names.get(seen.source, seen.source), target=names.get(target, target), breaks=breaks.get(key, 0)
            )
            keys[one.key, one.fails or one.breaks > 0].append(key)
            yield one

    said: list[dict[str, Any]] = []
    for finding in (yield from comparing(renamed())):
        said.append((yield from _said(finding, keys, texts[finding.key])))  # noqa: PERF401 - a comprehension cannot yield
    return said


def _said(finding: Finding, keys: Mapping[tuple[str, bool], list[str]], advice: Advice) -> Steps[dict[str, Any]]:
    about = finding.target or finding.source
    failing: set[str] = set()
    working: set[str] = set()
    for each in finding.failing:
        yield
        failing.update(keys.get((each, True), ()))
    for each in finding.working:
        yield
        working.update(keys.get((each, False), ()))
    return {
        "key": finding.key,
        "sure": finding.sure,
        "target": finding.target,
        "source": finding.source,
        "since": None if finding.since is None else times.iso(finding.since),
        "blames": advice.blames,
        "text": f"{f'{about}: ' if about else ''}{advice.summary} {advice.look}",
        "streams": sorted(failing),
        "working": sorted(working),
    }
