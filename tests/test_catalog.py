from pathlib import Path

import pytest

from exporters import catalog
from exporters.strictyaml import BadInput

LABELS = """\
labels:
  source: Who probes
  target: What is probed
label_sets:
  stream: [source, target]
"""
METRIC = "{kind: gauge, unit: count, labels: [stream], help: Some}"
THRESHOLD = """\
thresholds:
  OvnwatchHot:
    category: heat
    query: ovnwatch_heat
    unit: count
    compare: ">"
    warning: 3
    critical: 30
    for: 0s
    scope: [stream]
    summary: It is hot.
    description: "{source} has {value}, over {limit}; {ovnwatch_heat}"
    recommendation: Cool it.
"""
WHERE = """\
where_to_look:
  too_hot:
    blames: the oven
    summary: It is too hot.
    look: Look into it.
"""
SOUND = f"{LABELS}metrics:\n  ovnwatch_heat: {METRIC}\n{THRESHOLD}"

UNITS = "seconds, timestamp, ratio, bytes, byte rate, count, state, none"


def read(tmp_path: Path, text: str) -> catalog.Catalog:
    file = tmp_path / "metrics.yaml"
    file.write_text(text)
    return catalog.load(file)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    return str(caught.value).splitlines()


def test_what_the_catalogue_says(tmp_path: Path) -> None:
    sound = read(tmp_path, SOUND)

    assert sound.metric("ovnwatch_heat") == catalog.Metric(
        name="ovnwatch_heat", kind="gauge", unit="count", help="Some", labels=("source", "target"), buckets=()
    )
    hot = sound.thresholds["OvnwatchHot"]
    assert (hot.name, hot.scope, hot.for_seconds, hot.window) == ("OvnwatchHot", ("source", "target"), 0, None)
    assert list(hot.limits.items()) == [("warning", 3), ("critical", 30)]


