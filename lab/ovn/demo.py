"""`ovnwatch lab demo`: a migration to a real OVN, and what a report says of it: is all seen, and rightly explained?

Workloads go from plain bridges to OVN, chassis by chassis; one moves, a chassis restarts, an egress IP moves.

1. The lab is its own (--prefix), and gone at the end, whatever happens.
2. When each interruption began and ended is known to within the commands that made it, and a ping that passes again.
3. It passes only if each was seen by every stream that it had to hit, and if what is outside told the new address. What
   else a busy machine makes streams record is listed, and fails nothing.
4. Each step is marked as the turn of a node, by a migration exporter. It passes only if the report says of every outage
   that a step made that it was that turn's doing.
5. And only if the report fails when it must (proofs.py): before the first turn a workload's cable is out, and the
   bastion is held; and at the end the turns of this very run are told of other nodes.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from alerts.report.build import NoWindowError, named, report
from alerts.report.forms import text
from exporters import times
from exporters.calibrate.injection import Bracket, Expectation, Truth
from exporters.history.shown import columns
from exporters.history.source import SourceError
from exporters.migration.names import NONE
from exporters.settings import Stream
from exporters.verdict.budget import Limits
from exporters.verdict.explain import RESTART
from lab import judge, monitoring, screen, story
from lab.children import ChildEndedError, Children
from lab.judge import Injected
from lab.monitoring import MissingError
from lab.ovn import change, plain, run, site, topology
from lab.ovn import proofs as proofs_of
from lab.ovn.run import LabError
from lab.ovn.site import Site
from lab.ovn.topology import EGRESS, Lab
from lab.plant import POLL_SECONDS, NotReadyError, until
from lab.screen import Screen
from lab.stage import beside, on_stage
from lab.story import Deed

AWAY_SECONDS = 1.5  # that a workload is nowhere, that a chassis' daemons do not run: more than any stream's interval
BACK_SECONDS = 30.0  # for a ping to pass again
SEEN_SECONDS = 30.0  # for the last entries to come
LISTED = 20


HELD_SECONDS = 3.0  # that the bastion is held: more than any stream's interval and prompt limit together
WINDOW = "migration"


class Step(NamedTuple):
    """Something that is done in a node's turn, or in none ("") and a window of its own; `hits`: what it interrupts."""

    title: str
    phase: str
    node: str
    done: Callable[[Site], Truth]
    hits: Callable[[Stream], bool]
    window: str = ""
    expectation: Expectation = "path"


def _enters(workload: str) -> Step:
    """A workload goes from its plain bridge to OVN."""
    other = "w2" if workload == "w1" else "w1"

    def done(there: Site) -> Truth:
        lab, ping = there.lab, (other, topology.address(workload))
        return _interrupted(lab, lambda: plain.leave(lab, workload), lambda: plain.enter(lab, workload), ping)

    chassis = f"ch{topology.number(workload)}"
    title = f"{workload} goes from {chassis}'s plain bridge to OVN"
    return Step(title, "to OVN", chassis, done, lambda stream: _about(stream, workload))


def _cable(there: Site) -> Truth:
    lab, ping = there.lab, ("w1", topology.address("w2"))
    return _interrupted(lab, lambda: plain.leave(lab, "w2"), lambda: plain.come_back(lab, "w2"), ping)


def _held(there: Site) -> Truth:
    """The bastion is stopped, and its echoes with it, and goes on."""
    process = there.children.named(site.BASTION).process
    begin = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    start = Bracket(begin, time.monotonic())
    time.sleep(HELD_SECONDS)
    begin = time.monotonic()
    process.send_signal(signal.SIGCONT)
    return start, Bracket(begin, time.monotonic())


def _moves(there: Site) -> Truth:
    lab = there.lab
    return _interrupted(
        lab,
        lambda: change.unplug(lab, "w3"),
        lambda: change.plug(lab, "w3", "ch1"),
        ("w2", topology.address("w3")),
    )


