"""The committed dashboards: their shape, their queries, and what a real Prometheus answers to them.

Of dashboard-linter's rules all apply but `template-job-rule`, `template-instance-rule`, `target-job-rule` and
`target-instance-rule`: our labels say who probes what, while a job and an instance only say who was scraped, change
with every pod, and are not the same on every site. `target-counter-agg-rule` and `target-rate-interval-rule` hold but
for the steps of a graph, which are subtracted (see the head of grafana/queries.py), and for totals over the range.
"""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scraped import SCRAPE, Samples, Site, site

from exporters import catalog
from grafana import __main__ as command
from grafana import boards, grid, looks, panels, parts, queries
from grafana.grid import Size

ROOT = Path(__file__).resolve().parent.parent
CATALOG = catalog.load()
FILES = sorted((ROOT / "grafana/dashboards").glob("*.json"))
BOARDS = {file.stem: json.loads(file.read_text()) for file in FILES}
FOREIGN = yaml.safe_load((ROOT / "metrics.yaml").read_text())["foreign_metrics"]
SERIES = set(CATALOG.metrics) | set(CATALOG.recorded) | set(FOREIGN) | {
    f"{name}_{part}" for name, metric in CATALOG.metrics.items() if metric.kind == "histogram"
    for part in ("bucket", "count", "sum")
}  # fmt: skip
MODERN = {"heatmap", "row", "stat", "state-timeline", "status-history", "table", "text", "timeseries"}
LEGACY = {
    "cacheTimeout", "error", "gnetId", "height", "hideControls", "hideTimeOverride", "inputs", "minSpan",
    "rows", "sharedCrosshair", "span", "style", "thresholdType", "timeFrom", "timeShift", "time_options", "displayMode",
}  # fmt: skip
ALL = {"datasource": "prometheus", "cluster": ".*", "source": ".+", "target": ".+", "path": ".+", "protocol": ".+"}
ALL |= {"k8s_node": ".+", "instance": ".+", "observer": ".+", "before": "1d", "budget": "60"}
RANGE = 60  # seconds, in the tests that ask a Prometheus
STEP = 2
TIMES = {"__rate_interval": "10s", "__interval": f"{STEP}s", "__range_s": str(RANGE), "__range": f"{RANGE}s"}


class Asked(NamedTuple):
    """One query of one panel."""

    board: dict[str, Any]
    panel: dict[str, Any]
    target: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.panel['title']} {self.target['refId']}"

    def expr(self, **chosen: str) -> str:
        """Its expression as Grafana would send it, with everything chosen but what is given."""
        return filled(self.target["expr"], {**ALL, **TIMES, **chosen})


def filled(expr: str, values: Mapping[str, str]) -> str:
    text = re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)
    assert "$" not in text
    return text


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def is_matrix(panel: dict[str, Any]) -> bool:
    return any(each["id"] == "groupingToMatrix" for each in panel.get("transformations", ()))


