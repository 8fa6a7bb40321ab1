"""Captures of what daemons and the kernel say, and the rows that must come of each.

`tests/data/<command>_<version>.txt` begins with a line that names command, version and date; `*_synthetic.txt` were
written after the documentation, for what no machine of ours has. What must come of one stands beside it, as `.rows`:
`python tests/captures.py` writes those anew, to be read before they are committed.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from exporters.node import bonds as kernel_bonds
from exporters.node.ovn import controller, daemons, microovn, raft
from exporters.node.ovs import bonds, coverage, database, datapath, interfaces, memory, pmd, upcall
from exporters.node.ovsdb import rows_of
from exporters.node.rows import Row

DATA = Path(__file__).parent / "data"
Read = Callable[[str], Iterable[Row]]


def text(name: str) -> str:
    """A capture without its first line."""
    head, _, rest = (DATA / f"{name}.txt").read_text().partition("\n")
    assert head.startswith("# ")
    return rest


def _lacp(told: str) -> Iterable[Row]:
    return bonds.lacp_rows(bonds.parse_lacp(told), {})


def _lacp_stats(told: str) -> Iterable[Row]:
    return bonds.lacp_rows({}, bonds.parse_lacp_stats(told))


def _database(told: str) -> Iterable[Row]:
    """The answer to one transaction that selects all columns of five tables."""
    answers = dict(zip(("Interface", "Port", "Bridge", "Open_vSwitch", "Controller"), json.loads(told), strict=True))
    own = rows_of(database.TABLES, [answers[name] for name in database.TABLES])
    rows = rows_of(interfaces.TABLES, [answers[name] for name in interfaces.TABLES])
    found = interfaces.parse(rows)
    yield from database.rows(own)
    yield from interfaces.rows(found)
    yield from interfaces.sum_rows(found, interfaces.step(None, found))


def _kernel_bond(told: str) -> Iterable[Row]:
    return kernel_bonds.rows("bond0", kernel_bonds.parse(told))


def _microovn_schema(told: str) -> Iterable[Row]:
    return microovn.schema_rows({"sb": (microovn.answer(told.encode()), "20.33.0")})


# By the beginning of a capture's name.
READERS: dict[str, Read] = {
    "coverage_show": lambda told: coverage.rows(coverage.parse(told), frozenset(("rconn_overflow",)), False),
    "dpctl_show": lambda told: datapath.rows("dp", datapath.parse(told)),
    "upcall_show": lambda told: upcall.rows(upcall.parse(told)),
    "pmd_upcall_show": lambda told: upcall.rows(upcall.parse(told)),
    "memory_show": lambda told: memory.rows("ovs-vswitchd", memory.parse(told)),
    "ovsdb_memory_show": lambda told: memory.rows("ovsdb-server", memory.parse(told)),
    "bond_show": lambda told: bonds.rows(bonds.parse(told)),
    "lacp_show_stats": _lacp_stats,
    "lacp_show": _lacp,
    "pmd_perf_show": lambda told: pmd.rows("dp", pmd.parse(told)),
    "ovsdb_select": _database,
    "bonding": _kernel_bond,
    "controller_engine": lambda told: daemons.engine_rows("ovn-controller", daemons.engine(told)),
    "controller_stopwatch": lambda told: daemons.stopwatch_rows("ovn-controller", daemons.stopwatches(told)),
    "controller_flow_cache": lambda told: controller.cache_rows(controller.cache(told)),
    "controller_memory": lambda told: memory.rows("ovn-controller", memory.parse(told)),
    "northd_engine": lambda told: daemons.engine_rows("ovn-northd", daemons.engine(told)),
    "northd_stopwatch": lambda told: daemons.stopwatch_rows("ovn-northd", daemons.stopwatches(told)),
    "northd_status": lambda told: daemons.northd_rows(daemons.northd_state(told)),
    "microovn_members": lambda told: microovn.member_rows(microovn.answer(told.encode())),
    "microovn_schema": _microovn_schema,
    "raft": lambda told: raft.rows("OVN_Southbound", raft.parse(told)),
}


def reader(name: str) -> Read | None:
    """Who reads that capture; None where it is only one value."""
    return next((read for beginning, read in READERS.items() if name.startswith(beginning)), None)


def names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.txt") if reader(path.stem))


def shown(rows: Iterable[Row]) -> str:
    """One line for each row."""
    return "".join(f"{row.name} {' '.join(row.labels)} {row.value + 0:.10g}\n" for row in rows)


def main() -> int:
    for name in names():
        read = reader(name)
        assert read
        (DATA / f"{name}.rows").write_text(shown(read(text(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
