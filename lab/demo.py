"""`ovnwatch demo`: three peers, Prometheus and Alertmanager here, interrupted on purpose: was it measured rightly?

1. Everything listens on 127.0.0.1, on ports the kernel found free, and needs neither root nor a network.
2. Whatever happens, all processes are ended and the folder is removed; only --keep keeps it.
3. It passes only if every interruption was measured rightly, nothing else was recorded, and the alerts arrived.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Never

import aiohttp
import yaml
from aiohttp import web

from alerts import rules
from exporters import catalog
from exporters.calibrate.injection import Truth
from exporters.settings import PEER_OPTIONS, Stream, load_peer
from lab import alarms, judge, monitoring, screen, script
from lab.alarms import Alarm
from lab.children import Child, ChildEndedError, Children, hold_port, plain_environ
from lab.crash import crash
from lab.judge import Entry, Injected
from lab.monitoring import MissingError, Notice
from lab.relays import LOCAL, Relays
from lab.screen import Screen

NAMES = ("a", "b", "c")
PROTOCOLS = ("http", "tcp", "ws")
PATH = "pod"
POLL_SECONDS = 0.25
READY_SECONDS = 60.0  # for everything to run; a machine that is not busy needs 8
CLOSING_SECONDS = 20.0  # for the last entries and alerts to come
LISTED = 20  # reasons of each sort
INTERPRETER = "import sys; from exporters.cli import main; sys.exit(main())"


class NotReadyError(Exception):
    """Something did not come up in time; the message says what."""


@dataclass(slots=True)
class Peer:
    """One peer: the ports it listens on, by protocol and "web", and its process."""

    name: str
    ports: dict[str, int]
    config: Path
    child: Child | None = None


@dataclass(slots=True)
class Seen:
    """What the peers recorded and the receiver was told, so far."""

    entries: dict[str, Entry] = field(default_factory=dict)
    fired: dict[Alarm, list[float]] = field(default_factory=dict)
    over: set[Alarm] = field(default_factory=set)


@dataclass(slots=True)
class Plant:
    """All that runs, and what is known of it."""

    children: Children
    session: aiohttp.ClientSession
    show: Screen
    folder: Path
    relays: Relays
    peers: dict[str, Peer]
    streams: dict[str, Stream]
    prometheus: int
    alertmanager: int
    seen: Seen


def main(argv: Sequence[str] | None = None) -> int:
    """0: what was injected was measured (--once), or ended by a signal; 2: it was not; 1: it could not be found out."""
    args = _parser().parse_args(argv)
    try:
        programs = monitoring.programs()
    except MissingError as missing:
        print(f"ovnwatch demo: {missing}", file=sys.stderr)
        return 1
    try:
        return asyncio.run(_main(args, programs))
    except (ChildEndedError, NotReadyError) as error:
        print(f"ovnwatch demo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")  # 2 is a verdict


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ovnwatch demo", description="Interrupt paths on purpose and compare with what is measured.")
    parser.add_argument(
        "--once", action="store_true", help="end after the script: 0 if all was measured rightly, else 2"
    )
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
            work = asyncio.create_task(_perform(args, programs, children, folder, show))
            code = await _first(work, children.surprise(), stop.wait())
        if code is None:
            show.event("end", "ended by a signal; every process is gone")
            return 1 if args.once else 0
        return code
    finally:
        if args.keep:
            show.block([f"kept: {folder}"])
        else:
            shutil.rmtree(folder)


async def _first(work: asyncio.Task[int], *others: Awaitable[Any]) -> int | None:
    """The result of `work`, or None if one of the others ended before it; raises what either raised."""
    tasks = [work, *(asyncio.ensure_future(other) for other in others)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return work.result() if work in done else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _perform(
    args: argparse.Namespace, programs: tuple[str, str], children: Children, folder: Path, show: Screen
) -> int:
    show.block([f"ovnwatch demo, seed {args.seed}: peers {', '.join(NAMES)} probe each other through relays"], "head")
    async with AsyncExitStack() as stack:
        plant = await _build(stack, programs, children, folder, show)
        show.block(_addresses(plant))
        await _ready(plant)
        watch = asyncio.create_task(_watch(plant))
        stack.callback(watch.cancel)
        made = await _first_of(_play(plant, script.write(args.seed, NAMES)), watch)
        passed = await _first_of(_close(plant, made), watch)
        if args.once:
            return 0 if passed else 2
        show.block(["", "Everything goes on until Ctrl-C; look around:", *_addresses(plant)])
        await watch
    return 0


async def _first_of(work: Awaitable[Any], watch: asyncio.Task[None]) -> Any:
    """The result of `work`; a failure of `watch` meanwhile is raised."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        return await task
    finally:
        task.cancel()


# --- building


