"""Kill a peer's process, start it again, and know for each of its ports from when to when it did not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from exporters.calibrate.injection import Bracket, Truth

LOCAL = "127.0.0.1"
AGAIN = 0.005  # seconds between two attempts
ANSWER_SECONDS = 30.0  # for a peer to answer after its start; only a broken one needs them

# What makes each server say something.
HELLO = {
    "http": b"GET /ping HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n",
    "tcp": b"hello\n",
    "ws": b"GET / HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}


async def crash(
    kill: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]], ports: Mapping[str, int]
) -> dict[str, Truth]:
    """Kill and start; when each protocol's port went and when it was back. Raises TimeoutError if one never is."""
    before = time.monotonic()
    await kill()
    gone = Bracket(before, time.monotonic())
    back = [asyncio.create_task(_answers(protocol, port)) for protocol, port in ports.items()]
    try:
        await start()
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await asyncio.gather(*back)
    finally:
        for task in back:
            task.cancel()
    return {protocol: (gone, end) for protocol, end in zip(ports, ends, strict=True)}


async def _answers(protocol: str, port: int) -> Bracket:
    """When a port is back: after the last attempt that failed, before the first answer was here."""
    failed = time.monotonic()
    while True:
        attempt = time.monotonic()
        if await _answer(protocol, port):
            return Bracket(failed, time.monotonic())
        failed = attempt
        await asyncio.sleep(AGAIN)


async def _answer(protocol: str, port: int) -> bytes:
    """The first byte a port answers; none where it refuses, resets or closes."""
    try:
        reader, writer = await asyncio.open_connection(LOCAL, port)
        try:
            writer.write(HELLO[protocol])
            return await reader.read(1)
        finally:
            writer.transport.abort()
    except ConnectionError:
        return b""
