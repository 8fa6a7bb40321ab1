"""`ovnwatch node`: wires settings, the host, collectors and the web side together, and ends them in order."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence

from aiohttp import web

from exporters import catalog
from exporters.access import Access
from exporters.exposition import Exposition, Info, make_registry
from exporters.identity import Identity, identify
from exporters.node import shown
from exporters.node.failing import FAILURES
from exporters.node.host import Host
from exporters.node.links import Links
from exporters.node.rpc import Deadline
from exporters.node.scrape import Scrape
from exporters.node.settings import NODE, NodeSettings
from exporters.node.state import state
from exporters.process import STOP_SECONDS, End, Tasks, build_info, give_back_memory, look_after, run, started
from exporters.web import make_app, serve

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT, then end the process with 0; with 1 for a port in use or a bug.

    Returns 2 for a bad configuration, 0 when nothing was to be started and after --once.
    """
    settings = started(NODE, argv)
    if isinstance(settings, int):
        return settings
    if settings.once:
        return _print(once(settings))
    # asyncio's TLS takes a quarter of a megabyte for each connection, of which silent ones may be many.
    return run("node", lambda end: _run(settings, end), small=settings.web_config is None)


def make_scrape(settings: NodeSettings) -> Scrape:
    """The collection that these settings describe, of the network namespace we are in."""
    host = Host(
        settings.paths,
        Links(settings.exclude),
        settings.every_event,
        settings.workloads,
        databases=settings.databases,
    )
    return Scrape(host, settings.collectors, settings.seconds, catalog.exported())


def once(settings: NodeSettings) -> str:
    """One collection, as text."""
    scrape = make_scrape(settings)
    collected = scrape.run(told=settings.output == "text")  # the others say themselves what failed
    families = scrape.tables(collected)
    failures = {name: each.failure for name, each in collected.items() if each.failure}
    scrape.host.close()
    if settings.output == "json":
        return json.dumps(shown.document(families, failures), indent=2)
    if settings.output == "table":
        return shown.table(families, failures)
    return shown.text(families).rstrip("\n")


def _print(text: str) -> int:
    """0, or 1 where nobody takes it."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read our output has gone, and shall not hear of the rest
            print(f"ovnwatch node: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def node_info(identity: Identity) -> Info:
    """The metric that gives all others of this exporter the node's name, by a join."""
    metric = catalog.exported().metric("ovnwatch_node_info")
    return Info(metric.name, metric.help, {"k8s_node": identity.node or identity.source})


async def _run(settings: NodeSettings, end: End) -> None:
    identity = identify(settings.source, settings.node, settings.zone)
    scrape = make_scrape(settings)
    # Nothing here is measured in time: it need not pause.
    exposition = Exposition(make_registry(build_info(identity), node_info(identity), scrape), pause=0)

    def read() -> str:
        who = {"source": identity.source, "node": identity.node or identity.source}
        return json.dumps({**who, **state(scrape.host.seen(Deadline(settings.seconds)))})

    async def told(_: web.Request) -> web.Response:
        try:
            return web.Response(text=await asyncio.to_thread(read), content_type="application/json")
        except FAILURES as error:
            return web.Response(status=503, text=f"{error}\n")

    tasks, serving = Tasks(), None
    try:
        app = make_app(
            exposition,
            name=f"ovnwatch node {identity.source}",
            telemetry_path=settings.telemetry_path,
            access=Access(settings.web_config),
            ready=lambda: not end.asked(),
            allow=scrape.allow,
            more={"/state": "links, addresses, routes and daemons, as JSON"},
        )
        app.router.add_get("/state", told)
        serving = await serve(app, *settings.web_listen)
        log.info("%s is served on port %d", serving.listening.door.name, serving.port)
        give_back_memory()
        tasks.spawn(serving.watch_access())
        look_after(asyncio.get_running_loop(), [serving])
        await end.come()
    finally:
        async with asyncio.timeout(STOP_SECONDS):
            await tasks.close()
            if serving is not None:
                await serving.close()
        exposition.close()
        scrape.host.close()