async def _build(
    stack: AsyncExitStack, programs: tuple[str, str], children: Children, folder: Path, show: Screen
) -> Plant:
    def port() -> int:
        holder: socket.socket = stack.enter_context(contextlib.closing(hold_port()))
        return int(holder.getsockname()[1])

    environ = plain_environ({option.variable for option in PEER_OPTIONS}, {})
    relay = await children.start("relays", [sys.executable, "-m", "lab.relays"], environ, piped=True)
    peers = {
        name: Peer(name, {each: port() for each in (*PROTOCOLS, "web")}, folder / f"{name}.yaml") for name in NAMES
    }
    relays = Relays(relay.process)
    behind = {_key(pair, each): peers[pair.target].ports[each] for pair in script.pairs(NAMES) for each in PROTOCOLS}
    before = await relays.open(behind, {name: peer.ports["tcp"] for name, peer in peers.items()})
    streams: dict[str, Stream] = {}
    for peer in peers.values():
        peer.config.write_text(yaml.safe_dump(_peer_config(peer, before), sort_keys=False), encoding="utf-8")
        settings = load_peer(["--config.file", str(peer.config)], {})
        streams |= {stream.key: stream for stream in settings.streams}
    assert streams.keys() == before.keys()
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
    plant = Plant(children, session, show, folder, relays, peers, streams, port(), port(), Seen())
    receiver = await _receive(stack, plant)
    for peer in peers.values():
        await _start_peer(plant, peer)
    await _start_monitoring(plant, programs, receiver, environ)
    return plant


def _key(pair: script.Pair, protocol: str) -> str:
    return f"{pair.source}|{pair.target}|{PATH}|{protocol}|4"


def _peer_config(peer: Peer, relays: Mapping[str, int]) -> dict[str, Any]:
    return {
        "source": peer.name,
        "node": f"node-{peer.name}",
        "listen": {each: f"{LOCAL}:{peer.ports[each]}" for each in PROTOCOLS},
        "web": {"listen_address": f"{LOCAL}:{peer.ports['web']}"},
        "targets": [
            {
                "name": pair.target,
                "path": PATH,
                "host": LOCAL,
                "ports": {each: relays[_key(pair, each)] for each in PROTOCOLS},
            }
            for pair in script.pairs(NAMES)
            if pair.source == peer.name
        ],
    }


