"""The forms of rules: each is what its schema says, and asks only for what is there where it is taken."""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import command, forms, rules
from alerts.forms import FORMS, Wanted
from exporters import catalog

CATALOG = catalog.load()
OBJECTS = {form: FORMS[form](CATALOG, Wanted()) for form in FORMS if form != "plain"}


def found(form: str) -> list[dict[str, Any]]:
    """All rules of a form."""
    documents = FORMS[form](CATALOG, Wanted()).values()
    return [rule for each in documents for group in each.get("spec", each)["groups"] for rule in group["rules"]]


def alerts(form: str) -> set[str]:
    return {each["alert"] for each in found(form) if "alert" in each}


def test_user_workload_monitoring_has_only_ours() -> None:
    everywhere = {name for name, each in CATALOG.foreign.items() if each.source == catalog.EVERYWHERE}
    named = set().union(*(catalog.metrics_in(each["expr"]) for each in found("openshift-user")))
    asked = {each.removesuffix("_bucket") for each in named}
    assert asked <= CATALOG.metrics.keys() | CATALOG.recorded.keys() | everywhere
    assert alerts("openshift-user") == set(CATALOG.thresholds), "each alert of ours works there"
    labels = [each["metadata"]["labels"] for each in OBJECTS["openshift-user"].values()]
    assert {each["openshift.io/prometheus-rule-evaluation-scope"] for each in labels} == {"leaf-prometheus"}


def test_the_platform_has_only_what_the_cluster_tells_and_records_nothing() -> None:
    asked = set().union(*(catalog.metrics_in(each["expr"]) for each in found("openshift-platform")))
    assert asked <= CATALOG.foreign.keys()
    assert not [each for each in found("openshift-platform") if "record" in each]
    assert not [each for each in found("openshift-platform") if "ovnwatch_" in each["expr"]]
    assert {
        "OvnwatchOvsCpuHigh",
        "OvnwatchOvsMemoryHigh",
        "OvnwatchOvsMemoryGrowing",
        "OvnwatchDatapathFlowsHigh",
        "OvnwatchIntegrationBridgeRulesHigh",
        "OvnwatchExternalBridgeRulesHigh",
        "OvnwatchOvsMessagesOverflowed",
        "OvnwatchFlowLimitReached",
        "OvnwatchUpcallsLost",
        "OvnwatchDaemonRestarted",
        "OvnwatchTunnelsMissing",
    } <= alerts("openshift-platform")
    assert {each["metadata"]["namespace"] for each in OBJECTS["openshift-platform"].values()} == {
        forms.PLATFORM_NAMESPACE
    }


def test_an_operator_has_all() -> None:
    assert found("prometheusrule") == found("plain")


def test_what_a_site_chooses(tmp_path: Path) -> None:
    said = ["--form=prometheusrule", "--label=release=stack", "--namespace=monitoring", f"--output-dir={tmp_path}"]
    assert command.main(["render", *said]) == 0
    for file in tmp_path.iterdir():
        metadata = yaml.load(file.read_text(), yaml.CSafeLoader)["metadata"]
        assert metadata["namespace"] == "monitoring"
        assert metadata["labels"]["release"] == "stack"
        assert metadata["name"] == f"ovnwatch-{file.stem}"
    assert command.main(["check", *said[:3], f"--rules-dir={tmp_path}"]) == 0
    assert command.main(["check", *said[:3], f"--rules-dir={tmp_path / 'nowhere'}"]) == 1
    (tmp_path / "ovs.yaml").write_text("")
    assert command.main(["check", *said[:3], f"--rules-dir={tmp_path}"]) == 2


@pytest.mark.parametrize(
    "flag",
    ["--label=release", "--label==x", "--label=a b=c", "--label=a=c d", "--label=a=" + "x" * 64, "--label=a/b/c=d",
     "--namespace=A", "--namespace=", "--namespace=a.b", "--form=paper", "--what"],
)  # fmt: skip
def test_what_cannot_be_chosen_is_no_verdict(flag: str) -> None:
    with pytest.raises(SystemExit, match="1"):
        command.main(["check", flag])


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system("promtool")
@pytest.mark.parametrize("form", OBJECTS)
def test_prometheus_accepts_what_is_in_an_object(form: str, tmp_path: Path) -> None:
    for name, written in OBJECTS[form].items():
        (tmp_path / name).write_text(rules.render(written["spec"]))
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, tmp_path.iterdir()))


