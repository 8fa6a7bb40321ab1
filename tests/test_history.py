"""`ovnwatch history`: what a journal or an exporter tells, for people and programs; and whether it is right."""

import csv
import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from box import run
from running import ANY_PORT, CODE, Exporter, flags, killed_at_the_end, wait_for
from servers import make_certificates

from exporters.history import source
from exporters.history.command import main
from exporters.journal import APPLICATION, Journal, Row
from exporters.plain import plain
from exporters.times import seconds

pytestmark = pytest.mark.slow

Item = dict[str, Any]
Capture = pytest.CaptureFixture[str]
START = "2026-01-02T03:04:05.000000+00:00"


def entry(seq: int, **changes: Any) -> Item:
    """An outage of 2 s, of a stream for each seq."""
    parts = ["a", f"b{seq}", "pod", "tcp", "4"]
    plain: Item = {
        "seq": seq,
        "id": f"0123abcd-1-1-{seq}",
        "kind": "outage",
        "state": "closed",
        "stream": "|".join(parts),
        "name": parts[1],
        "protocol": "TCP",
        "source": "pod",
        "reporter": "pod-a",
        "start_time": START,
        "end_time": "2026-01-02T03:04:07.000000+00:00",
        "duration_sec": 2.0,
        "start": {"earliest": "2026-01-02T03:04:04.900000+00:00", "latest": "2026-01-02T03:04:05.100000+00:00"},
        "end": {"earliest": "2026-01-02T03:04:06.900000+00:00", "latest": "2026-01-02T03:04:07.100000+00:00"},
        "duration": {"lower": 1.8, "estimate": 2.0, "upper": 2.2},
        "cause": "refused",
        "causes": {"refused": 20},
        "before": {},
        "after": {},
        "unconfirmed": False,
        "stall_overlap": False,
        "mono": {
            "start_earliest": 9.9, "start_latest": 10.1, "end_earliest": 11.9, "end_latest": 12.1, "detected": 10.2
        },
        "of a newer version": [1],
    }  # fmt: skip
    return {**plain, **changes}


def test_a_window_that_is_open_lasts_until_now(tmp_path: Path, capsys: Capture) -> None:
    nothing = {"lower": 0.0, "estimate": 0.0, "upper": 0.0}
    window = entry(1, **OPEN, **{**GAP, "kind": "window", "cause": "named"}, text="night", duration=nothing)
    outage = entry(2, **OPEN)  # counted by who saw it
    path = journal(tmp_path / "j.db", row(window), row(outage))
    code, out, _ = history("show", path, said=capsys)
    assert code == 0
    of_outage, of_window = sorted(out.splitlines()[1:], key=lambda line: "night" in line)
    assert "2.000 s (1.800..2.200)" in of_outage
    assert float(of_window.split()[1]) > 86400
    _, out, _ = history("export", path, "--output=csv", said=capsys)
    lengths = {each["kind"]: float(each["estimate_seconds"]) for each in csv.DictReader(out.splitlines())}
    assert lengths["outage"] == 2.0
    assert lengths["window"] > 86400


OPEN = {"state": "open", "end_time": None, "end": {"earliest": None, "latest": None}}
GAP = {"kind": "gap", "stream": "", "name": "a", "protocol": "", "cause": "restart", "id": "0123abcd-1-0-9"}


def row(item: Item) -> Row:
    parts = item["stream"].split("|")
    target, path = parts[1:3] if len(parts) == 5 else ("", "")
    columns = (item["seq"], item["id"], item["kind"], item["state"], item["stream"], target, path)
    return Row(*columns, at=seconds(START), item=json.dumps(item))


def journal(path: Path, *rows: Row) -> str:
    async def write() -> None:
        made = Journal(path)
        made._tidied = float("inf")  # the entries are old
        for each in rows:
            made.put(each)
        await made.close()

    run(write())
    return f"--journal={path}"


def history(*argv: str, said: Capture) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *said.readouterr()


# --- shown


