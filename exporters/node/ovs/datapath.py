"""A datapath's flow lookups, flows, masks, ports and connections: `dpctl/show`, `dpctl/ct-get-nconns` and others.

system@ovs-system:
  lookups: hit:109 missed:2 lost:0
  flows: 2
  masks: hit:138 total:1 hit/pkt:1.24             kernel only
  cache: hit:97 hit-rate:87.39%                   kernel, since 5.9
  caches:
    masks-cache: size:256
  port 0: ovs-system (internal)
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row, named

# Spaces before a line changed once, and cost somebody else all metrics of the datapath.
LOOKUPS = re.compile(r"^\s+lookups: hit:(\d{1,20}) missed:(\d{1,20}) lost:(\d{1,20})\s*$", re.ASCII | re.MULTILINE)
FLOWS = re.compile(r"^\s+flows: (\d{1,20})\s*$", re.ASCII | re.MULTILINE)
MASKS = re.compile(r"^\s+masks: hit:(\d{1,20}) total:(\d{1,20}) hit/pkt:\S+\s*$", re.ASCII | re.MULTILINE)
CACHE = re.compile(r"^\s+cache: hit:(\d{1,20}) hit-rate:\S+\s*$", re.ASCII | re.MULTILINE)
PORT = re.compile(r"^\s+port \d+: ", re.ASCII | re.MULTILINE)
NAME = re.compile(r"[\w.-]{1,64}@[\w.-]{1,64}", re.ASCII)


class Datapath(NamedTuple):
    """What one datapath does; None is what it does not tell."""

    hit: int
    missed: int
    lost: int
    ports: int
    flows: int | None
    masks: int | None
    masks_hit: int | None
    cache_hit: int | None


def names(text: str) -> list[str]:
    """Datapaths as `dpctl/dump-dps` lists them, `system@ovs-system` a line. Raises GarbledError."""
    found = text.split()
    if not all(map(NAME.fullmatch, found)):
        raise GarbledError("dpctl/dump-dps lists what is no datapath")
    return found


def parse(text: str) -> Datapath:
    """One datapath's `dpctl/show`. Raises GarbledError."""
    lookups = LOOKUPS.findall(text)
    if len(lookups) != 1:
        raise GarbledError("dpctl/show tells no lookups")
    hit, missed, lost = map(int, lookups[0])
    flows, masks, cache = FLOWS.search(text), MASKS.search(text), CACHE.search(text)
    return Datapath(
        hit,
        missed,
        lost,
        ports=len(PORT.findall(text)),
        flows=int(flows[1]) if flows else None,
        masks=int(masks[2]) if masks else None,
        masks_hit=int(masks[1]) if masks else None,
        cache_hit=int(cache[1]) if cache else None,
    )


def count(text: str) -> int:
    """The number that `dpctl/ct-get-nconns` and `dpctl/ct-get-maxconns` print. Raises GarbledError."""
    if not re.fullmatch(r"\d{1,20}\s*", text, re.ASCII):
        raise GarbledError("dpctl answers no number of connections")
    return int(text)


def rows(name: str, datapath: Datapath) -> Iterator[Row]:
    found = {
        "ovnwatch_ovs_datapath_lookups_hit_total": datapath.hit,
        "ovnwatch_ovs_datapath_lookups_missed_total": datapath.missed,
        "ovnwatch_ovs_datapath_lookups_lost_total": datapath.lost,
        "ovnwatch_ovs_datapath_flows": datapath.flows,
        "ovnwatch_ovs_datapath_masks": datapath.masks,
        "ovnwatch_ovs_datapath_masks_visited_total": datapath.masks_hit,
        "ovnwatch_ovs_datapath_cache_hits_total": datapath.cache_hit,
        "ovnwatch_ovs_datapath_ports": datapath.ports,
    }
    yield from named(found, (name,))
