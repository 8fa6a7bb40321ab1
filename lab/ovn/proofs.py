"""Does the report fail when it must? Of what was done in no turn, was not watched, or is told of other nodes. Pure.

The verdict alone is not enough: of what a step made nothing may be explained.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from alerts.report.build import Window, report
from alerts.report.read import Told
from exporters.history.shown import columns
from exporters.verdict.budget import Limits
from lab import story
from lab.story import Deed

IDLE = "central1"  # a node that nothing is done to
# One for each of the demo's turns, the last of which moves an egress IP: the same nodes in another order.
SHUFFLED = ("ch3", "ch1", "ch2", "ch2", "ch3", "ch1")
APART = 1  # of the steps; a later one comes so soon after others, and turns told of its node, that it may be theirs
HEAD = ("WHAT", "MUST BE", "IS")

Begins = Callable[[Mapping[str, Any]], Mapping[str, float]]  # of a report's outages, monotonic, by their ids


class Proof(NamedTuple):
    """A report about which it is known what it must say, what it says, and what is wrong with it."""

    title: str
    wanted: str
    verdict: str
    wrong: tuple[str, ...]


def unexplained(said: Sequence[Told], window: Window, deed: Deed, begins: Begins) -> Proof:
    """Of what was done in no turn."""
    found = report(said, window, Limits())
    made = [*_made(found, [deed], begins)]
    wrong = [
        f"{deed.title}: {each['verdict']}" for _, each in made if each["verdict"] not in ("unexplained", "observer")
    ]
    return _proof(deed.title, "fail", found, wrong if made else [f"{deed.title}: no outage in the report"])


def unwatched(said: Sequence[Told], window: Window) -> Proof:
    """Of a window in which who watches was held. A busy machine's outages may make it fail; it never passes."""
    found = report(said, window, Limits())
    wanted = "fail" if found["unexplained_seconds"][1] else "inconclusive"
    return _proof("the bastion is held, as it alone tells", wanted, found, [])


def told_otherwise(said: Sequence[Told], window: Window, deeds: Sequence[Deed], begins: Begins) -> Iterator[Proof]:
    """The same run, the turns shuffled, and told of a node that nothing is done to."""
    for title, other, held in (
        ("the same turns, shuffled", story.shuffled(SHUFFLED, said), deeds[:APART]),
        (f"the same turns, all of {IDLE}", story.told_of(IDLE, said), deeds),
    ):
        found = report(other, window, Limits())
        wrong = [
            f"{title}: {deed.title}: {each['source']} -> {each['target']} by {each['node']}"
            for deed, each in _made(found, held, begins)
            if each["verdict"] == "expected"
        ]
        yield _proof(title, "fail", found, wrong)


def _made(found: Mapping[str, Any], deeds: Sequence[Deed], begins: Begins) -> Iterator[tuple[Deed, Mapping[str, Any]]]:
    """The outages that deeds made."""
    known = begins(found)
    for each in found["outages"]:
        deed = story.made_by(each, deeds, known[each["id"]])
        if deed is not None:
            yield deed, each


def _proof(title: str, wanted: str, found: Mapping[str, Any], wrong: Sequence[str]) -> Proof:
    verdict: str = found["verdict"]
    missed = () if verdict == wanted else (f"{title}: the verdict is {verdict}, and must be {wanted}",)
    return Proof(title, wanted, verdict, (*missed, *wrong))


def table(proofs: Sequence[Proof]) -> Iterator[str]:
    rows = [(each.title, each.wanted.upper(), each.verdict.upper()) for each in proofs]
    return (line.rstrip("\n") for line in columns([HEAD, *rows]))
