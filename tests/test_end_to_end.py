"""The whole chain as its users run it: `ovnwatch demo`, from the first lost probe to the alert at the receiver."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import wait_for

OVNWATCH = [sys.executable, "-c", "import sys; from exporters.cli import main; sys.exit(main())"]
PATTERNS = ("OnePathDown", "OneWay", "ExternalPathsDown", "AllPathsDown")

pytestmark = [pytest.mark.system("prometheus", "prometheus-alertmanager"), pytest.mark.slow]


def processes_of(folder: Path) -> dict[int, str]:
    """Number and command of all processes that were told to put their files into `folder`."""
    mine = f"TMPDIR={folder}".encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def demo(folder: Path, *flags: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "TMPDIR": str(folder)}
    pipe = subprocess.PIPE
    return subprocess.Popen([*OVNWATCH, "demo", *flags], env=environ, stdout=pipe, stderr=pipe, text=True)


def wait_until_all_runs(running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    assert any("wait" in line for line in running.stdout)


def test_every_interruption_is_measured_within_its_bounds_and_alerted(tmp_path: Path) -> None:
    running = demo(tmp_path, "--once")
    shown, said = running.communicate(timeout=300)
    assert running.returncode == 0, shown + said
    assert said == ""
    lines = shown.splitlines()
    assert any(line.split()[:3] == ["#", "injected", "true"] for line in lines)
    assert any(line.startswith("PASS: ") for line in lines)
    report = [line.split()[0] for line in lines[-5:]]
    assert report == ["FAIL:", "out", "longest:", "unexplained:", "watched:"], "nothing explains what was interrupted"
    assert "\x1b" not in shown
    assert "\r" not in shown
    for alert in ("StreamDown", "OutageEnded", "PeerFrozen", "ConnectionsBreaking", "Watchdog", *PATTERNS):
        assert f"Ovnwatch{alert}" in shown
    assert "the bastion says: " in shown
    assert processes_of(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    running = demo(tmp_path)
    wait_until_all_runs(running)
    # The demo, the relays, three peers, the bastion, Prometheus and Alertmanager; one that just starts has no name yet.
    wait_for(lambda: len(processes_of(tmp_path)) == 8)
    running.send_signal(number)
    shown, said = running.communicate(timeout=60)
    assert running.returncode == 0, shown + said
    assert processes_of(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    running = demo(tmp_path, "--once", "--keep")
    wait_until_all_runs(running)
    (peer_b,) = [number for number, command in processes_of(tmp_path).items() if "/b.yaml" in command]
    os.kill(peer_b, signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "peer-b was ended by SIGKILL" in said
    assert processes_of(tmp_path) == {}
    (kept,) = tmp_path.iterdir()
    assert (kept / "peer-b.log").exists()
