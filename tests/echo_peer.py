"""A peer's echo servers alone, for the fault tests: http, tcp and ws on the ports of a real peer."""

import asyncio
import gc

import uvloop

from exporters.echo.servers import serve_http, serve_tcp, serve_ws
from exporters.identity import identify
from exporters.probing.record import Record
from exporters.targets import PORTS


async def main() -> None:
    identity = identify("server", "", "")
    await serve_tcp(identity, "", PORTS["tcp"])
    await serve_ws(identity, "", PORTS["ws"])
    await serve_http(identity, Record([], identity), "", PORTS["http"])
    gc.freeze()  # as a peer does: a full collection is a stall
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
