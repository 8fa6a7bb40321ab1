"""Files of the earlier OVS analysis, which say metrics and thresholds in a dialect of their own -> a catalogue.

    metrics:
      - query: sum(ovs_vswitchd_rconn_overflow)
        metricName: OVS_RCONN_OVERFLOW_TOTAL
        unit: count
        threshold: {warning: 100, critical: 1000}

1. Each metric with a threshold is one of the catalogue's; `analysis` gives those that have none the limits of their
   category. Where an entry and `analysis` differ, the entry is right, and it is said.
2. What only grows is judged by what it gains in WINDOW, and it is said: its level is older than any trouble.
3. What nobody exports can never match and is named. Other names are only judged where we know all of their kind.
4. What says two things, or no whole one, is said: a name that stands twice (the first counts), a warning that is not
   milder than critical, an alert of several comparisons (left out).
5. Percents stay percents, megabytes become bytes. What the file says of dashboards and exports is not read.
"""

import math
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import pydantic
import yaml

from exporters import promql, strictyaml
from exporters.catalog import Catalog, Threshold, metrics_in, seconds

WINDOW = "15m"  # three of the five minutes between two looks of older ovn-kubernetes
CATEGORY = "earlier"
# Of names that begin so, all that are exported are known.
KNOWN = re.compile(r"(ovnwatch|ovs|ovs_vswitchd|ovs_db|ovn_controller|ovn_northd|ovn_db|ovnkube)_")
LEVEL = r"(?<![\w:]){}(?:\{{[^}}]*\}})?(?![\w:\[{{])"
MEGABYTE = 2.0**20
# Which limits of `analysis` an entry of a category has that has none of its own: key, and the ending of its words.
_OF_CATEGORY = {"cpu": ("cpu_thresholds", "_percent"), "memory": ("memory_thresholds", "_mb")}


def _whole_query(query: str) -> str:
    if not query.strip():
        raise ValueError("asks for nothing")
    if lone := promql.lone(query):
        raise ValueError(f"{lone} has no other one")
    return query


def _named(name: str) -> str:
    if not re.search(r"[A-Za-z0-9]", name):
        raise ValueError("an alert cannot be named after it: it has neither letters nor digits")
    return name


_Query = Annotated[str, pydantic.AfterValidator(_whole_query)]
_Name = Annotated[str, pydantic.AfterValidator(_named)]


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    _notes = pydantic.model_validator(mode="before")(strictyaml.without_notes)


class _Limits(_Entry):
    warning: float | None = None
    critical: float | None = None
    warning_mb: float | None = None
    critical_mb: float | None = None
    warning_percent: float | None = None
    critical_percent: float | None = None

    def found(self) -> dict[str, float]:
        """Limits by severity; megabytes in bytes."""
        mega = {"warning": self.warning_mb, "critical": self.critical_mb}
        plain = {
            "warning": self.warning if self.warning is not None else self.warning_percent,
            "critical": self.critical if self.critical is not None else self.critical_percent,
        }
        in_bytes = {each: value * MEGABYTE for each, value in mega.items() if value is not None}
        return {each: value for each, value in plain.items() if value is not None} | in_bytes


class _Metric(_Entry):
    query: _Query
    metricName: _Name  # noqa: N815 - the file's own word
    unit: str = ""
    description: str = ""
    category: str = ""
    threshold: _Limits | None = None
    instant: bool | None = None


