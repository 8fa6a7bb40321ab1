import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import command, lint, reference, rules
from exporters import catalog

ROOT = Path(__file__).resolve().parent.parent
CATALOG = catalog.load()
FILES = rules.rule_files(CATALOG)
RULES = [rule for document in FILES.values() for group in document["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
CASES = sorted((ROOT / "tests/rules").glob("*.yaml"))
# What no test can show silent: it is made to fire always.
NEVER_SILENT = {"OvnwatchWatchdog"}
RUNBOOK = ["Meaning", "What users feel", "How to confirm", "What to do", "What it is not"]

each_alert = pytest.mark.parametrize(
    "alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}"
)


@cache
def expectations() -> list[tuple[str, list[dict[str, Any]]]]:
    """Each alert name that a promtool test asks for, with the alerts it expects."""
    return [
        (expected["alertname"], expected["exp_alerts"])
        for case in CASES
        for test in yaml.safe_load(case.read_text())["tests"]
        for expected in test.get("alert_rule_test", ())
    ]


def test_the_committed_rules_are_what_the_catalogue_says() -> None:
    """Run `ovnwatch rules` after a change to metrics.yaml."""
    committed = {file.name: file.read_text() for file in (ROOT / "alerts/rules").iterdir()}

    assert committed == {name: rules.render(document) for name, document in FILES.items()}


def test_the_committed_page_is_what_the_catalogue_says() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == reference.page(CATALOG)


def test_the_page_names_all_there_is() -> None:
    text = reference.page(CATALOG)
    named = [*CATALOG.metrics, *CATALOG.recorded, *CATALOG.thresholds, *CATALOG.foreign, *CATALOG.labels]
    assert [name for name in named if name not in text] == []


def test_the_command_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0

    written = {file.name: file.read_bytes() for file in (tmp_path / "alerts/rules").iterdir()}
    assert written == {file.name: file.read_bytes() for file in (ROOT / "alerts/rules").iterdir()}


def test_a_demonstration_waits_less_and_a_site_serves_its_own_runbooks(tmp_path: Path) -> None:
    arguments = ["--output-dir", str(tmp_path), "--scale-for", "0.1", "--runbook-base", "https://wiki.example/"]
    assert command.main(arguments) == 0

    texts = [file.read_text() for file in tmp_path.iterdir()]
    found = [rule for text in texts for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    never = next(rule for rule in found if rule.get("alert") == "OvnwatchTargetNeverReached")
    assert never["for"] == "30s"
    assert never["annotations"]["runbook_url"] == "https://wiki.example/OvnwatchTargetNeverReached.md"


@pytest.mark.parametrize("factor", ["-1", "nan", "fast", "1001"])
def test_a_factor_that_is_none_is_refused(factor: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="1"):
        command.main(["--output-dir", str(tmp_path), f"--scale-for={factor}"])


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert command.main(["--output-dir", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.system("promtool")
def test_a_query_that_prometheus_cannot_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "metrics.yaml").read_text()
    assert text.count("absent(ovnwatch_build_info)") == 1
    (tmp_path / "metrics.yaml").write_text(text.replace("absent(ovnwatch_build_info)", "absent(ovnwatch_build_info +)"))

    assert command.main(["check", "--metrics", str(tmp_path / "metrics.yaml")]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"exporters\.yaml: .*OvnwatchExporterAbsent.*could not parse expression", line)


def test_without_promtool_it_is_said_that_queries_are_not_parsed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert command.main(["check"]) == 0
    assert "promtool is not here" in capsys.readouterr().out


def test_a_file_that_is_no_text_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.yaml").write_bytes(b"metrics: \xff\xfe")
    assert command.main(["check", "--metrics", str(tmp_path / "metrics.yaml")]) == 1
    assert "metrics.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0s", "5m", "1m30s", "1d12h", "250ms", "1h0m5s"])
def test_durations_survive_the_way_there_and_back(text: str) -> None:
    assert catalog.seconds(rules.duration(catalog.seconds(text))) == catalog.seconds(text)


@pytest.mark.parametrize(
    ("query", "limit", "unit", "expression", "told"),
    [
        ("up", 1.0, "state", "up < 1", "1"),
        ("up and down", 0.5, "count", "(up and down) < 0.5", "0.5"),
        ("up == 1", 90.0, "seconds", "(up == 1) < 90", "1m30s"),
        ("up\nor down", 0.07, "ratio", "(\n  up\n  or down\n) < 0.07", "7%"),
    ],
)
def test_how_a_limit_is_compared_and_told(query: str, limit: float, unit: str, expression: str, told: str) -> None:
    hot = catalog.Threshold(
        name="Hot",
        category="heat",
        query=query,
        window=None,
        unit=unit,
        compare="<",
        limits={"info": limit},
        for_seconds=0,
        scope=("source",),
        summary="Hot.",
        description="{source} is under {limit}.",
        recommendation="Cool it.",
    )
    (alert,) = rules.alerts(hot, CATALOG, scale_for=1, runbook_base="runbooks/")

    assert alert["expr"] == expression
    assert alert["annotations"]["description"] == f"{{{{ $labels.source }}}} is under {told}."


@each_alert
def test_an_alert_has_all_that_its_reader_needs(alert: dict[str, Any]) -> None:
    assert alert["labels"].keys() == {"severity", "component"}
    assert alert["labels"]["severity"] in catalog.SEVERITIES
    cause = {"cause"} if CATALOG.thresholds[alert["alert"]].where_to_look else set()
    assert alert["annotations"].keys() == {"summary", "description", "recommendation", "runbook_url"} | cause
    assert all(alert["annotations"][key].endswith(".") for key in ("summary", "description", "recommendation"))


@each_alert
def test_an_alert_compares_and_its_labels_hold_no_value(alert: dict[str, Any]) -> None:
    assert re.search(r" (>|>=|<|<=) -?[0-9.]+$", alert["expr"])
    assert not any("{" in label for label in alert["labels"].values())


def test_nothing_is_wrong_that_can_be_found_without_prometheus() -> None:
    assert lint.faults(FILES, CATALOG) == []


@each_alert
def test_an_alert_that_shows_a_pattern_says_what_the_pattern_says(alert: dict[str, Any]) -> None:
    key = CATALOG.thresholds[alert["alert"]].where_to_look
    if key is not None:
        pattern, told = CATALOG.where_to_look[key], alert["annotations"]
        assert (told["summary"], told["recommendation"]) == (pattern.summary, pattern.look)
        assert "query" not in told["description"], "ten thousand streams must not mean ten thousand look-ups"


def test_the_patterns_that_alert() -> None:
    shown = [threshold.where_to_look for threshold in CATALOG.thresholds.values() if threshold.where_to_look]
    assert sorted(shown) == [
        "established_broken",
        "external_down",
        "new_connections_fail",
        "observer_suspect",
        "one_way",
        "path_down",
        "target_down",
    ]


@each_alert
def test_an_alert_waits_less_than_a_migration_step(alert: dict[str, Any]) -> None:
    assert catalog.seconds(alert.get("for", "0s")) <= 600


@each_alert
def test_an_alert_has_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["annotations"]["runbook_url"] == f"alerts/runbooks/{alert['alert']}.md"
    lines = (ROOT / alert["annotations"]["runbook_url"]).read_text().splitlines()
    assert lines[0] == f"# {alert['alert']}"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == RUNBOOK


def test_a_runbook_has_an_alert_and_names_only_metrics_that_exist() -> None:
    runbooks = list((ROOT / "alerts/runbooks").iterdir())

    assert {file.stem for file in runbooks} == set(CATALOG.thresholds)
    series = set(CATALOG.metrics) | {f"{name}_bucket" for name in CATALOG.metrics}
    series |= {name.split(":")[1] for name in CATALOG.recorded}
    for file in runbooks:
        assert set(re.findall(r"\bovnwatch_\w+", file.read_text())) <= series, file.name


@each_alert
def test_an_alert_is_tested_firing_and_silent(alert: dict[str, Any]) -> None:
    name, severity = alert["alert"], alert["labels"]["severity"]
    asked = [expected for asked, expected in expectations() if asked == name]

    assert any(each["exp_labels"]["severity"] == severity for expected in asked for each in expected), "never fires"
    assert name in NEVER_SILENT or [] in asked, "never silent"


@pytest.mark.system
def test_prometheus_accepts_the_rules() -> None:
    committed = sorted((ROOT / "alerts/rules").iterdir())
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, committed))


