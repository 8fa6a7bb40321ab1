"""Daemons on Unix sockets that answer what a test wants: late, in pieces, or nonsense."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Talk = Callable[[socket.socket], object]


@contextmanager
def daemon(path: Path, talk: Talk) -> Iterator[None]:
    """A server that says what `talk` says to whoever comes, one after another."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()

        def serve() -> None:
            while True:
                try:
                    caller, _ = door.accept()
                except OSError:
                    return
                with caller:
                    try:
                        talk(caller)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def answering(*pieces: bytes) -> Talk:
    def talk(caller: socket.socket) -> None:
        caller.recv(65536)
        for piece in pieces:
            caller.sendall(piece)
            time.sleep(0.001)

    return talk


def silent(caller: socket.socket) -> None:
    while caller.recv(65536):
        pass


def drip(caller: socket.socket) -> None:
    caller.recv(65536)
    while True:
        caller.sendall(b" ")
        time.sleep(0.01)
