"""Build a lab, take it down, and what of it runs: the commands of the plan, carried out."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from exporters.calibrate import namespaces
from lab.ovn import build, topology
from lab.ovn.build import Run
from lab.ovn.topology import Daemon, Lab

PREFIX = re.compile(r"[a-z][a-z0-9]{0,9}")  # and "-mgmt" behind it: an interface's name has 15 characters at most
LONGEST_FOLDER = 60  # and the name of a socket in it: Linux allows 107 characters
STATE = "lab.json"
COMMAND_SECONDS = 60.0
# What is needed, and the Debian package that has it.
PROGRAMS = {
    "ip": "iproute2",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "ethtool": "ethtool",
    "nft": "nftables",
    "ovsdb-server": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovn-northd": "ovn-central",
    "ovn-controller": "ovn-host",
}


class LabError(Exception):
    """It could not be done; the message says what and why."""


def lacking() -> list[str]:
    """What this machine lacks for a lab, each in words."""
    packages = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    found = [f"programs: apt-get install {' '.join(packages)}, or make packages"] if packages else []
    if os.geteuid() != 0:
        return [*found, "root"]
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        found.append("the right to make network namespaces")
    if not Path("/dev/net/tun").exists():
        found.append("/dev/net/tun")
    return found


def run(command: Run) -> str:
    """What a command prints. Raises LabError when it fails."""
    inside = ["ip", "netns", "exec", command.within] if command.within else []
    try:
        done = subprocess.run(
            [*inside, *command.argv],
            input=command.text,
            env={**os.environ, **command.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
            process_group=0,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{_said(command)}: did not end within {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        raise LabError(f"{_said(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def run_all(commands: Iterable[Run]) -> None:
    for each in commands:
        run(each)


def _said(command: Run) -> str:
    line = shlex.join(command.argv)
    return line if len(line) < 200 else f"{line[:200]} …"


# --- up and down


def up(lab: Lab) -> bool:
    """Build a lab, or start again what of it does not run; False: all of it ran. Raises LabError."""
    with namespaces.alone(lab.prefix):
        found = known(lab.prefix, lab.folder)
        if found and found.complete and set(_spaces(lab.prefix)) == _wanted(found.lab):
            if found.lab != lab:
                raise LabError(f"{told(found.lab)} is up with this prefix; `ovnwatch lab down` comes first")
            stopped = [each for each in topology.all_daemons(lab) if not pid(each)]
            run_all(command for each in stopped for command in build.start(lab, each))
            run_all(build.ready(lab) if stopped else ())
            return bool(stopped)
        _remove(lab.prefix, lab.folder)
        _write(lab, complete=False)
        for folder in topology.folders(lab):
            folder.mkdir(parents=True)
        try:
            run_all(build.commands(lab))
        except BaseException:
            _remove(lab.prefix, lab.folder)
            raise
        _write(lab, complete=True)
        return True


def down(prefix: str, folder: Path) -> bool:
    """Remove all of a lab, whatever state it is in; False: there was nothing. Raises LabError."""
    with namespaces.alone(prefix):
        return _remove(prefix, folder)


def told(lab: Lab) -> str:
    """A lab in words."""
    cluster = f", databases of {lab.centrals} members" if lab.centrals > 1 else ""
    return f"a lab of {lab.chassis} chassis{cluster}"


def _remove(prefix: str, folder: Path) -> bool:
    found = known(prefix, folder)  # raises for a folder that is not this lab's
    spaces = _spaces(prefix)
    # Deleted first: the kernel takes links along with their namespaces, but in its own time.
    link = Lab(prefix, folder).link
    if link in (name for _, name in socket.if_nameindex()):
        run(Run(("ip", "link", "delete", link)))
    namespaces.clear(spaces)
    if found:
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # other labs are in it, or there never was one
        default_folder("").rmdir()
    return bool(spaces or found)


def _spaces(prefix: str) -> list[str]:
    ours = re.compile(rf"{re.escape(prefix)}-(net|outside|(central|ch|w)\d+)")
    return [name for name in namespaces.there() if ours.fullmatch(name)]


def _wanted(lab: Lab) -> set[str]:
    return {lab.namespace(host) for host in ("net", *lab.hosts)}


# --- its folder


class Known(NamedTuple):
    """A lab whose folder was found; complete: it was built to its end."""

    lab: Lab
    complete: bool


def default_folder(prefix: str) -> Path:
    """Where a lab has its files if nothing else is said."""
    return Path("/run/ovnwatch-lab") / prefix


def known(prefix: str, folder: Path) -> Known | None:
    """What a folder says of the lab in it; None: there is none. Raises LabError for a folder of something else."""
    try:
        text = (folder / STATE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise LabError(f"{folder} is no folder of a lab; name another one") from None
        return None
    except OSError as error:
        raise LabError(str(error)) from error
    try:
        state = json.loads(text)
        found = Known(Lab(state["prefix"], folder, state["chassis"], state["centrals"]), complete=state["complete"])
    except (ValueError, KeyError, TypeError):  # a disk was full, or somebody wrote to it
        return Known(Lab(prefix, folder), complete=False)
    if found.lab.prefix != prefix:
        raise LabError(f"{folder} is of the lab with prefix {found.lab.prefix}")
    return found


def _write(lab: Lab, *, complete: bool) -> None:
    lab.folder.mkdir(parents=True, exist_ok=True)
    new = lab.folder / f"{STATE}.new"
    new.write_text(json.dumps({**topology.plain(lab), "complete": complete}), encoding="utf-8")
    new.replace(lab.folder / STATE)


# --- daemons


def pid(daemon: Daemon) -> int:
    """The process of a daemon; 0: it does not run."""
    try:
        found = int(daemon.pid_file.read_text())
        name = Path(f"/proc/{found}/comm").read_text().strip()
        state = _state(found)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return 0
    return found if name == daemon.argv[0][:15] and state != "Z" else 0


def _state(process: int) -> str:
    """R, S, T, Z and so on, as /proc tells it."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


def state(daemon: Daemon) -> str:
    """running, stopped (by a signal, until it is told to go on) or ended."""
    found = pid(daemon)
    try:
        return {"T": "stopped"}.get(_state(found), "running") if found else "ended"
    except (FileNotFoundError, ProcessLookupError):
        return "ended"


def tell(daemon: Daemon, number: signal.Signals) -> None:
    """Send a daemon a signal. Raises LabError if it does not run."""
    found = pid(daemon)
    if not found:
        raise LabError(f"{daemon.name} of {daemon.host} does not run")
    os.kill(found, number)
