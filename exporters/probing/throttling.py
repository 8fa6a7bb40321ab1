"""Did the CPU quota of our cgroup stop us? What the kernel counts of it, in cgroups of version 1 and 2."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

UNITS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}  # of version 2 and 1; seconds


def throttled_seconds(stat: str) -> float | None:
    """What a cpu.stat counts, added up over the CPUs; None where it counts no such thing."""
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name in UNITS and value.isascii() and value.isdigit():
            return int(value) * UNITS[name]
    return None


def candidates(cgroup: str, mountinfo: str) -> list[Path]:
    """Where the cpu.stat of a process can be, the likeliest first, by its /proc/PID/cgroup and /proc/PID/mountinfo."""
    paths: dict[str, str] = {}
    for line in cgroup.splitlines():
        _number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path.startswith("/"):
            continue
        if not controllers:
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    found = [
        _below(PurePosixPath(root), PurePosixPath(mounted), PurePosixPath(paths[kind]))
        for root, mounted, kind in _mounts(mountinfo)
        if kind in paths
    ]
    return [Path(each) / "cpu.stat" for each in found]


def _mounts(mountinfo: str) -> list[tuple[str, str, str]]:
    """(root, where it is mounted, cgroup or cgroup2) of the mounts that can have a cpu.stat, version 1 first."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, of_type = left.split(), right.split()
        if len(fields) > 4 and len(of_type) > 2:
            kind, options = of_type[0], of_type[2].split(",")
            if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options):
                found.append((fields[3], fields[4], kind))
    return sorted(found, key=lambda each: each[2])


def _below(root: PurePosixPath, mounted: PurePosixPath, path: PurePosixPath) -> PurePosixPath:
    """A container sees its own part of the tree: the path may begin above what is mounted, or be of another view."""
    if ".." in path.parts:
        return mounted
    return mounted / path.relative_to(root if path.is_relative_to(root) else "/")


class Throttling:
    """One cpu.stat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = self.seconds() or 0.0

    def seconds(self) -> float | None:
        """The count as it stands; None where there is none. May be asked from another thread."""
        try:
            return throttled_seconds(self.path.read_text(encoding="utf-8", errors="replace"))
        except OSError:  # no such cgroup, or it is gone, for we were moved to another one
            return None

    def grown(self) -> float:
        """By how many seconds it grew since the last call."""
        now = self.seconds()
        if now is None:
            return 0.0
        last, self._last = self._last, now
        return max(0.0, now - last)


def ours(proc: Path = Path("/proc/self")) -> Throttling | None:
    """The cpu.stat of this process' cgroup; None where nothing counts."""
    try:
        places = candidates((proc / "cgroup").read_text(), (proc / "mountinfo").read_text())
    except OSError:
        return None
    found = (Throttling(place) for place in places)
    return next((each for each in found if each.seconds() is not None), None)
