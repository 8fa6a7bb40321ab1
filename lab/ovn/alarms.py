"""`ovnwatch lab alarms`: faults in a real OVN, one round after another: does each alert arrive, and none before?

1. The lab is its own (--prefix), and gone at the end, whatever happens.
2. Prometheus evaluates the rules as they are, with every `for` scaled; Alertmanager sends all of it to one receiver.
3. It passes only if no alert came while nothing was broken (but those that always fire), and every alert that a fault
   must fire arrived, with a text.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, closing

from aiohttp import web

from exporters.history.shown import columns
from lab import monitoring
from lab.children import ChildEndedError, Children, hold_port
from lab.monitoring import LOCAL, MissingError, Notice
from lab.ovn import faults, run, site, topology
from lab.ovn.faults import AFTERWARDS, Fault
from lab.ovn.run import LabError
from lab.ovn.site import Exporter, Site
from lab.ovn.topology import Lab
from lab.plant import NotReadyError, environ, until
from lab.screen import Screen
from lab.stage import beside, on_stage

BEGINNING = "Ovnwatch"
ALWAYS = {"Watchdog"}
ROUND_SECONDS = 45.0  # for the alerts of a round to arrive: a chassis is behind after 30 s
AGAIN_SECONDS = 5.0  # then a fault that fades is renewed
WELL_SECONDS = 40.0  # for everything to work again
SETTLE_SECONDS = 5.0  # of streams that are up: BFD, gateways


class Arrived:
    """What the receiver was told: the first notice of each alert, how many in all, and which last."""

    def __init__(self) -> None:
        self.first: dict[str, Notice] = {}
        self.count: dict[str, int] = {}
        self.lasting: dict[frozenset[tuple[str, str]], str] = {}

    def told(self, notices: list[Notice]) -> None:
        for each in notices:
            name, labels = each.name.removeprefix(BEGINNING), frozenset(each.labels.items())
            if each.status == "firing":
                self.first.setdefault(name, each)
                self.count[name] = self.count.get(name, 0) + 1
                self.lasting[labels] = name
            else:
                self.lasting.pop(labels, None)

    def begin(self) -> None:
        """Forget what came and went before; what lasts has come too early. An outage of the start may be told of."""
        lasting = {name for name in self.lasting.values() if name != "OutageEnded"}
        self.first = {name: first for name, first in self.first.items() if name in lasting}

    def lacks(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.first]


def main(args: argparse.Namespace, lab: Lab) -> int:
    """0: it passed; 2: it did not; 1: it could not be found out."""
    try:
        programs = monitoring.programs()
        run.down(lab.prefix, lab.folder)  # what a killed one left as it was then
        run.up(lab)
        try:
            return asyncio.run(_main(args, lab, programs))
        finally:
            run.down(lab.prefix, lab.folder)
    except (MissingError, ChildEndedError, NotReadyError, LabError) as error:
        print(f"ovnwatch lab alarms: {error}", file=sys.stderr)
    return 1


async def _main(args: argparse.Namespace, lab: Lab, programs: tuple[str, str]) -> int:
    async def perform(children: Children, show: Screen) -> bool:
        return await beside(_perform(args.quiet, lab, programs, children, show)) is True

    return await on_stage("lab-alarms", perform, once=True, keep=args.keep, goodbye="the lab is taken down")


async def _perform(quiet: float, lab: Lab, programs: tuple[str, str], children: Children, show: Screen) -> bool:
    """Start what watches, be quiet, break, judge."""
    prometheus, alertmanager = programs
    show.block([f"ovnwatch lab alarms: {run.told(lab)} is up; peers, a bastion, node exporters, alerts"], "head")
    async with AsyncExitStack() as stack:
        arrived = Arrived()
        at = await _alerting(stack, children, alertmanager, arrived)
        central = [Exporter(each, "node", each, site.NODE_WEB, 0) for each in lab.central_names]
        there = await site.build(stack, children, lab, prometheus, more=central, alertmanager=at)
        show.event("wait", "for streams to be up and scraped: about 10 s")
        await site.ready(there)
        await until(lambda: _is(not arrived.lacks(ALWAYS)), WELL_SECONDS)
        if not await until(lambda: _settled(there), WELL_SECONDS):
            show.event("lacks", f"quiet: alerts of the beginning are there after {WELL_SECONDS:g} s", "bad")
        await asyncio.sleep(SETTLE_SECONDS)
        arrived.begin()
        show.event("quiet", f"nothing is broken for {quiet:g} s")
        await asyncio.sleep(quiet)
        early = [name for name in arrived.first if name not in ALWAYS]
        began: dict[str, float] = {}
        for number, those in enumerate(faults.ROUNDS, 1):
            await _round(there, show, arrived, those, began, which=f"{number}/{len(faults.ROUNDS)}")
        return _close(show, arrived, early, began)


async def _alerting(stack: AsyncExitStack, children: Children, program: str, arrived: Arrived) -> str:
    """Start the receiver and Alertmanager; its address."""
    runner = web.AppRunner(monitoring.receiver(arrived.told))
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    receiver, port = (
        int(stack.enter_context(closing(hold_port())).getsockname()[1]) for _ in ("receiver", "alertmanager")
    )
    await web.TCPSite(runner, LOCAL, receiver, reuse_address=True).start()
    text = monitoring.alertmanager_config(receiver)
    (children.folder / "alertmanager.yaml").write_text(text, encoding="utf-8")
    command = monitoring.command("alertmanager", program, children.folder, port)
    await children.start("alertmanager", command, environ())
    return f"{LOCAL}:{port}"


async def _round(
    there: Site, show: Screen, arrived: Arrived, those: Sequence[Fault], began: dict[str, float], *, which: str
) -> None:
    """Do the faults, wait for what they fire, undo them, and wait until all is well."""
    for fault in those:
        show.event("do", f"{which}: {fault.title}", "head")
        began |= {name: time.monotonic() for name in fault.fires if name not in AFTERWARDS}
        await asyncio.to_thread(fault.do, there.lab)
    due = [name for fault in those for name in fault.fires]
    soon = [name for name in due if name not in AFTERWARDS]
    over = time.monotonic() + ROUND_SECONDS
    while not await until(lambda: _is(not arrived.lacks(soon)), AGAIN_SECONDS) and time.monotonic() < over:
        for fault in those:
            if fault.again is not None and arrived.lacks(fault.fires):
                await asyncio.to_thread(fault.again, there.lab)
    for fault in reversed(those):
        began |= {name: time.monotonic() for name in fault.fires if name in AFTERWARDS}
        await asyncio.to_thread(fault.undo, there.lab)
    lacking = arrived.lacks(soon)
    if lacking:
        show.event("lacks", ", ".join(lacking), "bad")
    await until(lambda: _is(not arrived.lacks(due if not lacking else set(due) & AFTERWARDS)), WELL_SECONDS)
    show.event("undone", "waiting for all to be well")
    await until(there.all_up, WELL_SECONDS)


async def _is(found: bool) -> bool:
    return found


async def _settled(there: Site) -> bool:
    """Whether no alert of this moment is there any more; one that an outage left behind may be."""
    return await there.query('count(ALERTS{alertname!~"OvnwatchWatchdog|OvnwatchOutageEnded"})') is None


HEAD = ("ALERT", "SEVERITY", "AFTER", "TIMES", "WHAT THE FIRST ONE SAYS")


def _close(show: Screen, arrived: Arrived, early: Sequence[str], began: dict[str, float]) -> bool:
    """Print what arrived, and the verdict."""
    rows = [HEAD]
    for name, first in sorted(arrived.first.items()):
        after = f"{first.arrived - began[name]:.1f} s" if name in began and first.arrived >= began[name] else "-"
        rows.append((name, first.severity, after, str(arrived.count[name]), first.text))
    show.block(["", *(line.rstrip("\n")[:240] for line in columns(rows)), ""])
    wanted = {name for those in faults.ROUNDS for fault in those for name in fault.fires} | ALWAYS
    wrong = [f"{name} came while nothing was broken: {arrived.first[name].text}" for name in early]
    wrong += [f"{name} did not arrive" for name in sorted(arrived.lacks(wanted))]
    wrong += [f"{name} has no text" for name, first in arrived.first.items() if "<no value>" in first.text]
    show.block(wrong, "bad")
    verdict = f"{len(arrived.first)} alerts arrived, {len(wanted)} had to"
    show.block([f"FAIL: {verdict}"] if wrong else [f"PASS: {verdict}"], "bad" if wrong else "good")
    return not wrong


def lab_of(prefix: str) -> Lab:
    """Three chassis, and databases that are a cluster."""
    return Lab(prefix, run.default_folder(prefix), chassis=3, centrals=topology.MOST_CENTRALS)
