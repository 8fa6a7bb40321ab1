"""Asks blackbox_exporter for probes over kept connections, as a Prometheus would, and measures what it spent on them.

Arguments: its port, its pid, the server's port, probes a second (0: eight under way at all times), seconds to warm up,
seconds to measure. A probe that is not `probe_success 1` has failed.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from time import monotonic
from typing import cast

import httptools
import uvloop

from .measure import cpu_seconds, tell
from .server import ADDRESSES, SIZE

CLOSED = 8  # probes under way in a closed loop
OPEN = 64  # connections in an open one: probes of a slow moment overlap


class Asker(asyncio.Protocol):
    """One kept connection, one question at a time."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        self.driver.answered(self, well=b"\nprobe_success 1\n" in body)


class Driver:
    """The questions: at a fixed rate, evenly spaced, or each as soon as one is answered."""

    def __init__(self, server: int, rate: float) -> None:
        host = b"Host: 127.0.0.1\r\n\r\n"
        self.requests = [
            b"GET /probe?module=http_2xx&target=http://%s:%d/ping?size=%d HTTP/1.1\r\n" % (name.encode(), server, SIZE)
            + host
            for name in ADDRESSES
        ]
        self.rate = rate
        self.idle: deque[Asker] = deque()
        self.asked = 0
        self.well = 0
        self.failed = 0

    def ask(self) -> None:
        asker = self.idle.popleft()
        self.asked += 1
        asker.transport.write(self.requests[self.asked % len(self.requests)])

    def answered(self, asker: Asker, *, well: bool) -> None:
        if well:
            self.well += 1
        else:
            self.failed += 1
        self.idle.append(asker)
        if not self.rate:
            self.ask()

    async def run(self, seconds: float) -> None:
        """Ask for so long."""
        if not self.rate:
            while self.idle:
                self.ask()
            await asyncio.sleep(seconds)
            return
        begin, already = monotonic(), self.asked
        while (spent := monotonic() - begin) < seconds:
            due = already + int(spent * self.rate) - self.asked
            for _ in range(min(due, len(self.idle))):
                self.ask()
            await asyncio.sleep(1 / self.rate)


async def drive(port: int, pid: int, server: int, rate: float, warm: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    driver = Driver(server, rate)
    for _ in range(OPEN if rate else CLOSED):
        _transport, asker = await loop.create_connection(lambda: Asker(driver), "127.0.0.1", port)
        driver.idle.append(asker)
    await driver.run(warm)
    before, well, failed = cpu_seconds(pid), driver.well, driver.failed
    await driver.run(seconds)
    tell(pid, before, driver.well - well, rate * seconds, driver.failed - failed)


if __name__ == "__main__":
    _port, _pid, _server = map(int, sys.argv[1:4])
    _rate, _warm, _seconds = map(float, sys.argv[4:7])
    uvloop.run(drive(_port, _pid, _server, _rate, _warm, _seconds))
