"""Files of the earlier OVS analysis: read as they are, made true, and what in them can never match is named."""

import subprocess
from pathlib import Path

import pytest

from alerts import command, rules
from exporters import catalog, earlier
from exporters.strictyaml import BadInput

FILE = Path(__file__).parent / "data/earlier_metrics.yaml"
OURS = catalog.load()
READ, SAID = earlier.read(FILE.read_text(), FILE.name, OURS)


def limits(name: str) -> dict[str, float]:
    return dict(READ.thresholds[name].limits)


def test_what_a_users_file_says() -> None:
    assert earlier.is_earlier(FILE.read_text())
    assert list(READ.thresholds) == [
        "OvnwatchOvsVswitchdCpuUsage",
        "OvnwatchOvsdbServerCpuUsage",
        "OvnwatchOvsDbMemorySizeBytes",
        "OvnwatchOvsVswitchMemorySizeBytes",
        "OvnwatchOvsDatapathFlowsTotal",
        "OvnwatchOvsRconnOverflowTotal",
        "OvnwatchOvsDatapathErrorRate",
        "OvnwatchOVSHighCPUUsage",
        "OvnwatchOVSConnectionOverflow",
    ]
    assert limits("OvnwatchOvsdbServerCpuUsage") == {"warning": 50, "critical": 75}
    assert limits("OvnwatchOvsDbMemorySizeBytes") == {"warning": 500 * 2**20, "critical": 1000 * 2**20}
    assert limits("OvnwatchOvsVswitchMemorySizeBytes") == {"warning": 500 * 2**20, "critical": 1000 * 2**20}
    overflow = READ.thresholds["OvnwatchOVSConnectionOverflow"]
    assert (overflow.query, overflow.compare, overflow.limits) == (
        "increase(ovs_vswitchd_rconn_overflow[5m])",
        ">",
        {"critical": 100},
    )
    assert overflow.for_seconds == 60


def test_what_is_said_of_it() -> None:
    never = "is exported by nobody, so that it never matches"
    expected = {
        "metrics[1] ovsdb-server-cpu-usage": "its threshold is not that of analysis.cpu_thresholds; its own is taken",
        "metrics[6] OVS_RCONN_OVERFLOW_TOTAL": "ovs_vswitchd_rconn_overflow only grows; judged by what it gains in 15m",
        "metrics[7] OVS_MEGAFLOW_CACHE_HITS": f"ovs_vswitchd_megaflow_cache_hits_total {never}",
        "metrics[8] OVS_DATAPATH_ERROR_RATE": f"ovs_vswitchd_datapath_errors_total {never}",
        "alerting_rules[0] OVSHighCPUUsage": f"ovs_vswitchd_cpu_usage {never}",
    }
    assert [f"earlier_metrics.yaml: {place}: {said}" for place, said in expected.items()] == SAID


def test_what_grows_is_judged_by_what_it_gains() -> None:
    assert READ.thresholds["OvnwatchOvsRconnOverflowTotal"].query == "sum(increase(ovs_vswitchd_rconn_overflow[15m]))"


def test_what_is_no_such_file() -> None:
    assert not earlier.is_earlier("metrics: {a: {}}")
    assert not earlier.is_earlier("[")
    with pytest.raises(BadInput) as caught:
        earlier.read("metrics:\n  - {query: up, metricName: a, treshold: 5}\nmore: 1\n", "old.yaml", OURS)
    assert str(caught.value).splitlines() == [
        "old.yaml:2: metrics[0].treshold: unknown key",
        "old.yaml:3: more: unknown key",
    ]


def test_a_rule_that_compares_with_no_number_is_left_out() -> None:
    read, said = earlier.read("metrics: []\nalerting_rules: [{alert: a, expr: up == b}]\n", "old.yaml", OURS)
    assert not read.thresholds
    assert said == ["old.yaml: alerting_rules[0] a: compares with no number, and is left out"]


def test_both_commands_take_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["check", "--metrics", str(FILE)]) == 2
    assert "never matches" in capsys.readouterr().out
    assert command.main(["render", "--metrics", str(FILE), "--output-dir", str(tmp_path)]) == 0
    assert "never matches" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["earlier.yaml"]


@pytest.mark.system("promtool")
def test_prometheus_takes_what_it_becomes(tmp_path: Path) -> None:
    (tmp_path / "earlier.yaml").write_text(rules.render(rules.rule_files(READ)["earlier.yaml"]))
    run = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "earlier.yaml")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
