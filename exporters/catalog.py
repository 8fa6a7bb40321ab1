"""The only reader of metrics.yaml: what each metric is called, means and carries, and from which value on it matters.

1. A name says kind and unit: counters end in `_total`, infos in `_info`, and before that comes the unit's suffix.
2. Labels and units come from closed lists; labels that a scrape configuration overwrites are refused.
3. A threshold may ask only for metrics that stand in the catalogue, and its limits get worse in one direction.
4. A threshold that shows a pattern of `where_to_look` has that pattern's summary and recommendation, none of its own.
5. A recorded series asks our own metrics first; `others` tell the same of nodes of which ours tell nothing.
6. Everything wrong with the file is said at once, each with its line. Keys that begin with x- are the user's.
"""

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import pydantic
from pydantic_core import InitErrorDetails, PydanticCustomError

from exporters import promql, strictyaml

metrics_in, seconds = promql.metrics_in, promql.seconds  # for all who read the catalogue

PREFIX = "ovnwatch_"
EXPORTED = frozenset({"labels", "label_sets", "metrics", "where_to_look"})
TOP_LEVEL = re.compile(r"([a-z_]+):")
# Unit of a value -> how the name of a metric in that unit ends (counters add _total, infos _info).
UNITS = {
    "seconds": "_seconds",
    "timestamp": "_timestamp_seconds",
    "ratio": "_ratio",
    "bytes": "_bytes",
    "byte rate": "_bytes_per_second",
    "count": "",
    "state": "",
    "none": "",
}
SEVERITIES = ("none", "info", "warning", "critical")  # from harmless to worst
# What tells one scrape from another; $scrape in a query, for series of different jobs are compared without them.
SCRAPE_LABELS = ("container", "endpoint", "instance", "job", "namespace", "node", "pod", "service")
# OpenShift's user-workload monitoring and usual relabelling set these themselves; ours would become exported_*.
REFUSED_LABELS = frozenset({*SCRAPE_LABELS, "cluster", "le", "type"})
# What $by_node(...) in a query does: one value a node, by the node that the address of its exporter names.
_BY_NODE = 'max without ($scrape) (label_replace({}, "k8s_node", "$1", "instance", "(.*?)(:[0-9]+)?"))'
EVERYWHERE = "Prometheus"  # the source of what every Prometheus has of whatever it scrapes
SHORTEST_WINDOW = 120.0  # four scrapes at 30 s

