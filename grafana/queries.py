"""The PromQL that boards share: the state of streams, and what counters gained, over the range and step by step.

1. A stream is the same stream after its exporter was restarted in another pod, so every query brings its series
   together `by` the labels that make a stream (and `cluster`); any other label would split it for no visible reason.
2. What is not known is not shown: a target never reached has lost no seconds that anybody counted, and shows none.
   A value of 0 is of a stream that is observed now and was reached once, where rules record what is lost.
3. What streams lost over the range rules have recorded, minute by minute, of those that lost anything: to read all
   counters of a large site over hours takes Prometheus seconds. Nothing is extrapolated; it is as of the last minute.
4. Steps of a graph are subtracted: increase() sees nothing in a step shorter than two scrapes, and between two scrapes
   30 s apart it makes up to 10 s of an outage of 5 s.
5. An outage may keep Prometheus from the exporter, too. What was counted meanwhile belongs to the step in which it is
   first scraped again, if that took no longer than BRIDGED; for rules, if it took no longer than an hour.
"""

from grafana import looks
from grafana.looks import State

BRIDGED = "15m"
STREAM = "cluster, source, target, path, protocol, family"
STREAM_LEVEL = "source_target_path_protocol_family"  # of what rules record of each stream
SOURCE = '{cluster=~"$cluster",source=~"$source"}'
TARGET = '{cluster=~"$cluster",target=~"$target"}'
ENDS = '{cluster=~"$cluster",target=~"$target",path=~"$path",protocol=~"$protocol"}'  # of what all sources see
PATHS = '{cluster=~"$cluster",path=~"$path",protocol=~"$protocol"}'
ANY = '{cluster=~"$cluster",source=~"$source",target=~"$target",path=~"$path",protocol=~"$protocol"}'

ROUND_TRIPS = f"path_protocol:ovnwatch_probe_duration_seconds_bucket:rate2m{PATHS}"
FAILURES = f"path_protocol_cause:ovnwatch_probe_failures:rate2m{PATHS}"
OPEN = f"ovnwatch_outage_open{ANY}"
STATE = f"ovnwatch_stream_state{ANY}"
KNOWN = f"({STATE} != {looks.UNKNOWN.code} != {looks.NOT_OBSERVED.code})"
READ = 'max(:ovnwatch_streams_read:count{cluster=~"$cluster"})'  # there where rules record what is lost
OBSERVED = f"target_path_protocol:ovnwatch_observed_seconds:gained{ENDS}"
# Targets that are observed now and were reached once, by whatever source.
SEEN = f"(target_path_protocol:ovnwatch_observed_seconds:rate2m{ENDS} > 0)"
# Streams that were there in the range; what was gone for a minute may be back.
GONE = f"last_over_time({STREAM_LEVEL}:ovnwatch_stream_state:gone{ANY}[$__range])"


def streams(expr: str, function: str = "sum") -> str:
    """One value a stream; `expr` has those of all its exporters' lives."""
    return f"{function} by ({STREAM}) ({expr})"


def now(metric: str) -> str:
    """A gauge, one value a stream."""
    return now_of(f"{metric}{ANY}")


def now_of(expr: str) -> str:
    """The greatest of what a stream's exporters say, one value a stream."""
    return streams(expr, "max")


def measured(counter: str) -> str:
    """What a counter (without its `_total`) gained in the range, one value a stream; of those alone that gained."""
    return streams(_gained(counter))


def at_least() -> str:
    """Outage seconds of the range at least, one value a stream; of an open outage as it stands now."""
    return measured("ovnwatch_outage_seconds_lower")


def at_most() -> str:
    """The same at most."""
    return measured("ovnwatch_outage_seconds_upper")


def about() -> str:
    """Outage seconds of the range, one value a stream; less where some of an outage looked like a frozen peer first."""
    return measured("ovnwatch_outage_seconds")


def about_at_worst() -> str:
    """The same of the worst stream, no less than at least."""
    each = (f'label_replace(max({expr}), "beside", "{n}", "", "")' for n, expr in enumerate((about(), at_least())))
    return f"max({' or '.join(each)})"


def worst(lost: str) -> str:
    """The worst of streams that lost anything; 0 where none did and somebody looks.

    The edge of a range may cut off what an outage was taken for, and leave the correction.
    """
    return f"(clamp_min(max({lost}), 0) or {quiet()})"


def all_of(gained: str) -> str:
    """What all streams gained together; 0 where none did and somebody looks."""
    return f"(sum({gained}) or {quiet()})"


def quiet() -> str:
    """0 where any of the streams is observed and was reached once, and rules record what is lost."""
    return f"max({KNOWN}) * 0 and on () {READ}"


def covered(*labels: str) -> str:
    """The share of the range in which each target was observed, by the source that saw it best; of what answered once.

    One value for each set of values of the labels besides `target`, those of the way that was observed best.
    """
    by = ", ".join(("cluster", "target", *labels))
    return f"max by ({by}) (clamp_max(sum_over_time({OBSERVED}[$__range]) / $__range_s, 1))"


def _gained(counter: str) -> str:
    return f"sum_over_time({STREAM_LEVEL}:{counter}:gained{ANY}[$__range])"


def step(metric: str) -> str:
    """What a counter gained since the step before, one value a series; a restart of its exporter leaves a hole."""
    return f"({metric}{ANY} - last_over_time({metric}{ANY}[{BRIDGED}] offset $__interval) >= 0)"


def state_now(labels: str) -> str:
    """The code of the worst state of the streams that have these labels; no data where all are gone."""
    by = f"max by ({labels})"
    return f"({by} ({STATE})\nor {_is(looks.NO_DATA, f'{by} ({GONE})')})"


def all_states() -> str:
    """The code of each stream's state, for each of its exporters; no data of those that are gone."""
    return f"{STATE}\nor {_is(looks.NO_DATA, f'{GONE} unless on ({STREAM}) {STATE}')}"


def state_over_time() -> str:
    """The code of each stream's state in each step, also when it was over before the step's end."""
    lost = f"{step('ovnwatch_outage_seconds_total')} > 0"
    broken = " or ".join(
        f"{step(metric)} > 0"
        for metric in ("ovnwatch_peer_frozen_seconds_total", "ovnwatch_connection_break_seconds_total")
    )
    # What is not known comes before what was out, and that before what is well by now.
    first = " or ".join(f"{STATE} == {state.code}" for state in (looks.UNKNOWN, looks.NOT_OBSERVED, looks.DOWN))
    passing = f"{_is(looks.INTERRUPTED, lost)} or {_is(looks.NOT_ANSWERING, broken)}"
    return now_of(f"{first} or {passing} or {STATE}")


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


def round_trip(part: float, labels: str, ago: str = "") -> str:
    """A quantile of all sources' round trips by these labels, from what rules recorded; `ago`: an offset."""
    return f"histogram_quantile({part}, sum by ({labels}, le) ({ROUND_TRIPS}{ago}))"


def at_node(expr: str) -> str:
    """The most of what is told of targets, by the nodes that they were on in the range."""
    target = f"max by (cluster, target) ({expr})"
    info = f"target_target_node:ovnwatch_stream_info:max{TARGET}"
    node = f"max by (cluster, target, target_node) (last_over_time({info}[$__range]))"
    joined = f"{node} * on (cluster, target) group_left () {target}"  # sources may tell two nodes of one
    return f'max by (cluster, k8s_node) (label_join({joined}, "k8s_node", "", "target_node"))'


def _is(state: State, condition: str) -> str:
    return f"({condition}) * 0 + {state.code}"
