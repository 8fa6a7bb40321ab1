"""Everything that runs in the demo: relays, peers and a bastion that probe through them, Prometheus, Alertmanager.

A peer's LoadBalancer, NodePort and Route are relays before it, as is the way from each other peer.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from alerts import command as rules
from exporters.bastion.settings import BASTION
from exporters.peer.settings import PEER
from exporters.settings import Program, Stream
from lab import board, monitoring, script
from lab.alarms import WATCHDOG, Alarm, about
from lab.children import Child, Children, hold_port, plain_environ
from lab.judge import Entry
from lab.monitoring import Notice
from lab.patterns import Look
from lab.relays import LOCAL, Relays
from lab.script import OUTSIDE, PROTOCOLS, Way

NAMES = ("a", "b", "c")
ECHOES = ("http", "tcp", "ws")
PROGRAMS: dict[str, Program[Any]] = {"peer": PEER, "bastion": BASTION}
DESCRIPTORS = 1024  # more than any of these need
POLL_SECONDS = 0.25
# Rules wait a twentieth of their time: 3 s for a pattern, three scrapes of ours instead of two that are 30 s apart.
SCALE_FOR = 0.05
MAX_HISTORY = 10_000  # of the bastion, so that nothing the peers tell is pushed out
READY_SECONDS = 60.0  # for everything to run; a machine that is not busy needs 8
# The console script's own entry: a checkout may have none on PATH.
OVNWATCH = (sys.executable, "-c", "import sys; from exporters.cli import main; sys.exit(main())")


class NotReadyError(Exception):
    """Something did not come up in time; the message says what."""


@dataclass(slots=True)
class Exporter:
    """A peer or the bastion: the ports it listens on, by protocol and "web", and its process."""

    name: str
    command: str
    ports: dict[str, int]
    config: Path
    child: Child | None = None

    @property
    def book(self) -> int:
        """The port that serves its /status and /history."""
        return self.ports["http" if self.command == "peer" else "web"]


@dataclass(slots=True)
class Seen:
    """What was recorded, said and told to the receiver so far; `news` is what nobody has shown yet."""

    news: list[Notice] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    fired: dict[Alarm, list[float]] = field(default_factory=dict)  # monotonic seconds of arrival
    over: set[Alarm] = field(default_factory=set)
    looks: list[Look] = field(default_factory=list)

    def notice(self, notices: list[Notice]) -> None:
        for each in notices:
            alarm = Alarm(each.name, about(each.labels))
            if each.status == "firing":
                self.fired.setdefault(alarm, []).append(each.arrived)
            else:
                self.over.add(alarm)
        self.news += notices


@dataclass(frozen=True, slots=True)
class Plant:
    """All that runs."""

    children: Children
    session: aiohttp.ClientSession
    relays: Relays
    exporters: Mapping[str, Exporter]  # the peers, and the bastion
    streams: Mapping[str, Stream]
    prometheus: int
    alertmanager: int
    seen: Seen

    @property
    def bastion(self) -> Exporter:
        return self.exporters[OUTSIDE]

    async def start(self, exporter: Exporter) -> None:
        """Start an exporter's process, the first or another one."""
        command = [*OVNWATCH, exporter.command, "--config.file", str(exporter.config)]
        state = str(self.children.folder / "state")
        variables = environ(HOSTNAME=exporter.name, MAX_HISTORY=str(MAX_HISTORY), STATE_DIRECTORY=state)
        name = exporter.name if exporter.command == "bastion" else f"peer-{exporter.name}"
        exporter.child = await self.children.start(name, command, variables)

    async def get(self, exporter: Exporter, path: str) -> dict[str, Any] | None:
        """An exporter's JSON; None while it does not answer."""
        try:
            async with self.session.get(f"http://{LOCAL}:{exporter.book}{path}") as response:
                response.raise_for_status()
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientConnectionError, TimeoutError):
            return None

    def addresses(self) -> list[str]:
        """Where to look, as lines."""
        at = f"http://{LOCAL}"
        peers = [each for each in self.exporters.values() if each is not self.bastion]
        return [
            f"  bastion       {at}:{self.bastion.book}/  the page; /api/data, /status, /history, /metrics",
            f"  Prometheus    {at}:{self.prometheus}/alerts",
            f"  Alertmanager  {at}:{self.alertmanager}",
            *(
                f"  peer {peer.name}        {at}:{peer.ports['web']}/metrics  {at}:{peer.book}/status  and /history"
                for peer in peers
            ),
            f"  for Grafana   {board.FILE}",
        ]


def environ(**add: str) -> dict[str, str]:
    """Our own environment, without what would configure an exporter."""
    return plain_environ({option.variable for each in PROGRAMS.values() for option in each.options}, add)


