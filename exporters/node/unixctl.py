"""What ovs-appctl does, without it: commands to a daemon's control socket, whose name the pid file tells."""

import os
import re
import stat
from pathlib import Path

from exporters.node.failing import GarbledError, NotCollectedError, RefusedError
from exporters.node.rpc import Deadline, JsonRpc


def pid_of(folder: Path, daemon: str) -> int:
    """The process id in a daemon's pid file. Raises NotCollectedError where there is none, or no number in it."""
    path = folder / f"{daemon}.pid"
    try:
        text = _begin(path).decode("ascii", "replace")
    except FileNotFoundError as error:
        raise NotCollectedError(f"{daemon} does not run: there is no {path}") from error
    if not re.fullmatch(r"[1-9][0-9]{0,9}\s*", text, re.ASCII):
        raise NotCollectedError(f"{path} holds no process id")
    return int(text)


def _begin(path: Path) -> bytes:
    """The first bytes of a file; of a device or a pipe, which may have no end or never begin, none."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(file, 64) if stat.S_ISREG(os.fstat(file).st_mode) else b""
    finally:
        os.close(file)


class Unixctl(JsonRpc):
    """A connection to a daemon's control socket. The pid file is read anew for each, for a restart changes it."""

    def __init__(self, folder: Path, daemon: str, deadline: Deadline, at: Path | None = None) -> None:
        """Where `at` is given, the daemon was told to have its socket there."""
        self.pid = pid_of(folder, daemon)
        super().__init__(at or folder / f"{daemon}.{self.pid}.ctl", deadline)

    def run(self, command: str, *arguments: str) -> str:
        """Return what a command prints. Raises RefusedError with what the daemon says against it."""
        error, result = self.ask(command, arguments)
        if error is not None:
            raise RefusedError(f"{command}: {str(error).strip()[:200]}")
        if not isinstance(result, str):
            raise GarbledError(f"{command}: the answer is no text")
        return result
