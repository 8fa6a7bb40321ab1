"""MicroOVN's socket: a server that answers as its API is documented, refuses, talks nonsense, hangs or is gone."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import captures
import pytest
from fake_daemon import Talk, daemon, drip, silent

from exporters import catalog
from exporters.node import unixhttp
from exporters.node.failing import GarbledError, LateError
from exporters.node.host import Host, Paths
from exporters.node.links import Links
from exporters.node.ovn import microovn
from exporters.node.rpc import Deadline
from exporters.node.scrape import Collected, Scrape

SYNC = json.loads(captures.text("microovn_schema_active_synthetic"))
SCHEMAS = {"sb": ("20.27.0", "20.33.0"), "nb": ("7.1.0", "7.1.0")}  # active and expected
REFUSED = json.dumps({"type": "error", "error_code": 500, "error": "Internal Server Error"})


def answers(url: str) -> tuple[int, str]:
    """What MicroOVN says to a GET."""
    if url == "/core/1.0/cluster":
        return 200, captures.text("microovn_members_synthetic")
    found = re.fullmatch(r"/1\.0/ovsdb/schema/(\w+)/(active|expected)", url)
    if found and found[1] in SCHEMAS:
        return 200, json.dumps({**SYNC, "metadata": SCHEMAS[found[1]][found[2] == "expected"]})
    return 500, REFUSED


def speaking(answer: Callable[[str], tuple[int, str]]) -> Talk:
    def talk(caller: socket.socket) -> None:
        request = caller.recv(65536).decode()
        status, body = answer(request.split()[1])
        head = f"HTTP/1.0 {status} Status\r\nContent-Type: application/json\r\n\r\n"
        caller.sendall(head.encode() + body.encode())

    return talk


@contextmanager
def scraping(folder: Path) -> Iterator[Callable[[], Collected]]:
    """A collection by MicroOVN's collector alone."""
    host = Host(Paths(snap_common=str(folder)), Links())
    scrape = Scrape(host, ["microovn"], 2.0, catalog.load())
    try:
        yield lambda: scrape.run()["microovn"]
    finally:
        host.close()


def control(folder: Path) -> Path:
    (folder / "state").mkdir(exist_ok=True)
    return folder / "state/control.socket"


def shown(collected: Collected) -> set[str]:
    return set(captures.shown(collected.found).splitlines())  # type: ignore[arg-type]


def test_a_node_without_microovn_has_nothing_of_it(tmp_path: Path) -> None:
    with scraping(tmp_path) as collect:
        assert collect()[:2] == ([], "")


def test_members_and_schemas_are_told_and_one_that_is_refused_fails_alone(tmp_path: Path) -> None:
    with scraping(tmp_path) as collect:
        with daemon(control(tmp_path), speaking(answers)):
            collected = collect()
        assert shown(collected) >= {
            "ovnwatch_microovn_members online 1",
            "ovnwatch_microovn_members needs_upgrade 1",
            "ovnwatch_microovn_members upgrading 1",
            "ovnwatch_microovn_members not_trusted 0",
            "ovnwatch_microovn_member_info node-2 voter needs_upgrade 1",
            "ovnwatch_microovn_schema_upgrade_pending OVN_Southbound 1",
            "ovnwatch_microovn_schema_upgrade_pending OVN_Northbound 0",
        }
        assert collected.failure == "switch: MicroOVN refuses: Internal Server Error"
        control(tmp_path).unlink()
        gone = collect()  # it was here
        assert gone.found == []
        assert "does not run" in gone.failure


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{" * 10_000,
        '{"type": "sync"}',
        '{"type": "sync", "metadata": {}}',
        '{"type": "sync", "metadata": [{"name": 1, "status": "ONLINE"}]}',
    ],
)
def test_nonsense_is_a_failure_and_no_row(tmp_path: Path, body: str) -> None:
    with scraping(tmp_path) as collect, daemon(control(tmp_path), speaking(lambda _: (200, body))):
        collected = collect()
    assert collected.found == []
    assert "MicroOVN" in collected.failure


def test_a_state_that_nobody_knows_is_another_one() -> None:
    rows = captures.shown(microovn.member_rows([{"name": "a", "status": "DANCING"}]))
    assert "ovnwatch_microovn_members other 1\n" in rows
    assert "ovnwatch_microovn_member_info a  other 1\n" in rows


def endless(caller: socket.socket) -> None:
    caller.recv(65536)
    caller.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        caller.sendall(b"x" * 65536)


def test_what_does_not_end_is_cut_off(tmp_path: Path) -> None:
    for talk, failure in ((endless, GarbledError), (silent, LateError), (drip, LateError)):
        began = time.monotonic()
        with daemon(tmp_path / "s", talk), pytest.raises(failure):
            unixhttp.get(tmp_path / "s", "/", Deadline(0.5))
        assert time.monotonic() - began < 30
        (tmp_path / "s").unlink()


def test_what_speaks_no_http_is_garbled(tmp_path: Path) -> None:
    def talk(caller: socket.socket) -> None:
        caller.recv(65536)
        caller.sendall(b"220 smtp ESMTP\r\n")

    with daemon(tmp_path / "s", talk), pytest.raises(GarbledError, match="HTTP"):
        unixhttp.get(tmp_path / "s", "/", Deadline(30))
