"""`ovnwatch peer`: wires settings, probes, echo servers and the web side together, and ends them in order."""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from exporters import logs, process
from exporters.access import Access
from exporters.echo.servers import max_connections, serve_echoes
from exporters.exposition import Exposition, make_registry
from exporters.identity import identify
from exporters.journal import Journal, file_name
from exporters.peer.found import FoundPeers
from exporters.peer.left_out import LeftOut
from exporters.peer.settings import PEER, PeerSettings, load_peer
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.process import STOP_SECONDS, End, Server, Tasks, build_info, look_after
from exporters.reloads import Reloads
from exporters.watched import Watched
from exporters.web import make_app, serve

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run until a signal or a bug ends it; returns the exit code if there was nothing to start (see `process.main`)."""
    return process.main(PEER, argv, _run)


async def _run(settings: PeerSettings, argv: Sequence[str], end: End) -> None:
    loop = asyncio.get_running_loop()
    # First, for it imports much, and a stall before all begins is none.
    found = FoundPeers(settings) if settings.service else None
    identity = identify(settings.source, settings.node, settings.zone)
    journal = Journal(settings.journal and settings.journal / file_name("peer", settings.source))
    record = Record(settings.streams, identity, settings.max_history, journal=journal)
    engine = Engine(settings.streams, identity, record, loop, settings.descriptors)

    access = Access(settings.web_config, settings.token, settings.token_file)

    def use(new: PeerSettings) -> None:
        access.token, access.token_file = new.token, new.token_file
        engine.update(new.streams)
        logs.set_up(new.log_level, new.log_format)
        _tell_left_out(new)

    def load(argv: Sequence[str], environ: Mapping[str, str], descriptors: int) -> PeerSettings:
        if found is None:
            return load_peer(argv, environ, descriptors)
        probed = {each.target for each in reloads.settings.streams}
        gone = [each for each in found.gone if each.name in probed]
        return load_peer(argv, environ, descriptors, found.targets, gone)

    reloads = Reloads(PEER._replace(load=load), argv, os.environ, settings, use)

    def not_observed() -> Sequence[str]:
        return reloads.settings.not_observed

    left_out = LeftOut(settings.source, not_observed)
    watched = (Watched([found.known]),) if found else ()
    exposition = Exposition(make_registry(build_info(identity), record, reloads, left_out, *watched))
    serving: list[Server] = []
    tasks = Tasks()
    started = False
    try:
        app = make_app(
            exposition,
            name=f"ovnwatch peer {identity.source}",
            telemetry_path=settings.telemetry_path,
            ready=lambda: started and not end.asked(),
            access=access,
            reload=reloads,
            settled=record.save,
        )
        # Echoes first: other peers may be probing us already.
        await serve_echoes(
            serving,
            identity,
            settings.listen,
            book=record,
            access=access,
            max_history=settings.max_history,
            more=lambda: {"not_observed": not_observed(), "journal_trouble": journal.trouble},
        )
        web = await serve(app, *settings.web_listen, max_connections=min(max_connections(), 512))
        serving.append(web)
        tasks.spawn(web.watch_access())
        _tell(serving, settings)
        look_after(loop, serving)
        engine.start()
        reloads.at_hangup(tasks)
        tasks.spawn(record.save_now_and_then())
        if found is not None:
            tasks.spawn(found.run(reloads))
        started = True
        await end.come()
    finally:
        async with asyncio.timeout(STOP_SECONDS):
            await tasks.close()
            if found is not None:
                await found.close()
            await engine.stop()
            await asyncio.gather(*(each.close() for each in serving))
            await journal.close()
        exposition.close()


def _tell(serving: Iterable[Server], settings: PeerSettings) -> None:
    for each in serving:
        log.info("%s is served on port %d", each.listening.door.name, each.port)
    log.info("%s probes %d streams", settings.source, len(settings.streams))
    _tell_left_out(settings)


def _tell_left_out(settings: PeerSettings) -> None:
    if settings.not_observed:
        log.info("not observed, by the choice of the mesh: %s", ", ".join(settings.not_observed))
