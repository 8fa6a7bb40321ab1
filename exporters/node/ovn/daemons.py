"""What ovn-controller and ovn-northd tell alike: stopwatches, the incremental engine, states of one word.

Statistics for 'flow-generation'                  stopwatch/show: a block for each, in whole or parts of a unit
  Total samples: 312
  Maximum: 51 msec
  Minimum: 0 msec
  95th percentile: 2.873872 msec
  Short term average: 0.375004 msec
  Long term average: 1.605210 msec

Node: runtime_data                                inc-engine/show-stats: a block for each
- recompute:           12
- compute:             24
- abort:                5                         "cancel" since OVN 23.09
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row, named

FLAGS = re.MULTILINE | re.ASCII
UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "nsec": 1e-9}
STOPWATCH = re.compile(r"^Statistics for '([\w.-]{1,64})'$", FLAGS)
SAMPLES = re.compile(r"^\s+Total samples: (\d{1,20})$", FLAGS)
TIME = re.compile(r"^\s+([A-Za-z0-9 ]{1,30}): (\d{1,20}(?:\.\d{1,20})?) ([mun]?sec)$", FLAGS)
TIMES = {
    "Maximum": "ovnwatch_ovn_stopwatch_most_seconds",
    "95th percentile": "ovnwatch_ovn_stopwatch_percentile95_seconds",
    "Short term average": "ovnwatch_ovn_stopwatch_short_average_seconds",
    "Long term average": "ovnwatch_ovn_stopwatch_long_average_seconds",
}
NODE = re.compile(r"^Node: (\w{1,64})$", FLAGS)
RUNS = re.compile(r"^- (recompute|compute|abort|cancel): +(\d{1,20})$", FLAGS)
# What only reads a table of a database: it is recomputed in each turn, and says nothing.
INPUT = re.compile(r"(?:SB|NB|OVS)_")
MOST = 500  # stopwatches or nodes
CONNECTED = {"connected": True, "not connected": False}
NORTHD_STATES = ("active", "standby", "paused")


class Stopwatch(NamedTuple):
    """One stopwatch: how often it ran, and its times in seconds, by the daemon's own words."""

    samples: int
    times: Mapping[str, float]


def stopwatches(text: str) -> dict[str, Stopwatch]:
    """By name; none for a daemon that has none. Raises GarbledError."""
    return {name: _stopwatch(name, block) for name, block in _blocks(STOPWATCH, text, "stopwatch/show")}


def _stopwatch(name: str, text: str) -> Stopwatch:
    samples = SAMPLES.search(text)
    times = {what: float(value) * UNITS[unit] for what, value, unit in TIME.findall(text)}
    if not samples or not times.keys() >= TIMES.keys():
        raise GarbledError(f"stopwatch/show lacks something of {name}")
    return Stopwatch(int(samples[1]), times)


def engine(text: str) -> dict[str, dict[str, int]]:
    """How often each node of the engine was recomputed, computed and cancelled. Raises GarbledError."""
    found = {}
    for name, block in _blocks(NODE, text, "inc-engine/show-stats"):
        runs = {{"abort": "cancel"}.get(what, what): int(count) for what, count in RUNS.findall(block)}
        if runs.keys() != {"recompute", "compute", "cancel"}:
            raise GarbledError(f"inc-engine/show-stats lacks something of {name}")
        found[name] = runs
    return found


def _blocks(head: re.Pattern[str], text: str, what: str) -> Iterator[tuple[str, str]]:
    before, *parts = head.split(text)
    if before.strip() or len(parts) > 2 * MOST:
        raise GarbledError(f"{what} is not what it should be")
    return zip(parts[::2], parts[1::2], strict=True)


def connected(text: str) -> bool:
    """Raises GarbledError for what is neither `connected` nor `not connected`."""
    found = CONNECTED.get(text.strip())
    if found is None:
        raise GarbledError("a daemon does not say whether it is connected")
    return found


def northd_state(text: str) -> str:
    """`Status: standby` -> standby. Raises GarbledError."""
    found = text.strip().removeprefix("Status: ")
    if found not in NORTHD_STATES:
        raise GarbledError("ovn-northd does not say what it does")
    return found


def northd_rows(state: str) -> Iterator[Row]:
    for each in NORTHD_STATES:
        yield Row("ovnwatch_ovn_northd_state", (each,), each == state)


def stopwatch_rows(daemon: str, found: Mapping[str, Stopwatch]) -> Iterator[Row]:
    for name, each in found.items():
        yield Row("ovnwatch_ovn_stopwatch_samples_total", (daemon, name), each.samples)
        if each.samples:  # else its zeros are no times
            yield from named({metric: each.times[what] for what, metric in TIMES.items()}, (daemon, name))


def engine_rows(daemon: str, found: Mapping[str, Mapping[str, int]]) -> Iterator[Row]:
    for name, runs in found.items():
        if not INPUT.match(name):
            for run, count in runs.items():
                yield Row("ovnwatch_ovn_engine_runs_total", (daemon, name, run), count)
