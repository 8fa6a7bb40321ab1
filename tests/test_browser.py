"""The page in the browser people use: what it shows, how soon, never healthy when cut off, and what it does."""

import asyncio
import csv
import io
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import BUILD, DESKTOP, PHONE, chromium, opened, texts
from on_loop import Loop, running_loop
from playwright.sync_api import Browser, Page, expect
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for
from stage import TOKEN, Stage, outside, told_by

from exporters.bastion.marks import NewNote
from exporters.settings import Stream

pytestmark = [pytest.mark.system("chromium"), pytest.mark.slow]
HERE = Path(__file__).parent
LONG = 20_000  # ms; only something broken needs them
expect.set_options(timeout=LONG)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


class Theatre:
    """A stage on a loop of its own; call it to have something happen there."""

    def __init__(self, on: Loop, stage: Stage) -> None:
        self.on = on
        self.stage = stage

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.stage.port}/"

    def __call__(self, act: Callable[[Stage], Any]) -> Any:
        async def acted() -> Any:
            return act(self.stage)

        return self.on(acted())


@contextmanager
def theatre(streams: list[Stream], **options: Any) -> Iterator[Theatre]:
    with running_loop() as on:

        async def build() -> Stage:
            built = Stage(streams, **options)
            await built.start()
            return built

        stage = on(build())
        try:
            yield Theatre(on, stage)
        finally:
            on(stage.close())


@pytest.fixture
def play() -> Iterator[Theatre]:
    with theatre(outside(3)) as on:
        yield on


def level(page: Page) -> str | None:
    return page.locator("body").get_attribute("data-level")


def cell(page: Page, name: str) -> Any:
    """A cell of a matrix by what it says of itself."""
    return page.locator(f"[role=gridcell][aria-label^='{name}:']")


# --- now


def test_all_states_are_shown_each_with_a_letter_and_the_verdict_is_the_worst(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url) as page:
        expect(page.locator("#verdict")).to_have_text("All 27 streams up")
        expect(page.locator("body")).to_have_attribute("data-level", "up")
        assert set(texts(page, "#outside [role=gridcell]")) == {"•"}
        play(lambda stage: stage.down(stage.streams[0], "connect_timeout"))
        play(lambda stage: stage.down(stage.streams[1], kind="frozen"))
        play(lambda stage: stage.blind(2))
        expect(page.locator("#verdict")).to_have_text("1 of 27 streams down, 1 frozen")
        expect(page.locator("body")).to_have_attribute("data-level", "down")
        expect(cell(page, "peer-1, loadbalancer http")).to_have_text("✕")
        expect(cell(page, "peer-1, loadbalancer tcp")).to_have_text("F")
        expect(cell(page, "peer-1, loadbalancer ws")).to_have_text("?")
        cell(page, "peer-1, loadbalancer http").hover()
        expect(page.locator("#tip")).to_contain_text("connect_timeout")
        expect(page.locator("#tip")).to_contain_text(re.compile(r"http down \d+ s, since \d\d:\d\d:\d\d"))
        play(lambda stage: stage.blind())
        expect(page.locator("#verdict")).to_have_text("Not observing")
        expect(page.locator("body")).to_have_attribute("data-level", "none")


def test_the_matrix_is_walked_by_keys(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url) as page:
        cell(page, "peer-1, loadbalancer http").focus()
        expect(page.locator("#tip")).to_contain_text("peer-1 by loadbalancer")
        for key, name in (
            ("ArrowRight", "peer-1, loadbalancer tcp"),
            ("ArrowDown", "peer-2, loadbalancer tcp"),
            ("End", "peer-2, route ws"),
            ("PageDown", "peer-3, route ws"),
            ("Home", "peer-3, loadbalancer http"),
        ):
            page.keyboard.press(key)
            expect(cell(page, name)).to_be_focused()
        page.keyboard.press("Enter")
        assert page.locator("select[name=target]").input_value() == "peer-3"


