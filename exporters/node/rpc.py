"""Unix sockets and the JSON-RPC that OVS' daemons speak on them: a question, an answer, bounded in time and bytes.

Long answers share one budget, and are read into objects one after another: what all daemons together may make us hold
is little more than what one may.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from exporters.node.failing import GarbledError, LateError, NotCollectedError

MOST_BYTES = 64 << 20  # of an answer: a hundred thousand interfaces
SHORT_BYTES = 1 << 20  # of an answer that takes nothing of the budget, so that no other one can be in its way
CHUNK = 256 * 1024
LONGEST_NAME = 107  # of a Unix socket, man 7 unix

# A daemon that is being restarted leaves its socket behind, and one that is gone takes it along.
_GONE = (FileNotFoundError, ConnectionRefusedError)


class Deadline:
    """Until when somebody waits, in seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left. Raises LateError when there are none."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise LateError("no answer in time")
        return seconds


class Stream:
    """A connection to a Unix socket, or what `connect` makes; every call on it ends at the deadline."""

    def __init__(self, path: Path, deadline: Deadline, connect: Callable[[], socket.socket] | None = None) -> None:
        self.path = path
        self.deadline = deadline
        if connect is not None:
            self.socket = connect()
            return
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.settimeout(deadline.left())
            _connect(self.socket, path)
        except _GONE as error:
            self.socket.close()
            raise NotCollectedError(f"nobody listens on {path}") from error
        except (TimeoutError, BlockingIOError) as error:  # the second where its queue is full
            self.socket.close()
            raise LateError(f"{path} lets nobody in") from error
        except OSError as error:
            self.socket.close()
            raise NotCollectedError(f"{path}: {error.strerror or error}") from error
        except NotCollectedError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it. Raises LateError, or OSError where the other side is gone."""
        self.socket.settimeout(self.deadline.left())
        try:
            self.socket.sendall(data)
        except TimeoutError as error:
            raise LateError(f"{self.path} does not read") from error

    def receive(self, most: int = CHUNK) -> bytes:
        """Return what comes next. Raises LateError, or NotCollectedError at the end of the connection."""
        self.socket.settimeout(self.deadline.left())
        try:
            data = self.socket.recv(most)
        except TimeoutError as error:
            raise LateError(f"{self.path} does not answer") from error
        if not data:
            raise NotCollectedError(f"{self.path} hung up")
        return data

    def rest(self, most: int) -> bytes:
        """All that comes until the other side ends. Raises LateError, GarbledError for more than that many bytes."""
        parts, size = list[bytes](), 0
        while True:
            self.socket.settimeout(self.deadline.left())
            try:
                parts.append(self.socket.recv(CHUNK))
            except TimeoutError as error:
                raise LateError(f"{self.path} does not come to an end") from error
            size += len(parts[-1])
            if size > most:
                raise GarbledError(f"{self.path} answers more than {most >> 20} MiB")
            if not parts[-1]:
                return b"".join(parts)


def _connect(sock: socket.socket, path: Path) -> None:
    name = str(path)
    try:
        size = len(os.fsencode(name))
    except ValueError as error:
        raise GarbledError("a socket has a name that is none") from error
    if "\0" in name:
        raise GarbledError("a socket has a name that is none")
    if size <= LONGEST_NAME:
        sock.connect(name)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


class Budget:
    """Bytes that all long answers together may take: as many as one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self.reading = threading.Lock()  # held while a long answer becomes objects, which takes several times its size

    def take(self, size: int) -> bool:
        """So many more, if there are any left."""
        with self._lock:
            if self._taken + size > MOST_BYTES:
                return False
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._taken -= size


BUDGET = Budget()


class JsonRpc(Stream):
    """A connection on which both sides send JSON objects with nothing between them."""

    def __init__(self, path: Path, deadline: Deadline, connect: Callable[[], socket.socket] | None = None) -> None:
        super().__init__(path, deadline, connect)
        self._rest = b""

    decoder = json.JSONDecoder()

    def ask(
        self, method: str, params: Sequence[Any], told: Callable[[dict[str, Any]], object] | None = None
    ) -> tuple[Any, Any]:
        """Return (error, result) of a call; who asks us for a sign of life in between gets one.

        What is told meanwhile goes to `told`.

        Raises GarbledError for what is no answer, LateError, NotCollectedError, OSError.
        """
        self.send(json.dumps({"method": method, "params": list(params), "id": 0}).encode())
        while True:
            said = self._object()
            if said.get("method") == "echo":
                self.send(json.dumps({"result": said.get("params"), "error": None, "id": said.get("id")}).encode())
            elif "method" not in said:
                if said.get("id") != 0 or not {"result", "error"} & said.keys():
                    raise GarbledError(f"{self.path} answers what was not asked")
                return said.get("error"), said.get("result")
            elif told is not None:
                told(said)

    def _object(self) -> dict[str, Any]:
        parts, size, taken = [self._rest], len(self._rest), 0
        try:
            while True:
                # Most pieces of a long answer end elsewhere, and to try each would take the square of its length.
                if parts[-1].rstrip().endswith(b"}") and (found := self._tried(parts, size)) is not None:
                    return found
                parts.append(self.receive())
                size += len(parts[-1])
                more = max(0, size - SHORT_BYTES) - taken
                if size > MOST_BYTES or not BUDGET.take(more):
                    raise GarbledError(f"{self.path} and others answer more than {MOST_BYTES >> 20} MiB")
                taken += more
        finally:
            BUDGET.give_back(taken)

    def _tried(self, parts: list[bytes], size: int) -> dict[str, Any] | None:
        """The first object of these pieces, None where it is not whole yet; long ones wait for one another."""
        parts[:] = [b"".join(parts)]
        if size <= SHORT_BYTES:
            return self._first(parts[0])
        if not BUDGET.reading.acquire(timeout=self.deadline.left()):
            raise LateError(f"{self.path} answers much, while others do")
        try:
            return self._first(parts[0])
        finally:
            BUDGET.reading.release()

    def _first(self, data: bytes) -> dict[str, Any] | None:
        """The first object of the data, None where it is not whole yet; the rest is kept."""
        text = data.decode("utf-8", "replace").lstrip()
        if not text.startswith("{"):
            raise GarbledError(f"{self.path} does not speak JSON-RPC")
        try:
            found, end = self.decoder.raw_decode(text)
        except json.JSONDecodeError:
            return None
        except (RecursionError, ValueError) as error:  # the second for a number of thousands of digits
            raise GarbledError(f"{self.path} answers what nobody can read") from error
        self._rest = text[end:].encode()
        assert isinstance(found, dict)
        return found
