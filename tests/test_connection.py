"""One connection at a time against a plain socket, stepped by hand: no event loop, no engine."""

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

import pytest
from box import PATIENCE, open_files
from servers import RESET_ON_CLOSE, Certificates, make_certificates, refusing

from exporters.probing.connection import CAUSE_OF_ERRNO, CHUNK, Connection, Poller
from exporters.probing.protocols import CAUSES

pytestmark = pytest.mark.slow

Address = tuple[Any, ...]
BIG = bytes(range(256)) * 40_000  # 10 MB, more than any socket buffer takes


class Told:
    """An owner that notes what it is told, and does what a test gives it to do."""

    def __init__(self) -> None:
        self.openings = 0
        self.data = bytearray()
        self.ends: list[str] = []
        self.on_opened: Callable[[Connection], None] = lambda _: None
        self.on_received: Callable[[Connection], None] = lambda _: None

    def opened(self, conn: Connection) -> None:
        assert conn.open
        assert conn.ready
        self.openings += 1
        self.on_opened(conn)

    def received(self, conn: Connection, data: bytes) -> None:
        assert self.openings == 1
        assert not self.ends
        assert 0 < len(data) <= 2 * CHUNK
        self.data += data
        self.on_received(conn)

    def ended(self, conn: Connection, cause: str) -> None:
        assert not conn.open
        self.ends.append(cause)


class Loop:
    """What a poller wants of an event loop."""

    def add_reader(self, *_: object) -> None: ...
    def remove_reader(self, *_: object) -> None: ...


@pytest.fixture
def poller() -> Iterator[Poller]:
    """A poller at whose end nothing may be left: no socket in it, no descriptor in the process."""
    before = open_files()
    poller = Poller(cast("Any", Loop()))
    yield poller
    assert len(poller) == 0
    poller.close()
    assert open_files() == before


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as sock:
        sock.settimeout(PATIENCE)
        yield sock


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def step(poller: Poller, condition: Callable[[], object]) -> None:
    """Handle what is ready until `condition` holds."""
    deadline = monotonic() + PATIENCE
    while not condition() and monotonic() < deadline:
        poller.drain()
        sleep(0.001)  # or the other end, a thread, waits for the interpreter
    assert condition()


def connect(
    poller: Poller, address: Address, tls: tuple[ssl.SSLContext, str] | None = None, number: int = 1
) -> tuple[Connection, Told]:
    told = Told()
    return Connection(poller, told, number, address, tls), told


def connected(poller: Poller, listener: socket.socket) -> tuple[Connection, Told, socket.socket]:
    """A connection that is open, and its other end."""
    conn, told = connect(poller, listener.getsockname())
    step(poller, lambda: told.openings)
    server, _ = listener.accept()
    return conn, told, server


def reset(server: socket.socket) -> None:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    server.close()


def test_every_errno_becomes_a_known_cause() -> None:
    assert set(CAUSE_OF_ERRNO.values()) <= set(CAUSES)


def test_stamps_stand_in_order_and_data_goes_both_ways(poller: Poller, listener: socket.socket) -> None:
    before = monotonic()
    conn, told = connect(poller, listener.getsockname())
    assert not conn.ready
    assert conn.connected == conn.wrote == 0.0
    step(poller, lambda: told.openings)
    assert before <= conn.started <= conn.called <= conn.connected <= monotonic()
    conn.send(b"ping")
    assert conn.connected <= conn.wrote <= monotonic()
    server, _ = listener.accept()
    with server:
        assert server.recv(10) == b"ping"
        server.sendall(b"pong")
        step(poller, lambda: told.data == b"pong")
    step(poller, lambda: told.ends)
    assert told.ends == ["closed"]


def test_only_what_was_said_in_part_is_cut(poller: Poller, listener: socket.socket) -> None:
    silent, _, server = connected(poller, listener)
    half, told, other = connected(poller, listener)
    with server, other:
        assert not silent.cut(begun=False)
        for conn in (silent, half):
            conn.send(b"what is your name?")
        other.send(b"my na")
        step(poller, lambda: told.data)
        assert not half.cut(begun=True)  # the rest may be on its way
        step(poller, lambda: half.cut(begun=True))
        assert not half.cut(begun=False)  # it was said before we asked
        assert not silent.cut(begun=False)  # all of the request is there
        half.close()
        assert not half.cut(begun=True)
        silent.send(BIG)
        step(poller, lambda: silent.cut(begun=False))  # it does not take it all
        silent.close()


