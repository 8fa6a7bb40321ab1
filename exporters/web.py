"""The web side all exporters share: metrics, health, readiness, reload and a landing page, on aiohttp.

1. A client's mistake is answered and not logged; a bug of ours reaches the loop's exception handler, which ends us.
2. Whatever changes something needs the bearer token, and is refused where none is set.
3. Every connection, header and body has a bound in bytes, number and time; a client that asks nothing keeps none out.
"""

import asyncio
import base64
import hashlib
import html
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from exporters.access import Access
from exporters.exposition import BusyError, Exposition
from exporters.listening import Door, Listening, accept, listen

IDLE_SECONDS = 60.0  # a connection without a whole request for so long is closed
ANSWER_SECONDS = 30.0  # a client that does not take its answer for so long is cut off
BODY_BYTES = 64 * 1024

SCRAPE_TIMEOUT = "X-Prometheus-Scrape-Timeout-Seconds"
STYLE = "body{font-family:sans-serif;margin:2em auto;max-width:40em;padding:0 1em}"
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{STYLE_HASH}'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Reload = Callable[[], Awaitable[Sequence[str]]]
ASKING = web.AppKey("asking", set[asyncio.BaseProtocol])  # connections with a request in hand
ACCESS = web.AppKey("access", Access)


def make_app(
    exposition: Exposition,
    *,
    name: str,
    ready: Callable[[], bool],
    telemetry_path: str = "/metrics",
    token: str | None = None,
    access: Access | None = None,
    reload: Reload | None = None,
    settled: Callable[[], Awaitable[None]] | None = None,
    allow: Callable[[float | None], None] | None = None,
    landing: bool = True,
    more: Mapping[str, str] = MappingProxyType({}),
) -> web.Application:
    """Return the application of one exporter, called `name` on its landing page.

    `access` says who may ask; without it everybody who bears `token` may also change something.
    `ready` is asked at every request. `reload` returns the problems it met, none when the new
    configuration is in use; without it there is no `/-/reload`. `settled` is awaited before metrics are sent: by then
    no crash may take back what they say. `allow` is told before how many seconds the scraper waits, None if it does not
    say. Without `landing`, `/` is the caller's; `more` are paths of the caller's that it names, and what is there.
    """

    async def metrics(request: web.Request) -> web.Response:
        if allow is not None:
            allow(scrape_seconds(request.headers.get(SCRAPE_TIMEOUT, "")))
        return await _metrics(request, exposition, settled)

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def readiness(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if ready() else web.Response(status=503, text="not ready yet\n")

    async def landing_at(_: web.Request) -> web.Response:
        return web.Response(
            text=landing_page(name, telemetry_path, more), content_type="text/html", headers=PAGE_HEADERS
        )

    app = new_app(access or Access(token=token))
    app.router.add_get(telemetry_path, metrics)
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", readiness)
    if landing and telemetry_path != "/":
        app.router.add_get("/", landing_at)
    if reload is not None:
        app.router.add_post("/-/reload", _reloader(reload, token))
    return app


async def _metrics(
    request: web.Request, exposition: Exposition, settled: Callable[[], Awaitable[None]] | None
) -> web.Response:
    try:
        async with asyncio.timeout(scrape_seconds(request.headers.get(SCRAPE_TIMEOUT, ""))):
            page = await exposition.render(
                ",".join(request.headers.getall(hdrs.ACCEPT, [])),
                request.query.getall("name[]", []),
                ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, [])),
            )
            if settled is not None:
                await settled()
    except BusyError as busy:
        return web.Response(status=503, text=f"{busy}\n")
    except TimeoutError:
        return web.Response(status=503, text="the metrics were not ready within the scrape timeout\n")
    headers = {hdrs.CONTENT_TYPE: page.content_type, hdrs.VARY: "Accept, Accept-Encoding"}
    if page.encoding:
        headers[hdrs.CONTENT_ENCODING] = page.encoding
    return web.Response(body=page.body, headers=headers)


def _reloader(reload: Reload, token: str | None) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        require_token(request, token)
        problems = await reload()
        if problems:
            return web.Response(status=500, text="".join(f"{problem}\n" for problem in problems))
        return web.Response(text="reloaded\n")

    return handler


def new_app(access: Access | None = None) -> web.Application:
    """Return an empty application that keeps rules 1 and 3, and lets in whom `access` does; everybody without it."""
    app = web.Application(middlewares=[_answer], client_max_size=BODY_BYTES)
    app[ASKING] = set()
    if access is not None:
        app[ACCESS] = access
    return app


