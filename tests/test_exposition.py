"""The metrics page: forms, sharing, and an event loop that is never held."""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from on_loop import Loop, running_loop
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from exporters.exposition import (
    MAX_RENDERINGS,
    BusyError,
    Exposition,
    Info,
    Labels,
    Table,
    accepts_gzip,
    encoded,
    make_registry,
)

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


class Families(Collector):
    """Families that are there already."""

    def __init__(self, *families: Metric) -> None:
        self.families = families

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        return list(self.families)


KINDS: dict[str, tuple[str, Callable[..., Any]]] = {
    "counter": ("big_things_total", CounterMetricFamily),
    "gauge": ("big_things", GaugeMetricFamily),
    "info": ("big_things_info", InfoMetricFamily),
}
# What a page escapes, and what it does not.
ODD = ['"', "\\", "\n", "\\n", "}", "{", ",", "=", ""]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(ODD)
# Beyond 2**53 a Table is exact, and prometheus_client is not.
VALUES = st.integers(0, 2**53) | st.floats(0, allow_nan=False) | st.sampled_from([1e-9, 1e22, 0.1, 5e-324])
Rows = dict[tuple[str, str], float]


def both(kind: str, rows: Rows, help_text: str) -> tuple[Metric, Metric]:
    """A Table, and prometheus_client's own family of the same series."""
    name, family_class = KINDS[kind]
    own = family_class(name.removesuffix("_info"), help_text, labels=["a", "b"])
    for (a, b), value in rows.items():
        own.add_metric([a, b], {} if kind == "info" else value)
    given = [(Labels({"a": a, "b": b}), 1 if kind == "info" else value) for (a, b), value in rows.items()]
    return Table(name, help_text, kind, lambda: given), own


def parsed(page: bytes, form: str) -> list[Metric]:
    """The families of a page: a number may be written in two ways."""
    return list((parse_openmetrics if form else parse_text)(page.decode()))


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.tuples(TEXTS, TEXTS), VALUES, max_size=6), TEXTS)
def test_a_tables_page_is_the_page_of_prometheus_clients_own_families(kind: str, rows: Rows, help_text: str) -> None:
    for form in ("", OPENMETRICS):
        encode = choose_encoder(form)[0]
        ours, theirs = (encoded(Families(family), encode) for family in both(kind, rows, help_text))
        assert parsed(ours, form) == parsed(theirs, form)
        assert sum(len(each.samples) for each in parsed(ours, form)) == len(rows)


@pytest.mark.parametrize("form", ["", OPENMETRICS])
@pytest.mark.parametrize("accepted", ["", "gzip"])
def test_so_it_is_as_it_is_sent(on: Loop, form: str, accepted: str) -> None:
    rows = {(a, b): float(number) for number, (a, b) in enumerate(product(ODD, ODD))}
    pages = []
    for family in both("counter", rows, "All kinds."):
        registry = CollectorRegistry()
        registry.register(Families(family))
        page = on(Exposition(registry).render(form, accept_encoding=accepted))
        assert page.encoding == accepted
        pages.append(gzip.decompress(page.body) if accepted else page.body)
    assert pages[0].endswith(b"# EOF\n") == bool(form)
    assert parsed(pages[0], form) == parsed(pages[1], form)


def test_a_series_without_labels_has_no_braces(on: Loop) -> None:
    table = Table("alone", "One.", "gauge", lambda: [(Labels({}), 5)])
    page = on(Exposition(make_registry(Families(table))).render(names=["alone"]))
    assert page.body == b"# HELP alone One.\n# TYPE alone gauge\nalone 5\n"
