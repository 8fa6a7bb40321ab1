"""A real OVN whose migration is watched: peers, a bastion, node and migration exporters, and a Prometheus.

A cluster's phase is marked, node after node has its turn: ch2's daemons restart, w3 moves, w1's egress address moves to
another chassis, and so does a gateway. The API of some cluster tells its own migration meanwhile. A bond and a bridge
are there, for boards have panels on such things.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from fake_api import FakeApi, serving
from histories import changes
from scraped import Site as Scraped

from lab import monitoring
from lab.children import Children
from lab.ovn import build, change, run, site, topology
from lab.ovn.build import Run
from lab.ovn.topology import EGRESS, Lab
from lab.plant import OVNWATCH, environ

TOKEN = "of-this-lab"
MIGRATION_WEB = 9482
CLUSTER = "cluster"  # what the migration exporter of some cluster is called, beside the demo's
BOND = "bond0"
SCRAPE = "2s"
# Recorded histories of an API, and how many of their moments: the second ends when the first of three nodes is done.
STORIES = {"egressip": 5, "sdn-to-ovn-live": 8}


class Watched(NamedTuple):
    """What runs, and how its Prometheus is asked."""

    site: site.Site
    prometheus: Scraped
    kubernetes: FakeApi

    async def mark(self, phase: str, node: str = "") -> None:
        """Tell the migration exporter a phase; "none" ends it."""
        address = f"http://{self.site.lab.management('')}:{MIGRATION_WEB}/api/phases"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.site.session.post(address, json={"phase": phase, "node": node}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()

    async def do(self, work: Any, *arguments: Any) -> None:
        await asyncio.to_thread(work, self.site.lab, *arguments)


@contextlib.asynccontextmanager
async def watched(folder: Path, prefix: str) -> AsyncIterator[Watched]:
    """Everything runs and is scraped. Raises LabError, NotReadyError, MissingError."""
    lab = Lab(prefix, run.default_folder(prefix), centrals=3)
    program, _ = monitoring.programs()
    await asyncio.to_thread(run.up, lab)
    try:
        await asyncio.to_thread(run.run_all, furniture(lab))
        async with AsyncExitStack() as stack:
            children = await stack.enter_async_context(Children(folder))
            there = await site.build(stack, children, lab, program)
            await site.ready(there)
            api = stack.enter_context(serving())
            for story in STORIES:
                api.put(next(changes(story))[1])
            await more(there, api)
            found = Watched(there, Scraped(children, there.session, there.prometheus, (), {}), api)
            await found.prometheus.until(f"sum(up) == {len(there.exporters) + lab.centrals + 1}")
            await found.prometheus.until(f"count(ovnwatch_node_info) == {lab.chassis + lab.centrals}")
            yield found
    finally:
        await asyncio.to_thread(run.down, lab.prefix, lab.folder)


def furniture(lab: Lab) -> Iterator[Run]:
    """What ch1 has besides: a bond of two links, a bridge of the kernel, and a link that the other end of is down."""
    space = lab.namespace("ch1")
    links = [f"link add {one} type veth peer name {other}" for one, other in (("b1", "c1"), ("b2", "c2"), ("d1", "d2"))]
    links += ["link add kbr type bridge", *(f"link set {each} up" for each in ("b1", "b2", "c1", "c2", "d1", "kbr"))]
    yield build.batch(space, *links, "link set c1 master kbr", "link set c2 master kbr")
    bridge = ("add-br", "br-bond", "--", "set", "Bridge", "br-bond", "datapath_type=netdev")
    yield build.vsctl(lab, "ch1", *bridge, "--", "add-bond", "br-bond", BOND, "b1", "b2")


async def more(there: site.Site, api: FakeApi) -> None:
    """Start what the demo has none of: node exporters of the centrals, and a migration exporter of some cluster."""
    lab, children = there.lab, there.children
    jobs: dict[str, list[str]] = {"ovnwatch-node": [], "ovnwatch-migration": []}
    for central in lab.central_names:
        address = f"{lab.management(central)}:{site.NODE_WEB}"
        inside = ["ip", "netns", "exec", lab.namespace(central)]
        told = environ(HOSTNAME=central, **topology.environ(lab, central))
        flags = site.FLAGS["node"](lab, site.Exporter(central, "node", central, site.NODE_WEB, 0))
        await children.start(central, [*inside, *OVNWATCH, "node", *flags], told)
        jobs["ovnwatch-node"].append(address)
    address = f"{lab.management('')}:{MIGRATION_WEB}"
    told = environ(HOSTNAME=CLUSTER, OVNWATCH_TOKEN=TOKEN, STATE_DIRECTORY=str(children.folder / "state"))
    flags = [f"--web.listen-address={address}", f"--kubernetes.config={api.config(children.folder)}"]
    await children.start(CLUSTER, [*OVNWATCH, "migration", *flags], told)
    jobs["ovnwatch-migration"].append(address)
    await scrape_too(there, jobs)


async def scrape_too(there: site.Site, jobs: Mapping[str, list[str]]) -> None:
    """Scrape these jobs, too, and call all by the names of their hosts, as an operator's scrapes call them."""
    lab = there.lab
    hosts = {lab.management(host): host for host in lab.hosts}
    file = there.children.folder / "prometheus.yaml"
    config = yaml.safe_load(file.read_text())
    config["global"]["scrape_interval"] = SCRAPE  # as long as each may take, on a busy machine too
    scraped = {each["job_name"]: each["static_configs"][0]["targets"] for each in config["scrape_configs"]}
    config["scrape_configs"] = [
        {
            "job_name": job,
            "static_configs": [
                {"targets": [each], "labels": {"instance": hosts.get(each.partition(":")[0], CLUSTER)}}
                for each in [*scraped.get(job, ()), *jobs.get(job, ())]
            ],
        }
        for job in {**scraped, **jobs}
    ]
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    there.children.named("prometheus").process.send_signal(signal.SIGHUP)


async def migrate(lab: Watched, pause: float) -> None:
    """The migration, with `pause` seconds between its steps; ch3's turn and the cluster's phase last."""
    await lab.mark("upgrade of OVN")
    await asyncio.to_thread(cluster_changes, lab.kubernetes)
    for chassis, work in (("ch2", _restart), ("ch1", _moves), ("ch3", _gateway)):
        await lab.mark("restart", chassis)
        await asyncio.sleep(pause)
        await work(lab)
        await asyncio.sleep(pause)
        if chassis != "ch3":
            await lab.mark("none", chassis)


def cluster_changes(api: FakeApi) -> None:
    """What a recorded cluster went through, up to the middle of its migration, slowly enough to be seen."""
    for story, moments in STORIES.items():
        for _, changed in [*changes(story)][1:moments]:
            api.put(changed)
            time.sleep(0.5)


async def _restart(lab: Watched) -> None:
    await lab.do(change.stop_chassis, "ch2")
    await asyncio.sleep(1.5)
    await lab.do(change.start_chassis, "ch2")


async def _moves(lab: Watched) -> None:
    await lab.do(change.unplug, "w3")
    await asyncio.sleep(1.5)
    await lab.do(change.plug, "w3", "ch1")
    await lab.do(change.set_egress, "w1", "ch3", EGRESS[0])


async def _gateway(lab: Watched) -> None:
    await lab.do(change.move_gateway, "ch2", "ch1")
