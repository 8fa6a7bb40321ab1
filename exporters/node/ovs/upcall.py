"""How the flow table of each datapath is kept: `upcall/show`, a block for each.

system@ovs-system:
  flows         : (current 6) (avg 6) (max 6) (limit 10000)
  offloaded flows : 3                             where there are any
  dump duration : 1ms
  ufid enabled : true

  14: (keys 4)                                    one line for each revalidator
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row, named

FLAGS = re.MULTILINE | re.ASCII
BLOCK = re.compile(r"^([\w.-]{1,64}@[\w.-]{1,64}):$", FLAGS)
COUNT = r"(\d{1,20})"
FLOWS = re.compile(rf"^\s+flows\s*: \(current {COUNT}\) \(avg {COUNT}\) \(max {COUNT}\) \(limit {COUNT}\)\s*$", FLAGS)
DUMP = re.compile(r"^\s+dump duration\s*: (\d{1,20})ms\s*$", FLAGS)
OFFLOADED = re.compile(r"^\s+offloaded flows\s*: (\d{1,20})\s*$", FLAGS)
KEYS = re.compile(r"^\s+\d+: \(keys (\d{1,20})\)\s*$", FLAGS)


class Upcalls(NamedTuple):
    """One datapath's flows as userspace keeps them; `dump` is seconds for reading all of them once."""

    datapath: str
    flows: int
    average: int
    most: int
    limit: int
    offloaded: int | None
    dump: float | None
    keys: int
    revalidators: int


def parse(text: str) -> list[Upcalls]:
    """Every block. Raises GarbledError."""
    _, *parts = BLOCK.split(text)
    if not parts:
        raise GarbledError("upcall/show names no datapath")
    return [_block(name, block) for name, block in zip(parts[::2], parts[1::2], strict=True)]


def _block(name: str, text: str) -> Upcalls:
    flows, dump, offloaded = (pattern.search(text) for pattern in (FLOWS, DUMP, OFFLOADED))
    if not flows:
        raise GarbledError(f"upcall/show tells no flows of {name}")
    keys = [int(each) for each in KEYS.findall(text)]
    return Upcalls(
        name,
        flows=int(flows[1]),
        average=int(flows[2]),
        most=int(flows[3]),
        limit=int(flows[4]),
        offloaded=int(offloaded[1]) if offloaded else None,
        dump=int(dump[1]) / 1000 if dump else None,
        keys=sum(keys),
        revalidators=len(keys),
    )


def rows(upcalls: list[Upcalls]) -> Iterator[Row]:
    for each in upcalls:
        found = {
            "ovnwatch_ovs_upcall_flows": each.flows,
            "ovnwatch_ovs_upcall_flows_average": each.average,
            "ovnwatch_ovs_upcall_flows_most": each.most,
            "ovnwatch_ovs_upcall_flow_limit": each.limit,
            "ovnwatch_ovs_upcall_flows_offloaded": each.offloaded,
            "ovnwatch_ovs_upcall_dump_seconds": each.dump,
            "ovnwatch_ovs_upcall_keys": each.keys,
            "ovnwatch_ovs_revalidators": each.revalidators,
        }
        yield from named(found, (each.datapath,))
