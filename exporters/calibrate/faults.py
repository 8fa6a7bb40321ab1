"""Faults of a lane: each interrupts it for some seconds and knows when it truly began and ended.

1. A fault is done only if it is seen to be done: canaries that must or must not arrive, a count of what was
   destroyed, a witness. One that is not raises NotInjectedError.
2. What it changed is changed back whatever happens.
3. Faults of established flows spare those younger than YOUNG: a request under way in one is a real failure of the path
   to whoever sent it, and these promise that the path is well.
"""

import contextlib
import functools
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporters.calibrate import processes
from exporters.calibrate.injection import Bracket, Expectation, Injection, NotInjectedError, Truth
from exporters.calibrate.namespaces import TABLE, Lane, Side
from exporters.calibrate.processes import Server, wait
from exporters.calibrate.sockdiag import ESTABLISHED, TcpSocket, destroy, tcp_sockets

YOUNG = 0.25  # seconds; longer than any exchange that is answered promptly
CARRY_SECONDS = 10.0  # for a link to carry again; carrier and neighbours take up to 2 s
BOTH: frozenset[Side] = frozenset({"client", "server"})


def inject(lane: Lane, kind: str, seconds: float) -> list[Injection]:
    """Interrupt the lane for about `seconds`; blocks that long and some more. One injection, or one per family."""
    fault = FAULTS[kind]
    return [
        Injection(kind, start, end, fault.expectation, lane.name, family)
        for family, (start, end) in fault.run(lane, seconds).items()
    ]


Truths = dict[int | None, Truth]  # by family; None is both


def _filter(rules: tuple[str, ...], arrivals: frozenset[Side], lane: Lane, seconds: float) -> Truths:
    """Rules in the router's forward chain; `arrivals` are the sides that must still get their canary meanwhile."""
    start = _nft(lane, *rules)
    try:
        token = lane.send_canaries()
        wait(lane.stop, start.after + seconds)
        arrived = lane.arrivals(token)
    finally:
        end = _nft(lane)
    if arrived != arrivals:
        raise NotInjectedError(f"{lane.name}: canaries came to {sorted(arrived)}, not to {sorted(arrivals)}")
    return {None: (start, end)}


def _flow_drop(lane: Lane, seconds: float) -> Truths:
    """Flows whose SYN came from YOUNG seconds ago on carry a new mark; all others are dropped."""
    lane.generation += 1
    mark = f"tcp flags & syn == syn ct mark set {lane.generation}"
    with _canary_connection(lane) as (near, far):
        try:
            _nft(lane, mark)
            time.sleep(YOUNG)
            _established(lane)
            start = _nft(lane, mark, f"meta l4proto tcp ct mark {lane.generation} accept", "meta l4proto tcp drop")
            near.send(b"x")
            wait(lane.stop, start.after + seconds)
            passed = _received(far)
        finally:
            end = _nft(lane)
    if passed:
        raise NotInjectedError(f"{lane.name}: an established connection still passed")
    return {None: (start, end)}


def _flow_reset(lane: Lane, _seconds: float) -> Truths:
    """Destroy the server's established sockets: both ends learn it by a reset. It is over at once."""
    chosen = _established(lane)
    time.sleep(YOUNG)

    def run() -> tuple[Bracket, int]:
        before = time.monotonic()
        killed = sum(destroy(victim) for victim in chosen)
        return Bracket(before, time.monotonic()), killed

    both, killed = lane.server.call(run)
    if not killed:
        raise NotInjectedError(f"{lane.name}: the connections to reset had gone")
    return {None: (both, both)}


def _link_down(side: Side, lane: Lane, seconds: float) -> Truths:
    """The router's port toward `side`; the truth is the witness', a link is up long before it carries."""
    with _witness(lane) as seen:
        truths: Truths = {}
        lane.run(["ip", "link", "set", side, "down"], "router")
        down = time.monotonic()
        try:
            wait(lane.stop, down + seconds)
        finally:
            up = time.monotonic()
            lane.run(["ip", "link", "set", side, "up"], "router")
        deadline = up + CARRY_SECONDS
        while len(truths) < 2:
            try:
                family, (start, end) = seen.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise NotInjectedError(f"{lane.name}: the witness saw no interruption, or no end of it") from None
            if start.before <= down and end.after >= up:
                truths.setdefault(family, (start, end))  # what follows is the queue behind it
    return truths


