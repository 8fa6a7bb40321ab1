"""How a database's server is reached, as OVN writes it: unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT; and connecting."""

import json
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporters.node.failing import LateError, NotCollectedError
from exporters.node.rpc import Deadline, JsonRpc

UUID = {"_uuid"}
EMPTY: dict[str, object] = {}  # nobody changes it
NETWORK = re.compile(r"(tcp|ssl):(\[[0-9a-fA-F:.]+\]|[\w.-]+):([0-9]{1,5})", re.ASCII)


class Remote(NamedTuple):
    """`kind` is unix, tcp or ssl; a host is "" and a port 0 for unix, a path "" for the others."""

    kind: str
    path: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.kind == "unix" else f"{self.kind}:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Files:
    """Who signs servers, and what we show them; read anew for each connection. "": not given."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


def parse(text: str) -> tuple[Remote, ...]:
    """`tcp:10.0.0.1:6642,ssl:[fd00::1]:6642` -> what to try in turn. Raises ValueError."""
    return tuple(_one(each.strip()) for each in text.split(","))


def _one(text: str) -> Remote:
    if text.startswith("unix:/"):
        return Remote("unix", text[5:], "", 0)
    found = NETWORK.fullmatch(text)
    if not found or not 0 < int(found[3]) < 65536:
        raise ValueError(f"want unix:/PATH, tcp:HOST:PORT or ssl:HOST:PORT: {text!r}")
    return Remote(found[1], "", found[2].strip("[]"), int(found[3]))


class Connection(JsonRpc):
    """A connection to such a server. Raises NotCollectedError, LateError, OSError with the reason."""

    # Of rows that are only counted, all that is told is that they are there: a million of them are one object.
    decoder = json.JSONDecoder(object_hook=lambda found: found if found.keys() - UUID else EMPTY)

    def __init__(self, remote: Remote, files: Files, deadline: Deadline) -> None:
        path = Path(remote.path if remote.kind == "unix" else str(remote))
        super().__init__(path, deadline, None if remote.kind == "unix" else lambda: _connected(remote, files, deadline))

    def pending(self) -> bool:
        """Whether something was received that nobody has taken, so that waiting for more is not needed."""
        return bool(self._rest.strip()) or (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0)

    def message(self, seconds: float) -> dict[str, object]:
        """The next message, which is to come within so many seconds."""
        self.deadline = Deadline(seconds)
        return self._object()


def _connected(remote: Remote, files: Files, deadline: Deadline) -> socket.socket:
    context = tls_context(files) if remote.kind == "ssl" else None
    try:
        made = socket.create_connection((remote.host, remote.port), deadline.left())
    except TimeoutError as error:
        raise LateError(f"{remote} does not answer") from error
    except OSError as error:
        raise NotCollectedError(f"{remote}: {error.strerror or error}") from error
    if context is None:
        return made
    try:
        made.settimeout(deadline.left())
        return context.wrap_socket(made, server_hostname=remote.host)
    except TimeoutError as error:
        made.close()
        raise LateError(f"{remote} does not speak TLS in time") from error
    except (ssl.SSLError, ssl.CertificateError, ConnectionError) as error:
        made.close()
        raise NotCollectedError(f"{remote}: TLS fails: {error}") from error


def tls_context(files: Files) -> ssl.SSLContext:
    """As OVS' own programs: who signed the certificate counts, not what name is in it.

    Raises NotCollectedError for files that cannot be used.
    """
    if not files.ca:
        raise NotCollectedError("an address of kind ssl needs --ovn.ca-file")
    try:
        context = ssl.create_default_context(cafile=files.ca)
        context.check_hostname = False
        # Certificates that ovs-pki makes lack what Python has wanted of all since 3.13.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(filter(None, (files.ca, files.certificate, files.key)))
        raise NotCollectedError(f"files for TLS cannot be used ({named}): {error}") from error
    return context
