"""Threads of the userspace datapath that poll for packets: `dpif-netdev/pmd-perf-show`; empty where there are none.

    pmd thread numa_id 0 core_id 0:

      Iterations:              4136627  (0.73 us/it)
      - idle iterations:       4136626  (100.0 % of used cycles)
      - busy iterations:             1  (  0.0 % of used cycles)
      Rx packets:                    1  (0 Kpps, 2392702 cycles/pkt)
      - EMC hits:                    0  (  0.0 %)
      - Lost upcalls:                0  (  0.0 %)

`pmd-stats-show`, which others read, is gone since OVS 4.0.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row

THREAD = re.compile(r"^pmd thread numa_id (-?\d{1,5}) core_id (\d{1,5}):$", re.ASCII | re.MULTILINE)
COUNT = re.compile(r"^\s+(?:- )?([A-Za-z][A-Za-z ]{1,40}?(?: \(us\))?):\s+(\d{1,20})(?=\s|$)", re.ASCII | re.MULTILINE)
METRICS = {
    "Iterations": "ovnwatch_ovs_pmd_iterations_total",
    "busy iterations": "ovnwatch_ovs_pmd_busy_iterations_total",
    "Rx packets": "ovnwatch_ovs_pmd_receive_packets_total",
    "Tx packets": "ovnwatch_ovs_pmd_transmit_packets_total",
    "Upcalls": "ovnwatch_ovs_pmd_upcalls_total",
    "Lost upcalls": "ovnwatch_ovs_pmd_lost_upcalls_total",
}
HITS = {
    "PHWOL hits": "phwol",
    "MFEX Opt hits": "mfex",
    "Simple Match hits": "simple",
    "EMC hits": "emc",
    "SMC hits": "smc",
    "Megaflow hits": "megaflow",
}


class Pmd(NamedTuple):
    """One thread, by NUMA node and core, and its counts by name."""

    numa: str
    core: str
    counts: dict[str, int]


def parse(text: str) -> list[Pmd]:
    """Every thread. Raises GarbledError for a thread without counts, and for text that is not about threads."""
    _, *parts = THREAD.split(text)
    found = [
        Pmd(numa, core, {name: int(count) for name, count in COUNT.findall(rest)})
        for numa, core, rest in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]
    if not all("Rx packets" in each.counts for each in found) or (not found and text.strip()):
        raise GarbledError("pmd-perf-show tells no packets")
    return found


def rows(datapath: str, threads: list[Pmd]) -> Iterator[Row]:
    for each in threads:
        thread = datapath, each.numa, each.core
        for name, metric in METRICS.items():
            if name in each.counts:
                yield Row(metric, thread, each.counts[name])
        for name, cache in HITS.items():
            if name in each.counts:
                yield Row("ovnwatch_ovs_pmd_hits_total", (*thread, cache), each.counts[name])
