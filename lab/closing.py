"""The demo's end: wait for what is still to come, hold all that was found against what was made, say it."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

from alerts.report.build import Window, report
from alerts.report.forms import short
from exporters import catalog
from exporters.history.source import SourceError
from exporters.verdict.budget import Limits
from exporters.verdict.coverage import Span
from lab import alarms, board, judge, patterns, screen, story
from lab.alarms import AlarmRow
from lab.judge import Injected, Judgement
from lab.plant import SCALE_FOR, Plant, until
from lab.relays import LOCAL
from lab.screen import Screen

CLOSING_SECONDS = 20.0  # for the last entries and alerts to come
OPEN_SECONDS = 60.0  # more, where a starved machine has not closed all that is open
TROUBLE = "measuring goes on, events wait in memory"  # an exporter's log, when its disk takes nothing
LISTED, EXAMPLES = 20, 4  # lines of what was wrong, and of what was not
THRESHOLDS = catalog.load().thresholds
LIMITS = {name: min(each.limits.values()) for name, each in THRESHOLDS.items()}
WAITS = {name: each.for_seconds * SCALE_FOR for name, each in THRESHOLDS.items()}


class Found(NamedTuple):
    """What was found: what was wrong, and what is missing and may yet come."""

    verdict: Judgement
    alerts: list[AlarmRow]
    troubled: list[str]  # exporters whose journal had to wait for its disk
    heard: int  # entries of peers of which the bastion has heard
    queries: int  # of the dashboard
    wrong: list[str]
    missing: list[str]


async def close(plant: Plant, show: Screen, made: Sequence[Injected], begun: float, window: float) -> bool:
    """Wait for what is still to come, print the verdict and a report; True if it passes.

    begun: monotonic, when scrapes began; window: Unix time, from which the report is about.
    """
    found = await settled(lambda: _find(plant, made, begun), show)
    _tell(show, found)
    await _write(plant, made)
    reported = await _report(plant, show, window)
    return reported and not found.wrong + found.missing


async def settled(find: Callable[[], Awaitable[Found]], show: Screen) -> Found:
    """What is found once all has come, or it has been waited for long enough."""
    found = await find()

    async def complete() -> bool:
        nonlocal found
        found = await find()
        return not found.missing

    async def over() -> bool:
        return await complete() or not found.verdict.open

    show.event("wait", f"for the last entries and alerts, at most {CLOSING_SECONDS:.0f} s")
    if not await until(complete, CLOSING_SECONDS) and found.verdict.open:
        show.event("wait", f"for what is not over yet, at most {OPEN_SECONDS:.0f} s")
        await until(over, OPEN_SECONDS)
    return found


async def _report(plant: Plant, show: Screen, window: float) -> bool:
    """What `ovnwatch report` says of it, in short."""
    urls = [f"http://{LOCAL}:{each.book}" for each in plant.exporters.values()]
    try:
        said = await asyncio.to_thread(story.read, urls)
    except SourceError as error:
        show.block(["", f"FAIL: the report: {error}"], "bad")
        return False
    found = report(said, Window("the demo", Span(window, time.time())), Limits())
    show.block(["", "The report, in short. Nobody marked a phase, so nothing explains what was interrupted:"], "head")
    show.block([f"  {line}" for line in short(found).splitlines()])
    return True


async def _find(plant: Plant, made: Sequence[Injected], begun: float) -> Found:
    seen, streams = plant.seen, plant.streams
    shown = patterns.causes(made, streams)
    troubled = [name for name, each in plant.exporters.items() if each.child and each.child.said(TROUBLE)]
    may = alarms.justified(seen.entries.values(), made, LIMITS, troubled) | shown.keys()
    ordered = alarms.due(made, streams, LIMITS) | patterns.due(made, streams, WAITS)
    must = ordered & may  # what was not recorded is the verdict's, not the alerts'
    verdict = judge.judge(made, seen.entries.values(), streams, await plant.relays.held())
    heard, unheard = await _heard(plant, made)
    missing = [*verdict.missing, *alarms.missing(seen.fired, seen.over, must), *unheard]
    queries, empty = 0, ["the dashboard was not asked"]
    if not missing:
        queries, empty = await board.unanswered(plant.session, plant.prometheus, int(time.monotonic() - begun))
    return Found(
        verdict,
        alarms.rows(made, seen.fired, must, shown),
        troubled,
        heard,
        queries,
        [*verdict.wrong, *patterns.misnamed(made, seen.looks), *alarms.faults(seen.fired, may)],
        missing + [f"dashboard: {each} finds nothing" for each in empty],
    )


async def _heard(plant: Plant, made: Sequence[Injected]) -> tuple[int, list[str]]:
    """Of how many of the peers' entries the bastion has heard, and which are missing; a killed peer's may be."""
    answer = await plant.get(plant.bastion, "/api/data")
    heard = {item["id"] for item in answer["history"]} if answer else set()
    killed = {each.killed for each in made}
    told = [each for each in plant.seen.entries.values() if plant.streams[each.stream].source != plant.bastion.name]
    missing = [
        f"the bastion has not heard of what {judge.name(plant.streams[each.stream])} recorded"
        for each in told
        if each.id not in heard and plant.streams[each.stream].source not in killed
    ]
    return sum(each.id in heard for each in told), missing


def _tell(show: Screen, found: Found) -> None:
    verdict = found.verdict
    show.block(["", *screen.table(verdict.rows), ""])
    show.block([*screen.alarm_table(found.alerts), ""])
    busy = f"Rightly recorded too, {len(verdict.explained)} times: a busy machine held up relay or peer for as long."
    show.block(screen.reasons(busy, verdict.explained, EXAMPLES))
    if found.troubled:
        show.block([f"This machine's disk kept journals waiting: {', '.join(found.troubled)}. That may alert."])
    reasons = [*found.wrong, *found.missing]
    show.block(screen.reasons("Wrong:", reasons, LISTED), "bad")
    held, entries = sum(row.held for row in verdict.rows), sum(row.seen for row in verdict.rows)
    told = f"{held} of {entries} measurements held"
    if reasons:
        show.block([f"FAIL: {told}, {len(reasons)} reasons above"], "bad")
        return
    show.block(
        [
            f"The bastion heard of {found.heard} entries of the peers, and named what it had to name rightly.",
            f"All {found.queries} queries of the dashboard found something.",
            f"PASS: {told}, no other event, every alert arrived",
        ],
        "good",
    )


async def _write(plant: Plant, made: Sequence[Injected]) -> None:
    """Put what was judged into the folder, for whoever keeps it."""
    found = {
        "made": [asdict(each) for each in made],
        "entries": [each._asdict() for each in plant.seen.entries.values()],
        "held": await plant.relays.held(),
        "looks": plant.seen.looks,
    }
    (plant.children.folder / "judged.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