@contextlib.contextmanager
def _witness(lane: Lane) -> "Iterator[queue.SimpleQueue[tuple[int, Truth]]]":
    """The witness' findings as they come: family, truth."""
    seen: queue.SimpleQueue[tuple[int, Truth]] = queue.SimpleQueue()
    families = (4, 6)
    addresses = [lane.addresses[side, family] for family in families for side in ("client", "server")]
    argv = [sys.executable, "-m", "exporters.calibrate.witness", lane.client.name, lane.server.name, *addresses]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = process.stdout
        if lines.readline() != b"ready\n":
            raise NotInjectedError(f"{lane.name}: the witness did not start")

        def read() -> None:
            for line in lines:
                number, start, end = json.loads(line)
                seen.put((families[number], (Bracket(*start), Bracket(*end))))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield seen
        finally:
            process.stdin.close()
            reader.join()


def _stop_process(lane: Lane, seconds: float) -> Truths:
    return {None: processes.freeze(_serving(lane), seconds, lane.stop)}


def _kill_process(lane: Lane, seconds: float) -> Truths:
    return {None: processes.kill(_serving(lane), seconds, lane.stop)}


def _serving(lane: Lane) -> Server:
    if lane.serving is None:
        raise NotInjectedError(f"{lane.name}: no server was started in it")
    return lane.serving


def _nft(lane: Lane, *rules: str) -> Bracket:
    """Replace the chain's rules in one transaction."""
    commands = "\n".join([f"flush chain {TABLE} faults", *(f"add rule {TABLE} faults {rule}" for rule in rules)])

    def run() -> Bracket:
        before = time.monotonic()
        lane.nft.run(commands)
        return Bracket(before, time.monotonic())

    return lane.router.call(run)


@contextlib.contextmanager
def _canary_connection(lane: Lane) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of an established connection through the lane."""
    with contextlib.closing(lane.server.call(socket.create_server, (lane.addresses["server", 4], 0))) as listener:
        near = lane.client.call(socket.create_connection, listener.getsockname(), 2.0)
        far, _ = listener.accept()
    with contextlib.closing(near), contextlib.closing(far):
        far.setblocking(False)
        yield near, far


def _received(sock: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return sock.recv(1)
    return b""


def _established(lane: Lane) -> list[TcpSocket]:
    """The server's sockets of established connections to its ports."""
    ports = _serving(lane).ports
    found = [each for each in lane.server.call(tcp_sockets, ESTABLISHED) if each.local in ports]
    if not found:
        raise NotInjectedError(f"{lane.name}: no established connection to break")
    return found


class Fault(NamedTuple):
    """How to inject it, and what a right prober says of it."""

    run: Callable[[Lane, float], Truths]
    expectation: Expectation


def rules(*rules: str, arrivals: frozenset[Side] = frozenset()) -> Callable[[Lane, float], Truths]:
    """A fault made of rules in the router's forward chain; `arrivals`: the sides that still get datagrams meanwhile."""
    return functools.partial(_filter, rules, arrivals)


# To add a fault: a function (or some rules), and a line here.
FAULTS: dict[str, Fault] = {
    "drop_both": Fault(rules("drop"), "path"),
    "drop_to_server": Fault(rules("iifname client drop", arrivals=frozenset({"client"})), "path"),
    "drop_to_client": Fault(rules("iifname server drop", arrivals=frozenset({"server"})), "path"),
    "reject_reset": Fault(rules("meta l4proto tcp reject with tcp reset", "drop"), "path"),
    "reject_icmp": Fault(rules("meta l4proto tcp reject with icmpx host-unreachable", "drop"), "path"),
    "link_down_server": Fault(functools.partial(_link_down, "server"), "path"),
    "link_down_client": Fault(functools.partial(_link_down, "client"), "path"),
    "kill": Fault(_kill_process, "path"),
    "stop": Fault(_stop_process, "frozen"),
    "flow_drop": Fault(_flow_drop, "break"),
    "flow_reset": Fault(_flow_reset, "break"),
}
