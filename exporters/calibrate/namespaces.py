"""Lanes of network namespaces, client - router - server, each a network of its own to break; needs root.

1. A lane's namespaces are named `<prefix>-<lane>-<c, r or s>`; nothing outside them is ever changed: both ends of every
   veth are born inside them.
2. Whatever the prefix names is removed before lanes are built and after they were used, so a crash leaves nothing that
   the next run does not clear. A lock keeps two runs with the same prefix apart.
3. Processes are started with `ip netns exec`: it comes with the tool that makes the namespaces, gives the process the
   namespace's own /sys, and execs in place, so the pid is the process's own and signals reach it. Unlike setns in a
   preexec function it is safe in a program with threads.
4. What must happen inside a namespace without a process (sockets, sysctls, the packet filter) runs on a thread that
   entered it for good: a network namespace belongs to a thread, and a socket stays in the one it was made in.
"""

import contextlib
import ctypes
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from exporters.calibrate.injection import Bracket
from exporters.calibrate.nftables import LIBRARY, Nftables
from exporters.calibrate.processes import Server
from exporters.calibrate.sockdiag import LISTEN, tcp_sockets

P = ParamSpec("P")
T = TypeVar("T")
Side = Literal["client", "router", "server"]

ENDS: tuple[Side, ...] = ("client", "server")
NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
PREFIX = re.compile(r"[a-z][a-z0-9]{0,11}")
READY_SECONDS = 15.0  # for a lane to forward
GONE_SECONDS = 10.0  # for what is killed to be gone
LOCK_SECONDS = 120.0  # for another run with the same prefix to end
CANARY_PORT = 9

# Both ends of the router, named by where they lead. A router that goes down keeps its IPv6 addresses, as it keeps its
# IPv4 ones; nothing waits for duplicate address detection; and TCP sends when it is told to, whatever the machine likes
# better (BBR spreads what is sent, by a timer for each connection).
END = (
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv4/tcp_congestion_control", "reno"),
)
SYSCTLS: dict[Side, tuple[tuple[str, str], ...]] = {
    "client": END,
    "server": END,
    "router": (
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/keep_addr_on_down", "1"),
        ("ipv6/conf/default/keep_addr_on_down", "1"),
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
    ),
}

TABLE = "inet ovnwatch_calibrate"
# The first rule only makes the kernel track connections always: tracking switched on by a fault would find connections
# it never saw begin, and ports reused since it was last on.
TABLE_SETUP = f"""
add table {TABLE}
add chain {TABLE} tracking {{ type filter hook forward priority -10; }}
add rule {TABLE} tracking ct state new
add chain {TABLE} faults {{ type filter hook forward priority 0; policy accept; }}
"""


