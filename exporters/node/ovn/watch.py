"""A watch on a database: a thread that keeps a replica of what we need of it, by `monitor_cond`.

1. What is shown is current: each collection asks the server for a sign of life, and all that changed before is told
   before it answers. Without an answer, and while the server is cut off from its cluster, the collector fails.
2. Moves between two collections are seen, too, unless there and back within SETTLE seconds.
3. After a failure addresses are tried in turn, with pauses of up to LONGEST_PAUSE seconds; counts of moves go on.
"""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, Protocol

from exporters.node.failing import FAILURES, GarbledError, LateError, NotCollectedError, RefusedError
from exporters.node.ovn.remote import Connection, Files, Remote
from exporters.node.ovn.replica import TEXT, Column, Replica, Shape, counting, lacking, request
from exporters.node.rows import Row
from exporters.node.rpc import Deadline

PATIENCE = 10.0  # seconds for a connection, an answer, or the rest of a message
IDLE = 5.0  # seconds without a word after which a server is asked for a sign of life
SETTLE = 0.2  # seconds between two looks at what moved
LONGEST_PAUSE = 8.0
CLOSING = 0.5  # seconds that a thread has to notice that we end; one that waits for a server is left behind
SERVER: Shape = {"Database": {"name": TEXT, "connected": Column("scalar", False)}}


