"""An exporter as a process: it runs on one loop until a signal or a bug ends it, and is gone within seconds."""

import asyncio
import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Never, Protocol

from exporters import catalog, logs
from exporters.ends import StartError
from exporters.exposition import Info
from exporters.identity import Identity
from exporters.listening import Listening
from exporters.settings import B, Program, at_start

log = logging.getLogger(__name__)

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # man 3 mallopt
LARGE = 128 * 1024
STOP_SECONDS = 4.0  # of the five that we promise
LOOK_AFTER_LISTENERS_EVERY = 5.0


class Server(Protocol):
    """What is served on one port."""

    @property
    def listening(self) -> Listening: ...

    @property
    def port(self) -> int: ...

    async def close(self) -> None: ...


class End:
    """Why we end: a signal, or the first bug met."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.event = asyncio.Event()
        self.bug: BaseException | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_by, number)
        loop.set_exception_handler(self._unexpected)

    def _asked_by(self, number: signal.Signals) -> None:
        log.info("ending: %s", number.name)
        self.event.set()

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        bug = context.get("exception")
        if bug is None or self.bug is not None:
            log.error("%s", context["message"], exc_info=bug)
            return
        self.bug = bug
        self.event.set()

    def asked(self) -> bool:
        return self.event.is_set()

    async def come(self) -> None:
        """Wait for the end. Raises the bug, if it is one."""
        await self.event.wait()
        self.check()

    def check(self) -> None:
        if self.bug is not None:
            raise self.bug


def started(program: Program[B], argv: Sequence[str]) -> B | int:
    """The settings, logging as they say; or the exit code: 2 for a bad configuration, 0 for nothing to start."""
    settings = at_start(program, argv, os.environ, sys.stdout, sys.stderr)
    if not isinstance(settings, int):
        logs.set_up(settings.log_level, settings.log_format)
        for place, message in settings.doubts:
            log.warning("%s: %s", place, message)
    return settings


def main(
    program: Program[B], argv: Sequence[str], work: Callable[[B, Sequence[str], End], Coroutine[Any, Any, None]]
) -> int:
    """Do `work` until SIGTERM or SIGINT, then end the process with 0; with 1 for a port in use or a bug.

    Returns the exit code if there was nothing to start.
    """
    settings = started(program, argv)
    if isinstance(settings, int):
        return settings
    return run(program.command, lambda end: work(settings, argv, end))


def run(command: str, work: Callable[[End], Coroutine[Any, Any, None]], *, small: bool = False) -> Never:
    """Do the work of `ovnwatch COMMAND`, then end the process with 0; with 1 for a port or journal in use, or a bug.

    `small`: on asyncio's own loop, which takes two megabytes less; it is slower, for who does a lot.
    """
    code = 0
    _share_one_heap()
    try:
        (asyncio.new_event_loop if small else _fast_loop)().run_until_complete(_with_end(work))
    except StartError as error:
        print(f"ovnwatch {command}: {error}", file=sys.stderr)
        code = 1
    except Exception:  # noqa: BLE001 - this is the crash: nothing goes on after it
        traceback.print_exc()
        code = 1
    # Python's own way out waits for name lookups that are under way: half a minute where no resolver answers.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - only who probes needs it

    return uvloop.new_event_loop()


def _share_one_heap() -> None:
    """Our few threads hardly allocate at one time; a heap for each, the GNU C library's way, costs megabytes."""
    _set_option(M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return what imports left over, and keep from staying with us what large pages take: that is mapped for itself."""
    _set_option(M_MMAP_THRESHOLD, LARGE)
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_option(option: int, value: int) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(option, value)


class Tasks:
    """Work that goes on beside other work; a bug in it ends the process."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            raise bug  # reaches the loop's exception handler

    async def close(self) -> None:
        """Cancel what still runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _with_end(work: Callable[[End], Coroutine[Any, Any, None]]) -> None:
    end = End(asyncio.get_running_loop())
    await work(end)
    end.check()


def build_info(identity: Identity) -> Info:
    """Return the metric that says what is running."""
    metric = catalog.exported().metric("ovnwatch_build_info")
    values = {
        "source": identity.source,
        "version": identity.version,
        "revision": os.environ.get("OVNWATCH_REVISION", ""),  # set by the image's build
        "pythonversion": platform.python_version(),
    }
    return Info(metric.name, metric.help, {label: values[label] for label in metric.labels})


def look_after(loop: asyncio.AbstractEventLoop, serving: Sequence[Server]) -> None:
    """End the process when a server has gone deaf: others would measure an outage that is none of the network's."""
    for each in serving:
        if not each.listening.alive():
            raise RuntimeError(f"the {each.listening.door.name} server stopped listening on port {each.port}")
    loop.call_later(LOOK_AFTER_LISTENERS_EVERY, look_after, loop, serving)
