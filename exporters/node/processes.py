"""What a process costs: /proc/<pid>/stat and its neighbours (man 5 proc), as text; and rows of it.

1234 (ovs-vswitchd) S 1 1234 1234 0 -1 4194560 2209 0 4 0 18 21 0 0 10 -10 3 0 5555 77742080 10520 18446744073709...
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.rows import Row, named

COMMAND_LENGTH = 15  # what the kernel keeps of a name
OPEN_FILES = re.compile(r"^Max open files\s+(\d+|unlimited)\s", re.ASCII | re.MULTILINE)
BOOT = re.compile(r"^btime (\d+)$", re.ASCII | re.MULTILINE)
PROCESSOR = re.compile(r"^cpu\d+ ", re.ASCII | re.MULTILINE)


class Usage(NamedTuple):
    """One process: CPU and start in seconds (Unix time), memory in bytes; files are None where we may not count."""

    command: str
    cpu: float
    resident: int
    virtual: int
    threads: int
    start: float
    files: int | None = None
    most_files: int | None = None


def boot_time(stat: str) -> int:
    """When the machine started, in Unix time, from /proc/stat. Raises GarbledError."""
    found = BOOT.search(stat)
    if not found:
        raise GarbledError("/proc/stat tells no boot time")
    return int(found[1])


def processors(stat: str) -> int:
    """How many are online, by /proc/stat. Raises GarbledError."""
    found = len(PROCESSOR.findall(stat))
    if not found:
        raise GarbledError("/proc/stat tells no processor")
    return found


def parse(stat: str, boot: float, ticks: int, page: int) -> Usage:
    """/proc/<pid>/stat, with the clock's ticks per second and the size of a page. Raises GarbledError."""
    before, _, after = stat.rpartition(")")
    command, fields = before.partition("(")[2], after.split()
    if len(fields) < 22 or not all(re.fullmatch(r"\d{1,20}", fields[index], re.ASCII) for index in (11, 12, 17, 19)):
        raise GarbledError("/proc/<pid>/stat is not what the manual says")
    if not all(re.fullmatch(r"\d{1,20}", fields[index], re.ASCII) for index in (20, 21)):
        raise GarbledError("/proc/<pid>/stat is not what the manual says")
    return Usage(
        command,
        cpu=(int(fields[11]) + int(fields[12])) / ticks,
        resident=int(fields[21]) * page,
        virtual=int(fields[20]),
        threads=int(fields[17]),
        start=boot + int(fields[19]) / ticks,
    )


def open_files_limit(limits: str) -> int | None:
    """The soft limit in /proc/<pid>/limits; None where there is none."""
    found = OPEN_FILES.search(limits)
    return int(found[1]) if found and found[1] != "unlimited" else None


def is_it(usage: Usage, command: str) -> bool:
    """Whether a process is the one of that name; its number may be another's since."""
    return usage.command == command[:COMMAND_LENGTH]


def rows(daemons: Mapping[str, Usage | None]) -> Iterator[Row]:
    """Of each daemon; None: it does not run."""
    for daemon, usage in daemons.items():
        yield Row("ovnwatch_node_daemon_up", (daemon,), usage is not None)
        if usage is None:
            continue
        found = {
            "ovnwatch_node_daemon_cpu_seconds_total": usage.cpu,
            "ovnwatch_node_daemon_resident_memory_bytes": usage.resident,
            "ovnwatch_node_daemon_virtual_memory_bytes": usage.virtual,
            "ovnwatch_node_daemon_threads": usage.threads,
            "ovnwatch_node_daemon_start_timestamp_seconds": usage.start,
            "ovnwatch_node_daemon_open_files": usage.files,
            "ovnwatch_node_daemon_open_files_limit": usage.most_files,
        }
        yield from named(found, (daemon,))