def test_a_table_has_the_newest_last_in_columns(tmp_path: Path, capsys: Capture) -> None:
    made = journal(
        tmp_path / "j.db",
        row(entry(1)),
        row(entry(2, unconfirmed=True, kind="blip")),
        row(entry(3, **OPEN)),
        row(entry(4, **GAP)),
    )
    code, out, err = history("show", made, said=capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["START", "LENGTH", "KIND", "STATE", "SOURCE", "TARGET", "PATH/PROTOCOL", "CAUSE"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["2026-01-02T03:04:05.000000Z"] * 4
    assert [" ".join(line.split()[1:]) for line in lines[1:]] == [
        "2.000 s (1.800..2.200) outage closed a b1 pod/tcp refused",
        "2.000 s (1.800..2.200) blip ? closed a b2 pod/tcp refused",
        "2.000 s (1.800..2.200) outage open a b3 pod/tcp refused",
        "2.000 s (1.800..2.200) gap closed a - - restart",
    ]
    assert len({line.index("2.000 s") for line in lines[1:]}) == 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), [1, 2, 3, 4]),
        (("--limit=2",), [3, 4]),
        (("--kind=blip",), [2]),
        (("--kind=blip,gap",), [2, 4]),
        (("--target=b1,b3",), [1, 3]),
        (("--path", "pod"), [1, 2, 3]),
        (("--state=open",), [3]),
        (("--since=2026-01-02T03:04:07.1Z",), [1, 2, 3, 4]),  # it may have lasted until then
        (("--since=2026-01-02T05:04:08+01:00",), [3]),
        (("--until=2026-01-02T03:04:04Z",), []),
        (("--until=2026-01-02T03:04:05Z", "--kind=outage", "--limit=1"), [3]),
    ],
)
def test_filters(given: Sequence[str], found: Sequence[int], tmp_path: Path, capsys: Capture) -> None:
    entries = (entry(1), entry(2, kind="blip"), entry(3, **OPEN), entry(4, **GAP))
    made = journal(tmp_path / "j.db", *map(row, entries))
    code, out, _ = history("show", made, "--output=ndjson", *given, said=capsys)
    assert code == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == found


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_everything_is_exported_to_a_file_or_standard_output_alike(form: str, tmp_path: Path, capsys: Capture) -> None:
    entries = [entry(seq) for seq in range(1, 301)]
    made = journal(tmp_path / "j.db", *map(row, entries))
    out = tmp_path / "out"
    assert history("export", made, f"--output={form}", f"--file={out}", said=capsys) == (0, "", "")
    code, shown, _ = history("export", made, f"--output={form}", said=capsys)
    assert (code, shown) == (0, out.read_bytes().decode())
    if form == "csv":
        found = list(csv.DictReader(shown.splitlines()))
        assert [int(each["seq"]) for each in found] == [each["seq"] for each in entries]
        assert {(each["upper_seconds"], each["end_latest"]) for each in found} == {("2.2", entries[0]["end"]["latest"])}
    else:
        lined = [json.loads(line) for line in shown.splitlines()] if form == "ndjson" else json.loads(shown)
        assert lined == entries
    assert sorted(each.name for each in tmp_path.glob("*out*")) == ["out"]


def test_an_empty_history_is_one(tmp_path: Path, capsys: Capture) -> None:
    made = journal(tmp_path / "j.db")
    assert history("show", made, said=capsys)[1].split()[0] == "START"
    assert json.loads(history("export", made, "--output=json", said=capsys)[1]) == []
    assert history("verify", made, said=capsys)[0] == 0


def test_a_file_is_not_replaced_by_half_an_export(tmp_path: Path, capsys: Capture) -> None:
    made = journal(tmp_path / "j.db", row(entry(1)), row(entry(2))._replace(item="{}"))
    (tmp_path / "out").write_text("before")
    code, _, err = history("export", made, f"--file={tmp_path / 'out'}", said=capsys)
    assert (code, "seq 2: an entry: Object missing required field `seq`; `history verify` tells all" in err) == (
        1,
        True,
    )
    assert (tmp_path / "out").read_text() == "before"
    assert len(list(tmp_path.glob("*out*"))) == 1