def test_an_unknown_metric_is_a_bug_of_who_asks(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        read(tmp_path, SOUND).metric("ovnwatch_cold")


def test_the_window_is_filled_into_the_query(tmp_path: Path) -> None:
    text = SOUND.replace("query: ovnwatch_heat", "query: delta(ovnwatch_heat[$window])\n    window: 10m")

    assert read(tmp_path, text).thresholds["OvnwatchHot"].query == "delta(ovnwatch_heat[10m])"


def test_the_labels_of_a_scrape_are_filled_into_the_query(tmp_path: Path) -> None:
    text = SOUND.replace("query: ovnwatch_heat", "query: max without (source, $scrape) (ovnwatch_heat)")

    query = read(tmp_path, text).thresholds["OvnwatchHot"].query
    left = "container, endpoint, instance, job, namespace, node, pod, service"
    assert query == f"max without (source, {left}) (ovnwatch_heat)"


def test_what_is_recorded_may_be_asked_for_below(tmp_path: Path) -> None:
    recorded = """\
recorded:
  source:ovnwatch_heat:max:
    category: heat
    labels: [source]
    help: The hottest.
    query: max without (target) (ovnwatch_heat)
  source:ovnwatch_heat:least:
    category: heat
    labels: [source]
    help: The hottest, again.
    query: min without (target) (source:ovnwatch_heat:max)
"""
    sound = read(tmp_path, recorded + SOUND.replace("query: ovnwatch_heat", "query: source:ovnwatch_heat:least"))
    assert sound.recorded["source:ovnwatch_heat:max"] == catalog.Recorded(
        name="source:ovnwatch_heat:max",
        category="heat",
        labels=("source",),
        help="The hottest.",
        own="max without (target) (ovnwatch_heat)",
    )

    wrong = recorded.replace("[source]", "[target]", 1).replace("(source:ovnwatch_heat:max)", "(cold[$window])")
    named = "must be its labels, a metric and what was done to it: target:ovnwatch_...:..."
    assert problems(tmp_path, wrong.replace("category: heat", "category: Heat", 1) + SOUND) == [
        f"metrics.yaml:2: recorded.source:ovnwatch_heat:max: {named}",
        "metrics.yaml:3: recorded.source:ovnwatch_heat:max.category: must be small letters: it names the file of rules",
        "metrics.yaml:11: recorded.source:ovnwatch_heat:least.query: cold is not in the catalogue",
        "metrics.yaml:11: recorded.source:ovnwatch_heat:least.query: what is recorded has no window",
    ]


FOREIGN = """\
foreign_metrics:
  heat: {kind: gauge, labels: [instance], help: Some, source: others}
recorded:
  target:ovnwatch_heat:max:
    category: heat
    labels: [target]
    help: The hottest.
    query: max without (source) (ovnwatch_heat)
    others: ["$by_node(rate(heat{a=\\"b\\"}[5m])) + 1"]
"""


def test_others_tell_what_ours_do_not(tmp_path: Path) -> None:
    sound = read(tmp_path, FOREIGN + SOUND)
    left = "container, endpoint, instance, job, namespace, node, pod, service"
    by_node = 'label_replace(rate(heat{a="b"}[5m]), "k8s_node", "$1", "instance", "(.*?)(:[0-9]+)?")'
    recorded = sound.recorded["target:ovnwatch_heat:max"]
    assert recorded.others == (f"max without ({left}) ({by_node}) + 1",)
    assert recorded.query == f"{recorded.own}\nor\n{recorded.others[0]}"
    assert sound.foreign["heat"].source == "others"

    wrong = FOREIGN.replace("rate(heat{", "rate(ovnwatch_heat{")
    said = "metrics.yaml:9: recorded.target:ovnwatch_heat:max.others[0]: ovnwatch_heat is none of foreign_metrics"
    assert problems(tmp_path, wrong + SOUND) == [said]


def test_keys_of_the_users_own_pass(tmp_path: Path) -> None:
    text = SOUND.replace("    unit: count\n    c", "    x-owner: us\n    unit: count\n    c").replace(
        "labels:", "x-note: 1\nlabels:", 1
    )
    assert read(tmp_path, text).thresholds.keys() == {"OvnwatchHot"}


SHOWS = SOUND.replace("summary: It is hot.", "where_to_look: too_hot").replace("    recommendation: Cool it.\n", "")


def test_a_threshold_that_shows_a_pattern_has_its_texts(tmp_path: Path) -> None:
    sound = read(tmp_path, WHERE + SHOWS)

    assert sound.where_to_look == {
        "too_hot": catalog.Advice("too_hot", blames="the oven", summary="It is too hot.", look="Look into it.")
    }
    hot = sound.thresholds["OvnwatchHot"]
    assert (hot.where_to_look, hot.summary, hot.recommendation) == ("too_hot", "It is too hot.", "Look into it.")


ONE_LINE = "must be one line, and the same for every target: no braces"
NEEDS = "needs a summary and a recommendation, or where_to_look, which has them"
SENTENCE = "summary and look are sentences and end in a full stop, blames is none"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("too_hot:", "Too-hot:", "where_to_look.Too-hot: must be small letters and underscores"),
        ("the oven", "the oven.", f"where_to_look.too_hot.blames: {SENTENCE}"),
        ("hot.", "hot", f"where_to_look.too_hot.summary: {SENTENCE}"),
        ("into it", "into {target}", f"where_to_look.too_hot.look: {ONE_LINE}"),
        ("    look: Look into it.\n", "", "where_to_look.too_hot.look: required, but missing"),
        ("k: too_hot", "k: too_cold", "thresholds.OvnwatchHot.where_to_look: unknown pattern 'too_cold'"),
        ("    where_to_look: too_hot\n", "", f"thresholds.OvnwatchHot: {NEEDS}"),
        ("k: too_hot", "k: too_hot\n    summary: S.", "thresholds.OvnwatchHot.summary: is that of where_to_look"),
    ],
)
def test_a_bad_pattern_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = WHERE + SHOWS
    assert old in text
    told = [problem.partition(": ")[2] for problem in problems(tmp_path, text.replace(old, new, 1))]
    assert said in told


SHAPE = ": must be ovnwatch_ and then small letters, digits and underscores"
BUCKETS = ": a histogram has buckets, and nothing else has"