def test_peers_see_each_other_and_one_that_is_not_heard_is_unknown_since(browser: Browser, play: Theatre) -> None:
    names = ["node-1", "node-2", "node-10"]

    def tell(stage: Stage) -> None:
        for name in names:
            stage.peer(name, told_by(name, names))

    play(tell)
    with opened(browser, play.url) as page:
        expect(page.locator("#verdict")).to_have_text("All 45 streams up")
        assert texts(page, "#mesh .mbody .mlabel") == names  # 10 comes after 2
        play(lambda stage: stage.peer("node-2", heard=False, error="Connection refused"))
        expect(cell(page, "node-2, node-1")).to_have_text("?")
        expect(page.locator("#mesh .mlabel.noted")).to_have_attribute("title", "node-2: not heard: Connection refused")
        expect(page.locator("#peers")).to_have_text("2 of 3")
        expect(page.locator("#peers-more")).to_contain_text("node-2 not since")
        assert level(page) == "unknown"
        play(lambda stage: stage.peer("node-1", told_by("node-1", names, state="down", cause="refused")))
        expect(cell(page, "node-1, node-10")).to_have_text("✕")
        page.get_by_role("group", name="Protocol").get_by_text("tcp").click()
        cell(page, "node-1, node-10").hover()
        expect(page.locator("#tip .line")).to_have_count(1)
        page.locator("#mesh-trouble").check()
        expect(page.locator("#mesh .mbody .mlabel")).to_have_count(2)


def test_where_to_look_is_said_in_words(browser: Browser, play: Theatre) -> None:
    finding = {
        "key": "target_down",
        "sure": "likely",
        "target": "peer-1",
        "source": "",
        "since": None,
        "text": "peer-1: x",
    }
    with opened(browser, play.url) as page:
        play(lambda stage: stage.findings.append(finding))
        expect(page.locator("#look li")).to_have_text("peer-1: x")
        play(lambda stage: stage.findings.clear())
        expect(page.locator("#look li")).to_have_count(0)


# --- live


def test_fifty_changes_are_on_the_page_in_order_and_soon(browser: Browser, play: Theatre) -> None:
    watch = """() => {
      const seen = window.seen = [];
      const cell = [...document.querySelectorAll("#outside [role=gridcell]")][0];
      const changed = () => seen.push([cell.textContent, Date.now()]);
      new MutationObserver(changed).observe(cell, {childList: true, characterData: true, subtree: true});
    }"""
    with opened(browser, play.url) as page:
        expect(page.locator("#verdict")).to_have_text("All 27 streams up")
        page.evaluate(watch)
        took: list[float] = []
        for number in range(50):
            decided = time.time()
            play(lambda stage: stage.turn(0))
            wait_for(partial(page.evaluate, f"window.seen.length > {number}"), every=0.02)
            took.append(page.evaluate("window.seen.at(-1)[1]") / 1000 - decided)
        seen = [sign for sign, _ in page.evaluate("window.seen")]
        assert seen == ["✕", "•"] * 25
        expect(page.locator("#what-count")).to_have_text("25 of 25 events")
        p95 = statistics.quantiles(took, n=20)[-1]
        print(f"50 changes: p50 {statistics.median(took):.3f} s, p95 {p95:.3f} s, most {max(took):.3f} s")
        assert p95 < 10  # printed; what a slow machine takes fails nothing


def test_ten_tabs_of_one_browser_share_one_connection(browser: Browser, play: Theatre) -> None:
    """It would have six to one address, and no more."""
    with opened(browser, play.url) as page:
        expect(page.locator("#live")).to_have_text("Live")
        others = [page.context.new_page() for _ in range(9)]
        for each in others:
            each.goto(play.url)
        for each in others:
            expect(each.locator("#verdict")).to_have_text("All 27 streams up")
            expect(each.locator("#live")).to_have_text("Live")
        assert play(lambda stage: len(stage.broadcast._tabs)) == 1
        play(lambda stage: stage.turn(0))
        for each in (page, *others):
            expect(each.locator("#verdict")).to_have_text("1 of 27 streams down")
        page.goto("about:blank")  # whoever was first goes
        play(lambda stage: stage.turn(0))
        for each in others:
            expect(each.locator("#verdict")).to_have_text("All 27 streams up")


def test_a_browser_that_shares_nothing_has_a_connection_of_its_own(browser: Browser, play: Theatre) -> None:
    context = browser.new_context()
    context.add_init_script("delete globalThis.SharedWorker")
    page = context.new_page()
    page.goto(play.url)
    expect(page.locator("#verdict")).to_have_text("All 27 streams up")
    play(lambda stage: stage.turn(0))
    expect(page.locator("#verdict")).to_have_text("1 of 27 streams down")
    context.close()