_SAMPLES = ("_bucket", "_count", "_sum")  # what a histogram adds to its name
# A bound of a counted sum stands behind the unit: outage_seconds_upper_total.
_KIND_ENDINGS = {"counter": "(?:_lower|_upper)?_total", "info": "_info"}
_TELLING = re.compile(r"(_seconds|_timestamp|_ratio|_bytes|_total|_info|_bucket|_count|_sum)$")
_Path = tuple[str | int, ...]
_Problems = Iterator[tuple[_Path, str]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family; `labels` in the order in which they are exported, `buckets` for histograms only."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    unit: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording rule, evaluated before the alerts of its category; what it asks is ready to run.

    `own` asks metrics of ours, `others` those of other exporters; each of them is a whole query. `every`: seconds
    between evaluations, the same for all of a category; 0 is as often as all else.
    """

    name: str
    category: str
    labels: tuple[str, ...]
    help: str
    own: str
    others: tuple[str, ...] = ()
    every: float = 0.0

    @property
    def query(self) -> str:
        """Whoever tells it, ours first."""
        return "\nor\n".join((self.own, *self.others))


@dataclass(frozen=True, slots=True)
class Foreign:
    """A metric of another exporter: what it truly is, its labels, and who exports it."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str
    source: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What a pattern of failing streams means: what is to blame, in a few words; what is seen; where to look."""

    key: str
    blames: str
    summary: str
    look: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value and the limits it should not pass; `name` is the alert's and its runbook's.

    `query` is ready to run. `description` holds {label}, {value}, {limit}, {window} and {metric} to be filled in.
    """

    name: str
    category: str
    query: str
    window: str | None
    unit: str
    compare: Literal[">", ">=", "<", "<="]
    limits: Mapping[str, float]  # severity -> limit, from harmless to worst
    for_seconds: float
    scope: tuple[str, ...]
    summary: str
    description: str
    recommendation: str
    where_to_look: str | None = None  # key of the pattern it shows


@dataclass(frozen=True, slots=True)
class Catalog:
    """All of metrics.yaml, checked, in the file's order."""

    labels: Mapping[str, str]
    metrics: Mapping[str, Metric]
    recorded: Mapping[str, Recorded]
    thresholds: Mapping[str, Threshold]
    where_to_look: Mapping[str, Advice]
    foreign: Mapping[str, Foreign]

    def metric(self, name: str) -> Metric:
        """The metric of that full name, `_total` and `_info` included; KeyError where there is none."""
        return self.metrics[name]


def load(path: Path | None = None) -> Catalog:
    """Read `path`, else the metrics.yaml in an installed wheel, else the one at the project's root.

    Raises strictyaml.BadInput with every problem and its line, OSError when the file cannot be read.
    """
    return _read(path) if path else _whole()


@cache
def _whole() -> Catalog:
    return _read(_ours())


@cache
def exported() -> Catalog:
    """What an exporter needs of our own metrics.yaml, read once: metrics and where to look, no recorded or thresholds.

    All of it would cost each process some megabytes that reading leaves behind.
    """
    return _read(_ours(), EXPORTED)


def _ours() -> Path:
    here = Path(__file__).resolve().parent
    packed = here / "metrics.yaml"
    return packed if packed.exists() else here.parent / "metrics.yaml"


def _blanked(text: str, wanted: Set[str]) -> str:
    """The text with the lines of all other top-level keys empty, so that those of the rest keep their numbers."""
    kept, lines = True, []
    for line in text.splitlines():
        if key := TOP_LEVEL.match(line):
            kept = key[1] in wanted
        lines.append(line if kept else "")
    return "\n".join(lines)


def _read(path: Path, wanted: Set[str] | None = None) -> Catalog:
    text = path.read_text(encoding="utf-8")
    file = strictyaml.parse(text if wanted is None else _blanked(text, wanted), _File, path.name)
    return Catalog(
        labels=MappingProxyType(file.labels),
        metrics=MappingProxyType({name: file.metric(name) for name in file.metrics}),
        recorded=MappingProxyType({name: entry.recorded(name, file) for name, entry in file.recorded.items()}),
        thresholds=MappingProxyType({name: file.threshold(name) for name in file.thresholds}),
        where_to_look=MappingProxyType({key: entry.advice(key) for key, entry in file.where_to_look.items()}),
        foreign=MappingProxyType({name: entry.foreign(name) for name, entry in file.foreign_metrics.items()}),
    )


def placeholders(text: str) -> list[str]:
    """Names in braces in a description, in order; ValueError when the braces do not match."""
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    _notes = pydantic.model_validator(mode="before")(strictyaml.without_notes)


class _MetricEntry(_Entry):
    kind: Literal["counter", "gauge", "histogram", "info"]
    unit: str
    labels: list[str]
    help: str
    buckets: list[float] = []

    def problems(self, name: str, file: "_File") -> _Problems:
        yield from self._name_problems(name)
        yield from _label_problems(("labels",), self.labels, file.labels.keys(), file.label_sets)
        if "\n" in self.help:
            yield ("help",), "must be one line"
        if (self.kind == "histogram") != bool(self.buckets):
            yield ("buckets",), "a histogram has buckets, and nothing else has"
        if not all(low < high for low, high in pairwise(self.buckets)):
            yield ("buckets",), "must rise"

    def _name_problems(self, name: str) -> _Problems:
        if not re.fullmatch(PREFIX + r"[a-z0-9_]+", name):
            yield (), f"must be {PREFIX} and then small letters, digits and underscores"
        kind = re.search(_KIND_ENDINGS.get(self.kind, "") + "$", name)
        stem = name[: kind.start()] if kind else name
        if not kind:
            yield (), f"a name of kind {self.kind} ends in _{_KIND_ENDINGS[self.kind].rpartition('_')[2]}"
        if self.unit not in UNITS:
            yield ("unit",), f"unknown unit {self.unit!r}, not one of {', '.join(UNITS)}"
        elif not stem.endswith(UNITS[self.unit]):
            yield (), f"a name of unit {self.unit} says {UNITS[self.unit]}"
        elif telling := _TELLING.search(stem.removesuffix(UNITS[self.unit])):
            yield (), f"the name says {telling[1]}, but the kind is {self.kind} and the unit {self.unit}"


class _ForeignEntry(_Entry):
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: list[str]
    help: str
    source: str

    def foreign(self, name: str) -> Foreign:
        return Foreign(name, self.kind, tuple(self.labels), self.help, self.source)


class _RecordedEntry(_Entry):
    category: str
    labels: list[str]
    help: str
    query: str
    others: list[str] = []
    every: str = "0s"

    def recorded(self, name: str, file: "_File") -> Recorded:
        labels = tuple(_expanded(self.labels, file.label_sets))
        others = tuple(_filled(each, None) for each in self.others)
        return Recorded(name, self.category, labels, self.help, _filled(self.query, None), others, seconds(self.every))

    def problems(self, name: str, file: "_File", series: Set[str]) -> _Problems:
        levels = "_".join(_expanded(self.labels, file.label_sets))
        if not re.fullmatch(rf"{re.escape(levels)}:{PREFIX}[a-z0-9_]+:[a-z0-9_]+", name):
            yield (), f"must be its labels, a metric and what was done to it: {levels}:{PREFIX}...:..."
        if not re.fullmatch(r"[a-z]+", self.category):
            yield ("category",), "must be small letters: it names the file of rules"
        yield from _label_problems(("labels",), self.labels, file.labels.keys(), file.label_sets)
        yield from _query_problems(self.query, series)
        if "$window" in self.query:
            yield ("query",), "what is recorded has no window"
        try:
            seconds(self.every)
        except ValueError as error:
            yield ("every",), str(error)
        if any(each.every != self.every for each in file.recorded.values() if each.category == self.category):
            yield ("every",), f"must be the same for all that is recorded in {self.category}"
        for index, query in enumerate(self.others):
            if lone := promql.lone(query):
                yield ("others", index), f"{lone} has no other one"
            for ours in sorted(each for each in metrics_in(query) if each not in file.foreign_metrics):
                yield ("others", index), f"{ours} is none of foreign_metrics"


class _AdviceEntry(_Entry):
    blames: str
    summary: str
    look: str

    def advice(self, key: str) -> Advice:
        return Advice(key, self.blames, self.summary, self.look)

    def problems(self, key: str) -> _Problems:
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*", key):
            yield (), "must be small letters and underscores"
        for name, text in (("blames", self.blames), ("summary", self.summary), ("look", self.look)):
            if re.search(r"[\n{}]", text):
                yield (name,), "must be one line, and the same for every target: no braces"
            if text.endswith(".") != (name != "blames"):
                yield (name,), "summary and look are sentences and end in a full stop, blames is none"


class _ThresholdEntry(_Entry):
    category: str
    query: str
    window: str | None = None
    unit: str
    compare: Literal[">", ">=", "<", "<="]
    none: float | None = None
    info: float | None = None
    warning: float | None = None
    critical: float | None = None
    pending: str = pydantic.Field(alias="for")
    scope: list[str]
    where_to_look: str | None = None
    summary: str | None = None
    description: str
    recommendation: str | None = None

    @property
    def limits(self) -> dict[str, float]:
        every = {severity: getattr(self, severity) for severity in SEVERITIES}
        return {severity: limit for severity, limit in every.items() if limit is not None}

    def problems(self, name: str, file: "_File", series: Set[str]) -> _Problems:
        if not re.fullmatch(r"Ovnwatch[A-Z][A-Za-z0-9]*", name):
            yield (), "must be Ovnwatch and then words in CamelCase"
        if not re.fullmatch(r"[a-z]+", self.category):
            yield ("category",), "must be small letters: it names the file of rules"
        if self.unit not in UNITS:
            yield ("unit",), f"unknown unit {self.unit!r}, not one of {', '.join(UNITS)}"
        yield from self._limit_problems()
        yield from self._time_problems()
        foreign = {label for metric in file.foreign_metrics.values() for label in metric.labels}
        yield from _label_problems(("scope",), self.scope, file.labels.keys() | foreign, file.label_sets)
        yield from _query_problems(self.query, series)
        yield from self._text_problems(file)
        yield from self._description_problems(file)

    def _text_problems(self, file: "_File") -> _Problems:
        if self.where_to_look is not None and self.where_to_look not in file.where_to_look:
            yield ("where_to_look",), f"unknown pattern {self.where_to_look!r}"
        own = {"summary": self.summary, "recommendation": self.recommendation}
        if self.where_to_look is None and None in own.values():
            yield (), "needs a summary and a recommendation, or where_to_look, which has them"
        for name, text in own.items():
            if self.where_to_look is not None and text is not None:
                yield (name,), "is that of where_to_look"
        if "{" in (self.summary or ""):
            yield ("summary",), "must be the same for every alert of this name: no braces"

    def _limit_problems(self) -> _Problems:
        limits = self.limits
        if not limits:
            yield (), f"needs at least one limit: {', '.join(SEVERITIES)}"
        worse = -1 if self.compare.startswith("<") else 1
        for (milder, first), (severity, second) in pairwise(limits.items()):
            if (second - first) * worse <= 0:
                yield (severity,), f"{self.compare} {second:g} is not worse than {milder}, {self.compare} {first:g}"

    def _time_problems(self) -> _Problems:
        for key, text in (("for", self.pending), ("window", self.window)):
            try:
                length = SHORTEST_WINDOW if text is None else seconds(text)
            except ValueError as error:
                yield (key,), str(error)
            else:
                if key == "window" and length < SHORTEST_WINDOW:
                    yield ("window",), f"must be {SHORTEST_WINDOW:g}s at least: four scrapes at 30 s"
        if (self.window is None) != ("$window" not in self.query):
            yield ("window",), "must be given where the query says $window, and only there"

    def _description_problems(self, file: "_File") -> _Problems:
        scope = _expanded(self.scope, file.label_sets)
        known = {"value", "limit", *scope, *(["window"] if self.window else [])}
        try:
            named = placeholders(self.description)
        except ValueError:
            yield ("description",), "its braces do not match"
            return
        for name in named:
            metric = file.metrics.get(name)
            if metric is None and name not in known:
                yield ("description",), f"{{{name}}} is none of {', '.join(sorted(known))} and no metric"
            elif metric is not None and set(_expanded(metric.labels, file.label_sets)) != set(scope):
                yield ("description",), f"{{{name}}} does not have the labels of the scope"


class _File(_Entry):
    labels: dict[str, str] = {}
    label_sets: dict[str, list[str]] = {}
    foreign_metrics: dict[str, _ForeignEntry] = {}
    recorded: dict[str, _RecordedEntry] = {}
    metrics: dict[str, _MetricEntry] = {}
    where_to_look: dict[str, _AdviceEntry] = {}
    thresholds: dict[str, _ThresholdEntry] = {}

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _everything_at_once(cls, data: Any, read: pydantic.ModelWrapValidatorHandler[Self]) -> Self:
        """Entries of the right shape are checked for their meaning, too, where others are not of the right shape."""
        if not isinstance(data, dict):
            return read(data)
        problems: list[tuple[str, _Path, str]] = []
        try:
            file = read(data)
        except pydantic.ValidationError as error:
            problems = [(each["type"], each["loc"], each["msg"]) for each in error.errors()]
            file = read(_without(data, {location[:2] for _, location, _ in problems}))
        named = data["metrics"] if isinstance(data.get("metrics"), dict) else {}
        problems += [("meaning", location, message) for location, message in file.problems(named)]
        if problems:
            raise pydantic.ValidationError.from_exception_data(cls.__name__, [_detail(*each) for each in problems])
        return file

    def problems(self, named: Iterable[str]) -> _Problems:
        """What does not make sense; `named` are the names of all metrics, the misshapen ones not in this file too."""
        histograms = {name for name, metric in self.metrics.items() if metric.kind == "histogram"}
        series = (set(named) - histograms) | {name + ending for name in histograms for ending in _SAMPLES}
        yield from self._name_problems()
        for section, name, found in self._entry_problems(series | self.foreign_metrics.keys()):
            for path, message in found:
                yield (section, name, *path), message

    def _name_problems(self) -> _Problems:
        for label in self.labels:
            if label in REFUSED_LABELS or not re.fullmatch(r"[a-z][a-z0-9_]*", label):
                yield ("labels", label), "must be small letters, digits and underscores, and not one that scraping sets"
        for name, labels in self.label_sets.items():
            if name in self.labels:
                yield ("label_sets", name), "is the name of a label, too"
            yield from _label_problems(("label_sets", name), labels, self.labels.keys(), {})

    def _entry_problems(self, series: Set[str]) -> Iterator[tuple[str, str, _Problems]]:
        for name, metric in self.metrics.items():
            yield "metrics", name, metric.problems(name, self)
        for name, recorded in self.recorded.items():
            yield "recorded", name, recorded.problems(name, self, series | self._turn_before(recorded))
            series = series | {name}  # what is recorded is made of what stands above it
        for key, advice in self.where_to_look.items():
            yield "where_to_look", key, advice.problems(key)
        for name, threshold in self.thresholds.items():
            yield "thresholds", name, threshold.problems(name, self, series)

    def _turn_before(self, recorded: _RecordedEntry) -> Set[str]:
        """What has turns of its own may also ask what its category recorded in the turn before, which stands below."""
        if recorded.every == _RecordedEntry.model_fields["every"].default:
            return set()
        return {name for name, other in self.recorded.items() if other.category == recorded.category}

    def metric(self, name: str) -> Metric:
        entry = self.metrics[name]
        labels = tuple(_expanded(entry.labels, self.label_sets))
        return Metric(name, entry.kind, entry.unit, entry.help, labels, tuple(entry.buckets))

    def threshold(self, name: str) -> Threshold:
        entry = self.thresholds[name]
        advice = self.where_to_look[entry.where_to_look] if entry.where_to_look else None
        return Threshold(
            name=name,
            category=entry.category,
            query=_filled(entry.query, entry.window),
            window=entry.window,
            unit=entry.unit,
            compare=entry.compare,
            limits=MappingProxyType(entry.limits),
            for_seconds=seconds(entry.pending),
            scope=tuple(_expanded(entry.scope, self.label_sets)),
            summary=(advice.summary if advice else entry.summary) or "",
            description=entry.description,
            recommendation=(advice.look if advice else entry.recommendation) or "",
            where_to_look=entry.where_to_look,
        )


def _filled(query: str, window: str | None) -> str:
    while "$by_node(" in query:
        before, _, rest = query.partition("$by_node(")
        end = _closing(rest)
        query = before + _BY_NODE.format(rest[:end]) + rest[end + 1 :]
    return query.replace("$scrape", ", ".join(SCRAPE_LABELS)).replace("$window", window or "")


def _closing(text: str) -> int:
    """Where the bracket closes that was opened before `text`; its end if none does."""
    depth = 1
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return index
    return len(text)


def _query_problems(query: str, series: Set[str]) -> _Problems:
    if not query.strip():
        yield ("query",), "asks for nothing"
    if lone := promql.lone(query):
        yield ("query",), f"{lone} has no other one"
    for unknown in sorted(metrics_in(query) - series):
        yield ("query",), f"{unknown} is not in the catalogue"


def _expanded(names: Iterable[str], sets: Mapping[str, list[str]]) -> list[str]:
    return [label for name in names for label in sets.get(name, [name])]


def _label_problems(path: _Path, names: list[str], labels: Set[str], sets: Mapping[str, list[str]]) -> _Problems:
    seen: set[str] = set()
    for index, name in enumerate(names):
        of_it = set(_expanded([name], sets))
        if name not in sets and name not in labels:
            yield (*path, index), f"unknown label {name!r}"
        elif twice := sorted(of_it & seen):
            yield (*path, index), f"label {twice[0]!r} stands twice"
        seen |= of_it


def _without(data: dict[str, Any], misshapen: Set[_Path]) -> dict[str, Any]:
    """The file's data but for the sections, and the entries of sections, at these paths."""
    return {
        section: {name: entry for name, entry in entries.items() if (section, name) not in misshapen}
        for section, entries in data.items()
        if (section,) not in misshapen
    }


def _detail(kind: str, location: _Path, message: str) -> InitErrorDetails:
    said = PydanticCustomError(kind, "{message}", {"message": message})
    return InitErrorDetails(type=said, loc=location, input=None)
