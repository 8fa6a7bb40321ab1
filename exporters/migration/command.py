"""`ovnwatch migration`: wires settings, phases and the web side together; `ovnwatch migration mark` tells it one.

POST /api/phases {"phase": "reboot", "node": "node-1", "rolls": false}: the phase from now on, "none" ends it. Needs
the bearer token.
"""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.registry import Collector
from pydantic import ValidationError

from exporters import process, times
from exporters.access import Access
from exporters.api import add_book, json_response
from exporters.exposition import Exposition, make_registry
from exporters.identity import hashed, identify
from exporters.journal import Journal, file_name
from exporters.kube import Cluster
from exporters.migration import mark
from exporters.migration.members import Members
from exporters.migration.names import MANUAL
from exporters.migration.nodes import Nodes
from exporters.migration.phases import FullError, NewPhase, Phases
from exporters.migration.settings import MIGRATION, MigrationSettings
from exporters.migration.starts import Starts
from exporters.migration.watching import Watching
from exporters.probing.record import Record
from exporters.process import STOP_SECONDS, End, Tasks, build_info, look_after
from exporters.verdict.explain import RESTART
from exporters.watched import Watched
from exporters.web import add_token_check, make_app, require_token, serve

MOST_STARTS = 10_000  # entries of the journal that are looked through for starts that were told

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run until a signal or a bug ends it; returns the exit code if there was nothing to start (see `process.main`)."""
    if argv and argv[0] == "mark":
        return mark.main(argv[1:])
    return process.main(MIGRATION, argv, _run)


async def _run(settings: MigrationSettings, _: Sequence[str], end: End) -> None:
    identity = identify(settings.source, settings.node, settings.zone)
    journal = Journal(settings.journal and settings.journal / file_name("migration", settings.source))
    record = Record([], identity, settings.max_history, reported_as="migration", journal=journal)
    phases = Phases(record)
    nodes = _nodes(settings, journal, phases)
    watches = _watches(settings, phases, record)
    exposition = Exposition(make_registry(build_info(identity), phases, nodes, *watches.collectors))
    tasks, serving = Tasks(), None
    try:
        app = make_app(
            exposition,
            name=f"ovnwatch migration {identity.source}",
            telemetry_path=settings.telemetry_path,
            access=Access(settings.web_config, settings.token, settings.token_file),
            ready=lambda: not end.asked(),
            settled=record.save,
        )
        app.router.add_post("/api/phases", _marker(phases, record, settings.token))
        add_token_check(app, lambda: settings.token)
        add_book(app, identity, record, settings.max_history, lambda: {"phases": list(phases.open.values())})
        serving = await serve(app, *settings.web_listen)
        log.info("%s is served on port %d", serving.listening.door.name, serving.port)
        look_after(asyncio.get_running_loop(), [serving])
        tasks.spawn(serving.watch_access())
        tasks.spawn(record.save_now_and_then())
        tasks.spawn(nodes.watch())
        for each in watches.running:
            tasks.spawn(each.run())
        await end.come()
    finally:
        async with asyncio.timeout(STOP_SECONDS):
            await tasks.close()
            for each in watches.running:
                await each.close()
            if serving is not None:
                await serving.close()
            await journal.close()
        exposition.close()


def _nodes(settings: MigrationSettings, journal: Journal, phases: Phases) -> Nodes:
    """What reads the node exporters, from where the process before us left off."""
    saved = journal.saved()
    items = (json.loads(row.item) for row in journal.rows("kind = 'phase'", newest=MOST_STARTS))
    told = {
        (item["node"], item["text"].removeprefix(RESTART)): times.seconds(item["end_time"])
        for item in items
        if item["text"].startswith(RESTART) and item["end_time"]
    }
    starts = Starts(saved.at if saved else time.time(), told)
    return Nodes(settings.nodes, settings.node_interval, phases, starts)


class _Watches(NamedTuple):
    """What runs beside the web side, and its metrics."""

    running: Sequence[Watching | Members]
    collectors: Sequence[Collector]


def _watches(settings: MigrationSettings, phases: Phases, record: Record) -> _Watches:
    running: list[Watching | Members] = []
    if settings.cluster:
        show = hashed if settings.hashed else str
        running.append(Watching(Cluster(settings.cluster, settings.context), phases, record, show))
    if settings.microovn:
        running.append(Members(settings.microovn, phases, record))
    if not running:
        return _Watches((), ())
    told = [each for each in running if isinstance(each, Watching)]
    return _Watches(running, (*told, Watched([each.known for each in running])))


def _marker(phases: Phases, record: Record, token: str | None) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        require_token(request, token)
        try:
            wanted = NewPhase.model_validate_json(await request.read())
        except ValidationError as error:
            wrongs = error.errors(include_url=False, include_context=False, include_input=False)
            told = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrongs[:5])
            said = "; ".join(each.removeprefix(": ")[:200] for each in told)
            raise web.HTTPBadRequest(text=json.dumps({"error": said}), content_type="application/json") from None
        try:
            changed = phases.set(MANUAL, wanted, time.time())
        except FullError:
            raise web.HTTPConflict(text='{"error": "too many phases"}', content_type="application/json") from None
        await record.save()
        return json_response(json.dumps({"changed": changed}), record.journal_id)

    return handler