class Bastions:
    """A bastion that can be ended and started again on its ports; what it probes is ours."""

    def __init__(self, folder: Path, running: list[Exporter], port: int) -> None:
        self.folder, self.running, self.target = folder, running, port
        self.bastion = self.start("127.0.0.1:0")

    def start(self, listen: str) -> Exporter:
        given = {
            **ANY_PORT,
            "--web.listen-address": listen,
            "--source": "bastion",
            "--listen.tcp": "off",
            "--listen.ws": "off",
        }
        variables = {"ROUTE_PEERS": f"http://127.0.0.1:{self.target}", "OVNWATCH_TOKEN": TOKEN}
        self.running.append(Exporter(self.folder / "bastion.log", "bastion", *flags(given), **variables))
        wait_for(self.running[-1].ready)
        return self.running[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bastion.ports['web']}/"


@pytest.fixture
def bastions(tmp_path: Path) -> Iterator[Bastions]:
    with killed_at_the_end() as running, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield Bastions(tmp_path, running, closed.getsockname()[1])


STALE_AT = """() => new MutationObserver(() => {
  if (document.body.dataset.level === "stale") window.staleAt ??= Date.now();
}).observe(document.body, {attributes: true})"""


def test_a_stopped_bastion_is_stale_within_three_seconds_and_goes_on(browser: Browser, bastions: Bastions) -> None:
    with opened(browser, bastions.url) as page:
        expect(page.locator("#live")).to_have_text("Live")
        page.evaluate(STALE_AT)
        bastions.bastion.process.send_signal(signal.SIGSTOP)
        began = time.time()
        expect(page.locator("body")).to_have_attribute("data-level", "stale")
        took = page.evaluate("window.staleAt") / 1000 - began
        print(f"stale {took:.2f} s after it was stopped")
        expect(page.locator("#verdict")).to_have_text(re.compile("Stale: nothing heard since"))
        expect(page.locator("#live")).to_have_text(re.compile("Stale since"))
        # Not by wait_for_function, which would poll by eval, and that the page forbids.
        wait_for(lambda: page.evaluate("getComputedStyle(document.getElementById('stale')).opacity === '1'"))
        bastions.bastion.process.send_signal(signal.SIGCONT)
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.locator("body")).not_to_have_attribute("data-level", "stale")
        assert took < 3 + 5  # what a busy machine adds fails nothing


def test_a_page_that_hangs_shows_itself_as_stale(browser: Browser, play: Theatre) -> None:
    """Its script is stuck: what shows then is CSS alone."""
    with opened(browser, play.url) as page:
        expect(page.locator("#live")).to_have_text("Live")
        animation = "document.getElementById('stale').getAnimations()[0]"
        wait_for(lambda: page.evaluate(f"Boolean({animation})"))
        timing = page.evaluate(f"{animation}.effect.getComputedTiming().endTime")
        assert timing <= 3000
        assert page.evaluate("getComputedStyle(document.getElementById('stale')).opacity") == "0"
        page.evaluate("() => { for (const end = Date.now() + 3500; Date.now() < end;); }")


def test_a_page_finds_back_to_a_bastion_that_was_started_again(browser: Browser, bastions: Bastions) -> None:
    with opened(browser, bastions.url, faults=False) as page:  # the browser says that nobody answered
        expect(page.locator("#live")).to_have_text("Live")
        before = page.evaluate("performance.now()")
        listen = f"127.0.0.1:{bastions.bastion.ports['web']}"
        bastions.bastion.end(signal.SIGKILL)
        expect(page.locator("#live")).to_have_text(re.compile("Stale since"))
        bastions.bastion = bastions.start(listen)
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.locator("#what-count")).to_contain_text("events")
        expect(page.locator(".hbody .word.gap").first).to_be_visible()  # the restart
        assert page.evaluate("performance.now()") > before  # it was never loaded anew


# --- what people do


def fill(page: Page, button: str, send: str, token: str = TOKEN, **fields: str) -> None:
    page.get_by_role("button", name=button).click()
    for name, value in fields.items():
        page.locator(f"#act [name={name}]").fill(value)
    if page.locator("#act [name=token]").count():
        page.locator("#act [name=token]").fill(token)
    page.locator("#act").get_by_role("button", name=send).click()


