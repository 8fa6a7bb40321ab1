"""What the southbound database holds: how far each chassis is behind, who carries gateways, ports that are down."""

from collections import Counter, deque
from collections.abc import Iterator

from exporters.node.ovn.moves import Moves
from exporters.node.ovn.replica import NUMBER, OPTIONAL, TEXT, Replica, Shape, options
from exporters.node.rows import Row

DATABASE = "OVN_Southbound"
SHAPE: Shape = {
    "SB_Global": {"nb_cfg": NUMBER},
    "Chassis": {"name": TEXT, "other_config": options("is-remote"), "hostname": TEXT},
    "Chassis_Private": {"name": TEXT, "chassis": OPTIONAL, "nb_cfg": NUMBER, "nb_cfg_timestamp": NUMBER},
    "Port_Binding": {"logical_port": TEXT, "type": TEXT, "chassis": OPTIONAL, "up": OPTIONAL},
    "Datapath_Binding": {},
    "Logical_Flow": {},
    "MAC_Binding": {},
    "Multicast_Group": {},
    "Service_Monitor": {},
}
GATEWAY = "chassisredirect"
MOST_NUMBERS = 1000  # of configurations whose beginning is remembered
# Port bindings that a chassis must carry, by type; the others belong to all.
CARRIED = {"": "workload", GATEWAY: "gateway", "l3gateway": "router", "virtual": "virtual"}


class Southbound:
    """What moved in it, and since when each configuration was wanted."""

    name, shape = DATABASE, SHAPE

    def __init__(self, shown: int | None = 50) -> None:
        self.shown = shown
        self.gateways, self.chassis = Moves(), Moves()
        self._wanted: deque[tuple[int, float]] = deque(maxlen=MOST_NUMBERS)

    def looks_at(self) -> frozenset[str]:
        """Tables whose changes may be moves."""
        return frozenset(("Chassis", "Port_Binding", "SB_Global"))

    def look(self, replica: Replica, now: float, steady: float) -> None:
        number = wanted(replica)
        if not self._wanted or self._wanted[-1][0] != number:
            if self._wanted and number < self._wanted[-1][0]:  # another database
                self._wanted.clear()
            self._wanted.append((number, steady))
        names = {uuid: row[0] for uuid, row in replica.rows["Chassis"].items()}
        self.gateways.look({port: {name} if name else set() for port, name in gateways(replica, names)}, now)
        # Who comes back has a new row.
        self.chassis.look({name: {uuid} for uuid, name in names.items()}, now)

    def behind(self, number: int, steady: float) -> float:
        """Seconds since a later configuration than that was wanted, as far as we saw; 0: none was."""
        return next((steady - at for later, at in self._wanted if later > number), 0.0)

    def rows(self, replica: Replica, steady: float) -> Iterator[Row]:
        names = {uuid: row[0] for uuid, row in replica.rows["Chassis"].items()}
        yield Row("ovnwatch_ovn_chassis", (), len(names))
        yield Row("ovnwatch_ovn_southbound_config", (), wanted(replica))
        yield from self._chassis_rows(replica, steady)
        for port, name in gateways(replica, names):
            yield Row("ovnwatch_ovn_gateway_info", (port, name), 1)
        yield from self.gateways.rows("ovnwatch_ovn_gateway_moves_total", "ovnwatch_ovn_gateway_move_timestamp_seconds")
        yield from self.chassis.rows(
            "ovnwatch_ovn_chassis_reappearances_total", "ovnwatch_ovn_chassis_reappearance_timestamp_seconds"
        )
        yield from _port_rows(replica)

    def _chassis_rows(self, replica: Replica, steady: float) -> Iterator[Row]:
        remote = {uuid for uuid, row in replica.rows["Chassis"].items() if row[1].get("is-remote") == "true"}
        hosts = {uuid: row[2] for uuid, row in replica.rows["Chassis"].items()}
        known = [
            (self.behind(number, steady), name, number, at, hosts.get(chassis, "") if chassis else "")
            for name, chassis, number, at in replica.rows["Chassis_Private"].values()
            if chassis not in remote
        ]
        known.sort(key=lambda each: (-each[0], each[1]))
        yield Row("ovnwatch_ovn_chassis_behind", (), sum(each[2] < wanted(replica) for each in known))
        yield Row("ovnwatch_ovn_chassis_lag_most_seconds", (), known[0][0] if known else 0.0)
        for lag, name, number, at, host in known[: self.shown]:
            yield Row("ovnwatch_ovn_chassis_info", (name, host), 1)
            yield Row("ovnwatch_ovn_chassis_config", (name,), number)
            yield Row("ovnwatch_ovn_chassis_lag_seconds", (name,), round(lag, 3))
            if at:
                yield Row("ovnwatch_ovn_chassis_config_timestamp_seconds", (name,), at / 1000)


def wanted(replica: Replica) -> int:
    return max((int(row[0]) for row in replica.rows["SB_Global"].values()), default=0)


def gateways(replica: Replica, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each gateway that may fail over, and the chassis that carries it; "": none."""
    for port, kind, chassis, _ in replica.rows["Port_Binding"].values():
        if kind == GATEWAY:
            yield port, names.get(chassis, "") if chassis else ""


def _port_rows(replica: Replica) -> Iterator[Row]:
    every, down = Counter[str](), Counter[str]()
    for _, kind, chassis, up in replica.rows["Port_Binding"].values():
        if kind in CARRIED:
            every[CARRIED[kind]] += 1
            down[CARRIED[kind]] += chassis is None or up is not True
    for kind in CARRIED.values():
        yield Row("ovnwatch_ovn_ports", (kind,), every[kind])
        yield Row("ovnwatch_ovn_ports_down", (kind,), down[kind])