class Namespace:
    """One network namespace and the thread that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=enter, initargs=(name,))

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` inside and return what it returns. One at a time: make a socket here, wait on it elsewhere."""
        return self._thread.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def enter(name: str) -> None:
    """Move the calling thread into the named namespace, for good."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    fd = os.open(NETNS / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(fd)


@dataclass(slots=True)
class Lane:
    """One client - router - server network, up and forwarding IPv4 and IPv6."""

    name: str
    client: Namespace
    router: Namespace
    server: Namespace
    addresses: dict[tuple[Side, int], str]  # ("client" or "server", 4 or 6)
    nft: Nftables  # the router's; used on the router's thread
    canaries: dict[Side, socket.socket]
    serving: Server | None = None
    generation: int = 0  # how often established flows were told from new ones
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    sent: int = 0
    stop: threading.Event = field(default_factory=threading.Event)  # set: end every fault now

    def namespace(self, side: Side) -> Namespace:
        """The namespace of that side."""
        return {"client": self.client, "router": self.router, "server": self.server}[side]

    def popen(
        self,
        argv: Sequence[str],
        side: Side = "client",
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        env: dict[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a process on that side; it is killed with the lane if it still runs then."""
        command = ["ip", "netns", "exec", self.namespace(side).name, *argv]
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, process_group=0)
        self.processes.append(process)
        return process

    def run(
        self, argv: Sequence[str], side: Side = "client", *, timeout: float = 30.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on that side to its end and return its output; raises when it fails."""
        command = ["ip", "netns", "exec", self.namespace(side).name, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout, process_group=0)

    def start_server(
        self,
        argv: Sequence[str],
        ports: Sequence[int],
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        env: dict[str, str] | None = None,
    ) -> Server:
        """Start the process that process faults will hit, wait until it listens on `ports`."""
        start = functools.partial(
            self.popen, argv, "server", stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=env
        )
        ports_there = functools.partial(listening, self.server)
        self.serving = server = Server(self.name, start, frozenset(ports), start(), ports_there, self._dial)
        server.wait_until_it_listens()
        return server

    def _dial(self, port: int) -> socket.socket:
        return self.server.call(socket.create_connection, (self.addresses["server", 4], port), 2.0)

    def schedstats(self) -> list[Path]:
        """Where the kernel says how long what answers here waited for a processor."""
        return [Path(f"/proc/{self.serving.process.pid}/schedstat")] if self.serving else []

    def held_up(self) -> list[Bracket]:
        """The kernel is in between: it is never held up."""
        return []

    def send_canaries(self) -> bytes:
        """Send one datagram each way through the router; returns what is in them."""
        self.sent += 1
        token = b"%d" % self.sent
        self.canaries["client"].sendto(token, (self.addresses["server", 4], CANARY_PORT))
        self.canaries["server"].sendto(token, (self.addresses["client", 4], CANARY_PORT))
        return token

    def arrivals(self, token: bytes) -> set[Side]:
        """The sides where this canary has arrived by now."""
        return {side for side, sock in self.canaries.items() if token in _drain(sock)}

    def close(self) -> None:
        """Kill what still runs here and end the threads; the namespaces are the caller's to remove."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)
            if process.stdin is not None:
                process.stdin.close()
        for sock in self.canaries.values():
            sock.close()
        self.router.call(self.nft.close)
        for namespace in (self.client, self.router, self.server):
            namespace.close()


@contextlib.contextmanager
def lanes(prefix: str, count: int) -> Iterator[list[Lane]]:
    """`count` lanes, 100 at most, removed at the end whatever happened. The prefix: 12 letters and digits at most."""
    if not PREFIX.fullmatch(prefix) or not 0 < count <= 100:
        raise ValueError(f"prefix {prefix!r}, {count} lanes")
    with alone(prefix), contextlib.ExitStack() as stack:
        remove(prefix)
        stack.callback(remove, prefix)
        yield [stack.enter_context(contextlib.closing(_build(prefix, number))) for number in range(count)]


def remove(prefix: str) -> None:
    """Remove the prefix's namespaces, and kill by pid what an earlier run left in them."""
    ours = re.compile(rf"{re.escape(prefix)}-\d+-[crs]")
    clear(filter(ours.fullmatch, there()))


def there() -> list[str]:
    """The names of all network namespaces that have one."""
    return [entry.name for entry in NETNS.iterdir()] if NETNS.is_dir() else []


def clear(names: Iterable[str]) -> None:
    """Remove namespaces with all that is in them; what runs there is killed by pid, and gone then."""
    for name in names:
        deadline = time.monotonic() + GONE_SECONDS
        while (pids := _ip("netns", "pids", name).split()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)
        _ip("netns", "delete", name)


def lacking() -> str:
    """What this process lacks to make lanes, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "root"
    if shutil.which("ip") is None:
        return "ip, of the package iproute2"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY}, of the package nftables"
    tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True)
    return "the right to make network namespaces" if tried.returncode else ""


def listening(namespace: Namespace) -> set[int]:
    """The TCP ports somebody listens on in there."""
    return {found.local for found in namespace.call(tcp_sockets, LISTEN)}


def _build(prefix: str, number: int) -> Lane:
    names: dict[Side, str] = {side: f"{prefix}-{number}-{side[0]}" for side in ("client", "router", "server")}
    for name in names.values():
        _ip("netns", "add", name)
    spaces = {side: Namespace(name) for side, name in names.items()}
    for side, settings in SYSCTLS.items():
        spaces[side].call(_sysctl, settings)
    addresses: dict[tuple[Side, int], str] = {}
    _ip("-n", names["router"], "link", "set", "lo", "up")
    for hop, side in enumerate(ENDS, start=1):
        net4, net6 = f"10.{100 + number}.{hop}", f"fd00:{number:x}:{hop}:"
        addresses[side, 4], addresses[side, 6] = f"{net4}.2", f"{net6}:2"
        _ip("link", "add", side, "netns", names["router"], "type", "veth", "peer", "eth0", "netns", names[side])
        _batch(
            names["router"],
            f"address add {net4}.1/24 dev {side}",
            f"address add {net6}:1/64 dev {side} nodad",
            f"link set {side} up",
        )
        _batch(
            names[side],
            "link set lo up",
            f"address add {net4}.2/24 dev eth0",
            f"address add {net6}:2/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {net4}.1",
            f"route add default via {net6}:1",
        )
    nft = spaces["router"].call(Nftables)
    spaces["router"].call(nft.run, TABLE_SETUP)
    canaries = {side: spaces[side].call(_datagram_socket, addresses[side, 4]) for side in ENDS}
    lane = Lane(f"{prefix}-{number}", spaces["client"], spaces["router"], spaces["server"], addresses, nft, canaries)
    _wait_until_forwarding(lane)
    return lane


def _wait_until_forwarding(lane: Lane) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        token = lane.send_canaries()
        time.sleep(0.02)
        if lane.arrivals(token) == {"client", "server"}:
            return
    raise RuntimeError(f"{lane.name} does not forward")


def _datagram_socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((address, CANARY_PORT))
    return sock


def _drain(sock: socket.socket) -> list[bytes]:
    received = []
    with contextlib.suppress(BlockingIOError):
        while True:
            received.append(sock.recv(64))
    return received


def _sysctl(settings: Sequence[tuple[str, str]]) -> None:
    for name, value in settings:
        Path("/proc/sys/net", name).write_text(value)


def _ip(*argv: str) -> str:
    command = ["ip", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, process_group=0).stdout


def _batch(name: str, *lines: str) -> None:
    commands = "\n".join(lines)
    command = ["ip", "-n", name, "-batch", "-"]
    subprocess.run(command, input=commands, text=True, check=True, timeout=30, process_group=0)


@contextlib.contextmanager
def alone(prefix: str) -> Iterator[None]:
    """A lock on a prefix of names, held by one run at a time; the kernel lets it go when the process dies."""
    deadline = time.monotonic() + LOCK_SECONDS
    with socket.socket(socket.AF_UNIX) as sock:
        while True:
            try:
                sock.bind(f"\0ovnwatch-lanes-{prefix}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError("another run builds the same network namespaces, and does not end") from None
            time.sleep(0.2)
        yield
