"""Recorded histories, replayed by an API server with faults, to phases and events in the journal; each exactly once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import fake_api
import pytest
from box import OURSELVES, PATIENCE, until
from fake_api import FakeApi, serving
from histories import changes
from running import Exporter, killed_at_the_end, wait_for
from test_seen import STORIES, fits, phases, step, told

from exporters import kube, objects
from exporters.exposition import make_registry
from exporters.identity import hashed
from exporters.journal import Journal
from exporters.kube import Cluster
from exporters.migration import watching
from exporters.migration.kinds import KINDS
from exporters.migration.names import NODE, NONE
from exporters.migration.phases import Phases
from exporters.migration.resources import RESOURCES
from exporters.migration.seen import UNKNOWN_SECONDS, Change, Event, Memory, Seen
from exporters.migration.settings import load_migration
from exporters.migration.watching import Watching
from exporters.probing.record import Record
from exporters.settings import BadInput
from exporters.times import iso
from exporters.watched import Watched

pytestmark = pytest.mark.slow

T = TypeVar("T")

# What befalls the server before each moment.
Fault = Callable[[FakeApi], None]
FAULTS: Mapping[str, Sequence[Fault]] = {
    "drop": [lambda api: api.drop()],
    "expired": [lambda api: api.forget(), lambda api: api.drop()],
    "expired, told by an event": [
        lambda api: api.fail("watch", "error event", "error event", "error event"),
        lambda api: api.drop(),
    ],
    "throttled": [lambda api: api.fail("watch", "429", "429"), lambda api: api.drop()],
    "failing": [lambda api: api.fail("watch", "500", "500", "half", "cut", "garbage"), lambda api: api.drop()],
    "a list that fails": [
        lambda api: api.fail("list", "500", "garbage", "429"),
        lambda api: api.forget(),
        lambda api: api.drop(),
    ],
    "slow": [lambda api: api.fail("list", "slow"), lambda api: api.fail("watch", "slow"), lambda api: api.drop()],
}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(watching, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(kube, "ABSENT_SECONDS", 0.1)
    monkeypatch.setattr(objects, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(objects, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(fake_api, "SLOW_SECONDS", 0.4)


class Watcher(Watching):
    """All watches, with what a test asks of them."""

    record: Record
    phases: Phases
    ahead: list[float]  # how much the clock is

    def caught_up(self, api: FakeApi) -> bool:
        """Was all that the server has judged?"""
        known = self.known()
        for resource in RESOURCES:
            collection = api.collections.get(
                resource.path.split("/", 2)[2].replace(f"namespaces/{resource.namespace}/", "")
            )
            there = collection.objects if collection else {}
            wanted = {key: each["metadata"]["resourceVersion"] for key, each in there.items() if fits(resource, each)}
            have = known.get(resource.name)
            if have is None or not (have.up or have.absent) or (have.absent and wanted):
                return False
            if {key: each.versions[0] for key, each in have.objects.items()} != wanted:
                return False
        return bool(known)

    async def entries(self) -> list[dict[str, Any]]:
        """The journal's, by begin."""
        await self.record.save()
        found = [item for item in self.record.history(limit=10_000) if item["kind"] == "phase"]
        return sorted(found, key=lambda item: (item["start_time"], item["seq"]))

    def metric(self, name: str) -> dict[tuple[str, ...], float]:
        registry = make_registry(self.phases, self, Watched([self.known]))
        samples = [each for family in registry.collect() for each in family.samples if each.name == name]
        return {tuple(value for _, value in sorted(each.labels.items())): each.value for each in samples}


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Not box.run: sockets that are left open are the server's, which is in this process."""
    return asyncio.run(asyncio.wait_for(scenario, 3 * PATIENCE))


@asynccontextmanager
async def watch(api: FakeApi, folder: Path, show: Callable[[str], str] = str) -> AsyncIterator[Watcher]:
    journal = Journal(folder / "migration.db")
    record = Record([], OURSELVES, journal=journal, max_history=10_000)
    phases = Phases(record)
    ahead = [0.0]
    one = Watcher(Cluster(api.config(folder)), phases, record, show, lambda: time.monotonic() + ahead[0])
    one.record, one.phases, one.ahead = record, phases, ahead
    task = asyncio.ensure_future(one.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.close()
        await journal.close()


def wanted(story: str) -> tuple[dict[str, list[str]], dict[str, list[str]], list[str]]:
    """Phases of each kind and of each node, and events, as the pure functions say."""
    seen = Seen(1000.0, {}, Memory())
    found: list[Change] = [each for _, known, now in told(story) for each in step(seen, known, now)]
    kinds = {kind: [name for name in phases(found, kind) if name != NONE] for kind in KINDS}
    turns: dict[str, list[str]] = {}
    for each in found:
        if not isinstance(each, Event) and each[0] == NODE and each[2] != NONE:
            turns.setdefault(str(each[1]), []).append(str(each[2]))
    return kinds, turns, sorted(f"{each.node} {each.name}" for each in found if isinstance(each, Event))


def entered(entries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], dict[str, list[str]], list[str]]:
    kinds = {kind: [each["text"] for each in entries if each["cause"] == kind] for kind in KINDS}
    turns: dict[str, list[str]] = {}
    for each in entries:
        if each["cause"] == NODE:
            turns.setdefault(each["node"], []).append(each["text"])
    return kinds, turns, sorted(f"{each['node']} {each['text']}" for each in entries if each["cause"] == "event")


