"""One collection for somebody at a host: as exposition text, as a table, or as JSON. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import Metric

from exporters.exposition import encoded
from exporters.plain import plain


class Page:
    """Families as a registry has them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self.families


def text(families: Iterable[Metric]) -> str:
    return encoded(Page(families), generate_latest).decode()


def document(families: Iterable[Metric], failures: Mapping[str, str]) -> dict[str, Any]:
    """All metrics, and why a collector failed."""
    metrics = {
        family.samples[0].name: {
            "kind": family.type,
            "help": family.documentation,
            "samples": [{"labels": each.labels, "value": each.value} for each in family.samples],
        }
        for family in families
        if family.samples
    }
    return {"metrics": metrics, "failures": dict(failures)}


def table(families: Iterable[Metric], failures: Mapping[str, str]) -> str:
    """A line for each sample; what is always 1 says all it has to say in its labels."""
    rows = []
    for family in families:
        for each in family.samples:
            labels = ", ".join(f"{name}={value}" for name, value in each.labels.items() if value)
            rows.append((each.name.removeprefix("ovnwatch_"), labels, "" if family.type == "info" else f"{each.value}"))
    # Whoever may make a link may call it something that a terminal obeys.
    rows = [(name, plain(labels), value) for name, labels, value in rows]
    wide = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = [f"{name:{wide[0]}}  {labels:{wide[1]}}  {value:>{wide[2]}}".rstrip() for name, labels, value in rows]
    lines += [f"failed: {name}: {plain(why)}" for name, why in failures.items()]
    return "\n".join(lines)