@pytest.mark.parametrize(
    ("name", "kind", "unit", "rest", "said"),
    [
        ("ovnwatch_a", "gauge", "furlongs", "", f".unit: unknown unit 'furlongs', not one of {UNITS}"),
        ("ovnwatch_a", "dial", "count", "", ".kind: Input should be 'counter', 'gauge', 'histogram' or 'info'"),
        ("ovnwatch_a", "gauge", "count", "hint: y", ".hint: unknown key"),
        ("ovnwatch_a", "gauge", "count", "help: y", ".help: duplicate key, first on line 8"),
        ("ovnwatch_heat", "gauge", "count", "", ": duplicate key, first on line 7"),
        ("ovnwatch_a", "counter", "count", "", ": a name of kind counter ends in _total"),
        ("ovnwatch_a", "info", "none", "", ": a name of kind info ends in _info"),
        ("ovnwatch_a", "gauge", "seconds", "", ": a name of unit seconds says _seconds"),
        ("ovnwatch_a_total", "counter", "seconds", "", ": a name of unit seconds says _seconds"),
        ("ovnwatch_a_total", "gauge", "count", "", ": the name says _total, but {}"),
        ("ovnwatch_a_sum", "gauge", "count", "", ": the name says _sum, but {}"),
        ("ovnwatch_a_seconds", "gauge", "count", "", ": the name says _seconds, but {}"),
        ("ovnwatch_a_timestamp_seconds", "gauge", "seconds", "", ": the name says _timestamp, but {}"),
        ("other_a", "gauge", "count", "", SHAPE),
        ("ovnwatch_A", "gauge", "count", "", SHAPE),
        ("ovnwatch_a_seconds", "histogram", "seconds", "", BUCKETS),
        ("ovnwatch_a_seconds", "gauge", "seconds", "buckets: [1]", f".buckets{BUCKETS}"),
        ("ovnwatch_a_seconds", "histogram", "seconds", "buckets: [1, 1]", ".buckets: must rise"),
    ],
)
def test_a_bad_metric_is_named_with_its_line(
    tmp_path: Path, name: str, kind: str, unit: str, rest: str, said: str
) -> None:
    line = f"{name}: {{kind: {kind}, unit: {unit}, labels: [], help: x, {rest}}}"
    text = f"{LABELS}metrics:\n  ovnwatch_heat: {METRIC}\n  {line}\n"
    told = said.format(f"the kind is {kind} and the unit {unit}")

    assert problems(tmp_path, text) == [f"metrics.yaml:8: metrics.{name}{told}"]


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("labels: [zone], help: x", ".labels[0]: unknown label 'zone'"),
        ("labels: [stream, source], help: x", ".labels[1]: label 'source' stands twice"),
        ("labels: []", ".help: required, but missing"),
        ('labels: [], help: "x\\ny"', ".help: must be one line"),
    ],
)
def test_bad_labels_and_help_are_named_with_their_line(tmp_path: Path, rest: str, said: str) -> None:
    text = f"{LABELS}metrics:\n  ovnwatch_a: {{kind: gauge, unit: count, {rest}}}\n"

    assert problems(tmp_path, text) == [f"metrics.yaml:7: metrics.ovnwatch_a{said}"]


WINDOW = ".window: must be given where the query says $window, and only there"
FILLED = ".description: {{{}}} is none of limit, source, target, value and no metric"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("Ovnwatch", "Heat", 10, ": must be Ovnwatch and then words in CamelCase"),
        ("y: heat", "y: Heat", 11, ".category: must be small letters: it names the file of rules"),
        ("y: ovnwatch_heat", "y: ovnwatch_cold", 12, ".query: ovnwatch_cold is not in the catalogue"),
        ("y: ovnwatch_heat", "y: rate(ovnwatch_heat[$window])", 10, WINDOW.removeprefix(".window")),
        ("y: ovnwatch_heat", "y: max(ovnwatch_heat", 12, ".query: ( has no other one"),
        ("y: ovnwatch_heat", "y: max(ovnwatch_heat))", 12, ".query: ) has no other one"),
        ("y: ovnwatch_heat", """y: 'ovnwatch_heat{source="a}'""", 12, ".query: { has no other one"),
        ("y: ovnwatch_heat", """y: ''""", 12, ".query: asks for nothing"),
        ("y: ovnwatch_heat", "y: ovnwatch_heat\n    window: 5m", 13, WINDOW),
        ("y: ovnwatch_heat", "y: a\n    window: 1m", 13, ".window: must be 120s at least: four scrapes at 30 s"),
        ("t: count\n    c", "t: percent\n    c", 13, f".unit: unknown unit 'percent', not one of {UNITS}"),
        ('">"', '"<"', 16, ".critical: < 30 is not worse than warning, < 3"),
        ("l: 30", "l: 3", 16, ".critical: > 3 is not worse than warning, > 3"),
        ("    warning: 3\n    critical: 30\n", "", 10, ": needs at least one limit: none, info, warning, critical"),
        ("for: 0s", "for: soon", 17, ".for: 'soon' is not a duration such as 90s or 1h30m"),
        ("[stream]\n    s", "[zone]\n    s", 18, ".scope[0]: unknown label 'zone'"),
        ("It is hot.", "It is {value}.", 19, ".summary: must be the same for every alert of this name: no braces"),
        ("over {limit}", "over {lim}", 20, FILLED.format("lim")),
        ("over {limit}", "over {window}", 20, FILLED.format("window")),
        ("over {limit}", "over {limit", 20, ".description: its braces do not match"),
        ("{source}", "{ovnwatch_a}", 20, ".description: {ovnwatch_a} does not have the labels of the scope"),
        ("recommendation:", "advice:", 21, ".advice: unknown key"),
    ],
)
def test_a_bad_threshold_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    text = SOUND.replace("metrics:\n", "metrics:\n  ovnwatch_a: {kind: gauge, unit: count, labels: [], help: x}\n")
    assert old in text
    name = "HeatHot" if new == "Heat" else "OvnwatchHot"

    assert f"metrics.yaml:{line}: thresholds.{name}{said}" in problems(tmp_path, text.replace(old, new))


