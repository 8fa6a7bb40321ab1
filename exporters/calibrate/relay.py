"""A TCP relay in user space that interrupts what passes through it on command, and knows when it did.

1. It needs no privileges: it stands between a prober and a peer and can do to their connections what a program can do.
   A program cannot stop the kernel from accepting a connection while a socket listens, so `drop` and `stall` look to
   the caller like a frozen peer: connected, and no answer. Only `refuse` looks like a broken path.
2. All ports of one relay (http, ws and tcp of one peer) share one state and are interrupted together.
3. A change takes effect between two stamps of CLOCK_MONOTONIC, taken around it: the truth is that bracket.
4. Memory is bounded: a connection reads no more than the other side takes; past `limit` connections new ones are reset.
5. `reset` and `flow_drop` spare connections younger than YOUNG: a request that is under way in one is a real failure of
   the path to whoever sent it, and these two promise that the path is well.
6. The peer answers through a second connection: a peer that refuses shows as a connection reset just after it was made.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple, Self, cast

from exporters.calibrate.injection import Bracket, Expectation, Injection

Address = tuple[str, int]

YOUNG = 0.2  # seconds; longer than any exchange that is answered promptly
BACKLOG = 128
CONNECT_SECONDS = 5.0  # to the peer behind the relay
RESET_SECONDS = 2.0  # resetting is a matter of one loop pass; anything longer is a bug
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST, not FIN


class Relay:
    """Relays TCP from each listen address to its target; port 0 listens on a free port, see `addresses`."""

    def __init__(self, ports: Mapping[Address, Address], *, name: str = "relay", limit: int = 1000) -> None:
        self.name = name
        self.limit = limit
        self.over_limit = 0  # connections reset because `limit` was reached: a judge should see 0
        self.state = "pass"
        self.links: set[Link] = set()
        self.injections: list[Injection] = []
        self._ports = dict(ports)
        self._holders: list[tuple[socket.socket, Address]] = []
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = False

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses listened on, in the order given."""
        return tuple(holder.getsockname()[:2] for holder, _ in self._holders)

    async def __aenter__(self) -> Self:
        for listen, target in self._ports.items():
            self._holders.append((_bind(listen), target))
        self.open_doors()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shut_doors()
        await self.reset_links(list(self.links))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for holder, _target in self._holders:
            holder.close()
        self._holders.clear()

    @contextlib.asynccontextmanager
    async def fault(self, kind: str) -> AsyncIterator[None]:
        """Interrupt while the block runs; at its end the truth is appended to `injections`. One at a time."""
        fault = FAULTS[kind]
        if self._busy:
            raise RuntimeError(f"{self.name}: a fault is under way already")
        self._busy = True
        try:
            before = time.monotonic()
            await fault.begin(self)
            start = Bracket(before, time.monotonic())
            end = start
            try:
                yield
            finally:
                if fault.end is not None:
                    before = time.monotonic()
                    fault.end(self)
                    end = Bracket(before, time.monotonic())
            self.injections.append(Injection(kind, start, end, fault.expectation, self.name))
        finally:
            self._busy = False

    async def inject(self, kind: str, seconds: float) -> Injection:
        """Interrupt for `seconds`, return the truth; `reset` is over at once and only waits them out."""
        async with self.fault(kind):
            await asyncio.sleep(seconds)
        return self.injections[-1]

    def open_doors(self) -> None:
        """Listen on every port."""
        loop = asyncio.get_running_loop()
        for holder, target in self._holders:
            listener = _bind(holder.getsockname()[:2])
            listener.listen(BACKLOG)
            loop.add_reader(listener.fileno(), self._accept, listener, target)
            self._listeners.append(listener)

    def shut_doors(self) -> None:
        """Close the listening sockets: the kernel resets what waits in their queues and refuses what comes.

        The bound sockets that never listen keep the ports ours meanwhile.
        """
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket, target: Address) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the caller had gone before we came
        sock.setblocking(False)
        if len(self.links) >= self.limit:
            self.over_limit += 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()
            return
        link = Link(self, target)
        self.links.add(link)
        self.spawn(_adopt(link.caller, sock))

    def spawn(self, work: Awaitable[None]) -> None:
        """Run `work` beside everything else until it ends or the relay closes."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def settle(self) -> None:
        """Make every connection obey the state."""
        for link in list(self.links):
            link.settle()

    async def reset_links(self, links: "list[Link]") -> None:
        """Reset both sides of each link and wait until both are gone."""
        for link in links:
            link.reset()
        if links:
            async with asyncio.timeout(RESET_SECONDS):
                await asyncio.gather(*(link.gone.wait() for link in links))

    def established(self) -> "list[Link]":
        """The links older than YOUNG."""
        return [link for link in self.links if time.monotonic() - link.opened >= YOUNG]


def _bind(address: Address) -> socket.socket:
    """A bound TCP socket that shares its port with our own other sockets and with nobody else's."""
    family, kind, proto, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        # SO_REUSEPORT lets only sockets of the same user in that ask for it too; SO_REUSEADDR would let any server in
        # while the port does not listen.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


async def _adopt(leg: "Leg", sock: socket.socket) -> None:
    await asyncio.get_running_loop().connect_accepted_socket(lambda: leg, sock)


