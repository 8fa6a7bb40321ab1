"""What the kernel counts of CPU throttling, found wherever a cgroup's files can be."""

from pathlib import Path

import pytest

from exporters.probing import throttling
from exporters.probing.throttling import Throttling, candidates, throttled_seconds

V2 = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 10\nnr_throttled 4\nthrottled_usec 1500000\n"
V1 = "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\nnr_bursts 0\nburst_time 0\n"
ROOT_V2 = "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"  # no cpu controller: nothing is counted

ON_V2 = "29 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
ON_V1 = (
    "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "32 25 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 25 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)
IN_V1 = "4:memory:/other\n3:cpuset:/\n2:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/unified\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [(V2, 1.5), (V1, 1.5), (ROOT_V2, None), ("", None), ("throttled_usec x\n", None)]
)
def test_both_versions_count_in_their_own_unit(text: str, seconds: float | None) -> None:
    assert throttled_seconds(text) == seconds


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "first"),
    [
        ("0::/system.slice/ovnwatch.service\n", ON_V2, "/sys/fs/cgroup/system.slice/ovnwatch.service"),
        ("0::/\n", ON_V2, "/sys/fs/cgroup"),  # a container with its own view
        ("0::/../../other\n", ON_V2, "/sys/fs/cgroup"),  # entered from outside that view
        (IN_V1.format(path="/ours"), ON_V1.format(root="/"), "/sys/fs/cgroup/cpu,cpuacct/ours"),
        (IN_V1.format(path="/docker/abc"), ON_V1.format(root="/docker/abc"), "/sys/fs/cgroup/cpu,cpuacct"),
        (IN_V1.format(path="/docker/abc/in"), ON_V1.format(root="/docker/abc"), "/sys/fs/cgroup/cpu,cpuacct/in"),
    ],
)
def test_the_file_is_found(cgroup: str, mountinfo: str, first: str) -> None:
    assert candidates(cgroup, mountinfo)[0] == Path(first) / "cpu.stat"


@pytest.mark.parametrize("cgroup", ["", "nonsense\n", "0::\n", "::::\n", "5:memory:/x\n"])
@pytest.mark.parametrize(
    "mountinfo", ["", "a - b\n", "1 2 3 4 5 - cgroup2\n", ON_V2.replace("cgroup2 cgroup2", "ext4 x")]
)
def test_what_is_no_cgroup_is_none(cgroup: str, mountinfo: str) -> None:
    assert candidates(cgroup, mountinfo) == []


def made(tmp_path: Path, text: str | None) -> Path:
    """A /proc/self whose cgroup's cpu.stat is this."""
    (tmp_path / "cgroup").write_text("0::/ours\n")
    (tmp_path / "mountinfo").write_text(f"29 24 0:26 / {tmp_path}/fs rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "fs/ours").mkdir(parents=True)
    if text is not None:
        (tmp_path / "fs/ours/cpu.stat").write_text(text)
    return tmp_path


def test_growth_is_since_the_last_look_and_never_negative(tmp_path: Path) -> None:
    found = throttling.ours(made(tmp_path, V2))
    assert found is not None
    assert (found.seconds(), found.grown()) == (1.5, 0.0)
    found.path.write_text(V2.replace("1500000", "1750000"))
    assert found.grown() == pytest.approx(0.25)
    assert found.grown() == 0.0
    found.path.write_text(V2)
    assert found.grown() == 0.0


@pytest.mark.parametrize("text", [None, ROOT_V2, ""])
def test_where_nothing_counts_there_is_nothing(tmp_path: Path, text: str | None) -> None:
    assert throttling.ours(made(tmp_path, text)) is None
    assert throttling.ours(tmp_path / "no such process") is None


def test_a_cgroup_that_is_gone_tells_nothing_more(tmp_path: Path) -> None:
    found = Throttling(made(tmp_path, V2) / "fs/ours/cpu.stat")
    found.path.unlink()
    assert (found.seconds(), found.grown()) == (None, 0.0)
