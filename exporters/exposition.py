"""Turns the metrics registry into text for a scraper, without holding the event loop.

1. Collecting, encoding and compressing happen in one worker thread: a collector's `collect` runs there.
2. Scrapes that ask for the same thing at the same time share one rendering.
3. A scraper that gives up does not stop the rendering the others wait for.
4. A family of many series is a Table: its labels were written when the series began, so that a line is one format.
"""

import asyncio
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from exporters.gentle import PAUSE, lots

# Prometheus servers ask for one or two forms; more different ones at a time than this is not scraping.
MAX_RENDERINGS = 8
VERSION = re.compile(r";\s*version=([^;]*)")
LOT = 300  # lines: a fifth of a millisecond
END = b"# EOF\n"  # of a page of OpenMetrics
GZIP = 31  # to zlib: gzip's header, and the largest window
ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
Encode = Callable[[Collector], bytes]
NUMBER = re.compile(r"\s*[0-9]{1,4}(\.[0-9]{1,4}){0,3}\s*")


class BusyError(Exception):
    """Too many different renderings are under way."""


class Rendered(NamedTuple):
    """A page of metrics: `encoding` is "gzip" or empty."""

    body: bytes
    content_type: str
    encoding: str


class Info(Collector):
    """A metric that is always 1 and says things in its labels; `name` ends in "_info"."""

    def __init__(self, name: str, text: str, labels: Mapping[str, str]) -> None:
        self.family = InfoMetricFamily(name.removesuffix("_info"), text, value=dict(labels))

    def collect(self) -> Iterable[Metric]:
        return [self.family]


class Labels:
    """The labels of a series, by name and as a line has them."""

    __slots__ = ("pairs", "text")

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(sorted(pairs.items()))
        said = ",".join(f'{name}="{value.translate(ESCAPED)}"' for name, value in self.pairs.items())
        self.text = f"{{{said}}}" if said else ""


class Table(Metric):
    """A counter, gauge or info of many series: `rows` gives their labels and values, each time it is called."""

    def __init__(self, name: str, text: str, kind: str, rows: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        super().__init__(name.removesuffix("_total").removesuffix("_info"), text, kind)
        self.rows = rows

    @property
    def sample_name(self) -> str:
        """What its lines begin with."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.type, "")

    @property
    def samples(self) -> list[Sample]:
        """The rows as prometheus_client knows them, for whoever wants them one by one."""
        return [Sample(self.sample_name, labels.pairs, value) for labels, value in self.rows()]

    @samples.setter
    def samples(self, _: list[Sample]) -> None:
        """Metric's constructor sets it."""


class _One:
    """A registry of one family."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self.metric]


def encoded(registry: Collector, encode: Encode, pause: float = PAUSE) -> bytes:
    """What `encode` makes of the families, each by itself; of a Table only the head, for its lines we write."""
    return b"".join(_pieces(registry, encode, pause))


def compressed(registry: Collector, encode: Encode, pause: float = PAUSE) -> bytes:
    """The same page for gzip, of which the plain form is never whole in memory."""
    # Level 6 would take three times as long for a seventh less.
    squeeze = zlib.compressobj(1, wbits=GZIP)
    return b"".join([*map(squeeze.compress, _pieces(registry, encode, pause)), squeeze.flush()])


def _pieces(registry: Collector, encode: Encode, pause: float) -> Iterator[bytes]:
    for metric in registry.collect():
        if isinstance(metric, Table):
            yield _page(Metric(metric.name, metric.documentation, metric.type), encode)
            yield from _lines(metric, pause)
        else:
            yield _page(metric, encode)
    if encode(_Nothing()).endswith(END):
        yield END


def _lines(table: Table, pause: float) -> Iterator[bytes]:
    """Its lines, some at a time."""
    name = table.sample_name
    for lot in lots(table.rows(), LOT, pause):
        yield "".join([f"{name}{labels.text} {value!r}\n" for labels, value in lot]).encode()


def _page(metric: Metric, encode: Encode) -> bytes:
    return encode(cast("Collector", _One(metric))).removesuffix(END)


class _Nothing(Collector):
    def collect(self) -> Iterable[Metric]:
        return []


class _Named:
    """A registry of which only the samples called `names` are collected."""

    def __init__(self, registry: CollectorRegistry, names: frozenset[str]) -> None:
        self.registry = registry
        self.names = names

    def collect(self) -> Iterable[Metric]:
        for family in self.registry.collect():
            if isinstance(family, Table):
                if family.sample_name in self.names:
                    yield family
                continue
            samples = [sample for sample in family.samples if sample.name in self.names]
            if samples:
                kept = Metric(family.name, family.documentation, family.type, family.unit)
                kept.samples = samples
                yield kept


def make_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of our own, holding the collectors and the usual `process_` metrics."""
    # A *_created series per counter would double what is stored and says what a reset says already.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


class Exposition:
    """Renders one registry; `close` ends its thread. `pause`, in seconds, is for a loop that may not be held at all."""

    def __init__(self, registry: CollectorRegistry, pause: float = PAUSE) -> None:
        # The thread must not keep the event loop waiting, which gives the interpreter away at each system call and
        # gets it back after this time: with Python's 5 ms, probes and ticks were late by up to 40 ms.
        sys.setswitchinterval(0.0005)
        self.registry = registry
        self.pause = pause
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exposition")
        self._renderings: dict[tuple[str, bool, frozenset[str]], asyncio.Task[Rendered]] = {}

    async def render(self, accept: str = "", names: Iterable[str] = (), accept_encoding: str = "") -> Rendered:
        """Return the metrics in the form the two headers ask for, only the samples in `names` unless it is empty.

        Raises BusyError, and whatever a collector raises.
        """
        encode, content_type = choose_encoder(usable(accept))
        compress, only = accepts_gzip(accept_encoding), frozenset(names)
        key = (content_type, compress, only)
        rendering = self._renderings.get(key)
        if rendering is None:
            if len(self._renderings) >= MAX_RENDERINGS:
                raise BusyError(f"{MAX_RENDERINGS} different renderings of the metrics are under way")
            rendering = asyncio.create_task(self._render(encode, content_type, compress, only))
            self._renderings[key] = rendering
            rendering.add_done_callback(lambda _: self._renderings.pop(key))
        return await asyncio.shield(rendering)

    async def _render(self, encode: Encode, content_type: str, compress: bool, only: frozenset[str]) -> Rendered:
        source = cast("Collector", _Named(self.registry, only) if only else self.registry)

        def work() -> Rendered:
            make = compressed if compress else encoded
            return Rendered(make(source, encode, self.pause), content_type, "gzip" if compress else "")

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread; a rendering that waits for it is cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def usable(accept: str) -> str:
    """Return an Accept header without the parts whose version is not a number: the encoder choice fails on those."""
    return ",".join(part for part in accept.split(",") if all(map(NUMBER.fullmatch, VERSION.findall(part))))


def accepts_gzip(accept_encoding: str) -> bool:
    """Say whether an Accept-Encoding header allows gzip."""
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
