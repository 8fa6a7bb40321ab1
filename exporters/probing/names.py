"""Names to addresses, in the background. The last good address of a name is used while it does not resolve."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from exporters.probing.stream import Stream

EVERY = 30.0  # seconds between look-ups of a name whose streams are up
AGAIN = 2.0  # of one that does not resolve, or whose target may have moved
PATIENCE = 5.0  # seconds after which a look-up is a dns_timeout
GIVE_UP = 6  # times the patience after which it is left alone: the C library has long had its own time-outs


@dataclass(slots=True, eq=False)
class _Name:
    streams: list[Stream] = field(default_factory=list)
    found: tuple[Any, ...] | None = None  # as the socket module has addresses
    task: asyncio.Task[None] | None = None


class Names:
    """Fills in the address of every stream it is given. `failed` is told of a bug in a look-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Callable[[asyncio.Task[None]], None]) -> None:
        self._loop = loop
        self._failed = failed
        self._names: dict[tuple[str, int], _Name] = {}

    def add(self, stream: Stream) -> None:
        """Keep the stream's address current; a literal one it gets at once."""
        spec = stream.spec
        if is_literal(spec.host):
            stream.address = (spec.host, spec.port)
            return
        name = self._names.setdefault((spec.host, spec.family), _Name())
        name.streams.append(stream)
        if name.found is not None:
            stream.address = _with_port(name.found, spec.port)
        if name.task is None:
            name.task = self._loop.create_task(self._keep(spec.host, spec.family, name))
            name.task.add_done_callback(self._failed)

    def remove(self, stream: Stream) -> None:
        """Look its name up no longer, unless another stream has it too."""
        key = (stream.spec.host, stream.spec.family)
        name = self._names.get(key)
        if name is not None:
            name.streams.remove(stream)
            if not name.streams and name.task is not None:
                name.task.cancel()
                del self._names[key]

    def address(self, host: str, family: int) -> str | None:
        """The last good address of a name some stream has, the host itself if it is literal; None if there is none."""
        if is_literal(host):
            return host
        name = self._names.get((host, family))
        return name.found[0] if name is not None and name.found is not None else None

    async def close(self) -> None:
        tasks = [name.task for name in self._names.values() if name.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, host: str, family: int, name: _Name) -> None:
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        look_up: asyncio.Future[Any] | None = None
        waits = 0
        try:
            while True:
                # One look-up at a time: a hanging one holds a thread, and asking again would hold another.
                if look_up is None or waits == GIVE_UP:
                    if look_up is not None:
                        look_up.cancel()  # or its error, when it comes at last, would be a bug nobody caught
                    waits = 0
                    asked = self._loop.getaddrinfo(host, None, family=kind, type=socket.SOCK_STREAM)
                    look_up = asyncio.ensure_future(asked)
                done, _ = await asyncio.wait({look_up}, timeout=PATIENCE)
                waits += 1
                cause = "dns_timeout"
                if done:
                    cause = _result(look_up, name)
                    look_up = None
                for stream in name.streams:
                    stream.resolve_cause = cause
                    if not cause and name.found is not None:
                        stream.address = _with_port(name.found, stream.spec.port)
                calm = not cause and all(stream.stats.now_state == "up" for stream in name.streams)
                await asyncio.sleep(EVERY if calm else AGAIN)
        finally:
            if look_up is not None:
                look_up.cancel()


def _result(look_up: asyncio.Future[Any], name: _Name) -> str:
    """Note what was found; returns the cause if nothing was."""
    try:
        name.found = look_up.result()[0][4]
    except (OSError, UnicodeError):
        return "dns_error"
    return ""


def _with_port(found: tuple[Any, ...], port: int) -> tuple[Any, ...]:
    return (found[0], port, *found[2:])


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