def _restarts(there: Site) -> Truth:
    lab = there.lab
    return _interrupted(
        lab,
        lambda: change.stop_chassis(lab, "ch2"),
        lambda: change.start_chassis(lab, "ch2"),
        ("w1", topology.address("w2")),
    )


def _about(stream: Stream, workload: str) -> bool:
    return workload in (stream.source, stream.target)


def _on_second(stream: Stream) -> bool:
    """w2 is on the second chassis, and so is the gateway of the egress address that w1 has."""
    return _about(stream, "w2") or (stream.source, stream.target) == ("w1", site.FAR)


def _egress(stream: Stream) -> bool:
    return stream.target == site.FAR


BEFORE = (  # in no turn
    Step("w2's cable is out, in no turn", "", "", _cable, lambda stream: _about(stream, "w2"), "stray"),
    Step("the bastion is held", "", "", _held, _egress, "held", "frozen"),
)
STEPS = (
    *(_enters(workload) for workload in ("w1", "w2", "w3")),
    Step("w3 moves from ch3 to ch1", "drain", "ch3", _moves, lambda stream: _about(stream, "w3")),
    Step("ch2's daemons restart", "upgrade", "ch2", _restarts, _on_second),
)
# Then the egress address of w1 moves, and is another one.
EGRESS_TO = ("ch3", EGRESS[1])
ALL = len(BEFORE) + len(STEPS) + 1
EGRESS_TITLE = f"w1's egress IP moves from gr2 to gr3 and is {EGRESS[1]}, no more {EGRESS[0]}"


def _interrupted(lab: Lab, cut: Callable[[], None], mend: Callable[[], None], ping: tuple[str, str]) -> Truth:
    """When an interruption began and ended, in monotonic seconds."""
    before = time.monotonic()
    cut()
    start = Bracket(before, time.monotonic())
    time.sleep(AWAY_SECONDS)
    begin = time.monotonic()
    mend()
    host, address = ping
    inside = ("ip", "netns", "exec", lab.namespace(host))
    pinged = ("ping", "-c1", "-i0.05", "-W1", f"-w{BACK_SECONDS:.0f}", address)
    if subprocess.run([*inside, *pinged], check=False, capture_output=True).returncode:
        raise LabError(f"{host} does not reach {address} again")
    return start, Bracket(begin, time.monotonic())


# --- running it


def main(args: argparse.Namespace, lab: Lab) -> int:
    """0: all was seen (--once), or it was ended by a signal; 2: something was not; 1: it could not be found out."""
    try:
        prometheus, _ = monitoring.programs()
        run.down(lab.prefix, lab.folder)  # what a killed one left as it was then
        run.up(lab)
        try:
            plain.begin(lab)
            return asyncio.run(_main(args, lab, prometheus))
        finally:
            run.down(lab.prefix, lab.folder)
    except (MissingError, ChildEndedError, NotReadyError) as error:
        print(f"ovnwatch lab demo: {error}", file=sys.stderr)
    return 1


async def _main(args: argparse.Namespace, lab: Lab, prometheus: str) -> int:
    async def perform(children: Children, show: Screen) -> bool:
        return await _perform(args, lab, prometheus, children, show)

    return await on_stage("lab-demo", perform, once=args.once, keep=args.keep, goodbye="the lab is taken down")