NASTY = "\x1b[2J\x07\u202e\x9b31m\x7f\n"


def test_names_from_elsewhere_reach_no_terminal_and_no_formula(tmp_path: Path, capsys: Capture) -> None:
    nasty = entry(1, cause=NASTY, reporter="=cmd()", stream="@a|-b|+c|\tws|4", protocol=NASTY, name=NASTY)
    made = journal(tmp_path / "j.db", row(nasty))
    for form in ("table", "csv", "json", "ndjson"):
        out = history("show", made, f"--output={form}", said=capsys)[1]
        assert out.replace("\r\n", "").replace("\n", "").isprintable(), form
        (cells, *_) = csv.DictReader(out.splitlines()) if form == "csv" else [{}]
        named = {key: cells.get(key, "") for key in ("source", "target", "path", "protocol", "reporter")}
        if form == "csv":
            assert named == {
                "source": "'@a", "target": "'-b", "path": "'+c", "protocol": "'\\u0009ws", "reporter": "'=cmd()"
            }  # fmt: skip
            assert cells["cause"] == plain(NASTY)
    assert json.loads(out)["cause"] == NASTY


# --- verified


def check(made: str, said: Capture) -> tuple[int, list[str]]:
    code, out, _ = history("verify", made, "--output=json", said=said)
    found = json.loads(out)
    assert (code, found["verdict"]) in ((0, "pass"), (2, "fail"))
    assert found["problems_found"] >= len(found["problems"])
    return code, found["problems"]


def test_a_right_journal_passes(tmp_path: Path, capsys: Capture) -> None:
    async def twice() -> None:
        for _ in range(2):
            await Journal(tmp_path / "j.db").close()

    run(twice())
    truncated = entry(4, **{**OPEN, "state": "truncated"}, id="0123abcd-1-1-4")
    entries = (entry(1), entry(3, **GAP), truncated, entry(5, **OPEN, id="0123abcd-3-1-1"), entry(6, id="another"))
    made = journal(tmp_path / "j.db", *map(row, entries))
    assert check(made, capsys) == (0, [])
    code, out, _ = history("verify", made, said=capsys)
    assert (code, out) == (0, f"PASS: {tmp_path / 'j.db'}: 5 entries, nothing wrong\n")