CLUSTER = 'job="ovnkube-node", namespace="openshift-ovn-kubernetes", instance="worker-1", pod="ovnkube-node-x7"'
CGROUP = 'job="kubelet", metrics_path="/metrics/cadvisor", instance="10.0.0.9:10250", node="worker-1"'
FIRES = {
    "OvnwatchOvsCpuHigh": (f'container_cpu_usage_seconds_total{{{CGROUP}, id="/ovs.slice/ovs-vswitchd.service"}}', 45),
    "OvnwatchIntegrationBridgeRulesHigh": (f'ovs_vswitchd_bridge_flows_total{{{CLUSTER}, bridge="br-int"}}', 2000),
    "OvnwatchUpcallsLost": (f'ovs_vswitchd_dp_flows_lookup_lost{{{CLUSTER}, datapath="ovs-system"}}', 2),
    "OvnwatchOvsMessagesOverflowed": (f"ovs_vswitchd_rconn_overflow{{{CLUSTER}}}", 10),
}


@pytest.mark.system("promtool")
def test_the_platforms_alerts_fire_on_what_the_cluster_tells(tmp_path: Path) -> None:
    """Names as ovn-kubernetes 8871cd9ce (2026-08-21) and cAdvisor have them; each rises by so much a minute."""
    for name, written in OBJECTS["openshift-platform"].items():
        (tmp_path / name).write_text(rules.render(written["spec"]))
    series = [{"series": name, "values": f"0+{step}x60"} for name, step in FIRES.values()]
    firing = 'count by (alertname, k8s_node) (ALERTS{alertstate="firing", severity="warning"})'
    labels = [f'{{alertname="{name}", k8s_node="worker-1"}}' for name in FIRES]
    expected = {"expr": firing, "eval_time": "30m", "exp_samples": [{"labels": each, "value": 1} for each in labels]}
    nothing = {"expr": "ALERTS", "eval_time": "30m", "exp_samples": []}
    tests = [
        {"interval": "1m", "input_series": series, "promql_expr_test": [expected]},
        {"interval": "1m", "input_series": [{"series": "up", "values": "1x60"}], "promql_expr_test": [nothing]},
    ]
    files = [str(each) for each in tmp_path.iterdir()]
    (tmp_path / "case").write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(tmp_path / "case"))


NAMESPACE = "ovnwatch"
IT = f'namespace="{NAMESPACE}"'
# Who reads what is recorded: elsewhere all series have the same labels.
READS_RECORDED = {
    each["alert"]
    for each in found("openshift-user")
    if "alert" in each and catalog.metrics_in(each["expr"]) & CATALOG.recorded.keys()
}
CASES = [each for each in sorted((Path(__file__).parent / "rules").glob("*.yaml")) if each.stem in READS_RECORDED]


class Words(yaml.SafeLoader):
    """Reads 0x9 as it stands: ten zeros, and no number."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:int"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def in_one_namespace(test: dict[str, Any]) -> dict[str, Any]:
    """A test of rules where all series, and all alerts, have the namespace that is enforced."""
    for each in test["input_series"]:
        name, _, labels = each["series"].removesuffix("}").partition("{")
        kept = [label for label in re.findall(r'\w+="(?:[^"\\]|\\.)*"', labels) if not label.startswith("namespace=")]
        each["series"] = f"{name}{{{','.join([*kept, IT])}}}"
    for fires in (fires for each in test["alert_rule_test"] for fires in each["exp_alerts"]):
        fires["exp_labels"]["namespace"] = NAMESPACE
    test.pop("promql_expr_test", None)
    return test


def of_ours(test: dict[str, Any]) -> bool:
    names = {each["series"].partition("{")[0] for each in test["input_series"]}
    return "alert_rule_test" in test and all(each == "up" or each.startswith("ovnwatch_") for each in names)


@pytest.mark.system("promtool")
@pytest.mark.parametrize("case", CASES, ids=lambda each: each.stem)
def test_an_alert_fires_where_a_namespace_is_enforced(case: Path, tmp_path: Path) -> None:
    """Each series has it then, and so has whatever is recorded and whoever fires, as the operator's proxy sees to."""
    text = yaml.load(case.read_text(), Words)
    for file in text["rule_files"]:
        spec = copy.deepcopy(OBJECTS["openshift-user"][Path(file).name]["spec"])
        for rule in (rule for group in spec["groups"] for rule in group["rules"]):
            rule.setdefault("labels", {})["namespace"] = NAMESPACE
        (tmp_path / Path(file).name).write_text(rules.render(spec))
    tests = [in_one_namespace(each) for each in text["tests"] if of_ours(each)]
    assert tests
    (tmp_path / "case").write_text(yaml.safe_dump(text | {"rule_files": [f"{tmp_path}/*.yaml"], "tests": tests}))
    promtool("test", "rules", str(tmp_path / "case"))
