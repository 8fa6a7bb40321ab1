"""The processes of a calibration: the server that is frozen or killed, and the prober that tells what it saw.

They are no part of our process group, so that Ctrl-C reaches us alone and we end them in order.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.calibrate.injection import Bracket, NotInjectedError, Truth

SIGNAL_SECONDS = 5.0  # for a process to stop, to go on, to die
SERVER_SECONDS = 15.0  # for a server to listen again
READY_SECONDS = 60.0  # for a prober to have reached all it probes

ANSWER_SECONDS = 10.0  # for a server to answer after it was frozen
QUESTION = b"GET /ping HTTP/1.1\r\nHost: calibrate\r\nConnection: close\r\n\r\n"

ANSWER = [sys.executable, "-m", "exporters.calibrate.answer"]
PROBE = [sys.executable, "-m", "exporters.calibrate.probe"]


@dataclass(slots=True)
class Server:
    """What answers: how to start it, the ports it listens on, its process now, and who asks the kernel for ports."""

    name: str
    start: "Callable[[], subprocess.Popen[bytes]]"
    ports: frozenset[int]
    process: "subprocess.Popen[bytes]"
    listening: Callable[[], set[int]]  # TCP ports that somebody listens on where it runs
    dial: Callable[[int], socket.socket]  # connects to one of its ports

    def wait_until_it_listens(self) -> None:
        """Raises RuntimeError when it does not come to that."""
        deadline = time.monotonic() + SERVER_SECONDS
        while not self.ports <= self.listening():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: the server does not listen on {sorted(self.ports)}")
            time.sleep(0.005)


def freeze(server: Server, seconds: float, stop: threading.Event) -> Truth:
    """SIGSTOP, then SIGCONT: connections are accepted by the kernel, nothing is answered, then all at once.

    It has ended when a question asked then is answered, for first comes all that waited.
    """
    start = _signal(server, signal.SIGSTOP, stopped=True)
    try:
        wait(stop, start.after + seconds)
    finally:
        end = _signal(server, signal.SIGCONT, stopped=False)
    return start, Bracket(end.before, answered(map(server.dial, server.ports)))


def answered(socks: Iterable[socket.socket]) -> float:
    """Ask over each connection, close it; when the last answer came. What is asked for makes all our servers answer."""
    with contextlib.ExitStack() as stack:
        asked = [stack.enter_context(contextlib.closing(sock)) for sock in socks]
        try:
            for sock in asked:
                sock.settimeout(ANSWER_SECONDS)
                sock.sendall(QUESTION)
            for sock in asked:
                sock.recv(1)
        except OSError as error:
            raise NotInjectedError(f"no answer afterwards: {error}") from error
    return time.monotonic()


def kill(server: Server, seconds: float, stop: threading.Event) -> Truth:
    """SIGKILL, then the same command again; the end is when all its ports listen again."""
    before = time.monotonic()
    server.process.kill()
    server.process.wait(timeout=SIGNAL_SECONDS)
    start = Bracket(before, time.monotonic())
    if server.process.stdin is not None:
        server.process.stdin.close()
    wait(stop, start.after + seconds)
    server.process = server.start()
    deadline = time.monotonic() + SERVER_SECONDS
    silent = start.after
    while True:
        looked = time.monotonic()
        there = server.ports & server.listening()
        if there == server.ports:
            return start, Bracket(silent, time.monotonic())
        if not there:
            silent = looked
        if looked > deadline or server.process.poll() is not None:
            raise NotInjectedError(f"{server.name}: the server does not listen again")
        time.sleep(0.001)


def wait(stop: threading.Event, until: float) -> None:
    """Sleep until then, or until all is to end."""
    stop.wait(max(0.0, until - time.monotonic()))


def _signal(server: Server, number: signal.Signals, *, stopped: bool) -> Bracket:
    """Send it and wait until every thread of the process has stopped, or none is stopped any more."""
    before = time.monotonic()
    server.process.send_signal(number)
    while any((state == "T") is not stopped for state in _thread_states(server.process.pid)):
        if time.monotonic() > before + SIGNAL_SECONDS:
            raise NotInjectedError(f"process {server.process.pid} did not obey {number.name}")
        time.sleep(0.0002)
    return Bracket(before, time.monotonic())


def _thread_states(pid: int) -> list[str]:
    """The state letter of each thread, `1234 (name) S 1 ...`: S sleeps, R runs, T is stopped."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            states.append(stat.read_text().rpartition(") ")[2][0])
    return states


class Prober:
    """A process that prints finished events as JSON lines until its stdin ends; both are pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = process
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            if line.get("kind") == "ready":
                self._ready.set()
            else:
                self.lines.append(line)
        self._ready.set()

    def wait_until_ready(self) -> None:
        """Wait until all it probes was reached. Raises RuntimeError when that does not come."""
        if not self._ready.wait(READY_SECONDS) or self._process.poll() is not None:
            raise RuntimeError("a prober does not reach what it probes")

    def finish(self) -> list[dict[str, Any]]:
        """End it; returns everything it printed. Raises RuntimeError when it did not end well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(timeout=30)
        self._reader.join()
        if code:
            raise RuntimeError(f"a prober ended with {code}")
        return self.lines
