"""No rule, dashboard or document names a metric that nobody exports, or takes the rate of what does not count.

Known are ours, those of other exporters in `exporters/foreign_metrics.yaml`, and `foreign_metrics` in metrics.yaml.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporters import catalog

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "alerts/runbooks/*.md", "exporters/*.md", "grafana/*.md", "manifests/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "metrics.md"  # made from the catalogue, recorded series and all
)
NAMED = re.compile(r"\b(?:ovnwatch|ovs_vswitchd|ovs_db|ovn_controller|ovn_northd|ovn_db|ovnkube)_[a-z0-9_]+\b(?![{*])")
# What must be given what counts. `changes` and `resets` may ask a gauge.
COUNTING = re.compile(r"\b(?:rate|irate|increase)\s*\(\s*([a-zA-Z_:][\w:]*)")
ENDINGS = ("_bucket", "_count", "_sum")


def words(text: str) -> Iterator[str]:
    """`a_{b,c}_d` -> a_b_d, a_c_d"""
    parts = [part.split(",") for part in re.split(r"[{}]", text)]
    return map("".join, itertools.product(*parts))


def kinds() -> dict[str, str]:
    """What each series truly is, by its name."""
    found: dict[str, str] = {name: metric.kind for name, metric in catalog.load().metrics.items()}
    file = yaml.safe_load((ROOT / "exporters/foreign_metrics.yaml").read_text())
    for of_it in file.values():
        found |= {name: kind for kind, entries in of_it.items() for entry in entries for name in words(entry)}
    for name, kind in list(found.items()):
        if kind == "histogram":
            found |= {name + ending: "counter" for ending in ENDINGS}
    found |= {name: entry.kind for name, entry in catalog.load().foreign.items()}
    return found | dict.fromkeys(catalog.load().recorded, "gauge")


KINDS = kinds()


def expressions(tree: Any) -> Iterator[str]:
    """Every query in a dashboard or a file of rules."""
    if isinstance(tree, Mapping) and tree.get("type") != "datasource":
        for key, value in tree.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(tree, list):
        for each in tree:
            yield from expressions(each)


def queries() -> Iterator[tuple[str, str]]:
    """Every query there is, with where it stands."""
    known = catalog.load()
    yield from ((f"metrics.yaml {name}", each.query) for name, each in known.thresholds.items())
    yield from ((f"metrics.yaml {name}", each.query) for name, each in known.recorded.items())
    for path in sorted(ROOT.glob("alerts/rules/*.yaml")):
        yield from ((path.name, query) for query in expressions(yaml.safe_load(path.read_text())))
    for path in sorted(ROOT.glob("grafana/dashboards/*.json")):
        yield from ((path.name, query) for query in expressions(json.loads(path.read_text())))


def wrong(query: str) -> list[str]:
    """What a query names that nobody exports, or counts that does not count."""
    plain = re.sub(r"\$\{?\w+\}?", "", query)
    # The second argument of label_values() and its like is a label.
    plain = re.sub(r"\b(label_values|query_result)\(", "(", plain)
    named = catalog.metrics_in(plain) if "label_values" not in query else set(NAMED.findall(plain))
    unknown = [f"{name} is exported by nobody" for name in sorted(named) if name not in KINDS]
    counted = (name for name in COUNTING.findall(plain) if KINDS.get(name, "counter") != "counter")
    return [*unknown, *(f"{name} does not count" for name in counted)]


def test_queries_name_only_what_is_exported_and_count_only_what_counts() -> None:
    found = [*queries()]
    assert len(found) > 50
    assert [f"{place}: {each}" for place, query in found for each in wrong(query)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_what_is_exported(path: Path) -> None:
    text = path.read_text()
    unknown = {name for name in NAMED.findall(text) if name not in KINDS and not name.endswith("_")}
    assert unknown == set()
    assert [each for each in COUNTING.findall(text) if KINDS.get(each, "counter") != "counter"] == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rate(ovs_vswitchd_dp_flows_lookup_lost[5m]) > 0", []),
        ("rate(ovs_vswitchd_dp_flows_total[5m])", ["ovs_vswitchd_dp_flows_total does not count"]),
        ("increase(ovn_controller_integration_bridge_openflow_total[5m])",
         ["ovn_controller_integration_bridge_openflow_total does not count"]),
        ("rate(ovnwatch_schedule_lag_seconds_bucket[5m])", []),
        ("ovs_vswitchd_dp_flows_lookup_lots > 0", ["ovs_vswitchd_dp_flows_lookup_lots is exported by nobody"]),
        ("increase(ovnwatch_ovn_tunnels_up[5m])", ["ovnwatch_ovn_tunnels_up does not count"]),
        ("sum by (job) (up)", []),
    ],
)  # fmt: skip
def test_what_the_lint_says(query: str, said: list[str]) -> None:
    assert wrong(query) == said