def test_a_window_a_note_and_a_clearing_with_the_token_asked_once(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url) as page:
        play(lambda stage: stage.down(stage.streams[0]))
        play(lambda stage: stage.up(stage.streams[0]))
        expect(page.locator("#what-count")).to_have_text("1 of 1 events")
        fill(page, "Start window", "Start", name="node-3 reboots", budget="60")
        expect(page.get_by_role("button", name="End window")).to_be_visible()
        expect(page.locator("#spent-name")).to_have_text("Out since “node-3 reboots” began")
        expect(page.locator("#spent")).to_contain_text("of 60 s")
        expect(page.locator("#budget")).to_be_visible()
        fill(page, "Add note", "Add", text="drained <b>now</b>")
        expect(page.locator(".axis .note title")).to_contain_text("drained <b>now</b>")
        assert page.locator("#act [name=token]").count() == 0
        fill(page, "End window", "End")
        expect(page.get_by_role("button", name="Start window")).to_be_visible()
        fill(page, "Clear", "Clear")
        expect(page.locator("#what-count")).to_have_text("0 of 1 events")
        expect(page.locator("#history .empty")).to_have_text(re.compile(r"Cleared at .* what is counted begins there"))
        page.get_by_label("cleared, too").check()
        expect(page.locator("#what-count")).to_have_text("1 of 1 events")
        kinds = [each["text"] for each in play(lambda stage: list(stage.marks.items.values())) if "text" in each]
        assert kinds == ["drained <b>now</b>", "node-3 reboots"] or sorted(kinds) == [
            "drained <b>now</b>",
            "node-3 reboots",
        ]
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_wrong_token_is_told_and_asked_anew(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url, faults=False) as page:  # the browser tells of the 401
        fill(page, "Start window", "Start", token="wrong", name="a")
        expect(page.locator("#act .said")).to_have_text("The bastion takes another token.")
        page.locator("#act [name=token]").fill(TOKEN)
        page.locator("#act").get_by_role("button", name="Start").click()
        expect(page.get_by_role("button", name="End window")).to_be_visible()


def test_without_a_token_the_page_is_read_only(browser: Browser) -> None:
    with theatre(outside(1), token=None) as play, opened(browser, play.url) as page:
        expect(page.locator("#verdict")).to_have_text("All 9 streams up")
        for name in ("Start window", "Add note", "Clear"):
            expect(page.get_by_role("button", name=name)).to_be_disabled()


# --- what happened


def events(play: Theatre) -> None:
    """Three outages by different paths and causes, one of them open."""
    for number, cause in ((0, "refused"), (4, "connect_timeout"), (8, "tls")):
        play(partial(Stage.turn, number=number, cause=cause))
    for number in (0, 4):
        play(partial(Stage.turn, number=number))


def test_the_history_is_filtered_counts_and_tells_all_of_an_event(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url) as page:
        events(play)
        expect(page.locator("#what-count")).to_have_text("3 of 3 events, 1 open")
        rows = page.locator(".hbody [role=row]")
        expect(rows.first).to_contain_text("so far")
        before = rows.first.inner_text()
        wait_for(lambda: rows.first.inner_text() != before)  # it counts
        for name, value, count in (("cause", "refused", 1), ("path", "nodeport", 1), ("protocol", "ws", 1)):
            page.locator(f"select[name={name}]").select_option(value)
            expect(page.locator("#what-count")).to_contain_text(f"{count} of 3 events")
            page.locator("#filters").get_by_role("button", name="All").click()
        page.locator("input[name=longer]").fill("1000")
        expect(page.locator("#what-count")).to_have_text("0 of 3 events")
        page.locator("#filters").get_by_role("button", name="All").click()
        page.locator("select[name=cause]").select_option("refused")
        rows.first.press("Enter")
        detail = page.locator("#detail")
        expect(detail).to_contain_text("between")
        expect(detail).to_contain_text(re.compile("refused 1."))
        found = detail.get_by_role("link").get_attribute("href") or ""
        assert re.fullmatch(
            r"https://grafana\.example\.com/d/ovnwatch-connectivity/connectivity\?from=\d{13}&to=\d{13}", found
        )
        page.keyboard.press("Escape")
        expect(detail).to_be_hidden()


