"""Tests that need more than Python say so by a marker; here it is decided what that means on this machine.

1. With CI=true a test whose component is missing fails: nothing may pass for tested that was not.
2. Elsewhere it is left out, and the last lines of the run say how many were and what is missing.
3. Generated examples have no deadline, for machines are slow at times; with CI=true they are the same at every run.
   `make quick` tries a quarter of them.
4. Where tests are handed out to several processes, those of a module in TOGETHER go to one of them.
"""

import os
import shutil
import subprocess
from collections import Counter
from functools import cache

import hypothesis
import pytest
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

CI = os.environ.get("CI") == "true"
SYSTEM = ("prometheus", "promtool", "prometheus-alertmanager", "amtool", "prometheus-blackbox-exporter")
TOGETHER = ("tests/test_images.py",)  # what they begin with takes minutes
LEFT_OUT = pytest.StashKey[Counter[str]]()

hypothesis.settings.register_profile(
    "house", deadline=None, derandomize=CI, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("house"), max_examples=25)
hypothesis.settings.load_profile("house")


@cache
def lacking(marker: str, named: tuple[str, ...]) -> str:
    """What this machine lacks for a marker, in words, or ""; `@pytest.mark.system("promtool")` names its commands."""
    wanted = {"needs_root": ("ip", "nft", *named), "system": named or SYSTEM}.get(marker, ())
    absent = [command for command in wanted if not shutil.which(command)]
    if (
        marker == "needs_root"
        and subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode
    ):
        absent.append("root that may make network namespaces")
    return ", ".join(absent)


def lacks(item: pytest.Item) -> str:
    missing = (lacking(mark.name, mark.args) for mark in item.iter_markers() if mark.name in ("needs_root", "system"))
    return ", ".join(filter(None, missing))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Hand out by TOGETHER: with pytest 9.2 and xdist 3.8 the marker xdist_group is lost."""
    if config.option.dist != "loadgroup":
        return None
    scheduler = LoadGroupScheduling(config, log)
    scheduler._split_scope = scope
    return scheduler


def scope(nodeid: str) -> str:
    module = nodeid.partition("::")[0]
    return module if module in TOGETHER else nodeid


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


@pytest.hookimpl(trylast=True)  # after -m and -k: what they leave out is nobody's loss
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CI:
        return
    left_out = {item: None for item in items if lacks(item)}
    config.stash[LEFT_OUT].update(map(lacks, left_out))
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if lacks(item):
        pytest.fail(f"missing: {lacks(item)} (as root, `make packages` installs what can be)", pytrace=False)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    left_out = session.config.stash[LEFT_OUT]
    if hasattr(session.config, "workeroutput"):  # each worker collects all tests, so any one's count is the count
        session.config.workeroutput["left_out"] = dict(left_out)
    elif exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and left_out:
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    left_out = getattr(node, "workeroutput", {}).get("left_out", {})
    node.config.stash[LEFT_OUT] = Counter(left_out)  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for missing, count in config.stash[LEFT_OUT].items():
        terminalreporter.write_line(f"left out: {count}, for this machine has no {missing}", yellow=True)
