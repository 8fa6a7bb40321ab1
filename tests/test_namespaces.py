"""Lanes and their faults, as a plain client in the lane sees them."""

import errno
import functools
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from exporters.calibrate.carry import Job, carry_out
from exporters.calibrate.faults import FAULTS, inject, rules
from exporters.calibrate.injection import Injection, NotInjectedError
from exporters.calibrate.namespaces import NETNS, Lane, lanes
from exporters.calibrate.plan import Step
from exporters.calibrate.processes import Prober

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

ECHO = [sys.executable, str(Path(__file__).with_name("echo_server.py"))]
PORT = 7000
FAMILIES = (4, 6)
BOTH = (True, False)  # a fresh connection for each exchange, and one that stays
TIMEOUT = 0.5  # seconds for one call of a client
LONG = 30.0  # seconds; only a broken lane needs them

SILENT = ({"no connection"}, {"no answer"})
CUT = ({"no connection", "unreachable"}, {"no answer"})
# What a fresh connection and an established one see while a fault lasts.
SEEN = {
    "drop_both": SILENT,
    "drop_to_server": SILENT,
    "drop_to_client": SILENT,
    "reject_reset": ({"refused"}, {"reset"}),
    "reject_icmp": CUT,
    "link_down_server": CUT,
    "link_down_client": CUT,
    "kill": ({"refused"}, {"reset"}),
    "stop": ({"no answer"}, {"no answer"}),
    "flow_drop": ({"answered"}, {"no answer"}),
    "flow_reset": ({"answered"}, {"reset"}),
}


def prefix(letter: str) -> str:
    """Differs between checkouts and test workers, is the same in each run: a crash is cleared by the next."""
    where = f"{__file__} {os.environ.get('PYTEST_XDIST_WORKER')}"
    return f"ow{letter}{zlib.crc32(where.encode()):08x}"


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with lanes(prefix("t"), 1) as (only,):
        only.start_server([*ECHO, str(PORT)], [PORT])
        yield only


class Seen(NamedTuple):
    """One exchange of a client: when, and what came of it."""

    family: int
    fresh: bool
    began: float
    ended: float
    result: str

    def inside(self, injection: Injection) -> bool:
        """Whether the fault lasted all the while."""
        return injection.start.after < self.began and self.ended < injection.end.before


@dataclass
class Client:
    """A connection that stays, and the numbered lines sent over it."""

    sock: socket.socket
    number: int = 0
    received: bytes = b""
    gone: str = ""

    def ask(self) -> str:
        """Sends a line, waits for its echo and skips earlier ones."""
        if self.gone:
            return self.gone
        self.number += 1
        line = b"%09d\n" % self.number
        try:
            self.sock.sendall(line)
            while not self.received.endswith(line):
                data = self.sock.recv(4096)
                if not data:
                    raise ConnectionResetError
                self.received += data
        except OSError as error:
            result = name(error, "no answer")
            self.gone = result if result == "reset" else ""
            return result
        return "answered"


def name(error: OSError, timeout: str) -> str:
    if isinstance(error, TimeoutError):
        return timeout
    words = {
        errno.ECONNREFUSED: "refused",
        errno.ECONNRESET: "reset",
        errno.EPIPE: "reset",
        errno.EHOSTUNREACH: "unreachable",
        errno.ENETUNREACH: "unreachable",
    }
    return words[error.errno] if error.errno else "reset"


def connect(lane: Lane, family: int) -> Client:
    sock = lane.client.call(socket.socket, socket.AF_INET if family == 4 else socket.AF_INET6)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect((lane.addresses["server", family], PORT))
    except OSError:
        sock.close()
        raise
    return Client(sock)


def ask_fresh(lane: Lane, family: int) -> str:
    try:
        client = connect(lane, family)
    except OSError as error:
        return name(error, "no connection")
    with client.sock:
        return client.ask()


def watch(lane: Lane, kind: str, seconds: float) -> tuple[list[Injection], list[Seen]]:
    """Injects while clients ask; returns the truth and what they saw, up to the first answers afterwards."""
    clients = {family: connect(lane, family) for family in FAMILIES}
    over = threading.Event()
    log: list[Seen] = []

    def keep_asking(family: int, fresh: bool) -> None:
        deadline = time.monotonic() + LONG
        settled = False
        while not settled and time.monotonic() < deadline:
            later = over.is_set()
            began = time.monotonic()
            result = ask_fresh(lane, family) if fresh else clients[family].ask()
            log.append(Seen(family, fresh, began, time.monotonic(), result))
            settled = later and result in {"answered", "reset"}
            time.sleep(0.01)

    threads = [threading.Thread(target=keep_asking, args=(family, fresh)) for family in FAMILIES for fresh in BOTH]
    for thread in threads:
        thread.start()
    try:
        injections = inject(lane, kind, seconds)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for client in clients.values():
        client.sock.close()
    return injections, log