class Link:
    """One caller's connection and ours to the peer behind it."""

    def __init__(self, relay: Relay, target: Address) -> None:
        self.relay = relay
        self.target = target
        self.opened = time.monotonic()
        self.muted = False  # by flow_drop
        self.caller = Leg(self)
        self.peer = Leg(self)
        self.caller.other, self.peer.other = self.peer, self.caller
        self.gone = asyncio.Event()
        self._connecting = False
        self.resetting = False

    @property
    def state(self) -> str:
        """What to do with bytes: `pass` them on, `drop` them, or `stall` (leave them in the kernel)."""
        if self.muted:
            return "drop"
        return self.relay.state

    def settle(self) -> None:
        """Do what the state asks: connect to the peer, read or stop reading, pass on what ended meanwhile."""
        state = self.state
        if state == "pass" and self.caller.alive and not self._connecting:
            self._connecting = True
            self.relay.spawn(self._connect())
        for leg in (self.caller, self.peer):
            room = self.peer.transport is not None and not leg.other.full
            leg.read_if(state == "drop" or (state == "pass" and room))
            if state == "pass":
                leg.pass_on()
                leg.tell_end()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(lambda: self.peer, *self.target)
        except (OSError, TimeoutError):
            self.reset()

    def reset(self) -> None:
        """Reset both sides now."""
        self.resetting = True
        self.caller.reset()
        self.peer.reset()
        self.check_gone()

    def check_gone(self) -> None:
        """Forget the link once neither side has a connection."""
        if not self.caller.alive and not self.peer.alive:
            self.relay.links.discard(self)
            self.gone.set()


class Leg(asyncio.Protocol):
    """One side of a link: what arrives here leaves by the other side, if the state lets it."""

    other: "Leg"

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.alive = False
        self.full = False  # the kernel takes no more from us on this side for now
        self.told_eof = False
        self._held: list[bytes] = []  # what was read before reading could be stopped: a loop pass' worth at most
        self._reading = True
        self._ended = ""  # eof | closed | reset, not yet told to the other side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.alive = True
        if self.link.resetting:  # the reset came while this side was being made
            self.reset()
        # Not at once: uvloop starts to read after this returns, whatever was asked for in here.
        asyncio.get_running_loop().call_soon(self.link.settle)

    def data_received(self, data: bytes) -> None:
        if self.link.state != "drop":
            self._held.append(data)
            self.link.settle()

    def eof_received(self) -> bool:
        self._ended = "eof"
        self.link.settle()
        return True  # half-open: the answer may still be on its way

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._ended = "reset" if exc is not None else "closed"
        self.link.settle()
        self.link.check_gone()

    def pause_writing(self) -> None:
        self.full = True
        self.link.settle()

    def resume_writing(self) -> None:
        self.full = False
        self.link.settle()

    def read_if(self, wanted: bool) -> None:
        """Read on, or leave what comes in the kernel's buffer."""
        if self.transport is None or self.transport.is_closing() or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def pass_on(self) -> None:
        """Write to the other side what was read here."""
        if self.other.alive and self.other.transport is not None:
            held, self._held = self._held, []  # first: writing may settle the link, and that comes here again
            for data in held:
                self.other.transport.write(data)

    def tell_end(self) -> None:
        """Pass on to the other side that this one ended, the way it did."""
        if not self._ended or not self.other.alive or self.other.transport is None:
            return  # the other side may not be connected yet: told then
        ended, self._ended = self._ended, ""
        if ended == "eof" and not self.other.told_eof:
            self.told_eof = True
            self.other.transport.write_eof()
        elif ended in ("eof", "closed"):  # the second end of two closes both
            self.other.transport.close()
        elif ended == "reset":
            self.other.reset()

    def reset(self) -> None:
        """Close at once with an RST."""
        if self.transport is None or not self.alive:
            return
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # the other end was quicker
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()


async def _drop(relay: Relay) -> None:
    relay.state = "drop"
    relay.settle()


async def _stall(relay: Relay) -> None:
    relay.state = "stall"
    relay.settle()


async def _refuse(relay: Relay) -> None:
    relay.shut_doors()
    await relay.reset_links(list(relay.links))


async def _reset(relay: Relay) -> None:
    await relay.reset_links(relay.established())


async def _flow_drop(relay: Relay) -> None:
    for link in relay.established():
        link.muted = True
        link.settle()


def _pass(relay: Relay) -> None:
    relay.state = "pass"
    for link in relay.links:
        link.muted = False
    relay.settle()


class Fault(NamedTuple):
    """How a fault begins and ends, and what a right prober says of it; no end: it is over once begun."""

    begin: Callable[[Relay], Awaitable[None]]
    end: Callable[[Relay], None] | None
    expectation: Expectation


# To add a fault: a function that begins it, and a line here.
FAULTS: dict[str, Fault] = {
    # Bytes of both directions are thrown away; connections stay, new ones are accepted and get no answer.
    "drop": Fault(_drop, _pass, "frozen"),
    # As drop, but bytes wait in the kernel and all come together at the end: what a frozen peer does.
    "stall": Fault(_stall, _pass, "frozen"),
    # Nothing listens: new connections are refused, established ones reset.
    "refuse": Fault(_refuse, Relay.open_doors, "path"),
    # Established connections are reset once, new ones pass.
    "reset": Fault(_reset, None, "break"),
    # Connections established by now lose their bytes until the end, new ones pass.
    "flow_drop": Fault(_flow_drop, _pass, "break"),
}
