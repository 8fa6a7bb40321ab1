"""MicroOVN's upgrades: recorded answers of a member to phases, and asking it on a socket."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from box import OURSELVES, run

from exporters.migration import members
from exporters.migration.kinds import State
from exporters.migration.members import Members
from exporters.migration.microovn import MEMBERS, paths, read, upgrade
from exporters.migration.phases import Phases
from exporters.migration.seen import UNKNOWN_SECONDS
from exporters.probing.record import Record

SAMPLES = Path(__file__).parent / "data" / "microovn"


def answers(name: str) -> dict[str, bytes]:
    """By path what the member says; what is not recorded is refused as its neighbours are."""
    told: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    refused = told.get("GET /1.0/ovsdb/schema/nb/active")
    listed = {"type": "sync", "error_code": 0, "metadata": told["microovn cluster list -f json"]}
    said = {path: told.get(f"GET {path}", refused) for path in paths()} | {MEMBERS: listed}
    return {path: json.dumps(each).encode() for path, each in said.items()}


def cluster(done: int) -> State:
    return State("cluster upgrade", done / 3, rolls=True)


PHASES = {
    "00-steady": State(),
    "01-first-refreshed": cluster(1),
    "02-second-refreshed": cluster(2),
    "03-all-refreshed": State("database schema upgrade", 0.0),
    "04-southbound-done": State("database schema upgrade", 0.5),
    "05-done": State(),
    "10-no-dqlite-change": cluster(1),
    "11-member-unreachable": cluster(2),
    "12-members-without-api": cluster(1),
}


@pytest.mark.parametrize("name", PHASES)
def test_what_a_member_answers_is_a_phase(name: str) -> None:
    found = read(answers(name))
    assert found is not None
    assert upgrade(*found) == PHASES[name]


def test_every_recorded_answer_has_a_phase() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == PHASES.keys()


def test_a_member_that_tells_no_members_tells_nothing() -> None:
    refused = dict.fromkeys(paths(), b'{"type": "error", "error_code": 503, "metadata": null}')
    assert read(refused) is None
    with pytest.raises(msgspec.DecodeError):
        read({**answers("00-steady"), MEMBERS: b"<html>"})


def test_without_schemas_statuses_alone_tell() -> None:
    assert upgrade(["ONLINE"], []) == State()
    assert upgrade([], []) == State()
    assert upgrade(["NEEDS UPGRADE"], []).phase == "cluster upgrade"


@asynccontextmanager
async def member(path: Path, told: dict[str, bytes]) -> AsyncIterator[None]:
    """A control socket that answers `told`, or "endless" for a path that it has not."""

    async def get(request: web.Request) -> web.StreamResponse:
        if request.path in told:
            return web.Response(body=told[request.path], content_type="application/json")
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
        except ConnectionError:
            return response

    app = web.Application()
    app.router.add_get("/{tail:.*}", get)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


def test_a_member_is_asked_and_what_it_says_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        record = Record([], OURSELVES)
        phases = Phases(record)
        asker = Members(tmp_path / "control.socket", phases, record)
        await asker.step()
        assert not asker.known()["microovn"].up
        assert asker.known()["microovn"].failures["unreachable"] == 1
        told = answers("01-first-refreshed")
        async with member(tmp_path / "control.socket", told):
            await asker.step()
            assert (asker.known()["microovn"].up, phases.progress) == (True, {"microovn": 1 / 3})
            told |= answers("03-all-refreshed")
            await asker.step()
            await asker.step()
            assert [item["text"] for item in record.history()] == ["cluster upgrade", "database schema upgrade"]
            told[MEMBERS] = b"[]"
            await asker.step()
            assert asker.known()["microovn"].failures["garbled"] == 1
            assert ("microovn", "") in phases.open, "last known"
            del told[MEMBERS]
            await asker.step()
            assert asker.known()["microovn"].failures["garbled"] == 2, "it is bounded"
        assert asker.known()["microovn"].age >= 0.0
        asker.failed("timeout", "", UNKNOWN_SECONDS)
        assert ("microovn", "") in phases.open
        asker.failed("timeout", "", UNKNOWN_SECONDS + 1)
        assert phases.open == {}
        assert record.history()[-1]["state"] == "closed"
        assert phases.progress == {"microovn": None}

    run(scenario())


def test_a_member_that_hangs_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "ANSWER_SECONDS", 0.2)

    async def scenario() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        record = Record([], OURSELVES)
        asker = Members(tmp_path / "control.socket", Phases(record), record)
        async with await asyncio.start_unix_server(silent, tmp_path / "control.socket"):
            began = time.monotonic()
            await asker.step()
            print(f"given up after {time.monotonic() - began:.2f} s")
        assert asker.known()["microovn"].failures["timeout"] == 1
        assert not asker.known()["microovn"].heard

    run(scenario())
