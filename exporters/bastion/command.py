"""`ovnwatch bastion`: wires settings, probes, the pull, echo servers and the page together, and ends them in order.

`ovnwatch bastion discover` finds what to probe.
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from exporters import logs, process
from exporters.access import Access
from exporters.api import add_book
from exporters.bastion import discover
from exporters.bastion.broadcast import Broadcast
from exporters.bastion.gate import Gate
from exporters.bastion.heard import Heard
from exporters.bastion.kept import Kept
from exporters.bastion.live import Live
from exporters.bastion.lookout import Lookout
from exporters.bastion.marks import Marks
from exporters.bastion.page import Page
from exporters.bastion.pull import Pull
from exporters.bastion.settings import BASTION, BastionSettings
from exporters.bastion.view import MOST_EVENTS, View
from exporters.bastion.ways import Way
from exporters.echo.servers import max_connections, serve_echoes
from exporters.exposition import Exposition, make_registry
from exporters.identity import identify
from exporters.journal import Journal, file_name
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.process import STOP_SECONDS, End, Server, Tasks, build_info, look_after
from exporters.reloads import Reloads
from exporters.web import make_app, serve

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run until a signal or a bug ends it; returns the exit code if there was nothing to start (see `process.main`)."""
    if argv and argv[0] == "discover":
        return discover.main(argv[1:])
    return process.main(BASTION, argv, _run)


class Screen(NamedTuple):
    """What makes up the status page."""

    view: View
    broadcast: Broadcast
    page: Page
    live: Live
    gate: Gate

    def add_to(self, app: web.Application, telemetry_path: str) -> None:
        """Serve it and what it asks for."""
        self.page.add_to(app, telemetry_path)
        self.live.add_to(app)
        self.gate.add_to(app)


def _screen(settings: BastionSettings, record: Record, pull: Pull, lookout: Lookout, marks: Marks) -> Screen:
    def look() -> Sequence[Mapping[str, Any]]:
        return lookout.findings

    view = View(record, pull, marks, look)
    ours = record.identity
    view.about(version=ours.version, grafana=settings.grafana_url or "", acts=bool(settings.token))
    broadcast = Broadcast(view.step, lambda: view.state, ours.instance[:12])
    page = Page(record, pull, marks, broadcast, look=look, token=settings.token)
    gate = Gate(record, broadcast, time.time())
    return Screen(view, broadcast, page, Live(record, marks, broadcast, settings.token), gate)


def _pull(settings: BastionSettings, record: Record, engine: Engine, marks: Marks) -> Pull:
    def foreign(way: Way) -> bool:
        stats = record.stats.get(way.stream)
        return stats is not None and stats.now_state == "up" and not stats.peer.get("instance")

    heard = Heard(max(settings.max_history, MOST_EVENTS))
    kept = Kept(record, marks.keep)
    return Pull(settings.source, f"ovnwatch/{record.identity.version}", heard, engine.address, foreign, kept=kept)


async def _run(settings: BastionSettings, argv: Sequence[str], end: End) -> None:
    loop = asyncio.get_running_loop()
    identity = identify(settings.source, settings.node, settings.zone)
    journal = Journal(settings.journal and settings.journal / file_name("bastion", settings.source))
    record = Record(settings.streams, identity, settings.max_history, reported_as="bastion", journal=journal)
    engine = Engine(settings.streams, identity, record, loop, settings.descriptors)
    marks = Marks(record)
    pull = _pull(settings, record, engine, marks)
    lookout = Lookout(record, pull)

    access = Access(settings.web_config, settings.token, settings.token_file)

    def use(new: BastionSettings) -> None:
        access.token, access.token_file = new.token, new.token_file
        engine.update(new.streams)
        pull.update(new.streams, new.poll_interval, new.journals)
        screen.view.about(grafana=new.grafana_url or "", acts=bool(new.token))
        logs.set_up(new.log_level, new.log_format)

    reloads = Reloads(BASTION, argv, os.environ, settings, use)
    exposition = Exposition(make_registry(build_info(identity), record, pull, reloads))
    screen = _screen(settings, record, pull, lookout, marks)
    serving: list[Server] = []
    tasks = Tasks()
    started = False
    try:
        app = make_app(
            exposition,
            name=f"ovnwatch bastion {identity.source}",
            telemetry_path=settings.telemetry_path,
            ready=lambda: started and not end.asked(),
            access=access,
            reload=reloads,
            settled=record.save,
            landing=False,
        )
        screen.add_to(app, settings.telemetry_path)
        add_book(
            app,
            identity,
            record,
            settings.max_history,
            lambda: {"look": lookout.findings, "journal_trouble": journal.trouble},
        )
        await serve_echoes(serving, identity, settings.listen)
        page = await serve(app, *settings.web_listen, max_connections=min(max_connections(), 512))
        serving.append(page)
        tasks.spawn(page.watch_access())
        look_after(loop, serving)
        engine.start()
        pull.update(settings.streams, settings.poll_interval, settings.journals)
        _tell(serving, settings, pull)
        tasks.spawn(lookout.watch())
        screen.broadcast.start()
        reloads.at_hangup(tasks)
        tasks.spawn(record.save_now_and_then())
        started = True
        await end.come()
    finally:
        async with asyncio.timeout(STOP_SECONDS):
            await tasks.close()
            await screen.broadcast.close()
            await pull.close()
            await engine.stop()
            await asyncio.gather(*(each.close() for each in serving))
            await journal.close()
        exposition.close()


def _tell(serving: Sequence[Server], settings: BastionSettings, pull: Pull) -> None:
    for each in serving:
        log.info("%s is served on port %d", each.listening.door.name, each.port)
    log.info("%s probes %d streams and asks %d peers", settings.source, len(settings.streams), len(pull.peers))
    if not settings.streams:
        log.warning("no stream is in this shard")