async def build(stack: AsyncExitStack, children: Children, programs: tuple[str, str]) -> Plant:
    """Start it all; sockets and servers of our own end with `stack`."""
    folder = children.folder

    def port() -> int:
        holder: socket.socket = stack.enter_context(contextlib.closing(hold_port()))
        return int(holder.getsockname()[1])

    commands = dict.fromkeys(NAMES, "peer") | {OUTSIDE: "bastion"}
    exporters = {
        name: Exporter(name, command, {each: port() for each in (*ECHOES, "web")}, folder / f"{name}.yaml")
        for name, command in commands.items()
    }
    ways = [*script.between(NAMES), *script.from_outside(NAMES)]
    relay = await children.start("relays", [sys.executable, "-m", "lab.relays"], environ(), piped=True)
    relays = Relays(relay.process)
    at = await relays.open(
        {way.key(each): exporters[way.target].ports[each] for way in ways for each in PROTOCOLS[way.path]},
        {name: each.ports["tcp"] for name, each in exporters.items()},
    )
    streams = {stream.key: stream for each in exporters.values() for stream in _configure(each, ways, at)}
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
    plant = Plant(children, session, relays, exporters, streams, port(), port(), Seen())
    receiver = await _receive(stack, plant.seen)
    for each in exporters.values():
        await plant.start(each)
    await _start_monitoring(plant, programs, receiver)
    return plant


def _configure(exporter: Exporter, ways: Sequence[Way], relays: Mapping[str, int]) -> tuple[Stream, ...]:
    """Write an exporter's configuration; its streams, as it will read them."""
    targets = [
        {
            "name": way.target,
            "path": way.path,
            "host": LOCAL,
            "ports": {each: relays[way.key(each)] for each in PROTOCOLS[way.path]},
        }
        for way in ways
        if way.source == exporter.name
    ]
    config = {
        "source": exporter.name,
        "node": f"node-{exporter.name}",
        "listen": {each: f"{LOCAL}:{exporter.ports[each]}" for each in ECHOES},
        "web": {"listen_address": f"{LOCAL}:{exporter.ports['web']}"},
        "targets": targets,
    }
    exporter.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    settings = PROGRAMS[exporter.command].load(["--config.file", str(exporter.config)], {}, DESCRIPTORS)
    streams: tuple[Stream, ...] = settings.streams
    return streams


async def _receive(stack: AsyncExitStack, seen: Seen) -> int:
    """Serve the webhook receiver; its port."""
    runner = web.AppRunner(monitoring.receiver(seen.notice), access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listener = socket.create_server((LOCAL, 0))
    await web.SockSite(runner, listener).start()
    return int(listener.getsockname()[1])


async def _start_monitoring(plant: Plant, programs: tuple[str, str], receiver: int) -> None:
    folder = plant.children.folder
    if rules.main(["--output-dir", str(folder / "rules"), f"--scale-for={SCALE_FOR}"]):
        raise NotReadyError("the rules could not be written")
    jobs = {
        f"ovnwatch-{command}": [
            f"{LOCAL}:{each.ports['web']}" for each in plant.exporters.values() if each.command == command
        ]
        for command in PROGRAMS
    }
    configs = {
        "prometheus": monitoring.prometheus_config(jobs, f"{LOCAL}:{plant.alertmanager}", folder / "rules"),
        "alertmanager": monitoring.alertmanager_config(receiver),
    }
    for name, text in configs.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name, program, port in zip(configs, programs, (plant.prometheus, plant.alertmanager), strict=True):
        command = monitoring.command(name, program, folder, port)
        await plant.children.start(name, command, environ())


async def ready(plant: Plant) -> None:
    """Wait until every stream is up and scraped, and a first alert has arrived. Raises NotReadyError."""
    count = len(plant.streams)

    async def all_up() -> bool:
        answers = [await plant.get(each, "/status") for each in plant.exporters.values()]
        return all(answer and {each["state"] for each in answer["streams"]} == {"up"} for answer in answers)

    async def all_scraped() -> bool:
        return await monitoring.query(plant.session, plant.prometheus, "count(ovnwatch_stream_up == 1)") == count

    async def all_heard() -> bool:
        return await monitoring.query(plant.session, plant.prometheus, "sum(ovnwatch_peer_heard)") == len(NAMES)

    async def alert_came() -> bool:
        return WATCHDOG in plant.seen.fired

    stages: dict[str, Callable[[], Awaitable[bool]]] = {
        f"{count} streams up": all_up,
        "Prometheus scraping them": all_scraped,
        "the bastion hearing all peers": all_heard,
        "Alertmanager calling the receiver": alert_came,
    }
    for what, reached in stages.items():
        if not await until(reached, READY_SECONDS):
            raise NotReadyError(f"waited {READY_SECONDS:.0f} s in vain for {what}; --keep keeps the logs")


async def until(reached: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Ask again and again until it is so; False if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not await reached():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
