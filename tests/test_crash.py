"""A real peer that is killed over and over while it measures: nothing it ever told is lost, nothing is counted twice.

Its targets are interrupted all the time, somebody reads all it serves as fast as it serves it, and SIGKILL comes at any
instant, also while it starts. Then its journal is held against all that was read.
"""

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from box import PATIENCE
from running import CODE, clean, disk, fill, flags
from scraped import LOCAL, PROTOCOLS, start_prometheus, way

from exporters.calibrate.relay import Relay
from exporters.history.checks import Checker
from exporters.history.items import read, run_of
from exporters.journal import Row, about, read_only
from lab.children import Child, Children, hold_port, plain_environ

SOAK = int(os.environ.get("OVNWATCH_INJECTIONS", "20")) >= 100
FULL = 60.0 if SOAK else 3.0  # seconds for which the disk is full, at least
KILLS = int(os.environ.get("OVNWATCH_KILLS", "12"))
SEED = int(os.environ.get("OVNWATCH_SEED", "1"))
LEDGERS = {"outage": "path", "blip": "path", "frozen": "peer", "break": "flow"}
SECONDS = {
    "ovnwatch_outage_seconds_total",
    "ovnwatch_peer_frozen_seconds_total",
    "ovnwatch_connection_break_seconds_total",
}
FORGETS = ("ovnwatch_journal_errors_total", "ovnwatch_config_", "ovnwatch_journal_events_lost")  # of one process
FIRING = "ALERTS{alertname='OvnwatchJournalFailing', alertstate='firing'}"
ROUNDING = 1e-4  # seconds, over some hundred entries told in microseconds

pytestmark = pytest.mark.slow

Series = dict[str, float]


def counters(text: str) -> Series:
    """Samples of ours that may only rise: of counters and histograms."""
    found: Series = {}
    rises = False
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            rises = kind in ("counter", "histogram") and name.startswith("ovnwatch_") and not name.startswith(FORGETS)
        elif rises and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


@dataclass
class Reader:
    """Everything the peer ever served; what contradicts an earlier answer is in `wrong`."""

    served: dict[str, tuple[int, str]] = field(default_factory=dict)  # id -> seq and state told last
    highest: Series = field(default_factory=dict)
    journals: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def metrics(self, text: str) -> None:
        found = counters(text)
        self.wrong += [f"{series} is gone" for series in self.highest.keys() - found.keys()]
        for series, value in found.items():
            if value < self.highest.get(series, 0.0):
                self.wrong.append(f"{series} fell from {self.highest[series]} to {value}")
        self.highest = found

    def history(self, text: str) -> None:
        page = json.loads(text)
        self.journals.add(page["journal"])
        seqs = [item["seq"] for item in page["items"]]
        if seqs != sorted(set(seqs)):
            self.wrong.append(f"seq falls: {seqs}")
        for item in page["items"]:
            self.item(item)

    def status(self, text: str) -> None:
        page = json.loads(text)
        self.journals.add(page["journal"])
        for stream in page["streams"]:
            if stream["open"]:  # its seq is not told; another answer may have told its end meanwhile
                self.served.setdefault(stream["open"]["id"], (0, "open"))

    def item(self, item: Mapping[str, Any]) -> None:
        seq, state = self.served.get(item["id"], (0, "open"))
        if item["seq"] >= seq:  # answers that were under way together may come in any order
            if state != "open" and item["state"] == "open":
                self.wrong.append(f"{item['id']} was {state}, and is open again")
            self.served[item["id"]] = item["seq"], item["state"]

    def since(self) -> int:
        return max(0, max((seq for seq, _ in self.served.values()), default=0) - 500)


