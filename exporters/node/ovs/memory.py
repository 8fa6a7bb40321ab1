"""What a daemon keeps in memory: `memory/show`, one line of counts; a count of 0 is left out.

handlers:1 idl-cells-Open_vSwitch:460 ports:7 revalidators:1 rules:14 udpif keys:11
"""

import re
from collections.abc import Iterator, Mapping

from exporters.node.failing import GarbledError
from exporters.node.rows import Row

ITEM = re.compile(r"([A-Za-z][\w -]{0,80}):(\d{1,20})(?= |$)", re.ASCII)
MOST_ITEMS = 200


def parse(text: str) -> dict[str, int]:
    """Counts by what is counted, a name that may hold spaces. Raises GarbledError."""
    line = text.strip()
    found = ITEM.findall(line)
    if not found or len(found) > MOST_ITEMS or " ".join(f"{name}:{count}" for name, count in found) != line:
        raise GarbledError("memory/show is no line of counts")
    return {name: int(count) for name, count in found}


def rows(daemon: str, counts: Mapping[str, int]) -> Iterator[Row]:
    for item, count in counts.items():
        yield Row("ovnwatch_ovs_memory_items", (daemon, item), count)
    if "handlers" in counts:
        yield Row("ovnwatch_ovs_handlers", (), counts["handlers"])
