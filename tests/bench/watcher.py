"""A child of the benchmarks: watches a cluster's nodes until the last event, as `ours` or as the client's `informer`.

python -m tests.bench.watcher ours|informer KUBECONFIG EVENTS
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from exporters.identity import identify
from exporters.kube import Cluster
from exporters.migration.phases import Phases
from exporters.migration.watching import Watching
from exporters.probing.record import Record

from .measure import CHILD_TIMEOUT, cpu_seconds, tell

LAST_NODE, DONE = "node-0", "done"  # see many_nodes.py


def ours(config: str) -> Callable[[], None]:
    """All watches and what judges them."""
    cluster = Cluster(config)
    record = Record([], identify("bench", "", ""))

    async def until_done() -> None:
        one = Watching(cluster, Phases(record), record, str)
        task = asyncio.ensure_future(one.run())
        while (node := one.seen.nodes.get(LAST_NODE)) is None or node.boot_id != DONE:  # noqa: ASYNC110 - knows no events
            await asyncio.sleep(0.02)
        task.cancel()

    return lambda: asyncio.run(asyncio.wait_for(until_done(), CHILD_TIMEOUT))


def informer(config: str) -> Callable[[], None]:
    """The client's own, of the nodes alone, judging nothing."""
    client: Any = importlib.import_module("kubernetes.client")
    found = client.CoreV1Api(client.ApiClient(Cluster(config).settings()))
    one = importlib.import_module("kubernetes.informer").SharedInformer(found.list_node)

    def until_done() -> None:
        one.start()
        while (node := one.cache.get_by_key(LAST_NODE)) is None or node.status.node_info.boot_id != DONE:
            time.sleep(0.02)

    return until_done


def main() -> None:
    kind, config, events = sys.argv[1:]
    work = {"ours": ours, "informer": informer}[kind](config)
    before = cpu_seconds(os.getpid())
    work()
    tell(os.getpid(), before, int(events), float(events))
    sys.stdout.flush()
    os._exit(0)  # threads wait for more


if __name__ == "__main__":
    main()
