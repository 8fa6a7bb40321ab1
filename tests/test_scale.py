"""What one bastion carries: memory, punctuality, and an outage of all its targets at once.

Times are printed, for they are the machine's; asserted are counts and bounds. OVNWATCH_STREAMS asks for more streams.
"""

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bench.measure import cpu_seconds, resident
from prometheus_client.parser import text_string_to_metric_families
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for

from exporters.bastion.settings import load_bastion
from exporters.calibrate.faults import inject
from exporters.calibrate.namespaces import Lane, lanes
from exporters.settings import fits, for_probes

PROTOCOLS = ("http", "tcp", "ws")
# Streams that keep a connection; a tenth as many besides open one for each probe.
MANY = int(os.environ.get("OVNWATCH_STREAMS", "1000"))
CUT = int(os.environ.get("OVNWATCH_STREAMS", "300"))
ECHOES = (9001, 9002)  # a process each
MOST_RSS = 64 * 2**20  # bytes, of 200 streams: what a limit of 64Mi allows
OUTAGE = 10.0  # seconds
WATCHED = 10.0  # seconds in which nothing happens
STEADY = 910 if MANY >= 10_000 else 91  # streams that keep a connection while memory is watched
THIRD = 600.0 if MANY >= 10_000 else 6.0  # seconds: one to settle, and two to compare
SLACK = 2**20  # bytes

pytestmark = pytest.mark.slow


class Sample(NamedTuple):
    labels: Mapping[str, str]
    value: float


def metric(bastion: Exporter, name: str) -> list[Sample]:
    """The samples of that name."""
    _, text = bastion.get(f"/metrics?name[]={name}")
    families = text_string_to_metric_families(text)
    return [Sample(each.labels, each.value) for family in families for each in family.samples if each.name == name]


def total(bastion: Exporter, name: str) -> float:
    return sum(each.value for each in metric(bastion, name))


def states(bastion: Exporter) -> Counter[float]:
    return Counter(each.value for each in metric(bastion, "ovnwatch_stream_up"))


class Look(NamedTuple):
    """A bastion at one time: when, CPU seconds, and probes by how late they were sent at most (seconds)."""

    at: float
    cpu: float
    lags: Mapping[float, float]


def look(bastion: Exporter) -> Look:
    lags = {float(each.labels["le"]): each.value for each in metric(bastion, "ovnwatch_schedule_lag_seconds_bucket")}
    return Look(time.monotonic(), cpu_seconds(bastion.process.pid), lags)


def told(bastion: Exporter, before: Look, what: str) -> None:
    """Print what a bastion cost since `before`, and how late it was."""
    now = look(bastion)
    probes = {limit: count - before.lags[limit] for limit, count in now.lags.items()}
    most = max(probes.values())
    p99 = min(limit for limit, count in probes.items() if count >= 0.99 * most)
    cpu, rss = (now.cpu - before.cpu) / (now.at - before.at), resident(bastion.process.pid) / 1e6
    late = {limit: f"{1 - count / most:.4f}" for limit, count in sorted(probes.items()) if count < most}
    print(
        f"{what}: {cpu:.3f} of a core, {rss:.1f} MB, {most:.0f} probes, lag p99 <= {p99 * 1e3:g} ms; later than {late}"
    )


def start(log: Path, targets: Sequence[Mapping[str, Any]], **more: Any) -> Exporter:
    config = log.with_suffix(".yaml")
    config.write_text(json.dumps({"targets": list(targets), **more.pop("file", {})}))
    argv = {"--config.file": str(config), "--source": log.stem, **ANY_PORT}
    return Exporter(log, more.pop("command", "bastion"), *flags(argv), **more)


