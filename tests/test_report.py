"""`ovnwatch report`, of journals as exporters write them: its verdict, its exit code, and what its forms show."""

import asyncio
import json
import socketserver
import sqlite3
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest
from box import telling
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for

from alerts.report.command import main
from exporters.cli import main as ovnwatch
from exporters.journal import Journal, Row
from exporters.probing.saved import COUNTERS, Saved, SavedStream
from exporters.times import iso

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
Item = dict[str, Any]
BEGIN = float(int(time.time()) - 5000)  # of the window; a journal forgets what is older than a month
END = BEGIN + 1000.0
NODES = ("n1", "n2", "n3")


def item(seq: int, kind: str, begin: float, end: float | None, **changes: Any) -> Item:
    """An entry, `begin` and `end` in seconds of the window."""
    start, over = BEGIN + begin, None if end is None else BEGIN + end
    length = 0.0 if end is None else end - begin
    edge = 0.1 if kind in ("outage", "blip") else 0.0
    plain: Item = {
        "seq": seq,
        "id": f"{kind}-{seq}-{changes.get('stream', '')}"[:64],
        "kind": kind,
        "state": "open" if over is None else "closed",
        "stream": "",
        "name": "x",
        "protocol": "",
        "source": "pod",
        "reporter": "x",
        "start_time": iso(start),
        "end_time": over and iso(over),
        "duration_sec": length,
        "start": {"earliest": iso(start - edge), "latest": iso(start + edge)},
        "end": {"earliest": over and iso(over - edge), "latest": over and iso(over + edge)},
        "duration": {"lower": max(0.0, length - 2 * edge), "estimate": length, "upper": length + 2 * edge},
        "cause": "refused",
        "before": {},
        "after": {},
        "unconfirmed": False,
        "stall_overlap": False,
    }
    return plain | changes


def out(seq: int, source: str, target: str, begin: float, end: float, **changes: Any) -> Item:
    answered = {"source": target, "node": target}
    stream = f"{source}|{target}|pod|tcp|4"
    return item(seq, "outage", begin, end, stream=stream, protocol="TCP", before=answered, **changes)


def turn(seq: int, node: str, begin: float, end: float | None) -> Item:
    return item(seq, "phase", begin, end, cause="manual", text="reboot", node=node)


def window(seq: int, budget: float | None = None, name: str = "night") -> Item:
    return item(seq, "window", 0.0, 1000.0, cause="named", text=name, budget_seconds=budget)


def journal(
    path: Path,
    items: Sequence[Item],
    streams: Sequence[str] = (),
    *,
    since: float = -100.0,
    alive: float = END + 10.0,
    reached: float | None = 0.0,
) -> Path:
    """A journal of an exporter that watched `streams` from `since` of the window until it was `alive` last.

    reached: since when their targets are known to have been there, of the window; None: they never were.
    """
    gaps = sum(each["duration"]["estimate"] for each in items if each["kind"] == "gap")
    counters = [0.0] * len(COUNTERS)
    counters[COUNTERS.index("observed_seconds")] = alive - BEGIN - since - gaps
    counters[COUNTERS.index("last_success")] = 0.0 if reached is None else alive
    known = BEGIN + reached if reached else 0.0

    async def write() -> None:
        book = Journal(path)
        saved = Saved({key: SavedStream(counters, reached=known) for key in streams}, [], [], {}, {}, 0.0)
        book.snapshot = telling(lambda: msgspec.msgpack.encode(saved))
        for seq, each in enumerate(items, 1):
            _, target, way = (each["stream"].split("|") + [""] * 3)[:3]
            told = json.dumps({**each, "seq": seq})
            stream, kind = each["stream"], each["kind"]
            book.put(Row(seq, each["id"], kind, each["state"], stream, target, way, alive, told))
        await book.close()
        book_of(path, alive)

    asyncio.run(write())
    return path


def book_of(path: Path, alive: float) -> None:
    """Its counters were saved at that time."""
    with sqlite3.connect(path) as base:
        base.execute("UPDATE state SET at = ?", (alive,))


STREAMS = {node: [f"{node}|{other}|pod|tcp|4" for other in NODES if other != node] for node in NODES}
NIGHT = [
    out(1, "n2", "n1", 110, 120),
    out(2, "n3", "n1", 111, 119),
    out(3, "n2", "n3", 410, 415),
]
TURNS = [turn(1, "n1", 100, 200), turn(2, "n3", 400, 500)]