class _Rule(_Entry):
    alert: _Name
    expr: _Query
    pending: str = pydantic.Field("0s", alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    severity: str | None = None
    description: str | None = None
    summary: str | None = None

    @pydantic.field_validator("pending")
    @classmethod
    def _duration(cls, text: str) -> str:
        seconds(text)
        return text


class _File(_Entry):
    metrics: list[_Metric]
    apiVersion: str = "v1"  # noqa: N815 - the file's own word
    kind: str = ""
    metadata: dict[str, Any] = {}
    overall: dict[str, Any] = pydantic.Field({}, alias="global")
    analysis: dict[str, Any] = {}
    alerting_rules: list[_Rule] = []
    dashboards: Any = None
    export: Any = None


def is_earlier(text: str) -> bool:
    """Whether a file's `metrics` are a list, as they are in that dialect only."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return isinstance(data, dict) and isinstance(data.get("metrics"), list)


def read(text: str, name: str, ours: Catalog) -> tuple[Catalog, list[str]]:
    """Our catalogue with that file's thresholds in the place of our own, and what is to be said of it, with its place.

    Raises strictyaml.BadInput with every problem and its line.
    """
    file = strictyaml.parse(text, _File, name)
    kinds = names_known(ours)
    found: dict[str, Threshold] = {}
    said: list[str] = []
    for index, metric in enumerate(file.metrics):
        place = f"{name}: metrics[{index}] {metric.metricName}"
        said += [f"{place}: {each}" for each in _never(metric.query, kinds)]
        limits, notes = _limits(metric, file.analysis)
        said += [f"{place}: {note}" for note in notes]
        if limits:
            query, grown = _gained(metric.query, kinds)
            said += [f"{place}: {each} only grows; judged by what it gains in {WINDOW}" for each in grown]
            key = camel(metric.metricName)
            said += _kept(found, _threshold(key, metric, query, limits), place)
    for index, rule in enumerate(file.alerting_rules):
        place = f"{name}: alerting_rules[{index}] {rule.alert}"
        said += [f"{place}: {each}" for each in _never(rule.expr, kinds)]
        if re.search(r"\b(and|or|unless)\b", promql.outermost(rule.expr)):
            said.append(f"{place}: is more than one comparison, and is left out")
        elif one := _from_rule(rule):
            said += _kept(found, one, place)
        else:
            said.append(f"{place}: compares with no number, and is left out")
    return replace(ours, thresholds=MappingProxyType(found), recorded=MappingProxyType({})), said


def _kept(found: dict[str, Threshold], threshold: Threshold, place: str) -> Iterator[str]:
    """Add it to what was found, and what is to be said of that."""
    if threshold.name in found:
        yield f"{place}: its alert, {threshold.name}, stands twice; the first one is taken"
        return
    found[threshold.name] = threshold
    warning, critical = (threshold.limits.get(each) for each in ("warning", "critical"))
    if warning is not None and critical is not None and warning >= critical:
        yield f"{place}: warning, {warning:g}, is not milder than critical, {critical:g}"


@cache
def _elsewhere() -> Mapping[str, str]:
    """What each series of other exporters truly is, by its name."""
    path = Path(__file__).resolve().parent / "foreign_metrics.yaml"
    file = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: kind
        for of_it in file.values()
        for kind, entries in of_it.items()
        for entry in entries
        for name in words(entry)
    }


def words(text: str) -> Iterator[str]:
    """`a_{b,c}_d` -> a_b_d, a_c_d"""
    return map("".join, product(*(part.split(",") for part in re.split(r"[{}]", text))))


def names_known(ours: Catalog) -> dict[str, str]:
    """What each series that anybody exports truly is, by its name; of histograms their parts, too."""
    found = dict(_elsewhere())
    found |= {name: each.kind for name, each in ours.metrics.items()}
    found |= {name: each.kind for name, each in ours.foreign.items()}
    for name in [name for name, kind in found.items() if kind == "histogram"]:
        found |= {name + ending: "counter" for ending in ("_bucket", "_count", "_sum")}
    return found


def camel(name: str) -> str:
    """`ovs-vswitchd-cpu-usage` -> `OvnwatchOvsVswitchdCpuUsage`"""
    parts = re.findall(r"[A-Za-z0-9]+", name)
    return "Ovnwatch" + "".join(part[:1].upper() + (part[1:].lower() if part.isupper() else part[1:]) for part in parts)


def _never(query: str, kinds: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(metrics_in(query)):
        if KNOWN.match(name) and name not in kinds:
            yield f"{name} is exported by nobody, so that it never matches"


def _limits(metric: _Metric, analysis: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Its limits, and notes where the file says two things, or no number."""
    own = metric.threshold.found() if metric.threshold else {}
    key, ending = _OF_CATEGORY.get(metric.category, ("", ""))
    told = analysis.get(key)
    general: dict[str, float] = {}
    notes = []
    if isinstance(told, dict):
        factor = MEGABYTE if ending == "_mb" else 1.0
        for severity in ("warning", "critical"):
            value = told.get(severity + ending, told.get(severity))
            if isinstance(value, int | float) and math.isfinite(value):
                general[severity] = value * factor
            elif value is not None and not own:
                notes.append(f"analysis.{key} has no number for {severity}")
    if own and general and own != general:
        notes.append(f"its threshold is not that of analysis.{key}; its own is taken")
    return own or general, notes


def _gained(query: str, kinds: Mapping[str, str]) -> tuple[str, list[str]]:
    """The query with what grows read by what it gains, and the names of it."""
    grown = []
    for name in sorted(_levels(query, kinds)):
        query = re.sub(LEVEL.format(re.escape(name)), lambda found: f"increase({found[0]}[{WINDOW}])", query)
        grown.append(name)
    return query, grown


def _levels(query: str, kinds: Mapping[str, str]) -> Set[str]:
    """What grows and is read by its level; what is also read by an offset is compared with what it was."""
    counters = {name for name in metrics_in(query) if kinds.get(name) == "counter"}
    patterns = {name: LEVEL.format(re.escape(name)) for name in counters}
    return {
        name
        for name, level in patterns.items()
        if re.search(level, query) and not re.search(level + r"\s+offset\b", query)
    }


def _threshold(key: str, metric: _Metric, query: str, limits: Mapping[str, float]) -> Threshold:
    what = metric.description.rstrip(".") or metric.metricName
    braceless = re.sub(r"[{}]", "", what)
    return Threshold(
        name=key,
        category=CATEGORY,
        query=query,
        window=None,
        unit="bytes" if metric.unit == "bytes" else "none",
        compare=">=",
        limits=MappingProxyType(dict(limits)),
        for_seconds=0.0,
        scope=(),
        summary=f"{braceless}.",
        description=f"{braceless}: {{value}} {'' if metric.unit == 'bytes' else metric.unit}; limit {{limit}}.",
        recommendation="See what the file says of it.",
    )


NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"


def _from_rule(rule: _Rule) -> Threshold | None:
    """An alert of the file; None where it compares with no number."""
    match = re.fullmatch(rf"(?s)(.*?)\s*(>=|<=|>|<)\s*({NUMBER})\s*", rule.expr)
    if match is None:
        return None
    text = rule.annotations.get("summary") or rule.summary or rule.alert
    braceless = re.sub(r"\{\{.*?\}\}|[{}]", "", text).strip().rstrip(".")
    severity = rule.labels.get("severity") or rule.severity or "warning"
    return Threshold(
        name=camel(rule.alert),
        category=CATEGORY,
        query=match[1],
        window=None,
        unit="none",
        compare=match[2],  # type: ignore[arg-type]  # one of the four, by the expression
        limits=MappingProxyType({severity: float(match[3])}),
        for_seconds=seconds(rule.pending),
        scope=(),
        summary=f"{braceless}.",
        description=f"{braceless}: {{value}}; limit {{limit}}.",
        recommendation="See what the file says of it.",
    )
