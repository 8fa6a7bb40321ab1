"""Daemons that answer late, in pieces, too much, or nonsense: each ends in one of the failures we can name."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_daemon import Talk, answering, daemon, drip, silent
from hypothesis import given
from hypothesis import strategies as st

from exporters.node import openflow, ovsdb, rpc
from exporters.node.failing import FAILURES, GarbledError, LateError, NotCollectedError, RefusedError
from exporters.node.rpc import Deadline, JsonRpc, Stream
from exporters.node.unixctl import Unixctl, pid_of

PATIENT = 30.0  # seconds, for what is meant to answer


def ask(path: Path, talk: Talk, seconds: float = PATIENT) -> tuple[object, object]:
    with daemon(path, talk), JsonRpc(path, Deadline(seconds)) as server:
        return server.ask("version", [])


def test_an_answer_in_pieces_is_one_answer(tmp_path: Path) -> None:
    text = json.dumps({"id": 0, "result": "{}} ü\n", "error": None}).encode()
    pieces = [text[at : at + 1] for at in range(len(text))]
    assert ask(tmp_path / "s", answering(*pieces)) == (None, "{}} ü\n")


def test_a_question_in_between_is_answered(tmp_path: Path) -> None:
    heard = []

    def talk(caller: socket.socket) -> None:
        caller.recv(65536)
        caller.sendall(b'{"method":"echo","params":["x"],"id":"echo"}{"method":"update","params":[],"id":null}')
        heard.append(json.loads(caller.recv(65536)))
        caller.sendall(b'{"id":0,"result":1,"error":null}')

    assert ask(tmp_path / "s", talk) == (None, 1)
    assert heard == [{"result": ["x"], "error": None, "id": "echo"}]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n}",
        b"[]}",
        b'{"id":7,"result":1}',
        b'{"id":0}',
        b'"text"}',
        b"\xff\xfe}",
        b'{"a":' * 100_000 + b"}" * 100_000,
        b'{"id":0,"result":' + b"9" * 5000 + b"}",
    ],
)
def test_nonsense_is_garbled(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(GarbledError):
        ask(tmp_path / "s", answering(said))


def endless(caller: socket.socket) -> None:
    while True:
        caller.sendall(b'{"x": "' + b"y" * 65536)


def test_an_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MOST_BYTES", 1 << 20)
    with pytest.raises(GarbledError, match="MiB"):
        ask(tmp_path / "s", endless)


TEN = """
import resource, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from exporters.node.failing import GarbledError
from exporters.node.rpc import Deadline, JsonRpc, Stream
from fake_daemon import answering, daemon
from test_rpc import endless

def ask(path):
    try:
        with JsonRpc(path, Deadline(60)) as server:
            return server.ask("version", [])
    except GarbledError as error:
        return str(error)

with ExitStack() as stack:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    paths = [folder / str(number) for number in range(11)]
    for path in paths[:10]:
        stack.enter_context(daemon(path, endless))
    stack.enter_context(daemon(paths[10], answering(b'{"id":0,"result":"3.1","error":null}')))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(11) as threads:
        said = list(threads.map(ask, paths))
assert all("MiB" in each for each in said[:10]), said
assert said[10] == (None, "3.1"), said
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_answers_without_end_take_little_more_than_one() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TEN], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    before, most = (int(each) / 1024 for each in ran.stdout.split())
    print(f"ten endless answers at once: from {before:.0f} to {most:.0f} MB at most")
    assert most - before < 200  # 64 MB of data, and what the allocator keeps


def test_what_was_taken_of_the_budget_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "SHORT_BYTES", 1000)
    long = json.dumps({"id": 0, "result": "x" * 300_000, "error": None}).encode()
    for _ in range(3):
        assert ask(tmp_path / "s", answering(long))[1] == "x" * 300_000
        (tmp_path / "s").unlink()
    assert rpc.BUDGET._taken == 0
    with rpc.BUDGET.reading, pytest.raises(LateError, match="while others do"):
        ask(tmp_path / "s", answering(long), 0.3)
    assert rpc.BUDGET._taken == 0


@pytest.mark.parametrize("talk", [silent, drip])
def test_who_does_not_come_to_an_end_is_late(tmp_path: Path, talk: Talk) -> None:
    began = time.monotonic()
    with pytest.raises(LateError):
        ask(tmp_path / "s", talk, 0.2)
    assert time.monotonic() - began >= 0.2


def test_who_lets_nobody_in_is_late(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as first:
        door.bind(str(tmp_path / "s"))
        door.listen(0)
        first.connect(str(tmp_path / "s"))
        with pytest.raises(LateError):
            JsonRpc(tmp_path / "s", Deadline(0.2))


def test_who_hangs_up_or_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotCollectedError, match="hung up"):
        ask(tmp_path / "s", lambda caller: caller.recv(100))
    with pytest.raises(NotCollectedError, match="nobody listens"):
        JsonRpc(tmp_path / "s", Deadline(PATIENT))
    with pytest.raises(NotCollectedError, match="nobody listens"):
        JsonRpc(tmp_path / "none", Deadline(PATIENT))


@pytest.mark.parametrize("kind", ["loop", "below a file"])
def test_a_socket_that_cannot_be_reached_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "loop":
        path.symlink_to("s")
    else:
        path.write_text("")
        path /= "t"
    with pytest.raises(NotCollectedError, match=f"{path}: "):
        Stream(path, Deadline(30))