async def _perform(args: argparse.Namespace, lab: Lab, prometheus: str, children: Children, show: Screen) -> bool:
    """Start what watches, do the steps, judge; without --once it then goes on until cancelled."""
    watched = "a peer in each workload, a bastion outside, Prometheus"
    show.block([f"ovnwatch lab demo: {run.told(lab)} is up; {watched}"], "head")
    async with AsyncExitStack() as stack:
        there = await site.build(stack, children, lab, prometheus)
        show.block([*there.addresses(), ""])

        async def work() -> bool:
            show.event("wait", "for streams to be up and scraped: about 10 s")
            await site.ready(there)
            show.event("ready", f"{len(there.streams)} streams are up, {len(there.exporters)} exporters are scraped")
            made = [await _do(there, show, number, step) for number, step in enumerate(BEFORE, 1)]
            await there.window(WINDOW)
            made += [await _do(there, show, number, step) for number, step in enumerate(STEPS, len(BEFORE) + 1)]
            show.event("do", f"{ALL}/{ALL}: {EGRESS_TITLE}", "head")
            await there.mark("egress IP moves", "ch1")
            await asyncio.to_thread(change.set_egress, lab, "w1", *EGRESS_TO)
            await asyncio.sleep(1.0)
            await there.mark(NONE, "ch1")
            passed = await _close(there, show, made)
            passed = await _report(there, show, made) and passed
            if not args.once:
                show.block(["", "Everything goes on until Ctrl-C. Look around:", *there.addresses(), ""], "head")
                await asyncio.Event().wait()
            return passed

        return await beside(work(), _watch(there, show)) is True


async def _do(there: Site, show: Screen, number: int, step: Step) -> Injected:
    """Do a step, and wait until it is over for all streams."""
    show.event("do", f"{number}/{ALL}: {step.title}", "head")
    if step.window:
        await there.window(step.window)
        await asyncio.sleep(1.0)
    if step.node:
        await there.mark(step.phase, step.node)
    truth = await asyncio.to_thread(step.done, there)
    await until(there.all_up, SEEN_SECONDS)
    await asyncio.sleep(1.0)
    if step.node:
        await there.mark(NONE, step.node)
    if step.window:
        await there.window("")
    hit = {key: truth for key, each in there.streams.items() if step.hits(each)}
    return Injected(number, step.title, step.expectation, hit)


async def _watch(there: Site, show: Screen) -> None:
    """Follow the histories; show what opens and closes, and changed addresses."""
    told: set[str] = set()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        for line in screen.entry_lines(await there.look(), there.streams):
            show.event(*line)
        for key in [each for each in there.changes if each not in told]:
            told.add(key)
            one = there.changes[key]
            stream = judge.name(there.streams[one.stream])
            show.event("seen", f"{stream}: as {one.after}, before as {one.before}", "look")


# --- the end


async def _close(there: Site, show: Screen, made: Sequence[Injected]) -> bool:
    """Wait for what is still to come, print the verdict; True if it passes."""

    lacks: list[str] = []

    async def complete() -> bool:
        lacks[:] = [*missing(there, made), *await _unscraped(there)]
        return not lacks

    show.event("wait", f"for the last entries, at most {SEEN_SECONDS:.0f} s")
    await until(complete, SEEN_SECONDS)
    verdict = judge.judge(made, there.entries.values(), there.streams, {})
    show.block(["", *(line.rstrip("\n") for line in columns([HEAD, *map(_cells, verdict.rows)])), ""])
    show.block([*NOTES, ""])
    show.block([f"{EGRESS_TITLE}; what is outside told of all steps:", *_addresses(there), ""])
    show.block(screen.reasons("Seen by node exporters:", [*site.nodes_see(there.lab)], LISTED))
    show.block(screen.reasons("Recorded besides, or not quite right (nothing fails by it):", verdict.wrong, LISTED))
    show.block(screen.reasons("Missing:", lacks, LISTED), "bad")
    show.block(["FAIL: not all was seen"] if lacks else ["PASS: all was seen"], "bad" if lacks else "good")
    return not lacks