async def replayed(story: str, api: FakeApi, folder: Path, faults: Sequence[Sequence[Fault]]) -> list[dict[str, Any]]:
    """What is in the journal after a story, of which each moment begins with one of the faults."""
    moments = list(changes(story))
    api.put(moments[0][1])
    async with watch(api, folder) as one:
        await until(lambda: one.caught_up(api))
        for number, (_, changed) in enumerate(moments[1:]):
            for fault in faults[number % len(faults)] if faults else ():
                fault(api)
            api.freeze()
            api.put(changed)
            await until(lambda: one.caught_up(api))
        return await one.entries()


@pytest.mark.parametrize("story", STORIES)
def test_a_history_gives_exactly_its_phases(story: str, tmp_path: Path) -> None:
    with serving() as api:
        assert entered(run(replayed(story, api, tmp_path, []))) == wanted(story)


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_faults_of_the_server_change_nothing(story: str, tmp_path: Path) -> None:
    """Each moment of each story meets another fault; what was told comes again, in any order within a moment."""
    begin = STORIES.index(story)
    faults = [*list(FAULTS.values())[begin % len(FAULTS) :], *list(FAULTS.values())[: begin % len(FAULTS)]]
    with serving(repeat=True, shuffle=True) as api:
        assert entered(run(replayed(story, api, tmp_path, faults))) == wanted(story)
        asked = [each for each in api.asked if "watch" not in each.query]
    assert all("resourceVersion" not in each.query for each in asked), "a stale cache could answer"
    assert not any("pods" in each.path or "secrets" in each.path for each in asked)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone(fault: str, tmp_path: Path) -> None:
    with serving(repeat=True, shuffle=True) as api:
        found = entered(run(replayed("node-reboot-plain", api, tmp_path, [FAULTS[fault]])))
    assert found == wanted("node-reboot-plain")


def test_a_restart_and_a_new_list_repeat_nothing(tmp_path: Path) -> None:
    moments = list(changes("sdn-to-ovn-live"))

    async def scenario(api: FakeApi) -> list[dict[str, Any]]:
        for _, changed in moments[:7]:
            api.put(changed)
        async with watch(api, tmp_path) as one:
            await until(lambda: one.caught_up(api))
            before = await one.entries()
        api.put(moments[7][1])  # while nobody looks
        async with watch(api, tmp_path) as one:
            await until(lambda: one.caught_up(api))
            between = await one.entries()
            api.forget()
            api.drop()
            await until(lambda: sum("watch" not in each.query for each in api.asked) > 3 * len(RESOURCES) - 6)
            await until(lambda: one.caught_up(api))
            assert await one.entries() == between
        ids = [each["id"] for each in between]
        assert {each["id"] for each in before} <= set(ids), "they go on, or are over"
        assert len(set(ids)) == len(ids)
        return between

    with serving() as api:
        found = run(scenario(api))
    reboots = [each for each in found if each["text"] == "reboot"]
    assert sorted(each["node"][:4] for each in reboots) == ["cp-0", "wk-0"]
    texts = [text for text, _ in groupby(each["text"] for each in found if each["cause"] == "sdn_live")]
    assert texts == ["routable MTU round"]


def test_an_api_that_is_down_is_an_age_and_then_no_phase(tmp_path: Path) -> None:
    async def scenario(api: FakeApi) -> None:
        for _, changed in list(changes("mtu-migration"))[:4]:
            api.put(changed)
        async with watch(api, tmp_path) as one:
            await until(lambda: one.caught_up(api))
            assert one.metric("ovnwatch_migration_phase") == {("mtu", "first round"): 1.0}
            assert one.metric("ovnwatch_migration_progress_ratio") == {("mtu",): 0.0}
            assert sum(one.metric("ovnwatch_node_phase").values()) == 2
            api.down = True
            api.drop()
            await until(lambda: not any(one.metric("ovnwatch_watch_up").values()))
            assert one.metric("ovnwatch_migration_phase") == {("mtu", "first round"): 1.0}, "last known"
            one.ahead[0] = UNKNOWN_SECONDS / 2
            await asyncio.sleep(0.5)  # some steps
            assert one.metric("ovnwatch_node_ready")
            one.ahead[0] = 600.0
            await until(lambda: not one.metric("ovnwatch_node_ready"))
            for name in (
                "migration_phase",
                "migration_progress_ratio",
                "node_phase",
                "node_ready",
                "migration_condition",
            ):
                assert one.metric(f"ovnwatch_{name}") == {}, name
            ages = one.metric("ovnwatch_watch_age_seconds")
            assert min(ages.values()) >= 600.0
            assert ("nodes",) in ages
            heard = max(each.heard for each in one.known().values())
            entries = [each for each in await one.entries() if each["cause"] != "event"]
            assert {each["state"] for each in entries} == {"closed"}
            assert all(each["end_time"] <= iso(heard) for each in entries)
            api.down = False
            await until(lambda: one.metric("ovnwatch_migration_phase") == {("mtu", "first round"): 1.0})

    with serving() as api:
        run(scenario(api))