def test_a_gap_stands_where_its_length_begins(browser: Browser, play: Theatre) -> None:
    """Its row had the middle of when it may have begun, with the length from the earliest."""
    end = time.time() - 10
    play(lambda stage: stage.record.gap("restart", end - 30, end, slack=20.0))
    with opened(browser, play.url) as page:
        row = page.locator(".hbody [role=row]")
        expect(row.locator(".h2")).to_have_text(re.compile(r"30\.0 s \(10\.00.30\.00\)"))
        begins = page.evaluate("(at) => new Date(at).toTimeString().slice(0, 8)", 1000 * (end - 30))
        expect(row.locator(".h1")).to_contain_text(begins)


def test_what_is_shown_is_exported(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url) as page:
        events(play)
        expect(page.locator("#what-count")).to_have_text("3 of 3 events, 1 open")
        page.locator("select[name=kind]").select_option("outage")
        with page.expect_download() as taken:
            page.get_by_role("button", name="CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(taken.value.path()).read_text())))
        assert rows[0]["cause"] == "tls"  # which is open; the others began at one time, or nearly
        assert sorted(each["cause"] for each in rows[1:]) == ["connect_timeout", "refused"]
        assert rows[1]["start_earliest"] >= rows[2]["start_earliest"]
        assert all(float(each["lower_seconds"]) <= float(each["upper_seconds"]) for each in rows)
        with page.expect_download() as taken:
            page.get_by_role("button", name="JSON").click()
        found = json.loads(Path(taken.value.path()).read_text())
        assert [each["target"] for each in found] == ["peer-1"] * 3


def test_phases_have_lanes_of_their_own_above_the_others(browser: Browser, play: Theatre) -> None:
    more = {"text": "<b>reboot</b>", "node": "node-2", "state": "open", "end_time": None}
    play(lambda stage: stage.record.note("phase", "manual", time.time() - 60, time.time() - 60, more))
    restart = {"text": "restart of ovs-vswitchd", "node": "node-2"}
    play(lambda stage: stage.record.note("phase", "event", time.time() - 30, time.time() - 29, restart))
    play(lambda stage: stage.down(stage.streams[0]))
    with opened(browser, play.url) as page:
        expect(page.locator(".lane .tlabel").first).to_have_text("phase of node-2")
        assert "bad" not in (page.locator(".lane .tlabel").first.get_attribute("class") or "")
        expect(page.locator(".lane .ev.phase")).to_have_count(2)
        expect(page.locator(".hrow", has_text="restart of ovs-vswitchd")).to_contain_text("node-2")
        expect(page.locator(".hrow", has_text="<b>reboot</b>")).to_have_count(1)
        expect(page.locator("#verdict")).to_have_text("1 of 27 streams down")
        page.locator(".lane .wname").first.click()
        expect(page.locator("#detail")).to_contain_text("phase: node-2")
        expect(page.locator("#detail")).to_contain_text("<b>reboot</b>")


def test_the_timeline_shows_bounds_zooms_and_opens_an_outage(browser: Browser, play: Theatre) -> None:
    with opened(browser, play.url) as page:
        events(play)
        page.locator("#when").scroll_into_view_if_needed()
        expect(page.locator(".lane")).to_have_count(3)
        expect(page.locator(".lane .tlabel").first).to_have_text("bastion-1 → peer-1 route/ws")  # it is open
        wide = page.locator(".lane").first.locator(".ev").first
        for _ in range(6):
            page.get_by_role("button", name="Zoom in").click()
        expect(page.locator(".lane [mask='url(#fade-in)']").first).to_be_attached()
        page.locator("#when-lanes").get_by_text("paths").click()
        expect(page.locator(".lane .tlabel").first).to_have_text("bastion-1 → peer-1 route")
        wide.dispatch_event("click")  # it is drawn anew while it grows, maybe between a look and a click
        expect(page.locator("#detail")).to_contain_text("outage: bastion-1 → peer-1")


ON_AXIS = """() => [...document.querySelectorAll(".axis text")].map((text) => {
  const box = text.getBoundingClientRect(), axis = text.closest("svg").getBoundingClientRect();
  return [text.getAttribute("class"), box.left - axis.left, box.right - axis.left, axis.width];
})"""


def test_what_stands_on_the_axis_is_whole_and_apart(browser: Browser, play: Theatre) -> None:
    now = time.time()
    for number, ago in enumerate((800, 500, 480, 470, 200, 30, 2)):
        note = NewNote(text=f"worker-{number} drained")
        play(partial(Stage.note, note=note, at=now - ago))
    play(lambda stage: stage.down(stage.streams[0]))
    with opened(browser, play.url) as page:
        expect(page.locator(".axis path.note")).to_have_count(7)
        for _ in range(3):
            found = page.evaluate(ON_AXIS)
            for kind in ("note", "time"):
                texts = sorted((left, right) for each, left, right, _ in found if each == kind)
                assert texts, kind
                assert all(left >= -1 and right <= found[0][3] + 1 for left, right in texts), texts
                assert all(before[1] <= after[0] for before, after in pairwise(texts)), texts
            page.get_by_role("button", name="Zoom out").click()


# --- strangers


HOSTILE = "<img src=x onerror=alert(1)>"


def test_nothing_a_peer_says_becomes_markup(browser: Browser, play: Theatre) -> None:
    names = [HOSTILE, "</script><script>alert(2)</script>", "=1+1", "\u202eevil", "a" * 250]

    def tell(stage: Stage) -> None:
        for name in names[:2]:
            stage.peer(name, told_by(name, names, state="down", cause=HOSTILE))
        stage.peer("gone", heard=False, error=HOSTILE)
        stage.findings.append(
            {"key": "k", "sure": "x", "target": HOSTILE, "source": "", "since": None, "text": HOSTILE}
        )
        stage.down(stage.streams[0], HOSTILE)  # a cause that none of ours has

    play(tell)
    with opened(browser, play.url) as page:
        expect(page.locator("#look li")).to_contain_text(HOSTILE)
        expect(page.locator("#mesh .mbody .mlabel").first).to_be_visible()
        expect(page.locator(".hbody [role=row]").first).to_contain_text(HOSTILE)
        page.locator("#mesh .cell.down").first.hover()
        page.locator(".hbody [role=row]").first.click()
        expect(page.locator("#detail")).to_contain_text(HOSTILE)
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("script").count() == 1
        assert page.evaluate("document.querySelectorAll('[onerror], [style*=expression]').length") == 0


# --- for everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, play: Theatre, scheme: str) -> None:
    play(lambda stage: [stage.peer(name, told_by(name, ["a", "b"])) for name in ("a", "b")])
    with opened(browser, play.url, scheme=scheme) as page:
        events(play)
        expect(page.locator("#what-count")).to_have_text("3 of 3 events, 1 open")
        page.get_by_role("button", name="Start window").click()
        dialog = Axe().run(page)
        page.keyboard.press("Escape")
        page.locator(".hbody [role=row]").first.click()
        detail = Axe().run(page)
        page.keyboard.press("Escape")
        for found in (dialog, detail, Axe().run(page)):
            assert found.violations_count == 0, found.generate_report()


def night(stage: Stage) -> None:
    """Something to look at: a migration night as it may be."""
    names = [f"peer-{number}" for number in range(1, 13)]
    for name in names:
        stage.peer(name, told_by(name, names))
    stage.peer("peer-4", told_by("peer-4", names, state="down", cause="connect_timeout"))
    stage.peer("peer-9", heard=False, error="Connection refused")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_screenshots(browser: Browser, scheme: str, name: str, size: tuple[int, int]) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    with theatre(outside(12)) as play:
        play(night)
        with opened(browser, play.url, size, scheme) as page:
            fill(page, "Start window", "Start", name="OVN upgrade, workers", budget="60")
            events(play)
            fill(page, "Add note", "Add", text="worker-3 drained")
            expect(page.locator("#what-count")).to_contain_text("1 open")
            expect(page.locator("#mesh .cell.down").first).to_be_visible()
            width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert width[0] <= width[1]  # nothing to the right of the screen
            page.screenshot(path=BUILD / f"{name}-{scheme}.png", full_page=name == "phone")
            assert (BUILD / f"{name}-{scheme}.png").stat().st_size > 10_000


CUT = """() => [...document.querySelectorAll(".hbody .h2, .hbody .h3, .hbody .h4, .legend, .legend > span")]
  .filter((each) => {
    const box = each.getBoundingClientRect();
    const wide = each.clientWidth && each.scrollWidth > each.clientWidth + 1;
    const high = each.clientHeight && each.scrollHeight > each.clientHeight + 1;
    return wide || high || box.left < 0 || box.right > innerWidth;
  }).map((each) => each.textContent)"""
HEIGHTS = "[...document.querySelectorAll('.hbody .hrow')].map((row) => [row.scrollHeight, row.clientHeight])"


def test_a_phone_shows_the_whole_of_who_and_how_long(browser: Browser) -> None:
    long = [
        replace(each, target="worker-5.migration.example.com", source="bastion-1.example.com")
        for each in outside(1, paths=1)
    ]
    with theatre(long) as play, opened(browser, play.url, PHONE) as page:
        play(lambda stage: stage.turn(0, "connect_timeout"))
        play(lambda stage: stage.turn(0))
        play(lambda stage: stage.record.gap("restart", time.time() - 4000, time.time(), slack=20.0))
        expect(page.locator(".hbody [role=row]")).to_have_count(2)
        expect(page.locator(".hbody .h3").last).to_be_visible()
        assert page.evaluate(CUT) == []
        rows = page.evaluate(HEIGHTS)
        assert all(needed <= there for needed, there in rows), rows


# --- what it costs


@contextmanager
def staged(*sizes: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, HERE / "stage.py", *map(str, sizes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


SCROLL = """async (selector) => {
  const box = document.querySelector(selector), times = [];
  await new Promise((done) => {
    let step = 0;
    const turn = (at) => {
      times.push(at);
      box.scrollTop = (box.scrollHeight - box.clientHeight) * Math.abs(Math.sin(step / 40));
      if (++step < 150) requestAnimationFrame(turn); else done();
    };
    requestAnimationFrame(turn);
  });
  const frames = (times.length - 1) / (times.at(-1) - times[0]) * 1000;
  return [frames, box.scrollHeight, box.querySelectorAll("[role=row]").length];
}"""


def test_large_matrices_scroll(browser: Browser) -> None:
    """60 targets by 3 paths and 3 protocols, 40 peers that see each other over 3; changes come meanwhile."""
    with staged(60, 3, 40) as (process, port), opened(browser, f"http://127.0.0.1:{port}/") as page:
        expect(page.locator("#verdict")).to_have_text("All 5220 streams up")
        assert process.stdin
        process.stdin.write("churn 10\n")
        process.stdin.flush()
        for selector in ("#outside .scroller", "#mesh .scroller"):
            frames, height, rows = page.evaluate(SCROLL, selector)
            print(f"{selector}: {frames:.0f} frames/s, {height} pixels high, {rows} rows are there")
            assert rows < 60
            assert frames > 1  # printed; how many there are is the machine's doing


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def tabs(port: int, count: int, seconds: float, pid: int) -> tuple[float, int]:
    """The share of a core that a process takes while so many watch, and the bytes that they were sent."""
    got = 0

    async def watch() -> None:
        nonlocal got
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            while data := await reader.read(1 << 20):
                got += len(data)
        finally:
            writer.close()

    watching = [asyncio.create_task(watch()) for _ in range(count)]
    if count:
        await asyncio.sleep(2)  # until all were told everything
    before, began, had = cpu(pid), time.monotonic(), got
    await asyncio.sleep(seconds)
    share = (cpu(pid) - before) / (time.monotonic() - began)
    for each in watching:
        each.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return share, got - had


def test_twenty_tabs_cost_little() -> None:
    with staged(60, 3, 40) as (process, port):
        assert process.stdin
        for churn in (0, 5):
            process.stdin.write(f"churn {churn}\n")
            process.stdin.flush()
            with running_loop() as on:  # this thread has one of Playwright's
                alone, _ = on(tabs(port, 0, 3, process.pid))
                watched, sent = on(tabs(port, 20, 3, process.pid))
            cost = watched - alone
            print(f"{churn} changes/s: 20 tabs cost {cost:.1%} of a core, {sent / 60:.0f} bytes/s each")
            assert sent > 0
            assert cost < 0.5  # printed; a busy machine fails nothing
