"""The Alertmanager configuration to copy: who is told what, what is kept back by what, and what people read."""

import json
import re
import shutil
import socketserver
import subprocess
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from email import message_from_string, policy
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
        ({"alertname": "SomebodyElses"}, "chat"),
        ({"severity": "critical"}, "pager"),
        ({"alertname": "OvnwatchSnatMoved"}, "mail"),
        ({"alertname": "OvnwatchStreamDown", "severity": "CRITICAL"}, "chat"),
        ({"alertname": "xOvnwatchSnatMovedx", "severity": "critical"}, "pager"),
        ({"cluster": "east"}, "chat"),
    ],
)
def test_who_is_told(labels: Mapping[str, str], receiver: str) -> None:
    told = [f"{name}={value}" for name, value in labels.items()]
    command = ["amtool", "config", "routes", "test", f"--config.file={FILE}", f"--verify.receivers={receiver}", *told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- a real one


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server of ten lines: what it was sent is in `server.letters`."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            if line.startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = (each.removeprefix(b".") for each in iter(self.rfile.readline, b".\r\n"))
                self.server.letters.append(b"".join(lines).decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 yes\r\n")


class Manager(NamedTuple):
    """A running Alertmanager with that configuration, whose chat, pager and mail server are ours."""

    port: int
    server: HTTPServer
    letters: list[str]

    def told(self, where: str) -> list[Any]:
        """What was posted to `chat`, `pager` or `hook`."""
        return [json.loads(request.data) for request, _ in self.server.log if request.path == f"/{where}"]

    def tell(self, alerts: Sequence[Mapping[str, str]], ends: str = "", **notes: str) -> None:
        end = {"endsAt": ends} if ends else {}
        self.send({"labels": {"cluster": "east", **each}, "annotations": notes, **end} for each in alerts)

    def send(self, alerts: Iterable[Mapping[str, Any]]) -> None:
        body = json.dumps([*alerts]).encode()
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
    httpserver.expect_request(re.compile("/(chat|hook)")).respond_with_data("ok")
    httpserver.expect_request("/pager").respond_with_data("{}", status=202)
    config = yaml.safe_load(FILE.read_text())
    mailbox = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    mailbox.letters = []  # type: ignore[attr-defined]
    threading.Thread(target=mailbox.serve_forever, daemon=True).start()
    ours = {
        "slack_configs": {"api_url": httpserver.url_for("/chat")},
        "pagerduty_configs": {"routing_key": "0" * 32, "url": httpserver.url_for("/pager")},
        "email_configs": {"smarthost": f"127.0.0.1:{mailbox.server_address[1]}", "require_tls": False},
        "webhook_configs": {"url": httpserver.url_for("/hook")},
    }
    for receiver in config["receivers"]:
        if receiver["name"] == "watchdog":
            del receiver["webhook_configs"]
        for kind, here in ours.items():
            for each in receiver.get(kind, []):
                each.update(here)
                for key in ("api_url_file", "routing_key_file", "auth_username", "auth_password_file"):
                    each.pop(key, None)
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s"}
    (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(config))
    _, program = monitoring.programs()
    with closing(hold_port()) as holder:
        port = int(holder.getsockname()[1])
        with (tmp_path / "log").open("wb") as log:
            command = monitoring.command("alertmanager", program, tmp_path, port)
            process = subprocess.Popen(command, stdout=log, stderr=log, env=plain_environ((), {}))
        try:
            found = Manager(port, httpserver, mailbox.letters)  # type: ignore[attr-defined]
            wait_for(found.ready)
            yield found
        finally:
            mailbox.shutdown()
            mailbox.server_close()
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
    "a node under way keeps its exporters and its chassis back, and no other node's": (
        [
            alert("NodeUnderWay", "none", k8s_node="worker-2"),
            alert("ExporterDown", job="ovnwatch-peer", instance="worker-2", k8s_node="worker-2"),
            alert("ChassisBehind", "critical", chassis="5f3c", k8s_node="worker-2"),
            alert("ChassisBehind", "warning", chassis="77ab", k8s_node="worker-3"),
            alert("NorthdInactive", "critical", k8s_node="*"),
            alert("JobGone", job="ovnwatch-peer"),
        ],
        {("ExporterDown", "warning"), ("ChassisBehind", "critical")},
    ),
    "what has no node, no target or no cluster is kept back by nothing that has one": (
        [
            alert("NodeUnderWay", "none", k8s_node="worker-2"),
            alert("TargetUnderWay", "none", target="node-2", k8s_node="worker-2"),
            alert("AllPathsDown", "critical", target="node-2", cluster=""),
            alert("DaemonDown", "critical", daemon="ovs-vswitchd"),
            alert("SourceReachesNothing", "critical"),
        ],
        set(),
    ),
    "a cluster without a leader explains its northd, which needs its lock, and its members; not another cluster's": (
        [
            alert("RaftWithoutLeader", "critical", database="OVN_Southbound"),
            alert("NorthdInactive", "critical", k8s_node="*"),
            alert("DatabaseDisconnected", database="OVN_Southbound", k8s_node="central-1"),
            alert("NorthdBehind", k8s_node="*", cluster="west"),
        ],
        {("NorthdInactive", "critical"), ("DatabaseDisconnected", "warning")},
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
    wait_for(lambda: manager.told("chat"))
    told: dict[str, Any] = manager.told("chat")[0]["attachments"][0]
    assert told["title"] == "[WARNING] east: A target is not reached by one path, and by others it is."
    first, *rest = told["text"].strip().splitlines()
    assert re.fullmatch(r"firing since \d\d:\d\d:\d\d UTC: node-2 is not reached by the path loadbalancer, .*", first)
    assert rest == [
        "  To blame: what serves that path.",
        "  Look: Look at what only that path needs.",
        "  Runbook: alerts/runbooks/OvnwatchOnePathDown.md",
    ]


HOSTILE = (
    '<!channel> <https://evil.example|click> *x* `y` & "q" \u202e\r\nBcc: all@example.com\n\n<script>alert(1)</script>'
)
MOST = 12_000  # characters that somebody is to read at once


@pytest.mark.system("prometheus", "prometheus-alertmanager")
@pytest.mark.parametrize(
    ("name", "severity"), [("OnePathDown", "warning"), ("AllPathsDown", "critical"), ("OutageEnded", "info")]
)
def test_hundreds_at_once_with_hostile_names_are_one_short_message(manager: Manager, name: str, severity: str) -> None:
    hostile = [HOSTILE + str(number) + "x" * 10_000 for number in range(5)]
    targets = [*hostile, *(f"node-{number}" for number in range(495))]
    notes = {"summary": "A path fails.", "recommendation": "Look at it.", "runbook_url": "https://wiki.example/A.md"}
    manager.send(
        {
            "labels": alert(name, severity, target=each, cluster="<!here>\n"),
            "annotations": {**notes, "description": f"{each} is not reached."},
        }
        for each in targets
    )
    title, text = read(manager, severity)
    assert title == f"[{severity.upper()} x500] \u2039!here\u203a : A path fails."
    lines = text.strip().splitlines()
    assert len(lines) == 13, lines
    assert all(re.fullmatch(r"firing since \d\d:\d\d:\d\d UTC: .{1,500}", line) for line in lines[:10])
    assert lines[10:] == ["and 490 more", "  Look: Look at it.", "  Runbook: https://wiki.example/A.md"]
    assert len(text) < MOST
    assert not set("<>\u202e") & set(title + text)


def read(manager: Manager, severity: str) -> tuple[str, str]:
    """Title and text of the first that tells of all."""
    wait_for(lambda: any("x500" in title for title, _ in messages(manager, severity)))
    return next(each for each in messages(manager, severity) if "x500" in each[0])


def messages(manager: Manager, severity: str) -> list[tuple[str, str]]:
    """Each message by the way that alerts of a severity take, however big the rest of it is."""
    if severity == "critical":
        events = manager.told("pager")
        assert all(len(json.dumps(each)) < MOST + 4000 for each in events), "all of it, labels too"
        return [(each["payload"]["summary"], each["payload"]["custom_details"]["firing"]) for each in events]
    if severity == "warning":
        told = [each["attachments"][0] for each in manager.told("chat")]
        return [(each["title"], each["text"]) for each in told]
    letters = [message_from_string(each, policy=policy.default) for each in manager.letters]
    assert all(each["Bcc"] is None for each in letters)
    parts = [next(part for part in each.walk() if part.get_content_type() == "text/plain") for each in letters]
    return [(str(each["Subject"]), part.get_content()) for each, part in zip(letters, parts, strict=True)]


@pytest.mark.system("prometheus", "prometheus-alertmanager")
def test_what_is_over_is_bounded_too(manager: Manager) -> None:
    many = [alert("OnePathDown", target=f"node-{number}", path="pod") for number in range(30)]
    notes = {"summary": "A path fails.", "description": "It fails.", "runbook_url": "https://wiki.example/A.md"}
    manager.tell(many, **notes)
    wait_for(lambda: any("x30" in title for title, _ in messages(manager, "warning")))
    manager.tell(many, ends="2026-01-01T00:00:00Z", **notes)
    wait_for(lambda: messages(manager, "warning")[-1][0] == "[OVER] east: A path fails.")
    lines = messages(manager, "warning")[-1][1].strip().splitlines()
    assert lines == 10 * ["over since 00:00:00 UTC: It fails."] + ["and 20 more that are over"]


@pytest.mark.system("prometheus", "prometheus-alertmanager")
def test_an_alert_of_others_that_says_nothing_of_itself_is_told_all_the_same(manager: Manager) -> None:
    manager.tell([{"alertname": "SomebodyElses"}])
    wait_for(lambda: manager.told("chat"))
    told = manager.told("chat")[0]["attachments"][0]
    assert told["title"] == "[FIRING] east: SomebodyElses"
    assert re.fullmatch(r"firing since \d\d:\d\d:\d\d UTC: SomebodyElses\s*", told["text"])
