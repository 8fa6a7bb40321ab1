"""Boards in the forms in which they reach a Grafana or OpenShift's console: file name -> text. Pure.

To add a form: a function of the boards, and a line in FORMS.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml

from grafana import console

Board = dict[str, Any]
Boards = Mapping[str, Board]  # by the names of their files

FOLDER = "ovnwatch"
MOUNTED = "/var/lib/grafana/dashboards/ovnwatch"
CONSOLE_NAMESPACE = "openshift-config-managed"
# An expression each of whose series is of one cluster, by its outermost aggregation, or as rules recorded it.
BY_CLUSTER = re.compile(
    r"(?:\d+ \* |(?:top|bottom)k\(\d+, |histogram_quantile\([\d.]+, )*(?:\w+ by \(cluster\b|\w+:ovnwatch_\w+:\w+\{)"
)
NAMES = {"app.kubernetes.io/name": "ovnwatch", "app.kubernetes.io/component": "dashboards"}


class Where(NamedTuple):
    """What a site calls things: the namespace of objects, and the label by which the operator finds its Grafana."""

    namespace: str = ""
    instance: tuple[str, str] = ("dashboards", "grafana")


def chosen(board: Board, *, multi_cluster: bool) -> Board:
    """The board as it is committed, or with a visible choice of clusters, whose names series and marks then bear."""
    if not multi_cluster:
        return board
    variables = [{**each, "hide": 0} if each["name"] == "cluster" else each for each in board["templating"]["list"]]
    marks = [{**each, "titleFormat": _named(each, "titleFormat")} for each in board["annotations"]["list"][1:]]
    return {
        **board,
        "templating": {"list": variables},
        "annotations": {"list": [board["annotations"]["list"][0], *marks]},
        "panels": [_clustered(each) for each in board["panels"]],
    }


def _clustered(panel: Board) -> Board:
    inner = {"panels": [_clustered(each) for each in panel["panels"]]} if "panels" in panel else {}
    if "targets" not in panel:
        return panel | inner
    for each in panel.get("transformations", ()):
        if each["id"] == "groupingToMatrix":
            row = each["options"]["rowField"]
            joined = f'label_join({{}}, "{row}", " / ", "cluster", "{row}")'
            return panel | {"targets": [asked | {"expr": joined.format(asked["expr"])} for asked in panel["targets"]]}
    if panel["type"] == "table":  # it has a column for it
        return panel
    return panel | {"targets": [each | {"legendFormat": _named(each, "legendFormat")} for each in panel["targets"]]}


def _named(asks: Board, name: str) -> str:
    """What the series that something asks for are called, with their cluster before it if each is of one."""
    called = str(asks[name])
    return f"{{{{cluster}}}} {called}" if BY_CLUSTER.match(asks["expr"]) else called


def text(board: Board) -> str:
    """A board's file; the same board always gives the same bytes."""
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _files(boards: Boards, _: Where) -> dict[str, str]:
    return {f"{name}.json": text(board) for name, board in boards.items()}


def _provisioning(boards: Boards, where: Where) -> dict[str, str]:
    """A file for Grafana's provisioning/dashboards, and the boards for the folder that it names."""
    provider = {
        "name": FOLDER,
        "orgId": 1,
        "folder": FOLDER,
        "folderUid": FOLDER,
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": MOUNTED},
    }
    written = {f"dashboards/{name}": each for name, each in _files(boards, where).items()}
    return {"provisioning/ovnwatch.yaml": _yaml({"apiVersion": 1, "providers": [provider]}), **written}


def _sidecar(boards: Boards, where: Where) -> dict[str, str]:
    """ConfigMaps that the sidecar of Grafana's chart finds by their label."""

    def metadata(name: str) -> dict[str, Any]:
        notes = {"annotations": {"grafana_folder": FOLDER}}
        return _metadata(f"ovnwatch-{name}", where.namespace, {**NAMES, "grafana_dashboard": "1"}) | notes

    return {f"{name}.yaml": _config_map(name, metadata(name), board) for name, board in boards.items()}


def _operator(boards: Boards, where: Where) -> dict[str, str]:
    """Objects that the operator of Grafana takes."""
    return {
        f"{name}.yaml": _yaml(
            {
                "apiVersion": "grafana.integreatly.org/v1beta1",
                "kind": "GrafanaDashboard",
                "metadata": _metadata(f"ovnwatch-{name}", where.namespace, NAMES),
                "spec": {
                    "instanceSelector": {"matchLabels": dict([where.instance])},
                    "allowCrossNamespaceImport": True,
                    "folder": FOLDER,
                    "json": _small(board),
                },
            }
        )
        for name, board in boards.items()
    }


def _console(boards: Boards, _: Where) -> dict[str, str]:
    """ConfigMaps that OpenShift's console shows under Observe, Dashboards; their namespace is its own."""
    labels = {**NAMES, "console.openshift.io/dashboard": "true"}
    return {
        f"{name}.yaml": _config_map(
            name, _metadata(f"ovnwatch-{name}", CONSOLE_NAMESPACE, labels), console.console(board)
        )
        for name, board in boards.items()
    }


FORMS: dict[str, Callable[[Boards, Where], dict[str, str]]] = {
    "json": _files,
    "provisioning": _provisioning,
    "sidecar": _sidecar,
    "operator": _operator,
    "console": _console,
}


def _config_map(name: str, metadata: Mapping[str, Any], board: Board) -> str:
    data = {f"ovnwatch-{name}.json": _small(board)}
    return _yaml({"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(metadata), "data": data})


def _metadata(name: str, namespace: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(labels)}


def _small(board: Board) -> str:
    return json.dumps(board, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=10_000)
