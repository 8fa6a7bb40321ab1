"""The prober that is calibrated, as a process: streams as JSON in argv, what it saw as JSON lines on stdout.

It prints `{"kind": "ready"}` once every stream was up, closed events as /history shows them, each stall of its own
(`begin`, `end`) and, as `{"kind": "slow"}`, which streams took their path for slow, with each longer `deadline`. It
ends when its stdin does.
"""

import asyncio
import json
import sys
from time import monotonic

import uvloop

from exporters.identity import identify
from exporters.probing.engine import Engine
from exporters.probing.record import Record
from exporters.settings import Stream

LOOK = 0.2  # seconds between two looks at the history


class Telling(Record):
    """A record that tells of our own stalls at once."""

    def stalled(self, seconds: float) -> None:
        """One ended just now."""
        super().stalled(seconds)
        now = monotonic()
        _tell({"kind": "stall", "begin": now - seconds, "end": now})


async def probe(streams: list[Stream]) -> None:
    """Probe them until stdin ends."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_crash)
    identity = identify(streams[0].source, "", "")
    record = Telling(streams, identity, max_history=100_000)
    engine = Engine(streams, identity, record, loop)
    engine.start()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    ready, seq, longest = False, 0, dict[str, float]()
    while not ended.is_set():
        await asyncio.sleep(LOOK)
        for item in record.history(seq, 1000):
            seq = max(seq, item["seq"])
            if item["state"] == "closed":
                _tell(item)
        for key, stats in record.stats.items():
            if stats.slow and stats.deadline > longest.get(key, 0.0):
                longest[key] = stats.deadline
                _tell({"kind": "slow", "stream": key, "deadline": stats.deadline})
        if not ready and all(each.now_state == "up" for each in record.stats.values()):
            ready = True
            _tell({"kind": "ready"})
    await engine.stop()


def _tell(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


def _crash(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    loop.default_exception_handler(context)
    sys.stderr.flush()
    loop.stop()


if __name__ == "__main__":
    uvloop.run(probe([Stream(**each) for each in json.loads(sys.argv[1])]))
