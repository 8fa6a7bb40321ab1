"""The catalogue as a page: every metric, recorded series and alert. `python -m alerts.reference` writes it."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alerts.rules import duration, printed_limit
from exporters.catalog import Catalog, Metric, Threshold, load

PAGE = Path("docs/metrics.md")
HEAD = """\
<!-- Generated from metrics.yaml by `make generate`: edit it there. -->
# Metrics and alerts

Everything that ovnwatch exports, what is recorded of it, and from which value on somebody is called. `stream` stands
for the labels {stream}.
"""


def page(catalog: Catalog) -> str:
    """The whole page."""
    stream = ("source", "target", "path", "protocol", "family")
    lines = [HEAD.format(stream=", ".join(f"`{each}`" for each in stream))]
    for title, table in (
        ("Metrics", _table(("metric", "kind", "unit", "labels", "meaning"), _metrics(catalog, stream))),
        ("Labels", _table(("label", "meaning"), ((f"`{name}`", text) for name, text in catalog.labels.items()))),
        ("Recorded series", _table(("series", "labels", "meaning", "also from"), _recorded(catalog))),
        ("Alerts", _table(("alert", "fires", "limits", "about", "says"), _alerts(catalog))),
        ("Metrics of others", _table(("metric", "truly is", "from", "meaning"), _foreign(catalog))),
    ):
        lines += [f"## {title}", "", *table, ""]
    return "\n".join(lines)


def _metrics(catalog: Catalog, stream: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for each in catalog.metrics.values():
        yield f"`{each.name}`", each.kind, "" if each.unit == "none" else each.unit, _labels(each, stream), each.help


def _labels(metric: Metric, stream: tuple[str, ...]) -> str:
    whole = metric.labels[: len(stream)] == stream
    rest = metric.labels[len(stream) :] if whole else metric.labels
    return ", ".join([*(["stream"] if whole else []), *(f"`{each}`" for each in rest)])


def _recorded(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    for each in catalog.recorded.values():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield f"`{each.name}`", labels, each.help, "other exporters" if each.others else ""


def _alerts(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    for each in catalog.thresholds.values():
        waits = f"after {duration(each.for_seconds)}" if each.for_seconds else "at once"
        about = ", ".join(f"`{label}`" for label in each.scope)
        link = f"[{each.name}](../alerts/runbooks/{each.name}.md)"
        yield link, waits, _limits(each), about, each.summary


def _limits(threshold: Threshold) -> str:
    return ", ".join(
        f"{severity} {threshold.compare} {printed_limit(limit, threshold.unit)}"
        for severity, limit in threshold.limits.items()
    )


def _foreign(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    for each in catalog.foreign.values():
        yield f"`{each.name}`", each.kind, each.source, each.help


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m alerts.reference", description="Write the page of metrics and alerts."
    )
    parser.add_argument("--output", type=Path, default=PAGE, help="default: %(default)s")
    args = parser.parse_args(argv)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(page(load()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
