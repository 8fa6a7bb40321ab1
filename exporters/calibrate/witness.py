"""A dense witness: datagrams through a lane every 4 ms, to know when a link truly carried nothing.

`python -m exporters.calibrate.witness CLIENT_NS SERVER_NS CLIENT_ADDRESS SERVER_ADDRESS [more pairs]` prints `ready`
once every pair was answered, then `[pair, [start before, start after], [end before, end after]]` as JSON whenever a
time is over in which nothing got through, and ends when its stdin does.

1. A link says "up" long before it carries: carrier is handled up to a second late. Only packets know.
2. A datagram answered within PROMPT proves the way open at some moment between its sending and its answer; one that was
   not proves it closed between its sending and PROMPT later. A late one (it queued on a link without carrier, or for a
   neighbour) proves it open again when its answer comes: what came first may be the queue, and the queue takes a while.
3. It is a process of its own: one thread sends, echoes and listens. When that thread slept, what was under way is no
   evidence.
"""

import collections
import contextlib
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field

from exporters.calibrate.injection import Bracket, Truth
from exporters.calibrate.namespaces import enter

INTERVAL = 0.004
PROMPT = 0.005
SLEPT = 0.008  # seconds between two passes of a loop that passes every INTERVAL
LIMIT_SECONDS = 120.0
PORT = 10


@dataclass(slots=True)
class Datagram:
    """One datagram's fate; `void` when nothing can be said of it."""

    sent: float  # before the call that sent it
    called: float  # after it
    answered: float | None = None
    void: bool = False

    def decided(self, now: float) -> bool:
        """Whether its fate is known."""
        return self.void or self.answered is not None or now > self.called + PROMPT

    @property
    def prompt(self) -> bool:
        """Whether it proves the way open."""
        return self.answered is not None and self.answered <= self.called + PROMPT


@dataclass(slots=True)
class Books:
    """What one pair's datagrams proved so far."""

    # The way was open at some moment between the two, as the last answers prove.
    ups: collections.deque[Bracket] = field(default_factory=lambda: collections.deque(maxlen=8))
    start: Bracket | None = None  # of the time without an answer that is open now
    last_down: float = 0.0

    def judge(self, datagram: Datagram) -> Truth | None:
        """Take the next datagram in the order they were sent; returns the time without an answer that it closes."""
        if datagram.void:
            return None
        if datagram.answered is not None and datagram.prompt:
            return self.alive(Bracket(datagram.sent, datagram.answered))
        before = [up.before for up in self.ups if up.after <= datagram.sent]
        if self.start is None and before:
            self.start = Bracket(before[-1], datagram.called + PROMPT)
        self.last_down = datagram.sent
        return self.late(datagram.answered) if datagram.answered is not None else None

    def late(self, when: float) -> Truth | None:
        """An answer came that was due long before."""
        return self.alive(Bracket(when, when))

    def alive(self, up: Bracket) -> Truth | None:
        """Take a proof that the way was open; returns the time without an answer that it closes."""
        self.ups.append(up)
        if self.start is None or up.after <= self.start.after:
            return None
        start, self.start = self.start, None
        return start, Bracket(self.last_down, up.after)


class Pair:
    """A socket on the client's side, one on the server's that echoes, and what went between them."""

    def __init__(self, client: str, server: str, near: socket.socket, far: socket.socket) -> None:
        self.client, self.server = client, server
        self.near, self.far = near, far
        self.books = Books()
        self.flying: dict[bytes, Datagram] = {}
        self.number = 0

    def send(self) -> None:
        """Send the next datagram."""
        self.number += 1
        token = b"%d" % self.number
        before = time.monotonic()
        with contextlib.suppress(OSError):  # no route, no neighbour, no room: not sent is not answered
            self.near.sendto(token, (self.server, PORT))
        self.flying[token] = Datagram(before, time.monotonic())

    def echo(self) -> None:
        """Answer what came to the server's side."""
        with contextlib.suppress(OSError):
            while True:
                token, sender = self.far.recvfrom(64)
                self.far.sendto(token, sender)

    def listen(self) -> list[Truth]:
        """Note what came back to the client's side; returns the times without an answer that late ones close."""
        over = []
        with contextlib.suppress(OSError):
            while True:
                token = self.near.recv(64)
                now = time.monotonic()
                if token in self.flying:
                    self.flying[token].answered = now
                elif closed := self.books.late(now):  # its own fate was judged long ago
                    over.append(closed)
        return over

    def decide(self, now: float, *, slept: bool) -> list[Truth]:
        """Judge every datagram whose fate is known; returns the times without an answer that are over."""
        over = []
        for token, datagram in list(self.flying.items()):
            datagram.void = datagram.void or slept
            if not datagram.decided(now):
                break  # in order: later ones wait
            del self.flying[token]
            if closed := self.books.judge(datagram):
                over.append(closed)
        return over


def main(argv: list[str]) -> None:
    """Watch until stdin ends or LIMIT_SECONDS are over."""
    client_space, server_space, *addresses = argv
    wanted = list(zip(addresses[::2], addresses[1::2], strict=True))
    enter(client_space)
    near = [_socket(client) for client, _ in wanted]
    enter(server_space)
    far = [_socket(server) for _, server in wanted]
    watch([Pair(*ends, near, far) for ends, near, far in zip(wanted, near, far, strict=True)])


def watch(pairs: list[Pair]) -> None:
    """The loop: send on an absolute grid, echo and listen between, judge in order."""
    due = last = began = time.monotonic()
    ready = False
    sockets = [sock for pair in pairs for sock in (pair.near, pair.far)]
    while last < began + LIMIT_SECONDS:
        if last >= due:
            for pair in pairs:
                pair.send()
            due += INTERVAL * (1 + (last - due) // INTERVAL)
        readable, _, _ = select.select([sys.stdin, *sockets], [], [], max(0.0, due - time.monotonic()))
        if sys.stdin in readable:
            return
        now = time.monotonic()
        for number, pair in enumerate(pairs):
            pair.echo()
            for start, end in pair.listen() + pair.decide(now, slept=now - last > SLEPT):
                print(json.dumps([number, start, end]), flush=True)
        if not ready and all(pair.books.ups for pair in pairs):
            ready = True
            print("ready", flush=True)
        last = now


def _socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((address, PORT))
    return sock


if __name__ == "__main__":
    main(sys.argv[1:])
