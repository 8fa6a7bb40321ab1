"""The record as metrics. To add one of a stream: an entry in metrics.yaml, and a line in PER_STREAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from exporters.exposition import Labels, Table
from exporters.probing.offset import Offset
from exporters.probing.outage import Event
from exporters.probing.saved import Last
from exporters.probing.stats import Stats

if TYPE_CHECKING:
    from exporters.probing.record import Record

TRIES = 3


def collect(record: Record) -> Iterator[Metric]:
    """All families; safe to call from another thread (counts may be a probe apart from each other)."""
    now = monotonic()
    everyone = list(record.stats.values())
    # First of all, and together: an outage that ends while the page is made must not be in it twice, or not at all.
    events = {stats.spec.key: _moment(stats, now) for stats in list(record.troubled)}
    for name, read in PER_STREAM.items():
        metric = record.catalog.metric(name)
        yield Table(name, metric.help, metric.kind, partial(_rows, everyone, read, events, now))
    yield _info(record, everyone)
    seen = record.surveyed()
    yield from _clocks(record, seen.offsets)
    yield from _by_shape(record)
    yield from _of_ourselves(record, seen.coverage)


class Moment(NamedTuple):
    """What is known of a stream at one time of which something is not over, or not told apart yet."""

    event: Event | None
    lower: float
    upper: float


def _moment(stats: Stats, now: float) -> Moment:
    for _ in range(TRIES):  # the loop may finish an event while we look
        bounds = stats.lower_seconds, stats.upper_seconds
        unfinished = stats.unfinished(now)
        if bounds == (stats.lower_seconds, stats.upper_seconds):
            break
    still_open = (event for event in unfinished if event.end_latest is None)
    return Moment(next(still_open, unfinished[-1] if unfinished else None), *bounds)


@dataclass(slots=True)
class Survey:
    """What is asked of all streams, one by one."""

    at: float = -inf  # monotonic, when the last was asked
    offsets: dict[str, Offset] = field(default_factory=dict)  # by target that tells its time: who knows best
    coverage: dict[str, float] = field(default_factory=dict)  # by path, of the stream that was observed least

    def add(self, stats: Stats) -> None:
        """Ask this one, too."""
        self.at = monotonic()
        target, path = stats.spec.target, stats.spec.path
        known = self.offsets.get(target)
        if stats.offset.error < (known.error if known else inf):
            self.offsets[target] = stats.offset
        share = stats.coverage(self.at)
        if share is not None:
            self.coverage[path] = min(share, self.coverage.get(path, 1.0))


def _family(record: Record, name: str) -> CounterMetricFamily | GaugeMetricFamily:
    metric = record.catalog.metric(name)
    if metric.kind == "counter":
        return CounterMetricFamily(name, metric.help, labels=metric.labels)
    return GaugeMetricFamily(name, metric.help, labels=metric.labels)


def _info(record: Record, everyone: Sequence[Stats]) -> Metric:
    metric = record.catalog.metric("ovnwatch_stream_info")
    ours = record.identity
    return Table("ovnwatch_stream_info", metric.help, "info", lambda: ((stats.ends(ours), 1.0) for stats in everyone))


def _by_shape(record: Record) -> Iterator[Metric]:
    failures = _family(record, "ovnwatch_probe_failures_total")
    unknown = _family(record, "ovnwatch_probe_unknown_total")
    tables: dict[str, HistogramMetricFamily] = {}
    for name in ("ovnwatch_probe_duration_seconds", "ovnwatch_outage_duration_seconds"):
        metric = record.catalog.metric(name)
        tables[name] = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    for (path, protocol), shape in record.shapes.items():
        labels = [record.self_source, path, protocol]
        for cause, count in shape.failures.items():
            failures.add_metric([*labels, cause], count)
        for reason, count in shape.unknown.items():
            unknown.add_metric([*labels, reason], count)
        tables["ovnwatch_probe_duration_seconds"].add_metric(labels, *shape.durations.buckets())
        tables["ovnwatch_outage_duration_seconds"].add_metric(labels, *shape.outages.buckets())
    yield failures
    yield unknown
    yield from tables.values()


def _clocks(record: Record, best: Mapping[str, Offset]) -> Iterator[Metric]:
    """Tables, too: of thousands of targets the samples of others would be garbage enough for a stall."""

    def rows(read: Callable[[Offset], float]) -> Iterator[tuple[Labels, float]]:
        return ((Labels({"source": record.self_source, "target": each}), read(found)) for each, found in best.items())

    reads = {"": lambda found: found.seconds, "_error": lambda found: found.error}
    for name, read in reads.items():
        metric = record.catalog.metric(f"ovnwatch_clock_offset{name}_seconds")
        yield Table(metric.name, metric.help, metric.kind, partial(rows, read))


def _of_ourselves(record: Record, least: Mapping[str, float]) -> Iterator[Metric]:
    source = record.self_source
    skipped = _family(record, "ovnwatch_probes_skipped_total")
    for reason, count in record.skipped.items():
        skipped.add_metric([source, reason], count)
    gaps = _family(record, "ovnwatch_observation_gap_seconds_total")
    for reason, length in record.gaps.items():
        gaps.add_metric([source, reason], length)
    stalls = _family(record, "ovnwatch_stall_seconds_total")
    stalls.add_metric([source], record.stall_seconds)
    throttled = _family(record, "ovnwatch_cpu_throttled_seconds_total")
    counted = record.throttling.seconds() if record.throttling else None
    if counted is not None:
        throttled.add_metric([source], counted)
    coverage = _family(record, "ovnwatch_coverage_ratio")
    for path, share in least.items():
        coverage.add_metric([source, path], share)
    errors = _family(record, "ovnwatch_journal_errors_total")
    errors.add_metric([source], record.journal.errors if record.journal else 0)
    lag = record.catalog.metric("ovnwatch_schedule_lag_seconds")
    lags = HistogramMetricFamily(lag.name, lag.help, labels=lag.labels)
    lags.add_metric([source], *record.lag.buckets())
    yield from (skipped, gaps, stalls, throttled, coverage, errors, lags)


def _rows(
    everyone: Sequence[Stats], read: Reader, events: Mapping[str, Moment], now: float
) -> Iterator[tuple[Labels, float]]:
    """A metric of every stream of which it is known."""
    for stats in everyone:
        value = read(stats, events.get(stats.spec.key) if events else None, now)
        if value is not None:
            yield stats.labels, value


Reader = Callable[[Stats, Moment | None, float], float | None]


def _event(moment: Moment | None) -> Event | None:
    return moment.event if moment else None


def _outage_open(stats: Stats, moment: Moment | None, _now: float) -> float | None:
    if not stats.seen():
        return None
    event = _event(moment)
    return 1.0 if event is not None and event.kind == "outage" else 0.0


def _state(stats: Stats, moment: Moment | None, now: float) -> float:
    """What a stream is in, by the codes of boards, where 2 and 5 are what nobody tells and what is over by now."""
    if not stats.seen():
        return 3.0
    if not stats.watching(now):
        return 4.0
    event = _event(moment)
    if event is not None and event.kind == "outage":
        return 7.0
    return 1.0 if stats.now_state == "up" else 6.0


def _last_outage(read: Callable[[Event | Last], float]) -> Reader:
    def value(stats: Stats, moment: Moment | None, _now: float) -> float | None:
        event = _event(moment)
        last = event if event is not None and event.kind == "outage" else stats.last_outage
        return None if last is None else read(last)

    return value


def _last_start(stats: Stats, moment: Moment | None, _now: float) -> float | None:
    event = _event(moment)
    if event is not None and event.kind == "outage":
        return event.start + (time() - monotonic())
    return stats.last_outage.start if stats.last_outage else None


# To add a metric of a stream: an entry in metrics.yaml, and a line here. None means that nothing is known (no series).
PER_STREAM: dict[str, Reader] = {
    "ovnwatch_probes_total": lambda stats, _moment, _now: stats.probes,
    "ovnwatch_stream_up": lambda stats, _moment, _now: float(stats.now_state == "up") if stats.seen() else None,
    "ovnwatch_stream_state": _state,
    "ovnwatch_stream_observed": lambda stats, _moment, now: float(stats.watching(now)),
    "ovnwatch_observed_seconds_total": lambda stats, _moment, _now: stats.observed_seconds,
    "ovnwatch_path_slow": lambda stats, _moment, _now: float(stats.slow),
    "ovnwatch_outages_total": lambda stats, _moment, _now: stats.outages,
    "ovnwatch_outage_seconds_total": lambda stats, _moment, _now: stats.outage_seconds,
    "ovnwatch_outage_seconds_lower_total": lambda stats, moment, _now: moment.lower if moment else stats.lower_seconds,
    "ovnwatch_outage_seconds_upper_total": lambda stats, moment, _now: moment.upper if moment else stats.upper_seconds,
    "ovnwatch_outage_open": _outage_open,
    "ovnwatch_last_outage_lower_seconds": _last_outage(lambda event: event.lower),
    "ovnwatch_last_outage_estimate_seconds": _last_outage(lambda event: event.estimate),
    "ovnwatch_last_outage_upper_seconds": _last_outage(lambda event: event.upper),
    "ovnwatch_last_outage_start_timestamp_seconds": _last_start,
    "ovnwatch_last_outage_end_timestamp_seconds": lambda stats, _moment, _now: (
        stats.last_outage.end if stats.last_outage else None
    ),
    "ovnwatch_last_success_timestamp_seconds": lambda stats, _moment, _now: stats.last_success or None,
    "ovnwatch_connection_breaks_total": lambda stats, _moment, _now: stats.breaks,
    "ovnwatch_connection_break_seconds_total": lambda stats, _moment, _now: stats.break_seconds,
    "ovnwatch_peer_frozen_total": lambda stats, _moment, _now: stats.frozen,
    "ovnwatch_peer_frozen_seconds_total": lambda stats, _moment, _now: stats.frozen_seconds,
}
