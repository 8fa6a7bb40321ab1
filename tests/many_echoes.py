"""Cheap echoes for many streams: http, tcp and ws on each port of argv, as many connections as may be open."""

import asyncio
import sys

import uvloop
from bench.server import Answers

from exporters.listening import BACKLOG
from exporters.settings import raise_descriptor_limit


async def main(ports: list[int]) -> None:
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Answers, "", port, backlog=BACKLOG)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main([int(port) for port in sys.argv[1:]]))
