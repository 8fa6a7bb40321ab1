"""What exporters, Prometheus and Alertmanager answer to preflight's questions: bounded, never redirected."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from alerts.preflight.checks import Alerted, Exporter, Scraped, Stream
from exporters import times

MOST_BYTES = 32 * 1024 * 1024
SECONDS = 10.0  # for an answer
SAMPLES = 3  # of a clock; the quickest answer counts
AT_A_TIME = 16
EVERY = 0.2  # seconds between two looks at what has to come
LISTED_SECONDS = 10.0  # for Alertmanager to list what it took, and to take it off
ALERT = "OvnwatchPreflight"
SAYS = "A test by `ovnwatch preflight`: nothing is wrong, and there is nothing to do."

Name = Annotated[str, Meta(max_length=253)]
Key = Annotated[str, Meta(max_length=1100)]


class AskError(Exception):
    """No answer that can be used; args[0] says why in one line."""


class _Stream(msgspec.Struct):
    stream: Key
    state: Name
    observed: bool = True
    cause: Name = ""


class _Status(msgspec.Struct):
    timestamp: Name
    source: Name
    streams: list[_Stream] = []
    phases: Any = None  # only a migration exporter has them


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(msgspec.Struct):
    result: list[_Sample]


class _Answer(msgspec.Struct):
    data: _Vector


class _State(msgspec.Struct):
    state: str
    silencedBy: list[str] = []  # noqa: N815 - Alertmanager's own words
    inhibitedBy: list[str] = []  # noqa: N815


class _Receiver(msgspec.Struct):
    name: str


class _Alert(msgspec.Struct):
    labels: dict[str, str]
    status: _State
    receivers: list[_Receiver] = []


_status = msgspec.json.Decoder(_Status).decode
_vector = msgspec.json.Decoder(_Answer).decode
_alerts = msgspec.json.Decoder(list[_Alert]).decode


class Client:
    """Asks; `async with` closes its connections. What goes wrong raises AskError."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=AT_A_TIME),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            auto_decompress=False,
            headers={hdrs.ACCEPT_ENCODING: "identity"},
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(
        self,
        url: str,
        method: str = "GET",
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        token: str = "",
    ) -> tuple[int, bytes]:
        """Status and body of an answer."""
        headers = {hdrs.AUTHORIZATION: f"Bearer {token}"} if token else {}
        try:
            async with self._session.request(
                method, url, params=query, json=body, headers=headers, allow_redirects=False
            ) as answer:
                read = bytearray()
                async for data in answer.content.iter_chunked(1 << 16):
                    read += data
                    if len(read) > MOST_BYTES:
                        raise AskError(f"{url} answers more than {MOST_BYTES >> 20} MB")
                return answer.status, bytes(read)
        except TimeoutError:
            raise AskError(f"{url} gives no whole answer in {SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise AskError(f"{url} does not answer: {str(error) or type(error).__name__}"[:300]) from None

    async def good(self, url: str, query: Sequence[tuple[str, str]] = (), token: str = "") -> bytes:
        """The body of an answer with status 200."""
        status, body = await self.ask(url, query=query, token=token)
        if status != 200:
            raise AskError(f"{url} answers with status {status}")
        return body


# --- exporters


async def exporters(client: Client, urls: Sequence[str], token: str) -> list[Exporter]:
    """All of them, in their order."""
    return list(await asyncio.gather(*(_exporter(client, url, token) for url in urls)))


async def _exporter(client: Client, url: str, token: str) -> Exporter:
    try:
        samples = [await _sample(client, url, token) for _ in range(SAMPLES)]
    except AskError as wrong:
        return Exporter(url, wrong=str(wrong))
    error, offset, status = min(samples, key=lambda each: each[:2])
    streams = [Stream(each.stream, each.state if each.observed else "unknown", each.cause) for each in status.streams]
    said = 0
    if token:
        with contextlib.suppress(AskError):
            said, _ = await client.ask(f"{url}/-/token", token=token)
    return Exporter(url, status.source, "", status.phases is None, streams, offset, error, said)


async def _sample(client: Client, url: str, token: str) -> tuple[float, float, _Status]:
    """Half the round trip, the seconds its clock is ahead of ours, and what it said."""
    before, begun = time.time(), time.monotonic()
    body = await client.good(f"{url}/status", token=token)
    took = time.monotonic() - begun
    try:
        status = _status(body)
        return took / 2, times.seconds(status.timestamp) - (before + took / 2), status
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise AskError(f"{url} is no ovnwatch: {error}"[:300]) from None


# --- Prometheus


async def scraped(client: Client, url: str, token: str) -> list[Scraped]:
    """Every series of an exporter's build_info that Prometheus has."""
    now, stamps = await _query(client, url, token, "timestamp(ovnwatch_build_info)")
    _, targets = await _query(client, url, token, "up")
    up = {_target(each.metric): each.value[1] == "1" for each in targets}
    return [
        Scraped(each.metric.get("source", ""), now - float(each.value[1]), up.get(_target(each.metric)))
        for each in stamps
    ]


def _target(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("job", ""), labels.get("instance", "")


async def _query(client: Client, url: str, token: str, expression: str) -> tuple[float, list[_Sample]]:
    """Prometheus' own time, and the samples."""
    body = await client.good(f"{url}/api/v1/query", [("query", expression)], token)
    try:
        found = _vector(body).data.result
    except (msgspec.DecodeError, RecursionError) as error:
        raise AskError(f"{url} is no Prometheus: {error}"[:300]) from None
    return (found[0].value[0] if found else time.time()), found


# --- Alertmanager


class Alertmanager(NamedTuple):
    """Where it is, and what it wants to see."""

    client: Client
    url: str
    token: str = ""

    async def post(self, alert: Mapping[str, Any]) -> None:
        status, body = await self.client.ask(f"{self.url}/api/v2/alerts", "POST", body=[alert], token=self.token)
        if status != 200:
            said = " ".join(body[:200].decode("utf-8", "replace").split())
            raise AskError(f"{self.url} refuses the test alert with status {status}: {said}")

    async def listed(self, mark: str) -> list[_Alert]:
        query = [("filter", f'alertname="{ALERT}"'), ("filter", f'preflight="{mark}"')]
        body = await self.client.good(f"{self.url}/api/v2/alerts", query, self.token)
        try:
            return [each for each in _alerts(body) if each.labels.get("preflight") == mark]
        except (msgspec.DecodeError, RecursionError) as error:
            raise AskError(f"{self.url} is no Alertmanager: {error}"[:300]) from None


@contextlib.asynccontextmanager
async def webhook(address: tuple[str, int] | None, mark: str) -> AsyncIterator[asyncio.Event]:
    """A receiver that Alertmanager may call; the event is that it told of the alert with that mark."""
    called = asyncio.Event()

    async def post(request: web.Request) -> web.Response:
        document = await request.json()
        told = document.get("alerts", []) if isinstance(document, dict) else []
        if any(isinstance(each, dict) and each.get("labels", {}).get("preflight") == mark for each in told):
            called.set()
        return web.Response()

    if address is None:
        yield called
        return
    app = web.Application()
    app.router.add_post("/{any:.*}", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address[0] or None, address[1]).start()
        yield called
    finally:
        await runner.cleanup()


async def alerted(at: Alertmanager, labels: Mapping[str, str], listen: tuple[str, int] | None, wait: float) -> Alerted:
    """Send a test alert, see it arrive, and take it back whatever happens. Raises OSError for a port that is taken."""
    mark = f"{time.time_ns():x}"
    alert = {
        "labels": {**labels, "alertname": ALERT, "preflight": mark},
        "annotations": {"summary": SAYS, "description": SAYS},
        "startsAt": times.iso(time.time()),
        "endsAt": times.iso(time.time() + 300.0),
    }
    async with webhook(listen, mark) as called:
        begun = time.monotonic()
        try:
            await at.post(alert)
        except AskError as error:
            return Alerted(wrong=str(error))
        found = Alerted(listened=listen is not None)
        try:
            found = await _arrival(at, mark, begun, found)
            if listen is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(called.wait(), wait)
                    found = found._replace(called=time.monotonic() - begun)
        except AskError as error:
            found = Alerted(wrong=str(error))
        finally:
            with contextlib.suppress(AskError):
                await at.post({**alert, "endsAt": times.iso(time.time())})
                found = found._replace(over=await _gone(at, mark))
        return found


async def _arrival(at: Alertmanager, mark: str, begun: float, found: Alerted) -> Alerted:
    until = time.monotonic() + LISTED_SECONDS
    while time.monotonic() < until:
        for each in await at.listed(mark):
            held = [f"silenced by {one}" for one in each.status.silencedBy]
            held += [f"inhibited by {one}" for one in each.status.inhibitedBy]
            receivers = [one.name for one in each.receivers]
            return found._replace(seconds=time.monotonic() - begun, receivers=receivers, held=", ".join(held)[:200])
        await asyncio.sleep(EVERY)
    return found


async def _gone(at: Alertmanager, mark: str) -> bool:
    until = time.monotonic() + LISTED_SECONDS
    while await at.listed(mark):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(EVERY)
    return True


def document(checks: Sequence[Any], verdict: str) -> str:
    """All of it as JSON."""
    return json.dumps({"verdict": verdict, "checks": [each._asdict() for each in checks]}, indent=2) + "\n"
