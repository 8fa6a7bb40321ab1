"""The catalogue's thresholds and recorded series -> Prometheus rule files, one a category: `ovnwatch rules`.

1. Each limit of a threshold is one alert; all limits of a threshold share the alert's name and differ in `severity`.
2. A label is never a value: the alert's identity must not change with what it measures.
3. Nothing here that Prometheus 2.42 or OpenShift's monitoring lacks: no labels of a group, no query_offset.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from exporters.catalog import Catalog, Threshold, load, placeholders
from exporters.strictyaml import BadInput

HEADER = "# Generated from metrics.yaml by `ovnwatch rules`: edit it there.\n"
RUNBOOK_BASE = "alerts/runbooks/"  # their place in the project; a site gives the address under which it serves them
# How Prometheus' templates print a number in a unit.
_PRINTED = {
    "seconds": "humanizeDuration",
    "timestamp": "humanizeTimestamp",
    "ratio": "humanizePercentage",
    "bytes": "humanize1024",
    "bit rate": "humanize",
    "count": 'printf "%.0f"',
    "state": 'printf "%.0f"',
    "none": 'printf "%.0f"',
}
_DURATIONS = ((86400_000, "d"), (3600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))


def rule_files(catalog: Catalog, scale_for: float = 1.0, runbook_base: str = RUNBOOK_BASE) -> dict[str, dict[str, Any]]:
    """File name -> its document. `scale_for` multiplies every `for`, so that a demonstration need not wait minutes."""
    rules: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for recorded in catalog.recorded.values():
        rules[recorded.category].append({"record": recorded.name, "expr": recorded.query})
    for threshold in catalog.thresholds.values():
        rules[threshold.category] += alerts(threshold, catalog, scale_for, runbook_base)
    return {
        f"{category}.yaml": {"groups": [{"name": f"ovnwatch-{category}", "rules": those}]}
        for category, those in rules.items()
    }


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


def main(argv: Sequence[str] | None = None) -> int:
    """Write the rule files; 0, or 1 when the catalogue is wrong or a file cannot be written."""
    parser = argparse.ArgumentParser(prog="ovnwatch rules", description="Write the Prometheus rules of metrics.yaml.")
    parser.add_argument("--output-dir", type=Path, default=Path("alerts/rules"), help="default: %(default)s")
    parser.add_argument("--scale-for", type=_factor, default=1.0, metavar="FACTOR", help="multiply every `for` by it")
    parser.add_argument("--runbook-base", default=RUNBOOK_BASE, metavar="URL", help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        files = rule_files(load(), args.scale_for, args.runbook_base)
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for name, document in files.items():
            (args.output_dir / name).write_text(render(document), encoding="utf-8")
    except (BadInput, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


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


def _limit(value: float, unit: str) -> str:
    if unit == "seconds":
        return duration(value)
    return f"{value * 100:.10g}%" if unit == "ratio" else _number(value)


def _description(threshold: Threshold, catalog: Catalog, limit: float) -> str:
    """The description with {name}s turned into Prometheus' templates.

    Another metric of the alert's own series is looked up when the alert is written: `unknown` where it has none.
    """
    filled = {label: f"{{{{ $labels.{label} }}}}" for label in threshold.scope}
    filled["value"] = f"{{{{ $value | {_PRINTED[threshold.unit]} }}}}"
    filled["limit"] = _limit(limit, threshold.unit)
    filled["window"] = threshold.window or ""
    head = ""
    for name in placeholders(threshold.description):
        if name not in filled:
            head = _series(threshold.scope)
            printed = f"{{{{ . | first | value | {_PRINTED[catalog.metric(name).unit]} }}}}"
            filled[name] = f"{{{{ with query (print `{name}` $series) }}}}{printed}{{{{ else }}}}unknown{{{{ end }}}}"
    return head + threshold.description.format(**filled)


def _series(scope: Sequence[str]) -> str:
    """A template that keeps the selector of the alert's own series; a label the alert lacks selects series without."""
    labels = ("cluster", *scope)
    matchers = ",".join(f"{label}=%q" for label in labels)
    return f"{{{{ $series := printf `{{{matchers}}}` {' '.join(f'$labels.{label}' for label in labels)} }}}}"


def _factor(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor between 0 and 1000")
    return float(text)


if __name__ == "__main__":
    sys.exit(main())
