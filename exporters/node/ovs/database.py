"""What OVS' own database says of the whole switch: its configuration, bridges, controllers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporters.node.failing import GarbledError
from exporters.node.ovsdb import MOST, one, uuid, uuids
from exporters.node.ovsdb import Row as DbRow
from exporters.node.rows import Row

TABLES = {
    "Open_vSwitch": ("cur_cfg", "next_cfg", "ovs_version", "db_version", "system_type", "other_config"),
    "Bridge": ("name", "ports", "datapath_type", "fail_mode", "controller"),
    "Controller": ("_uuid", "is_connected"),
}
Tables = Mapping[str, Sequence[DbRow]]


def rows(tables: Tables) -> Iterator[Row]:
    """Metrics of the three tables. Raises GarbledError."""
    if len(tables["Open_vSwitch"]) != 1:
        raise GarbledError("Open_vSwitch has not one row")
    (switch,) = tables["Open_vSwitch"]
    yield Row("ovnwatch_ovs_config_current", (), integer(switch["cur_cfg"]))
    yield Row("ovnwatch_ovs_config_next", (), integer(switch["next_cfg"]))
    labels = tuple(str(one(switch[each]) or "") for each in ("ovs_version", "db_version", "system_type"))
    yield Row("ovnwatch_ovs_database_info", labels, 1)
    offload = isinstance(switch["other_config"], dict) and switch["other_config"].get("hw-offload") == "true"
    yield Row("ovnwatch_ovs_hardware_offload", (), offload)
    yield Row("ovnwatch_ovs_bridges", (), len(tables["Bridge"]))
    connected = {uuid(row): row["is_connected"] is True for row in tables["Controller"]}
    for bridge in tables["Bridge"]:
        name = str(bridge["name"])
        info = (name, str(bridge["datapath_type"]) or "system", str(one(bridge["fail_mode"]) or ""))
        yield Row("ovnwatch_ovs_bridge_info", info, 1)
        yield Row("ovnwatch_ovs_bridge_ports", (name,), len(uuids(bridge["ports"])))
        controllers = Counter(connected.get(each, False) for each in uuids(bridge["controller"]))
        yield Row("ovnwatch_ovs_bridge_controllers", (name,), controllers.total())
        yield Row("ovnwatch_ovs_bridge_controllers_connected", (name,), controllers[True])


def integer(value: Any) -> int:
    """A whole number of the database. Raises GarbledError for everything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST:
        raise GarbledError("the database has no number where one should be")
    return value
