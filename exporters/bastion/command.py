"""`ovnwatch bastion`: wires settings, probes, the pull, echo servers and the page together, and ends them in order."""

import asyncio
import logging
import os
from collections.abc import Sequence

from exporters import logs, process
from exporters.api import add_book
from exporters.bastion.heard import Heard
from exporters.bastion.lookout import Lookout
from exporters.bastion.page import Page
from exporters.bastion.pull import Pull
from exporters.bastion.settings import BASTION, BastionSettings
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
    return process.main(BASTION, argv, _run)


async def _run(settings: BastionSettings, argv: Sequence[str], end: End) -> None:
    loop = asyncio.get_running_loop()
    identity = identify(settings.source, settings.node, settings.zone)
    journal = Journal(settings.journal and settings.journal / file_name("bastion", settings.source))
    record = Record(settings.streams, identity, settings.max_history, reported_as="bastion", journal=journal)
    engine = Engine(settings.streams, identity, record, loop, settings.descriptors)
    heard = Heard(settings.max_history)
    agent = f"ovnwatch/{identity.version}"

    def foreign(way: Way) -> bool:
        stats = record.stats.get(way.stream)
        return stats is not None and stats.now_state == "up" and not stats.peer.get("instance")

    pull = Pull(identity.source, agent, heard, engine.address, foreign)
    lookout = Lookout(record, pull)

    def use(new: BastionSettings) -> None:
        engine.update(new.streams)
        pull.update(new.streams, new.poll_interval)
        logs.set_up(new.log_level, new.log_format)

    reloads = Reloads(BASTION, argv, os.environ, settings, use)
    exposition = Exposition(make_registry(build_info(identity), record, pull, reloads))
    page = Page(record, pull, lambda: lookout.findings, settings.token)
    serving: list[Server] = []
    tasks = Tasks()
    started = False
    try:
        app = make_app(
            exposition,
            name=f"ovnwatch bastion {identity.source}",
            telemetry_path=settings.telemetry_path,
            ready=lambda: started and not end.asked(),
            token=settings.token,
            reload=reloads,
            settled=record.save,
            landing=False,
        )
        page.add_to(app, settings.telemetry_path)
        add_book(app, identity, record, settings.max_history, lambda: {"look": lookout.findings})
        await serve_echoes(serving, identity, settings.listen)
        serving.append(await serve(app, *settings.web_listen, max_connections=min(max_connections(), 512)))
        for each in serving:
            log.info("%s is served on port %d", each.listening.door.name, each.port)
        look_after(loop, serving)
        engine.start()
        pull.update(settings.streams, settings.poll_interval)
        tasks.spawn(lookout.watch())
        reloads.at_hangup(tasks)
        tasks.spawn(record.save_now_and_then())
        started = True
        log.info("%s probes %d streams and asks %d peers", settings.source, len(settings.streams), len(pull.peers))
        if not settings.streams:
            log.warning("no stream is in this shard")
        await end.come()
    finally:
        async with asyncio.timeout(STOP_SECONDS):
            await tasks.close()
            await pull.close()
            await engine.stop()
            await asyncio.gather(*(each.close() for each in serving))
            await journal.close()
        exposition.close()
