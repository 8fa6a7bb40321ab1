"""The catalogue's thresholds and recorded series -> groups of Prometheus rules, one a category. Pure.

1. Each limit of a threshold is one alert; all limits of a threshold share the alert's name and differ in `severity`.
2. A label is never a value: the alert's identity must not change with what it measures.
3. Nothing here that Prometheus 2.42 or OpenShift's monitoring lacks: no labels of a group, no query_offset.
4. Where only some series can be asked (`reach`), what asks for others is left out: an alert that never fires is worse
   than none. Where nothing can be recorded, what would be is written out in the alerts.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import yaml

from exporters.catalog import EVERYWHERE, SCRAPE_LABELS, Catalog, Recorded, Threshold, metrics_in, placeholders

# Which series can be asked: all; those of our exporters alone; those of others alone, and then nothing is recorded.
Reach = Literal["all", "own", "others"]
HEADER = "# Generated from metrics.yaml by `ovnwatch rules render`: edit it there.\n"
TOLD, MANY = ":ovnwatch_outages_told:count", 300  # streams; of more, alerts look nothing up
RUNBOOK_BASE = "alerts/runbooks/"  # their place in the project; a site gives the address under which it serves them
# How Prometheus' templates print a number in a unit.
_PRINTED = {
    "seconds": "humanizeDuration",
    "timestamp": "humanizeTimestamp",
    "ratio": "humanizePercentage",
    "bytes": "humanize1024",
    "byte rate": "humanize1024",
    "count": 'printf "%.0f"',
    "state": 'printf "%.0f"',
    "none": 'printf "%.0f"',
}
_DURATIONS = ((86400_000, "d"), (3600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))


def rule_files(
    catalog: Catalog, scale_for: float = 1.0, runbook_base: str = RUNBOOK_BASE, reach: Reach = "all"
) -> dict[str, dict[str, Any]]:
    """File name -> its document.

    `scale_for` multiplies every `for` and `interval`, so that a demonstration need not wait minutes.
    """
    rules: dict[str, list[dict[str, Any]]] = defaultdict(list)
    intervals: dict[str, dict[str, str]] = defaultdict(dict)
    if reach != "others":
        for recorded in catalog.recorded.values():
            expr = recorded.query if reach == "all" else _in_one_namespace(recorded.own)
            rules[recorded.category].append({"record": recorded.name, "expr": expr})
            if recorded.every:
                intervals[recorded.category] = {"interval": duration(recorded.every * scale_for)}
    for threshold in catalog.thresholds.values():
        if told(threshold, catalog, reach):
            found = threshold if reach != "others" else written_out(threshold, catalog)
            if reach == "own":
                found = replace(found, query=_in_one_namespace(found.query))
            rules[threshold.category] += alerts(found, catalog, scale_for, runbook_base)
    return {
        f"{category}.yaml": {"groups": [{"name": f"ovnwatch-{category}", **intervals[category], "rules": those}]}
        for category, those in rules.items()
    }


def told(threshold: Threshold, catalog: Catalog, reach: Reach) -> bool:
    """Whether all that a threshold asks for is there."""
    if reach == "all":
        return True
    asked = metrics_in(threshold.query)
    everywhere = {name for name, each in catalog.foreign.items() if each.source == EVERYWHERE}
    if reach == "own":
        return asked <= catalog.metrics.keys() | catalog.recorded.keys() | everywhere
    recorded = {name for name, each in catalog.recorded.items() if each.others}
    return bool(asked) and asked <= recorded | catalog.foreign.keys() - everywhere


def _in_one_namespace(query: str) -> str:
    """The query where each series, what is recorded as well, has one and the same `namespace`, as OpenShift has it.

    What is recorded of series without it would have it all the same, and be compared with none that lacks it.
    """
    scraped = ", ".join(SCRAPE_LABELS)
    return query.replace(scraped, ", ".join(each for each in SCRAPE_LABELS if each != "namespace"))


def written_out(threshold: Threshold, catalog: Catalog) -> Threshold:
    """The threshold with what others tell in the place of what is recorded of it."""
    query = threshold.query
    for name in metrics_in(query) & catalog.recorded.keys():
        whole = re.compile(rf"(?<![\w:]){re.escape(name)}(?![\w:])")
        query = _others(catalog.recorded[name]).join(whole.split(query))
    return replace(threshold, query=query)


def _others(recorded: Recorded) -> str:
    lines = "\nor\n".join(recorded.others).splitlines()
    return "(\n" + "".join(f"  {line}\n" for line in lines) + ")"


def alerts(threshold: Threshold, catalog: Catalog, scale_for: float, runbook_base: str) -> list[dict[str, Any]]:
    """The alerting rules of one threshold, one a limit."""
    wait = duration(threshold.for_seconds * scale_for)
    return [
        {
            "alert": threshold.name,
            "expr": f"{_bracketed(threshold.query)} {threshold.compare} {_number(limit)}",
            **({} if wait == "0s" else {"for": wait}),
            "labels": {"severity": severity, "component": "ovnwatch"},
            "annotations": {
                "summary": threshold.summary,
                "description": _description(threshold, catalog, limit),
                **_cause(threshold, catalog),
                "recommendation": threshold.recommendation,
                "runbook_url": f"{runbook_base}{threshold.name}.md",
            },
        }
        for severity, limit in threshold.limits.items()
    ]


def render(document: dict[str, Any]) -> str:
    """A rule file's text; the same document always gives the same bytes."""
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them, to the millisecond: 90 -> `1m30s`."""
    rest, text = round(seconds * 1000), ""
    for size, unit in _DURATIONS:
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def printed_limit(value: float, unit: str) -> str:
    """A limit as people read it: 90 s -> `1m30s`."""
    if unit == "seconds":
        return duration(value)
    if unit == "bytes":
        return f"{value / 2**20:.10g}MiB"
    return f"{value * 100:.10g}%" if unit == "ratio" else _number(value)


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def text(self, data: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.text)


def _bracketed(query: str) -> str:
    """The query so that a comparison applies to all of it."""
    if "\n" in query:
        return "(\n" + "".join(f"  {line}\n" for line in query.splitlines()) + ")"
    return f"({query})" if re.search(r"\b(and|or|unless)\b|[<>=]", query) else query


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _cause(threshold: Threshold, catalog: Catalog) -> dict[str, str]:
    """What a pattern blames, for notifications."""
    if threshold.where_to_look is None:
        return {}
    return {"cause": catalog.where_to_look[threshold.where_to_look].blames}


def _description(threshold: Threshold, catalog: Catalog, limit: float) -> str:
    """The description with {name}s turned into Prometheus' templates.

    Another metric of the alert's own series is looked up when the alert is written: `unknown` where it has none. Where
    very many alerts would look up, none does: that would hold up the evaluation for seconds.
    """
    filled = {label: f"{{{{ $labels.{label} }}}}" for label in threshold.scope}
    filled["value"] = f"{{{{ $value | {_PRINTED[threshold.unit]} }}}}"
    filled["limit"] = printed_limit(limit, threshold.unit)
    filled["window"] = threshold.window or ""
    head = ""
    for name in placeholders(threshold.description):
        if name not in filled:
            head = _series(threshold.scope)
            printed = f"{{{{ . | first | value | {_PRINTED[catalog.metric(name).unit]} }}}}"
            looked_up = f"{{{{ with query (print `{name}` $series) }}}}{printed}{{{{ else }}}}unknown{{{{ end }}}}"
            filled[name] = f"{{{{ if $few }}}}{looked_up}{{{{ else }}}}(see /history){{{{ end }}}}"
    return head + threshold.description.format(**filled)


def _series(scope: Sequence[str]) -> str:
    """A template that keeps the selector of the alert's own series; a label the alert lacks selects series without."""
    labels = ("cluster", *scope)
    matchers = ",".join(f"{label}=%q" for label in labels)
    many = f"{{{{ $few := true }}}}{{{{ range query `{TOLD} > {MANY}` }}}}{{{{ $few = false }}}}{{{{ end }}}}"
    return f"{many}{{{{ $series := printf `{{{matchers}}}` {' '.join(f'$labels.{label}' for label in labels)} }}}}"
