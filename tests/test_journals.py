"""`journals:` of a bastion: what a migration exporter tells is in its history, what a stranger tells hurts nobody."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from box import OURSELVES
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for

from exporters import times
from exporters.bastion import kept
from exporters.bastion.kept import Kept
from exporters.bastion.settings import BASTION
from exporters.bastion.told import Item, RefusedError, Status, read
from exporters.migration.mark import main as mark
from exporters.probing.record import Record
from exporters.settings import BadInput

TOKEN = "secret"
JOURNAL = "0123456789abcdef"


def told(seq: int, state: str = "open", name: str = "p1", journal: str = JOURNAL, **more: Any) -> dict[str, Any]:
    """A phase as a migration exporter tells it."""
    now = time.time()
    begin, end = now - 5.0, now - 1.0 if state == "closed" else None
    length = 0.0 if end is None else end - begin
    return {
        "seq": seq,
        "id": f"{journal[:8]}-{name}",
        "kind": "phase",
        "state": state,
        "stream": "",
        "name": "m",
        "protocol": "",
        "reporter": "m",
        "start_time": times.iso(begin),
        "end_time": end and times.iso(end),
        "duration_sec": length,
        "duration": {"lower": length, "estimate": length, "upper": length},
        "cause": "manual",
        "text": "reboot",
        "node": "n1",
        "rolls": False,
        **more,
    }


def item(*args: Any, **more: Any) -> Item:
    return Item.model_validate(told(*args, **more))


def phases(record: Record) -> list[tuple[str, str, str]]:
    found = [each for each in record.history() if each["kind"] == "phase"]
    return [(each["id"].partition("-")[2], each["state"], each["text"]) for each in found]


# --- pure


def test_an_entry_is_kept_once_and_changes_until_it_is_over() -> None:
    record = Record([], OURSELVES)
    keep = Kept(record, lambda _: None)
    for items in ([item(1)], [item(1)], [item(2, "closed")], [item(3, text="again")]):
        keep.add("migration", JOURNAL, items, 0.0)
    assert phases(record) == [("p1", "closed", "reboot")]
    assert record.seq == 2, "each was written once"


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "p1"},  # of no journal
        {"id": "fedcba98-p1"},  # of another
        {"kind": "outage"},
        {"kind": "window"},
        {"start_time": times.iso(4e9)},
        {"start_time": times.iso(1e9)},
    ],
)
def test_what_is_no_entry_of_that_journal_is_not_kept(wrong: dict[str, Any]) -> None:
    record = Record([], OURSELVES)
    Kept(record, lambda _: None).add("migration", JOURNAL, [item(1, **wrong)], 0.0)
    assert record.seq == 0


def test_nobody_takes_the_place_of_our_entries_or_of_anothers() -> None:
    record = Record([], OURSELVES)
    keep = Kept(record, lambda _: None)
    keep.add("stranger", record.journal_id, [item(1, journal=record.journal_id)], 0.0)
    assert record.seq == 0
    keep.add("migration", JOURNAL, [item(1)], 0.0)
    keep.add("stranger", JOURNAL, [item(9, "closed", text="nothing")], 0.0)
    assert phases(record) == [("p1", "open", "reboot")]


def test_one_name_tells_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)
    record = Record([], OURSELVES)
    keep = Kept(record, lambda _: None)
    keep.add("migration", JOURNAL, [item(seq, name=f"p{seq}") for seq in range(1, 9)], 0.0)
    keep.add("migration", JOURNAL, [item(9, "closed", name="p1")], 0.0)
    assert sorted(phases(record)) == [("p1", "closed", "reboot"), ("p2", "open", "reboot"), ("p3", "open", "reboot")]


def test_what_a_restarted_source_left_open_is_truncated() -> None:
    record = Record([], OURSELVES)
    keep = Kept(record, lambda _: None)
    keep.answered("migration", "m", JOURNAL)
    keep.add("migration", JOURNAL, [item(1)], 0.0)
    keep.answered("migration", "another", "f" * 16)
    assert phases(record) == [("p1", "open", "reboot")], "a second source behind that name has a journal of its own"
    keep.answered("migration", "m", "f" * 16)
    assert phases(record) == [("p1", "truncated", "reboot")]


def test_times_are_put_on_our_clock() -> None:
    record = Record([], OURSELVES)
    Kept(record, lambda _: None).add("migration", JOURNAL, [item(1)], 3.0)
    (found,) = record.history()
    assert time.time() - times.seconds(found["start_time"]) > 7.5


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m", "x" * 501])
def test_a_text_that_is_no_line_refuses_the_answer(text: str) -> None:
    status = {"self": "m", "timestamp": times.iso(0), "source": "m", "instance": "i", "journal": "j", "connections": {}}
    read(Status, json.dumps(status).encode())
    with pytest.raises(ValueError, match=r"a text of more|at most 500"):
        item(1, text=text)


def test_what_is_wrong_with_them_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    journals = [
        {"name": "m", "url": "ftp://m"},
        {"name": "n", "url": "http://n:9482", "tls": True},
        {"name": "o", "url": "http://o:9482"},
        {"name": "o", "url": "http://p:9482"},
        {"name": "q"},
    ]
    targets = [{"name": "t", "path": "route"}]
    file.write_text(yaml.safe_dump({"source": "b", "targets": targets, "journals": journals}))
    with pytest.raises(BadInput) as bad:
        BASTION.load(["--config.file", str(file)], {}, 100)
    said = str(bad.value)
    for part in ("journals[0].url", "journals[1].tls", "duplicate name", "journals[4].url"):
        assert part in said
    file.write_text(yaml.safe_dump({"source": "b", "targets": targets, "journals": [{"name": "t", "url": "http://m"}]}))
    with pytest.raises(BadInput, match="a target has that name"):
        BASTION.load(["--config.file", str(file)], {}, 100)


# --- real ones


def bastion_of(folder: Path, url: str) -> Exporter:
    file = folder / "bastion.yaml"
    nowhere = [{"name": "nowhere", "path": "route", "host": "127.0.0.1", "ports": {"http": 1}}]
    journals = [{"name": "migration", "url": url}]
    file.write_text(yaml.safe_dump({"source": "b", "targets": nowhere, "journals": journals, "poll_interval": 0.2}))
    return Exporter(folder / "bastion.log", "bastion", "--config.file", str(file), *flags(ANY_PORT))


def history(exporter: Exporter) -> dict[str, dict[str, Any]]:
    items = json.loads(exporter.get("/history?since=0")[1])["items"]
    return {each["id"]: each for each in items if each["kind"] in ("phase", "note")}


def heard(exporter: Exporter) -> bool | None:
    (journal,) = json.loads(exporter.get("/api/data")[1])["journals"]
    found: bool | None = journal["heard"]
    return found


@pytest.mark.slow
def test_phases_of_a_migration_exporter_are_in_the_bastions_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVNWATCH_TOKEN", TOKEN)
    listen = "--web.listen-address=127.0.0.1:{}"

    def states(exporter: Exporter) -> list[tuple[str, str, str]]:
        return sorted((each["text"], each["node"], each["state"]) for each in history(exporter).values())

    with killed_at_the_end() as started:
        migration = Exporter(tmp_path / "m.log", "migration", listen.format(0), "--source=m", OVNWATCH_TOKEN=TOKEN)
        started.append(migration)
        wait_for(migration.ready)
        port = migration.ports["web"]
        url = f"http://127.0.0.1:{port}"
        bastion = bastion_of(tmp_path, url)
        started.append(bastion)
        wait_for(bastion.ready)
        assert mark(["drain", "--node=n1", f"--url={url}"]) == 0
        assert mark(["reboot", "--node=n1", f"--url={url}"]) == 0
        wait_for(lambda: states(bastion) == [("drain", "n1", "closed"), ("reboot", "n1", "open")])
        assert history(bastion).keys() == history(migration).keys(), "reports that read both count each once"
        assert heard(bastion) is True
        assert 'ovnwatch_peer_heard{source="b",target="migration"} 1.0' in bastion.get("/metrics")[1]
        assert "internal_status" in bastion.get("/api/data")[1]
        assert "migration" not in json.loads(bastion.get("/api/data")[1])["internal_status"]
        assert migration.end() == 0
        wait_for(lambda: heard(bastion) is False)
        assert "not heard: migration" in bastion.get("/gate")[1]
        assert states(bastion)[1] == ("reboot", "n1", "open"), "what is not heard is not over"
        assert bastion.end() == 0
        again = bastion_of(tmp_path, url)
        started.append(again)
        wait_for(again.ready)
        assert states(again) == [("drain", "n1", "closed"), ("reboot", "n1", "open")]
        anew = Exporter(
            tmp_path / "m.log", "migration", listen.format(port), "--source=m", "--journal.path=off",
            OVNWATCH_TOKEN=TOKEN,
        )  # fmt: skip
        started.append(anew)
        wait_for(lambda: states(again) == [("drain", "n1", "closed"), ("reboot", "n1", "truncated")])
        assert again.end() == 0


@contextmanager
def server(answers: Callable[[str], bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers(self.path.partition("?")[0])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def status(**more: Any) -> bytes:
    plain = {"self": "m", "source": "m", "instance": "i", "journal": JOURNAL, "connections": {}, "streams": []}
    return json.dumps({**plain, "timestamp": times.iso(time.time()), **more}).encode()


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "too long": lambda _: b"[" * (8 << 20),
    "nested": lambda _: b"[" * 100_000,
    "a text of two lines": lambda path: (
        status() if path == "/status" else json.dumps({"journal": JOURNAL, "items": [told(1, text="a\nb")]}).encode()
    ),
    "numbers that are none": lambda _: status().replace(b"[]", b"[NaN]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("manner", HOSTILE)
def test_a_hostile_journal_is_refused_and_hurts_nobody(manner: str, tmp_path: Path) -> None:
    with server(HOSTILE[manner]) as url, killed_at_the_end() as started:
        bastion = bastion_of(tmp_path, url)
        started.append(bastion)
        wait_for(bastion.ready)
        wait_for(lambda: heard(bastion) is False)
        assert history(bastion) == {}
        assert bastion.get("/-/healthy")[0] == 200
        assert (
            f'ovnwatch_peer_look_failures_total{{reason="refused",source="b"}} {0.0}' not in bastion.get("/metrics")[1]
        )
        assert bastion.end() == 0


@pytest.mark.slow
def test_a_flood_of_phases_and_markup_stays_bounded(tmp_path: Path) -> None:
    seq = 0

    def answers(path: str) -> bytes:
        nonlocal seq
        if path == "/status":
            return status()
        seq += 100
        items = [told(seq + each, name=f"p{seq + each}", text="<script>alert(1)</script>") for each in range(100)]
        return json.dumps({"journal": JOURNAL, "next": seq, "items": items}).encode()

    with server(answers) as url, killed_at_the_end() as started:
        bastion = bastion_of(tmp_path, url)
        started.append(bastion)
        wait_for(bastion.ready)
        wait_for(lambda: seq > 3000)
        before = Path(f"/proc/{bastion.process.pid}/statm").read_text().split()[1]
        asked = time.monotonic()
        assert bastion.get("/simple")[0] == 200
        print(f"answered after {time.monotonic() - asked:.2f} s, {int(before) * os.sysconf('SC_PAGESIZE') >> 20} MB")
        assert "<script>alert" not in bastion.get("/simple")[1]
        assert len(json.loads(bastion.get("/history")[1])) <= 200
        assert bastion.end() == 0


def test_a_reading_of_any_kind_is_refused_or_read() -> None:
    with pytest.raises(RefusedError):
        read(Status, b"{}")
