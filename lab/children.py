"""The processes of the demo: started with a log each, watched, and ended whatever happens.

1. Ctrl-C in a terminal reaches us only: each child has a session of its own, and we end it. (Where the kernel shares
   the processors between sessions, a busy shell beside us takes less of their time, too.)
2. A port is asked of the kernel and kept: a socket that is bound and never listens keeps it from everybody who does not
   ask to share it, while the child that is told it can listen there, now and after a restart.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

STOP_SECONDS = 5.0  # after SIGTERM, before SIGKILL
TAIL_LINES = 15
LONGEST_LINE = 1 << 24  # bytes we read from a child at once


class ChildEndedError(Exception):
    """A process of ours ended by itself; the message says which, how, and what it said last."""


@dataclass(slots=True, eq=False)
class Child:
    """One process; `watch` ends when it does."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    wanted: bool = True  # False: its end is no surprise

    def said(self, text: str) -> bool:
        """Is it in its log, or in that of one before it under the same name?"""
        return text in self._text()

    def tail(self) -> str:
        """The last lines of its log, indented."""
        return "".join(f"\n    {line}" for line in self._text().splitlines()[-TAIL_LINES:])

    def _text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Children:
    """Processes with their logs in `folder`; leaving the context ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []
        self._ended: asyncio.Queue[Child] = asyncio.Queue()
        self._watches: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop(self._children)

    async def start(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], *, piped: bool = False
    ) -> Child:
        """Start a command; `piped`: we talk to its standard input and output, else both are closed and logged."""
        path = self.folder / f"{name}.log"
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if piped else log,
                stderr=log,
                env=dict(environ),
                start_new_session=True,
                limit=LONGEST_LINE,
            )
        child = Child(name, process, path)
        self._children.append(child)
        watch = asyncio.create_task(self._watch(child))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return child

    def named(self, name: str) -> Child:
        """The last one that was started under a name; KeyError if none was."""
        return {each.name: each for each in self._children}[name]

    async def kill(self, child: Child) -> None:
        """End a child with SIGKILL and wait until it is gone."""
        child.wanted = False
        child.process.kill()
        await child.process.wait()

    async def surprise(self) -> None:
        """Wait until a child ends that was not asked to; raises ChildEndedError."""
        child = await self._ended.get()
        code = child.process.returncode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise ChildEndedError(f"{child.name} {how}{child.tail()}")

    async def _watch(self, child: Child) -> None:
        await child.process.wait()
        if child.wanted:
            self._ended.put_nowait(child)

    async def _stop(self, children: Iterable[Child]) -> None:
        for child in children:
            child.wanted = False
        for step in (asyncio.subprocess.Process.terminate, asyncio.subprocess.Process.kill):
            waits = [asyncio.create_task(child.process.wait()) for child in children if _tell(child, step)]
            if waits:
                await asyncio.wait(waits, timeout=STOP_SECONDS)


def _tell(child: Child, step: Callable[[asyncio.subprocess.Process], None]) -> bool:
    try:
        step(child.process)
    except ProcessLookupError:
        return False
    return True


def hold_port(address: str = "127.0.0.1") -> socket.socket:
    """A socket that keeps a free port for a child which sets SO_REUSEADDR; close it when the port is needed no more."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((address, 0))
    return holder


def plain_environ(remove: Iterable[str], add: Mapping[str, str]) -> dict[str, str]:
    """Our environment without proxies and `remove`, with `add`."""
    gone = {*remove, "http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    kept = {name: value for name, value in os.environ.items() if name not in gone and name.lower() not in gone}
    return {**kept, **add}
