"""The manifests are valid, ask for no more than they need, and do what their comments say; a changed one is caught."""

import copy
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from policy import WORKLOADS, broken
from test_scrape import schema_errors

from exporters import catalog
from exporters.discovery.resources import NEEDS, NODES, resource, slices_of
from exporters.migration.resources import RESOURCES
from exporters.peer.settings import load_peer
from manifests.__main__ import KUBECTL, OVERLAYS, ROOT, generated, render

pytestmark = pytest.mark.slow

MINORS = ("1.27", "1.37")  # the oldest we name in the docs, and the newest there is
COMPONENTS = sorted(path.name for path in (ROOT / "manifests/components").iterdir())
Objects = list[dict[str, Any]]


def rendered(overlay: str) -> Objects:
    return list(yaml.safe_load_all((ROOT / f"manifests/rendered/{overlay}.yaml").read_text()))


def named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def composed(folder: Path, *components: str, base: str = "../base") -> Objects:
    """The base with components, as somebody's own overlay beside the project's."""
    for each in ("base", "components"):
        shutil.copytree(ROOT / "manifests" / each, folder / each)
    own = folder / "own"
    own.mkdir()
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [base],
        "components": [f"../components/{each}" for each in components],
    }
    (own / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return list(yaml.safe_load_all(render(own)))


def invalid(objects: Objects) -> list[str]:
    """What Kubernetes' own schemas of both minors say is wrong, and those of other kinds where they are at hand."""
    wrong = []
    for each in objects:
        group = each["apiVersion"].rpartition("/")[0]
        if "." in group and not group.endswith(".k8s.io"):
            wrong += schema_errors(each)
            continue
        for minor in MINORS:
            try:
                kubernetes_validate.validate(each, minor, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{each['kind']}/{each['metadata']['name']}, {minor}: {error.message}")
    return wrong


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_and_asks_for_no_more_than_it_needs(overlay: str) -> None:
    objects = rendered(overlay)
    assert invalid(objects) == []
    assert broken(objects) == []
    assert len(objects) > 10


@pytest.mark.system(str(KUBECTL))
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_does_with_the_base(component: str, tmp_path: Path) -> None:
    objects = composed(tmp_path, component)
    assert invalid(objects) == []
    assert broken(objects) == []


def test_the_schemas_find_what_is_wrong() -> None:
    objects = rendered("openshift")
    for kind, change in (
        ("DaemonSet", lambda each: each["spec"].update(repliccas=3)),
        ("Service", lambda each: each["spec"].update(externalTrafficPolicy=1)),
    ):
        wrong = copy.deepcopy(next(each for each in objects if each["kind"] == kind))
        change(wrong)  # type: ignore[no-untyped-call]
        assert invalid([wrong]), kind


# --- the policy, by one change for each of its rules

Change = Callable[[dict[str, Any]], object]


def pod(each: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = each["spec"]["template"]["spec"]
    return found


def container(each: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod(each)["containers"][0]
    return found


WORKLOAD_CHANGES: dict[str, tuple[Change, str]] = {
    "host IPC": (lambda each: pod(each).update(hostIPC=True), "hostIPC: the host's namespace"),
    "no seccomp": (lambda each: pod(each)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    "token": (lambda each: pod(each).pop("automountServiceAccountToken"), "an API token"),
    "root": (lambda each: container(each)["securityContext"].update(runAsUser=0), "runs as root"),
    "writable": (lambda each: container(each)["securityContext"].pop("readOnlyRootFilesystem"), "can be written"),
    "escalation": (
        lambda each: container(each)["securityContext"].update(allowPrivilegeEscalation=True),
        "may gain privileges",
    ),
    "privileged": (lambda each: container(each)["securityContext"].update(privileged=True), "may gain privileges"),
    "kept": (lambda each: container(each)["securityContext"]["capabilities"].pop("drop"), "keeps capabilities"),
    "added": (
        lambda each: container(each)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "adds capabilities",
    ),
    "unconfined": (
        lambda each: container(each)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "no seccomp profile",
    ),
    "memory": (lambda each: container(each)["resources"]["limits"].pop("memory"), "no limit of memory"),
    "throttled": (lambda each: container(each)["resources"]["limits"].update(cpu="1"), "a limit of CPU"),
    "requests": (lambda each: container(each)["resources"]["requests"].pop("cpu"), "does not request"),
    "latest": (lambda each: container(each).update(image="registry:5000/a/ovnwatch:latest"), "latest tag"),
    "no tag": (lambda each: container(each).update(image="registry:5000/a/ovnwatch"), "latest tag"),
    "secret value": (
        lambda each: container(each).setdefault("env", []).append({"name": "OVNWATCH_TOKEN", "value": "x"}),
        "a secret in the environment",
    ),
    "secret key": (
        lambda each: (
            container(each)
            .setdefault("env", [])
            .append({"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}})
        ),
        "a secret in the environment",
    ),
    "secret argument": (lambda each: container(each)["args"].append("--web.token=abc"), "a secret in its arguments"),
    "secrets": (
        lambda each: container(each).update(envFrom=[{"secretRef": {"name": "a"}}]),
        "secrets in the environment",
    ),
}
# What the node exporter alone may.
ORDINARY_CHANGES: dict[str, tuple[Change, str]] = {
    "host network": (lambda each: pod(each).update(hostNetwork=True), "hostNetwork: the host's namespace"),
    "host processes": (lambda each: pod(each).update(hostPID=True), "hostPID: the host's namespace"),
    "maybe root": (lambda each: pod(each)["securityContext"].pop("runAsNonRoot"), "may run as root"),
    "root of all": (lambda each: pod(each)["securityContext"].update(runAsUser=0), "runs as root"),
    "host port": (lambda each: container(each)["ports"][0].update(hostPort=80), "a port of the host"),
    "override": (
        lambda each: container(each)["securityContext"]["capabilities"].update(add=["DAC_OVERRIDE"]),
        "adds capabilities",
    ),
    "host files": (
        lambda each: pod(each)["volumes"].append({"name": "a", "hostPath": {"path": "/etc"}}),
        "a path of the host",
    ),
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_policy_catches_a_change_of_any_workload(overlay: str) -> None:
    workloads = [each for each in rendered(overlay) if each["kind"] in WORKLOADS]
    assert len(workloads) == 3
    for each in workloads:
        node = each["metadata"]["name"] == "ovnwatch-node"
        for what, (change, wrong) in {**WORKLOAD_CHANGES, **({} if node else ORDINARY_CHANGES)}.items():
            changed = copy.deepcopy(each)
            change(changed)
            assert any(wrong in line for line in broken([changed])), (each["metadata"]["name"], what)


@pytest.mark.parametrize(
    ("kind", "change", "wrong"),
    [
        ("ClusterRole", lambda each: each["rules"][0].update(verbs=["*"]), "verbs: all of them"),
        ("ClusterRole", lambda each: each["rules"][0].update(resources=["*"]), "resources: all of them"),
        ("ClusterRole", lambda each: each["rules"][0].update(apiGroups=["*"]), "apiGroups: all of them"),
        ("ClusterRole", lambda each: each["rules"][0]["verbs"].append("patch"), "may change something"),
        ("ClusterRole", lambda each: each["rules"][0]["resources"].append("secrets"), "may read secrets"),
        ("ClusterRole", lambda each: each["rules"][0]["resources"].append("nodes/proxy"), "may read secrets"),
        ("ClusterRoleBinding", lambda each: each["roleRef"].update(name="cluster-admin"), "not ours"),
        ("ClusterRoleBinding", lambda each: each["subjects"][0].update(namespace="default"), "to others"),
        ("RoleBinding", lambda each: each["roleRef"].update(name="admin"), "not ours"),
        (
            "RoleBinding",
            lambda each: each["subjects"].append({"kind": "Group", "name": "system:authenticated"}),
            "to others",
        ),
        ("Role", lambda each: each["rules"][0].pop("resourceNames"), "may use whichever"),
        ("SecurityContextConstraints", lambda each: each.update(allowPrivilegedContainer=True), "allows privileges"),
        ("SecurityContextConstraints", lambda each: each.update(readOnlyRootFilesystem=False), "can be written"),
        ("SecurityContextConstraints", lambda each: each["allowedCapabilities"].append("*"), "allows capabilities"),
        ("SecurityContextConstraints", lambda each: each["groups"].append("system:authenticated"), "given to users"),
    ],
)
def test_the_policy_catches_a_change_of_rights(kind: str, change: Change, wrong: str) -> None:
    objects = rendered("openshift")
    name = (
        "ovnwatch-node-scc"
        if kind == "Role"
        else next(each["metadata"]["name"] for each in objects if each["kind"] == kind)
    )
    each = copy.deepcopy(named(objects, kind, name))
    change(each)
    assert any(wrong in line for line in broken([each]))


def test_the_policy_catches_a_host_that_can_be_written() -> None:
    node = copy.deepcopy(named(rendered("kind"), "DaemonSet", "ovnwatch-node"))
    container(node)["volumeMounts"][0].pop("readOnly")
    assert broken([node]) == ["DaemonSet/ovnwatch-node: node: /host: the host's files can be written"]


# --- what the comments say


def test_the_migration_exporter_may_read_what_it_watches_and_nothing_else() -> None:
    role = named(rendered("openshift"), "ClusterRole", "ovnwatch-migration")
    allowed = {
        (group, resource, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    assert {tuple(rule["verbs"]) for rule in role["rules"]} == {("list", "watch")}
    assert allowed == {(each.api_version.rpartition("/")[0], each.plural, each.only) for each in RESOURCES}


def allowed(role: dict[str, Any]) -> set[tuple[str, str]]:
    """Groups and resources that a role lets one list and watch, and nothing else."""
    assert {tuple(rule["verbs"]) for rule in role["rules"]} == {("list", "watch")}
    return {(group, each) for rule in role["rules"] for group in rule["apiGroups"] for each in rule["resources"]}


@pytest.mark.system(str(KUBECTL))
def test_who_finds_targets_may_read_what_that_takes_and_nothing_else(tmp_path: Path) -> None:
    objects = composed(tmp_path, "discovery")
    needed = [resource(each, "ovnwatch") for needs in NEEDS.values() for each in needs]
    wanted = {(each.api_version.rpartition("/")[0], each.plural) for each in needed}
    nodes = {each for each in wanted if each[1] == NODES}
    assert allowed(named(objects, "Role", "ovnwatch-discovery")) == wanted - nodes
    assert allowed(named(objects, "ClusterRole", "ovnwatch-discovery")) == nodes


def test_what_was_measured_of_peers_is_within_their_memory() -> None:
    rows = re.findall(
        r"^\| peer[^|]*\|[^|]*\|[^|]*\|[^|]*\| (\d+) MB \|", (ROOT / "docs/sizing.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 8
    peer = container(named(rendered("openshift"), "DaemonSet", "ovnwatch-peer"))["resources"]
    asked, most = (int(peer[each]["memory"].removesuffix("Mi")) << 20 for each in ("requests", "limits"))
    assert 1.3 * max(map(int, rows)) * 1e6 < asked < most


@pytest.mark.system(str(KUBECTL))
def test_peers_that_ask_dns_have_no_right_and_no_token(tmp_path: Path) -> None:
    objects = composed(tmp_path, "dns")
    assert [each for each in objects if each["kind"] in ("Role", "RoleBinding")] == []
    peer = named(objects, "DaemonSet", "ovnwatch-peer")
    assert pod(peer)["automountServiceAccountToken"] is False
    names = [each["name"] for each in container(peer)["env"]]
    assert names == ["OVNWATCH_KUBERNETES_DISCOVERY", "NODE_NAME"]
    (told,) = (each["data"]["peer.yaml"] for each in objects if "peer.yaml" in each.get("data", {}))
    (tmp_path / "peer.yaml").write_text(told)
    settings = load_peer([f"--config.file={tmp_path / 'peer.yaml'}"], {"OVNWATCH_KUBERNETES_DISCOVERY": "dns"})
    service = named(objects, "Service", settings.service)
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)


def test_the_image_has_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container(each)["image"] for name in OVERLAYS for each in rendered(name) if each["kind"] in WORKLOADS}
    assert images == {f"localhost/applications/ovnwatch:{version}"}


def test_peers_are_on_every_node_and_stay_there() -> None:
    peer = named(rendered("openshift"), "DaemonSet", "ovnwatch-peer")
    assert pod(peer)["tolerations"] == [{"operator": "Exists"}]
    assert "nodeSelector" not in pod(peer)


def test_a_node_port_leads_to_the_nodes_own_peer_another_to_any() -> None:
    objects = rendered("kubernetes")
    ports = {}
    for policy in ("Local", "Cluster"):
        spec = named(objects, "Service", f"ovnwatch-peer-{policy.lower()}")["spec"]
        assert (spec["type"], spec["externalTrafficPolicy"]) == ("NodePort", policy)
        ports[policy] = {each["name"]: each["nodePort"] for each in spec["ports"]}
    assert ports["Local"] == {"ws": 30080, "tcp": 30081, "http": 30082}
    assert ports["Cluster"] == {"ws": 30180, "tcp": 30181, "http": 30182}
    assert named(objects, "Service", "ovnwatch-peers")["spec"]["publishNotReadyAddresses"] is True


def test_on_openshift_rules_are_where_what_they_ask_for_is_scraped() -> None:
    objects = [each for each in rendered("openshift") if each["kind"] in ("PrometheusRule", "AlertingRule")]
    alerts: dict[str, set[str]] = {}
    for each in objects:
        own = {"openshift-monitoring": None, "ovnwatch-node": True, "ovnwatch": False}[each["metadata"]["namespace"]]
        for rule in (rule for group in each["spec"]["groups"] for rule in group["rules"]):
            alerts.setdefault(each["metadata"]["namespace"], set()).add(rule.get("alert", ""))
            for name in catalog.metrics_in(rule["expr"]):
                of_node = re.match("ovnwatch_(node_(?!phase|ready)|ovs_|ovn_)|ovs_|ovn_|container_", name)
                if own is None:
                    assert not name.startswith("ovnwatch_"), rule
                elif rule.get("alert") != "OvnwatchSnatMisplaced":
                    assert not of_node or own, rule
    assert alerts["ovnwatch"] | alerts["ovnwatch-node"] == {"", *catalog.load().thresholds}
    assert alerts["openshift-monitoring"] <= {*catalog.load().thresholds}
    assert "OvnwatchExporterAbsent" in alerts["ovnwatch"] & alerts["ovnwatch-node"]


def test_openshifts_console_has_all_boards() -> None:
    found = {
        each["metadata"]["name"]
        for each in rendered("openshift")
        if each["kind"] == "ConfigMap" and each["metadata"]["namespace"] == "openshift-config-managed"
    }
    assert found == {f"ovnwatch-{path.stem}" for path in (ROOT / "grafana/dashboards").glob("*.json")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_monitors_select_what_there_is(overlay: str) -> None:
    objects = rendered(overlay)
    pods = [
        (each["metadata"]["namespace"], each["spec"]["template"]["metadata"]["labels"], container(each)["ports"])
        for each in objects
        if each["kind"] in WORKLOADS
    ]
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] not in ("Service", "PodMonitor", "NetworkPolicy"):
            continue
        chosen = spec.get("podSelector", spec.get("selector"))
        labels = chosen.get("matchLabels", chosen)
        found = [
            {port["name"] for port in ports}
            for space, own, ports in pods
            if space == each["metadata"]["namespace"] and labels.items() <= own.items()
        ]
        assert found, each["metadata"]["name"]
        wanted = {port.get("targetPort") for port in spec.get("ports", ())} | {
            port["port"] for port in spec.get("podMetricsEndpoints", ())
        }
        assert all(wanted <= names for names in found), each["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_peers_are_told_is_a_good_configuration(overlay: str, tmp_path: Path) -> None:
    objects = rendered(overlay)
    (told,) = (each["data"]["peer.yaml"] for each in objects if "peer.yaml" in each.get("data", {}))
    (tmp_path / "peer.yaml").write_text(told)
    settings = load_peer([f"--config.file={tmp_path / 'peer.yaml'}"], {"NODE_NAME": "node-1", "HOSTNAME": "pod-7"})
    assert {each.path for each in settings.streams} == {"service"}
    if settings.service:
        (namespace,) = {each["metadata"]["namespace"] for each in objects if "peer.yaml" in each.get("data", {})}
        headless = named(objects, "Service", settings.service)
        assert (headless["metadata"]["namespace"], headless["spec"]["clusterIP"]) == (namespace, "None")
        there = slices_of(namespace, settings.service)
        role = named(objects, "Role", "ovnwatch-peer")
        assert role["metadata"]["namespace"] == there.namespace
        assert allowed(role) == {(there.api_version.rpartition("/")[0], there.plural)}


def test_the_three_peers_are_reached_as_the_migration_dashboard_had_them() -> None:
    objects = rendered("three-peers")
    services = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "Service"}
    kinds = {"svc": "ClusterIP", "np": "NodePort", "lb": "LoadBalancer"}
    assert {name: each["type"] for name, each in services.items()} == {
        f"peer-{number}-{way}": kind for number in (1, 2, 3) for way, kind in kinds.items()
    }
    assert [each["port"] for each in services["peer-2-svc"]["ports"]] == [8080, 8081, 8082]
    assert services["peer-2-svc"]["selector"]["ovnwatch/peer"] == "peer-2"
    for each in objects:
        if each["kind"] == "Deployment":
            spread = pod(each)["topologySpreadConstraints"][0]["labelSelector"]
            assert "matchLabels" not in spread, "each would be spread by itself"


@pytest.mark.system(str(KUBECTL))
def test_tls_reaches_every_exporter_and_who_scrapes_it(tmp_path: Path) -> None:
    objects = composed(tmp_path, "tls")
    for each in objects:
        if each["kind"] in WORKLOADS:
            only = container(each)
            assert "--web.config.file=/etc/ovnwatch-web/web.yml" in only["args"]
            probes = [only[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
            assert not any("httpGet" in probe for probe in probes)
            mounted = {mount["name"] for mount in only["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod(each)["volumes"]}
            assert {"web", "tls"} <= mounted <= set(volumes)
            config = volumes["web"]["configMap"]["name"]
            assert (config, each["metadata"]["namespace"]) in {
                (one["metadata"]["name"], one["metadata"]["namespace"]) for one in objects if one["kind"] == "ConfigMap"
            }
        if each["kind"] == "PodMonitor":
            endpoint = each["spec"]["podMetricsEndpoints"][0]
            assert endpoint["scheme"] == "https"
            assert endpoint["tlsConfig"]["cert"]["secret"]["name"] == "ovnwatch-scrape"


@pytest.mark.system(str(KUBECTL))
def test_plain_prometheus_finds_pods_by_annotation_and_no_operators_object_is_left(tmp_path: Path) -> None:
    objects = composed(tmp_path, "plain-prometheus")
    assert not [each for each in objects if "monitoring.coreos.com" in each["apiVersion"]]
    for each in objects:
        if each["kind"] in WORKLOADS:
            notes = each["spec"]["template"]["metadata"]["annotations"]
            ports = {port["name"]: port["containerPort"] for port in container(each)["ports"]}
            assert notes["prometheus.io/port"] == str(ports["metrics"])


def test_no_object_is_larger_than_the_api_takes() -> None:
    for name, text in generated().items():
        assert len(text) < 1_000_000, name


def test_no_address_of_anybodys_own_stands_in_a_manifest() -> None:
    for path in sorted((ROOT / "manifests").rglob("*.yaml")):
        if "rendered" in path.parts or "boards" in path.parts:
            continue
        for address in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", path.read_text()):
            assert address.startswith(("192.0.2.", "127.0.0.")), f"{path}: {address}"
