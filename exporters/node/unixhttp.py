"""One GET on a Unix socket, bounded in time and bytes."""

import io
import socket
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast

from exporters.node.failing import GarbledError, RefusedError
from exporters.node.rpc import Deadline, Stream

MOST_BYTES = 1 << 20  # of an answer with its head


class _Received:
    """What was received, where http.client wants a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def get(path: Path, url: str, deadline: Deadline) -> bytes:
    """The body of an answer. Raises RefusedError for another status than 200 that has no body, and as Stream does."""
    request = f"GET {url} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
    with Stream(path, deadline) as server:
        server.send(request.encode())
        data = server.rest(MOST_BYTES)
    try:
        response = HTTPResponse(cast("socket.socket", _Received(data)), method="GET")
        response.begin()
        body = response.read()
    except (HTTPException, ValueError) as error:
        raise GarbledError(f"{path} does not speak HTTP") from error
    if response.status != 200 and not body:
        raise RefusedError(f"{path} answers with status {response.status}")
    return body