@pytest.mark.parametrize("label", ["node", "type", "pod", "namespace", "instance", "job", "le", "Zone"])
def test_labels_that_a_scrape_sets_are_refused(tmp_path: Path, label: str) -> None:
    text = f"labels:\n  source: Who\n  {label}: Not ours\n"

    said = "must be small letters, digits and underscores, and not one that scraping sets"
    assert problems(tmp_path, text) == [f"metrics.yaml:3: labels.{label}: {said}"]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    hot = THRESHOLD.replace("l: 30", "l: 1").replace("y: ovnwatch_heat", "y: ovnwatch_b + ovnwatch_c")
    hot = hot.replace("{source}", "It").replace("; {ovnwatch_heat}", "")
    text = f"""\
labels: {{source: Who, target: What, node: Refused}}
label_sets:
  flow: [source, where]
  target: [source]
metrics:
  ovnwatch_a: {{kind: counter, unit: furlongs, labels: [nobody], help: x}}
  ovnwatch_b: {{kind: gauge, unit: count, labels: [], help: x, what: y}}
{hot}
more: 1
"""

    assert problems(tmp_path, text) == [
        "metrics.yaml:1: labels.node: must be small letters, digits and underscores, and not one that scraping sets",
        "metrics.yaml:3: label_sets.flow[1]: unknown label 'where'",
        "metrics.yaml:4: label_sets.target: is the name of a label, too",
        "metrics.yaml:6: metrics.ovnwatch_a: a name of kind counter ends in _total",
        f"metrics.yaml:6: metrics.ovnwatch_a.unit: unknown unit 'furlongs', not one of {UNITS}",
        "metrics.yaml:6: metrics.ovnwatch_a.labels[0]: unknown label 'nobody'",
        "metrics.yaml:7: metrics.ovnwatch_b.what: unknown key",
        "metrics.yaml:11: thresholds.OvnwatchHot.query: ovnwatch_c is not in the catalogue",
        "metrics.yaml:15: thresholds.OvnwatchHot.critical: > 1 is not worse than warning, > 3",
        "metrics.yaml:17: thresholds.OvnwatchHot.scope[0]: unknown label 'stream'",
        "metrics.yaml:22: more: unknown key",
    ]


@pytest.mark.parametrize("text", ["- a list\n", "metrics: 5\n", "metrics: [a]\n", "metrics: {a: 1}\n"])
def test_another_shape_altogether_is_refused(tmp_path: Path, text: str) -> None:
    assert len(problems(tmp_path, text)) == 1


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("up", {"up"}),
        ('rate(a_total{job="x", b!~"c"}[5m] offset 1h) > bool 3', {"a_total"}),
        ("sum without (x, y) (a) / on (job) group_left (z) b", {"a", "b"}),
        ("histogram_quantile(0.9, rate(a_seconds_bucket[5m]))", {"a_seconds_bucket"}),
        ("a and b unless c or (vector(1) == 1e9)", {"a", "b", "c"}),
        ("last_over_time(a:b:c[1d:10m])", {"a:b:c"}),
        ("delta(a[$window]) and a offset $window", {"a"}),
    ],
)
def test_metrics_in_a_query(query: str, names: set[str]) -> None:
    assert catalog.metrics_in(query) == names


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert catalog.seconds(text) == seconds


def test_the_projects_own_catalogue_is_sound() -> None:
    own = catalog.load()

    assert own.metric("ovnwatch_probes_total").labels == ("source", "target", "path", "protocol", "family")
    used = {label for each in own.metrics.values() for label in each.labels}
    used |= {label for each in own.recorded.values() for label in each.labels}
    assert used == set(own.labels), "the list of labels says what is used, and nothing else"


def test_an_exporter_reads_of_ours_what_it_needs() -> None:
    whole, ours = catalog.load(), catalog.exported()
    assert (ours.metrics, ours.where_to_look, ours.labels) == (whole.metrics, whole.where_to_look, whole.labels)
    assert not ours.thresholds
    assert catalog.exported() is ours
