"""The PromQL that boards share: the state of streams, and what counters gained, over the range and step by step.

1. A stream is the same stream after its exporter was restarted in another pod, so every query brings its series
   together `by` the labels that make a stream (and `cluster`); any other label would split it for no visible reason.
2. What is not known is not shown: a target never reached has lost no seconds that anybody counted, and shows none.
   A value of 0 is of a stream that is observed now and was reached once: that costs a look at what is now, and not one
   through all of the range.
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
ENDS = '{cluster=~"$cluster",target=~"$target",path=~"$path",protocol=~"$protocol"}'  # of what all sources see
PATHS = '{cluster=~"$cluster",path=~"$path",protocol=~"$protocol"}'
ANY = '{cluster=~"$cluster",source=~"$source",target=~"$target",path=~"$path",protocol=~"$protocol"}'

ROUND_TRIPS = f"path_protocol:ovnwatch_probe_duration_seconds_bucket:rate2m{PATHS}"
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
    """What a counter gained in the range, one value a stream: of those that lost anything, and of quiet ones."""
    return f"({streams(f'increase({metric}{ANY}[$__range]) > 0')} or {_quiet()})"


def bound(side: str) -> str:
    """Outage seconds of the range, `side` lower or upper, one value a stream; of an open outage as it stands now."""
    return f"({lost(side)} or {_quiet()})"


def lost(side: str) -> str:
    """The same of those streams alone that lost anything."""
    ended = f"increase(ovnwatch_outage_seconds_{side}_total{ANY}[$__range]) > 0"
    going = f"clamp_max(ovnwatch_last_outage_{side}_seconds{ANY}, $__range_s) and {OPEN} == 1"
    return streams(f"{ended} or {_apart(going)}")


def estimate() -> str:
    """Outage seconds of the range, one value a stream; the counter of an open outage may lag behind its lower bound."""
    return streams(f"{measured('ovnwatch_outage_seconds_total')} or {_apart(lost('lower'))}", "max")


def covered() -> str:
    """The share of the range that was observed, one value a stream; none of one that was never answered so far."""
    never = streams(f"{WATCHED} unless {REACHED}", "max")
    return f"clamp_max(({observed()} unless {never} or {streams(REACHED, 'max')} * 0) / $__range_s, 1)"


def observed() -> str:
    """Seconds of the range that were observed, one value a stream; none of a stream that was not."""
    return streams(f"increase({OBSERVED}[$__range]) > 0")


def _quiet() -> str:
    """0 for each stream that is observed and was answered once: it has a value although it gained nothing."""
    return f"{streams(f'{REACHED} and {WATCHED} == 1', 'max')} * 0"


def _apart(expr: str) -> str:
    """Series that stand beside others of the same labels, until they are brought together."""
    return f'label_replace({expr}, "beside", "1", "", "")'


def step(metric: str) -> str:
    """What a counter gained since the step before, one value a series; a restart of its exporter leaves a hole."""
    return f"({metric}{ANY} - last_over_time({metric}{ANY}[{BRIDGED}] offset $__interval) >= 0)"


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


def of_one_source(expr: str) -> str:
    """Of the one source that is chosen as observer: what would take too long of all streams of a large site."""
    return expr.replace('source=~"$source"', 'source=~"$observer"')


def state_of_targets() -> str:
    """The worst state of any source's streams to each target in each step, from what rules recorded: cheap on any site.

    An outage that is over shows for the two minutes after it.
    """
    return _recorded_state(
        f"target:ovnwatch_stream_state:max{TARGET}", f"target:ovnwatch_outage_seconds:increase2m{TARGET}"
    )


def state_by_path() -> str:
    """The same, by the paths and protocols that are chosen."""
    return _recorded_state(
        f"target_path_protocol:ovnwatch_stream_state:max{ENDS}",
        f"target_path_protocol:ovnwatch_outage_seconds:rate2m{ENDS}",
    )


def _recorded_state(state: str, lost: str) -> str:
    down = f"{state} >= {looks.NOT_ANSWERING.code}"
    return f"max by (cluster, target) ({down} or {_is(looks.INTERRUPTED, f'{lost} > 0')} or {state})"


def share(what: str, labels: str) -> str:
    """The share of two minutes that was lost, of the worst source, from what rules recorded: outage, break, frozen."""
    return f"max by (cluster, {labels}) (target_path_protocol:ovnwatch_{what}_seconds:rate2m{ENDS})"


def quantile(part: float, metric: str, labels: str, selector: str) -> str:
    """A quantile of a histogram by these labels."""
    return f"histogram_quantile({part}, sum by ({labels}, le) (rate({metric}_bucket{selector}[$__rate_interval])))"


def round_trip(part: float, labels: str, ago: str = "") -> str:
    """A quantile of all sources' round trips by these labels, from what rules recorded; `ago`: an offset."""
    return f"histogram_quantile({part}, sum by ({labels}, le) ({ROUND_TRIPS}{ago}))"


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