def below(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a document with its path."""
    yield path, value
    for name, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from below(each, f"{path}.{name}")


PANELS = [panel for board in BOARDS.values() for panel in panels_of(board)]
SHOWN = [panel for panel in PANELS if panel["type"] not in ("row", "text")]
QUERIES = [
    Asked(board, panel, target)
    for board in BOARDS.values()
    for panel in panels_of(board)
    for target in panel.get("targets", ())
]
CONNECTIVITY = [query for query in QUERIES if query.board is BOARDS["connectivity"]]
MARKS = [
    mark for board in BOARDS.values() for mark in board["annotations"]["list"] if mark["name"] != "Annotations & Alerts"
]

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
each_query = pytest.mark.parametrize("query", QUERIES, ids=str)


# --- the files


def test_the_committed_files_are_what_the_boards_say(tmp_path: Path) -> None:
    """Run `make generate` after a change to a board or to metrics.yaml."""
    assert command.main(["--output-dir", str(tmp_path)]) == 0

    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in FILES}


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert command.main(["--output-dir", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_several_clusters_are_chosen_from_by_a_variable(tmp_path: Path) -> None:
    assert command.main(["--output-dir", str(tmp_path), "--multi-cluster"]) == 0

    for file in tmp_path.iterdir():
        made, committed = json.loads(file.read_text()), BOARDS[file.stem]
        assert [made["templating"]["list"][1][key] for key in ("name", "hide")] == ["cluster", 0]
        made["templating"]["list"][1]["hide"] = committed["templating"]["list"][1]["hide"]
        for panel in (each for each in panels_of(made) if is_matrix(each)):
            (asked,) = panel["targets"]
            joined = re.fullmatch(r'label_join\((.*), "(\w+)", " / ", "cluster", "\2"\)', asked["expr"], re.DOTALL)
            assert joined
            assert "by (cluster, " in joined[1]
            asked["expr"] = joined[1]
        assert json.loads(json.dumps(made).replace("{{cluster}} ", "")) == committed


def test_of_several_clusters_what_is_called_alike_is_told_apart(tmp_path: Path) -> None:
    """But in tables, which have a column for it or rows of it, where all clusters are one value, and by scrapes."""
    assert command.main(["--output-dir", str(tmp_path), "--multi-cluster"]) == 0

    boards = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    shown = [
        panel for board in boards for panel in panels_of(board) if panel["type"] in ("timeseries", "state-timeline")
    ]
    alike = [
        each for panel in shown for each in panel["targets"] if not each["legendFormat"].startswith("{{cluster}} ")
    ]
    assert {each["legendFormat"] for each in alike} == {"{{job}} {{instance}}"}
    marks = [mark for board in boards for mark in board["annotations"]["list"][1:]]
    assert all(mark["titleFormat"].startswith("{{cluster}} ") for mark in marks)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_sorted_and_fits_where_it_is_kept(file: Path) -> None:
    text = file.read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert len(text) <= 200 * 1024  # an annotation of Kubernetes holds 256 KiB, a ConfigMap four times that


# --- boards


@each_board
def test_a_board_has_the_houses_settings(board: dict[str, Any]) -> None:
    assert board["schemaVersion"] == 39
    assert re.fullmatch(r"ovnwatch-[a-z-]{1,31}", board["uid"])
    assert board["title"].startswith("ovnwatch / ")
    assert board["description"]
    assert (board["editable"], board["timezone"], board["refresh"]) == (False, "utc", "10s")
    assert board["tags"] == ["ovnwatch"]


@each_board
def test_a_board_leads_to_the_others_and_keeps_time_and_choices(board: dict[str, Any]) -> None:
    (link,) = board["links"]
    assert link["type"] == "dashboards"
    assert link["tags"] == ["ovnwatch"]
    assert link["keepTime"]
    assert link["includeVars"]


def test_uids_differ() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


@each_board
def test_there_is_one_variable_for_the_data_source(board: dict[str, Any]) -> None:
    first, *others = board["templating"]["list"]
    assert (first["type"], first["name"], first["label"]) == ("datasource", "datasource", "Data source")
    assert first["query"] == "prometheus"
    assert {each["type"] for each in others} <= {"query", "custom"}


@each_board
def test_variables_narrow_each_other_and_follow_the_time_range(board: dict[str, Any]) -> None:
    names: list[str] = []
    for each in board["templating"]["list"][1:]:
        if each["type"] == "custom":
            continue
        assert each["query"] == each["definition"]
        query = re.fullmatch(r"label_values\((\w+)(?:\{(.*)\})?, (\w+)\)", each["query"])
        assert query
        metric, matchers, label = query.groups()
        assert metric in CATALOG.metrics
        known = {"cluster", *CATALOG.metric(metric).labels}
        assert (matchers or "") == ",".join(f'{name}=~"${name}"' for name in names if name in known)
        if each["name"] == "observer":
            assert (label, each["multi"], each["includeAll"], each["hide"]) == ("source", False, False, 0)
            continue
        assert label == each["name"]
        assert (each["multi"], each["includeAll"], each["refresh"], each["sort"]) == (True, True, 2, 1)
        # All of what is hidden is what the choices before it leave.
        hidden = label == "instance" or (label in ("path", "protocol") and board["uid"] != "ovnwatch-connectivity")
        assert each.get("allValue") == (".*" if label == "cluster" else None if hidden else ".+")
        assert each["hide"] == (2 if hidden or label == "cluster" else 0)
        assert each["datasource"] == parts.DATASOURCE
        names.append(label)
    assert names[0] == "cluster"


@each_board
def test_a_setting_has_its_first_value_chosen(board: dict[str, Any]) -> None:
    for each in board["templating"]["list"]:
        if each["type"] == "custom":
            values = each["query"].split(",")
            assert [option["value"] for option in each["options"]] == values
            assert [option["value"] for option in each["options"] if option["selected"]] == values[:1]
            assert each["current"]["value"] == values[0]


def test_settings_are_read_and_settings_read_are_there() -> None:
    for board in BOARDS.values():
        named = set(re.findall(r"\$(\w+)", json.dumps([panel.get("targets") for panel in panels_of(board)])))
        there = {each["name"] for each in board["templating"]["list"]}
        assert {name for name in named if not name.startswith("__")} <= there


@each_board
def test_what_happened_is_marked(board: dict[str, Any]) -> None:
    marked = [mark["name"] for mark in board["annotations"]["list"]]
    assert len(set(marked)) == len(marked)
    assert {"Phases", "Outages", "Egress moves"} <= set(marked)


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark["name"])
def test_a_mark_says_what_it_marks(mark: dict[str, Any]) -> None:
    assert mark["expr"] == mark["target"]["expr"]  # Grafana 9 reads the one, later ones the other
    assert mark["datasource"] == parts.DATASOURCE
    labels = set(re.findall(r"\{\{(\w+)\}\}", mark["titleFormat"]))
    (by,) = re.findall(r"^max by \((.*?)\)", mark["expr"])
    assert labels <= set(by.split(", "))
    assert catalog.metrics_in(filled(mark["expr"], ALL)) <= SERIES


@each_board
def test_nothing_is_null_but_a_first_step(board: dict[str, Any]) -> None:
    assert all(path.endswith("steps.0.value") for path, value in below(board) if value is None)


@each_board
def test_no_key_of_older_grafanas(board: dict[str, Any]) -> None:
    keys = {key for _, value in below(board) if isinstance(value, dict) for key in value}
    # displayMode is also what a legend's shape is called today.
    assert keys & LEGACY <= {"displayMode"}
    assert all(path.endswith("legend.displayMode") for path, _ in below(board) if path.endswith(".displayMode"))
    assert not any("editable" in panel for panel in panels_of(board))


@each_board
def test_ids_are_unique_and_come_from_keys(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in panels_of(board)]
    assert len(set(ids)) == len(ids)
    assert boards.panel_id("down-now") == 836_048  # links to it are out there


@each_board
def test_a_panel_is_told_by_its_title(board: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels_of(board)]
    assert len(set(titles)) == len(titles)


def test_the_same_key_twice_and_a_long_uid_are_refused() -> None:
    twice = panels.text("words", "Words", "Words.", "Words.", size=Size(24, 2))
    choices = [boards.Choice("source", "Source", "ovnwatch_build_info")]
    for uid, shown in (("ovnwatch-twice", [twice, twice]), ("o" * 41, [twice])):
        with pytest.raises(ValueError, match=uid):
            boards.board(uid, "Title", "Words.", [boards.Row("row", "Row", shown)], choices)


# --- the grid


@each_board
def test_panels_neither_overlap_nor_leave_holes(board: dict[str, Any]) -> None:
    assert_tiled([panel["gridPos"] for panel in board["panels"]])
    for row in board["panels"]:
        if row.get("collapsed"):
            assert_tiled([row["gridPos"], *(panel["gridPos"] for panel in row["panels"])])
        else:
            assert not row.get("panels")


@each_board
def test_no_more_is_seen_at_once_than_can_be_grasped(board: dict[str, Any]) -> None:
    assert len([panel for panel in board["panels"] if panel["type"] != "row"]) <= 20


def assert_tiled(places: list[dict[str, int]]) -> None:
    top = min(place["y"] for place in places)
    bottom = max(place["y"] + place["h"] for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    assert sum(place["w"] * place["h"] for place in places) == 24 * (bottom - top)


@given(st.lists(st.builds(Size, st.integers(1, 24), st.integers(1, 20)), min_size=1, max_size=30), st.integers(0, 100))
def test_any_sizes_tile_the_grid_in_their_order(sizes: list[Size], top: int) -> None:
    places = grid.flow(sizes, top)

    assert_tiled([place._asdict() for place in places])
    assert min(place.y for place in places) == top
    assert [(place.y, place.x) for place in places] == sorted((place.y, place.x) for place in places)
    assert all(place.w >= size.width and place.h >= size.height for place, size in zip(places, sizes, strict=True))


@pytest.mark.parametrize("width", [0, 25])
def test_a_width_that_no_line_has_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=str(width)):
        grid.flow([Size(width, 1)], 0)


# --- panels


@each_panel
def test_a_panel_is_modern_and_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["type"] in MODERN
    assert panel["datasource"] == parts.DATASOURCE
    assert panel["targets"]
    assert all(target["datasource"] == parts.DATASOURCE for target in panel["targets"])
    assert [target["refId"] for target in panel["targets"]] == [chr(65 + n) for n in range(len(panel["targets"]))]


@pytest.mark.parametrize("panel", [each for each in PANELS if each["type"] != "row"], ids=lambda each: each["title"])
def test_a_panel_says_what_it_shows_and_what_good_looks_like(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["type"] == "text" or "Good: " in panel["description"]


@each_panel
def test_a_panel_has_a_unit_or_words_for_its_values(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    overridden = [each["id"] for override in panel["fieldConfig"]["overrides"] for each in override["properties"]]
    words = any(mapping["type"] == "value" for mapping in defaults.get("mappings", ()))
    axis = panel["options"].get("yAxis", {}).get("unit")
    assert defaults.get("unit") in looks.UNITS.values() or words or axis in looks.UNITS.values() or "unit" in overridden


@each_panel
def test_what_is_not_there_is_said_in_grey(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"] == "no data"
    if panel["type"] != "heatmap":
        assert (looks.not_probed() if is_matrix(panel) else looks.missing()) in defaults["mappings"]


def test_the_state_of_a_stream_is_told_by_the_codes_of_the_boards() -> None:
    told = CATALOG.metric("ovnwatch_stream_state").help
    wanted = (looks.UP, looks.UNKNOWN, looks.NOT_OBSERVED, looks.NOT_ANSWERING, looks.DOWN)
    assert re.findall(r"(\d) ([a-z ]+)[,.]", told) == [(str(state.code), state.text) for state in wanted]


def test_states_have_colours_and_words_of_their_own() -> None:
    assert len({state.code for state in looks.STATES}) == len(looks.STATES)
    assert len({state.text for state in looks.STATES}) == len(looks.STATES)
    assert len({state.colour for state in looks.STATES}) == len(looks.STATES)
    unknown = (looks.NO_DATA, looks.UNKNOWN, looks.NOT_OBSERVED)
    greys = [re.fullmatch(r"#(..)\1\1", state.colour) for state in looks.STATES]
    assert [state for state, grey in zip(looks.STATES, greys, strict=True) if grey] == list(unknown)


# --- thresholds


@each_panel
def test_steps_are_limits_of_the_catalogue(panel: dict[str, Any]) -> None:
    known = [looks.steps(threshold) for threshold in CATALOG.thresholds.values() if "none" not in threshold.limits]
    for path, value in below(panel["fieldConfig"]):
        if path.endswith(".steps"):
            assert value in known or [step["value"] for step in value] == [None]


@pytest.mark.parametrize(
    ("compare", "limits", "expected"),
    [
        (">", {"warning": 3, "critical": 30}, [("OK", None), ("warning", 3), ("critical", 30)]),
        (">", {"info": 0, "warning": 3}, [("OK", None), ("info", looks.ABOVE_ZERO), ("warning", 3)]),
        (">=", {"info": 0}, [("OK", None), ("info", 0)]),
        ("<", {"warning": 0.9}, [("warning", None), ("OK", 0.9)]),
        ("<", {"warning": 0.9, "critical": 0.5}, [("critical", None), ("warning", 0.5), ("OK", 0.9)]),
    ],
)
def test_limits_become_steps(compare: Any, limits: dict[str, float], expected: list[tuple[str, float | None]]) -> None:
    threshold = catalog.Threshold(
        "Hot", "heat", "heat", None, "count", compare, limits, 0, (), "Hot.", "It is hot.", "Cool it."
    )
    colours = {"OK": looks.GREEN, **looks.SEVERITIES}
    assert looks.steps(threshold) == [{"color": colours[word], "value": value} for word, value in expected]


# --- queries


@each_query
def test_a_query_reads_only_what_is_in_the_catalogue(query: Asked) -> None:
    named = catalog.metrics_in(query.expr())
    assert named
    assert named <= SERIES


@each_query
def test_a_query_narrows_by_every_choice_that_its_metrics_know(query: Asked) -> None:
    """A metric of a node exporter says no node itself; its `instance` does, and a join."""
    choices = [each["name"] for each in query.board["templating"]["list"] if each["type"] == "query"]
    expr = query.target["expr"]
    selectors = re.findall(r"([\w:]+)\{(.*?)\}", expr)
    for name, matchers in selectors:
        known = {"cluster", *labels_of(name)}
        wanted = [f'{choice}=~"${choice}"' for choice in choices if choice in known]
        if "$observer" in expr:  # a source, of which there is one
            wanted = [each.replace("$source", "$observer") for each in wanted]
        narrowed = matchers.replace('"$cluster|"', '"$cluster"').split(",")  # or of no cluster, as the watchdog is
        assert narrowed[: len(wanted)] == wanted, name
    assert sorted(name for name, _ in selectors) == sorted(re.findall(NAMES, expr))


NAMES = rf"(?<![\w:])(?:{'|'.join(sorted(SERIES, key=len, reverse=True))})(?![\w:])"


def labels_of(name: str) -> tuple[str, ...]:
    if name in FOREIGN:
        return tuple(set(FOREIGN[name]["labels"]) - {"instance"})
    if name in CATALOG.recorded:
        return CATALOG.recorded[name].labels
    labels = CATALOG.metric(name.removesuffix("_bucket")).labels
    of_a_node = re.match(r"ovnwatch_(node|ovs|ovn)_", name) and "k8s_node" not in labels
    return (*labels, "instance") if of_a_node else labels


@each_query
def test_counters_are_read_as_counters_and_gauges_are_not(query: Asked) -> None:
    expr = re.sub(r"\{[^}]*\}", "", query.target["expr"])
    steps = r"\((ovnwatch_\w+) - last_over_time\(\1\[15m\] offset \$__interval\) >= 0\)"
    read = re.sub(steps, "", expr)
    # Subqueries look at a rate of two minutes each minute, and at whose turn it was each half; a gate a little back;
    # what all events and links of all nodes gained is asked of the last time alone.
    ranges = {"$__rate_interval", "$__range", "1m", "2m", "15m", "1h", "$__range:1m", "$__range:30s"}
    assert set(re.findall(r"\[(.*?)\]", read)) <= ranges
    counted = re.findall(r"\b(?:rate|increase)\((\w+)\[", read)
    counters = {name for name in catalog.metrics_in(read) if is_counter(name)}
    assert set(counted) == counters
    assert len(counted) == sum(len(re.findall(rf"\b{name}\b", read)) for name in counters)
    assert all(is_counter(name) for name in re.findall(steps, expr))


def is_counter(name: str) -> bool:
    return name.endswith("_bucket") or (name in CATALOG.metrics and CATALOG.metric(name).kind == "counter")


@each_query
def test_a_rate_sees_four_slow_scrapes_and_a_table_asks_once(query: Asked) -> None:
    assert query.target.get("interval") == ("30s" if "$__rate_interval" in query.target["expr"] else None)
    assert query.target["instant"] == (query.panel["type"] in ("stat", "table"))
    assert query.target["range"] != query.target["instant"]


@pytest.mark.system("promtool")
def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    exprs = [*(query.expr() for query in QUERIES), *(filled(mark["expr"], ALL) for mark in MARKS)]
    rules = [{"record": f"panel:query_{n}", "expr": expr} for n, expr in enumerate(exprs)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


# What its exporter tells of a stream, each 30 s -> minutes, and the states it is shown in over a range of half an hour.
LIVES: dict[str, tuple[str, dict[float, looks.State | None]]] = {
    "told": (
        "3 1 7 4 6",
        {0: looks.UNKNOWN, 0.5: looks.UP, 1: looks.DOWN, 1.5: looks.NOT_OBSERVED, 2: looks.NOT_ANSWERING},
    ),
    "not scraped any more": ("1 stale", {0: looks.UP, 0.5: looks.NO_DATA, 59: looks.NO_DATA, 95: None}),
}


@pytest.mark.system("promtool")
@pytest.mark.parametrize("life", LIVES)
def test_the_state_of_a_stream(life: str, tmp_path: Path) -> None:
    told, states = LIVES[life]
    codes = [(int(minute * 60), state and state.code) for minute, state in states.items()]
    for query in (queries.state_now(queries.STREAM), f"max by ({queries.STREAM}) ({queries.all_states()})"):
        expect(tmp_path, {"stream_state": told, "observed_seconds_total": told}, query, codes, seconds=1800)


@pytest.mark.system("promtool")
def test_a_stream_lives_on_when_its_exporter_is_another_pod(tmp_path: Path) -> None:
    first, second = (
        {"stream_state": "7 stale", "observed_seconds_total": "1 stale"},
        {"stream_state": "_ 1", "observed_seconds_total": "_ 2"},
    )
    states = [(0, looks.DOWN.code), (30, looks.UP.code)]
    for query in (queries.state_now(queries.STREAM), f"max by ({queries.STREAM}) ({queries.all_states()})"):
        expect(tmp_path, first, query, states, second)


@pytest.mark.system("promtool")
def test_an_outage_between_two_scrapes_leaves_its_mark(tmp_path: Path) -> None:
    series = {
        "stream_state": "1x5", "peer_frozen_seconds_total": "0x5",
        "outage_seconds_total": "0 0 2.5 2.5 2.5 2.5", "connection_break_seconds_total": "0 0 0 0 1 1",
    }  # fmt: skip
    states = {60: looks.INTERRUPTED, 120: looks.NOT_ANSWERING}
    every = [(second, states.get(second, looks.UP).code) for second in range(30, 151, 15)]
    expect(tmp_path, series, queries.state_over_time(), every)


@pytest.mark.system("promtool")
@pytest.mark.parametrize(
    ("counter", "gains"),
    [
        ("0 0 2.5 2.5 2.5 6.5", {60: 2.5, 150: 4}),
        # Scrapes fail while the network is down: what was counted shows with the first one after it.
        ("0 0 stale _ 2.5 2.5", {60: None, 75: None, 90: None, 105: None, 120: 2.5}),
        # The exporter was restarted and counts anew: one hole, no step down and no invented outage.
        ("8 8 8 0 0 1", {90: None, 150: 1}),
    ],
)
def test_steps_shorter_than_scrapes_are_exact(counter: str, gains: dict[int, float | None], tmp_path: Path) -> None:
    every = [(second, gains.get(second, 0)) for second in range(30, 151, 15)]
    expect(
        tmp_path,
        {"outage_seconds_total": counter},
        queries.streams(queries.step("ovnwatch_outage_seconds_total")),
        every,
    )


def expect(
    folder: Path,
    series: dict[str, str],
    expr: str,
    values: Sequence[tuple[int, float | None]],
    *others: dict[str, str],
    told: Sequence[str] = ("source", "target", "path", "protocol", "family"),
    seconds: int = 600,
) -> None:
    """Assert by promtool what an expression is at some times (seconds), of series of one stream scraped each 30 s.

    Its values have the labels that are `told` of the stream; the range is of so many seconds.
    """
    labels = {"source": "a", "target": "b", "path": "pod", "protocol": "tcp", "family": "4"}
    written = ",".join(f'{name}="{each}"' for name, each in labels.items())
    lives = [
        {"series": f'ovnwatch_{name}{{{written},pod="{pod}"}}', "values": samples}
        for pod, life in enumerate((series, *others))
        for name, samples in life.items()
    ]
    asked = filled(expr, {**ALL, **TIMES, "__interval": "15s", "__range": f"{seconds}s", "__range_s": f"{seconds}"})
    having = ",".join(f'{name}="{labels[name]}"' for name in told)
    tests = [
        {
            "expr": asked,
            "eval_time": f"{second}s",
            "exp_samples": [] if value is None else [{"labels": f"{{{having}}}", "value": value}],
        }
        for second, value in values
    ]
    # promtool loads what is before the last time at which it is asked, not what is at it.
    tests.append({"expr": "vector(1)", "eval_time": "2h", "exp_samples": [{"labels": "{}", "value": 1}]})
    rules = [str(ROOT / f"alerts/rules/{name}.yaml") for name in ("boards", "totals")]
    test = {"interval": "30s", "input_series": lives, "promql_expr_test": tests}
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "30s", "tests": [test]}))
    promtool("test", "rules", str(file))


ANSWERED = {"stream_state": "1x9", "observed_seconds_total": "0+30x9", "last_success_timestamp_seconds": "0x9"}
GONE = {
    "stream_state": "1 1 1 stale",
    "observed_seconds_total": "0 30 60 stale",
    "last_success_timestamp_seconds": "0 0 0 stale",
}
# What is known of a stream, scraped each 30 s -> what it lost in the range, at 120 s.
LOST = {
    "nothing": (ANSWERED | {"outage_seconds_total": "0x9"}, 0.0),
    "nothing, whatever it lost before anybody read it": (ANSWERED | {"outage_seconds_total": "8x9"}, 0.0),
    "something": (ANSWERED | {"outage_seconds_total": "0 0 2 2 2"}, 2.0),
    "something, twice": (ANSWERED | {"outage_seconds_total": "0 0.5 0.5 0.5 2"}, 2.0),
    "something, while it was not scraped": (ANSWERED | {"outage_seconds_total": "8 stale _ 10.5 10.5"}, 2.5),
    "something, after it counted anew": (ANSWERED | {"outage_seconds_total": "8 8 0 0 1"}, 1.0),
    "something, and nobody tells of it any more": (GONE | {"outage_seconds_total": "0 0 2 stale"}, 2.0),
    "nothing, and nobody tells of it any more": (GONE | {"outage_seconds_total": "0 0 0 stale"}, None),
    "nothing, and nobody looks": (ANSWERED | {"stream_state": "4x9", "outage_seconds_total": "0x9"}, None),
    "unknown, for it was never answered": (ANSWERED | {"stream_state": "3x9", "outage_seconds_total": "0x9"}, None),
}
# The same of a stream that two tell of: what each says, and the sum.
TWICE = {
    "another pod goes on from the journal": ("0 2 stale", "_ _ 9 9 9", 9.0),
    "another pod counts anew": ("0 5 stale", "_ _ 1 3 3", 7.0),
    "two jobs scrape one exporter": ("0 0 5 5 5", "0 0 5 5 5", 5.0),
}
# The same of the bounds: its counters are of outages that ended, and of those that are open there is more.
BOUNDS = {
    "nothing": (ANSWERED | {"outage_seconds_lower_total": "0x9", "outage_seconds_upper_total": "0x9"}, 0.0, 0.0),
    "one that ended": (
        ANSWERED | {"outage_seconds_lower_total": "2 2 3x9", "outage_seconds_upper_total": "4 4 7x9"},
        1.0,
        3.0,
    ),
    "one that is open": (
        ANSWERED
        | {"outage_seconds_lower_total": "0 0 1x9", "outage_seconds_upper_total": "0 0 3x9", "outage_open": "0 0 0 1x9"}
        | {"last_outage_lower_seconds": "_ _ 1 30 60", "last_outage_upper_seconds": "_ _ 3 32 62"},
        61.0,
        65.0,
    ),
    "one that is no longer open": (
        ANSWERED
        | {"outage_seconds_lower_total": "0 0 0 0 40", "outage_seconds_upper_total": "0 0 0 0 42"}
        | {"outage_open": "0 0 1 1 0", "last_outage_lower_seconds": "_ _ 9 39 40"}
        | {"last_outage_upper_seconds": "_ _ 11 41 42"},
        40.0,
        42.0,
    ),
    "one whose edge the range cuts": (
        ANSWERED
        | {"outage_seconds_lower_total": "0 0 0 600 600", "outage_seconds_upper_total": "0 0 0 602 602"}
        | {"outage_open": "1 1 1 0 0", "last_outage_lower_seconds": "480 510 540 600 600"}
        | {"last_outage_upper_seconds": "482 512 542 602 602"},
        120.0,
        602.0,  # nobody read it before the range: it may be of it as a whole
    ),
    "one that turned out to be less": (
        ANSWERED
        | {"outage_seconds_lower_total": "0x9", "outage_seconds_upper_total": "0x9", "outage_open": "0 1 1 0 0"}
        | {"last_outage_lower_seconds": "_ 1 31 _ _", "last_outage_upper_seconds": "_ 3 33 _ _"},
        0.0,
        0.0,
    ),
    "one that was open when it was first read": (
        {"stream_state": "_ _ _ 1x6", "observed_seconds_total": "_ _ _ 0+30x6"}
        | {"last_success_timestamp_seconds": "_ _ _ 0x6"}
        | {"outage_seconds_lower_total": "_ _ _ 0x6", "outage_seconds_upper_total": "_ _ _ 0x6"}
        | {"outage_open": "_ _ _ 1x6", "last_outage_lower_seconds": "_ _ _ 240 270"}
        | {"last_outage_upper_seconds": "_ _ _ 242 272"},
        30.0,
        272.0,
    ),
    "before the exporter counted anew": (
        ANSWERED | {"outage_seconds_lower_total": "7 7 9 0 0", "outage_seconds_upper_total": "9 9 13 0 0"},
        2.0,
        4.0,
    ),
    "one whose exporter is gone": (
        GONE
        | {"outage_seconds_lower_total": "0 0 0 stale", "outage_seconds_upper_total": "0 0 0 stale"}
        | {"outage_open": "0 1 1 stale", "last_outage_lower_seconds": "_ 1 31 stale"}
        | {"last_outage_upper_seconds": "_ 3 33 stale"},
        31.0,
        33.0,
    ),
    "one that its exporter took up again": (
        ANSWERED
        | {"outage_seconds_lower_total": "0 0 stale _ 0", "outage_seconds_upper_total": "0 0 stale _ 0"}
        | {"outage_open": "0 1 stale _ 1", "last_outage_lower_seconds": "_ 1 stale _ 91"}
        | {"last_outage_upper_seconds": "_ 3 stale _ 93"},
        91.0,
        93.0,
    ),
}


@pytest.mark.system("promtool")
@pytest.mark.parametrize("how", LOST)
def test_what_a_stream_lost(how: str, tmp_path: Path) -> None:
    series, lost = LOST[how]
    expect(tmp_path, series, queries.worst(queries.about()), [(120, lost)], told=())


@pytest.mark.system("promtool")
@pytest.mark.parametrize("how", TWICE)
def test_what_a_stream_lost_that_two_tell_of(how: str, tmp_path: Path) -> None:
    first, second, lost = TWICE[how]
    one, other = ({f"outage_seconds{bound}_total": told for bound in ("", "_lower")} for told in (first, second))
    for read in (queries.about, queries.at_least):
        expect(tmp_path, ANSWERED | one, queries.worst(read()), [(120, lost)], other, told=())


@pytest.mark.system("promtool")
@pytest.mark.parametrize("how", BOUNDS)
def test_what_a_stream_lost_at_least_and_at_most(how: str, tmp_path: Path) -> None:
    series, least, most = BOUNDS[how]
    expect(tmp_path, series, queries.worst(queries.at_least()), [(120, least)], told=())
    expect(tmp_path, series, queries.worst(queries.at_most()), [(120, most)], told=())


@pytest.mark.system("promtool")
@pytest.mark.parametrize(
    ("series", "share"),
    [
        (ANSWERED, 0.2),  # 120 s of the ten minutes
        (ANSWERED | {"observed_seconds_total": "0x9"}, 0.0),
        ({"observed_seconds_total": "0+30x9"}, None),  # never answered
        (ANSWERED | {"observed_seconds_total": "0 stale _ 90 120"}, 0.15),  # nobody scraped it: a minute of it counts
        (GONE, 0.1),
    ],
)
def test_what_share_of_the_range_was_observed(series: dict[str, str], share: float | None, tmp_path: Path) -> None:
    expect(tmp_path, series, queries.covered(), [(120, share)], told=["target"])


UP_ALL_ALONG = {
    "stream_state": "1x9", "observed_seconds_total": "0+30x9", "last_success_timestamp_seconds": "0+30x9",
    "outage_open": "0x9", "outage_seconds_upper_total": "0x9",
}  # fmt: skip
GO, WAIT, STOP = 0, 1, 2
DECISIONS: dict[str, tuple[dict[str, str], list[tuple[int, float | None]]]] = {
    "all is up": (UP_ALL_ALONG, [(60, GO)]),
    "nothing is there": ({}, [(60, None)]),
    "never answered": ({"stream_state": "3x9", "observed_seconds_total": "0x9"}, [(60, WAIT)]),
    "no rules record what is lost": ({"stream_state": "1x9"}, [(60, None)]),
    "out": (UP_ALL_ALONG | {"stream_state": "1 7 7", "outage_open": "0 1 1"}, [(0, GO), (60, WAIT)]),
    "an end is a minute old": (
        UP_ALL_ALONG | {"last_outage_end_timestamp_seconds": "_ 30x9"},
        [(0, GO), (30, WAIT), (85, WAIT), (90, GO)],
    ),
    "gone": (
        UP_ALL_ALONG | {"stream_state": "1 stale", "observed_seconds_total": "0 stale"},
        [(0, GO), (60, WAIT), (3540, WAIT), (3720, None)],
    ),
    "the budget is spent by one that is gone": (
        UP_ALL_ALONG
        | {"stream_state": "1 7 7 stale", "observed_seconds_total": "0 0 0 stale"}
        | {"outage_open": "0 1 1 stale", "last_outage_upper_seconds": "_ 31 71 stale"}
        | {"outage_seconds_upper_total": "0 0 0 stale"},
        [(120, WAIT + STOP)],
    ),
    "the budget is spent": (UP_ALL_ALONG | {"outage_seconds_upper_total": "0 0 61x7"}, [(30, GO), (60, STOP)]),
    "one outage spends it": (
        UP_ALL_ALONG | {"stream_state": "1 7x9", "outage_open": "0 1x9", "last_outage_upper_seconds": "_ 30+30x9"},
        [(30, WAIT), (90, WAIT + STOP)],
    ),
}


@pytest.mark.system("promtool")
@pytest.mark.parametrize("decision", DECISIONS)
def test_the_overview_decides_as_a_gate_does(decision: str, tmp_path: Path) -> None:
    (expr,) = (str(query.target["expr"]) for query in QUERIES if str(query) == "May the next node go? A")
    series, values = DECISIONS[decision]
    expect(tmp_path, series, expr, values, told=())


@pytest.mark.system("promtool")
@pytest.mark.parametrize(
    ("series", "lost"),
    [
        (UP_ALL_ALONG, 0),
        (UP_ALL_ALONG | {"outage_seconds_total": "0 0 2x7"}, 2),
        (UP_ALL_ALONG | {"stream_state": "3x9"}, None),  # never answered
        ({"stream_state": "1x9"}, None),  # no rules record what is lost
    ],
)
def test_a_way_has_lost_nothing_only_where_that_is_known(
    series: dict[str, str], lost: float | None, tmp_path: Path
) -> None:
    (expr,) = (str(query.target["expr"]) for query in CONNECTIVITY if str(query) == "Paths compared C")
    expect(tmp_path, series, expr, [(120, lost)], told=["path", "protocol"])


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- what a real Prometheus answers


class Looked(NamedTuple):
    """All queries' answers: after three interruptions, of a source and of a target that are none, and with b gone."""

    after: dict[str, Samples]
    nobody: dict[str, Samples]
    nowhere: dict[str, Samples]
    gone: dict[str, Samples]


# What boards read of targets from recorded series has no source.
OF_ALL_SOURCES = (
    "Coverage",
    "Failed probes by cause",
    "Paths compared H",  # what of it was observed
    "State of each target",
    "State of each stream",  # of one
    "Lost to outages",
    "Round trip",
    "Connections broken, by target",
    "Frozen peers, by target",
)


async def look(folder: Path) -> Looked:
    async with site(folder) as here:
        for fault, seconds in (("refuse", 1.5), ("stall", 1.5), ("reset", 0.0)):
            await here.interrupt(fault, seconds)
            await asyncio.sleep(2.0)
        for metric in ("outages", "peer_frozen_seconds", "connection_breaks"):
            await here.until(f"ovnwatch_{metric}_total > 0")
        await here.until("sum(ovnwatch_outage_open) == 0")
        for metric in ("outages", "outage_seconds_lower", "peer_frozen_seconds", "connection_breaks"):
            series = f"{queries.STREAM_LEVEL}:ovnwatch_{metric}"
            first = "whole" if metric == "outage_seconds_lower" else "read"  # with what was open when it was first read
            gained = f"sum(ovnwatch_{metric}_total) - sum(min_over_time({series}:{first}[5m]))"
            await here.until(f"abs(sum(sum_over_time({series}:gained[5m])) - ({gained})) < 1e-6")
        after = await everything(here)
        nobody = await everything(here, source="nobody")
        nowhere = await everything(here, target="nowhere", path="egress")
        await here.children.kill(here.peers["b"])
        await here.until("sum(ovnwatch_outage_open) == 6 and on () absent(ovnwatch_stream_up{source='b'})")
        await here.until(f"count({queries.STREAM_LEVEL}:ovnwatch_outage_seconds_lower:gained > 0) == 6")
        await here.until(f"count({queries.STREAM_LEVEL}:ovnwatch_stream_state:gone) == 3")
        return Looked(after, nobody, nowhere, await everything(here))


async def everything(here: Site, **chosen: str) -> dict[str, Samples]:
    """All queries' answers, of one moment."""
    at = time.time()
    await asyncio.sleep(SCRAPE)  # until what was scraped by then is stored
    return {
        str(query): await here.ask(query.expr(**chosen), at, 0 if query.target["instant"] else RANGE, step=STEP)
        for query in CONNECTIVITY
    }


def value(samples: Samples, **labels: str) -> float:
    """The last value of the one series that has these labels."""
    (found,) = [values[-1] for has, values in samples if labels.items() <= has.items()]
    return found


@pytest.mark.system("prometheus")
@pytest.mark.slow
def test_what_a_real_prometheus_answers(tmp_path: Path, subtests: pytest.Subtests) -> None:
    looked = asyncio.run(look(tmp_path))
    for query in map(str, CONNECTIVITY):
        with subtests.test(query):
            assert looked.after[query], "nothing was found"
            assert looked.nowhere[query] == [], "what nobody measured is shown"
            if not query.startswith(OF_ALL_SOURCES):
                assert looked.nobody[query] == [], "what another measured is shown"
    for claim in CLAIMS:
        with subtests.test(claim.__name__):
            claim(looked)


def an_outage_is_within_its_bounds(looked: Looked) -> None:
    for answers in (looked.after, looked.gone):
        low, about, high = (value(answers[f"Outage seconds, worst stream {ref}"]) for ref in "ABC")
        assert 0 < low <= about <= high


def a_share_of_what_was_interrupted_was_lost(looked: Looked) -> None:
    shares = looked.after["Lost to outages, by path A"]
    assert all(0 <= each <= 1.05 for _, values in shares for each in values), "rate() reads on to the ends of its range"
    assert max(each for has, values in shares for each in values if has["path"] == "pod") > 0


def a_target_never_reached_is_unknown(looked: Looked) -> None:
    assert value(looked.after["State now A"], target="nobody") == looks.UNKNOWN.code
    for title in ("Lost to outages, by target A", "Last outages A"):
        assert all(has["target"] != "nobody" for has, _ in looked.after[title])
    assert value(looked.after["Paths compared A"], path="route") == 1
    assert all(has["path"] != "route" for has, _ in looked.after["Paths compared C"])


def what_was_interrupted_shows_although_it_is_over(looked: Looked) -> None:
    assert value(looked.after["State now A"], target="b", way="pod / tcp") == looks.UP.code
    states = {code for has, values in looked.after["State of each stream A"] for code in values if has["path"] == "pod"}
    assert {looks.UP.code, looks.NOT_ANSWERING.code} <= states
    assert states & {looks.INTERRUPTED.code, looks.DOWN.code}


def frozen_and_broken_are_counted_apart(looked: Looked) -> None:
    assert value(looked.after["Frozen peers A"]) in (1, 2)  # on a busy machine the other may have been late, too
    assert value(looked.after["Connections broken A"]) > 0


def what_is_down_is_down_and_what_nobody_scrapes_has_no_data(looked: Looked) -> None:
    assert value(looked.gone["Down now A"]) == 6
    assert value(looked.gone["State now A"], target="b", way="pod / tcp") == looks.DOWN.code
    assert value(looked.gone["State now A"], target="a", way="pod / tcp") == looks.NO_DATA.code
    counts = {int(has["state"]): values[-1] for has, values in looked.gone["Streams by state A"]}
    assert counts == {looks.DOWN.code: 6, looks.NO_DATA.code: 3, looks.UNKNOWN.code: 1}


def an_open_outage_has_a_start_and_no_end(looked: Looked) -> None:
    way = {"source": "a", "target": "b", "path": "service", "protocol": "tcp"}
    starts, ends = looked.gone["Last outages A"], looked.gone["Last outages B"]
    assert value(starts, **way) > 0
    assert not [has for has, _ in ends if way.items() <= has.items()]
    low, _, high = (value(looked.gone[f"Last outages {ref}"], **way) for ref in "CDE")
    assert 0 <= low <= high


CLAIMS = (
    an_outage_is_within_its_bounds,
    a_share_of_what_was_interrupted_was_lost,
    a_target_never_reached_is_unknown,
    what_was_interrupted_shows_although_it_is_over,
    frozen_and_broken_are_counted_apart,
    what_is_down_is_down_and_what_nobody_scrapes_has_no_data,
    an_open_outage_has_a_start_and_no_end,
)
