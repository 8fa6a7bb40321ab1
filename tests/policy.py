"""What no manifest of ours may ask for: pure, objects of Kubernetes in, what is wrong with them out."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet", "Job")
HOST = ("hostNetwork", "hostPID", "hostIPC")
# The one that looks at a node: what it may, and nobody else.
NODE = ("DaemonSet", "ovnwatch-node", "ovnwatch-node")  # kind, namespace, name
NODE_MAY = {"hostNetwork", "hostPID"}
NODE_CAPABILITIES = {"DAC_OVERRIDE"}
READERS = ("ovnwatch-migration", "ovnwatch-peer")  # of the API, as their roles let them, where they have one
OURS = {("ServiceAccount", "ovnwatch"), ("ServiceAccount", "ovnwatch-node")}
READING = {"get", "list", "watch", "use"}


def broken(objects: Iterable[Object]) -> list[str]:
    """One line for each rule an object breaks: `Kind/name: what`."""
    return [f"{each['kind']}/{each['metadata']['name']}: {wrong}" for each in objects for wrong in _wrongs(each)]


def _wrongs(each: Object) -> Iterator[str]:
    if each["kind"] in WORKLOADS:
        yield from _workload(each, each["spec"]["template"]["spec"])
    elif each["kind"] in ("Role", "ClusterRole"):
        yield from _role(each)
    elif each["kind"] in ("RoleBinding", "ClusterRoleBinding"):
        yield from _binding(each)
    elif each["kind"] == "SecurityContextConstraints":
        yield from _constraints(each)


def _workload(each: Object, pod: Object) -> Iterator[str]:
    node = (each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]) == NODE
    for field in HOST:
        if pod.get(field) and not (node and field in NODE_MAY):
            yield f"{field}: the host's namespace"
    if not node and pod.get("securityContext", {}).get("runAsNonRoot") is not True:
        yield "may run as root"
    if not node and pod.get("securityContext", {}).get("runAsUser") == 0:
        yield "runs as root"
    if pod.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") not in (False, each["metadata"]["name"] in READERS):
        yield "an API token for who needs none, or not said"
    for volume in pod.get("volumes", []):
        if "hostPath" in volume and not node:
            yield f"volume {volume['name']}: a path of the host"
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for wrong in _container(container, node):
            yield f"{container['name']}: {wrong}"


def _container(container: Object, node: bool) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "runs as root"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "its root file system can be written"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may gain privileges"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"]:
        yield "keeps capabilities"
    if set(capabilities.get("add", ())) - (NODE_CAPABILITIES if node else set()):
        yield "adds capabilities"
    if security.get("seccompProfile", {"type": "RuntimeDefault"})["type"] != "RuntimeDefault":
        yield "no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", [])) and not node:
        yield "a port of the host"
    yield from _resources(container)
    yield from _secrets(container)
    for mount in container.get("volumeMounts", []):
        if mount["mountPath"].startswith("/host") and mount.get("readOnly") is not True:
            yield f"{mount['mountPath']}: the host's files can be written"


def _resources(container: Object) -> Iterator[str]:
    resources = container.get("resources", {})
    if "memory" not in resources.get("limits", {}):
        yield "no limit of memory"
    if "cpu" in resources.get("limits", {}):
        yield "a limit of CPU, which would make it blind at times"
    if {"cpu", "memory"} - set(resources.get("requests", {})):
        yield "does not request CPU and memory"
    _, _, tag = container["image"].rpartition("/")[2].partition(":")
    if tag in ("", "latest") and "@sha256:" not in container["image"]:
        yield "an image of no or the latest tag"


def _secrets(container: Object) -> Iterator[str]:
    for variable in container.get("env", []):
        if "secretKeyRef" in variable.get("valueFrom", {}) or _secret(variable):
            yield f"{variable['name']}: a secret in the environment"
    if any("secretRef" in each for each in container.get("envFrom", [])):
        yield "secrets in the environment"
    for word in [*container.get("command", []), *container.get("args", [])]:
        if re.search(r"(token|password|secret)[= ]", word, re.IGNORECASE):
            yield "a secret in its arguments"


def _secret(variable: Object) -> bool:
    words = ("TOKEN", "PASSWORD", "SECRET", "KEY")
    return "value" in variable and any(word in variable["name"].upper() for word in words)


def _role(each: Object) -> Iterator[str]:
    for rule in each["rules"]:
        for field in ("apiGroups", "resources", "verbs"):
            if any("*" in value for value in rule.get(field, [])):
                yield f"{field}: all of them"
        if set(rule["verbs"]) - READING:
            yield "may change something"
        if "use" in rule["verbs"] and not rule.get("resourceNames"):
            yield "may use whichever there is"
        if {"secrets", "pods/exec", "serviceaccounts/token", "nodes/proxy"} & set(rule["resources"]):
            yield "may read secrets"


def _binding(each: Object) -> Iterator[str]:
    if not each["roleRef"]["name"].startswith("ovnwatch-"):
        yield "gives a role that is not ours"
    if any((subject["kind"], subject.get("namespace")) not in OURS for subject in each["subjects"]):
        yield "gives rights to others"


def _constraints(each: Object) -> Iterator[str]:
    if each["allowPrivilegedContainer"] or each["allowPrivilegeEscalation"] or each["allowHostIPC"]:
        yield "allows privileges"
    if not each["readOnlyRootFilesystem"]:
        yield "allows a root file system that can be written"
    if set(each["allowedCapabilities"] or ()) - NODE_CAPABILITIES:
        yield "allows capabilities"
    if each["users"] or each["groups"]:
        yield "is given to users, not by a role"