Reporting = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def reporting(tmp_path: Path, capsys: Capture) -> Reporting:
    """Writes the journals, one a node and one of the bastion, and returns the exit code and the report."""

    def work(
        outages: Sequence[Item] = NIGHT,
        phases: Sequence[Item] = TURNS,
        *flags: str,
        gaps: Sequence[Item] = (),
        since: float = -100.0,
        budget: float | None = None,
    ) -> tuple[int, dict[str, Any]]:
        folder = Path(mkdtemp(dir=tmp_path))
        files = [journal(folder / "bastion.db", [window(1, budget)]), journal(folder / "migration.db", phases)]
        for node in NODES:
            mine = [each for each in outages if each["stream"].startswith(f"{node}|")]
            files.append(journal(folder / f"{node}.db", [*mine, *gaps], STREAMS[node], since=since))
        argv = ["--journal", *map(str, files), "--window=night", "--output=json", *flags]
        code = main(argv)
        printed = capsys.readouterr()
        assert not printed.err
        return code, json.loads(printed.out)

    return work


def test_a_night_in_which_every_outage_was_in_its_turn_passes(reporting: Reporting) -> None:
    code, found = reporting()
    assert (code, found["verdict"]) == (0, "pass")
    assert found["explained"] == {"expected": 3, "collateral": 0, "unexplained": 0, "observer": 0}
    assert found["seconds"] == [pytest.approx(14.6), pytest.approx(15.0), pytest.approx(15.4)]
    assert [(each["node"], each["outages"], each["seconds"][1]) for each in found["turns"]] == [
        ("n1", 2, 10.0), ("n3", 1, 5.0)
    ]  # fmt: skip
    assert found["longest"]["target"] == "n1"
    assert [each["share"] for each in found["coverage"]] == [1.0] * 3


def test_an_outage_outside_every_turn_fails_the_report(reporting: Reporting) -> None:
    code, found = reporting([*NIGHT, out(9, "n2", "n3", 700, 703)])
    assert (code, found["verdict"]) == (2, "fail")
    assert [each["begin"] for each in found["outages"] if each["verdict"] == "unexplained"] == [iso(BEGIN + 700)]
    assert found["unexplained_seconds"][1] == 3.0


def test_the_same_night_with_shuffled_phases_is_not_explained(reporting: Reporting) -> None:
    code, found = reporting(NIGHT, [turn(1, "n2", 600, 700), turn(2, "n1", 800, 900)])
    assert code == 2
    assert found["explained"]["unexplained"] == 3


def test_a_node_that_two_lost_is_not_explained_by_the_turn_of_one_of_them(reporting: Reporting) -> None:
    """Journals do not tell on which node n3 is, for nobody lost it; that others probe it does."""
    code, found = reporting([out(1, "n2", "n1", 110, 120), out(2, "n3", "n1", 111, 119)], [turn(1, "n2", 100, 200)])
    assert (code, found["explained"]["unexplained"]) == (2, 2)