def test_a_path_may_be_longer_than_a_sockets(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    short = tmp_path / "l"
    short.symlink_to(folder)
    with daemon(short / "s", answering(b'{"id":0,"result":"x","error":null}')):
        assert len(str(folder / "s")) > rpc.LONGEST_NAME
        with JsonRpc(folder / "s", Deadline(PATIENT)) as server:
            assert server.ask("x", []) == (None, "x")


def test_the_pid_file_is_read_at_each_connection(tmp_path: Path) -> None:
    for pid in (5, 6):
        (tmp_path / "d.pid").write_text(f"{pid}\n")
        answer = json.dumps({"id": 0, "result": f"I am {pid}", "error": None}).encode()
        with daemon(tmp_path / f"d.{pid}.ctl", answering(answer)), Unixctl(tmp_path, "d", Deadline(PATIENT)) as server:
            assert server.run("version") == f"I am {pid}"


@pytest.mark.parametrize("text", ["", "0\n", "-5", "12x", "1" * 50, "\xff"])
def test_a_pid_file_without_a_pid_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.pid").write_bytes(text.encode())
    with pytest.raises(NotCollectedError, match="no process id"):
        pid_of(tmp_path, "d")


def test_what_a_daemon_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "d.pid").write_text("5\n")
    # Without `result` at all, as OVS answers.
    answer = b'{"id":0,"error":"\\"nope\\" is not a valid command"}'
    with (
        daemon(tmp_path / "d.5.ctl", answering(answer)),
        Unixctl(tmp_path, "d", Deadline(PATIENT)) as server,
        pytest.raises(RefusedError, match="not a valid command"),
    ):
        server.run("nope")


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ({"id": 0, "result": [{"error": "x", "details": "No column y"}], "error": None}, RefusedError),
        ({"id": 0, "result": None, "error": "unknown database"}, RefusedError),
        ({"id": 0, "result": [], "error": None}, GarbledError),
        ({"id": 0, "result": [{}], "error": None}, GarbledError),
        ({"id": 0, "result": [{"rows": [{"other": 1}]}], "error": None}, GarbledError),
        ({"id": 0, "result": [{"rows": [{"name": ["odd", 1]}]}], "error": None}, GarbledError),
        ({"id": 0, "result": "text", "error": None}, GarbledError),
    ],
)
def test_what_a_database_answers_wrongly_is_told(tmp_path: Path, said: object, failure: type[Exception]) -> None:
    with daemon(tmp_path / "s", answering(json.dumps(said).encode())), pytest.raises(failure):
        ovsdb.select(tmp_path / "s", "db", {"Bridge": ["name"]}, Deadline(PATIENT))


def test_values_of_a_database() -> None:
    assert ovsdb.plain(["set", [["uuid", "a"], 1]]) == ["a", 1]
    assert ovsdb.plain(["map", [["k", ["uuid", "v"]], ["l", 2]]]) == {"k": "v", "l": 2}
    assert ovsdb.one(ovsdb.plain(["set", []])) is None
    assert ovsdb.one(5) == 5
    assert ovsdb.uuids("a") == ["a"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["set", "map", "uuid"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON)
def test_any_answer_of_a_database_is_rows_or_a_failure(said: object) -> None:
    try:
        ovsdb.rows_of({"Bridge": ["name"]}, said)
        ovsdb.rows_of({"Bridge": ["name"]}, [{"rows": [{"name": said}]}])
    except FAILURES:
        return


def openflow_message(kind: int, transaction: int, body: bytes) -> bytes:
    return openflow.HEADER.pack(openflow.VERSION, kind, openflow.HEADER.size + len(body), transaction) + body


AGGREGATE = struct.pack("!HH4xQQI4x", openflow.AGGREGATE, 0, 7, 700, 3)


def test_rules_are_counted_past_what_else_a_switch_says(tmp_path: Path) -> None:
    reply = openflow_message(openflow.ECHO_REPLY, 9, b"are you there")

    def talk(caller: socket.socket) -> None:
        caller.sendall(openflow_message(openflow.HELLO, 1, b""))
        caller.sendall(openflow_message(openflow.ECHO_REQUEST, 9, b"are you there"))
        heard = b""
        while not heard.endswith(reply):
            heard += caller.recv(1024)
        answer = openflow_message(openflow.MULTIPART_REPLY, openflow.XID, AGGREGATE)
        caller.sendall(answer[:11])
        time.sleep(0.001)
        caller.sendall(answer[11:])

    with daemon(tmp_path / "s", talk):
        assert openflow.aggregate(tmp_path / "s", Deadline(PATIENT)) == (7, 700, 3)


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (openflow_message(openflow.ERROR, 2, b"\0\1\0\2"), RefusedError),
        (openflow_message(openflow.MULTIPART_REPLY, openflow.XID, b"short"), GarbledError),
        (b"\4\0\0\1\0\0\0\1", GarbledError),
        (openflow_message(openflow.HELLO, 1, b"") * 2000, NotCollectedError),
    ],
)
def test_a_switch_that_does_not_tell_its_rules(tmp_path: Path, said: bytes, failure: type[Exception]) -> None:
    with daemon(tmp_path / "s", answering(said)), pytest.raises(failure):
        openflow.aggregate(tmp_path / "s", Deadline(PATIENT))


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_a_pid_file_that_is_no_file_holds_no_process_id(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "d.pid"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(NotCollectedError, match="holds no process id"):
        pid_of(tmp_path, "d")
