"""Real faults in a real OVN: do alerts arrive at a real Alertmanager's webhook, and none while nothing is broken?"""

import os
import re
import subprocess
import sys

import pytest
from running import CODE
from test_lab import NEEDS

from exporters import catalog
from lab.monitoring import Notice
from lab.ovn import faults
from lab.ovn.alarms import Arrived

SECONDS = 400  # it takes a bit over a minute on a machine that is not busy


def test_faults_name_alerts_there_are_and_many() -> None:
    named = {f"Ovnwatch{name}" for those in faults.ROUNDS for fault in those for name in fault.fires}
    assert named <= set(catalog.load().thresholds)
    assert len(named) >= 30
    assert {f"Ovnwatch{name}" for name in faults.AFTERWARDS} <= named


def test_what_lasts_from_before_the_quiet_time_came_too_early() -> None:
    def notice(name: str, status: str, node: str = "ch1") -> Notice:
        return Notice(f"Ovnwatch{name}", "warning", status, {"alertname": name, "k8s_node": node}, "text", 1.0)

    arrived = Arrived()
    arrived.told([notice(name, "firing") for name in ("Watchdog", "CollectorFailing", "TunnelsDown", "OutageEnded")])
    arrived.told([notice("TunnelsDown", "resolved"), notice("CollectorFailing", "resolved", node="ch2")])
    arrived.begin()
    assert set(arrived.first) == {"Watchdog", "CollectorFailing"}


@pytest.mark.needs_root(*NEEDS)
@pytest.mark.system("prometheus", "prometheus-alertmanager", *NEEDS)
@pytest.mark.slow
def test_alerts_arrive_by_real_faults_and_not_before() -> None:
    command = [sys.executable, "-c", CODE, "lab", "alarms", f"--prefix=t{os.getpid() % 10**6}a", "--quiet=5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    arrived = re.search(r"PASS: (\d+) alerts arrived", done.stdout)
    assert arrived
    assert int(arrived[1]) >= 30
