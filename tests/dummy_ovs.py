"""An Open vSwitch with a simulated datapath: its own daemons in a folder of their own, as any user, without a network.

Its whole control plane is real, and it says of its datapath what a kernel one would (`system@ovs-system`). Ports are of
the types `dummy` and `dummy-internal`; packets are handed to it (`receive`), its clock can be stopped and moved on
(`appctl("time/stop")`, `appctl("time/warp", "60000")`).
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from running import wait_for

READY_SECONDS = 30.0  # a machine that is not busy needs 0.2
POLL_SECONDS = 0.01
STOP_SECONDS = 10.0
COMMANDS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
QUIET = ("-vconsole:off", "--no-chdir", "--pidfile", "--log-file")
# What a ping from 192.168.0.1 to 192.168.0.2 looks like on a port, in the words of `ovs-appctl`.
PING = (
    "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),"
    "ipv4(src=192.168.0.1,dst=192.168.0.2,proto=1,tos=0,ttl=64,frag=no),icmp(type=8,code=0)"
)


class DummyOvs:
    """Its daemons; `rundir` is what OVS_RUNDIR names. The folder is short: paths of sockets may have 107 characters."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.rundir, self.dbdir, self.logdir = (folder / each for each in ("run", "db", "log"))
        for each in (self.rundir, self.dbdir, self.logdir):
            each.mkdir(parents=True)
        folders = {"OVS_RUNDIR": self.rundir, "OVS_DBDIR": self.dbdir, "OVS_LOGDIR": self.logdir}
        self.environ = {**os.environ, **variables, **{name: str(path) for name, path in folders.items()}}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start both daemons, with an empty database."""
        database, socket = self.dbdir / "conf.db", self.rundir / "db.sock"
        self.run("ovsdb-tool", "create", str(database), str(SCHEMA))
        self.start_daemon("ovsdb-server", str(database), f"--remote=punix:{socket}")
        wait_for(socket.exists, READY_SECONDS, POLL_SECONDS)
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "external-ids:system-id=dummy")
        self.start_vswitchd()

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd, the first or another one, and wait until it does what the database says."""
        self.start_daemon("ovs-vswitchd", f"unix:{self.rundir / 'db.sock'}", "--enable-dummy=override")
        self.vsctl("set", "Open_vSwitch", ".", "other-config:started=yes")
        wait_for(self.control("ovs-vswitchd").exists, READY_SECONDS, POLL_SECONDS)

    def start_daemon(self, name: str, *argv: str) -> None:
        """Start a daemon that ended, or a first one, and wait for its pid file."""
        self.daemons[name] = daemon = subprocess.Popen(
            [name, *argv, *QUIET], env=self.environ, stdin=subprocess.DEVNULL
        )
        wait_for(lambda: self.pid_file(name) == daemon.pid or daemon.poll() is not None, READY_SECONDS, POLL_SECONDS)
        assert daemon.poll() is None, f"{name} ended: {(self.logdir / f'{name}.log').read_text()}"

    def stop_daemon(self, name: str, how: int = signal.SIGTERM) -> None:
        """End a daemon and wait until it has gone; SIGKILL leaves its pid file and its control socket behind."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(signal.SIGCONT)  # a stopped one would only end later
        daemon.send_signal(how)
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def stop(self) -> None:
        for name in reversed([*self.daemons]):
            self.stop_daemon(name)

    def pid_file(self, name: str) -> int:
        """The pid that a daemon's pid file tells; 0: none."""
        try:
            return int((self.rundir / f"{name}.pid").read_text() or 0)
        except FileNotFoundError:
            return 0

    def control(self, name: str) -> Path:
        """A daemon's control socket, whose name has the pid in it."""
        return self.rundir / f"{name}.{self.pid_file(name)}.ctl"

    def vsctl(self, *argv: str) -> str:
        return self.run("ovs-vsctl", f"--timeout={READY_SECONDS:.0f}", *argv)

    def ofctl(self, *argv: str) -> str:
        return self.run("ovs-ofctl", f"--timeout={READY_SECONDS:.0f}", *argv)

    def appctl(self, *argv: str, daemon: str = "ovs-vswitchd") -> str:
        return self.run("ovs-appctl", f"--timeout={READY_SECONDS:.0f}", "--target", daemon, *argv)

    def bridge(self, name: str, *ports: str) -> None:
        """Add a bridge with dummy ports, numbered from 1, that forwards nothing yet."""
        added = [f"-- add-port {name} {port} -- set Interface {port} type=dummy ofport_request={number}"
                 for number, port in enumerate(ports, 1)]  # fmt: skip
        self.vsctl(*f"add-br {name} -- set Bridge {name} fail_mode=secure {' '.join(added)}".split())

    def receive(self, port: str, packet: str = PING) -> None:
        """Let a port receive a packet, as if from the wire."""
        self.appctl("netdev-dummy/receive", port, packet)

    def run(self, *argv: str) -> str:
        ran = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, f"{' '.join(argv)}: {ran.stderr}"
        return ran.stdout


@contextmanager
def dummy_ovs(**variables: str) -> Iterator[DummyOvs]:
    """A running one, ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ow"))
    ovs = DummyOvs(folder, variables)
    try:
        ovs.start()
        yield ovs
    finally:
        ovs.stop()
        shutil.rmtree(folder)
