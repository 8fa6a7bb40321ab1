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


@pytest.mark.parametrize(
    ("entry", "place", "said"),
    [
        ('query: "", metricName: a', "1: metrics[0].query", "asks for nothing"),
        ('query: "sum(up", metricName: a', "1: metrics[0].query", "( has no other one"),
        ("query: up, metricName: '***'", "1: metrics[0].metricName",
         "an alert cannot be named after it: it has neither letters nor digits"),
        ("query: up, metricName: a, threshold: {warning: .nan}", "1: metrics[0].threshold.warning",
         "Input should be a finite number"),
    ],
)  # fmt: skip
def test_an_entry_that_is_no_whole_one_is_an_error_with_its_line(entry: str, place: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        earlier.read(f"metrics: [{{{entry}}}]\n", "old.yaml", OURS)
    assert str(caught.value) == f"old.yaml:{place}: {said}"


def test_a_wait_that_is_none_is_an_error_with_its_line() -> None:
    with pytest.raises(BadInput) as caught:
        earlier.read("metrics: []\nalerting_rules: [{alert: a, expr: up > 1, for: 5 minutes}]\n", "old.yaml", OURS)
    assert str(caught.value) == (
        "old.yaml:2: alerting_rules[0].for: '5 minutes' is not a duration such as 90s or 1h30m"
    )


FLOWS = "query: ovs_vswitchd_dp_flows_total, metricName: FLOWS, "


@pytest.mark.parametrize(
    ("text", "kept", "said"),
    [
        (f"metrics: [{{{FLOWS}threshold: {{warning: 9, critical: 5}}}}]", {"warning": 9, "critical": 5},
         "metrics[0] FLOWS: warning, 9, is not milder than critical, 5"),
        (f"metrics: [{{{FLOWS}threshold: {{warning: 1}}}}, {{query: b, metricName: flows, threshold: {{warning: 2}}}}]",
         {"warning": 1}, "metrics[1] flows: its alert, OvnwatchFlows, stands twice; the first one is taken"),
        (f"metrics: [{{{FLOWS}threshold: {{warning: 1}}}}]\nalerting_rules: [{{alert: flows, expr: up < 1}}]",
         {"warning": 1}, "alerting_rules[0] flows: its alert, OvnwatchFlows, stands twice; the first one is taken"),
        (f"metrics: [{{{FLOWS}category: cpu}}]\nanalysis: {{cpu_thresholds: {{warning_percent: many}}}}", None,
         "metrics[0] FLOWS: analysis.cpu_thresholds has no number for warning"),
        ("metrics: []\nalerting_rules: [{alert: flows, expr: up > 5 and up > 3}]", None,
         "alerting_rules[0] flows: is more than one comparison, and is left out"),
    ],
)  # fmt: skip
def test_what_says_two_things_or_no_whole_one_is_said(text: str, kept: dict[str, float] | None, said: str) -> None:
    read, notes = earlier.read(text, "old.yaml", OURS)
    assert notes == [f"old.yaml: {said}"]
    assert (dict(read.thresholds["OvnwatchFlows"].limits) if kept else dict(read.thresholds)) == (kept or {})


def test_what_grows_and_is_compared_with_what_it_was_stays_as_it_is() -> None:
    query = "ovs_vswitchd_rconn_overflow - ovs_vswitchd_rconn_overflow offset 5m"
    read, _ = earlier.read(f"metrics: [{{query: {query}, metricName: a, threshold: {{warning: 9}}}}]", "old.yaml", OURS)
    assert read.thresholds["OvnwatchA"].query == query


def test_a_limit_may_have_an_exponent() -> None:
    read, said = earlier.read("metrics: []\nalerting_rules: [{alert: a, expr: up < -1.5e-3}]\n", "old.yaml", OURS)
    assert (dict(read.thresholds["OvnwatchA"].limits), said) == ({"warning": -0.0015}, [])


@pytest.mark.parametrize("expr", ["up == b", "up > 1.2.3", "up > ."])
def test_a_rule_that_compares_with_no_number_is_left_out(expr: str) -> None:
    read, said = earlier.read(f"metrics: []\nalerting_rules: [{{alert: a, expr: {expr}}}]\n", "old.yaml", OURS)
    assert not read.thresholds
    assert said == ["old.yaml: alerting_rules[0] a: compares with no number, and is left out"]


def test_a_file_without_any_limit_is_not_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.yaml").write_text("metrics: []\n")
    assert command.main(["check", "--metrics", str(tmp_path / "old.yaml")]) == 2
    assert capsys.readouterr().out == "there is no alert in it\n"


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
