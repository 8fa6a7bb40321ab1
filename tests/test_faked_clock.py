"""A real peer whose clock is an hour ahead: how much is measured, and its events stand where they belong."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for

AHEAD = 3600.0  # seconds
STOPPED = 3.0  # seconds: busy machines do not stop a peer for so long by themselves
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

pytestmark = [pytest.mark.system("faketime"), pytest.mark.slow]


def peer(folder: Path, source: str, *others: Exporter, **variables: str) -> Exporter:
    """A peer that probes others over tcp and http."""
    targets = [
        {"name": each.log.stem, "host": "127.0.0.1", "ports": {name: each.ports[name] for name in ("http", "tcp")}}
        for each in others
    ] or [{"name": "nobody", "host": "127.0.0.1", "ports": {"tcp": 1}}]
    return start(folder, "peer", source, targets, **variables)


def start(folder: Path, command: str, source: str, targets: list[dict[str, Any]], **variables: str) -> Exporter:
    config = folder / f"{source}.yaml"
    config.write_text(json.dumps({"targets": targets}))
    argv = flags({"--config.file": str(config), "--source": source, **ANY_PORT})
    made = Exporter(folder / f"{source}.log", command, *argv, **variables)
    wait_for(made.ready)
    return made


@pytest.fixture
def running() -> Iterator[list[Exporter]]:
    with killed_at_the_end() as exporters:
        yield exporters


def value(exporter: Exporter, name: str, about: str) -> float | None:
    families = text_string_to_metric_families(exporter.get(f"/metrics?name[]={name}")[1])
    found = [each.value for family in families for each in family.samples if each.labels["target"] == about]
    return found[0] if found else None


def frozen(bastion: Exporter) -> list[str]:
    """Who said that a peer had been frozen for as long as we stopped it, the newest first."""
    history = json.loads(bastion.get("/api/data")[1])["history"]
    over = [each for each in history if each["kind"] == "frozen" and each["state"] == "closed"]
    long = [each for each in over if each["protocol"] == "TCP" and each["duration"]["upper"] > STOPPED]
    return [each["stream"].partition("|")[0] for each in long]


def test_the_events_of_a_peer_whose_clock_is_wrong_stand_where_they_belong(
    tmp_path: Path, running: list[Exporter]
) -> None:
    assert FAKETIME, "libfaketime is missing"
    third = peer(tmp_path, "third")
    running.append(third)
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"+{AHEAD:.0f}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    ahead = peer(tmp_path, "ahead", third, **fake)
    running.append(ahead)
    here = peer(tmp_path, "here", third, ahead)
    running.append(here)
    ways = [
        {"name": each.log.stem, "host": "127.0.0.1", "ports": {"http": each.ports["http"]}} for each in (ahead, here)
    ]
    bastion = start(tmp_path, "bastion", "outside", ways)
    running.append(bastion)

    wait_for(lambda: value(here, "ovnwatch_clock_offset_seconds", "ahead") is not None)
    offset, error = (value(here, f"ovnwatch_clock_offset_{name}", "ahead") for name in ("seconds", "error_seconds"))
    assert offset is not None
    assert error is not None
    print(f"{offset:.6f} s ahead, to {error * 1e3:.3f} ms")
    assert abs(offset - AHEAD) <= error + 0.001  # faketime's own reading of the clock takes a moment

    for number in (1, 2):
        third.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED)
        third.process.send_signal(signal.SIGCONT)
        wait_for(lambda: len(frozen(bastion)) == 2 * number)  # noqa: B023 - called now
    newest, older = frozen(bastion)[:2], frozen(bastion)[2:]
    assert set(newest) == set(older) == {"ahead", "here"}  # by its own clock all of one would be newer
