"""The stream of changes over real sockets: everything in order and once, resumed where it was, slow tabs cut off."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from box import run, until
from stage import TOKEN, Stage, outside, stage, told_by
from test_journal import hanging
from test_pull import item
from test_state import applied

from exporters import journal as journals
from exporters.bastion import broadcast, covered, state
from exporters.bastion import view as view_module
from exporters.bastion.told import Item
from exporters.history import command
from exporters.journal import Journal
from exporters.times import iso


class Tab:
    """One that watches: `state` as it was told, `ids` of the changes, `beats`, `words` of the events as they came."""

    def __init__(self) -> None:
        self.state: state.State = state.empty()
        self.ids: list[str] = []
        self.words: list[str] = []
        self.beats: list[float] = []

    def take(self, text: str) -> None:
        fields = dict(line.split(": ", 1) for line in text.split("\n"))
        data = json.loads(fields["data"])
        self.words.append(fields["event"])
        if "id" in fields:
            self.ids.append(fields["id"])
        if fields["event"] == "reset":
            self.state = state.empty()
        elif fields["event"] == "change":
            self.state = applied(self.state, data)
        elif fields["event"] == "beat":
            self.beats.append(data["at"])

    def cells(self) -> list[str]:
        return [cell[0] for cell in self.state["cells"].values()]


@asynccontextmanager
async def watching(port: int, last: str = "") -> AsyncIterator[Tab]:
    tab = Tab()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/api/stream", headers={"Last-Event-ID": last} if last else {}) as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"

        async def read() -> None:
            while text := await answer.content.readuntil(b"\n\n"):
                tab.take(text.decode().rstrip("\n"))

        task = asyncio.create_task(read())
        try:
            yield tab
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_every_change_comes_once_in_order_and_makes_the_same_state() -> None:
    async def scenario() -> None:
        async with stage(outside(2)) as on, watching(on.port) as first, watching(on.port) as second:
            await until(lambda: len(first.beats) > 0 and len(second.beats) > 0)
            assert first.words[0] == "reset"
            for count, stats in enumerate(on.streams[:5], 1):
                on.down(stats)
                await until(lambda: first.cells().count("down") == count)  # noqa: B023
                await until(lambda: len(first.state["events"]) == count)  # noqa: B023
            for stats in on.streams[:5]:
                on.up(stats)
            await until(lambda: "down" not in first.cells())
            await until(lambda: all(each["end"] for each in first.state["events"].values()))
            await until(lambda: second.state == first.state == json.loads(json.dumps(on.view.state)))
            numbers = [int(each.rpartition("-")[2]) for each in first.ids]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert first.state["facts"]["verdict"]["text"] == "All 18 streams up"

    run(scenario())


def test_who_comes_back_is_told_what_came_since_and_nothing_else() -> None:
    async def scenario() -> None:
        async with stage(outside(2)) as on:
            async with watching(on.port) as tab:
                await until(lambda: tab.ids)
            on.down(on.streams[0])  # nobody watches
            async with watching(on.port, tab.ids[-1]) as back:
                await until(lambda: "change" in back.words)
                await until(lambda: len(back.beats) > 0)
                assert "reset" not in back.words
                assert next(iter(back.state["cells"].values()))[0] == "down"
                assert len(back.state["cells"]) == 1
            for last in ("other-1", f"{tab.ids[-1]}9999", "nonsense", "-" * 50):
                async with watching(on.port, last) as other:
                    await until(lambda: other.ids)
                    assert other.words[0] == "reset"
                    assert len(other.state["cells"]) == 18

    run(scenario())


def test_nothing_is_built_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "EVERY", 0.01)

    async def scenario() -> None:
        async with stage(outside(1)) as on:
            steps = 0
            step = on.broadcast._step

            async def counted() -> dict[str, Any] | None:
                nonlocal steps
                steps += 1
                return await step()

            on.broadcast._step = counted
            await asyncio.sleep(0.1)
            assert steps == 0
            async with watching(on.port) as tab:
                await until(lambda: tab.beats)
                assert steps > 0
                known = set(tab.ids)
                await asyncio.sleep(0.1)
                assert len(set(tab.ids) - known) <= 1  # the coverage may have become known
            await until(lambda: not on.broadcast._tabs)
            await asyncio.sleep(0.05)
            before = steps
            await asyncio.sleep(0.1)
            assert steps == before

    run(scenario())


def test_nothing_is_told_that_the_journal_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "WAIT_SECONDS", 0.1)

    async def scenario() -> None:
        async with stage(outside(1)) as on:
            await on.broadcast.fresh()
            with monkeypatch.context() as slow:
                slow.setattr(Journal, "served", property(lambda _: 0))
                on.down(on.streams[0])
                assert not (await on.broadcast.fresh())["events"]
                await post(on, "/api/notes", {"text": "a"})
                assert not (await on.broadcast.fresh())["events"]
            await on.record.save()
            (found,) = (await on.broadcast.fresh())["events"].values()
            assert (found["kind"], found["end"]) == ("outage", None)

    run(scenario())


def test_events_of_the_process_before_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def first() -> None:
        async with stage(outside(1), journal=path) as on:
            on.down(on.streams[0])
            on.up(on.streams[0])
            on.down(on.streams[1])

    async def second() -> None:
        async with stage(outside(1), journal=path) as on:
            found = (await on.broadcast.fresh())["events"].values()
            outages = [each for each in found if each["kind"] != "gap"]
            assert sorted(each["state"] for each in outages) == ["closed", "truncated"]
            assert all(each["end"] for each in outages)
            assert [each["cause"] for each in found if each["kind"] == "gap"] == ["restart"]

    run(first())
    run(second())


def test_a_tab_that_does_not_read_is_cut_off_and_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "EVERY", 0.005)
    monkeypatch.setattr(broadcast, "MOST_WAITING", 4)

    async def scenario() -> None:
        async with stage(outside(3)) as on, watching(on.port) as good:
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port, limit=1024)
            writer.write(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: len(on.broadcast._tabs) == 2)
            stats = on.streams[0]
            stats.cause = "x"

            def told() -> bool:
                on.findings = [{**dict.fromkeys(("sure", "target", "source"), "x"), "text": f"{time.time()}" * 1000}]
                return len(on.broadcast._tabs) == 1

            await until(told)
            writer.transport.abort()
            on.findings = []
            on.down(stats)
            await until(lambda: "down" in good.cells())
            del reader

    run(scenario())


def test_while_a_look_hangs_nobody_is_told_that_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "EVERY", 0.01)
    monkeypatch.setattr(broadcast, "BEAT", 0.02)

    async def scenario() -> None:
        async with stage(outside(1)) as on, watching(on.port) as tab:
            await until(lambda: tab.beats)
            step, mended, hanging = on.broadcast._step, asyncio.Event(), asyncio.Event()

            async def hung() -> dict[str, Any] | None:
                hanging.set()
                await mended.wait()
                return await step()

            on.broadcast._step = hung
            await hanging.wait()
            monkeypatch.setattr(broadcast, "HANGING", 0.0)
            await asyncio.sleep(0.2)  # for those under way
            before = len(tab.beats)
            await asyncio.sleep(0.2)
            assert len(tab.beats) == before
            monkeypatch.setattr(broadcast, "HANGING", 4.0)
            mended.set()
            await until(lambda: len(tab.beats) > before)

    run(scenario())


def test_tabs_that_are_still_to_be_told_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MOST_TABS", 2)

    async def scenario() -> None:
        async with stage(outside(1)) as on, aiohttp.ClientSession(f"http://127.0.0.1:{on.port}") as session:
            async with on.broadcast._turn:
                waiting = [asyncio.create_task(session.get("/api/stream")) for _ in range(2)]
                await until(lambda: on.broadcast._coming == 2)
                async with session.get("/api/stream") as answer:
                    assert answer.status == 503
            for each in await asyncio.gather(*waiting):
                assert each.status == 200
                each.close()
            assert on.broadcast._coming == 0

    run(scenario())


def test_tabs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MOST_TABS", 1)

    async def scenario() -> None:
        async with stage(outside(1)) as on, watching(on.port) as tab, aiohttp.ClientSession() as session:
            await until(lambda: tab.ids)
            async with session.get(f"http://127.0.0.1:{on.port}/api/stream") as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"]

    run(scenario())


def test_what_was_missed_for_too_long_is_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MOST_KEPT", 2)

    async def scenario() -> None:
        async with stage(outside(2)) as on, watching(on.port) as tab:
            await until(lambda: tab.ids)
            first = tab.ids[0]
            for count, stats in enumerate(on.streams[:4], 1):
                on.down(stats)
                await until(lambda: tab.cells().count("down") == count)  # noqa: B023
            async with watching(on.port, first) as late:
                await until(lambda: late.ids)
                assert late.words[0] == "reset"
                assert late.cells().count("down") == 4

    run(scenario())


def test_while_the_journal_hangs_the_page_answers_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(view_module, "WAIT_SECONDS", 0.3)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with (
            stage(outside(1), journal=path) as on,
            aiohttp.ClientSession(f"http://127.0.0.1:{on.port}") as session,
        ):
            for stats in on.streams:
                stats.decided = time.monotonic() + 600  # what is to come has no end in /api/data
            await on.broadcast.fresh()
            on.journal._base.execute("PRAGMA busy_timeout = 600000")
            with hanging(path):
                on.down(on.streams[0])
                for place in ("/simple", "/api/data", "/history?since=0"):
                    began = time.monotonic()
                    async with session.get(place) as answer:
                        assert answer.status == 200
                        assert await answer.text()
                    print(f"{place} while the journal hangs: {time.monotonic() - began:.2f} s")
                await until(lambda: on.journal.trouble)
                async with session.get("/api/data") as answer:
                    assert [item["state"] for item in (await answer.json())["history"]] == ["open"]
                found = await on.broadcast.fresh()
                assert "a transaction takes longer" in found["facts"]["watcher"]["journal"]
                assert [each["end"] for each in found["events"].values()] == [None]

                async def unread(*_: Any) -> Any:
                    raise journals.ReadError("the disk does not answer")

                monkeypatch.setattr(on.journal, "_read", unread)
                async with session.get("/history?since=0") as answer:
                    assert answer.status == 503
                    assert await answer.json() == {"error": "the journal: the disk does not answer"}
                on.down(on.streams[1])
                async with session.get("/simple") as answer:
                    assert answer.status == 200
                monkeypatch.delattr(on.journal, "_read")
                assert len((await on.broadcast.fresh())["events"]) == 2  # it was put off, not left out
            await until(lambda: not on.journal.trouble)
            assert (await on.broadcast.fresh())["facts"]["watcher"]["journal"] == ""

    run(scenario())


def test_a_reload_that_changes_the_interval_changes_the_page() -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on, watching(on.port) as tab:
            await until(lambda: len(tab.state["streams"]) == 9)
            before = on.streams[0]
            on.record.remove(before.spec.key)
            on.record.add(replace(before.spec, interval=7.0))
            (number,) = [
                key for key, each in tab.state["streams"].items() if each[2:5] == before.spec.key.split("|")[1:4]
            ]
            await until(lambda: tab.state["streams"][number][-1] == 7.0)
            assert on.view._watched[number].slack > 7.0
            assert len(tab.state["streams"]) == 9

    run(scenario())


def client(on: Stage) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(f"http://127.0.0.1:{on.port}")


# --- what peers tell


def test_a_peer_that_is_not_heard_is_unknown_and_says_since_when() -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on, watching(on.port) as tab:
            names = ["a", "b"]
            for name in names:
                on.peer(name, told_by(name, names))
            await until(lambda: len(tab.state["cells"]) == 9 + 6)
            await until(lambda: tab.state["facts"]["verdict"]["level"] == "up")
            on.peer("b", heard=False, error="Connection refused")
            await until(lambda: tab.cells().count("unknown") == 3)
            peer = tab.state["peers"]["b"]
            assert peer["heard"] is False
            assert peer["since"] == pytest.approx(time.time(), abs=60)
            verdict = tab.state["facts"]["verdict"]
            assert (verdict["level"], verdict["unheard"]) == ("unknown", ["b"])
            del on.pull.peers["b"]
            await until(lambda: len(tab.state["cells"]) == 9 + 3)
            assert "b" not in tab.state["peers"]

    run(scenario())


def test_of_two_accounts_of_one_stream_the_worse_is_told() -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on:
            on.peer("a", told_by("a", ["b"]))
            on.peer("liar", told_by("a", ["b"], state="unknown"))
            assert (await on.broadcast.fresh())["facts"]["verdict"]["level"] == "up"
            on.peer("a", told_by("a", ["b"], state="down"))
            on.peer("liar", told_by("a", ["b"]))
            found = await on.broadcast.fresh()
            assert sorted(cell[0] for cell in found["cells"].values()) == ["down"] * 3 + ["up"] * 9

    run(scenario())


def test_peers_that_tell_too_much_are_bounded_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MOST_STREAMS", 30)

    async def scenario() -> None:
        async with stage(outside(1)) as on:
            for turn in range(5):
                on.peer("a", told_by("a", [f"x{turn}-{number}" for number in range(20)]))
                found = await on.broadcast.fresh()
                assert len(found["streams"]) == len(found["cells"]) == 9 + 30
                assert found["facts"]["watcher"]["left_out"] == 30
            assert max(len(on.view._numbers), len(on.view._named), len(on.view._began)) <= 9 + 60

    run(scenario())


# --- what people do


async def post(on: Stage, path: str, body: Any = None, token: str = TOKEN) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{on.port}{path}", data=data, headers=headers) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if answer.content_type == "application/json" else text


async def history(on: Stage) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{on.port}/history") as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


def test_a_window_and_a_note_are_events_of_the_journal_and_survive_a_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.db"

    async def first() -> None:
        async with stage(outside(1), journal=path) as on, watching(on.port) as tab:
            status, window = await post(on, "/api/windows", {"name": " node-3  reboots", "budget_seconds": 60})
            assert (status, window["kind"], window["state"], window["text"]) == (
                200,
                "window",
                "open",
                "node-3 reboots",
            )
            assert (await post(on, "/api/windows", {"name": "another"}))[0] == 409
            status, note = await post(on, "/api/notes", {"text": "<b>drained</b>"})
            assert (status, note["text"]) == (200, "<b>drained</b>")
            await until(lambda: {each["kind"] for each in tab.state["marks"].values()} == {"window", "note"})
            await until(lambda: tab.state["facts"]["summary"]["name"] == "node-3 reboots")
            assert tab.state["facts"]["summary"]["budget"] == 60
            assert {each["kind"] for each in await history(on)} == {"window", "note"}
            assert (await post(on, "/api/clear_history"))[0] == 200
            assert [each["state"] for each in await history(on)] == ["open"]

    async def second() -> None:
        async with stage(outside(1), journal=path) as on:
            assert [(each["kind"], each["state"]) for each in await history(on) if each["kind"] != "gap"] == [
                ("window", "open")
            ]
            marks = (await on.broadcast.fresh())["marks"]
            assert sorted(each["kind"] for each in marks.values()) == ["cleared", "note", "window"]
            status, window = await post(on, "/api/windows/end")
            assert (status, window["state"]) == (200, "closed")
            assert window["duration"]["estimate"] > 0
            assert (await post(on, "/api/windows/end"))[0] == 409
            assert [each["id"] for each in await history(on) if each["kind"] == "window"] == [window["id"]]

    async def third() -> None:
        async with stage(outside(1), journal=path) as on:
            (window,) = [each for each in await history(on) if each["kind"] == "window"]
            assert (window["state"], window["text"], window["budget_seconds"]) == ("closed", "node-3 reboots", 60)
            assert on.record.cleared_at > 0  # it is not taken for a clearing, nor hides one
            assert on.marks.window is None

    run(first())
    run(second())
    run(third())
    assert command.main(["verify", f"--journal={path}"]) == 0
    assert command.main(["show", f"--journal={path}", "--kind=window,note"]) == 0
    shown = capsys.readouterr().out
    assert "node-3 reboots" in shown
    assert "<b>drained</b>" in shown


def test_an_open_window_is_not_pushed_out_by_other_events(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on:
            on.record.max_history = 3
            await post(on, "/api/windows", {"name": "night"})
            for number in range(5):
                await post(on, "/api/notes", {"text": f"note {number}"})
            assert [each["kind"] for each in await history(on)] == ["note", "note", "window"]

    run(scenario())


pytestmark = pytest.mark.slow  # sockets and their time-outs

PATHS = ("/api/windows", "/api/windows/end", "/api/notes", "/api/clear_history")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("token", "given", "expected"), [(TOKEN, "", 401), (TOKEN, "wrong", 401), (None, TOKEN, 403)])
def test_nobody_changes_anything_without_the_token(path: str, token: str | None, given: str, expected: int) -> None:
    async def scenario() -> None:
        async with stage(outside(1), token=token) as on:
            assert (await post(on, path, {"name": "a", "text": "a"}, given))[0] == expected
            assert await history(on) == []

    run(scenario())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/windows", {}),
        ("/api/windows", {"name": ""}),
        ("/api/windows", {"name": "a" * 101}),
        ("/api/windows", {"name": "a\u0007b"}),
        ("/api/windows", {"name": "a\u202eb"}),
        ("/api/windows", {"name": "a", "budget_seconds": 0}),
        ("/api/windows", {"name": "a", "budget_seconds": "60"}),
        ("/api/windows", {"name": "a", "more": 1}),
        ("/api/windows", b"name=a"),
        ("/api/windows", b'{"name": "a", "budget_seconds": 1e999}'),
        ("/api/windows", b"[" * 50_000),
        ("/api/notes", {"text": " \n"}),
        ("/api/notes", {"text": "a" * 501}),
        ("/api/notes", b"\xff"),
    ],
)
def test_bad_input_is_refused_and_named(path: str, body: Any) -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on:
            status, said = await post(on, path, body)
            assert status == 400
            assert said["error"]
            assert await history(on) == []

    run(scenario())


def test_a_body_that_is_too_long_is_not_read() -> None:
    async def scenario() -> None:
        async with stage(outside(1)) as on:
            assert (await post(on, "/api/notes", b'{"text": "' + b"a" * 100_000 + b'"}'))[0] == 413

    run(scenario())


# --- coverage and /simple


def test_coverage_is_of_the_path_that_was_observed_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "COVERAGE_SECONDS", 0.05)

    async def scenario() -> None:
        async with stage(outside(1)) as on, watching(on.port) as tab:
            await until(lambda: (tab.state["facts"].get("coverage") or {}).get("share") == 1.0)
            assert tab.state["facts"]["coverage"]["paths"] == 3
            for stats in on.streams:
                if stats.spec.path == "route":
                    stats.decided = 0.0
            await until(lambda: tab.state["facts"]["coverage"]["share"] < 0.99)
            found = tab.state["facts"]["coverage"]
            assert (found["worst"], found["enough"], found["lacking"]) == (["peer-1", "route"], False, 1)

    run(scenario())


def test_a_path_that_was_never_reached_is_no_missing_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "COVERAGE_SECONDS", 0.05)

    async def scenario() -> None:
        async with stage(outside(1)) as on:
            for stats in on.streams[:3]:
                stats.state("unknown")
            await on.broadcast.fresh()
            await asyncio.sleep(0.1)
            found = (await on.broadcast.fresh())["facts"]["coverage"]
            assert (found["paths"], found["unknowns"], found["unknown"]) == (2, 1, [["peer-1", "loadbalancer"]])
            async with client(on) as session, session.get("/simple") as answer:
                assert "Never reached, so unknown: peer-1 by loadbalancer<br>" in await answer.text()

    run(scenario())


def test_where_nothing_was_ever_reached_coverage_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "COVERAGE_SECONDS", 0.05)

    async def scenario() -> None:
        async with stage(outside(1, paths=1)) as on:
            for stats in on.streams:
                stats.state("unknown")
            await asyncio.sleep(0.1)
            found = (await on.broadcast.fresh())["facts"]["coverage"]
            assert (found["share"], found["enough"], found["unknowns"]) == (None, False, 1)

    run(scenario())


def test_a_source_that_was_dead_is_named_though_others_saw_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "COVERAGE_SECONDS", 0.05)
    monkeypatch.setattr(covered, "LEAST_SECONDS", 0.05)

    async def scenario() -> None:
        async with stage(outside(1, paths=1)) as on:

            async def missed() -> dict[str, float]:
                await asyncio.sleep(0.06)
                found = (await on.broadcast.fresh())["facts"]["coverage"]
                assert found["share"] == 1.0
                assert found["misses"] == len(found["missed"])
                return dict(found["missed"])

            names = ["a", "b", "c", "d"]
            for name in names:
                on.peer(name, told_by(name, names), journal="one")
            await on.broadcast.fresh()
            on.view._since -= 100
            on.view._began = dict.fromkeys(on.view._began, on.view._since)
            on.peer("before", told_by("before", names))  # it was heard while nobody watched the page
            for name in ("before", "never", "never-2"):
                on.peer(name, heard=False, error="refused")
            assert set(await missed()) >= {"before", "never", "never-2"}
            on.peer("a", heard=False)
            on.pull.peers["a"].since -= 30
            assert (await missed())["a"] == pytest.approx(30, abs=20)
            on.peer("a", told_by("a", names), journal="two")  # another process, which tells nothing of that time
            assert (await missed())["a"] == pytest.approx(30, abs=20)
            on.peer("b", heard=False)
            on.pull.peers["b"].since -= 30
            assert "b" in await missed()
            on.peer("b", told_by("b", names), journal="one")  # it was there all the time: its journal tells
            assert "b" not in await missed()

    run(scenario())


def test_what_a_peer_observed_before_this_bastion_heard_it_counts_less_its_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_module, "COVERAGE_SECONDS", 0.05)

    async def scenario() -> None:
        async with stage(outside(1, paths=1)) as on:

            async def least() -> tuple[str, float]:
                await asyncio.sleep(0.06)
                found = (await on.broadcast.fresh())["facts"]["coverage"]
                return found["worst"][0], found["share"]

            await on.broadcast.fresh()
            on.view._since -= 100  # a bastion before us began then
            on.view._began = dict.fromkeys(on.view._began, on.view._since)
            on.peer("a", told_by("a", ["b"], observed=1000.0), journal="journal-of-a")
            assert (await least())[1] == 1.0
            on.peer("c", told_by("c", ["d"], observed=75.0))
            target, share = await least()
            assert target == "d"
            assert share == pytest.approx(0.75, abs=0.1)
            now = time.time()
            begin, end = iso(now - 80), iso(now - 20)
            gap = item(1, kind="gap", stream="", name="a", start_time=begin, end_time=end)
            gap |= {"start": {"earliest": begin, "latest": begin}, "end": {"earliest": end, "latest": end}}
            on.pull.heard.add("a", "journal-of-a", [Item.model_validate(gap)], 0.0)
            target, share = await least()
            assert target == "b"
            assert share == pytest.approx(0.4, abs=0.1)

    run(scenario())


def test_simple_is_one_table_with_a_row_a_line() -> None:
    async def scenario() -> None:
        async with stage(outside(2)) as on, aiohttp.ClientSession(f"http://127.0.0.1:{on.port}") as session:
            on.down(on.streams[0])
            on.peer("a", told_by("a", ["b", "<script>alert(1)</script>"], state="down", cause="<i>"))
            on.peer("c", heard=False, error="<img src=x>")
            async with session.get("/simple") as answer:
                text = await answer.text()
                assert answer.headers["Refresh"] == "5"
                assert "unsafe" not in answer.headers["Content-Security-Policy"]
            assert text.count("<table") == 1
            lines = [line for line in text.splitlines() if line.startswith("<tr class")]
            assert len(lines) == 2 * 3 + 1 + 1
            assert "<td>peer-1</td><td>loadbalancer</td><td>DOWN refused</td><td>up</td><td>up</td>" in lines[0]
            assert "2 DOWN: &lt;script&gt;alert(1)&lt;/script&gt;, b" in text
            assert "NOT HEARD &lt;img src=x&gt;" in text
            assert "<script" not in text
            assert "<img" not in text
            assert "7 of 24 streams down, 1 peer not heard" in text

    run(scenario())
