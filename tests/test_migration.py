"""`ovnwatch migration`: phases marked by hand, kept over restarts, told in metrics and history, and read by reports."""

import json
from pathlib import Path
from typing import Any

import pytest
from box import OURSELVES, run
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from running import Exporter, killed_at_the_end, wait_for

from alerts.report.build import Window, report
from alerts.report.read import told
from exporters.history.source import File
from exporters.journal import Journal
from exporters.migration.mark import main as mark
from exporters.migration.names import NONE
from exporters.migration.phases import NewPhase, Phases
from exporters.probing.record import Record
from exporters.verdict.budget import Limits
from exporters.verdict.coverage import Span

TOKEN = "secret"


def history(exporter: Exporter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(exporter.get("/history?since=0")[1])["items"]
    return [each for each in found if each["kind"] == "phase"]


@pytest.mark.slow
def test_phases_are_marked_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("migration", "--web.listen-address=127.0.0.1:0", "--source=m")
    monkeypatch.setenv("OVNWATCH_TOKEN", TOKEN)
    with killed_at_the_end() as started:
        first = Exporter(tmp_path / "log", *argv, OVNWATCH_TOKEN=TOKEN)
        started.append(first)
        wait_for(first.ready)
        url = f"--url=http://127.0.0.1:{first.ports['web']}"
        assert mark(["live migration", url]) == 0
        assert mark(["drain", "--node=n1", url]) == 0
        assert mark(["reboot", "--node=n1", url]) == 0
        assert 'ovnwatch_node_phase{k8s_node="n1",kind="manual",phase="reboot"} 1.0' in first.get("/metrics")[1]
        assert 'phase="drain"' not in first.get("/metrics")[1]
        assert first.end() == 0
        second = Exporter(tmp_path / "log", *argv, OVNWATCH_TOKEN=TOKEN)
        started.append(second)
        wait_for(second.ready)
        url = f"--url=http://127.0.0.1:{second.ports['web']}"
        assert 'ovnwatch_migration_phase{kind="manual",phase="live migration"} 1.0' in second.get("/metrics")[1]
        assert mark([NONE, "--node=n1", url]) == 0
        assert mark(["reboot\n", "--node=n 1", url]) == 1
        monkeypatch.setenv("OVNWATCH_TOKEN", "wrong")
        assert mark([NONE, url]) == 1
        assert "401" in capsys.readouterr().err
        assert sorted((each["text"], each["node"], each["state"]) for each in history(second)) == [
            ("drain", "n1", "closed"), ("live migration", "", "open"), ("reboot", "n1", "closed")
        ]  # fmt: skip
        assert second.end() == 0


@pytest.mark.slow
def test_without_a_token_nothing_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVNWATCH_TOKEN", raising=False)
    assert mark(["drain", "--url=http://127.0.0.1:1"]) == 1
    with killed_at_the_end() as started:
        exporter = Exporter(tmp_path / "log", "migration", "--web.listen-address=127.0.0.1:0")
        started.append(exporter)
        wait_for(exporter.ready)
        assert exporter.get("/api/phases", method="POST", token=TOKEN)[0] == 403
        exporter.end()


@pytest.mark.parametrize(
    "body", ["{}", '{"phase": ""}', '{"phase": "a", "node": "a b"}', '{"phase": "a", "x": 1}', "no"]
)
def test_a_body_that_is_none_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        NewPhase.model_validate_json(body)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", NONE]), st.sampled_from(["", "n1", "n2"])), max_size=12))
def test_there_is_one_phase_at_a_time(marks: list[tuple[str, str]]) -> None:
    phases = Phases(Record([], OURSELVES))
    wanted: dict[str, str] = {}
    for now, (name, node) in enumerate(marks):
        phases.set("manual", NewPhase(phase=name, node=node), 1000.0 + now)
        wanted[node] = name
    assert {node: item["text"] for (_, node), item in phases.open.items()} == {
        node: name for node, name in wanted.items() if name != NONE
    }


def test_a_report_reads_them(tmp_path: Path) -> None:
    book = tmp_path / "migration.db"

    async def write() -> float:
        journal = Journal(book)
        phases = Phases(Record([], OURSELVES, journal=journal))
        now = 1.8e9
        phases.set("manual", NewPhase(phase="reboot", node="n1"), now)
        phases.set("manual", NewPhase(phase=NONE, node="n1"), now + 60.0)
        phases.event("restart of ovs-vswitchd", "n1", now + 5.0, now + 6.0)
        await journal.close()
        return now

    now = run(write())
    with File(book) as source:
        found = report([told(source)], Window("w", Span(now - 10, now + 100)), Limits())
    assert [(each["node"], each["phases"]) for each in found["turns"]] == [("n1", ["reboot"])]
    assert [(each["name"], each["node"]) for each in found["events"]] == [("restart of ovs-vswitchd", "n1")]
    assert found["verdict"] == "inconclusive", "nothing was observed"