def test_what_came_before_the_end_is_received_before_it(poller: Poller, listener: socket.socket) -> None:
    _, told, server = connected(poller, listener)
    server.sendall(b"last words")
    server.close()
    step(poller, lambda: told.ends)
    assert told.data == b"last words"
    assert told.ends == ["closed"]


def test_a_refused_connection_ends_once_and_not_from_the_constructor(poller: Poller) -> None:
    with refusing() as port:
        _, told = connect(poller, port.getsockname())
        assert told.ends == []
        step(poller, lambda: told.ends)
        poller.drain()
    assert told.ends == ["refused"]
    assert told.openings == 0


def test_what_connect_says_at_once_is_told_later_and_once(poller: Poller) -> None:
    _, told = connect(poller, ("255.255.255.255", 9))  # no TCP to everybody: ENETUNREACH wherever the routes lead
    assert told.ends == []
    step(poller, lambda: told.ends)
    poller.drain()
    assert told.ends == ["unreachable"]


def test_a_reset_is_a_reset(poller: Poller, listener: socket.socket) -> None:
    _, told, server = connected(poller, listener)
    reset(server)
    step(poller, lambda: told.ends)
    assert told.ends == ["reset"]


def test_a_write_to_a_connection_that_is_gone_is_told_later_and_once(poller: Poller, listener: socket.socket) -> None:
    conn, told, server = connected(poller, listener)
    reset(server)
    for _ in range(3):
        conn.send(b"too late")  # the first takes the error away from the socket
        assert told.ends == []
    step(poller, lambda: told.ends)
    poller.drain()
    assert told.ends == ["reset"]


def test_nothing_happens_after_the_end(poller: Poller, listener: socket.socket) -> None:
    conn, told, server = connected(poller, listener)
    conn.close()
    conn.close()
    conn.send(b"into the void")
    poller.drain()
    with server:
        assert server.recv(10) == b""
    assert (told.ends, conn.open) == ([], False)  # who closes knows


def test_what_the_socket_does_not_take_now_it_takes_later(poller: Poller, listener: socket.socket) -> None:
    conn, _, server = connected(poller, listener)
    conn.send(BIG)
    conn.send(b"end")
    got = bytearray()
    server.setblocking(False)

    def all_of_it() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.extend(server.recv(1 << 20))
        return len(got) == len(BIG) + 3

    step(poller, all_of_it)
    assert got == BIG + b"end"
    conn.close()
    server.close()


def test_a_pass_takes_a_bounded_amount_from_each(poller: Poller, listener: socket.socket) -> None:
    _, told, server = connected(poller, listener)
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.send(BIG)
    for passes in range(1, 4):
        poller.drain()
        assert len(told.data) <= passes * CHUNK
    server.close()
    step(poller, lambda: told.ends)


def test_an_owner_may_close_from_what_it_is_told(poller: Poller, listener: socket.socket) -> None:
    _, told, server = connected(poller, listener)
    told.on_received = lambda conn: conn.close()
    server.sendall(b"x")
    server.close()
    step(poller, lambda: told.data)
    poller.drain()
    assert told.ends == []


@pytest.mark.parametrize("listener", ["127.0.0.1"], indirect=True)
def test_an_event_of_a_former_owner_of_a_descriptor_is_not_the_new_ones(
    poller: Poller, listener: socket.socket
) -> None:
    pairs = [connected(poller, listener) for _ in range(2)]
    fresh: list[tuple[Connection, Told]] = []

    def replace(conn: Connection) -> None:
        """Whichever is handled first closes the other, and a new connection takes over its descriptor."""
        if not fresh:
            (other,) = (each for each, _, _ in pairs if each is not conn)
            other.close()
            fresh.append(connect(poller, listener.getsockname()))

    for _, told, server in pairs:
        told.on_received = replace
        server.sendall(b"x")
    poller.drain()
    ((conn, told),) = fresh
    assert conn.connected == 0.0
    assert sum(len(told.data) for _, told, _ in pairs) == 1
    step(poller, lambda: told.openings)
    for each in (conn, *(each for each, _, _ in pairs)):
        each.close()
    for _, _, server in pairs:
        server.close()


def test_no_descriptor_left_is_our_own_fault() -> None:
    """In a process of its own, which has none left."""
    command = [sys.executable, "-c", STARVED]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "descriptors\n", done.stderr


