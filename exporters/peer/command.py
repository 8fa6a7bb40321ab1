"""`ovnwatch peer`: wires settings, probes, echo servers and the web side together, and ends them in order."""

import asyncio
import logging
import os
import platform
import resource
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import uvloop
from aiohttp.web import Application

from exporters import catalog, logs
from exporters.echo.servers import MAX_CONNECTIONS, TcpServing, serve_http, serve_tcp, serve_ws
from exporters.exposition import Exposition, Info, make_registry
from exporters.identity import Identity, identify
from exporters.listening import ListenError
from exporters.peer.settings import PEER, PeerSettings
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.settings import at_start
from exporters.web import Serving, make_app, serve

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0  # of the five that we promise
LOOK_AFTER_LISTENERS_EVERY = 5.0


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT, then end the process with 0; with 1 for a port in use or a bug.

    Returns 2 for a bad configuration, 0 when nothing was to be started.
    """
    settings = at_start(PEER, argv, os.environ, sys.stdout, sys.stderr)
    if isinstance(settings, int):
        return settings
    logs.set_up(settings.log_level, settings.log_format)
    code = 0
    try:
        uvloop.new_event_loop().run_until_complete(_run(settings))
    except ListenError as error:
        print(f"ovnwatch peer: {error}", file=sys.stderr)
        code = 1
    except Exception:  # noqa: BLE001 - this is the crash: nothing goes on after it
        traceback.print_exc()
        code = 1
    # Python's own way out waits for name lookups that are under way: half a minute where no resolver answers.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _End:
    """Why we end: a signal, or the first bug met."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.event = asyncio.Event()
        self.bug: BaseException | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.event.set)
        loop.set_exception_handler(self._unexpected)

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


async def _run(settings: PeerSettings) -> None:
    loop = asyncio.get_running_loop()
    end = _End(loop)
    identity = identify(settings.source, settings.node, settings.zone)
    record = Record(settings.streams, identity, settings.max_history)
    exposition = Exposition(make_registry(build_info(identity), record))
    serving: list[Serving | TcpServing] = []
    engine: Engine | None = None
    try:
        app = make_app(
            exposition,
            name=f"ovnwatch peer {identity.source}",
            telemetry_path=settings.telemetry_path,
            ready=lambda: engine is not None and not end.asked(),
            token=settings.token,
        )
        await _serve(serving, settings, identity, record, app)
        _tell(serving, settings)
        _look_after(loop, serving)
        engine = Engine(settings.streams, identity, record, loop, settings.descriptors)
        engine.start()
        await end.come()
    finally:
        async with asyncio.timeout(STOP_SECONDS):
            if engine is not None:
                await engine.stop()
            await asyncio.gather(*(each.close() for each in serving))
        exposition.close()
    end.check()


async def _serve(
    serving: list[Serving | TcpServing], settings: PeerSettings, identity: Identity, record: Record, app: Application
) -> None:
    """Start all servers, adding each to `serving`: echoes first, since other peers may be probing us already."""
    # The probes need most of the descriptors.
    room = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
    listen, token = settings.listen, settings.token
    serving.append(await serve_tcp(identity, *listen["tcp"], max_connections=room))
    serving.append(await serve_ws(identity, *listen["ws"], max_connections=room))
    serving.append(
        await serve_http(
            identity, record, *listen["http"], token=token, max_history=settings.max_history, max_connections=room
        )
    )
    serving.append(await serve(app, *settings.web_listen, max_connections=min(room, 512)))


def build_info(identity: Identity) -> Info:
    """Return the metric that says what is running."""
    metric = catalog.load().metric("ovnwatch_build_info")
    values = {
        "source": identity.source,
        "version": identity.version,
        "revision": os.environ.get("OVNWATCH_REVISION", ""),  # set by the image's build
        "pythonversion": platform.python_version(),
    }
    return Info(metric.name, metric.help, {label: values[label] for label in metric.labels})


def _tell(serving: Iterable[Serving | TcpServing], settings: PeerSettings) -> None:
    for each in serving:
        log.info("%s is served on port %d", each.listening.door.name, each.port)
    log.info("%s probes %d streams", settings.source, len(settings.streams))
    if settings.not_observed:
        log.info("not observed, by the choice of the mesh: %s", ", ".join(settings.not_observed))


def _look_after(loop: asyncio.AbstractEventLoop, serving: Sequence[Serving | TcpServing]) -> None:
    """End the process when a server has gone deaf: others would measure an outage that is none of the network's."""
    for each in serving:
        if not each.listening.alive():
            raise RuntimeError(f"the {each.listening.door.name} server stopped listening on port {each.port}")
    loop.call_later(LOOK_AFTER_LISTENERS_EVERY, _look_after, loop, serving)