@pytest.mark.parametrize("first", ["bastion", "migration"])
def test_a_turn_that_a_copy_has_open_still_ended(first: str, tmp_path: Path, capsys: Capture) -> None:
    """A bastion keeps what a migration exporter tells; when that one could not be asked, its copy stays behind."""
    files = {
        "bastion": journal(tmp_path / "bastion.db", [window(1), turn(1, "n1", 100, None)]),
        "migration": journal(tmp_path / "migration.db", [turn(1, "n1", 100, 200)]),
    }
    late = journal(tmp_path / "n2.db", [out(9, "n2", "n1", 700, 703)], STREAMS["n2"])
    order = [files.pop(first), *files.values(), late]
    assert main(["--journal", *map(str, order), "--window=night", "--output=json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["outages"]] == ["unexplained"]
    assert [each["end"] for each in found["turns"]] == [iso(BEGIN + 200)]


def test_a_phase_whose_exporter_fell_silent_explains_nothing_later(tmp_path: Path, capsys: Capture) -> None:
    outages = [out(8, "n2", "n1", 150, 153), out(9, "n2", "n1", 700, 703)]
    files = [
        journal(tmp_path / "bastion.db", [window(1)]),
        journal(tmp_path / "migration.db", [turn(1, "n1", 100, None)], alive=BEGIN + 300),
        journal(tmp_path / "n2.db", outages, STREAMS["n2"]),
    ]
    assert main(["--journal", *map(str, files), "--window=night", "--output=json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["outages"]] == ["expected", "unexplained"]
    files[1].unlink()
    journal(files[1], [turn(1, "n1", 100, None)])  # its exporter still runs
    main(["--journal", *map(str, files), "--window=night", "--output=json"])
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["outages"]] == ["expected", "expected"]
    assert [each["end"] for each in found["turns"]] == [None]


def test_what_was_never_reached_was_not_observed(tmp_path: Path, capsys: Capture) -> None:
    """It has no outage, for nobody knows whether it ever worked: that is no pass."""
    files = [
        journal(tmp_path / "bastion.db", [window(1)], STREAMS["n1"], reached=None),
        journal(tmp_path / "n2.db", [], STREAMS["n2"][:1]),
    ]
    assert main(["--journal", *map(str, files), "--window=night", "--output=json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "inconclusive"
    assert {each["target"]: each["share"] for each in found["coverage"]} == {"n1": 1.0, "n2": 0.0, "n3": 0.0}
    assert "never_reached" in found["coverage"][1]["gaps"][0]["reason"]


@pytest.mark.parametrize(("at", "share"), [(-99.0, 1.0), (-50.0, 1.0), (200.0, 0.8)])
def test_until_it_was_reached_first_nothing_of_it_was_observed(
    at: float, share: float, tmp_path: Path, capsys: Capture
) -> None:
    files = [journal(tmp_path / "bastion.db", [window(1)], STREAMS["n1"], reached=at)]
    assert main(["--journal", *map(str, files), "--window=night", "--output=json"]) == (0 if share == 1.0 else 2)
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == ("pass" if share == 1.0 else "inconclusive")
    assert [each["share"] for each in found["coverage"]] == [pytest.approx(share, abs=0.005)] * 2
    reasons = {gap["reason"] for each in found["coverage"] for gap in each["gaps"]}
    assert reasons == ({"not_reached_yet"} if share < 1.0 else set())


def test_it_is_inconclusive_where_nobody_watched(reporting: Reporting) -> None:
    stopped = item(50, "gap", 300.0, 320.0, cause="restart")
    code, found = reporting(gaps=[stopped])
    assert (code, found["verdict"]) == (2, "inconclusive")
    assert found["inconclusive_because"][0] == "n1 by pod was observed for 98.00 % of the time, 99% are wanted"
    assert found["coverage"][0]["gaps"][0]["reason"] == "restart"
    code, found = reporting(since=50.0)
    assert found["verdict"] == "inconclusive"
    assert found["coverage"][0]["gaps"][0]["reason"] == "nobody"


def test_the_windows_own_budget_is_held(reporting: Reporting) -> None:
    assert reporting(budget=15.0)[0] == 0
    code, found = reporting(budget=14.0)
    assert code == 2
    assert [each["name"] for each in found["checks"] if not each["passed"]] == ["total"]


def test_a_budget_file_is_held(reporting: Reporting, tmp_path: Path) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("paths: {pod: 20}\nturn_seconds: 9\nlongest_seconds: 10\n")
    code, found = reporting(NIGHT, TURNS, f"--budget={limits}")
    assert code == 2
    assert [(each["name"], each["passed"]) for each in found["checks"]] == [
        ("unexplained", True), ("path pod", True), ("turn of n1", False), ("turn of n3", True), ("longest", True)
    ]  # fmt: skip


def test_a_bad_budget_file_is_told_with_all_its_places(tmp_path: Path, capsys: Capture) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("paths: {pod: -1, moon: 3}\nturns: 4\n")
    book = journal(tmp_path / "a.db", [window(1)], ["a|b|pod|tcp|4"])
    assert main(["--journal", str(book), "--window=night", f"--budget={limits}"]) == 1
    said = capsys.readouterr().err
    assert [line.split(": ")[0].removeprefix(str(tmp_path)) for line in said.splitlines()] == [
        "/limits.yaml:1", "/limits.yaml:1", "/limits.yaml:2"
    ]  # fmt: skip
    assert all(word in said for word in ("paths.pod", "paths.moon", "turns: unknown key"))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--window=night"], "want --url or --journal"),
        (["--journal", "x"], "want either --window, or --from and --to"),
        (["--journal", "x", "--from=2026-01-02T03:04:05Z"], "want --from before --to"),
        (["--journal", "x", "--window=a", "--budget=a", "--baseline=b"], "want one of --budget and --baseline"),
        (["--journal", "x", "--window=a", "--to=yesterday"], "want a time with an offset"),
    ],
)
def test_flags_that_do_not_go_together(argv: list[str], says: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 1
    assert says in capsys.readouterr().err


def test_what_cannot_be_read_or_is_not_there_is_told(tmp_path: Path, capsys: Capture) -> None:
    assert main(["--journal", str(tmp_path / "none.db"), "--window=night"]) == 1
    book = journal(tmp_path / "a.db", [window(1)])
    assert ovnwatch(["report", "--journal", str(book), "--window=day"]) == 1
    assert "no window 'day', there are night" in capsys.readouterr().err


def test_a_time_can_be_given_instead_of_a_window(tmp_path: Path, capsys: Capture) -> None:
    book = journal(tmp_path / "a.db", [out(1, "a", "b", 700, 703)], ["a|b|pod|tcp|4"])
    span = [f"--from={iso(BEGIN)}", f"--to={iso(BEGIN + 600)}"]
    assert main(["--journal", str(book), *span]) == 0
    assert capsys.readouterr().out.endswith("PASS\n")
    assert main(["--journal", str(book), f"--from={iso(BEGIN)}", f"--to={iso(BEGIN + 900)}"]) == 2
    assert "UNEXPLAINED" in capsys.readouterr().out


def test_an_ordinary_time_can_be_the_budget(tmp_path: Path, capsys: Capture) -> None:
    before = item(2, "window", -100.0, -50.0, cause="named", text="calm", budget_seconds=None)
    book = journal(tmp_path / "a.db", [window(1), before, *NIGHT, *TURNS], ["n2|n1|pod|tcp|4"], since=-200.0)
    assert main(["--journal", str(book), "--window=night", "--baseline=calm", "--output=json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert {each["name"]: each["limit"] for each in found["checks"]} == {"unexplained": 0, "path pod": 0, "longest": 0}


EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """What a browser would load and run of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.asks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asks += [name for name, _ in attrs if name in ("src", "href", "xlink:href", "action") or name[:2] == "on"]


def test_the_page_stands_alone_and_escapes_every_name(reporting: Reporting, tmp_path: Path) -> None:
    evil = out(9, "n2", EVIL, 700, 703)
    reporting([*NIGHT, evil], [*TURNS, turn(5, EVIL, 800, 900)], f"--html={tmp_path / 'r.html'}")
    text = (tmp_path / "r.html").read_text()
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "svg" in page.tags
    assert not page.asks
    assert "url(" not in text
    assert "&lt;script&gt;" in text


def test_junit_has_a_case_for_each_limit(reporting: Reporting, tmp_path: Path) -> None:
    evil = out(9, "n2", "n3\x1b[31m", 700, 703)
    reporting([*NIGHT, evil], TURNS, f"--junit={tmp_path / 'r.xml'}")
    suite = ET.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["unexplained"]


def test_a_terminal_gets_no_control_characters(tmp_path: Path, capsys: Capture) -> None:
    book = journal(tmp_path / "a.db", [window(1), out(2, "n2", "n3\x1b[31m", 700, 703)], ["a|b|pod|tcp|4"])
    assert main(["--journal", str(book), "--window=night"]) == 2
    assert capsys.readouterr().out.replace("\n", "").isprintable()


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(line)


def test_exporters_are_asked_while_they_run(tmp_path: Path, capsys: Capture) -> None:
    """A bastion that probes an echo, asked by its address: covered, and nothing was out."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server, killed_at_the_end() as started:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = tmp_path / "bastion.yaml"
        config.write_text(
            f"targets: [{{name: n1, path: host, host: 127.0.0.1, ports: {{tcp: {server.server_address[1]}}}}}]\n"
        )
        argv = flags({"--source": "b", "--config.file": str(config), **ANY_PORT})
        bastion = Exporter(tmp_path / "log", "bastion", *argv)
        started.append(bastion)
        wait_for(bastion.ready)
        began = time.time()

        def watched() -> bool:
            streams = json.loads(bastion.get("/status")[1])["streams"]
            return bool(streams) and streams[0]["observed_seconds"] > 8

        wait_for(watched)
        url = f"--url=http://127.0.0.1:{bastion.ports['web']}"
        span = [f"--from={iso(began + 4)}", f"--to={iso(began + 7)}"]
        code = main([url, *span, "--output=json"])
        printed = capsys.readouterr()
        assert not printed.err
        found = json.loads(printed.out)
        stalled = {gap["reason"] for each in found["coverage"] for gap in each["gaps"]}
        assert (code, found["verdict"]) == ((2, "inconclusive") if stalled else (0, "pass"))
        assert stalled <= {"stall", "throttled"}, "on a busy machine"
        assert [(each["path"], each["protocol"], each["streams"]) for each in found["totals"]] == [("host", "tcp", 1)]
        late = [f"--from={iso(began)}", f"--to={iso(began + 3600)}"]
        assert main([url, *late]) == 2, "most of that hour is yet to come"
        assert "INCONCLUSIVE" in capsys.readouterr().out
        server.shutdown()