@dataclass
class Site:
    """The peer under test, what it probes, and who reads it."""

    folder: Path
    children: Children
    session: aiohttp.ClientSession
    ports: Mapping[str, int]
    relays: list[Relay]
    reader: Reader
    prometheus: int  # its port; 0: there is none
    disk: Path  # where its journal is

    @property
    def journal(self) -> Path:
        return self.disk / "peer-here.db"

    async def start(self) -> Child:
        config = {
            "source": "here",
            "listen": {each: f"{LOCAL}:{self.ports[each]}" for each in PROTOCOLS},
            "web": {"listen_address": f"{LOCAL}:{self.ports['web']}"},
            "journal": {"path": str(self.disk)},
            "defaults": {"interval": dict.fromkeys(PROTOCOLS, 0.1)},
            "targets": [
                way("there", "pod", {each: int(relay.addresses[0][1]) for each, relay in self.ways()}),
            ],
        }
        path = self.folder / "here.json"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-c", CODE, "peer", f"--config.file={path}"]
        return await self.children.start("here", command, plain_environ((), clean(os.environ)))

    def ways(self) -> Iterator[tuple[str, Relay]]:
        return zip(PROTOCOLS, self.relays, strict=True)

    async def get(self, path: str, server: str = "http") -> str | None:
        """The whole answer, or None."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self.session.get(f"http://{LOCAL}:{self.ports[server]}{path}") as answer:
                text = await answer.text()
                return text if answer.status == 200 else None
        return None

    async def read(self, name: str) -> bool:
        """Ask once, note the answer."""
        reader = self.reader
        ask: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "metrics": ("/metrics", "web", reader.metrics),
            "status": ("/status", "http", reader.status),
            "history": (f"/history?since={reader.since()}&limit=1000&cleared=1", "http", reader.history),
        }
        path, server, note = ask[name]
        text = await self.get(path, server)
        if text is not None:
            reader.answers[name] += 1
            note(text)
        return text is not None

    async def read_on(self, name: str) -> None:
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            pause = 0.005 if await self.read(name) else 0.02

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await holds():  # noqa: ASYNC110 - it is another process' doing
                await asyncio.sleep(0.02)

    async def ask(self, expr: str) -> dict[tuple[str, str], float]:
        """What Prometheus says now, by target and protocol."""
        found = await self.query(expr)
        return {
            (each["metric"].get("target", ""), each["metric"].get("protocol", "")): float(each["value"][1])
            for each in found
        }

    async def query(self, expr: str) -> list[dict[str, Any]]:
        url = f"http://{LOCAL}:{self.prometheus}/api/v1/query"
        with contextlib.suppress(aiohttp.ClientConnectionError, aiohttp.ContentTypeError):  # it is starting
            async with self.session.post(url, data={"query": expr, "time": time.time()}) as response:
                answer = await response.json()
            assert answer["status"] == "success", answer
            found: list[dict[str, Any]] = answer["data"]["result"]
            return found
        return []


@contextlib.asynccontextmanager
async def site(folder: Path, disk: Path | None = None, *, prometheus: bool = False) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:

        def port() -> int:
            return int(stack.enter_context(contextlib.closing(hold_port())).getsockname()[1])

        children = await stack.enter_async_context(Children(folder))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20), headers={"Connection": "close"})
        )
        there = {each: port() for each in PROTOCOLS}
        listen = {f"--listen.{each}": f"{LOCAL}:{there[each]}" for each in PROTOCOLS}
        given = {**listen, "--web.listen-address": f"{LOCAL}:0", "--source": "there", "--peers": "nobody"}
        argv = [sys.executable, "-c", CODE, "peer", *flags({**given, "--journal.path": "off"})]
        await children.start("there", argv, plain_environ((), clean(os.environ)))
        relays = [await stack.enter_async_context(Relay({(LOCAL, 0): (LOCAL, there[each])})) for each in PROTOCOLS]
        ports = {each: port() for each in (*PROTOCOLS, "web")}
        made = Site(folder, children, session, ports, relays, Reader(), port() if prometheus else 0, disk or folder)
        if prometheus:
            await start_prometheus(children, made.prometheus, [made.ports["web"]])
        yield made


async def interrupt(relay: Relay, dice: random.Random, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(dice.uniform(0.05, 0.4))
        kind = dice.choice(["refuse", "refuse", "refuse", "drop", "stall", "reset", "flow_drop"])
        await relay.inject(kind, dice.choice([0.05, 0.1, 0.2, 0.4]))


def run_now(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
        return int(base.execute("SELECT value FROM meta WHERE key = 'run'").fetchone()[0])


async def crash(made: Site, kills: int) -> set[int]:
    """Kill and restart it so often, then wait until all is well; the runs, but the first, that answered."""
    dice = random.Random(SEED)
    runs: set[int] = set()
    stop = asyncio.Event()
    child = await made.start()
    await made.until(lambda: well(made))
    if made.prometheus:
        await made.until(lambda: knows(made, "ovnwatch_outages_total == 0"))
    reading = [asyncio.create_task(made.read_on(name)) for name in ("metrics", "status", "history")]
    breaking = [asyncio.create_task(interrupt(relay, random.Random(dice.random()), stop)) for relay in made.relays]
    await asyncio.sleep(dice.uniform(0.5, 1.5))
    for _ in range(kills):
        await made.children.kill(child)
        child = await made.start()
        before = made.reader.answers.copy()
        if dice.random() < 0.25:
            await asyncio.sleep(dice.uniform(0.1, 0.9))  # the next one comes while it starts
        else:
            await made.until(lambda before=before: more(made, before))  # type: ignore[misc]
            runs.add(run_now(made.journal))
            await asyncio.sleep(dice.uniform(0.0, 1.5))
    stop.set()
    await asyncio.gather(*breaking)
    await made.until(lambda: well(made))
    before = made.reader.answers.copy()
    await made.until(lambda: more(made, before))
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    return runs


async def well(made: Site) -> bool:
    """All streams are up and nothing is open."""
    status, history = await made.get("/status"), await made.get("/history?since=0&limit=1000&state=open&cleared=1")
    if status is None or history is None:
        return False
    return {each["state"] for each in json.loads(status)["streams"]} == {"up"} and not json.loads(history)["items"]


async def more(made: Site, before: Counter[str]) -> bool:
    """Was each of the three asked and answered since?"""
    return all(made.reader.answers[name] > before[name] + 1 for name in ("metrics", "status", "history"))


async def knows(made: Site, expr: str) -> bool:
    return bool(await made.ask(expr))


def of_stream(series: Series, name: str) -> dict[str, float]:
    """The values of a counter by protocol, of our one target."""
    found = {
        key.partition('protocol="')[2].partition('"')[0]: value for key, value in series.items() if name == bare(key)
    }
    assert found.keys() == set(PROTOCOLS)
    return found


def bare(series: str) -> str:
    return series.partition("{")[0]


def held_against(rows: list[Row], made: Site, runs: set[int]) -> None:
    """Assert that the journal, what was read, and what is counted agree."""
    reader = made.reader
    assert reader.wrong == []
    assert len(reader.journals) == 1
    kept = {row.id: row for row in rows}
    assert reader.served.keys() <= kept.keys()
    for key, (seq, state) in reader.served.items():
        assert kept[key].seq >= seq
        assert state == "open" or kept[key].state == state
    assert {row.state for row in rows} <= {"closed", "truncated"}
    assert check(made.journal) == []

    items = [read(row.item).item for row in rows]
    gaps = [item for item in items if item.kind == "gap"]
    assert runs <= {run_of(gap.id) for gap in gaps}
    restart_seconds = next(
        value for key, value in reader.highest.items() if "gap_seconds" in bare(key) and 'reason="restart"' in key
    )
    assert restart_seconds == pytest.approx(sum(gap.duration.estimate for gap in gaps), abs=ROUNDING)

    wanted: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(PROTOCOLS, 0.0))
    for item in items:
        if item.kind in LEDGERS:
            protocol = item.protocol.lower()
            wanted["seconds"][protocol] += item.duration.estimate
            if LEDGERS[item.kind] == "path":
                wanted["outages"][protocol] += 1
                wanted["lower"][protocol] += item.duration.lower
                wanted["upper"][protocol] += item.duration.upper
    told = {
        "outages": of_stream(reader.highest, "ovnwatch_outages_total"),
        "lower": of_stream(reader.highest, "ovnwatch_outage_seconds_lower_total"),
        "upper": of_stream(reader.highest, "ovnwatch_outage_seconds_upper_total"),
        "seconds": {each: sum(of_stream(reader.highest, name)[each] for name in SECONDS) for each in PROTOCOLS},
    }
    for name, values in wanted.items():
        assert told[name] == pytest.approx(values, abs=ROUNDING), name


def check(path: Path) -> list[str]:
    """What `ovnwatch history verify` finds."""
    known, checker = about(path), Checker()
    found = [*known.wrong]
    for row in read_only(path):
        columns = {name: getattr(row, name) for name in ("seq", "id", "kind", "state", "stream", "target", "path")}
        found += checker.add(read(row.item).item, columns)
    return [*found, *checker.end(known.run)]


def test_whatever_it_told_is_there_after_any_number_of_kills(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as made:
            runs = await crash(made, KILLS)
            rows = list(read_only(made.journal))
            states = Counter((row.kind, row.state) for row in rows)
            print(f"\n{KILLS} kills: {dict(made.reader.answers)} answers, {dict(states)}")
            assert states["gap", "closed"] >= len(runs) > 0
            assert len(rows) > KILLS
            held_against(rows, made, runs)

    asyncio.run(scenario())


@pytest.mark.system("prometheus")
def test_prometheus_sees_no_counter_fall_and_counts_what_the_journal_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path, prometheus=True) as made:
            runs = await crash(made, max(KILLS // 2, 4))
            rows = list(read_only(made.journal))
            held_against(rows, made, runs)
            outages = of_stream(made.reader.highest, "ovnwatch_outages_total")
            assert sum(outages.values()) > 0
            wanted = {("there", protocol): count for protocol, count in outages.items()}

            async def scraped() -> bool:
                return await made.ask("ovnwatch_outages_total") == wanted

            await made.until(scraped)
            for name in (
                "ovnwatch_outages_total",
                *SECONDS,
                "ovnwatch_probes_total",
                "ovnwatch_observed_seconds_total",
            ):
                assert set((await made.ask(f"resets({name}[1d])")).values()) == {0.0}, name
            # From the first sample, 0, to the last: increase() guesses further, what lies before and after them.
            assert (
                await made.ask("max_over_time(ovnwatch_outages_total[1d]) - min_over_time(ovnwatch_outages_total[1d])")
                == wanted
            )
            increases = await made.ask("increase(ovnwatch_outages_total[1d])")
            assert increases == pytest.approx(wanted, rel=0.2, abs=0.5)

    asyncio.run(scenario())


@pytest.mark.system("prometheus")
@pytest.mark.needs_root("mount")
def test_a_disk_that_is_full_for_a_while_stops_no_probe_and_loses_no_event(tmp_path: Path) -> None:
    async def scenario(disk: Path) -> None:
        async with site(tmp_path, disk, prometheus=True) as made:
            child = await made.start()
            await made.until(lambda: well(made))
            await made.until(lambda: knows(made, "ovnwatch_journal_errors_total == 0"))
            reading = [asyncio.create_task(made.read_on(name)) for name in ("status", "history")]
            stop = asyncio.Event()
            breaking = [
                asyncio.create_task(interrupt(relay, random.Random(number), stop))
                for number, relay in enumerate(made.relays, SEED)
            ]
            events = len(made.reader.served)
            filler = fill(disk)

            async def noticed() -> bool:
                failed = await errors(made) >= 4 and len(made.reader.served) > events + 3
                return failed and time.monotonic() - begin > FULL and await knows(made, FIRING)

            begin, before = time.monotonic(), await probes(made)
            await made.until(noticed)
            after, seconds = await probes(made), time.monotonic() - begin
            # Of three streams, ten a second each, less what an idle moment of a busy machine takes.
            assert after - before > 0.7 * 30 * (seconds - 1.0)

            assert len(await made.query(FIRING)) == 1

            filler.unlink()
            await made.until(lambda: said(child, "takes events again"))
            stop.set()
            await asyncio.gather(*breaking)
            await made.until(lambda: well(made))
            await asyncio.sleep(0.1)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            failures = await errors(made)
            await made.read("metrics")
            assert child.log.read_text().count("measuring goes on") == 1
            rows = list(read_only(made.journal))
            print(f"full for {seconds:.1f} s: {failures:.0f} transactions failed, {len(rows)} events")
            held_against(rows, made, set())

    with disk(tmp_path / "disk", "16m") as folder:
        asyncio.run(scenario(folder))


async def said(child: Child, words: str) -> bool:
    return words in child.log.read_text()


async def total(made: Site, name: str) -> float:
    """A metric summed over its series, waiting for an answer."""
    while True:
        text = await made.get("/metrics", "web")
        if text is not None:
            lines = (line.rpartition(" ") for line in text.splitlines())
            return sum(float(value) for series, _, value in lines if bare(series) == name)
        await asyncio.sleep(0.02)


async def errors(made: Site) -> float:
    return await total(made, "ovnwatch_journal_errors_total")


async def probes(made: Site) -> float:
    """Made and missed: the clock that calls for them goes on."""
    return await total(made, "ovnwatch_probes_total") + await total(made, "ovnwatch_probes_skipped_total")
