"""The metrics page: forms, sharing, and an event loop that is never held."""

import asyncio
import gzip
import threading
from collections.abc import Iterator

import pytest
from on_loop import Loop, running_loop
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters.exposition import MAX_RENDERINGS, BusyError, Exposition, Info, accepts_gzip, make_registry

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Slow(Collector):
    """A collector that waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Event()
        self.calls = 0

    def collect(self) -> Iterator[Metric]:
        self.calls += 1
        self.began.set()
        assert self.go.wait(30)
        yield GaugeMetricFamily("slow", "one", value=1)
        yield GaugeMetricFamily("other", "two", value=2)


@pytest.fixture
def on() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


@pytest.fixture
def slow() -> Iterator[Slow]:
    collector = Slow()
    yield collector
    collector.go.set()


INFO = Info("ovnwatch_build_info", "What runs.", {"version": "1", "source": 'a"b'})


def test_plain_text_is_the_default(on: Loop) -> None:
    page = on(Exposition(make_registry(INFO)).render())
    assert page.content_type.startswith("text/plain; version=0.0.4")
    assert b'ovnwatch_build_info{source="a\\"b",version="1"} 1.0\n' in page.body
    assert b"process_cpu_seconds_total" in page.body
    assert b"python_gc" not in page.body


def test_openmetrics_when_asked_for(on: Loop) -> None:
    page = on(Exposition(make_registry(INFO)).render(OPENMETRICS))
    assert page.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert b"# TYPE ovnwatch_build info\n" in page.body
    assert page.body.endswith(b"# EOF\n")


def test_no_created_series(on: Loop) -> None:
    registry = make_registry()
    Counter("ovnwatch_things", "Things.", registry=registry).inc()
    page = on(Exposition(registry).render(OPENMETRICS))
    assert b"ovnwatch_things_total 1.0" in page.body
    assert b"_created" not in page.body


def test_gzip_when_asked_for(on: Loop) -> None:
    exposition = Exposition(make_registry(INFO))
    plain = on(exposition.render(names=["ovnwatch_build_info"]))
    page = on(exposition.render(names=["ovnwatch_build_info"], accept_encoding="gzip, deflate"))
    assert (plain.encoding, page.encoding) == ("", "gzip")
    assert gzip.decompress(page.body) == plain.body


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("notgzip", False),
    ],
)
def test_who_takes_gzip(header: str, wanted: bool) -> None:
    assert accepts_gzip(header) is wanted


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=abc",
        "application/openmetrics-text;version=1.x",
        "application/openmetrics-text;version=" + "9" * 5000,
        "text/plain;version=a.b;version=1.0.0",
        "text/plain; version=",
        ";;,,=;version",
        "application/openmetrics-text;version=1.0.0;escaping=nonsense",
        "\udcff/\udcff",
    ],
)
def test_whatever_a_client_accepts_it_gets_a_page(on: Loop, accept: str) -> None:
    assert b"ovnwatch_build" in on(Exposition(make_registry(INFO)).render(accept)).body


def test_only_the_names_asked_for(on: Loop, slow: Slow) -> None:
    slow.go.set()
    exposition = Exposition(make_registry(INFO, slow))
    assert on(exposition.render(names=["other"])).body == b"# HELP other two\n# TYPE other gauge\nother 2.0\n"
    assert on(exposition.render(names=["nothing"])).body == b""


def test_scrapes_at_the_same_time_share_one_rendering_and_the_loop_goes_on(on: Loop, slow: Slow) -> None:
    exposition = Exposition(make_registry(slow))

    async def scrape() -> list[bytes]:
        scrapes = [asyncio.create_task(exposition.render()) for _ in range(20)]
        assert await asyncio.to_thread(slow.began.wait, 30)
        scrapes[0].cancel()  # one gives up, the others do not notice
        await asyncio.sleep(0)
        slow.go.set()  # reached only because the loop is not held
        return [(await each).body for each in scrapes[1:]]

    pages = on(scrape())
    assert slow.calls == 1
    assert len(set(pages)) == 1
    on(exposition.render())
    assert slow.calls == 2


def test_too_many_different_scrapes_are_refused(on: Loop, slow: Slow) -> None:
    exposition = Exposition(make_registry(slow))

    async def scrape() -> None:
        scrapes = [asyncio.create_task(exposition.render(names=[str(number)])) for number in range(MAX_RENDERINGS)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await exposition.render(names=["one more"])
        slow.go.set()
        await asyncio.gather(*scrapes)
        await exposition.render(names=["one more"])

    on(scrape())


def test_a_collectors_bug_reaches_the_scrape(on: Loop) -> None:
    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise LookupError("a bug")

    registry = make_registry(INFO)
    registry.register(Broken())
    with pytest.raises(LookupError, match="a bug"):
        on(Exposition(registry).render())
