"""What runs in the lab's demo: peers in the workloads, a bastion outside, node exporters on the chassis, Prometheus.

Each is in its host's namespace and is asked and scraped by the management network, which nothing of the demo breaks.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

from alerts import command as rules
from exporters.cli import COMMANDS
from exporters.node.collectors import COLLECTORS
from exporters.settings import Stream
from lab import judge, monitoring
from lab.children import Children, hold_port
from lab.judge import Entry
from lab.monitoring import LOCAL
from lab.ovn import topology
from lab.ovn.topology import OUTSIDE, Lab
from lab.plant import DESCRIPTORS, OVNWATCH, PROGRAMS, READY_SECONDS, SCALE_FOR, NotReadyError, environ, until

BASTION, MIGRATION = "bastion", "migration"
PEER_BOOK, PEER_WEB, BASTION_WEB, NODE_WEB = 8082, 8083, 9091, 9481  # the ports they have if nothing else is said
MIGRATION_WEB = 9482
FAR = "outside"  # what workloads probe through their gateways: the bastion's echoes


class Exporter(NamedTuple):
    """One that runs: on which host, and the ports of its metrics and of its /status and /history; 0: it has none."""

    name: str
    command: str
    host: str
    web: int
    book: int


class Change(NamedTuple):
    """That a stream's far end sees another address of ours, since a moment between two (as ISO 8601)."""

    stream: str
    before: str
    after: str
    earliest: str
    latest: str


