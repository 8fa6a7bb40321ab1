"""What the watch on a large southbound database costs: 1000 chassis and 20 000 port bindings, none of which exist."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import LISTEN, Exporter, wait_for
from test_ovn_lab import Served

from exporters.node.rpc import Deadline, JsonRpc

NEEDS = ("ovsdb-server", "ovsdb-tool")
pytestmark = [pytest.mark.system(*NEEDS), pytest.mark.slow]
CHASSIS, PORTS, FLOWS = 1000, 20_000, 50_000
MOST_MEMORY = 150 << 20
SECONDS = 10.0  # of chassis that report, all of them once in 30 s
SCHEMA = "/usr/share/ovn/ovn-sb.ovsschema"


def transact(folder: Path, *operations: dict[str, Any]) -> list[str]:
    """The UUIDs of what was inserted."""
    with JsonRpc(folder / "sb.sock", Deadline(60)) as server:
        error, results = server.ask("transact", ["OVN_Southbound", *operations])
    assert error is None
    assert not any("error" in each for each in results if each), results
    return [each["uuid"][1] for each in results if each and "uuid" in each]


def insert(table: str, name: str = "", /, **row: Any) -> dict[str, Any]:
    return {"op": "insert", "table": table, "row": row} | ({"uuid-name": name} if name else {})


def chassis(number: int) -> Iterator[dict[str, Any]]:
    name = f"node-{number}"
    address = f"10.1.{number // 250}.{number % 250}"
    yield insert("Encap", f"e{number}", type="geneve", ip=address, chassis_name=name)
    told = ["map", [["iface-types", "geneve," * 30], ["ovn-bridge-mappings", "physnet:br-ex"]]]
    encaps = ["named-uuid", f"e{number}"]
    yield insert("Chassis", f"c{number}", name=name, hostname=f"{name}.example", encaps=encaps, other_config=told)
    yield insert("Chassis_Private", name=name, chassis=["named-uuid", f"c{number}"], nb_cfg=1)


def fill(folder: Path) -> None:
    transact(folder, insert("SB_Global", nb_cfg=1))
    found: list[str] = []
    for start in range(0, CHASSIS, 100):
        rows = [each for number in range(start, start + 100) for each in chassis(number)]
        found += transact(folder, *rows)[1::3]
    networks = transact(folder, *(insert("Datapath_Binding", tunnel_key=number + 1) for number in range(100)))
    for start in range(0, PORTS, 500):
        transact(
            folder,
            *(
                insert(
                    "Port_Binding",
                    logical_port=f"namespace-{number % 50}_pod-{number:06d}-abcdef",
                    datapath=["uuid", networks[number % 100]],
                    tunnel_key=number // 100 + 1,
                    chassis=["uuid", found[number % CHASSIS]],
                    up=bool(number % 1000),
                )
                for number in range(start, start + 500)
            ),
        )


def flows(folder: Path, first: int, count: int) -> None:
    """Logical flows as long as OVN's, and a monitored service for every hundredth."""
    rows = (
        insert(
            "Logical_Flow",
            pipeline="ingress",
            table_id=number % 30,
            priority=number % 60_000,
            match=f'outport == "namespace_pod-{number:06d}" && ip4.dst == 10.0.0.0/8',
            actions="next;",
        )
        for number in range(first, first + count)
    )
    services = (
        insert("Service_Monitor", ip=f"10.9.{number // 250}.{number % 250}", port=80, logical_port="p")
        for number in range(first // 100, (first + count) // 100)
    )
    transact(folder, *rows, *services)


def memory(exporter: Exporter) -> int:
    """Resident bytes, the most there ever were."""
    text = Path(f"/proc/{exporter.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found
    return int(found[1]) << 10


def rows_of(page: str) -> tuple[int, int]:
    """How many logical flows and monitored services."""
    found = {table: int(count) for table, count in re.findall(r'ovnwatch_ovn_rows{.*table="(\w+)"} (\d+)', page)}
    return found["Logical_Flow"], found["Service_Monitor"]


def spent(exporter: Exporter) -> float:
    """Seconds of CPU."""
    words = Path(f"/proc/{exporter.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def report(folder: Path) -> None:
    """Chassis that say, one after another, how far they are."""
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        where = [["name", "==", f"node-{number % CHASSIS}"]]
        row = {"nb_cfg": number + 2}
        transact(folder, {"op": "update", "table": "Chassis_Private", "where": where, "row": row})
        number += 1
        time.sleep(30 / CHASSIS)


def test_a_large_database_fits_into_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Served(tmp_path, SCHEMA, "sb", tls=False):
        fill(tmp_path)
        for first in range(0, FLOWS, 5000):
            flows(tmp_path, first, 5000)
        only = [f"--no-collector.{each}" for each in ("links", "addresses")]
        told = ["--source=n", f"--ovn.sb-db=unix:{tmp_path}/sb.sock", "--ovn.chassis=all", "--collector.timeout=20"]
        exporter = Exporter(tmp_path / "log", "node", *only, *told, f"{LISTEN[-1]}=127.0.0.1:0")
        try:
            wait_for(exporter.ready, 30)
            page = exporter.get("/metrics")[1]
            assert f"ovnwatch_ovn_chassis {CHASSIS}" in page
            assert f'ovnwatch_ovn_ports{{kind="workload"}} {PORTS}' in page
            assert f'ovnwatch_ovn_ports_down{{kind="workload"}} {PORTS // 1000}' in page
            assert page.count("ovnwatch_ovn_chassis_lag_seconds{") == CHASSIS
            assert rows_of(page) == (FLOWS, FLOWS // 100)
            flows(tmp_path, FLOWS, 1000)  # what comes and goes is told
            assert rows_of(exporter.get("/metrics")[1]) == (FLOWS + 1000, FLOWS // 100 + 10)
            gone = {"op": "delete", "table": "Logical_Flow", "where": [["priority", "<", 100]]}
            transact(tmp_path, gone)
            assert rows_of(exporter.get("/metrics")[1])[0] == FLOWS + 1000 - 100
            times = []
            for _ in range(20):
                began = time.perf_counter()
                exporter.get("/metrics")
                times.append(1000 * (time.perf_counter() - began))
            before, began = spent(exporter), time.monotonic()
            report(tmp_path)
            share = (spent(exporter) - before) / (time.monotonic() - began)
            most = memory(exporter)
        finally:
            exporter.end()
    times.sort()
    with capsys.disabled():
        print(
            f"\n{CHASSIS} chassis, {PORTS} port bindings, {FLOWS} logical flows: "
            f"at most {most >> 20} MiB, {100 * share:.1f} % of a CPU, "
            f"scrape {times[10]:.0f} ms ({times[0]:.0f} to {times[-1]:.0f})"
        )
    assert most < MOST_MEMORY
