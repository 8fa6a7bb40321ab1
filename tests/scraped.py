"""Two real peers, relays between them that interrupt, and a real Prometheus that scrapes them: something to look at.

a  probes b through the relays (path pod) and past them (path service), and where nobody ever was (path route)
b  probes a (path pod)
"""

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

from alerts import command as rules
from exporters.calibrate.relay import Relay
from exporters.peer.settings import OPTIONS
from lab.children import Child, Children, hold_port, plain_environ

LOCAL = "127.0.0.1"
SCALE_FOR = 0.02  # what is recorded each minute is so each 1.2 s
PROTOCOLS = ("http", "tcp", "ws")
STREAMS_UP = 9  # a to b by two paths, b to a, three protocols each
SCRAPE = 1.0  # seconds between two scrapes, and the longest that one may take
PATIENCE = 60.0  # seconds; what takes a few is waited for, not timed
PEER = (sys.executable, "-c", "import sys; from exporters.cli import main; sys.exit(main())", "peer")

Samples = list[tuple[dict[str, str], list[float]]]  # labels, values


class Site(NamedTuple):
    """What runs, and how to ask it and to break it."""

    children: Children
    session: aiohttp.ClientSession
    prometheus: int
    relays: Sequence[Relay]
    peers: Mapping[str, Child]

    async def ask(self, expr: str, at: float, seconds: float = 0.0, step: float = 1.0) -> Samples:
        """An expression's values `at` (Unix time), or at each `step` of the `seconds` before; only real numbers."""
        times = {"start": at - seconds, "end": at, "step": step} if seconds else {"time": at}
        address = f"http://{LOCAL}:{self.prometheus}/api/v1/query{'_range' if seconds else ''}"
        async with self.session.post(address, data={"query": expr, **times}) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{answer.get('error')}: {expr}"
        found = [(each["metric"], each.get("values") or [each["value"]]) for each in answer["data"]["result"]]
        numbers = [(labels, [float(value) for _, value in values if value != "NaN"]) for labels, values in found]
        return [(labels, values) for labels, values in numbers if values]

    async def until(self, expr: str) -> None:
        """Wait until an expression has a value; a comparison has one when it holds."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientConnectionError, aiohttp.ContentTypeError):  # it is starting
                if await self.ask(expr, time.time()):
                    return
            await asyncio.sleep(0.25)
        told = {
            each: await self.ask(each, time.time()) for each in ("up", "ovnwatch_outage_open", "ovnwatch_stream_state")
        }
        raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {expr}; there is {told}")

    async def interrupt(self, fault: str, seconds: float) -> None:
        await asyncio.gather(*(relay.inject(fault, seconds) for relay in self.relays))


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """Everything runs, and all streams but the one to nobody are up and scraped."""
    async with contextlib.AsyncExitStack() as stack:

        def port() -> int:
            return int(stack.enter_context(contextlib.closing(hold_port())).getsockname()[1])

        ports = {name: {each: port() for each in (*PROTOCOLS, "web")} for name in "ab"}
        relays = [await stack.enter_async_context(Relay({(LOCAL, 0): (LOCAL, ports["b"][each])})) for each in PROTOCOLS]
        behind = {each: int(relay.addresses[0][1]) for each, relay in zip(PROTOCOLS, relays, strict=True)}
        past = {each: ports["b"][each] for each in PROTOCOLS}
        ways = {
            "a": [way("b", "pod", behind), way("b", "service", past), way("nobody", "route", {"tcp": port()})],
            "b": [way("a", "pod", {each: ports["a"][each] for each in PROTOCOLS})],
        }
        children = await stack.enter_async_context(Children(folder))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        peers = {name: await start_peer(children, name, ports[name], ways[name]) for name in "ab"}
        prometheus = port()
        await start_prometheus(children, prometheus, [ports[name]["web"] for name in "ab"])
        found = Site(children, session, prometheus, relays, peers)
        await found.until(f"count(ovnwatch_stream_up == 1) == {STREAMS_UP}")
        yield found


def way(target: str, path: str, ports: Mapping[str, int]) -> dict[str, Any]:
    return {"name": target, "path": path, "host": LOCAL, "ports": dict(ports), "protocols": list(ports)}


async def start_peer(
    children: Children, name: str, ports: Mapping[str, int], targets: Sequence[Mapping[str, Any]]
) -> Child:
    config = {
        "source": name,
        "listen": {each: f"{LOCAL}:{ports[each]}" for each in PROTOCOLS},
        "web": {"listen_address": f"{LOCAL}:{ports['web']}"},
        "journal": {"path": str(children.folder)},
        "targets": list(targets),
    }
    path = children.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    environ = plain_environ({option.variable for option in OPTIONS}, {"HOSTNAME": name})
    return await children.start(name, [*PEER, "--config.file", str(path)], environ)


async def start_prometheus(children: Children, port: int, scraped: Sequence[int]) -> None:
    targets = [f"{LOCAL}:{each}" for each in scraped]
    assert rules.main(["--output-dir", str(children.folder / "rules"), f"--scale-for={SCALE_FOR}"]) == 0
    config = {
        "global": {"scrape_interval": f"{SCRAPE:.0f}s", "evaluation_interval": f"{SCRAPE:.0f}s"},
        "rule_files": [str(children.folder / "rules/*.yaml")],
        "scrape_configs": [{"job_name": "ovnwatch", "static_configs": [{"targets": targets}]}],
    }
    path = children.folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    program = shutil.which("prometheus")
    assert program
    data = children.folder / "data"
    command = [program, f"--config.file={path}", f"--storage.tsdb.path={data}", f"--web.listen-address={LOCAL}:{port}"]
    await children.start("prometheus", command, plain_environ((), {}))