@pytest.mark.parametrize("kind", FAULTS)
def test_a_plain_client_sees_the_fault(lane: Lane, kind: str) -> None:
    injections, log = watch(lane, kind, 2.0)
    fresh, established = SEEN[kind]
    for family, is_fresh in itertools.product(FAMILIES, BOTH):
        (injection,) = [each for each in injections if each.family in {None, family}]
        assert injection.expectation == FAULTS[kind].expectation
        mine = [seen for seen in log if (seen.family, seen.fresh) == (family, is_fresh)]
        assert mine[-1].result == ("reset" if established == {"reset"} and not is_fresh else "answered")
        inside = {seen.result for seen in mine if seen.inside(injection)}
        if injection.start == injection.end:  # over at once: what it left
            inside = {mine[-1].result}
        assert inside
        assert inside <= (fresh if is_fresh else established)


@pytest.mark.parametrize("kind", FAULTS)
def test_the_truth_is_narrow_and_as_long_as_asked(lane: Lane, kind: str) -> None:
    held = connect(lane, 4)
    for injection in inject(lane, kind, 0.3):
        for edge in (injection.start, injection.end):
            assert 0 <= edge.after - edge.before < 0.5
        assert injection.start.before <= injection.end.before
        if injection.start != injection.end:
            assert injection.longest >= 0.3
        assert injection.end.after <= time.monotonic()
    held.sock.close()


def test_nothing_to_break_is_an_error(lane: Lane) -> None:
    with lanes(prefix("u"), 1) as (idle,):
        for kind in ("flow_drop", "flow_reset", "stop", "kill"):
            with pytest.raises(NotInjectedError):
                inject(idle, kind, 0.0)
    assert ask_fresh(lane, 4) == "answered"


def test_a_filter_that_does_not_bite_is_an_error(lane: Lane) -> None:
    with pytest.raises(NotInjectedError, match="canaries"):
        rules("iifname nothing drop")(lane, 0.05)
    with pytest.raises(NotInjectedError, match="syntax error"):
        rules("no such rule")(lane, 0.05)
    assert ask_fresh(lane, 4) == "answered"


def test_a_plan_is_carried_out_beside_a_prober(lane: Lane) -> None:
    talker = [sys.executable, "-c", "import sys; print('{}', flush=True); sys.stdin.read(); print('{}')"]
    prober = Prober(lane.popen(talker, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    steps = [Step("drop_both", 0.05, 0.0), Step("flow_reset", 0.05, 0.1), Step("stop", 0.05, 0.0)]
    (done,) = carry_out([Job(lane, functools.partial(inject, lane), steps)], limit=60.0)
    assert [each.kind for each in done.injections] == ["drop_both", "stop"]
    assert len(done.reasons) == 2  # nobody was connected, nor at the second attempt
    assert len(done.voids) >= 1
    assert prober.finish() == [{}, {}]


def spaces(prefix_: str) -> list[str]:
    return [entry.name for entry in NETNS.iterdir() if entry.name.startswith(prefix_)]


def test_lanes_leave_no_namespace_and_no_process() -> None:
    with lanes(prefix("v"), 2) as built:
        processes = [each.popen(["sleep", "600"]) for each in built]
        assert len(spaces(prefix("v"))) == 6
    assert spaces(prefix("v")) == []
    assert all(process.returncode is not None for process in processes)


def test_an_error_inside_cleans_up_too() -> None:
    with pytest.raises(ZeroDivisionError), lanes(prefix("v"), 1):
        _ = 1 / 0
    assert spaces(prefix("v")) == []


def test_a_crash_is_cleared_by_the_next_run() -> None:
    crash = (
        "import os, sys; from exporters.calibrate.namespaces import lanes\n"
        "with lanes(sys.argv[1], 1) as (lane,):\n"
        "    print(lane.popen(['sleep', '600'], stdout=2).pid)\n"
        "    sys.stdout.flush()\n"
        "    os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", crash, prefix("w")], stdout=subprocess.PIPE, text=True, check=False)
    assert len(spaces(prefix("w"))) == 3
    with lanes(prefix("w"), 1):
        stat = Path(f"/proc/{int(done.stdout)}/stat")
        assert not stat.exists() or stat.read_text().rpartition(") ")[2][0] == "Z"
    assert spaces(prefix("w")) == []
