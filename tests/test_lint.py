"""What `ovnwatch rules check` finds wrong with rules, one fault at a time."""

from typing import Any

import pytest

from alerts import lint, rules
from exporters import catalog

CATALOG = catalog.load()
NOTES = dict.fromkeys(("summary", "description", "recommendation", "runbook_url"), "It is so.")


def alert(**changes: Any) -> dict[str, Any]:
    sound = {
        "alert": "OvnwatchHot",
        "expr": "increase(ovnwatch_outages_total[5m]) > 3",
        "for": "1m",
        "labels": {"severity": "warning", "component": "ovnwatch"},
        "annotations": NOTES,
    }
    return {**sound, **changes}


def found(*those: dict[str, Any], **group: Any) -> list[str]:
    document = {"groups": [{"name": "ovnwatch-heat", "rules": [*those], **group}]}
    return [each.removeprefix("heat.yaml: ") for each in lint.faults({"heat.yaml": document}, CATALOG)]


def test_nothing_is_wrong_with_a_sound_rule() -> None:
    assert found(alert()) == []


ANCHORS = "has anchors, which are there anyhow"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("increase(ovnwatch_outages_total[5m])", "compares nothing: it would fire for any value"),
        ("ovnwatch_outages_total > 3", "ovnwatch_outages_total only grows: read what it gains, not how much it is"),
        ("ovs_vswitchd_rconn_overflow > 100",
         "ovs_vswitchd_rconn_overflow only grows: read what it gains, not how much it is"),
        ("up and ovnwatch_outages_total > 3",
         "ovnwatch_outages_total only grows: read what it gains, not how much it is"),
        ("rate(ovnwatch_stream_up[5m]) > 3", "ovnwatch_stream_up does not count: it has no rate"),
        ("max by (source) (ovnwatch_stream_up) > 3",
         "drops labels that it does not know, `cluster` for one: aggregate `without`, join `ignoring`"),
        ("up * on (job) group_left up > 3",
         "drops labels that it does not know, `cluster` for one: aggregate `without`, join `ignoring`"),
        ('up{job=~"peer"} > 3', '=~"peer" has no pattern: compare with ='),
        ('up{job=~"^peer.*"} > 3', f'=~"^peer.*" {ANCHORS}'),
        ('up{job!~"peer.*$"} > 3', f'=~"peer.*$" {ANCHORS}'),
        ("source:ovnwatch_stream_up:missed > 3",
         "source:ovnwatch_stream_up:missed is not recorded above it in its group"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_expression(expression: str, said: str) -> None:
    assert found(alert(expr=expression)) == [f"OvnwatchHot: {said}"]


@pytest.mark.parametrize(
    "expression",
    [
        "increase(ovnwatch_outages_total[5m]) and ovnwatch_outages_total offset 5m > 3",
        "increase(ovnwatch_outages_total[5m]) unless resets(ovnwatch_outages_total[5m]) > 0",
        "(up and ovnwatch_outages_total) > 3",
        "rate(ovnwatch_schedule_lag_seconds_bucket[5m]) > 3",
        "resets(ovnwatch_stream_up[5m]) > 3",
        'up{job=~"peer|bastion"} - ignoring (job) group_left up > 3',
    ],
)
def test_what_is_right(expression: str) -> None:
    assert found(alert(expr=expression)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alert": "hot_things"}, "hot_things: its name is not in CamelCase"),
        ({"for": "11m"}, "OvnwatchHot: waits longer than 600 s"),
        ({"for": "30s"}, "OvnwatchHot: waits for less than 60 s, which a single sample may outlast"),
        ({"labels": {"severity": "major", "component": "x"}}, "OvnwatchHot: needs the labels component, severity"),
        ({"labels": {"severity": "info"}}, "OvnwatchHot: needs the labels component, severity"),
        (
            {"labels": {"severity": "info", "component": "{{ $value }}"}},
            "OvnwatchHot: a label holds a value, so that the alert would be another one with each",
        ),
        ({"annotations": {**NOTES, "summary": ""}}, "OvnwatchHot: has no summary"),
        (
            {"annotations": {**NOTES, "description": "{{ $value }"}},
            "OvnwatchHot: the braces of description do not match",
        ),
    ],
)
def test_what_is_wrong_with_the_rest(changes: dict[str, Any], said: str) -> None:
    assert found(alert(**changes)) == [said]


def test_what_is_wrong_with_a_group() -> None:
    assert found(alert(), alert()) == ["OvnwatchHot: stands twice"]
    assert found(interval="10m") == ["the group ovnwatch-heat is evaluated too seldom for a range of five minutes"]
    assert found(name="heat") == ["the group's name 'heat' is not ovnwatch- and small letters"]
    recorded = {"record": "source:ovnwatch_stream_up:missed", "expr": "ovnwatch_stream_up"}
    reads = alert(expr="source:ovnwatch_stream_up:missed > 1")
    assert found(recorded, reads) == []
    assert found(reads, recorded) != []


OUTAGES = "source_target_path_protocol_family:ovnwatch_outages"
GAINED = {
    "record": f"{OUTAGES}:gained",
    "expr": f"ovnwatch_outages_total - last_over_time({OUTAGES}:read[1h]) > 0",
}
READ = {"record": f"{OUTAGES}:read", "expr": "ovnwatch_outages_total"}


def test_a_counter_is_kept_as_it_is_after_it_was_asked_what_it_gained() -> None:
    assert found(GAINED, READ) == []
    assert found(READ, GAINED) == [
        f"{OUTAGES}:gained: {OUTAGES}:read is recorded above it, so that it would gain nothing"
    ]
    for other in ("ovnwatch_probes_total", "ovnwatch_stream_up", "sum without (source) (ovnwatch_outages_total)"):
        assert found(READ | {"expr": other}) == [f"{OUTAGES}:read: is not the counter that it is named after"]
    more = "ovnwatch_outages_total + (ovnwatch_outage_open == 1)\nor {}"
    assert found(READ | {"expr": more.format("ovnwatch_outages_total")}) == []
    assert found(READ | {"expr": more.format("ovnwatch_outages_total * 2")}) != []
    (said,) = found(GAINED | {"expr": f"ovnwatch_probes_total - last_over_time({OUTAGES}:read[1h]) > 0"})
    assert said.endswith("ovnwatch_probes_total only grows: read what it gains, not how much it is")


def test_ours_are_linted_as_they_are_written() -> None:
    files = rules.rule_files(CATALOG)
    files["ovs.yaml"]["groups"][0]["rules"].reverse()
    assert any("is not recorded above it" in each for each in lint.faults(files, CATALOG))
