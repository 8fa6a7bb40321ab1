"""A peer's echo servers alone, as a process that can be frozen and killed: `HOST HTTP TCP WS`, until stdin ends."""

import asyncio
import gc
import sys

import uvloop

from exporters.echo.servers import serve_http, serve_tcp, serve_ws
from exporters.identity import identify
from exporters.process import Server


async def answer(host: str, http: int, tcp: int, ws: int) -> None:
    """Serve on these ports."""
    identity = identify("server", "", "")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    serving: list[Server] = [await serve_tcp(identity, host, tcp), await serve_ws(identity, host, ws)]
    serving.append(await serve_http(identity, None, host, http))
    gc.freeze()  # as a peer does: a full collection is a stall
    await ended.wait()
    await asyncio.gather(*(each.close() for each in serving))


if __name__ == "__main__":
    uvloop.run(answer(sys.argv[1], *map(int, sys.argv[2:])))