@web.middleware
async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Call the handler and send its answer."""
    asking = request.app[ASKING]
    asking.add(request.protocol)
    try:
        return await _answered(request, handler)
    finally:
        asking.discard(request.protocol)


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    access = request.app.get(ACCESS)
    try:
        if access is not None:
            await access.judge(request)
        response = await handler(request)
    except web.HTTPException as answer:
        await _send(request, answer)
        raise
    except ConnectionError:
        raise
    except Exception as bug:
        # aiohttp would answer 500 and go on serving from a program known to be broken.
        what = f"{request.method} {request.path} failed"
        asyncio.get_running_loop().call_exception_handler({"message": what, "exception": bug})
        raise
    await _send(request, response)
    return response


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    # Left to itself aiohttp sends after the handlers, and waits without end for a client that does not read.
    if not response.prepared:
        response.headers[hdrs.SERVER] = "ovnwatch"
        if ACCESS in request.app:
            for name, value in request.app[ACCESS].config.headers.items():
                response.headers.setdefault(name, value)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def require_token(request: web.Request, token: str | None) -> None:
    """Let a request pass that bears the token; raises 403 where we have none, 401 where it bears another.

    That is the one the application's access has now, for its file may have changed; `token` where it has no access.
    """
    access = request.app.get(ACCESS) or Access(token=token)
    if not access.token:
        raise web.HTTPForbidden(text="refused: no token is set (--web.token-file or OVNWATCH_TOKEN)\n")
    if not access.bears_token(request):
        raise web.HTTPUnauthorized(text="a bearer token is needed\n", headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


def token_of(request: web.Request, token: str | None) -> str | None:
    """Return the token that `require_token` asks for now."""
    access = request.app.get(ACCESS)
    return access.token if access else token


def add_token_check(app: web.Application, token: Callable[[], str | None]) -> None:
    """Serve /-/token, which changes nothing: 204 for a request that bears the token, else what `require_token` says."""

    async def handler(request: web.Request) -> web.Response:
        require_token(request, token())
        return web.Response(status=204)

    app.router.add_get("/-/token", handler)


def scrape_seconds(header: str) -> float | None:
    """Return the seconds a scrape may take; None (no limit) for a header that is absent or makes no sense."""
    try:
        seconds = float(header)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None


def landing_page(name: str, telemetry_path: str, more: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the page at `/`: what this is, and where the rest is."""
    ours = {"/-/healthy": "is the process alive?", "/-/ready": "does it measure yet?"}
    links = {telemetry_path: "metrics", **more, **ours}
    shown = ((html.escape(path), html.escape(text)) for path, text in links.items())
    items = "".join(f'<li><a href="{path}">{path}</a> {text}</li>' for path, text in shown)
    title = html.escape(name)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><ul>{items}</ul></body></html>\n"
    )


@dataclass(frozen=True, slots=True)
class Serving:
    """An application that is being served."""

    listening: Listening
    runner: web.AppRunner
    app: web.Application

    @property
    def port(self) -> int:
        return self.listening.port

    async def watch_access(self) -> None:
        """Take changed certificates, passwords and tokens into use, for ever."""
        await self.app[ACCESS].watch(self.renew)

    async def renew(self, tls: ssl.SSLContext) -> None:
        """Speak TLS by another context from now on: who asks nothing just now has to connect anew."""
        await self.listening.renew(tls)
        server = self.runner.server
        for each in server.connections if server is not None else ():
            if each not in self.app[ASKING] and each.transport is not None:
                each.force_close()

    async def close(self) -> None:
        """Accept no more, give the requests in hand a second, close every connection."""
        self.listening.close()
        await self.runner.cleanup()


async def serve(
    app: web.Application,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    max_connections: int = 512,
    name: str = "web",
) -> Serving:
    """Serve `app` on `host` (empty: every address, IPv4 and IPv6) and `port` (0: a free one). Raises ListenError.

    Over TLS where `tls` is given or the application's access says so.
    """
    sockets = listen(host, port)
    if tls is None and ACCESS in app:
        tls = app[ACCESS].config.tls
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_aiohttp_log,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=0,  # a body no handler wanted is not read on
        auto_decompress=False,
        read_bufsize=4096,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    server = runner.server
    assert server is not None
    asking = app[ASKING]

    def make_room(places: int) -> bool:
        if len(asking) >= places:
            return False
        # Those that came first stand first. One without a transport is being closed.
        for each in server.connections:
            if each not in asking and each.transport is not None:
                each.force_close()
                return True
        return sum(each.transport is not None for each in server.connections) < places

    door = Door(name, max_connections, lambda: len(server.connections), server, make_room)
    return Serving(await accept(sockets, door, tls), runner, app)


def _not_the_clients_doing(record: logging.LogRecord) -> bool:
    # aiohttp logs an error with a traceback for every request it cannot parse and every client that hangs up.
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))


_aiohttp_log = logging.getLogger(f"{__name__}.aiohttp")
_aiohttp_log.addFilter(_not_the_clients_doing)
