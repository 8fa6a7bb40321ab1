"""What the northbound database holds: how far configurations came, who has which egress address, load balancers."""

from collections.abc import Iterator

from exporters.identity import hashed
from exporters.node.ovn.moves import Moves
from exporters.node.ovn.replica import NUMBER, SET, TEXT, Replica, Shape, map_of, options
from exporters.node.rows import Row

DATABASE = "OVN_Northbound"
STAGES = ("nb", "sb", "hv")
EMPTY = hash("")
SHAPE: Shape = {
    "NB_Global": {f"{stage}_cfg{ending}": NUMBER for stage in STAGES for ending in ("", "_timestamp")},
    "NAT": {"type": TEXT, "external_ip": TEXT, "logical_ip": TEXT},
    "Logical_Router": {"name": TEXT, "nat": SET, "options": options("chassis")},
    "Load_Balancer": {"vips": map_of(hash)},
    "Logical_Switch": {},
    "Logical_Switch_Port": {},
    "Logical_Router_Port": {},
    "Logical_Router_Policy": {},
    "ACL": {},
    "Port_Group": {},
    "Address_Set": {},
}
MOST_SHOWN = 2000  # translations


class Northbound:
    """A replica of it, and what moved."""

    name, shape = DATABASE, SHAPE

    def __init__(self, hashed: bool = False) -> None:
        self.hashed = hashed
        self.snat = Moves()

    def looks_at(self) -> frozenset[str]:
        """Tables whose changes may be moves."""
        return frozenset(("NAT", "Logical_Router"))

    def look(self, replica: Replica, now: float, steady: float) -> None:
        held: dict[str, set[str]] = {}
        for router, chassis, external, _ in snats(replica):
            held.setdefault(external, set()).add(f"{router} {chassis}")
        self.snat.look(held, now)

    def rows(self, replica: Replica, _: float) -> Iterator[Row]:
        for row in replica.rows["NB_Global"].values():
            for index, stage in enumerate(STAGES):
                number, at = row[2 * index], row[2 * index + 1]
                yield Row("ovnwatch_ovn_config", (stage,), number)
                if at:
                    yield Row("ovnwatch_ovn_config_timestamp_seconds", (stage,), at / 1000)
        found = list(snats(replica))
        yield Row("ovnwatch_ovn_snats", (), len(found))
        for router, chassis, external, logical in found[:MOST_SHOWN]:
            addresses = (hashed(external), hashed(logical)) if self.hashed else (external, logical)
            yield Row("ovnwatch_ovn_snat_info", (router, chassis, *addresses), 1)
        yield from self.snat.rows("ovnwatch_ovn_snat_moves_total", "ovnwatch_ovn_snat_move_timestamp_seconds")
        vips = [value for (of_it,) in replica.rows["Load_Balancer"].values() for value in of_it.values()]
        yield Row("ovnwatch_ovn_load_balancer_addresses", (), len(vips))
        yield Row("ovnwatch_ovn_load_balancer_addresses_unserved", (), vips.count(EMPTY))


def snats(replica: Replica) -> Iterator[tuple[str, str, str, str]]:
    """Router, the chassis it is pinned to ("": to none), external and logical address of each translation."""
    known = replica.rows["NAT"]
    for name, nats, pinned in replica.rows["Logical_Router"].values():
        for each in nats:
            kind, external, logical = known.get(each, ("", "", ""))
            if kind == "snat":
                yield name, str(pinned.get("chassis", "")), external, logical