def test_two_hundred_streams_fit_into_64_mebibytes(tmp_path: Path) -> None:
    with killed_at_the_end() as running:
        nobody = [{"name": "nobody", "host": "127.0.0.1", "ports": {"tcp": 1}}]
        peers = [start(tmp_path / f"peer-{number}.log", nobody, command="peer") for number in (0, 1)]
        running.extend(peers)
        for peer in peers:
            wait_for(peer.ready)
        targets = [
            {
                "name": f"peer-{number}",
                "host": "127.0.0.1",
                "ports": {(each := PROTOCOLS[number % 3]): peers[number % 2].ports[each]},
            }
            for number in range(200)
        ]
        bastion = start(tmp_path / "bastion.log", targets, file={"defaults": {"interval": 0.5}})
        running.append(bastion)
        wait_for(bastion.ready)
        wait_for(lambda: states(bastion) == {1.0: 200})
        before, probes = look(bastion), total(bastion, "ovnwatch_probes_total")
        wait_for(lambda: total(bastion, "ovnwatch_probes_total") > probes + 200 * 20, every=5.0)
        told(bastion, before, "200 streams")
        assert resident(bastion.process.pid) <= MOST_RSS
        assert total(bastion, "ovnwatch_probe_unknown_total") == 0


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Cheap echoes in processes of their own on side "server"."""
    with lanes("owscale", 1) as (only,):
        for port in ECHOES:
            echoes = [sys.executable, str(Path(__file__).with_name("many_echoes.py")), str(port)]
            only.start_server(echoes, [port])
        yield only


def many(lane: Lane, count: int) -> list[dict[str, Any]]:
    """Targets of `count` streams that keep a connection, half tcp, half ws, and a tenth as many over http.

    Their paths do not end in /ping, or each would be asked for its history, too.
    """
    host = lane.addresses["server", 4]
    targets: list[dict[str, Any]] = []
    for number in range(count // 2):
        port = ECHOES[number % len(ECHOES)]
        targets.append({"name": f"t{number}", "host": host, "ports": {"tcp": port, "ws": port}})
        if number % 5 == 0:
            targets[-1]["ports"]["http"] = port
            targets[-1]["url_path"] = "/ping/"
    return targets


@contextmanager
def probing(folder: Path, lane: Lane, count: int) -> Iterator[tuple[Exporter, int]]:
    """A bastion on side "client" that sees so many streams up (see `many`), or as many as fit; and how many it has."""
    file = {"defaults": {"interval": 1.0}}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    targets = many(lane, count)
    with killed_at_the_end() as running:
        (folder / "asked.yaml").write_text(json.dumps({"targets": targets, **file}))
        asked = load_bastion(["--config.file", str(folder / "asked.yaml")], {}).streams
        room = fits(asked, for_probes(hard))
        if room < len(asked):
            print(f"only {room} of {len(asked)} streams fit, for a process may open {hard} files here")
            targets = targets[: room * len(targets) // len(asked)]
        bastion = start(folder / "bastion.log", targets, file=file, within=lane.client.name)
        running.append(bastion)
        wait_for(bastion.ready, 120.0, every=0.5)
        total_streams = sum(len(each["ports"]) for each in targets)
        wait_for(lambda: states(bastion) == {1.0: total_streams}, 120.0, every=2.0)
        yield bastion, total_streams


def unknown(bastion: Exporter) -> dict[str, float]:
    return {each.labels["reason"]: each.value for each in metric(bastion, "ovnwatch_probe_unknown_total") if each.value}


@pytest.mark.needs_root
def test_many_streams_are_all_probed(lane: Lane, tmp_path: Path) -> None:
    with probing(tmp_path, lane, MANY) as (bastion, count):
        probes = total(bastion, "ovnwatch_probes_total")
        before = look(bastion)  # the last scrape but that which ends it
        time.sleep(WATCHED)
        told(bastion, before, f"{count} streams, all up")
        assert total(bastion, "ovnwatch_probes_total") > probes
        assert unknown(bastion) == {}


@pytest.mark.needs_root
def test_memory_does_not_grow(lane: Lane, tmp_path: Path) -> None:
    with probing(tmp_path, lane, STEADY) as (bastion, count):
        before = look(bastion)
        highest = []
        for _third in range(3):
            seen = []
            for _ in range(30):
                time.sleep(THIRD / 30)
                bastion.get("/metrics")
                seen.append(resident(bastion.process.pid))
            highest.append(max(seen))
        told(bastion, before, f"{count} streams for {3 * THIRD:g} s, highest of each third {highest}")
        assert highest[2] <= 1.02 * highest[1] + SLACK


@pytest.mark.needs_root
def test_all_that_is_lost_at_once_is_one_outage_each(lane: Lane, tmp_path: Path) -> None:
    with probing(tmp_path, lane, CUT) as (bastion, count):
        before = look(bastion)
        (injected,) = inject(lane, "drop_both", OUTAGE)
        told(bastion, before, f"{count} streams, all down")
        wait_for(lambda: states(bastion) == {1.0: count}, 120.0, every=2.0)
        told(bastion, before, f"{count} streams, down and up again")
        wait_for(lambda: {each.value for each in metric(bastion, "ovnwatch_outage_open")} == {0.0}, every=1.0)
        outages = Counter(each.value for each in metric(bastion, "ovnwatch_outages_total"))
        lower, upper = (
            [each.value for each in metric(bastion, f"ovnwatch_last_outage_{bound}_seconds")]
            for bound in ("lower", "upper")
        )
        held = sum(
            low <= injected.longest and high >= injected.shortest for low, high in zip(lower, upper, strict=True)
        )
        print(f"outages by number {dict(outages)}, bounds held {held} of {len(lower)}; unknown {unknown(bastion)}")
        assert outages == {1.0: count}
        assert held == count
        assert min(upper) >= injected.shortest  # busy echoes may answer later than the network would let them
        assert unknown(bastion) == {}