@dataclass(slots=True)
class Site:
    """All that runs, and what was recorded so far."""

    lab: Lab
    children: Children
    session: aiohttp.ClientSession
    exporters: Mapping[str, Exporter]
    prometheus: int
    streams: dict[str, Stream] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)  # exporter -> `since` of the next look
    token: str = field(default_factory=partial(secrets.token_urlsafe, 16))

    def books(self) -> Iterator[Exporter]:
        """Those that tell a history."""
        return (each for each in self.exporters.values() if each.book)

    async def get(self, exporter: Exporter, path: str) -> dict[str, Any] | None:
        """An exporter's JSON; None while it does not answer."""
        try:
            async with self.session.get(f"http://{self.address(exporter, exporter.book)}{path}") as response:
                response.raise_for_status()
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientConnectionError, TimeoutError):
            return None

    def address(self, exporter: Exporter, port: int) -> str:
        return f"{self.lab.management(exporter.host)}:{port}"

    async def look(self) -> list[Entry]:
        """Read on in all histories; the entries that are new or changed."""
        new: list[Entry] = []
        for exporter in self.books():
            answer = await self.get(exporter, f"/history?since={self.read.get(exporter.name, 0)}")
            if answer is None:
                continue
            self.read[exporter.name] = answer["next"]
            for item in answer["items"]:
                if item["kind"] in judge.EVENTS:
                    new.append(judge.entry(item))
                elif item["kind"] == "target_change":
                    self.changes[item["id"]] = change(item)
        self.entries |= {each.id: each for each in new}
        return new

    async def all_up(self) -> bool:
        answers = [await self.get(each, "/status") for each in self.books() if each.command != "migration"]
        return all(answer and {each["state"] for each in answer["streams"]} == {"up"} for answer in answers)

    def urls(self) -> list[str]:
        """Of all that tell a history, for a report."""
        return [self.url(each) for each in self.books()]

    def url(self, exporter: Exporter) -> str:
        """Where one tells its history."""
        return f"http://{self.address(exporter, exporter.book)}"

    async def mark(self, phase: str, node: str) -> None:
        """Tell the migration exporter which phase a node is in from now on. Raises NotReadyError."""
        await self._post(MIGRATION, "/api/phases", {"phase": phase, "node": node})

    async def window(self, name: str) -> None:
        """Open a window at the bastion; "" closes the one there is. Raises NotReadyError."""
        if name:
            await self._post(BASTION, "/api/windows", {"name": name})
        else:
            await self._post(BASTION, "/api/windows/end", {})

    async def _post(self, name: str, path: str, body: Mapping[str, str]) -> None:
        exporter = self.exporters[name]
        url, headers = f"http://{self.address(exporter, exporter.web)}{path}", {"Authorization": f"Bearer {self.token}"}
        try:
            async with self.session.post(url, json=body, headers=headers) as response:
                if response.status != 200:
                    raise NotReadyError(f"{name} answers {response.status} to {path}: {await response.text()}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotReadyError(f"{name} does not answer to {path}: {error}") from None

    async def query(self, expression: str) -> float | None:
        """The value of an expression that has one; None if it has none or Prometheus does not answer."""
        return await monitoring.query(self.session, self.prometheus, expression)

    async def all_scraped(self) -> bool:
        return await self.query("sum(up)") == len(self.exporters)

    def addresses(self) -> list[str]:
        """Where to look, as lines."""
        bastion = self.exporters[BASTION]
        return [
            f"  bastion     http://{self.address(bastion, bastion.web)}/  the page; /api/data, /history, /metrics",
            f"  Prometheus  http://{LOCAL}:{self.prometheus}/",
            *(
                f"  {each.command:<4} {each.name:<6} http://{self.address(each, each.web)}/metrics"
                for each in self.exporters.values()
                if each is not bastion
            ),
            f"  the lab     ovnwatch lab status --prefix {self.lab.prefix}",
        ]


def change(item: Mapping[str, Any]) -> Change:
    """What is told of an entry of the kind target_change. Pure."""
    addresses = (item["before"].get("address", ""), item["after"].get("address", ""))
    return Change(item["stream"], *addresses, item["start"]["earliest"], item["start"]["latest"])


# --- what there is to run


def exporters(lab: Lab) -> list[Exporter]:
    """All of them. Pure."""
    peers = [Exporter(each, "peer", each, PEER_WEB, PEER_BOOK) for each in lab.workloads]
    bastion = Exporter(BASTION, "bastion", "outside", BASTION_WEB, BASTION_WEB)
    migration = Exporter(MIGRATION, "migration", "outside", MIGRATION_WEB, MIGRATION_WEB)
    return [*peers, bastion, migration, *node_exporters(lab)]


def node_exporters(lab: Lab) -> list[Exporter]:
    """One on each chassis, if there is such a command."""
    chassis = lab.chassis_names if "node" in COMMANDS else []
    return [Exporter(each, "node", each, NODE_WEB, 0) for each in chassis]


def nodes_see(lab: Lab) -> dict[str, str]:
    """What node exporters must have seen at the end, with the query that is 1 then; nothing where none runs. Pure."""
    if not node_exporters(lab):
        return {}
    first, second = (f'instance="{lab.management(each)}:{NODE_WEB}"' for each in ("ch1", "ch2"))
    return {
        "ch1 has the link of w3": f'count(ovnwatch_node_link_receive_bytes_total{{link="v-w3", {first}}})',
        "all daemons of ch2 are new": f"min(changes(ovnwatch_node_daemon_start_timestamp_seconds{{{second}}}[5m]))",
    }


def config(lab: Lab, exporter: Exporter) -> dict[str, Any]:
    """A peer's or the bastion's file: what it probes. Pure."""
    if exporter.command == "bastion":
        probed = [{"name": each, "path": "loadbalancer", "host": topology.vip(each)} for each in lab.workloads]
        journals = [{"name": MIGRATION, "url": f"http://{lab.management('outside')}:{MIGRATION_WEB}"}]
        return {"source": exporter.name, "targets": probed, "journals": journals}
    others = [each for each in lab.workloads if each != exporter.name]
    probed = [{"name": each, "path": "pod", "host": topology.address(each)} for each in others]
    probed.append({"name": FAR, "path": "egress", "host": OUTSIDE})
    return {"source": exporter.name, "node": f"ch{topology.number(exporter.name)}", "targets": probed}


# --- running it


async def build(
    stack: AsyncExitStack,
    children: Children,
    lab: Lab,
    prometheus: str,
    *,
    more: Iterable[Exporter] = (),
    alertmanager: str = "",
) -> Site:
    """Start it all, and `more` node exporters, on the hosts of a lab that is up. alertmanager: its address, if any."""
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
    port = stack.enter_context(closing(hold_port())).getsockname()[1]
    site = Site(lab, children, session, {each.name: each for each in (*exporters(lab), *more)}, port)
    for each in site.exporters.values():
        argv = FLAGS[each.command](lab, each) if each.command in FLAGS else _prober(site, each)
        variables = {"HOSTNAME": each.name, "STATE_DIRECTORY": str(children.folder / "state")}
        if each.name in (BASTION, MIGRATION):
            variables["OVNWATCH_TOKEN"] = site.token
        inside = ["ip", "netns", "exec", lab.namespace(each.host)]
        told = environ(**variables, **topology.environ(lab, each.host))
        await children.start(each.name, [*inside, *OVNWATCH, each.command, *argv], told)
    await _scrape(site, prometheus, alertmanager)
    return site


def _prober(site: Site, exporter: Exporter) -> list[str]:
    """Write its file and remember its streams; the flags that name the file."""
    file = site.children.folder / f"{exporter.name}.yaml"
    file.write_text(yaml.safe_dump(config(site.lab, exporter), sort_keys=False), encoding="utf-8")
    settings = PROGRAMS[exporter.command].load(["--config.file", str(file)], {}, DESCRIPTORS)
    site.streams |= {stream.key: stream for stream in settings.streams}
    return ["--config.file", str(file)]


def _node(lab: Lab, exporter: Exporter) -> list[str]:
    """The flags of a node exporter; where its daemons are it reads from OVS_RUNDIR and OVN_RUNDIR.

    A central has no OVS: what would ask for it would fail there, and an alert would tell of it all the time.
    """
    lacking = [each for each in COLLECTORS if each.startswith("ovs-") and topology.kind(exporter.host) == "central"]
    return [
        f"--web.listen-address={lab.management(exporter.host)}:{NODE_WEB}",
        *(f"--no-collector.{each}" for each in lacking),
    ]


def _migration(lab: Lab, exporter: Exporter) -> list[str]:
    """The flags of the migration exporter, which reads starts of daemons from the node exporters."""
    urls = [f"{each.name}=http://{lab.management(each.host)}:{NODE_WEB}" for each in node_exporters(lab)]
    listen = f"--web.listen-address={lab.management(exporter.host)}:{MIGRATION_WEB}"
    return [listen, f"--source={exporter.name}", f"--node.url={','.join(urls)}", "--node.interval=1"]


FLAGS: Mapping[str, Callable[[Lab, Exporter], list[str]]] = {"node": _node, "migration": _migration}


async def _scrape(site: Site, program: str, alertmanager: str) -> None:
    folder: Path = site.children.folder
    if rules.main(["--output-dir", str(folder / "rules"), f"--scale-for={SCALE_FOR}"]):
        raise NotReadyError("the rules could not be written")
    jobs: dict[str, list[str]] = {}
    for each in site.exporters.values():
        jobs.setdefault(f"ovnwatch-{each.command}", []).append(site.address(each, each.web))
    text = monitoring.prometheus_config(jobs, alertmanager, folder / "rules")
    (folder / "prometheus.yaml").write_text(text, encoding="utf-8")
    command = monitoring.command("prometheus", program, folder, site.prometheus)
    await site.children.start("prometheus", command, environ())


async def ready(site: Site) -> None:
    """Wait until every stream is up and everything is scraped. Raises NotReadyError."""

    stages: dict[str, Callable[[], Awaitable[bool]]] = {
        f"{len(site.streams)} streams up": site.all_up,
        "Prometheus scraping all": site.all_scraped,
    }
    for what, reached in stages.items():
        if not await until(reached, READY_SECONDS):
            raise NotReadyError(f"waited {READY_SECONDS:.0f} s in vain for {what}; --keep keeps the logs")