async def _report(there: Site, show: Screen, made: Sequence[Injected]) -> bool:
    """Close the window and print the report about it; True if each outage is rightly explained."""
    await there.window("")
    try:
        said = await asyncio.to_thread(story.read, there.urls())
        window = named(said, WINDOW)
    except (SourceError, NoWindowError) as error:
        show.block([f"FAIL: the report: {error}"], "bad")
        return False
    found = report(said, window, Limits())
    stray, _, *rest = made
    deeds = [Deed(step.title, step.node, each.truths) for step, each in zip(STEPS, rest, strict=True)]
    wrong, strays = story.misexplained(found, deeds, _begins(found))
    if not any(each["name"] == f"{RESTART}ovs-vswitchd" and each["node"] == "ch2" for each in found["events"]):
        wrong.append("the restart of ch2's ovs-vswitchd is not in the report")
    try:
        alone = await asyncio.to_thread(story.read, [there.url(there.exporters[site.BASTION])])
        proofs = [
            proofs_of.unexplained(said, named(said, BEFORE[0].window), Deed(stray.title, "", stray.truths), _begins),
            proofs_of.unwatched(alone, named(alone, BEFORE[1].window)),
            *proofs_of.told_otherwise(said, window, deeds, _begins),
        ]
    except (SourceError, NoWindowError) as error:
        show.block([f"FAIL: the report: {error}"], "bad")
        return False
    show.block(["The report:", "", *text(found).splitlines(), ""])
    show.block(screen.reasons("Of nobody's doing (a busy machine's; nothing fails by it):", strays, LISTED))
    show.block(["The report where it must not pass:", "", *proofs_of.table(proofs), ""])
    wrong += [each for proof in proofs for each in proof.wrong]
    show.block(screen.reasons("Not rightly explained:", wrong, LISTED), "bad")
    said_so = "PASS: each outage is rightly explained, and none if the turns are told of other nodes"
    show.block(["FAIL: not every outage is rightly explained"] if wrong else [said_so], "bad" if wrong else "good")
    return not wrong


def _begins(found: Mapping[str, Any]) -> dict[str, float]:
    """When each outage of a report began, in monotonic seconds."""
    off = time.time() - time.monotonic()
    return {each["id"]: times.seconds(each["begin"]) - off for each in found["outages"]}


def missing(there: Site, made: Sequence[Injected]) -> list[str]:
    """What no stream has seen yet."""
    verdict = judge.judge(made, there.entries.values(), there.streams, {})
    told = {each.stream for each in there.changes.values() if each.after == EGRESS[1]}
    due = [each for each in there.streams.values() if (each.source, each.target) == ("w1", site.FAR)]
    silent = [f"{judge.name(each)} was not told the new address" for each in due if each.key not in told]
    return [*verdict.missing, *silent]


async def _unscraped(there: Site) -> list[str]:
    """What should be again as it was, or in Prometheus, and is not yet."""
    found = [] if await there.all_up() else ["all streams are up again"]
    if not await there.all_scraped():
        found.append("Prometheus scrapes all exporters")
    for what, query in site.nodes_see(there.lab).items():
        if await there.query(query) != 1:
            found.append(f"node exporters: {what}")
    return found


NOTES = (
    "Seconds. TRUE: at least. Of the streams of one protocol: least lower bound, median estimate, greatest upper bound",
    "and delay until noticed. WAY: from workload to workload, or by a VIP, a gateway or an egress address.",
)
HEAD = ("#", "WHAT", "TRUE", "WAY", "PROTOCOL", "SEEN BY", "LOWER", "ESTIMATE", "UPPER", "NOTICED")


def _cells(row: judge.Row) -> tuple[str, ...]:
    """Seconds; true: at least; of the streams of one protocol the least, median and greatest."""
    seen = f"{row.seen} of {row.streams}" + ("" if row.must == row.streams else f", {row.must} due")
    numbers = (row.lower, row.estimate, row.upper, row.delay)
    lengths = [f"{each:.2f}" if row.seen else "-" for each in numbers]
    where = "in or out" if row.outside else "inside"
    return (str(row.number), row.title, f"{row.true:.2f}", where, row.protocol, seen, *lengths)


def _addresses(there: Site) -> Iterator[str]:
    rows = [
        (judge.name(there.streams[each.stream]), each.before, each.after, each.earliest[11:23], each.latest[11:23])
        for each in there.changes.values()
    ]
    return (line.rstrip("\n") for line in columns([("STREAM", "BEFORE", "AFTER", "BETWEEN", "AND"), *rows]))
