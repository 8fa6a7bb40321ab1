"""What of a lab runs, and who carries what: read from its daemons and databases, told as a table or as JSON.

What the databases do not tell is None: unknown is neither well nor broken.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporters.calibrate import namespaces
from exporters.history.shown import columns
from lab.ovn import build, run, topology
from lab.ovn.build import HA_PORT, Run
from lab.ovn.run import LabError
from lab.ovn.topology import HA_GATEWAY, Lab, gateway, gateway_address, join_address

Rows = Sequence[Mapping[str, Any]]  # of a database's table
Status = dict[str, Any]
READ = ("--no-leader-only", "--format=json")  # any member of a cluster will do
QUERIES = {
    "chassis": ("--columns=_uuid,name", "list", "Chassis"),
    "ports": ("--columns=logical_port,chassis,up", "list", "Port_Binding"),
    "policies": ("--columns=match,nexthops", "find", "Logical_Router_Policy", f"priority={build.EGRESS_PRIORITY}"),
    "nats": ("--columns=logical_ip,external_ip", "find", "NAT", "type=snat"),
}


def read(lab: Lab) -> Status:
    """All there is to tell of a lab; its shape is that of `judged`."""
    there = set(namespaces.there())
    hosts = [
        {
            "name": host,
            "namespace": lab.namespace(host) if lab.namespace(host) in there else None,
            "management": lab.management(host),
            "daemons": [
                {"name": each.name, "state": run.state(each), "pid": run.pid(each) or None}
                for each in topology.daemons(lab, host).values()
            ],
        }
        for host in lab.hosts
    ]
    tables = {
        name: _rows((build.sbctl if name in ("chassis", "ports") else build.nbctl)(lab, *READ, *query))
        for name, query in QUERIES.items()
    }
    return judged(lab, hosts, tables)


def _rows(query: Run) -> Rows | None:
    quick = query._replace(argv=tuple("--timeout=3" if each == build.PATIENCE else each for each in query.argv))
    try:
        return rows(json.loads(run.run(quick)))
    except LabError:
        return None


def rows(document: Mapping[str, Any]) -> Rows:
    """The rows of an OVSDB table as its tools print it; a set of none is None, and of more than one a list. Pure.

    {"headings": ["name", "chassis"], "data": [["w1", ["uuid", "43be…"]], ["w2", ["set", []]]]}
    """
    return [dict(zip(document["headings"], map(_value, each), strict=True)) for each in document["data"]]


def _value(cell: Any) -> Any:
    if not isinstance(cell, list):
        return cell
    kind, inside = cell
    if kind == "set":
        return [_value(each) for each in inside] if len(inside) > 1 else None if not inside else _value(inside[0])
    return inside


def judged(lab: Lab, hosts: Sequence[Mapping[str, Any]], tables: Mapping[str, Rows | None]) -> Status:
    """What is told of a lab, with `well`: True, False, or None if its databases do not say. Pure."""
    names = {row["_uuid"]: row["name"] for row in tables["chassis"] or ()}
    on = {row["logical_port"]: names.get(row["chassis"]) for row in tables["ports"] or ()}
    up = {row["logical_port"] for row in tables["ports"] or () if row["up"] is True}
    known = tables["chassis"] is not None and tables["ports"] is not None
    running = all(each["namespace"] and all(one["state"] == "running" for one in each["daemons"]) for each in hosts)
    settled = {*names.values()} >= {*lab.chassis_names} and up >= {*lab.workloads}
    routers = {gateway(each): f"{gateway(each)}-join" for each in lab.chassis_names} | {"ha": f"cr-{HA_PORT}"}
    outside = {gateway(each): gateway_address(each) for each in lab.chassis_names} | {"ha": HA_GATEWAY}
    return {
        **topology.plain(lab),
        "dir": str(lab.folder),
        "well": False if not running else settled if known else None,
        "hosts": list(hosts),
        "workloads": [
            {
                "name": each,
                "address": topology.address(each),
                "vip": topology.vip(each),
                "chassis": on.get(each),
                "up": each in up if known else None,
                "egress": _egress(lab, each, tables),
            }
            for each in lab.workloads
        ],
        "gateways": [
            {"name": name, "address": outside[name], "chassis": on.get(port)} for name, port in routers.items()
        ],
    }


def _egress(lab: Lab, workload: str, tables: Mapping[str, Rows | None]) -> dict[str, str] | None:
    """By which router a workload's packets leave, and whose address they have then."""
    policies, nats, at = tables["policies"], tables["nats"], topology.address(workload)
    if policies is None or nats is None:
        return None
    home = f"ch{topology.number(workload)}"
    routers = {join_address(each): gateway(each) for each in lab.chassis_names}
    hop = next((row["nexthops"] for row in policies if row["match"] == build.egress_match(workload)), None)
    seen = next((row["external_ip"] for row in nats if row["logical_ip"] == at), gateway_address(home))
    return {"by": routers.get(hop or join_address(home), "?"), "as": seen}


# --- as text


def table(status: Status) -> Iterator[str]:
    """A status as three small tables and a sentence."""
    hosts = [("HOST", "NAMESPACE", "MANAGEMENT", "DAEMONS")]
    for host in status["hosts"]:
        daemons = " ".join(_daemon(each) for each in host["daemons"])
        hosts.append((host["name"], host["namespace"] or "(gone)", host["management"], daemons or "-"))
    yield from columns(hosts)
    yield "\n"
    workloads = [("WORKLOAD", "ADDRESS", "VIP", "ON", "GOES OUT BY")]
    for each in status["workloads"]:
        egress = "{by} as {as}".format(**each["egress"]) if each["egress"] else "?"
        on = (each["chassis"] or "?") + ("" if each["up"] in (True, None) else " (down)")
        workloads.append((each["name"], each["address"], each["vip"], on, egress))
    yield from columns(workloads)
    yield "\n"
    gateways = [(each["name"], each["address"], each["chassis"] or "?") for each in status["gateways"]]
    yield from columns([("GATEWAY", "ADDRESS", "ON"), *gateways])
    words = {True: "All of it runs.", False: "Not all of it runs.", None: "Its databases do not answer."}
    yield f"\n{words[status['well']]}\n"


def _daemon(each: Mapping[str, Any]) -> str:
    return str(each["name"]) if each["state"] == "running" else f"{each['name']}({each['state']})"


def as_json(status: Status) -> Iterator[str]:
    yield json.dumps(status, indent=2) + "\n"


FORMS = {"table": table, "json": as_json}
