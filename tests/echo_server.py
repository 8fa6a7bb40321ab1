"""Echoes TCP on the ports given, IPv4 and IPv6."""

import asyncio
import contextlib
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(ports: list[int]) -> None:
    servers = [await asyncio.start_server(echo, host, port) for port in ports for host in ("0.0.0.0", "::")]
    async with asyncio.timeout(600):
        await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1:]]))
