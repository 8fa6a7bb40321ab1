"""The rights that manifests and units give the node exporter: enough to read everything, and not one too many."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml
from dummy_ovs import DummyOvs, dummy_ovs
from running import CODE, clean

from manifests.__main__ import ROOT

NOBODY = 65534


def given() -> set[str]:
    """The capabilities of the DaemonSet."""
    text = (ROOT / "manifests/base/node/daemonset.yaml").read_text()
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    return set(container["securityContext"]["capabilities"]["add"])


def failures(ovs: DummyOvs, capabilities: Collection[str]) -> dict[str, str]:
    """Collectors of OVS that fail for a root with these capabilities alone."""
    kept = ["-all", *(f"+{each.lower()}" for each in capabilities)]
    drop = ["setpriv", "--no-new-privs", f"--bounding-set={','.join(kept)}", "--inh-caps=-all"]
    command = ["node", "--once", "--output=json", f"--ovs.rundir={ovs.rundir}"]
    ran = subprocess.run(
        [*drop, sys.executable, "-c", CODE, *command], check=True, capture_output=True, text=True, env=clean(os.environ)
    )
    found: dict[str, str] = json.loads(ran.stdout)["failures"]
    return {name: why for name, why in found.items() if not name.startswith("ovn-")}


@pytest.mark.needs_root("setpriv", "ovs-vswitchd", "ovsdb-server")
def test_the_node_exporters_capabilities_are_those_it_needs_where_ovs_has_its_own_user() -> None:
    with dummy_ovs() as ovs:
        folder = Path(ovs.rundir)
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
            path.chmod(0o750)
        assert failures(ovs, given()) == {}
        for each in given():
            assert failures(ovs, given() - {each}), f"{each} is not needed"


def test_the_unit_gives_what_the_daemonset_does() -> None:
    unit = (ROOT / "containers/systemd/ovnwatch-node.service").read_text()
    (kept,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert set(kept.split()) == {f"CAP_{each}" for each in given()}