async def _receive(stack: AsyncExitStack, plant: Plant) -> int:
    """Serve the webhook receiver; its port."""

    def told(notices: list[Notice]) -> None:
        for notice in notices:
            alarm = Alarm(notice.name, _stream_of(notice.labels))
            if notice.status == "firing":
                plant.seen.fired.setdefault(alarm, []).append(notice.arrived)
            else:
                plant.seen.over.add(alarm)
        for line in screen.notice_lines(notices):
            plant.show.event(*line)

    runner = web.AppRunner(monitoring.receiver(told), access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listener = socket.create_server((LOCAL, 0))
    await web.SockSite(runner, listener).start()
    return int(listener.getsockname()[1])


def _stream_of(labels: Mapping[str, str]) -> str:
    parts = [labels.get(each, "") for each in ("source", "target", "path", "protocol", "family")]
    return "|".join(parts) if all(parts) else ""


async def _start_peer(plant: Plant, peer: Peer) -> None:
    environ = plain_environ({option.variable for option in PEER_OPTIONS}, {"HOSTNAME": peer.name})
    command = [sys.executable, "-c", INTERPRETER, "peer", "--config.file", str(peer.config)]
    peer.child = await plant.children.start(f"peer-{peer.name}", command, environ)


async def _start_monitoring(plant: Plant, programs: tuple[str, str], receiver: int, environ: Mapping[str, str]) -> None:
    folder = plant.folder
    if rules.main(["--output-dir", str(folder / "rules")]):
        raise NotReadyError("the rules could not be written")
    scraped = [peer.ports["web"] for peer in plant.peers.values()]
    config = monitoring.prometheus_config(scraped, plant.alertmanager, folder / "rules")
    (folder / "prometheus.yaml").write_text(config, encoding="utf-8")
    (folder / "alertmanager.yaml").write_text(monitoring.alertmanager_config(receiver), encoding="utf-8")
    prometheus, alertmanager = programs
    command = monitoring.alertmanager_command(
        alertmanager, folder / "alertmanager.yaml", folder / "alertmanager", plant.alertmanager
    )
    await plant.children.start("alertmanager", command, environ)
    command = monitoring.prometheus_command(
        prometheus, folder / "prometheus.yaml", folder / "prometheus", plant.prometheus
    )
    await plant.children.start("prometheus", command, environ)


def _addresses(plant: Plant) -> list[str]:
    at = f"http://{LOCAL}"
    return [
        "",
        f"  Prometheus    {at}:{plant.prometheus}/alerts",
        f"  Alertmanager  {at}:{plant.alertmanager}",
        *(
            f"  peer {name}        {at}:{peer.ports['web']}/metrics  {at}:{peer.ports['http']}/status  .../history"
            for name, peer in plant.peers.items()
        ),
        "",
    ]


async def _ready(plant: Plant) -> None:
    """Wait until every stream is up, scraped, and a first alert has arrived. Raises NotReadyError."""
    plant.show.event("wait", "for every stream to be up, scraped by Prometheus, and for the first alert (about 10 s)")
    count = len(plant.streams)

    async def all_up() -> bool:
        answers = [await _get(plant, peer, "/status") for peer in plant.peers.values()]
        return all(answer and {each["state"] for each in answer["streams"]} == {"up"} for answer in answers)

    async def all_scraped() -> bool:
        return await monitoring.query(plant.session, plant.prometheus, "count(ovnwatch_stream_up == 1)") == count

    async def alert_came() -> bool:
        return alarms.WATCHDOG in plant.seen.fired

    for what, ready in {
        f"{count} streams up": all_up,
        "Prometheus scraping them": all_scraped,
        "Alertmanager calling the receiver": alert_came,
    }.items():
        if not await _until(ready, READY_SECONDS):
            raise NotReadyError(f"waited {READY_SECONDS:.0f} s in vain for: {what}")
    plant.show.event("ready", f"{count} streams up and scraped, alerts arrive")


async def _until(ready: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not await ready():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def _get(plant: Plant, peer: Peer, path: str) -> dict[str, Any] | None:
    """A peer's JSON; None while it does not answer."""
    try:
        async with plant.session.get(f"http://{LOCAL}:{peer.ports['http']}{path}") as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer
    except (aiohttp.ClientConnectionError, TimeoutError):
        return None


# --- watching


async def _watch(plant: Plant) -> None:
    """Follow the peers' histories and show what opens and closes."""
    cursors: dict[str, tuple[str, int]] = {}
    while True:
        await asyncio.sleep(POLL_SECONDS)
        new: list[Entry] = []
        for name, peer in plant.peers.items():
            journal, since = cursors.get(name, ("", 0))
            answer = await _get(plant, peer, f"/history?since={since}")
            if answer is None:
                continue
            if answer["journal"] != journal:  # another process: its numbers start anew
                cursors[name] = (answer["journal"], 0)
                if since:
                    continue
            cursors[name] = (answer["journal"], answer["next"])
            new += map(judge.entry, answer["items"])
        plant.seen.entries |= {each.id: each for each in new}
        for line in screen.entry_lines(new, plant.streams):
            plant.show.event(*line)


# --- the script


async def _play(plant: Plant, steps: Sequence[script.Step]) -> list[Injected]:
    made = []
    for number, step in enumerate(steps, 1):
        await asyncio.sleep(step.pause)
        plant.show.event("inject", screen.step_text(number, len(steps), step), "head")
        truths = await (_kill(plant, step) if step.fault == "kill" else _interrupt(plant, step))
        made.append(Injected(number, step.title, step.expectation, truths))
    return made


async def _interrupt(plant: Plant, step: script.Step) -> dict[str, Truth]:
    keys = [_key(pair, protocol) for pair in step.pairs for protocol in PROTOCOLS]
    return await plant.relays.interrupt(step.fault, keys, step.seconds)


async def _kill(plant: Plant, step: script.Step) -> dict[str, Truth]:
    peer = plant.peers[step.target]
    child = peer.child
    assert child is not None
    truths = await crash(
        lambda: plant.children.kill(child),
        lambda: _start_peer(plant, peer),
        {protocol: peer.ports[protocol] for protocol in PROTOCOLS},
    )
    return {_key(pair, protocol): truths[protocol] for pair in step.pairs for protocol in PROTOCOLS}


async def _close(plant: Plant, made: Sequence[Injected]) -> bool:
    """Wait for what is still to come, print the verdict; True if it passes."""
    seen, show = plant.seen, plant.show
    limits = {name: min(each.limits.values()) for name, each in catalog.load().thresholds.items()}
    must = alarms.due(made, plant.streams, limits)

    async def measured() -> judge.Judgement:
        return judge.judge(made, seen.entries.values(), plant.streams, await plant.relays.held())

    async def complete() -> bool:
        return not (await measured()).missing and not alarms.missing(seen.fired, seen.over, must)

    show.event("wait", f"for the last entries and alerts, at most {CLOSING_SECONDS:.0f} s")
    await _until(complete, CLOSING_SECONDS)
    verdict = await measured()
    may = alarms.justified(seen.entries.values(), limits)
    faults = [*alarms.faults(seen.fired, may), *alarms.missing(seen.fired, seen.over, must)]
    wrong = [*verdict.wrong, *verdict.missing, *faults]
    show.block(["", *screen.table(verdict.rows), ""])
    show.block([*screen.alarm_table(alarms.rows(made, seen.fired, must)), ""])
    show.block(screen.reasons("Rightly seen: a busy machine held up relay or peer.", verdict.explained, LISTED))
    show.block(screen.reasons("Wrong:", wrong, LISTED), "bad")
    held, entries = sum(row.held for row in verdict.rows), sum(row.seen for row in verdict.rows)
    if wrong:
        show.block([f"FAIL: {held} of {entries} measurements held, {len(wrong)} reasons above"], "bad")
        await _keep(plant, made)
    else:
        show.block([f"PASS: {held} of {entries} measurements held, no other event, every alert arrived"], "good")
    return not wrong


async def _keep(plant: Plant, made: Sequence[Injected]) -> None:
    """Write what was judged into the folder."""
    found = {
        "made": [asdict(each) for each in made],
        "entries": [each._asdict() for each in plant.seen.entries.values()],
        "held": await plant.relays.held(),
    }
    (plant.folder / "judged.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