STARVED = """
import os, resource
from typing import Any, cast
from exporters.probing.connection import Connection, LocalError, Poller
from test_connection import Loop, Told

poller = Poller(cast(Any, Loop()))
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
try:
    Connection(poller, Told(), 1, ("127.0.0.1", 9), None)
except LocalError as error:
    print(error.args[0])
"""


# --- TLS


@contextlib.contextmanager
def tls_echo(listener: socket.socket, context: ssl.SSLContext) -> Iterator[threading.Thread]:
    """Serve one caller with what it sends, until it closes or says how it wants to be left."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE)
            with context.wrap_socket(sock, server_side=True) as server:
                while (data := server.recv(65536)) not in (b"", b"unwrap", b"close", b"reset"):
                    server.sendall(data)
                if data == b"unwrap":
                    server.unwrap()
                elif data == b"reset":
                    reset(server)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(PATIENCE)


def client(certificates: Certificates) -> tuple[ssl.SSLContext, str]:
    return ssl.create_default_context(cafile=certificates.ca), "localhost"


@pytest.mark.parametrize(("wish", "cause"), [(b"unwrap", "closed"), (b"close", "closed"), (b"reset", "reset")])
def test_tls_both_ways_until_the_end(
    poller: Poller, listener: socket.socket, certificates: Certificates, wish: bytes, cause: str
) -> None:
    with tls_echo(listener, certificates.server()):
        conn, told = connect(poller, listener.getsockname(), client(certificates))
        step(poller, lambda: conn.connected)
        step(poller, lambda: conn.ready)
        assert told.openings == 1
        for _ in range(10):  # several records at a time
            told.data.clear()
            conn.send(BIG[:50_000])
            step(poller, lambda: len(told.data) == 50_000)
            assert told.data == BIG[:50_000]
        conn.send(wish)
        step(poller, lambda: told.ends)
    assert told.ends == [cause]


def test_tls_a_write_to_a_connection_that_is_gone_is_told_later_and_once(
    poller: Poller, listener: socket.socket, certificates: Certificates
) -> None:
    with tls_echo(listener, certificates.server()) as served:
        conn, told = connect(poller, listener.getsockname(), client(certificates))
        step(poller, lambda: told.openings)
        conn.send(b"reset")
        served.join(PATIENCE)
        for _ in range(3):
            conn.send(b"too late")
            assert told.ends == []
        step(poller, lambda: told.ends)
        poller.drain()
    assert told.ends in (["reset"], ["closed"])  # which error comes first is up to the TLS library's reading


@pytest.mark.parametrize("name", ["self", "expired", "wrong-name"])
@pytest.mark.parametrize("listener", ["127.0.0.1"], indirect=True)
def test_a_certificate_that_does_not_hold_is_one_failure(
    poller: Poller, listener: socket.socket, certificates: Certificates, name: str
) -> None:
    with tls_echo(listener, certificates.server(name)):
        _, told = connect(poller, listener.getsockname(), client(certificates))
        step(poller, lambda: told.ends)
    assert (told.ends, told.openings) == (["tls"], 0)


@pytest.mark.parametrize("listener", ["127.0.0.1"], indirect=True)
def test_a_server_that_wants_a_certificate_of_ours_and_gets_none(
    poller: Poller, listener: socket.socket, certificates: Certificates
) -> None:
    with tls_echo(listener, certificates.server(verify_mode=ssl.CERT_REQUIRED)):
        _, told = connect(poller, listener.getsockname(), client(certificates))
        step(poller, lambda: told.ends)
    assert told.ends == ["tls"]


@pytest.mark.parametrize("listener", ["127.0.0.1"], indirect=True)
@pytest.mark.parametrize(
    ("answer", "cause"), [(b"HTTP/1.1 400 Bad\r\n\r\n", "tls"), (b"", "closed"), (bytes(70_000), "tls")]
)
def test_a_server_without_tls_where_it_is_wanted(
    poller: Poller, listener: socket.socket, certificates: Certificates, answer: bytes, cause: str
) -> None:
    conn, told = connect(poller, listener.getsockname(), client(certificates))
    server, _ = listener.accept()
    step(poller, lambda: conn.wrote)
    with server:
        assert server.recv(1 << 20)[:2] == b"\x16\x03"  # our half of the handshake
        server.sendall(answer)
        server.shutdown(socket.SHUT_WR)
        step(poller, lambda: told.ends)
    assert (told.ends, told.openings) == ([cause], 0)
