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


class LookUps:
    """Of one name, one at a time: a hanging one holds a thread, and asking again would hold another."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, family: int) -> None:
        self._loop = loop
        self._host = host
        self._kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        self._asked: asyncio.Future[Any] | None = None
        self._waits = 0

    async def addresses(self) -> list[tuple[Any, ...]]:
        """All that the name has, as the socket module has addresses.

        Raises TimeoutError after PATIENCE, OSError and UnicodeError for a name without any.
        """
        if self._asked is None or self._waits == GIVE_UP:
            self.close()
            self._waits = 0
            asked = self._loop.getaddrinfo(self._host, None, family=self._kind, type=socket.SOCK_STREAM)
            self._asked = asyncio.ensure_future(asked)
        done, _ = await asyncio.wait({self._asked}, timeout=PATIENCE)
        self._waits += 1
        if not done:
            raise TimeoutError(f"no answer within {PATIENCE:g} s")
        answer, self._asked = self._asked, None
        return [each[4] for each in answer.result()]

    def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()  # or its error, when it comes at last, would be a bug nobody caught
            self._asked = None


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
        look_ups = LookUps(self._loop, host, family)
        try:
            while True:
                cause = await _look_up(look_ups, name)
                for stream in name.streams:
                    stream.resolve_cause = cause
                    if not cause and name.found is not None:
                        stream.address = _with_port(name.found, stream.spec.port)
                calm = not cause and all(stream.stats.now_state == "up" for stream in name.streams)
                await asyncio.sleep(EVERY if calm else AGAIN)
        finally:
            look_ups.close()


async def _look_up(look_ups: LookUps, name: _Name) -> str:
    """Note what was found; returns the cause if nothing was."""
    try:
        name.found = (await look_ups.addresses())[0]
    except TimeoutError:
        return "dns_timeout"
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
