"""An exporter as a process, started as a user starts it; its ports are those its log tells."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from exporters.calibrate.namespaces import Namespace

CODE = "import sys; from exporters.cli import main; sys.exit(main(sys.argv[1:]))"
ECHOES = ("--listen.http", "--listen.tcp", "--listen.ws")
LISTEN = (*ECHOES, "--web.listen-address")
ANY_PORT = dict.fromkeys(LISTEN, "127.0.0.1:0")


class Exporter:
    """A running exporter, in the network namespace that `within` names; `ports` by server, as its log tells them."""

    def __init__(self, log: Path, *argv: str, code: str = CODE, within: str = "", **variables: str) -> None:
        self.log = log
        self.within = within
        enter = ["ip", "netns", "exec", within] if within else []
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*enter, sys.executable, "-c", code, *argv],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**clean(os.environ), "STATE_DIRECTORY": f"{log}.state", **variables},
            )

    def said(self) -> str:
        return self.log.read_text()

    @property
    def ports(self) -> dict[str, int]:
        return {name: int(port) for name, port in re.findall(r'msg="(\w+) is served on port (\d+)"', self.said())}

    def get(self, path: str, server: str = "web", method: str = "GET", token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{self.ports[server]}{path}"
        request = urllib.request.Request(url, method=method, headers=headers)
        if not self.within:
            return ask(request)
        with closing(Namespace(self.within)) as namespace:
            return namespace.call(ask, request)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        return "web" in self.ports and self.get("/-/ready")[0] == 200

    def end(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(15)


def ask(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=30) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def killed_at_the_end() -> Iterator[list[Exporter]]:
    """A list of exporters, none of which survives."""
    running: list[Exporter] = []
    try:
        yield running
    finally:
        for each in running:
            each.process.kill()
            each.process.wait()


def flags(given: Mapping[str, str]) -> list[str]:
    return [f"{flag}={value}" for flag, value in given.items()]


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what an exporter would take settings from."""
    ours = re.compile(
        r"OVNWATCH_|NODE_NAME|(.*_)?PEERS|HOSTNAME|.*_(INTERVAL|TIMEOUT)|MAX_HISTORY|RECONNECT_DELAY|DASHBOARD_PORT|STATE_DIR"
        r"|OV[NS]_RUNDIR|SNAP_COMMON"
    )
    return {name: value for name, value in environ.items() if not ours.match(name)}


def wait_for(what: Callable[[], object], seconds: float = 30.0, every: float = 0.05) -> None:
    """Ask `every` so many seconds until it is so; fail if it never is within about `seconds`."""
    for _ in range(int(seconds / every)):
        if what():
            return
        time.sleep(every)
    pytest.fail("it did not happen")


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of so many bytes, as mount says them; only root can have one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no room in a file system; the file that takes it."""
    room = os.statvfs(disk)
    filler = disk / "filler"
    with suppress(OSError):  # somebody else took some of it meanwhile
        filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
    return filler
