"""How values look, the same on all boards: units, the colours and words of states, and thresholds as Grafana's steps.

Colours are from Okabe and Ito's palette, which people with the common colour deficiencies tell apart; and where a
colour says something, a word says it, too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from exporters.catalog import Threshold

GREEN, BLUE, ORANGE, VERMILION, PURPLE = "#009E73", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7"
LIGHT_GREY, GREY, DARK_GREY = "#B8B8B8", "#8C8C8C", "#606060"
SEVERITIES = {"info": BLUE, "warning": ORANGE, "critical": VERMILION}
# A unit of the catalogue (and one for rates) -> Grafana's name of it. Timestamps are in milliseconds there.
UNITS = {
    "seconds": "s",
    "timestamp": "dateTimeAsIso",
    "moment": "dateTimeAsIsoNoDateIfToday",  # a timestamp that is mostly of today
    "ratio": "percentunit",
    "bytes": "bytes",
    "bit rate": "bps",
    "byte rate": "Bps",
    "count": "short",
    "state": "none",
    "none": "none",
    "per second": "eps",
}
# Where an axis ends at least, so that nothing but zeros is not drawn below a hundred.
LEAST_TOP = {"count": 1, "ratio": 0.01, "per second": 0.1, "seconds": 0.001}
NO_VALUE = "no data"
ABOVE_ZERO = 1e-9  # Grafana's steps include their value, but `> 0` does not include 0


class State(NamedTuple):
    """What a stream is in, as a number for queries; of several the highest is what to look at first."""

    code: int
    text: str
    colour: str


UP = State(1, "up", GREEN)
NO_DATA = State(2, NO_VALUE, LIGHT_GREY)
UNKNOWN = State(3, "unknown", GREY)
NOT_OBSERVED = State(4, "not observed", DARK_GREY)
INTERRUPTED = State(5, "interrupted", ORANGE)
NOT_ANSWERING = State(6, "frozen or broken", PURPLE)
DOWN = State(7, "down", VERMILION)
STATES = (UP, NO_DATA, UNKNOWN, NOT_OBSERVED, INTERRUPTED, NOT_ANSWERING, DOWN)


class Word(NamedTuple):
    """What a value is called, and its colour."""

    value: float
    text: str
    colour: str


# Words for gauges of two values, and for what is only there while it is so.
UP_DOWN = (Word(1, "up", GREEN), Word(0, "down", VERMILION))
YES_NO = (Word(1, "yes", GREEN), Word(0, "no", ORANGE))
IS_SO = (Word(1, "yes", BLUE),)


def words(said: Sequence[Word]) -> list[dict[str, Any]]:
    """Value mappings from values to their words and colours."""
    options = {f"{each.value:g}": {"color": each.colour, "index": n, "text": each.text} for n, each in enumerate(said)}
    return [{"type": "value", "options": options}, missing()]


def missing(text: str = NO_VALUE, colour: str = LIGHT_GREY) -> dict[str, Any]:
    """A value mapping: what is not there is said in grey. Without it Grafana would take the colour of the best step."""
    return {
        "type": "special",
        "options": {"match": "null+nan", "result": {"color": colour, "index": len(STATES), "text": text}},
    }


def not_probed() -> dict[str, Any]:
    """A value mapping for a place where no series is because nobody probes it: that is neither known nor unknown."""
    return missing("-", "transparent")


def state_mappings() -> list[dict[str, Any]]:
    """Value mappings from each state's code to its word and colour."""
    return words([Word(state.code, state.text, state.colour) for state in STATES])


def bad_above_zero(colour: str) -> list[dict[str, Any]]:
    """Value mappings for a count of something that should not be: 0 is well, any more is `colour`."""
    return [
        {"type": "value", "options": {"0": {"color": GREEN, "index": 0, "text": "0"}}},
        {"type": "range", "options": {"from": ABOVE_ZERO, "to": 1e12, "result": {"color": colour, "index": 1}}},
        missing(),
    ]


def bad_below_zero() -> list[dict[str, Any]]:
    """Value mappings for what is left of something: below 0 it is spent."""
    return [
        {"type": "range", "options": {"from": -1e12, "to": -ABOVE_ZERO, "result": {"color": VERMILION, "index": 0}}},
        {"type": "range", "options": {"from": 0, "to": 1e12, "result": {"color": GREEN, "index": 1}}},
        missing(),
    ]


def steps(threshold: Threshold | None) -> list[dict[str, Any]]:
    """Grafana's steps of a threshold, the lowest first: each colour begins at its value, the first has none (null)."""
    if threshold is None:
        return [{"color": GREEN, "value": None}]
    limits = [(SEVERITIES[severity], limit) for severity, limit in threshold.limits.items()]
    if threshold.compare.startswith(">"):
        return _climbing(GREEN, [(colour, _edge(limit, threshold.compare)) for colour, limit in limits])
    # Below the worst limit is its colour; from each limit on, that of the next better one.
    colours = [GREEN, *(colour for colour, _ in limits)]
    better = [(colours[n], limit) for n, (_, limit) in enumerate(limits)]
    return _climbing(colours[-1], better[::-1])


def _climbing(base: str, above: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"color": base, "value": None}, *({"color": colour, "value": value} for colour, value in above)]


def _edge(limit: float, compare: str) -> float:
    return ABOVE_ZERO if compare == ">" and limit == 0 else limit
