"""The Alertmanager configuration to copy: who is told what, what is kept back by what, and what people read."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pytest_httpserver import HTTPServer
from running import wait_for

from exporters import catalog
from lab import monitoring
from lab.children import hold_port, plain_environ

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "alerts/alertmanager.yaml"
CONFIG = yaml.safe_load(FILE.read_text())
CATALOG = catalog.load()
# What says that traffic is lost or that a step went wrong: no window and no migration keeps it back, only a turn of
# its own node or a greater alert does.
LOSS = {
    "OvnwatchStreamDown",
    "OvnwatchOutageEnded",
    "OvnwatchAllPathsDown",
    "OvnwatchExternalPathsDown",
    "OvnwatchOnePathDown",
    "OvnwatchBudgetBurning",
    "OvnwatchNodeNotBack",
    "OvnwatchRolloutHung",
}


def names(text: str) -> set[str]:
    """The alerts that a matcher names."""
    found = re.search(r'alertname=~?"(.*)"', text)
    if not found:
        return set()
    start, _, rest = found[1].partition("(")
    return {start + each for each in rest.rstrip(")").split("|")}


def matchers() -> Iterator[str]:
    yield from (each for route in CONFIG["route"]["routes"] for each in route["matchers"])
    for rule in CONFIG["inhibit_rules"]:
        yield from (*rule["source_matchers"], *rule["target_matchers"])


def test_it_names_only_alerts_there_are_and_labels_they_have() -> None:
    named = set().union(*map(names, matchers()))
    assert len(named) > 20
    assert named <= set(CATALOG.thresholds)
    scopes = {label for each in CATALOG.thresholds.values() for label in each.scope}
    equal = {label for rule in CONFIG["inhibit_rules"] for label in rule["equal"]}
    assert equal - {"alertname", "cluster", "instance"} <= scopes
    assert scopes - {"job", "router", "stage"} <= equal, "another limit of the same alert is not kept back without"


def test_no_window_and_no_migration_keeps_lost_traffic_back() -> None:
    muted = [route for route in CONFIG["route"]["routes"] if "mute_time_intervals" in route]
    assert muted
    assert all(names(each) and not names(each) & LOSS for route in muted for each in route["matchers"])
    under_way = [
        each for each in CONFIG["inhibit_rules"] if names(each["source_matchers"][0]) == {"OvnwatchMigrationUnderWay"}
    ]
    assert under_way
    assert not set().union(*(names(text) for each in under_way for text in each["target_matchers"])) & LOSS
    whole = {"OvnwatchBudgetBurning", "OvnwatchNodeNotBack", "OvnwatchRolloutHung"}
    kept = set().union(*(names(text) for rule in CONFIG["inhibit_rules"] for text in rule["target_matchers"]))
    assert not kept & whole, "what a turn costs is told all the same"


@pytest.mark.system("amtool")
def test_amtool_takes_it() -> None:
    done = subprocess.run(
        ["amtool", "check-config", str(FILE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 templates" in done.stdout


@pytest.mark.system("amtool")
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "OvnwatchWatchdog", "severity": "none"}, "watchdog"),
        ({"alertname": "OvnwatchNodeUnderWay", "severity": "none"}, "nobody"),
        ({"alertname": "OvnwatchStreamDown", "severity": "critical"}, "pager"),
        ({"alertname": "OvnwatchStreamDown", "severity": "warning"}, "chat"),
        ({"alertname": "OvnwatchOutageEnded", "severity": "info"}, "mail"),
        ({"alertname": "OvnwatchDaemonRestarted", "severity": "warning"}, "mail"),
        ({"alertname": "OvnwatchDaemonDown", "severity": "critical"}, "pager"),
        ({"alertname": "SomebodyElses", "severity": "warning"}, "chat"),
    ],
)
def test_who_is_told(labels: Mapping[str, str], receiver: str) -> None:
    told = [f"{name}={value}" for name, value in labels.items()]
    command = ["amtool", "config", "routes", "test", f"--config.file={FILE}", f"--verify.receivers={receiver}", *told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- a real one


class Manager(NamedTuple):
    """A running Alertmanager with that configuration, whose chat is a server of ours."""

    port: int
    chat: HTTPServer

    def tell(self, alerts: Sequence[Mapping[str, str]], **notes: str) -> None:
        body = json.dumps([{"labels": {"cluster": "east", **each}, "annotations": notes} for each in alerts]).encode()
        request = urllib.request.Request(f"{self.url}/alerts", data=body, headers={"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2"

    def states(self) -> dict[tuple[str, str], str]:
        """active or suppressed, by name and severity."""
        with urllib.request.urlopen(f"{self.url}/alerts", timeout=30) as answer:
            found = json.load(answer)
        return {
            (each["labels"]["alertname"].removeprefix("Ovnwatch"), each["labels"]["severity"]): each["status"]["state"]
            for each in found
        }

    def ready(self) -> bool:
        try:
            return isinstance(self.states(), dict)
        except OSError:
            return False


@pytest.fixture
def manager(tmp_path: Path, httpserver: HTTPServer) -> Iterator[Manager]:
    shutil.copytree(ROOT / "alerts/templates", tmp_path / "templates")
    httpserver.expect_request("/chat").respond_with_data("ok")
    config = yaml.safe_load(FILE.read_text())
    for receiver in config["receivers"]:
        chat = receiver.get("slack_configs", [])
        receiver_kept = {"name": receiver["name"]} | ({"slack_configs": chat} if chat else {})
        receiver.clear()
        receiver.update(receiver_kept)
        for each in chat:
            del each["api_url_file"]
            each["api_url"] = httpserver.url_for("/chat")
    config["route"]["group_wait"] = "0s"
    (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(config))
    _, program = monitoring.programs()
    with closing(hold_port()) as holder:
        port = int(holder.getsockname()[1])
        with (tmp_path / "log").open("wb") as log:
            command = monitoring.command("alertmanager", program, tmp_path, port)
            process = subprocess.Popen(command, stdout=log, stderr=log, env=plain_environ((), {}))
        try:
            found = Manager(port, httpserver)
            wait_for(found.ready)
            yield found
        finally:
            process.kill()
            process.wait()


def alert(name: str, severity: str = "warning", **labels: str) -> dict[str, str]:
    return {"alertname": f"Ovnwatch{name}", "severity": severity, "component": "ovnwatch", **labels}


TO_TWO = {"source": "node-1", "target": "node-2", "path": "pod", "protocol": "tcp", "family": "4"}
CASES = {
    "critical keeps warning and info back, of the same thing only": (
        [
            alert("StreamDown", "warning", **TO_TWO),
            alert("StreamDown", "critical", **TO_TWO),
            alert("OutageEnded", "info", **TO_TWO),
            alert("OutageEnded", "warning", **{**TO_TWO, "protocol": "ws"}),
        ],
        {("StreamDown", "warning")},
    ),
    "all paths keep one path back": (
        [
            alert("AllPathsDown", "critical", target="node-2"),
            alert("OnePathDown", target="node-2", path="pod"),
            alert("OneWay", source="node-1", target="node-2", path="pod"),
            alert("StreamDown", "critical", **TO_TWO),
            alert("NewConnectionsFail", target="node-3", path="pod"),
        ],
        {("OnePathDown", "warning"), ("OneWay", "warning"), ("StreamDown", "critical")},
    ),
    "a node under way keeps its own streams and daemons back, and nothing that its turn costs": (
        [
            alert("TargetUnderWay", "none", target="node-2", k8s_node="worker-2"),
            alert("NodeUnderWay", "none", k8s_node="worker-2"),
            alert("StreamDown", "critical", **TO_TWO),
            alert("AllPathsDown", "critical", target="node-2"),
            alert("DaemonDown", "critical", k8s_node="worker-2", daemon="ovs-vswitchd"),
            alert("BudgetBurning", "warning", target="node-2", path="pod"),
            alert("NodeNotBack", "critical", k8s_node="worker-2", kind="node"),
            alert("OnePathDown", "warning", target="node-3", path="pod"),
        ],
        {("StreamDown", "critical"), ("AllPathsDown", "critical"), ("DaemonDown", "critical")},
    ),
    "a migration under way keeps moves back, and no lost traffic": (
        [
            alert("MigrationUnderWay", "none", kind="mtu", phase="first round"),
            alert("GatewayMoved", "info"),
            alert("StreamDown", "critical", **TO_TWO),
            alert("SnatDoubled", "critical", external="192.0.2.1"),
        ],
        {("GatewayMoved", "info")},
    ),
    "a daemon that does not run explains its collectors, on its node": (
        [
            alert("DaemonDown", "critical", k8s_node="worker-1", daemon="ovn-controller"),
            alert("CollectorFailing", k8s_node="worker-1", collector="ovn-controller"),
            alert("ControllerDisconnected", "critical", k8s_node="worker-2"),
        ],
        {("CollectorFailing", "warning")},
    ),
}


@pytest.mark.system("prometheus", "prometheus-alertmanager")
@pytest.mark.parametrize(("alerts", "kept"), CASES.values(), ids=CASES)
def test_what_is_kept_back(manager: Manager, alerts: list[dict[str, str]], kept: set[tuple[str, str]]) -> None:
    manager.tell(alerts)
    wait_for(lambda: len(manager.states()) == len(alerts))
    assert {key for key, state in manager.states().items() if state == "suppressed"} == kept


@pytest.mark.system("prometheus", "prometheus-alertmanager")
def test_what_people_read(manager: Manager) -> None:
    manager.tell(
        [alert("OnePathDown", target="node-2", path="loadbalancer")],
        summary="A target is not reached by one path, and by others it is.",
        description="node-2 is not reached by the path loadbalancer, and it is by another one. Sources that see it: 3.",
        cause="what serves that path",
        recommendation="Look at what only that path needs.",
        runbook_url="alerts/runbooks/OvnwatchOnePathDown.md",
    )
    wait_for(lambda: manager.chat.log)
    told: dict[str, Any] = json.loads(manager.chat.log[0][0].data)["attachments"][0]
    assert told["title"] == "[WARNING] east: A target is not reached by one path, and by others it is."
    first, *rest = told["text"].strip().splitlines()
    assert re.fullmatch(r"since \d\d:\d\d:\d\d UTC: node-2 is not reached by the path loadbalancer, .*", first)
    assert rest == [
        "  To blame: what serves that path.",
        "  Look: Look at what only that path needs.",
        "  Runbook: alerts/runbooks/OvnwatchOnePathDown.md",
    ]
