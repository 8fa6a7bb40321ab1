"""`ovnwatch demo`: three peers, Prometheus and Alertmanager here, interrupted on purpose: was it measured rightly?

1. Everything listens on 127.0.0.1, on ports the kernel found free, and needs neither root nor a network.
2. Whatever happens, all processes are ended and the folder is removed; only --keep keeps it.
3. It passes only if every interruption was measured rightly, nothing else was recorded, and the alerts arrived.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Never

from exporters import catalog
from exporters.calibrate.injection import Truth
from lab import alarms, judge, monitoring, screen, script
from lab.children import ChildEndedError, Children
from lab.crash import crash
from lab.judge import Entry, Injected
from lab.monitoring import MissingError
from lab.plant import NAMES, POLL_SECONDS, PROTOCOLS, NotReadyError, Plant, build, key, ready, until
from lab.screen import Screen

CLOSING_SECONDS = 20.0  # for the last entries and alerts to come
LISTED, EXAMPLES = 20, 4  # lines of what was wrong, and of what was not


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")  # 2 is a verdict


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ovnwatch demo", description="Interrupt paths on purpose and compare with what is measured.")
    parser.add_argument("--once", action="store_true", help="end after the script: 0 all was right, 2 it was not")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeat the run that printed it")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations, data and logs")
    return parser


async def _main(args: argparse.Namespace, programs: tuple[str, str]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    show = Screen(sys.stdout, colour=screen.coloured(sys.stdout, os.environ))
    folder = Path(tempfile.mkdtemp(prefix="ovnwatch-demo-"))
    try:
        async with Children(folder) as children:
            passed = await _beside(_perform(args, programs, children, show), children.surprise(), stop.wait())
        if passed is None:
            show.event("end", "asked to end; all processes have ended")
            return 1 if args.once else 0
        return 0 if passed else 2
    finally:
        if args.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)


async def _beside(work: Coroutine[Any, Any, bool], *others: Coroutine[Any, Any, Any]) -> bool | None:
    """The result of `work`, or None if one of the others ended before it. What any of them raises is raised."""
    tasks = [asyncio.ensure_future(each) for each in (work, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    return None if tasks[0].cancelled() else bool(tasks[0].result())


async def _perform(args: argparse.Namespace, programs: tuple[str, str], children: Children, show: Screen) -> bool:
    """Build it all, interrupt, judge; without --once it then goes on until cancelled."""
    limits = {name: min(each.limits.values()) for name, each in catalog.load().thresholds.items()}
    names = ", ".join(NAMES)
    show.block([f"ovnwatch demo --seed {args.seed}: peers {names} probe each other through relays", ""], "head")
    async with AsyncExitStack() as stack:
        plant = await build(stack, children, programs)
        show.block([*plant.addresses(), ""])

        async def work() -> bool:
            show.event("wait", "for streams to be up and scraped, and a first alert: about 10 s")
            await ready(plant)
            show.event("ready", f"{len(plant.streams)} streams are up and scraped, alerts arrive")
            made = await _play(plant, show, script.write(args.seed, NAMES))
            passed = await _close(plant, show, made, limits)
            if not args.once:
                show.block(["", "Everything goes on until Ctrl-C. Look around:", *plant.addresses(), ""], "head")
                await asyncio.Event().wait()
            return passed

        return await _beside(work(), _watch(plant, show)) is True


async def _watch(plant: Plant, show: Screen) -> None:
    """Follow the peers' histories; show what opens and closes, and the alerts that arrive."""
    read: dict[str, tuple[str, int]] = {}  # peer -> (journal, the last number seen)
    while True:
        await asyncio.sleep(POLL_SECONDS)
        new: list[Entry] = []
        for name, peer in plant.peers.items():
            journal, since = read.get(name, ("", 0))
            answer = await plant.get(peer, f"/history?since={since}")
            if answer is None:
                continue
            same = answer["journal"] == journal
            read[name] = (answer["journal"], answer["next"] if same else 0)  # another process numbers anew
            new += map(judge.entry, answer["items"] if same else ())
        plant.seen.entries |= {each.id: each for each in new}
        told, plant.seen.news = plant.seen.news, []
        for line in [*screen.entry_lines(new, plant.streams), *screen.notice_lines(told)]:
            show.event(*line)


async def _play(plant: Plant, show: Screen, steps: Sequence[script.Step]) -> list[Injected]:
    made = []
    for number, step in enumerate(steps, 1):
        await asyncio.sleep(step.pause)
        show.event("inject", screen.step_text(number, len(steps), step), "head")
        killed = step.target if step.fault == "kill" else ""
        truths = await (_kill(plant, step) if killed else _interrupt(plant, step))
        made.append(Injected(number, step.title, step.expectation, truths, killed))
    return made


async def _interrupt(plant: Plant, step: script.Step) -> dict[str, Truth]:
    keys = [key(pair, protocol) for pair in step.pairs for protocol in PROTOCOLS]
    return await plant.relays.interrupt(step.fault, keys, step.seconds)


async def _kill(plant: Plant, step: script.Step) -> dict[str, Truth]:
    peer = plant.peers[step.target]
    child = peer.child
    assert child is not None
    truths = await crash(
        lambda: plant.children.kill(child),
        lambda: plant.start_peer(peer),
        {protocol: peer.ports[protocol] for protocol in PROTOCOLS},
    )
    return {key(pair, protocol): truths[protocol] for pair in step.pairs for protocol in PROTOCOLS}


async def _close(plant: Plant, show: Screen, made: Sequence[Injected], limits: Mapping[str, float]) -> bool:
    """Wait for what is still to come, print the verdict; True if it passes."""
    seen = plant.seen
    ordered = alarms.due(made, plant.streams, limits)
    must = may = alarms.justified((), limits)
    verdict = judge.judge(made, (), plant.streams, {})

    async def complete() -> bool:
        nonlocal verdict, must, may
        may = alarms.justified(seen.entries.values(), limits)
        must = ordered & may  # what was not recorded is the verdict's, not the alerts'
        verdict = judge.judge(made, seen.entries.values(), plant.streams, await plant.relays.held())
        return not verdict.missing and not alarms.missing(seen.fired, seen.over, must)

    show.event("wait", f"for the last entries and alerts, at most {CLOSING_SECONDS:.0f} s")
    await until(complete, CLOSING_SECONDS)
    alerting = [*alarms.faults(seen.fired, may), *alarms.missing(seen.fired, seen.over, must)]
    wrong = [*verdict.wrong, *verdict.missing, *alerting]
    show.block(["", *screen.table(verdict.rows), ""])
    show.block([*screen.alarm_table(alarms.rows(made, seen.fired, must)), ""])
    busy = f"Rightly recorded too, {len(verdict.explained)} times: a busy machine held up relay or peer for as long."
    show.block(screen.reasons(busy, verdict.explained, EXAMPLES))
    show.block(screen.reasons("Wrong:", wrong, LISTED), "bad")
    held, entries = sum(row.held for row in verdict.rows), sum(row.seen for row in verdict.rows)
    if wrong:
        show.block([f"FAIL: {held} of {entries} measurements held, {len(wrong)} reasons above"], "bad")
    else:
        show.block([f"PASS: {held} of {entries} measurements held, no other event, every alert arrived"], "good")
    await _write(plant, made)
    return not wrong


async def _write(plant: Plant, made: Sequence[Injected]) -> None:
    """Put what was judged into the folder, for whoever keeps it."""
    found = {
        "made": [asdict(each) for each in made],
        "entries": [each._asdict() for each in plant.seen.entries.values()],
        "held": await plant.relays.held(),
    }
    (plant.children.folder / "judged.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