class View(Protocol):
    """What somebody wants of a database, and how it is told; `now` is Unix time, `steady` that of a monotonic clock."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...
    def looks_at(self) -> Set[str]: ...
    def look(self, replica: Replica, now: float, steady: float, /) -> None: ...
    def rows(self, replica: Replica, steady: float, /) -> Iterator[Row]: ...


class Watch:
    """A thread, from the first collection until `close`."""

    def __init__(self, view: View, remotes: Sequence[Remote], files: Files) -> None:
        self.view = view
        self.remotes = remotes
        self.files = files
        self._changed = threading.Condition()  # guards all below
        self._replica: Replica | None = None
        self._connected = True
        self._failure = ""
        self._ended = False
        self._countless: set[str] = set()  # tables of too many rows to be counted
        self._asked = self._answered = 0
        self._closing = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._live, name=f"watch-{view.name}", daemon=True)
        self._thread.start()

    def rows(self, deadline: Deadline) -> list[Row]:
        """What the database holds now. Raises NotCollectedError with the reason."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._poke()
            while not (self._replica and self._answered >= mine):
                if self._ended:
                    raise RuntimeError(f"the watch on {self.view.name} has ended")  # why stands on stderr
                if self._failure:
                    raise NotCollectedError(self._failure)
                if not self._changed.wait(deadline.left()):
                    raise LateError(f"{self.view.name}: no answer in time")
            if not self._connected:
                raise NotCollectedError(f"{self.view.name}: the server is cut off from its cluster")
            counts = (
                Row("ovnwatch_ovn_rows", (self.view.name, table), self._replica.count(table))
                for table in self.view.shape.keys() - self._countless
            )
            return [*self.view.rows(self._replica, time.monotonic()), *counts]

    def close(self) -> None:
        self._closing.set()
        self._poke()
        self._thread.join(CLOSING)
        if not self._thread.is_alive():
            self._wake.close()
            self._woken.close()

    def _poke(self) -> None:
        self._wake.send(b".")

    # The thread.

    def _live(self) -> None:
        pause = 0.5
        try:
            while not self._closing.is_set():
                began = time.monotonic()
                failures = [self._try(remote) for remote in self.remotes if not self._closing.is_set()]
                with self._changed:
                    self._failure = "; ".join(failures)
                    self._changed.notify_all()
                pause = 0.5 if time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
                self._closing.wait(pause)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _try(self, remote: Remote) -> str:
        """Watch until it fails; why it did."""
        try:
            with Connection(remote, self.files, Deadline(PATIENCE)) as server:
                self._follow(server)
        except FAILURES as error:
            return str(error) or type(error).__name__
        finally:
            with self._changed:
                self._replica = None
        return "closed"

    def _follow(self, server: Connection) -> None:
        replica, state = Replica(self.view.shape), Replica(SERVER)
        schema = _ask(server, "get_schema", [self.view.name])
        lacks = list(lacking(self.view.shape, schema))
        if lacks:
            version = str(schema.get("version"))[:40]
            raise NotCollectedError(f"its schema {version} has no {', no '.join(lacks)}")

        def meanwhile(said: dict[str, Any]) -> None:
            self._hear(said, server, replica, state)

        for name, of_it in (("_Server", state), (self.view.name, replica)):
            of_it.apply(_ask(server, "monitor_cond", [name, name, request(of_it.shape)], meanwhile))
        for table in replica.counts.keys() - self._countless:
            self._count(server, replica, table, meanwhile)
        with self._changed:
            self._look(replica)
            self._replica, self._failure = replica, ""
            self._note(state)
        self._read(server, replica, state)

    def _count(self, server: Connection, replica: Replica, table: str, meanwhile: Callable[[Any], None]) -> None:
        """Count a table's rows. What comes and goes before the answer is in it, and what is told after it is not.

        One of too many rows for an answer is left out from then on, rather than all the rest with it.
        """
        try:
            replica.counted(table, _ask(server, "transact", [self.view.name, counting(table)], meanwhile))
        except GarbledError:
            self._countless.add(table)
            raise

    def _read(self, server: Connection, replica: Replica, state: Replica) -> None:
        """Until the connection breaks or we close."""
        poll = select.poll()
        poll.register(server.socket, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        heard, asked, looked, dirty = time.monotonic(), 0.0, 0.0, False
        sent = self._answered
        while not self._closing.is_set():
            if not server.pending():
                poll.poll(1000 * (SETTLE if dirty else IDLE))
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            if _readable(server):
                dirty |= self._hear(server.message(PATIENCE), server, replica, state)
                heard = time.monotonic()
            now = time.monotonic()
            if dirty and now - looked >= SETTLE:
                with self._changed:
                    self._look(replica)
                looked, dirty = now, False
            if self._asked > sent or (now - heard >= IDLE and asked < heard):
                sent, asked = self._asked, now
                server.deadline = Deadline(PATIENCE)
                server.send(json.dumps({"method": "echo", "params": [], "id": sent}).encode())
            elif now - heard >= IDLE + PATIENCE:
                raise LateError("the server does not answer")

    def _hear(self, said: dict[str, Any], server: Connection, replica: Replica, state: Replica) -> bool:
        """Whether something may have moved."""
        match said:
            case {"method": "echo"}:
                server.send(json.dumps({"result": said.get("params"), "error": None, "id": said.get("id")}).encode())
            case {"method": "update2", "params": ["_Server", updates]}:
                with self._changed:
                    state.apply(updates)
                    self._note(state)
            case {"method": "update2", "params": [self.view.name, updates]}:
                with self._changed:
                    return bool(replica.apply(updates) & self.view.looks_at())
            case {"result": _, "id": int(number)}:
                with self._changed:
                    self._look(replica)
                    self._answered = max(self._answered, number)
                    self._changed.notify_all()
            case _:
                raise GarbledError("the database says what nobody asked")
        return False

    def _look(self, replica: Replica) -> None:
        self.view.look(replica, time.time(), time.monotonic())

    def _note(self, state: Replica) -> None:
        self._connected = all(row[1] for row in state.rows["Database"].values() if row[0] == self.view.name)
        self._changed.notify_all()


def _readable(server: Connection) -> bool:
    if server.pending():
        return True
    found = select.poll()
    found.register(server.socket, select.POLLIN)
    return bool(found.poll(0))


def _ask(
    server: Connection, method: str, params: Sequence[Any], told: Callable[[dict[str, Any]], object] | None = None
) -> Any:
    server.deadline = Deadline(PATIENCE)
    error, result = server.ask(method, params, told)
    if error is not None:
        raise RefusedError(f"{method}: {str(error)[:200]}")
    return result
