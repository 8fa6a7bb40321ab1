"""A cluster of many nodes, as its API server tells it: `python tests/many_nodes.py NODES EVENTS` prints a kubeconfig.

Once somebody watches the nodes, they change EVENTS times, one after the other; LAST_NODE's boot id is DONE at the end.
Each node is as large as a real one: fifty images, a dozen conditions and addresses, annotations of the network.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fake_api import FakeApi, serving

LAST_NODE, DONE = "node-0", "done"
IMAGES = [
    {"names": [f"registry.example/openshift/release-{number:03}@sha256:{'f' * 64}"], "sizeBytes": 400_000_000 + number}
    for number in range(50)
]
INFO = dict.fromkeys(
    ("architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion", "machineID",
     "operatingSystem", "osImage", "systemUUID"), "x"
)  # fmt: skip
KINDS = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready")


def node(name: str, boot_id: str, beat: int) -> dict[str, Any]:
    conditions = [
        {
            "type": kind,
            "status": "True" if kind == "Ready" else "False",
            "lastHeartbeatTime": f"2026-03-10T08:{beat // 60 % 60:02}:{beat % 60:02}Z",
            "lastTransitionTime": "2026-02-18T08:00:00Z",
            "reason": f"KubeletHas{kind}",
            "message": f"kubelet says {kind}",
        }
        for kind in KINDS
    ]
    notes = {f"k8s.ovn.org/note-{number}": f'{{"default":["10.{number}.0.0/23"]}}' for number in range(20)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": notes, "labels": {f"label-{number}": "x" for number in range(20)}},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"nodeInfo": {**INFO, "bootID": boot_id}, "conditions": conditions, "images": IMAGES},
    }


def beats(nodes: int, events: int) -> Iterator[tuple[bool, dict[str, Any]]]:
    for number in range(1, events):
        yield True, node(f"node-{number % nodes}", "b", number)
    yield True, node(LAST_NODE, DONE, events)


def fill(api: FakeApi, nodes: int) -> None:
    api.put((True, node(f"node-{number}", "b", 0)) for number in range(nodes))


def main() -> None:
    nodes, events = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder, serving() as api:
        fill(api, nodes)
        print(api.config(Path(folder)), flush=True)
        while not any(each.query.get("watch") and each.path.endswith("/nodes") for each in list(api.asked)):
            time.sleep(0.02)
        api.put(beats(nodes, events))
        time.sleep(600.0)  # somebody ends us


if __name__ == "__main__":
    main()
