"""One collection: every collector in a thread of its own until the deadline; who fails or is late costs only itself.

1. Nothing is kept from one collection to the next: what was not read now is not shown.
2. A collector that is still at it when the next collection begins is not started again, and counts as failed.
3. A failure is told in the log when it begins, when it becomes another one, and when it ends.
4. An exception that is none of FAILURES is a bug, and is raised.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from math import inf
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.registry import Collector as Registered

from exporters.catalog import Catalog
from exporters.exposition import Table
from exporters.node.collectors import COLLECTORS
from exporters.node.failing import FAILURES
from exporters.node.host import Host
from exporters.node.rows import Found, Row, tables
from exporters.node.rpc import Deadline

log = logging.getLogger(__name__)

GRACE = 0.5  # seconds that a collector has to notice its deadline
# Of the time that a scraper gives us: for collectors, and for their grace; the rest is for writing and sending.
SHARE, GRACE_SHARE = 0.6, 0.2
LEAST = 1.0  # seconds taken for what a scraper allows: others get the same page, and shall not have collectors fail


class Collected(NamedTuple):
    """What came of one collector: its rows, why it failed (empty: it did not), and its seconds."""

    found: Sequence[Found]
    failure: str
    seconds: float


class Scrape(Registered):
    """The named collectors of COLLECTORS, collected at each call within `seconds`."""

    def __init__(self, host: Host, names: Sequence[str], seconds: float, catalog: Catalog) -> None:
        self.host = host
        self.names = names
        self.seconds = seconds
        self.catalog = catalog
        self._one_at_a_time = threading.Lock()
        self._late: dict[str, Future[Collected]] = {}  # from earlier collections
        self._failures: dict[str, str] = {}
        self._allowed = 0.0

    def allow(self, seconds: float | None) -> None:
        """Say how long a scraper that asks now waits; None: it did not say. The most holds for the next collection."""
        self._allowed = max(self._allowed, inf if seconds is None else max(seconds, LEAST))

    def describe(self) -> Iterable[Metric]:
        """Nothing: or the registry would collect once to find out."""
        return []

    def collect(self) -> Iterable[Metric]:
        return self.tables(self.run())

    def tables(self, collected: Mapping[str, Collected]) -> list[Table]:
        """The metrics of a collection, its own about it first."""
        found: list[Found] = []
        for name, result in collected.items():
            found.append(Row("ovnwatch_node_collector_success", (name,), not result.failure))
            found.append(Row("ovnwatch_node_collector_duration_seconds", (name,), round(result.seconds, 6)))
        for result in collected.values():
            found.extend(result.found)
        return tables(found, self.catalog)

    def run(self, *, told: bool = True) -> dict[str, Collected]:
        """What came of each collector, in their order; `told`: failures are told in the log."""
        with self._one_at_a_time:
            allowed, self._allowed = self._allowed or inf, 0.0
            seconds, grace = min(self.seconds, SHARE * allowed), min(GRACE, GRACE_SHARE * allowed)
            began = time.monotonic()
            self._late = {name: task for name, task in self._late.items() if not task.done()}
            # Threads end with the collection: idle ones would keep their stacks, megabytes in all.
            threads = ThreadPoolExecutor(max_workers=max(len(self.names), 1), thread_name_prefix="collector")
            running = {
                name: threads.submit(collect, self.host, name, seconds) for name in self.names if name not in self._late
            }
            threads.shutdown(wait=False)
            wait(running.values(), seconds + grace)
            spent = time.monotonic() - began
            self._late |= {name: task for name, task in running.items() if not task.done()}
            late = Collected([], "it does not keep its deadline", spent)
            results = {name: late if name in self._late else running[name].result() for name in self.names}
            if told:
                self._tell(results)
            return results

    def _tell(self, results: Mapping[str, Collected]) -> None:
        for name, result in results.items():
            if result.failure and result.failure != self._failures.get(name):
                log.warning("collector %s failed: %s", name, result.failure)
            elif not result.failure and name in self._failures:
                log.info("collector %s works again", name)
        self._failures = {name: result.failure for name, result in results.items() if result.failure}


def collect(host: Host, name: str, seconds: float) -> Collected:
    """Run one collector for so many seconds at most."""
    began, found, failure = time.monotonic(), list[Found](), ""
    try:
        for each in COLLECTORS[name].collect(host, Deadline(seconds)):
            found.append(each)
    except FAILURES as error:
        failure = str(error) or type(error).__name__
    return Collected(found, failure, time.monotonic() - began)
