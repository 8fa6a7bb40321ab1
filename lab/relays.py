"""The demo's relays, one before each stream, in a process of their own, and the handle that commands it.

What the demo prints and parses must not hold up the traffic. A busy machine does: then relays or peers truly do not
pass or answer anything, though nobody asked them to. So this process also notes when it did not run, and asks each
peer's tcp port, past the relays, every 20 ms when it answers. Spoken are JSON lines; a stream is named by its key:

    to it     {"streams": {"a|b|pod|tcp|4": 40001, ...}, "peers": {"a": 40011, ...}}      ports
    back      {"ports": {"a|b|pod|tcp|4": 51001, ...}}                                    where to find each stream
    to it     {"fault": "stall", "streams": ["a|b|pod|tcp|4", ...], "seconds": 2.5}
    back      {"truth": {"a|b|pod|tcp|4": [[start before, after], [end before, after]], ...}}
    to it     {}
    back      {"held": {"relays": [[begin, end], ...], "a": [[sent, answered], ...], ...}}

It ends when its standard input does.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from exporters.calibrate.injection import Bracket, Truth
from exporters.calibrate.relay import Relay
from exporters.echo.wire import PREFIX
from lab.crash import back
from lab.held import RELAYS, Held, Span

LOCAL = "127.0.0.1"
TICK = 0.005  # seconds
HELD = 0.010  # longer than that beside a tick, or for an answer: somebody did not run
ASK_EVERY = 0.020
QUESTION = PREFIX + b'{"seq":1}\n'


class Relays:
    """The handle of the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._back = process.stdin, process.stdout
        self._turn = asyncio.Lock()

    async def open(self, streams: Mapping[str, int], peers: Mapping[str, int]) -> dict[str, int]:
        """Have a relay before each stream's port and watch each peer's tcp port; the relays' ports, by stream."""
        answer = await self._ask({"streams": streams, "peers": peers})
        return {key: int(port) for key, port in answer["ports"].items()}

    async def interrupt(self, fault: str, streams: Sequence[str], seconds: float) -> dict[str, Truth]:
        """Interrupt all `streams` together for `seconds`; the truth of each."""
        answer = await self._ask({"fault": fault, "streams": list(streams), "seconds": seconds})
        return {key: (Bracket(*start), Bracket(*end)) for key, (start, end) in answer["truth"].items()}

    async def held(self) -> Held:
        """When the relays and each peer did not run though nobody asked for it, so far."""
        answer = await self._ask({})
        return {who: [(begin, end) for begin, end in spans] for who, spans in answer["held"].items()}

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        async with self._turn:
            self._to.write(json.dumps(question).encode() + b"\n")
            line = await self._back.readline()
        if not line:
            await asyncio.Event().wait()  # it has gone, and whoever watches over it ends us
        answer: dict[str, Any] = json.loads(line)
        return answer


async def _serve() -> None:
    questions = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    held: dict[str, list[Span]] = {RELAYS: []}
    watches = [asyncio.create_task(_watch_ourselves(held[RELAYS]))]
    relays: dict[str, Relay] = {}
    async with AsyncExitStack() as stack:
        while line := await questions.readline():
            question = json.loads(line)
            if "peers" in question:
                for key, port in question["streams"].items():
                    relays[key] = await stack.enter_async_context(Relay({(LOCAL, 0): (LOCAL, port)}, name=key))
                for name, port in question["peers"].items():
                    watches.append(asyncio.create_task(_watch_peer(port, held.setdefault(name, []))))
                answer: dict[str, Any] = {"ports": {key: relay.addresses[0][1] for key, relay in relays.items()}}
            elif "fault" in question:
                work = [_interrupt(relays[key], question["fault"], question["seconds"]) for key in question["streams"]]
                answer = {"truth": dict(zip(question["streams"], await asyncio.gather(*work), strict=True))}
            else:
                answer = {"held": held}
            print(json.dumps(answer), flush=True)
        for watch in watches:
            watch.cancel()


async def _interrupt(relay: Relay, fault: str, seconds: float) -> Truth:
    """The truth of one stream's interruption: it is over when what had piled up is done with, too."""
    injected = await relay.inject(fault, seconds)
    if injected.expectation == "break":
        return injected.start, injected.end
    end = await back(relay.name.split("|")[3], relay.addresses[0][1])
    return injected.start, Bracket(injected.end.before, max(injected.end.after, end.after))


async def _watch_ourselves(held: list[Span]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(TICK)
        now = time.monotonic()
        if now - last > TICK + HELD:
            held.append((last, now))
        last = now


async def _watch_peer(port: int, held: list[Span]) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(LOCAL, port)
        except ConnectionError:
            await asyncio.sleep(ASK_EVERY)
            continue
        try:
            answered = True
            while answered:
                answered = await _ask_peer(reader, writer, held)
                await asyncio.sleep(ASK_EVERY)
        finally:
            writer.transport.abort()


async def _ask_peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: list[Span]) -> bool:
    """Ask once and note it if the answer took long; False if none came and none will."""
    sent = time.monotonic()
    writer.write(QUESTION)
    try:
        answer = await reader.readline()
    except ConnectionError:
        answer = b""
    # A peer that is killed while it is held up never answers, and was held up nevertheless.
    until = json.loads(answer.removeprefix(PREFIX))["mono"] if answer else time.monotonic()
    if until - sent > HELD:  # the peer's clock is ours
        held.append((sent, until))
    return bool(answer)


if __name__ == "__main__":
    uvloop.run(_serve())
