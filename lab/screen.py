"""What the demo shows: plain lines that read well on 100 columns, with or without a terminal; colour only on one."""

import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from exporters.settings import Stream
from lab import alarms
from lab.alarms import AlarmRow
from lab.judge import Entry, Row
from lab.monitoring import Notice
from lab.script import Step, Way

WIDTH = 98
INDENT = " " * 17
COLOURS = {"bad": "31", "good": "32", "alert": "33", "look": "36", "head": "1", "": ""}


class Screen:
    """Prints lines, each with the seconds since the start and a word on what it is about."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._start = time.monotonic()

    def event(self, word: str, text: str, tone: str = "") -> None:
        """A line of the log."""
        head = f"[{time.monotonic() - self._start:6.1f}s] {word:<6} "
        lines = textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=INDENT, break_long_words=False)
        self.block(lines, tone)

    def block(self, lines: Iterable[str], tone: str = "") -> None:
        """Lines as they are."""
        for line in lines:
            self._out.write(f"\x1b[{COLOURS[tone]}m{line}\x1b[0m\n" if self._colour and COLOURS[tone] else f"{line}\n")
        self._out.flush()


def coloured(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Is colour wanted there?"""
    return out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def step_text(number: int, of: int, step: Step) -> str:
    return f"{number}/{of}: {step.done}. It should look like {step.look}."


def who(streams: Iterable[tuple[Way, str]]) -> str:
    """Ways and protocols in few letters, those of one way together: `a>b http tcp ws, bastion>b-lb tcp`."""
    ways: dict[str, list[str]] = {}
    for way, protocol in streams:
        ways.setdefault(str(way), []).append(protocol)
    return ", ".join(f"{way} {' '.join(sorted(protocols))}" for way, protocols in sorted(ways.items()))


def entry_lines(entries: Sequence[Entry], streams: Mapping[str, Stream]) -> list[tuple[str, str, str]]:
    """(word, text, tone) for entries that opened or closed since the last look; like ones share a line."""
    alike: dict[tuple[str, str], list[Entry]] = {}
    for each in entries:
        alike.setdefault(("open" if each.end_latest is None else each.kind, each.cause), []).append(each)
    lines = []
    for (kind, cause), those in alike.items():
        whose = who(
            (Way(each.source, each.target, each.path), each.protocol) for each in (streams[one.stream] for one in those)
        )
        if kind == "open":
            lines.append(("down", f"{whose}: {cause}", "bad"))
            continue
        low, high = min(each.lower for each in those), max(each.upper for each in those)
        middle = sorted(each.estimate for each in those)[len(those) // 2]
        lines.append(("up", f"{whose}: {kind} of {middle:.2f} s ({low:.2f} to {high:.2f}), {cause}", "good"))
    return lines


def notice_lines(told: Sequence[Notice]) -> list[tuple[str, str, str]]:
    """(word, text, tone) for alerts that arrived together; those of one name share a line."""
    alike: dict[tuple[str, str, str], list[Notice]] = {}
    for each in told:
        alike.setdefault((each.name, each.severity, each.status), []).append(each)
    lines = []
    for (alert, severity, status), those in alike.items():
        whose = _whose([each.labels for each in those])
        if status == "firing":
            text = next((f". {each.text}" for each in those if each.text), "")
            lines.append(("alert", f"{alert} ({severity}) {whose}{text}", "alert"))
        else:
            lines.append(("alert", f"{alert} ({severity}) is over: {whose}", "good"))
    return lines


def _whose(labels: Sequence[Mapping[str, str]]) -> str:
    """What alerts are about: streams, or what a pattern's have of source, target and path."""
    streams = [each for each in labels if alarms.LABELS[-1] in each]
    if streams:
        return who((Way(each["source"], each["target"], each["path"]), each["protocol"]) for each in streams)
    return ", ".join(sorted(alarms.about(each).replace("|", " ") for each in labels)) or "all"


# --- at the end

HEAD = "  # injected                true s  proto  seen held   lower estimate   upper   width   error  delay"


def table(rows: Sequence[Row]) -> list[str]:
    """Injected against measured, a line for each interruption and protocol."""
    lines = [HEAD, "-" * len(HEAD)]
    number, outside = 0, False
    for row in rows:
        first = row.number != number
        number = row.number
        title = row.title if first else "  from outside" if row.outside and not outside else ""
        outside = row.outside
        head = f"{row.number if first else '':>3} {title:<22}"
        lines.append(f"{head} {_true(row):>7}  {row.protocol:<5} {_seen(row):>5} {_measured(row)}")
    return [
        *lines,
        "",
        "Seconds. true: at least. Of the streams of one protocol: least lower, median estimate, greatest",
        "upper bound, width, delay until noticed, and error (of the estimate, to the nearest true length).",
        "from outside: the bastion's streams, by LoadBalancer, NodePort and Route.",
        "seen: of the streams hit; * not all of them had to: shorter than an interval, or no connection kept.",
        "+ relay or peer did not run for a moment just before or after, which made it longer than meant.",
    ]


def _true(row: Row) -> str:
    return "at once" if row.expectation == "break" and row.true < 0.1 else f"{row.true:.3f}"


def _seen(row: Row) -> str:
    return f"{row.seen}/{row.streams}{'' if row.must == row.streams else '*'}"


def _measured(row: Row) -> str:
    if not row.seen:
        return f"{'-':>4} {'-':>7} {'-':>8} {'-':>7} {'-':>7} {'-':>7} {'-':>6}"
    held = ("yes" if row.held == row.seen else "NO") + ("+" if row.disturbed else "")
    error = "-" if row.error is None else f"{row.error:+.3f}"
    return (
        f"{held:>4} {row.lower:7.3f} {row.estimate:8.3f} {row.upper:7.3f} {row.width:7.3f} {error:>7} {row.delay:6.3f}"
    )


def alarm_table(rows: Sequence[AlarmRow]) -> list[str]:
    """The alerts that had to fire, and did."""
    head = f"{'alert':<28} {'due':>4} {'fired':>6} {'delay':>7} {'latest':>7}"
    lines = [head, "-" * len(head)]
    for row in rows:
        times = [f"{'-':>7}" if each is None else f"{each:6.1f}s" for each in (row.delay, row.latest)]
        lines.append(f"{row.name:<28} {row.must:>4} {row.fired:>6} {' '.join(times)}")
    return [
        *lines,
        "",
        "due, fired: for how many streams. delay: from the interruption (OvnwatchOutageEnded: from its end)",
        "until the receiver had the alert, median and latest.",
    ]


def reasons(title: str, texts: Sequence[str], most: int) -> list[str]:
    """A list under its title, cut after `most`."""
    if not texts:
        return []
    more = [f"  and {len(texts) - most} more"] if len(texts) > most else []
    return [title, *(line for text in texts[:most] for line in _hanging(text)), *more, ""]


def _hanging(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
