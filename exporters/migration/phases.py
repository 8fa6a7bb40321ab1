"""Which phase the cluster and each node is in: one at a time of each kind, each an entry of the journal.

1. A phase lasts until another one of its kind and node begins, or NONE ends it. It survives a restart as it is: that
   is no measurement, and whoever finds out better says so.
2. Its entry is of kind `phase`: `cause` is what kind of phase, `text` its name, `node` whose it is ("" for the whole
   cluster, "*" for all nodes at once), `rolls` whether it goes from node to node without naming them.
3. What happens and does not last, a start of a node's OVS say, is one with the cause `event`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from exporters import catalog, times
from exporters.migration.names import NODE as NODE_KIND
from exporters.migration.names import NONE
from exporters.probing.record import Record

NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
MOST = 10_000  # phases at one time: nodes, as a rule


class FullError(Exception):
    """There are MOST phases already."""


def _line(text: str) -> str:
    """Text in one line, without anything a terminal obeys."""
    line = " ".join(text.split())
    if not line or not line.isprintable():
        raise ValueError("want a text that is not empty, without control characters")
    return line


def _node(text: str) -> str:
    if text not in ("", "*") and not NODE.fullmatch(text):
        raise ValueError("want a node's name, or * for all of them")
    return text


class NewPhase(BaseModel):
    """The body of a request that marks a phase."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    phase: Annotated[str, Field(max_length=64), AfterValidator(_line)]
    node: Annotated[str, Field(max_length=253), AfterValidator(_node)] = ""
    rolls: bool = False


class Phases(Collector):
    """All phases that last, by kind and node, as /history has them; and their metrics."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._catalog = catalog.exported()
        self.open: dict[tuple[str, str], dict[str, Any]] = {}
        self.progress: dict[str, float | None] = {}  # 0 to 1, by kind
        self.failing: dict[str, str] = {}  # by node: its phase, though it is not at its turn
        if record.journal is not None:
            for row in record.journal.rows("kind = 'phase' AND state = 'open'"):
                item = json.loads(row.item)
                self.open[item["cause"], item["node"]] = item

    def set(self, kind: str, wanted: NewPhase, now: float) -> dict[str, Any] | None:
        """It is so from `now` (Unix time) on; returns what changed, None where it was so already. Raises FullError."""
        before = self.open.get((kind, wanted.node))
        if before is not None and (before["text"], before["rolls"]) == (wanted.phase, wanted.rolls):
            return None
        if before is None and len(self.open) >= MOST:
            raise FullError
        ended = self._end(kind, wanted.node, now)
        if wanted.phase == NONE:
            return ended
        more = {
            "id": f"{self._record.journal_id[:8]}-phase-{self._record.run}-{self._record.seq + 1}",
            "state": "open",
            "end_time": None,
            "end": {"earliest": None, "latest": None},
            "text": wanted.phase,
            "node": wanted.node,
            "rolls": wanted.rolls,
        }
        item = self.open[kind, wanted.node] = self._record.note("phase", kind, now, now, more)
        return item

    def _end(self, kind: str, node: str, now: float) -> dict[str, Any] | None:
        item = self.open.pop((kind, node), None)
        if item is None:
            return None
        begin = times.seconds(item["start_time"])
        kept = {name: item[name] for name in ("id", "text", "node", "rolls")}
        return self._record.note("phase", kind, begin, max(begin, now), kept)

    def event(
        self, name: str, node: str, earliest: float, latest: float, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Something happened between these Unix times; `more` is what else its entry says."""
        said = {"text": name, "node": node, **(more or {})}
        return self._record.note("phase", "event", earliest, max(earliest, latest), said)

    def collect(self) -> Iterator[Metric]:
        """1 for what lasts; a phase that is over is absent."""
        names = ("ovnwatch_migration_phase", "ovnwatch_node_phase", "ovnwatch_migration_progress_ratio")
        cluster, node, progress = (
            GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for metric in map(self._catalog.metric, names)
        )
        for (kind, name), item in sorted(self.open.items()):
            if name:
                node.add_metric([kind, name, item["text"]], 1.0)
            else:
                cluster.add_metric([kind, item["text"]], 1.0)
        for name, phase in sorted(self.failing.items()):
            node.add_metric([NODE_KIND, name, phase], 1.0)
        for kind, done in sorted(self.progress.items()):
            if done is not None:
                progress.add_metric([kind], done)
        yield from (cluster, node, progress)
