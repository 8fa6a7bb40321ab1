"""A prober for the fault tests: streams as JSON in argv, its history as JSON lines on stdout, until stdin closes."""

import asyncio
import json
import sys
from time import monotonic

import uvloop

from exporters.identity import identify
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.settings import Stream


async def probe(streams: list[Stream]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_crash)
    identity = identify(streams[0].source, "", "")
    record = Record(streams, identity, max_history=100_000)
    note = record.stalled

    def stalled(seconds: float) -> None:
        note(seconds)
        now = monotonic()
        print(json.dumps({"kind": "stall", "begin": now - seconds, "end": now}))

    record.stalled = stalled  # type: ignore[method-assign]
    engine = Engine(streams, identity, record, loop)
    engine.start()
    told = asyncio.Event()
    loop.add_reader(sys.stdin, told.set)
    seq = 0
    while not told.is_set():
        await asyncio.sleep(0.2)
        for item in record.history(seq, 1000):
            seq = max(seq, item["seq"])
            if item["state"] == "closed":
                print(json.dumps(item))
    await engine.stop()


def _crash(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    loop.default_exception_handler(context)
    sys.stderr.flush()
    loop.stop()


if __name__ == "__main__":
    uvloop.run(probe([Stream(**each) for each in json.loads(sys.argv[1])]))
