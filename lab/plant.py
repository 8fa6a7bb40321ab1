"""Everything that runs in the demo: relays, peers that reach each other through them, Prometheus and Alertmanager."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from alerts import rules
from exporters.peer.settings import OPTIONS, load_peer
from exporters.settings import Stream
from lab import monitoring, script
from lab.alarms import WATCHDOG, Alarm
from lab.children import Child, Children, hold_port, plain_environ
from lab.judge import Entry
from lab.monitoring import Notice
from lab.relays import LOCAL, Relays
from lab.script import Pair

NAMES = ("a", "b", "c")
PROTOCOLS = ("http", "tcp", "ws")
PATH = "pod"
POLL_SECONDS = 0.25
READY_SECONDS = 60.0  # for everything to run; a machine that is not busy needs 8
# The console script's own entry: a checkout may have none on PATH.
OVNWATCH = (sys.executable, "-c", "import sys; from exporters.cli import main; sys.exit(main())")


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
    """What the peers recorded and the receiver was told so far; `news` is what nobody has shown yet."""

    news: list[Notice] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    fired: dict[Alarm, list[float]] = field(default_factory=dict)  # monotonic seconds of arrival
    over: set[Alarm] = field(default_factory=set)

    def notice(self, notices: list[Notice]) -> None:
        for each in notices:
            alarm = Alarm(each.name, _stream_of(each.labels))
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
    peers: Mapping[str, Peer]
    streams: Mapping[str, Stream]
    prometheus: int
    alertmanager: int
    seen: Seen

    async def start_peer(self, peer: Peer) -> None:
        """Start a peer's process, the first or another one."""
        command = [*OVNWATCH, "peer", "--config.file", str(peer.config)]
        peer.child = await self.children.start(f"peer-{peer.name}", command, _environ(HOSTNAME=peer.name))

    async def get(self, peer: Peer, path: str) -> dict[str, Any] | None:
        """A peer's JSON; None while it does not answer."""
        try:
            async with self.session.get(f"http://{LOCAL}:{peer.ports['http']}{path}") as response:
                response.raise_for_status()
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientConnectionError, TimeoutError):
            return None

    def addresses(self) -> list[str]:
        """Where to look, as lines."""
        at = f"http://{LOCAL}"
        return [
            f"  Prometheus    {at}:{self.prometheus}/alerts",
            f"  Alertmanager  {at}:{self.alertmanager}",
            *(
                f"  peer {name}        {at}:{peer.ports['web']}/metrics  {at}:{peer.ports['http']}/status  and /history"
                for name, peer in self.peers.items()
            ),
        ]


def key(pair: Pair, protocol: str) -> str:
    """The key of the stream that probes a pair's way."""
    return f"{pair.source}|{pair.target}|{PATH}|{protocol}|4"


def _stream_of(labels: Mapping[str, str]) -> str:
    parts = [labels.get(each, "") for each in ("source", "target", "path", "protocol", "family")]
    return "|".join(parts) if all(parts) else ""


def _environ(**add: str) -> dict[str, str]:
    """Our own, without what would configure a peer."""
    return plain_environ({option.variable for option in OPTIONS}, add)


async def build(stack: AsyncExitStack, children: Children, programs: tuple[str, str]) -> Plant:
    """Start it all; sockets and servers of our own end with `stack`."""
    folder = children.folder

    def port() -> int:
        holder: socket.socket = stack.enter_context(contextlib.closing(hold_port()))
        return int(holder.getsockname()[1])

    peers = {
        name: Peer(name, {each: port() for each in (*PROTOCOLS, "web")}, folder / f"{name}.yaml") for name in NAMES
    }
    relay = await children.start("relays", [sys.executable, "-m", "lab.relays"], _environ(), piped=True)
    relays = Relays(relay.process)
    at = await relays.open(
        {key(pair, each): peers[pair.target].ports[each] for pair in script.pairs(NAMES) for each in PROTOCOLS},
        {name: peer.ports["tcp"] for name, peer in peers.items()},
    )
    streams = {stream.key: stream for peer in peers.values() for stream in _configure(peer, at)}
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
    plant = Plant(children, session, relays, peers, streams, port(), port(), Seen())
    receiver = await _receive(stack, plant.seen)
    for peer in peers.values():
        await plant.start_peer(peer)
    await _start_monitoring(plant, programs, receiver)
    return plant


def _configure(peer: Peer, relays: Mapping[str, int]) -> tuple[Stream, ...]:
    """Write a peer's configuration; its streams, as it will read them."""
    targets = [
        {
            "name": pair.target,
            "path": PATH,
            "host": LOCAL,
            "ports": {each: relays[key(pair, each)] for each in PROTOCOLS},
        }
        for pair in script.pairs(NAMES)
        if pair.source == peer.name
    ]
    config = {
        "source": peer.name,
        "node": f"node-{peer.name}",
        "listen": {each: f"{LOCAL}:{peer.ports[each]}" for each in PROTOCOLS},
        "web": {"listen_address": f"{LOCAL}:{peer.ports['web']}"},
        "targets": targets,
    }
    peer.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return load_peer(["--config.file", str(peer.config)], {}).streams


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
    if rules.main(["--output-dir", str(folder / "rules")]):
        raise NotReadyError("the rules could not be written")
    scraped = [peer.ports["web"] for peer in plant.peers.values()]
    configs = {
        "prometheus": monitoring.prometheus_config(scraped, plant.alertmanager, folder / "rules"),
        "alertmanager": monitoring.alertmanager_config(receiver),
    }
    for name, text in configs.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name, program, port in zip(configs, programs, (plant.prometheus, plant.alertmanager), strict=True):
        command = monitoring.command(name, program, folder, port)
        await plant.children.start(name, command, _environ())


async def ready(plant: Plant) -> None:
    """Wait until every stream is up and scraped, and a first alert has arrived. Raises NotReadyError."""
    count = len(plant.streams)

    async def all_up() -> bool:
        answers = [await plant.get(peer, "/status") for peer in plant.peers.values()]
        return all(answer and {each["state"] for each in answer["streams"]} == {"up"} for answer in answers)

    async def all_scraped() -> bool:
        return await monitoring.query(plant.session, plant.prometheus, "count(ovnwatch_stream_up == 1)") == count

    async def alert_came() -> bool:
        return WATCHDOG in plant.seen.fired

    stages: dict[str, Callable[[], Awaitable[bool]]] = {
        f"{count} streams up": all_up,
        "Prometheus scraping them": all_scraped,
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
