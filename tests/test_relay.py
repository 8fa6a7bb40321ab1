"""The relay's faults as a plain client sees them, on asyncio's and on uvloop's event loop."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from exporters.calibrate import relay as relays
from exporters.calibrate.relay import Relay

pytestmark = pytest.mark.slow  # sockets, processes and their time-outs

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Run = Callable[[Callable[[Relay], Awaitable[None]]], None]

QUIET = 0.15  # seconds in which an answer would have come many times over
PATIENCE = 10.0  # seconds; only a broken relay needs them


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario against a relay with two ports before one echo server."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_one(scenario: Callable[[Relay], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(_with_echo(scenario), 60))

    return run_one


async def _with_echo(scenario: Callable[[Relay], Awaitable[None]]) -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[:2]
    # "localhost" and the address are two keys for port 0 twice.
    async with Relay({("127.0.0.1", 0): target, ("localhost", 0): target}) as relay:
        await scenario(relay)
    server.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def connect(relay: Relay, port: int = 0) -> Client:
    return await asyncio.open_connection(*relay.addresses[port])


async def ask(client: Client, line: bytes = b"hello\n") -> bytes:
    """Sends one line and returns the next one that comes back."""
    client[1].write(line)
    return await asyncio.wait_for(client[0].readline(), PATIENCE)


async def silent(client: Client) -> bool:
    """Whether nothing comes, not even an end."""
    try:
        await asyncio.wait_for(client[0].read(1), QUIET)
    except TimeoutError:
        return True
    return False


async def old(relay: Relay) -> Client:
    """A connection that works and is old enough to count as established."""
    client = await connect(relay)
    assert await ask(client) == b"hello\n"
    await asyncio.sleep(relays.YOUNG + 0.05)  # uvloop counts in whole milliseconds
    return client


def test_passes_both_ways_on_every_port_under_back_pressure_and_passes_the_end_on(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        sent = b"".join(b"%07d\n" % n for n in range(1_500_000))
        for port in range(2):
            reader, writer = await connect(relay, port)
            writer.write(sent)
            writer.write_eof()
            await asyncio.sleep(QUIET)  # every buffer on the way fills up
            assert await asyncio.wait_for(reader.read(), PATIENCE) == sent
            writer.close()
        assert await all_gone(relay)

    run(scenario)


def test_refuse_resets_the_established_and_refuses_the_new_then_accepts(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        clients = [await old(relay), await connect(relay, 1)]
        async with relay.fault("refuse"):
            for client in clients:
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(client[0].read(), PATIENCE)
            for port in range(2):
                with pytest.raises(ConnectionRefusedError):
                    await connect(relay, port)
            with pytest.raises(OSError, match="in use"):  # the port stays ours
                await asyncio.start_server(_echo, *relay.addresses[0], reuse_address=True)
        assert await ask(await connect(relay)) == b"hello\n"
        check(relay, "refuse", "path")

    run(scenario)


def test_stall_answers_all_together_afterwards_and_loses_nothing(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        held = await old(relay)
        async with relay.fault("stall"):
            fresh = await connect(relay)
            for client in (held, fresh):
                for n in range(3):
                    client[1].write(b"%d\n" % n)
            assert await silent(held)
            assert await silent(fresh)
        for client in (held, fresh):
            assert await asyncio.wait_for(client[0].readexactly(6), PATIENCE) == b"0\n1\n2\n"
        check(relay, "stall", "frozen")

    run(scenario)


def test_stall_keeps_no_more_than_the_kernel_does(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        held = await old(relay)
        async with relay.fault("stall"):
            held[1].write(b"x" * 64_000_000)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(held[1].drain(), QUIET)
            held[1].transport.abort()

    run(scenario)


def test_drop_discards_and_answers_again_afterwards(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        held = await old(relay)
        async with relay.fault("drop"):
            fresh = await connect(relay)
            for client in (held, fresh):
                client[1].write(b"lost\n")
                assert await silent(client)
        for client in (held, fresh):
            assert await ask(client, b"kept\n") == b"kept\n"
        check(relay, "drop", "frozen")

    run(scenario)


@pytest.mark.parametrize("kind", ["drop", "stall"])
def test_a_caller_that_goes_meanwhile_is_forgotten_afterwards(run: Run, kind: str) -> None:
    async def scenario(relay: Relay) -> None:
        held = await old(relay)
        async with relay.fault(kind):
            fresh = await connect(relay)
            held[1].close()
            fresh[1].close()
            await asyncio.sleep(QUIET)
        assert await all_gone(relay)

    run(scenario)


def test_reset_hits_the_established_once_and_spares_the_young_and_the_new(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        held = await old(relay)
        before = time.monotonic()
        young = await connect(relay)
        assert await ask(young) == b"hello\n"
        injection = await relay.inject("reset", 0.0)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(held[0].read(), PATIENCE)
        assert await ask(await connect(relay)) == b"hello\n"
        assert injection.start == injection.end
        check(relay, "reset", "break")
        if injection.start.after - before < relays.YOUNG:  # a slow machine makes it old
            assert await ask(young) == b"hello\n"

    run(scenario)


def test_flow_drop_silences_the_established_until_the_end(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        held = await old(relay)
        async with relay.fault("flow_drop"):
            held[1].write(b"lost\n")
            assert await silent(held)
            assert await ask(await connect(relay)) == b"hello\n"
        assert await ask(held, b"kept\n") == b"kept\n"
        check(relay, "flow_drop", "break")

    run(scenario)


def test_one_fault_at_a_time(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        async with relay.fault("drop"):
            with pytest.raises(RuntimeError):
                await relay.inject("stall", 0.0)
        assert await ask(await connect(relay)) == b"hello\n"

    run(scenario)


def test_past_the_limit_new_connections_are_reset_and_counted(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        relay.limit = 1
        held = await old(relay)
        with pytest.raises(ConnectionResetError):
            await ask(await connect(relay))
        assert relay.over_limit == 1
        assert await ask(held) == b"hello\n"

    run(scenario)


def test_a_peer_that_refuses_is_a_reset(run: Run) -> None:
    async def scenario(relay: Relay) -> None:
        async with Relay({("127.0.0.1", 0): ("127.0.0.1", 1)}) as lonely:
            client = await connect(lonely)
            with pytest.raises(ConnectionResetError):
                await ask(client)

    run(scenario)


def check(relay: Relay, kind: str, expectation: str) -> None:
    """The last injection is of that kind and its brackets stand in order."""
    injection = relay.injections[-1]
    assert (injection.kind, injection.expectation) == (kind, expectation)
    assert injection.start.before <= injection.start.after
    assert injection.start.before <= injection.end.before <= injection.end.after <= time.monotonic()
    assert injection.shortest <= injection.longest


async def all_gone(relay: Relay) -> bool:
    """Waits until the relay has forgotten every connection."""
    await asyncio.wait_for(asyncio.gather(*(link.gone.wait() for link in list(relay.links))), PATIENCE)
    return not relay.links
