"""Which alerts had to fire for what was injected, which may for what was recorded, and how late were they? Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from exporters.calibrate.injection import Expectation
from exporters.settings import Stream
from lab.judge import Entry, Injected, must_see, shortest


class Alarm(NamedTuple):
    """An alert and what it is about: a stream's key; b, b|route or a|b|pod for a pattern; "" is none in particular."""

    name: str
    about: str


class Duty(NamedTuple):
    """An alert that an interruption fires, and what it takes."""

    name: str
    limited: bool  # it must outlast the least limit of the alert's threshold
    lasting: bool  # it fires only while the interruption lasts
    since_end: bool  # its delay counts from the interruption's end


class AlarmRow(NamedTuple):
    """One alert's name: for how many streams it had to fire, for how many it did, how late (median, most; seconds)."""

    name: str
    must: int
    fired: int
    delay: float | None
    latest: float | None


WATCHDOG = Alarm("OvnwatchWatchdog", "")
PAGE = "OvnwatchStreamDown"
NOTICE_SECONDS = 3.0  # scrape, evaluation and delivery take up to a second each on a machine that is not busy
DUTIES: dict[Expectation, tuple[Duty, ...]] = {
    "path": (
        Duty(PAGE, limited=True, lasting=True, since_end=False),
        Duty("OvnwatchOutageEnded", limited=False, lasting=False, since_end=True),
    ),
    "frozen": (Duty("OvnwatchPeerFrozen", limited=True, lasting=False, since_end=False),),
    "break": (Duty("OvnwatchConnectionsBreaking", limited=False, lasting=False, since_end=False),),
}
LABELS = ("source", "target", "path", "protocol", "family")
GONE = Alarm("OvnwatchExporterDown", "")
DISK = "OvnwatchJournalFailing"
BOOKS: dict[str, Expectation] = {"outage": "path", "blip": "path", "frozen": "frozen", "break": "break"}


def about(labels: Mapping[str, str]) -> str:
    """What an alert with these labels is about."""
    return "|".join(labels[each] for each in LABELS if each in labels)


def due(made: Sequence[Injected], streams: Mapping[str, Stream], limits: Mapping[str, float]) -> set[Alarm]:
    """The alerts that had to fire. limits: alert -> the least limit of its threshold, seconds for those used here."""
    alarms = {WATCHDOG}
    for injected in made:
        for key, truth in injected.truths.items():
            stream = streams[key]
            if not must_see(injected.expectation, stream, shortest(truth)):
                continue
            for duty in DUTIES[injected.expectation]:
                least = limits[duty.name] + stream.interval + stream.prompt if duty.limited else 0.0
                if shortest(truth) >= least + (NOTICE_SECONDS if duty.lasting else 0.0):
                    alarms.add(Alarm(duty.name, key))
    return alarms


def justified(
    history: Iterable[Entry], made: Iterable[Injected], limits: Mapping[str, float], troubled: Iterable[str] = ()
) -> set[Alarm]:
    """The alerts of streams that may fire for what these recorded, and those of exporters for what was made.

    troubled: the exporters that said that their journal's disk hangs; nobody makes it, and a busy machine's may.
    """
    alarms = {WATCHDOG, GONE} if any(each.killed for each in made) else {WATCHDOG}
    alarms |= {Alarm(DISK, each) for each in troubled}
    for each in history:
        for duty in DUTIES[BOOKS[each.kind]]:
            # Seconds of a frozen peer are counted for two minutes, so several short ones add up.
            if not duty.limited or not duty.lasting or each.upper >= limits[duty.name]:
                alarms.add(Alarm(duty.name, each.stream))
    return alarms


def faults(fired: Iterable[Alarm], may: Iterable[Alarm]) -> list[str]:
    """Alerts that should not have fired."""
    return [f"{_told(alarm)} fired without a cause" for alarm in sorted(set(fired) - set(may))]


def missing(fired: Iterable[Alarm], over: Iterable[Alarm], must: Iterable[Alarm]) -> list[str]:
    """Alerts that should have fired, and those that should be over by now: the ones that page."""
    silent = [f"{_told(alarm)} did not fire" for alarm in sorted(set(must) - set(fired))]
    pages = {alarm for alarm in (*fired, *must) if alarm.name == PAGE}
    return silent + [f"{_told(alarm)} is not over" for alarm in sorted(pages - set(over))]


def _told(alarm: Alarm) -> str:
    return f"{alarm.name} for {alarm.about}" if alarm.about else alarm.name


def rows(
    made: Sequence[Injected],
    fired: Mapping[Alarm, Sequence[float]],
    must: set[Alarm],
    patterns: Mapping[Alarm, Sequence[float]],
) -> list[AlarmRow]:
    """A line for each alert. fired: when each alarm arrived; patterns: what began when that one shows; monotonic."""
    result = []
    for alert in sorted({alarm.name for alarm in (*must, *fired)}):
        those = [alarm for alarm in fired if alarm.name == alert]
        delays = [
            delay for alarm in those for delay in _delays(patterns.get(alarm) or _edges(made, alarm), fired[alarm])
        ]
        middle = median(delays) if delays else None
        due_for = sum(alarm.name == alert for alarm in must)
        result.append(AlarmRow(alert, due_for, len(those), middle, max(delays, default=None)))
    return result


def _edges(made: Sequence[Injected], alarm: Alarm) -> list[float]:
    """When what fires an alarm of a stream began, or ended."""
    return [
        injected.truths[alarm.about][duty.since_end].before
        for injected in made
        if alarm.about in injected.truths
        for duty in DUTIES[injected.expectation]
        if duty.name == alarm.name
    ]


def _delays(edges: Iterable[float], arrived: Sequence[float]) -> Iterator[float]:
    """Seconds from the last edge that can have caused an alarm to its arrival."""
    for at in arrived:
        if before := [edge for edge in edges if edge <= at]:
            yield at - max(before)