@pytest.mark.system
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_prometheus_fires_as_expected(case: Path) -> None:
    promtool("test", "rules", str(case))


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- what real daemons said, when all was well


def captured() -> dict[str, str]:
    """Each series of the captures of one release of OVS and of OVN, with its value; those made by hand left out."""
    found: dict[str, str] = {}
    for file in sorted((ROOT / "tests/data").glob("*.rows")):
        if "synthetic" in file.name or not re.search(r"_(3\.5\.0|25\.03\.0)$", file.stem):
            continue
        for line in file.read_text().splitlines():
            name, _, rest = line.partition(" ")
            said, _, value = rest.rpartition(" ")
            metric = CATALOG.metrics.get(name)
            words = said.split(" ") if said else []
            if metric is None or len(words) != len(metric.labels):
                continue  # a value with a space in it
            labels = dict(zip(metric.labels, words, strict=True)) | {"instance": f"{file.stem}:9481", "job": "node"}
            found[f"{name}{{{','.join(f'{label}={json.dumps(text)}' for label, text in labels.items())}}}"] = value
    return found


@pytest.mark.system
@pytest.mark.parametrize(
    "values",
    ["{0}x60", "{0}x20 _ {0}x40", "{0}x20 stale _x3 {0}x40", "_x10 {0}x50", "{0}x20 stale"],
    ids=["all the time", "a scrape is missed", "the exporter restarts", "it comes", "it goes"],
)
def test_what_real_daemons_said_when_all_was_well_calls_nobody(values: str, tmp_path: Path) -> None:
    series = [{"series": name, "values": values.format(value)} for name, value in captured().items()]
    assert len(series) > 150
    files = [str(ROOT / "alerts/rules" / name) for name in ("ovs.yaml", "ovn.yaml", "node.yaml")]
    firing = 'count_over_time(ALERTS{alertstate="firing"}[1h])'
    asked = {"expr": firing, "eval_time": "59m", "exp_samples": []}
    case = {"rule_files": files, "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}]}  # fmt: skip
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    promtool("test", "rules", str(tmp_path / "case.yaml"))
