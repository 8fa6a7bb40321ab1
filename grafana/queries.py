"""The PromQL that boards share: the state of streams, and what counters gained, over the range and step by step.

1. A stream is the same stream after its exporter was restarted in another pod, so every query brings its series
   together `by` the labels that make a stream (and `cluster`); any other label would split it for no visible reason.
2. What is not known is not shown: a target never reached has lost no seconds that anybody counted, and shows none.
3. Counters over the range are read by increase(). Steps of a graph are subtracted instead: increase() sees nothing in a
   step shorter than two scrapes, and between two scrapes 30 s apart it makes up to 10 s of an outage of 5 s.
4. An outage may keep Prometheus from the exporter, too. What was counted meanwhile belongs to the step in which it is
   first scraped again, if that took no longer than BRIDGED.
"""

from grafana import looks
from grafana.looks import State

BRIDGED = "15m"
STREAM = "cluster, source, target, path, protocol, family"
SOURCE = '{cluster=~"$cluster",source=~"$source"}'
WAY = '{cluster=~"$cluster",source=~"$source",path=~"$path",protocol=~"$protocol"}'  # of metrics without a target
TARGET = '{cluster=~"$cluster",target=~"$target"}'
ANY = '{cluster=~"$cluster",source=~"$source",target=~"$target",path=~"$path",protocol=~"$protocol"}'

OBSERVED = f"ovnwatch_observed_seconds_total{ANY}"
REACHED = f"ovnwatch_last_success_timestamp_seconds{ANY}"  # there once the target answered
OPEN = f"ovnwatch_outage_open{ANY}"
UP = f"ovnwatch_stream_up{ANY}"
WATCHED = f"ovnwatch_stream_observed{ANY}"


def streams(expr: str, function: str = "sum") -> str:
    """One value a stream; `expr` has those of all its exporters' lives."""
    return f"{function} by ({STREAM}) ({expr})"


def now(metric: str) -> str:
    """A gauge, one value a stream."""
    return streams(f"{metric}{ANY}", "max")


def measured(metric: str) -> str:
    """What a counter gained in the range, one value a stream that was answered once and observed in the range."""
    return streams(f"increase({metric}{ANY}[$__range]) and {_known_in_range()}")


def bound(side: str) -> str:
    """Outage seconds of the range, `side` lower or upper, one value a stream; of an open outage as it stands now."""
    return streams(f"{_bound(side)} and {_known_in_range()}")


def estimate() -> str:
    """Outage seconds of the range, one value a stream; the counter of an open outage may lag behind its lower bound."""
    counted = f"increase(ovnwatch_outage_seconds_total{ANY}[$__range])"
    return streams(f"({_bound('lower')} > {counted} or {counted}) and {_known_in_range()}")


def _bound(side: str) -> str:
    ended = f"increase(ovnwatch_outage_seconds_{side}_total{ANY}[$__range])"
    going = f"(clamp_max(ovnwatch_last_outage_{side}_seconds{ANY}, $__range_s) and {OPEN} == 1)"
    return f"({ended} + {going} or {ended})"


def covered() -> str:
    """The share of the range that was observed, one value a stream that was answered once."""
    return f"clamp_max({streams(f'increase({OBSERVED}[$__range]) and {_reached_in_range()}')} / $__range_s, 1)"


def _known_in_range() -> str:
    return f"increase({OBSERVED}[$__range]) > 0 and {_reached_in_range()}"


def _reached_in_range() -> str:
    return f"last_over_time({REACHED}[$__range])"


def step(metric: str) -> str:
    """What a counter gained since the step before, one value a series; a restart of its exporter leaves a hole."""
    return f"({metric}{ANY} - last_over_time({metric}{ANY}[{BRIDGED}] offset $__interval) >= 0)"


def measured_step(metric: str) -> str:
    """As `step`, where the stream was observed in that step and had been answered before."""
    return f"{step(metric)} and {step(metric)} + {step('ovnwatch_observed_seconds_total')} > 0 and {REACHED}"


def state_now() -> str:
    """The code of each stream's state; those that were there in the range and are not any more have no data."""
    gone = streams(f"last_over_time({WATCHED}[$__range])", "max")
    return f"({_states()}\nor {_is(looks.NO_DATA, gone)})"


def state_over_time() -> str:
    """The code of each stream's state in each step, also when it was over before the step's end."""
    lost = f"{step('ovnwatch_outage_seconds_total')} > 0"
    broken = " or ".join(
        f"{step(metric)} > 0"
        for metric in ("ovnwatch_peer_frozen_seconds_total", "ovnwatch_connection_break_seconds_total")
    )
    return _states(_is(looks.INTERRUPTED, lost), _is(looks.NOT_ANSWERING, broken))


def state_of_targets() -> str:
    """The worst state of any source's streams to each target in each step, from what rules recorded: cheap on any site.

    An outage that is over shows for the two minutes after it.
    """
    interrupted = _is(looks.INTERRUPTED, f"target:ovnwatch_outage_seconds:increase2m{TARGET} > 0")
    recorded = f"target:ovnwatch_stream_state:max{TARGET}"
    down = f"{recorded} >= {looks.NOT_ANSWERING.code}"
    return f"max by (cluster, target) ({down} or {interrupted} or {recorded})"


def quantile(part: float, metric: str, labels: str, selector: str) -> str:
    """A quantile of a histogram by these labels."""
    return f"histogram_quantile({part}, sum by ({labels}, le) (rate({metric}_bucket{selector}[$__rate_interval])))"


def _states(*passing: str) -> str:
    """The first that holds: what is not known comes before what is down, and `passing` before what is well by now."""
    found = (
        _is(looks.UNKNOWN, f"{WATCHED} unless {UP}"),
        _is(looks.NOT_OBSERVED, f"{WATCHED} == 0"),
        _is(looks.DOWN, f"{OPEN} == 1"),
        *passing,
        _is(looks.NOT_ANSWERING, f"{UP} == 0"),
        _is(looks.UP, f"{UP} == 1"),
    )
    return streams("\n  " + "\n  or ".join(found) + "\n", "max")


def _is(state: State, condition: str) -> str:
    return f"({condition}) * 0 + {state.code}"
