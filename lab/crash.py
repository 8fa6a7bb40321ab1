"""When is a port back? And: kill a peer's process, start it again, and know from when to when it did not answer.

A port that listens again need not answer yet, and one that answers first what has piled up answers late: it is back
when a question on a new connection is answered promptly.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from exporters.calibrate.injection import Bracket, Truth

LOCAL = "127.0.0.1"
AGAIN = 0.005  # seconds between two attempts
PROMPT = 0.030  # seconds; half of the least prompt limit of a stream
SLOW_SECONDS = 1.0  # of answers that are not prompt
BACK_SECONDS = 30.0  # only a broken peer needs them

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
    waits = [asyncio.create_task(back(protocol, port)) for protocol, port in ports.items()]
    try:
        await start()
        ends = await asyncio.gather(*waits)
    finally:
        for wait in waits:
            wait.cancel()
    return {protocol: (gone, end) for protocol, end in zip(ports, ends, strict=True)}


async def back(protocol: str, port: int) -> Bracket:
    """When a port is back: after the last attempt that failed, before the first answer that came promptly was here.

    On a machine too busy for that, before the first answer after SLOW_SECONDS. Raises TimeoutError.
    """
    failed = begun = time.monotonic()
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            attempt = time.monotonic()
            answer = await _answer(protocol, port)
            now = time.monotonic()
            if not answer:
                failed = begun = attempt
            elif now - attempt <= PROMPT or now - begun > SLOW_SECONDS:
                return Bracket(failed, now)
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
