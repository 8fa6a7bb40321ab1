"""What a stream promises, held against a table of what was measured. Pure.

T is a stream's interval, R its prompt limit. Of every fault and protocol, in rows whose truth is known:
1. An interruption of at least T is seen, every time; a frozen peer from T + R on. T here is T + TICK: a probe may leave
   so long after its grid point before that is a stall. Time in which the prober itself stalled does not count: that is
   a gap, and told as one; what is left must then hold a whole probe and its verdict, R more. Where a path is slow, its
   deadline more: what the next heartbeat has TCP send again is answered within that.
2. Bounds hold the truth in 99 of 100: [lower, upper] the duration, and the intervals of start and end the edges.
3. They are at most 2 T + 50 ms apart in the median, for a frozen peer R more.
4. Detected within T + R + 20 ms at the 95th percentile. Nothing is subtracted on a loaded machine, but where the
   probers stalled for more than STALLED of the time a late detection is not judged: it is neither pass nor fail. Nor
   is it, or a width, where streams found their path slow (p99.9 above R/2): they say so, and their deadline is not R.
5. What is lost, rejected or refused is right on average: the mean of all errors, those of the unseen too, is at most
   5 % of T or 10 ms, and what chance allows: 2.6 standard errors, which it exceeds once in a hundred times.
6. Nothing is seen that was not there. A peer that answered one question late for BRIEF was there, on a busy machine.
7. What nothing was due for was not put to the test: where none of a cell was long enough, or of none the truth is
   known, that is neither pass nor fail.

A break of established connections is promised only when that is what a stream has: http has none. One that drops
packets is known as a break only when its first retransmission was lost too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from exporters.calibrate.judge import Event, Row, Table, mean, middle
from exporters.probing.stall import GAP

TICK = GAP
RETRANSMITTED = 0.3  # seconds after which a lost heartbeat has been sent again, and lost again if the flow is gone
BRIEF = 0.3  # seconds
NOT_ENOUGH = "interrupt for longer, or more often"
BUSY = 0.01  # of all rows: more than that is no chance
STALLED = 0.01
TRUE = 0.99
WIDTH, DELAY = 0.05, 0.02  # seconds beyond 2 T, and T + R
BIAS_SHARE, BIAS_LEAST, CHANCE = 0.05, 0.01, 2.6

# Whose truth is known sharply and whose estimate is promised to be right on average.
UNBIASED = frozenset({"drop_both", "drop_to_server", "drop_to_client", "reject_reset", "reject_icmp", "refuse"})


class Times(NamedTuple):
    """T and R of a stream, seconds."""

    interval: float
    prompt: float


class Broken(NamedTuple):
    """A promise that was not kept."""

    promise: Literal["seen", "bounds", "edges", "width", "detection", "bias", "false", "known"]
    protocol: str
    fault: str  # empty: outside of any
    measured: float
    limit: float
    text: str
    not_judged: str = ""  # why, where it could not be judged

    @property
    def judged(self) -> bool:
        return not self.not_judged


def due(row: Row, times: Times) -> bool:
    """Whether the stream promised to see it."""
    injection = row.injection
    if injection.expectation == "break":
        instant = injection.start == injection.end
        long_enough = instant or injection.shortest >= times.interval + RETRANSMITTED
        return row.protocol != "http" and not row.stalls and long_enough
    more = times.prompt if injection.expectation == "frozen" or row.stalls else 0.0
    if row.slow:
        more = row.deadline
    return row.watched >= times.interval + TICK + more


def busy(event: Event) -> bool:
    """Whether it is a peer that was slow once."""
    return bool(event["kind"] == "frozen" and event["duration"]["upper"] < BRIEF)


def broken(table: Table, times: Mapping[str, Times], stalled: float) -> list[Broken]:
    """What was not kept, by fault and protocol; `stalled`: the share of the time in which the probers did not run."""
    found: list[Broken] = []
    if not any(row.known for row in table.rows):
        return [Broken("known", "", "", 0, 1, "the truth of nothing is known", NOT_ENOUGH), *_false(table)]
    for (fault, protocol), rows in table.by(lambda row: (row.injection.kind, row.protocol)).items():
        known = [row for row in rows if row.known]
        for promise in PROMISES:
            for word, measured, limit, text in promise(fault, known, times[protocol]):
                reason = _excuse(word, known, stalled)
                found.append(Broken(word, protocol, fault, measured, limit, text, reason))
        if _promised(rows, protocol) and not any(due(row, times[protocol]) for row in known):
            found.append(Broken("known", protocol, fault, 0, 1, "none had to be seen", NOT_ENOUGH))
    return found + list(_false(table))


def _promised(rows: Sequence[Row], protocol: str) -> bool:
    """Whether there is something that a stream of that protocol promises of the fault: http has no flow to break."""
    return protocol != "http" or any(row.injection.expectation != "break" for row in rows)


def _excuse(word: str, rows: Sequence[Row], stalled: float) -> str:
    if word == "detection" and stalled > STALLED:
        return f"machine stalled {100 * stalled:.1f} % of the time"
    if word in ("detection", "width") and any(row.slow for row in rows):
        return "paths were slow"
    return ""


Shortfall = tuple[Literal["seen", "bounds", "edges", "width", "detection", "bias"], float, float, str]


def _seen(_fault: str, rows: Sequence[Row], times: Times) -> Iterator[Shortfall]:
    asked = [row for row in rows if due(row, times)]
    missed = [row for row in asked if not row.seen]
    if missed:
        longest = max(row.injection.shortest for row in missed)
        count = f"{len(missed)} of {len(asked)} not seen, the longest of {longest:.3f} s"
        yield "seen", 1 - len(missed) / len(asked), 1.0, count


def _bounds(_fault: str, rows: Sequence[Row], _times: Times) -> Iterator[Shortfall]:
    seen = [row for row in rows if row.seen]
    held, edges = sum(row.held for row in seen), sum(row.edges for row in seen)
    if held < TRUE * len(seen):
        yield "bounds", held / len(seen), TRUE, f"bounds hold the duration in {held} of {len(seen)}"
    if edges < TRUE * len(seen):
        yield "edges", edges / len(seen), TRUE, f"bounds hold start and end in {edges} of {len(seen)}"


def _width(_fault: str, rows: Sequence[Row], times: Times) -> Iterator[Shortfall]:
    widths = middle([row.width for row in rows if row.seen and row.closed and row.injection.expectation != "break"])
    if widths is not None:
        frozen = rows[0].injection.expectation == "frozen"
        limit = 2 * times.interval + WIDTH + (times.prompt if frozen else 0.0)
        if widths[0] > limit:
            yield "width", widths[0], limit, f"bounds are {_ms(widths[0])} apart in the median, not {_ms(limit)}"


def _detection(_fault: str, rows: Sequence[Row], times: Times) -> Iterator[Shortfall]:
    lasting = [row for row in rows if row.injection.expectation != "break" or row.injection.start == row.injection.end]
    delays = middle([row.delay for row in lasting if row.seen and due(row, times)])
    limit = times.interval + times.prompt + DELAY
    if delays is not None and delays[1] > limit:
        yield "detection", delays[1], limit, f"detected after {_ms(delays[1])} at the 95th percentile, not {_ms(limit)}"


def _bias(fault: str, rows: Sequence[Row], times: Times) -> Iterator[Shortfall]:
    found = mean([row.error for row in rows]) if fault in UNBIASED else None
    if found is not None:
        limit = max(BIAS_SHARE * times.interval, BIAS_LEAST) + CHANCE * found[1]
        if abs(found[0]) > limit:
            yield "bias", found[0], limit, f"off by {found[0] * 1e3:+.0f} ms on average, not {_ms(limit)}"


PROMISES: tuple[Callable[[str, Sequence[Row], Times], Iterator[Shortfall]], ...] = (
    _seen,
    _bounds,
    _width,
    _detection,
    _bias,
)


def _false(table: Table) -> Iterator[Broken]:
    slow = [each for each in table.false if busy(each)]
    unasked = [each for each in table.false if not busy(each)]
    if len(slow) > BUSY * len(table.rows):
        unasked += slow
    for protocol in sorted({_protocol(each) for each in unasked}):
        mine = [each for each in unasked if _protocol(each) == protocol]
        kinds = ", ".join(sorted({str(each["kind"]) for each in mine}))
        yield Broken("false", protocol, "", len(mine), 0, f"{len(mine)} seen that was not there: {kinds}")


def _protocol(event: Event) -> str:
    return str(event["stream"]).split("|")[3]


def verdict(found: Iterable[Broken]) -> Literal["pass", "fail", "inconclusive"]:
    """`fail` if a promise was broken, `inconclusive` if one could not be judged."""
    judged = {each.judged for each in found}
    if True in judged:
        return "fail"
    return "inconclusive" if judged else "pass"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"
