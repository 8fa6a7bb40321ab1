"""The forms in which rules are taken: files for Prometheus, and objects for its operator and for OpenShift. Pure.

To add one: a function of the catalogue and Wanted, and a line in FORMS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alerts import rules
from exporters.catalog import Catalog

PLATFORM_NAMESPACE = "openshift-monitoring"  # the only one in which OpenShift takes an AlertingRule


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a site may choose; `labels` are those by which its operator selects rules."""

    scale_for: float = 1.0
    runbook_base: str = rules.RUNBOOK_BASE
    namespace: str = "ovnwatch"
    labels: Mapping[str, str] = field(default_factory=dict)


Documents = dict[str, dict[str, Any]]


def plain(catalog: Catalog, wanted: Wanted) -> Documents:
    return _files(catalog, wanted, "all")


def prometheus_rule(catalog: Catalog, wanted: Wanted) -> Documents:
    """For an operator whose Prometheus has the metrics of others, too, as kube-prometheus-stack's."""
    return _objects(_files(catalog, wanted, "all"), "PrometheusRule", wanted.namespace, wanted.labels)


def openshift_user(catalog: Catalog, wanted: Wanted) -> Documents:
    """For user workload monitoring: it adds a matcher of the namespace to every selector, so only ours are there."""
    leaf = {"openshift.io/prometheus-rule-evaluation-scope": "leaf-prometheus"}
    return _objects(_files(catalog, wanted, "own"), "PrometheusRule", wanted.namespace, {**leaf, **wanted.labels})


def openshift_platform(catalog: Catalog, wanted: Wanted) -> Documents:
    """For the platform's Prometheus, of what the cluster's own exporters tell; it takes no recording rules."""
    return _objects(_files(catalog, wanted, "others"), "AlertingRule", PLATFORM_NAMESPACE, wanted.labels)


FORMS: dict[str, Callable[[Catalog, Wanted], Documents]] = {
    "plain": plain,
    "prometheusrule": prometheus_rule,
    "openshift-user": openshift_user,
    "openshift-platform": openshift_platform,
}
_VERSIONS = {"PrometheusRule": "monitoring.coreos.com/v1", "AlertingRule": "monitoring.openshift.io/v1"}


def _files(catalog: Catalog, wanted: Wanted, reach: rules.Reach) -> Documents:
    return rules.rule_files(catalog, wanted.scale_for, wanted.runbook_base, reach)


def _objects(files: Documents, kind: str, namespace: str, labels: Mapping[str, str]) -> Documents:
    """An object for each file."""
    own = {"app.kubernetes.io/name": "ovnwatch", "app.kubernetes.io/part-of": "ovnwatch"}
    return {
        name: {
            "apiVersion": _VERSIONS[kind],
            "kind": kind,
            "metadata": {
                "name": f"ovnwatch-{name.removesuffix('.yaml')}",
                "namespace": namespace,
                "labels": {**own, **labels},
            },
            "spec": document,
        }
        for name, document in files.items()
    }
