"""`ovnwatch demo`: three peers, a bastion, Prometheus and Alertmanager, interrupted on purpose: measured rightly?

1. Everything listens on 127.0.0.1, on ports the kernel found free, and needs neither root nor a network.
2. Whatever happens, all processes are ended and the folder is removed; only --keep keeps it.
3. It passes only if every interruption was measured rightly and named rightly, nothing else was recorded, the alerts
   arrived, the bastion heard all that peers recorded, and every query of the dashboard found something.
"""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from exporters.calibrate.injection import Truth
from exporters.ends import Parser
from lab import judge, monitoring, patterns, screen, script
from lab.children import ChildEndedError, Children
from lab.closing import close
from lab.crash import crash
from lab.judge import Entry, Injected
from lab.monitoring import MissingError, Notice
from lab.patterns import Look
from lab.plant import ECHOES, NAMES, POLL_SECONDS, NotReadyError, Plant, build, ready
from lab.screen import Screen
from lab.stage import beside, on_stage

MILD = ("established_broken", "not_enough_known")  # true after every break, and at every start


def main(argv: Sequence[str] | None = None) -> int:
    """0: it passed (--once), or was ended by a signal; 2: it failed; 1: it could not be found out."""
    args = _parser().parse_args(argv)
    try:
        return asyncio.run(_main(args, monitoring.programs()))
    except (MissingError, ChildEndedError, NotReadyError) as error:
        print(f"ovnwatch demo: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has gone, and shall not hear of the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ovnwatch demo", description="Interrupt paths on purpose and compare with what is measured.")
    parser.add_argument("--once", action="store_true", help="end after the script: 0 all was right, 2 it was not")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeat the run that printed it")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations, data and logs")
    return parser


async def _main(args: argparse.Namespace, programs: tuple[str, str]) -> int:
    async def perform(children: Children, show: Screen) -> bool:
        return await _perform(args, programs, children, show)

    return await on_stage("demo", perform, once=args.once, keep=args.keep, goodbye="all processes have ended")


async def _perform(args: argparse.Namespace, programs: tuple[str, str], children: Children, show: Screen) -> bool:
    """Build it all, interrupt, judge; without --once it then goes on until cancelled."""
    names = ", ".join(NAMES)
    show.block(
        [f"ovnwatch demo --seed {args.seed}: peers {names} probe each other through relays, and a bastion"], "head"
    )
    show.block(["probes each from outside by relays that stand for its LoadBalancer, NodePort and Route", ""], "head")
    async with AsyncExitStack() as stack:
        plant = await build(stack, children, programs)
        show.block([*plant.addresses(), ""])

        async def work() -> bool:
            begun = time.monotonic()
            show.event("wait", "for streams to be up and scraped, and a first alert: about 10 s")
            await ready(plant)
            show.event("ready", f"{len(plant.streams)} streams are up and scraped, alerts arrive")
            window = time.time()
            made = await _play(plant, show, script.write(args.seed, NAMES))
            passed = await close(plant, show, made, begun, window)
            if not args.once:
                show.block(["", "Everything goes on until Ctrl-C. Look around:", *plant.addresses(), ""], "head")
                await asyncio.Event().wait()
            return passed

        return await beside(work(), _watch(plant, show)) is True


async def _watch(plant: Plant, show: Screen) -> None:
    """Follow the histories and what the bastion says; show what opens and closes, and the alerts that arrive."""
    read: dict[str, tuple[str, int]] = {}  # exporter -> (journal, the last number seen)
    described: set[str] = set()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        new: list[Entry] = []
        for name, exporter in plant.exporters.items():
            journal, since = read.get(name, ("", 0))
            answer = await plant.get(exporter, f"/history?since={since}")
            if answer is None:
                continue
            same = answer["journal"] == journal
            read[name] = (answer["journal"], answer["next"] if same else 0)  # another journal numbers anew
            items = answer["items"] if same else ()
            new += (judge.entry(item) for item in items if item["kind"] in judge.EVENTS)
        plant.seen.entries |= {each.id: each for each in new}
        told, plant.seen.news = _first(plant.seen.news, described), []
        for line in [*screen.entry_lines(new, plant.streams), *screen.notice_lines(told), *await _look(plant)]:
            show.event(*line)


def _first(notices: Sequence[Notice], described: set[str]) -> list[Notice]:
    """The notices, those of alerts that have been described without their text."""
    shown = []
    for each in notices:
        shown.append(each._replace(text="") if each.name in described else each)
        described.add(each.name)
    return shown


async def _look(plant: Plant) -> list[tuple[str, str, str]]:
    """Note what the bastion holds for the worst; its sentence as (word, text, tone), once it is settled."""
    at = time.monotonic()
    looks, said = plant.seen.looks, await plant.get(plant.bastion, "/status")
    if said is None:
        return []
    worst = next((each for each in said["look"] if each["key"] not in MILD), None)
    looks.append(Look(at, worst["key"], worst["target"]) if worst else Look(at, "", ""))
    return [("look", f"the bastion says: {worst['text']}", "look")] if worst and patterns.settled(looks) else []


async def _play(plant: Plant, show: Screen, steps: Sequence[script.Step]) -> list[Injected]:
    made = []
    for number, step in enumerate(steps, 1):
        await asyncio.sleep(step.pause)
        show.event("inject", screen.step_text(number, len(steps), step), "head")
        killed = step.target if step.fault == "kill" else ""
        truths = await (_kill(plant, step) if killed else _interrupt(plant, step))
        made.append(Injected(number, step.title, step.expectation, truths, killed, step.target, step.named))
    return made


async def _interrupt(plant: Plant, step: script.Step) -> dict[str, Truth]:
    return await plant.relays.interrupt(step.fault, [key for way in step.ways for key in way.streams()], step.seconds)


async def _kill(plant: Plant, step: script.Step) -> dict[str, Truth]:
    peer = plant.exporters[step.target]
    child = peer.child
    assert child is not None
    truths = await crash(
        lambda: plant.children.kill(child),
        lambda: plant.start(peer),
        {protocol: peer.ports[protocol] for protocol in ECHOES},
    )
    return {way.key(protocol): truths[protocol] for way in step.ways for protocol in script.PROTOCOLS[way.path]}


if __name__ == "__main__":
    sys.exit(main())
