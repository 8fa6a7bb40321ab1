"""Places to interrupt without privileges: an echo server as a process, and a relay before it.

A relay is a program: it cannot lose packets of a path while the kernel goes on accepting for it, so what it can do to a
path is refuse, and a relay that stalls looks like a peer that froze.
"""

import asyncio
import contextlib
import dataclasses
import functools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from exporters.calibrate import processes
from exporters.calibrate.injection import Bracket, Injection
from exporters.calibrate.processes import ANSWER, Server
from exporters.calibrate.relay import Address, Relay
from exporters.calibrate.sockdiag import LISTEN, tcp_sockets
from exporters.targets import PORTS, Protocol

T = TypeVar("T")

CLOSE_SECONDS = 10.0
TICK, HELD_UP = 0.005, 0.012  # seconds; finer than what is put to the test


class Loop:
    """An event loop on a thread of its own, which notes when it did not run: its thread shares one interpreter."""

    def __init__(self) -> None:
        self.held_up: list[Bracket] = []
        self._ticked = time.monotonic()
        self._loop = uvloop.new_event_loop()
        self._loop.call_soon(self._tick)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _tick(self) -> None:
        last, self._ticked = self._ticked, time.monotonic()
        if self._ticked - last > HELD_UP:
            self.held_up.append(Bracket(last, self._ticked))
        self._loop.call_later(TICK, self._tick)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Relayed:
    """One server behind one relay; `addresses` are the relay's."""

    def __init__(self, name: str, server: Server, relay: Relay, loop: Loop) -> None:
        self.name = name
        self.server = server
        self.relay = relay
        self.loop = loop
        self.stop = threading.Event()
        self.addresses: dict[Protocol, Address] = dict(zip(PORTS, relay.addresses, strict=True))

    def schedstats(self) -> list[Path]:
        """Where the kernel says how long the server waited for a processor."""
        return [Path(f"/proc/{self.server.process.pid}/schedstat")]

    def held_up(self) -> list[Bracket]:
        """When the relay did not run."""
        return self.loop.held_up

    def inject(self, kind: str, seconds: float) -> list[Injection]:
        """Interrupt for about `seconds`; blocks that long."""
        return [FAULTS[kind](self, seconds)]


def _by_relay(word: str, place: Relayed, seconds: float) -> Injection:
    fault = place.relay.fault(word)
    place.loop.run(fault.__aenter__())
    try:
        place.stop.wait(seconds)
    finally:
        place.loop.run(fault.__aexit__(None, None, None))
    return place.relay.injections[-1]


def _freeze(place: Relayed, seconds: float) -> Injection:
    injection = _by_relay("stall", place, seconds)
    again = processes.answered(map(socket.create_connection, place.addresses.values()))
    return dataclasses.replace(injection, kind="freeze", end=Bracket(injection.end.before, again))


def _reset(place: Relayed, _seconds: float) -> Injection:
    return _by_relay("reset", place, 0.0)


def _kill(place: Relayed, seconds: float) -> Injection:
    start, end = processes.kill(place.server, seconds, place.stop)
    return Injection("kill", start, end, "path", place.name)


# To add a fault: a function that injects it, and a line here.
FAULTS: dict[str, Callable[[Relayed, float], Injection]] = {
    "refuse": functools.partial(_by_relay, "refuse"),
    "reset": _reset,
    "freeze": _freeze,
    "kill": _kill,
}


@contextlib.contextmanager
def relayed(count: int) -> Iterator[list[Relayed]]:
    """So many places, gone at the end whatever happened."""
    with contextlib.ExitStack() as stack:
        loop = Loop()
        stack.callback(loop.close)
        places = [_build(number, loop, stack) for number in range(count)]
        for place in places:
            place.server.wait_until_it_listens()
        yield places


def _build(number: int, loop: Loop, stack: contextlib.ExitStack) -> Relayed:
    # Addresses of its own: no connection out of this machine's 127.0.0.1 takes a port that a killed server wants back.
    host = f"127.53.{number}.1"
    ports = dict(zip(PORTS, _free_ports(host, len(PORTS)), strict=True))
    argv = [*ANSWER, host, *(str(ports[each]) for each in ("http", "tcp", "ws"))]
    running: list[subprocess.Popen[bytes]] = []
    stack.callback(_end, running)
    start = functools.partial(_start, argv, running)
    there, dial = functools.partial(_listening, host), functools.partial(_dial, host)
    server = Server(f"relay-{number}", start, frozenset(ports.values()), start(), there, dial)
    ways = {(f"127.53.{number}.{each}", 0): (host, port) for each, port in enumerate(ports.values(), start=2)}
    relay = Relay(ways, name=server.name)
    loop.run(relay.__aenter__())
    stack.callback(lambda: loop.run(relay.__aexit__(None, None, None)))
    return Relayed(server.name, server, relay, loop)


def _start(argv: Sequence[str], running: "list[subprocess.Popen[bytes]]") -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, process_group=0)
    running.append(process)
    return process


def _end(running: "Sequence[subprocess.Popen[bytes]]") -> None:
    for process in running:
        process.kill()
        process.wait(CLOSE_SECONDS)
        if process.stdin is not None:
            process.stdin.close()


def _free_ports(host: str, count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]


def _dial(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port))


def _listening(host: str) -> set[int]:
    address = socket.inet_aton(host)
    return {each.local for each in tcp_sockets(LISTEN) if each.ident[4:8] == address}
