"""The benchmarks run in their short form and say what they should; no time is judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # sockets, processes and their time-outs

ROOT = Path(__file__).resolve().parents[1]
NODE = ("prometheus-node-exporter", "ovsdb-server", "ovs-vswitchd", "ovs-appctl")
FIELDS = {"name", "ratio", "goal", "ok", "detail"}


def bench(output: Path, *names: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", "--short", f"--output={output}", *names]
    environ = {**os.environ, **({"PATH": path} if path is not None else {})}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("scheduler", 2),
        ("watching", 3),
        pytest.param("probes", 3, marks=[pytest.mark.system, pytest.mark.slow]),
        pytest.param("rules", 2, marks=[pytest.mark.system("prometheus")]),
        pytest.param("boards", 1, marks=[pytest.mark.system("prometheus", "promtool")]),
        pytest.param("node", 4, marks=[pytest.mark.system(*NODE), pytest.mark.needs_root]),
    ],
)
def test_short_form_yields_results(tmp_path: Path, name: str, results: int) -> None:
    output = tmp_path / "build" / "bench.json"
    done = bench(output, name)
    assert done.returncode in {0, 2}, done.stderr
    found = json.loads(output.read_text())
    assert len(found) == results
    for each in found:
        assert each.keys() == FIELDS
        assert each["ratio"] > 0
        assert each["ok"] is (each["ratio"] <= each["goal"])
        assert each["detail"]["spread"][0] <= each["ratio"] <= each["detail"]["spread"][1]
        assert each["name"] in done.stdout
    assert done.returncode == (0 if all(each["ok"] for each in found) else 2)


def test_unknown_name_is_an_error(tmp_path: Path) -> None:
    done = bench(tmp_path / "bench.json", "scheduler", "nonsense")
    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert not (tmp_path / "bench.json").exists()


def test_missing_reference_is_an_error(tmp_path: Path) -> None:
    done = bench(tmp_path / "bench.json", "probes", path="")
    assert done.returncode == 1
    assert "blackbox-exporter is not installed" in done.stderr
    assert json.loads((tmp_path / "bench.json").read_text()) == []
