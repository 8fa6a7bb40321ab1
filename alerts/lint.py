"""What is wrong with rules, as far as no Prometheus is needed: such checks of `pint`'s, and the house's own. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from exporters.catalog import SEVERITIES, Catalog, metrics_in, seconds

LONGEST_FOR = 600.0  # seconds: less than a step of a migration
SHORTEST_FOR = 60.0  # where it waits at all: a sample of scrapes 30 s apart lasts as long as a wait of 30 s
LONGEST_INTERVAL = 300.0
LABELS = {"severity", "component"}
ANNOTATIONS = {"summary", "description", "recommendation", "runbook_url"}
COMPARED = re.compile(r" (>|>=|<|<=) -?[0-9.]+$")
# `and x offset 5m`: asks whether it is there, not how much it is.
ASKS_WHETHER = re.compile(r"\b(?:and|unless) [a-zA-Z_:][\w:]*(?:\{[^}]*\})?(?: offset \w+)?(?=\s|\)|$)(?!\s*[<>=!])")
# How often something fell can be asked of what does not count, too.
RATES = re.compile(r"\b(?:rate|irate|increase)\s*\(\s*([a-zA-Z_:][\w:]*)")
COUNTING = re.compile(r"\b(?:rate|irate|increase|resets)\s*\(\s*([a-zA-Z_:][\w:]*)")
# What a counter was when it was read last: by the same group, in its turn before.
READ_LAST = re.compile(r"last_over_time\(([\w:]+:(?:read|whole))\[\w+\]\)")
PATTERN = re.compile(r"""[=!]~\s*"([^"]*)\"""")
META = re.compile(r"[.|*+?()\[\]{}\\]")


def faults(files: Mapping[str, Mapping[str, Any]], catalog: Catalog) -> list[str]:
    """Everything wrong, as "file: rule: what"."""
    found = []
    seen: set[tuple[str, ...]] = set()
    for name, document in files.items():
        for group in document["groups"]:
            found += [f"{name}: {each}" for each in _group(group)]
            recorded: set[str] = set()
            for rule in group["rules"]:
                title = rule.get("record") or rule["alert"]
                identity = (title, rule.get("labels", {}).get("severity", ""))
                if identity in seen:
                    found.append(f"{name}: {title}: stands twice")
                seen.add(identity)
                if title.endswith((":read", ":whole")):
                    faulty = _read(title, rule["expr"], catalog)
                else:
                    faulty = _expression(rule["expr"], catalog, recorded)
                found += [f"{name}: {title}: {each}" for each in faulty]
                found += [f"{name}: {title}: {each}" for each in (_alert(rule) if "alert" in rule else ())]
                recorded |= {rule["record"]} if "record" in rule else set()
    return found


def _group(group: Mapping[str, Any]) -> Iterator[str]:
    if not re.fullmatch(r"ovnwatch-[a-z]+", group["name"]):
        yield f"the group's name {group['name']!r} is not ovnwatch- and small letters"
    if seconds(group.get("interval", "0s")) > LONGEST_INTERVAL:
        yield f"the group {group['name']} is evaluated too seldom for a range of five minutes"


def _read(title: str, query: str, catalog: Catalog) -> Iterator[str]:
    """What keeps a counter as it is keeps just that counter, or it and what is added to it where there is more."""
    counter = title.split(":")[1] + "_total"
    metric = catalog.metrics.get(counter)
    plain = re.sub(r"^max without \([^)]*\) \(\s*(.*?)\s*\)$", r"\1", query, flags=re.DOTALL)
    more = re.fullmatch(rf"{counter} \+ \(.+\)\s+or {counter}", plain)
    if metric is None or metric.kind != "counter" or not (plain == counter or more):
        yield "is not the counter that it is named after"


def _expression(query: str, catalog: Catalog, recorded: set[str]) -> Iterator[str]:
    """The query of a rule, `recorded` being what stands above it."""
    if re.search(r"\bby\b|\bon\s*\([^)]*\)\s*group_", query):
        yield "drops labels that it does not know, `cluster` for one: aggregate `without`, join `ignoring`"
    read = set(READ_LAST.findall(query))
    for late in sorted((metrics_in(query) & catalog.recorded.keys()) - recorded - read):
        yield f"{late} is not recorded above it in its group"
    for early in sorted(each for each in read & recorded if " - " in query):
        yield f"{early} is recorded above it, so that it would gain nothing"
    kinds = {name: each.kind for name, each in catalog.metrics.items()}
    kinds |= {name: each.kind for name, each in catalog.foreign.items()}
    plain = ASKS_WHETHER.sub("", query)
    counted = set(COUNTING.findall(plain))
    for name in sorted(metrics_in(plain)):
        last = {each.split(":")[1] + "_total" for each in read}
        if kinds.get(name) == "counter" and name not in counted | last:
            yield f"{name} only grows: read what it gains, not how much it is"
    for name in sorted(set(RATES.findall(plain))):
        if kinds.get(name, "counter") not in ("counter", "histogram"):
            yield f"{name} does not count: it has no rate"
    for pattern in PATTERN.findall(query):
        if not META.search(pattern):
            yield f'=~"{pattern}" has no pattern: compare with ='
        if pattern.startswith("^") or re.search(r"[^\\]\$$", pattern):
            yield f'=~"{pattern}" has anchors, which are there anyhow'


def _alert(rule: Mapping[str, Any]) -> Iterator[str]:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", rule["alert"]):
        yield "its name is not in CamelCase"
    if not COMPARED.search(rule["expr"]):
        yield "compares nothing: it would fire for any value"
    if not 0 <= seconds(rule.get("for", "0s")) <= LONGEST_FOR:
        yield f"waits longer than {LONGEST_FOR:g} s"
    if 0 < seconds(rule.get("for", "0s")) < SHORTEST_FOR:
        yield f"waits for less than {SHORTEST_FOR:g} s, which a single sample may outlast"
    labels, notes = rule.get("labels", {}), rule.get("annotations", {})
    if labels.get("severity") not in SEVERITIES or labels.keys() < LABELS:
        yield f"needs the labels {', '.join(sorted(LABELS))}"
    if any("{{" in value for value in labels.values()):
        yield "a label holds a value, so that the alert would be another one with each"
    for missing in sorted(ANNOTATIONS - {name for name, text in notes.items() if text}):
        yield f"has no {missing}"
    for name in sorted(ANNOTATIONS & notes.keys()):
        if notes[name].count("{{") != notes[name].count("}}"):
            yield f"the braces of {name} do not match"
