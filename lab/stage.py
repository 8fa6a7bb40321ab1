"""What demos have in common: processes in a folder of their own, a screen, and an end that leaves nothing behind."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from lab import screen
from lab.children import Children
from lab.screen import Screen


async def on_stage(
    name: str, perform: Callable[[Children, Screen], Coroutine[Any, Any, bool]], *, once: bool, keep: bool, goodbye: str
) -> int:
    """Do `perform` until it is over, a signal comes or a process ends; returns the exit code: 0 passed, 2 not."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    show = Screen(sys.stdout, colour=screen.coloured(sys.stdout, os.environ))
    folder = Path(tempfile.mkdtemp(prefix=f"ovnwatch-{name}-"))
    try:
        async with Children(folder) as children:
            passed = await beside(perform(children, show), children.surprise(), stop.wait())
        if passed is None:
            show.event("end", f"asked to end; {goodbye}")
            return 1 if once else 0
        return 0 if passed else 2
    finally:
        if keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)


async def beside(work: Coroutine[Any, Any, bool], *others: Coroutine[Any, Any, Any]) -> bool | None:
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