WRONGS: dict[str, tuple[Item, dict[str, Any], str]] = {
    "number": ({"seq": 3}, {"seq": 2}, "seq 3: seq is 3 in the entry and 2 beside it"),
    "id": ({}, {"id": "x"}, "seq 2: id is '0123abcd-1-1-2' in the entry and 'x' beside it"),
    "kind": ({}, {"kind": "blip"}, "seq 2: kind is 'outage' in the entry and 'blip' beside it"),
    "state": ({}, {"state": "open"}, "seq 2: state is 'closed' in the entry and 'open' beside it"),
    "target": ({}, {"target": ""}, "seq 2: target is 'b2' in the entry and '' beside it"),
    "bounds": ({"duration": {"lower": 3, "estimate": 2, "upper": 4}}, {}, "seq 2: not lower <= estimate <= upper: 3"),
    "negative": ({"duration_sec": -1}, {}, "seq 2: an entry: Expected `float` >= 0.0 - at `$.duration_sec`"),
    "no end": ({"end_time": None}, {}, "seq 2: closed, and has no end"),
    "an end": ({"state": "open", "id": "0123abcd-2-1-2"}, {}, "seq 2: open, and has an end"),
    "no time": ({"start_time": "today"}, {}, "seq 2: start_time is no time: 'today'"),
    "edge": (
        {"start": {"earliest": entry(1)["end_time"], "latest": START}},
        {},
        "seq 2: not in order: start.earliest <= start_time <= start.latest",
    ),
    "mono": (
        {"mono": {"start_earliest": 9, "start_latest": 9, "end_earliest": 8, "end_latest": 8}},
        {},
        "seq 2: it ends before it begins on the monotonic clock",
    ),
    "form": ({"causes": []}, {}, "seq 2: an entry: Expected `object`, got `array` - at `$.causes`"),
    "huge": ({"name": "x" * 300}, {}, "seq 2: an entry: Expected `str` of length <= 253 - at `$.name`"),
    "text": ({}, {"item": "{"}, "seq 2: an entry: Input data was truncated"),
    "bytes": ({}, {"item": 7}, "seq 2: an entry: Object missing"),
    "deep": ({}, {"item": "[" * 100_000}, "seq 2: an entry: "),
    "open": ({**OPEN, "id": "0123abcd-1-1-2"}, {}, "0123abcd-1-1-2 is open, but run 1 is over: the newest is 2"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_a_wrong_entry_fails_and_is_named(wrong: str, tmp_path: Path, capsys: Capture) -> None:
    changes, columns, said = WRONGS[wrong]
    journal(tmp_path / "j.db", row(entry(1)))
    made = journal(tmp_path / "j.db", row({**entry(2), **changes})._replace(**columns))
    code, (problem, *more) = check(made, capsys)
    assert code == 2
    assert problem.startswith(said) or (wrong == "bytes" and problem.startswith("seq 2: an entry: "))
    assert more == []


def test_of_many_problems_the_first_are_told(tmp_path: Path, capsys: Capture) -> None:
    made = journal(tmp_path / "j.db", *(row(entry(seq, end_time=None)) for seq in range(1, 101)))
    code, out, _ = history("verify", made, said=capsys)
    assert (code, len(out.splitlines())) == (2, 21)
    assert out.endswith("100 entries, 100 wrong (20 shown)\n")


def test_pages_that_went_bad_fail(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "j.db"
    made = journal(path, *(row(entry(seq)) for seq in range(1, 300)))
    data = bytearray(path.read_bytes())
    for page in range(8, len(data) // 4096 - 8, 3):
        data[page * 4096 : page * 4096 + 100] = bytes(100)
    path.write_bytes(data)
    code, problems = check(made, capsys)
    assert code == 2
    assert problems


# --- what is none


def test_what_is_no_journal_is_1_and_one_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "text").write_text("no database at all")
    with closing(sqlite3.connect(tmp_path / "other.db")) as base:
        base.execute("CREATE TABLE events (seq)")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as base:
        base.execute(f"PRAGMA application_id = {APPLICATION}")
        base.execute("PRAGMA user_version = 99")
    for name, said in {
        "text": "file is not a database",
        "other.db": "is no journal",
        "newer.db": "is a journal of version 99",
        "absent": "there is no such file",
        ".": "is a folder, not a journal",
    }.items():
        for work in ("show", "export", "verify"):
            code, out, err = history(work, f"--journal={tmp_path / name}", said=capsys)
            assert (code, err.count("\n"), said in err) == (1, 1, True), (name, err)
            assert work == "export" or not out
    assert not (tmp_path / "absent").exists()


def test_a_name_may_hold_what_means_something_in_an_address(tmp_path: Path, capsys: Capture) -> None:
    made = journal(tmp_path / "a?mode=rwc#50%.db", row(entry(1)))
    assert check(made, capsys) == (0, [])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["shew"],
        ["show"],
        ["show", "--url=node-1:8082"],
        ["show", "--url=ftp://node-1"],
        ["show", "--url=http://me:secret@node-1"],
        ["show", "--url=http://node-1:99999"],
        ["show", "--url=http://node-1", "--journal=x"],
        ["show", "--journal=x", "--since=yesterday"],
        ["show", "--journal=x", "--since=2026-01-02T03:04:05"],
        ["show", "--journal=x", "--limit=0"],
        ["show", "--journal=x", "--kind=outage,,blip"],
        ["export", "--journal=x", "--output=table"],
        ["verify", "--journal=x", "--kind=gap"],
    ],
)
def test_bad_flags_are_1_and_one_line(argv: list[str], capsys: Capture) -> None:
    code, out, err = history(*argv, said=capsys)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("ovnwatch history")


# --- over HTTP, from strangers


@contextmanager
def stranger(answer: Callable[[str], Iterator[bytes]], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that reads a request and says what `answer` makes of its first line; then it closes."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                conn = listener.accept()[0]
                conn.settimeout(10)
                with tls.wrap_socket(conn, server_side=True) if tls else conn as talk:
                    asked = talk.recv(65536).decode()
                    for data in answer(asked.partition("\r\n")[0]):
                        talk.sendall(data)
            except OSError:
                if listener.fileno() < 0:
                    return

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=[listener])
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def page(*items: Item, journal: Any = "j", following: Any = None) -> bytes:
    after = following if following is not None else items[-1]["seq"] if items else 0
    return http(json.dumps({"journal": journal, "next": after, "items": items}).encode())


def since(asked: str) -> int:
    return int(asked.partition("since=")[2].partition("&")[0])


def endless(head: bytes, data: bytes) -> Callable[[str], Iterator[bytes]]:
    def answer(_: str) -> Iterator[bytes]:
        yield head
        while True:
            yield data

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
GARBAGE: dict[str, tuple[Callable[[str], Iterator[bytes]], str]] = {
    "nothing": (lambda _: iter([]), "Server disconnected"),
    "no HTTP": (lambda _: iter([b"220 smtp.example ESMTP\r\n"]), ""),
    "an error": (lambda _: iter([http(b"no", "404 Not Found")]), "/history answered with status 404"),
    "a refusal": (
        lambda _: iter([http(b'{"error": "kind: want one of\\n outage"}', "400 Bad Request")]),
        "/history answered with status 400: kind: want one of\\u000a outage",
    ),
    "a refusal that is none": (lambda _: iter([http(b"[" * 5000, "400 Bad Request")]), "status 400\n"),
    "elsewhere": (
        lambda _: iter([http(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n")]),
        "/history answered with status 302",
    ),
    "a page for people": (lambda _: iter([http(b"<html>")]), "not a history: the answer: JSON is malformed"),
    "a list": (lambda _: iter([http(b"[]")]), "not a history: the answer: Expected `object`, got `array`"),
    "numbers for names": (lambda _: iter([page(journal=7)]), "not a history: the answer: Expected `str`, got `int`"),
    "no numbers": (lambda _: iter([http(b'{"journal":"j","next":0,"items":[{}]}')]), "missing required field `seq`"),
    "deep": (lambda _: iter([http(b"[" * 100_000)]), "not a history"),
    "packed": (lambda _: iter([http(b"\x1f\x8b\x08", headers="Content-Encoding: gzip\r\n")]), "not a history"),
    "endless body": (endless(OK + b"\r\n", b"x" * 65536), "an answer of more than 1 MB"),
    "endless head": (endless(OK, b"X: " + b"y" * 1000 + b"\r\n"), ""),
    "endless hints": (endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "no whole answer in 1 s"),
    "endless drops": (endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10), ""),
    "endless history": (lambda asked: iter([page(entry(since(asked) + 1))]), "more than 30 entries"),
    "another journal": (
        lambda asked: iter([page(entry(since(asked) + 1), journal=f"j{since(asked)}")]),
        "the journal changed between two pages",
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("work", ["show", "verify"])
def test_garbage_is_1_and_one_line(work: str, kind: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(source, "PAGE_SECONDS", 1.0)
    monkeypatch.setattr(source, "MOST_ENTRIES", 30)
    answer, said = GARBAGE[kind]
    with stranger(answer) as url:
        code, out, err = history(work, f"--url={url}", said=capsys)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith(f"ovnwatch history: {url}: ")
    assert said in err


TORN = {
    "falls": (lambda _: iter([page(entry(5), entry(4))]), "seq 4 comes after 5"),
    "stays": (lambda _: iter([page(entry(5))]), "seq 5 comes after 5"),
    "says another end": (lambda _: iter([page(entry(5), following=9)]), "a page ends at seq 5 and says 9"),
}


@pytest.mark.parametrize("kind", TORN)
def test_pages_that_contradict_themselves_fail(kind: str, capsys: Capture) -> None:
    answer, said = TORN[kind]
    with stranger(answer) as url:
        assert check(f"--url={url}", capsys) == (2, [f"{url}: {said}"])
        assert history("show", f"--url={url}", said=capsys)[0] == 1


def test_pages_are_read_to_the_end_and_the_exporter_chooses_where_it_can(capsys: Capture) -> None:
    asked: list[str] = []

    def answer(line: str) -> Iterator[bytes]:
        asked.append(line.split()[1])
        yield page(
            *(entry(seq) for seq in range(since(line) + 1, min(since(line) + 3, 7))), following=min(since(line) + 2, 6)
        )

    with stranger(answer) as url:
        code, out, _ = history(
            "show", f"--url={url}/below/history", "--output=ndjson", "--kind=outage", "--target=b2,b6", said=capsys
        )  # fmt: skip
    assert (code, [json.loads(line)["seq"] for line in out.splitlines()]) == (0, [2, 6])
    assert [line.partition("since=")[2][0] for line in asked] == ["0", "2", "4", "6"]
    assert {line.partition("&")[2] for line in asked} == {"limit=1000&cleared=1&kind=outage"}
    assert all(line.startswith("/below/history?") for line in asked)


def test_the_certificate_counts_unless_said_otherwise(tmp_path: Path, capsys: Capture) -> None:
    tls = make_certificates(tmp_path).server()
    with stranger(lambda asked: iter([page()]), tls) as url:
        code, _, err = history("verify", f"--url={url}", said=capsys)
        assert (code, "certificate verify failed" in err, err.count("\n")) == (1, True, 1)
        assert history("verify", f"--url={url}", "--insecure", said=capsys)[0] == 0


def test_nobody_there_is_1(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, _, err = history("show", f"--url=http://127.0.0.1:{port}", said=capsys)
    where = f"127.0.0.1:{port}"
    assert (code, err) == (1, f"ovnwatch history: http://{where}: cannot connect to {where}: Connection refused\n")


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    made = journal(tmp_path / "j.db", *(row(entry(seq)) for seq in range(1, 1000)))
    argv = [sys.executable, "-c", CODE, "history", "export", made]
    ran = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ran.stdout
    assert ran.stdout.readline().startswith("seq,")
    ran.stdout.close()
    assert ran.stderr
    assert (ran.stderr.read(), ran.wait(30)) == ("", 1)
    ran.stderr.close()


# --- a real peer


@pytest.mark.slow
def test_a_running_peer_and_its_journal_tell_the_same(tmp_path: Path, capsys: Capture) -> None:
    with killed_at_the_end() as running:
        running.append(Exporter(tmp_path / "there.log", "peer", *flags(ANY_PORT), "--source=there", "--peers=nobody"))
        wait_for(running[0].ready)
        ports = {name: running[0].ports[name] for name in ("http", "tcp", "ws")}
        config = tmp_path / "here.yaml"
        config.write_text(json.dumps({"targets": [{"name": "there", "host": "127.0.0.1", "ports": ports}]}))
        argv = [*flags(ANY_PORT), "--source=here", f"--config.file={config}", f"--journal.path={tmp_path}"]
        here = Exporter(tmp_path / "here.log", "peer", *argv)
        running.append(here)
        wait_for(here.ready)
        wait_for(lambda: json.loads(here.get("/status", "http")[1])["connections"]["there"]["http"] == "connected")
        running[0].end(signal.SIGKILL)
        wait_for(lambda: len(json.loads(here.get("/history", "http")[1])) >= 3)

        url, file = f"--url=http://127.0.0.1:{here.ports['http']}", f"--journal={tmp_path / 'peer-here.db'}"
        told = []
        for each in (url, file):
            assert check(each, capsys) == (0, [])
            code, out, _ = history("show", each, "--target=there", "--output=json", said=capsys)
            assert code == 0
            told.append({(item["id"], item["stream"]) for item in json.loads(out)})
        assert told[0] == told[1]
        assert len(told[0]) >= 3
        here.end()
        assert check(file, capsys) == (0, [])  # nobody has it open