def test_the_metrics_say_what_the_cluster_says(tmp_path: Path) -> None:
    async def scenario(api: FakeApi) -> None:
        for _, changed in list(changes("egressip"))[:3]:
            api.put(changed)
        async with watch(api, tmp_path, show=hashed) as one:
            await until(lambda: one.caught_up(api))
            ready = one.metric("ovnwatch_node_ready")
            assert ready[("wk-0.harbor.example",)] == 0.0
            assert ready[("wk-1.harbor.example",)] == 1.0
            assert one.metric("ovnwatch_node_phase") == {("wk-0.harbor.example", "node", "down"): 1.0}
            assert one.metric("ovnwatch_egressip_info") == {
                ("billing", hashed("192.0.2.102"), "wk-1.harbor.example"): 1.0,
                ("mail-out", hashed("192.0.2.110"), "wk-1.harbor.example"): 1.0,
            }
            assert one.metric("ovnwatch_node_boot_time_seconds") == {}
            up = one.metric("ovnwatch_watch_up")
            assert up[("nodes",)] == up[("egressips",)] == 1.0
            assert ("machineconfigpools",) not in up, "the cluster has none"
            assert one.metric("ovnwatch_watch_objects")[("nodes",)] == len(ready)
            assert not any(one.metric("ovnwatch_watch_failures_total").values())
            api.put(list(changes("egressip"))[4][1])
            await until(lambda: one.metric("ovnwatch_node_boot_time_seconds"))

    with serving() as api:
        run(scenario(api))


def test_conditions_are_as_the_api_has_them(tmp_path: Path) -> None:
    async def scenario(api: FakeApi) -> dict[tuple[str, ...], float]:
        for _, changed in list(changes("sdn-to-ovn-live"))[:9]:
            api.put(changed)
        async with watch(api, tmp_path) as one:
            await until(lambda: one.caught_up(api))
            return one.metric("ovnwatch_migration_condition")

    with serving() as api:
        found = run(scenario(api))
    assert found[("NetworkTypeMigrationInProgress",)] == found[("NetworkTypeMigrationMTUReady",)] == 1.0
    assert found[("NetworkTypeMigrationTargetCNIInUse",)] == 0.0
    assert found[("Available",)] == 1.0


# --- as a process


def test_the_exporter_watches_a_cluster(tmp_path: Path) -> None:
    with serving() as api, killed_at_the_end() as started:
        moments = list(changes("node-reboot-plain"))
        api.put(moments[0][1])
        argv = ("migration", "--web.listen-address=127.0.0.1:0", f"--kubernetes.config={api.config(tmp_path)}",
                "--log.level=debug")  # fmt: skip
        one = Exporter(tmp_path / "log", *argv)
        started.append(one)
        wait_for(one.ready)
        wait_for(lambda: 'ovnwatch_node_ready{k8s_node="edge-wk-1"} 1.0' in one.get("/metrics")[1])
        api.put(moments[1][1])
        turn = 'ovnwatch_node_phase{k8s_node="edge-wk-1",kind="node",phase="cordoned"} 1.0'
        wait_for(lambda: turn in one.get("/metrics")[1])
        (item,) = [each for each in json.loads(one.get("/history")[1]) if each["kind"] == "phase"]
        assert (item["text"], item["node"], item["cause"], item["state"]) == ("cordoned", "edge-wk-1", NODE, "open")
        assert one.end() == 0
        assert "kubernetes-token" not in one.said()


def test_settings_of_a_cluster_are_checked_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"--kubernetes\.config: .*nothere"):
        load_migration([f"--kubernetes.config={tmp_path / 'nothere'}"], {})
    with pytest.raises(BadInput, match=r"needs --kubernetes\.config"):
        load_migration(["--kubernetes.context=x"], {})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BadInput, match=r"ovnwatch\[kubernetes\]"):
        load_migration(["--kubernetes.config=in-cluster"], {})
    assert load_migration([], {}).cluster == ""


def test_without_a_cluster_the_package_is_not_even_imported(tmp_path: Path) -> None:
    code = "import sys; sys.modules['kubernetes'] = None; from exporters.cli import main; sys.exit(main(sys.argv[1:]))"
    with killed_at_the_end() as started:
        one = Exporter(tmp_path / "log", "migration", "--web.listen-address=127.0.0.1:0", code=code)
        started.append(one)
        wait_for(one.ready)
        assert one.end() == 0
