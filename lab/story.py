"""A demo's report: what its exporters tell, why each outage was, held against what was done. Pure but for `read`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from alerts.report.build import EVENT
from alerts.report.read import Told, told
from exporters import times
from exporters.calibrate.injection import Truth
from exporters.history.items import Item
from exporters.history.source import Remote

SLACK = 1.0  # seconds before and after an interruption in which an outage may have begun that it made


class Deed(NamedTuple):
    """What was done in a node's turn, and the streams that it interrupted, by key, with monotonic times."""

    title: str
    node: str
    truths: Mapping[str, Truth]


def read(urls: Iterable[str]) -> list[Told]:
    """What each exporter tells. Raises SourceError."""
    said = []
    for url in urls:
        with Remote(url, {}) as source:
            said.append(told(source))
    return said


def made_by(outage: Mapping[str, Any], deeds: Iterable[Deed], begin: float) -> Deed | None:
    """Whose doing an outage of a report is, that began at `begin` in monotonic seconds; None: nobody's.

    Of two deeds one after the other, the later one.
    """
    key = "|".join((outage["source"], outage["target"], outage["path"], outage["protocol"], "4"))
    made = None
    for deed in deeds:
        if key in deed.truths:
            start, end = deed.truths[key]
            lasted = begin + outage["seconds"][2] >= start.after  # else it was over before
            if start.before - SLACK <= begin <= end.after + SLACK and lasted:
                made = deed
    return made


def misexplained(
    report: Mapping[str, Any], deeds: Sequence[Deed], begins: Mapping[str, float]
) -> tuple[list[str], list[str]]:
    """What is not rightly explained of what was done, and what nobody did; `begins`: monotonic, by the outage's id.

    An outage is `expected` in the turn of a node of its own, and `collateral` in that of another one.
    """
    wrong, strays, seen = [], [], set()
    for each in report["outages"]:
        deed = made_by(each, deeds, begins[each["id"]])
        how = f"{each['source']} -> {each['target']} by {each['path']}/{each['protocol']}"
        said = f"{how}: {each['verdict']} by {each['node'] or 'nothing'}"
        if deed is None:
            strays.append(said)
            continue
        seen.add(deed.title)
        wanted = "expected" if deed.node in each["nodes"] else "collateral"
        if (each["verdict"], each["node"], each["left_seconds"]) != (wanted, deed.node, 0):
            wrong.append(f"{deed.title}: {said}, should be {wanted} by {deed.node}")
    wrong += [f"{deed.title}: no outage in the report" for deed in deeds if deed.truths and deed.title not in seen]
    return wrong, strays


def told_of(node: str, said: Iterable[Told]) -> list[Told]:
    """The same run, but every turn is told of one node."""
    return _moved(said, lambda _turn: node)


def shuffled(nodes: Sequence[str], said: Sequence[Told]) -> list[Told]:
    """The same run, but its turns are told of these nodes, the first one of the first."""
    found = {item.id: item for each in said for item in each.items if _is_turn(item)}
    order = sorted(found, key=lambda each: times.seconds(found[each].start_time))
    return _moved(said, dict(zip(order, nodes, strict=True)).__getitem__)


def _moved(said: Iterable[Told], node: Callable[[str], str]) -> list[Told]:
    """Turns told of what `node` says, by their ids."""
    return [
        each._replace(
            items=[msgspec.structs.replace(item, node=node(item.id)) if _is_turn(item) else item for item in each.items]
        )
        for each in said
    ]


def _is_turn(item: Item) -> bool:
    return item.kind == "phase" and item.cause != EVENT
