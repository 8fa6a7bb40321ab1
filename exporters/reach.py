"""Flags of a command that asks exporters: who signs their certificates, with which certificate and token it comes.

What is wrong with the files they name is told at once, each with its flag, before anybody is asked.
"""

import argparse
import contextlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporters import targets, webconfig
from exporters.fetch import client_context
from exporters.strictyaml import BadInput, Problem
from exporters.targets import TlsFiles

VARIABLE = "OVNWATCH_TOKEN"
MOST_BYTES = 64 * 1024  # of an answer


@dataclass(frozen=True, slots=True)
class Reach:
    """How exporters are asked; an empty token is none."""

    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    token: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """To a command's parser; `reach` reads them."""
    for flag, says in (
        ("--ca-file", "who signs the certificates of those asked; the system's authorities if not given"),
        ("--cert-file", "our certificate, where they want one"),
        ("--key-file", "and its key"),
        ("--web.token-file", f"where they want a password or the token; else {VARIABLE}"),
    ):
        parser.add_argument(flag, dest=_dest(flag), type=targets.file_name, metavar="FILE", help=says)
    parser.add_argument("--insecure", action="store_true", help="take any certificate")


def reach(args: argparse.Namespace) -> Reach:
    """What the flags say. Raises BadInput with every problem."""
    problems: list[Problem] = []
    files = TlsFiles(
        ca_file=args.ca_file,
        cert_file=args.cert_file,
        key_file=args.key_file,
        insecure_skip_verify=args.insecure,
    )
    tls = targets.tls_of(files, Path(), _flag, {}, problems)
    said = ""
    try:
        said = token(args.token_file, "--web.token-file", VARIABLE)
    except BadInput as bad:
        problems += bad.problems
    if problems or tls is None:
        raise BadInput(problems)
    return Reach(client_context(tls), said)


class _Straight(urllib.request.HTTPRedirectHandler):
    """The token goes where it was sent to, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def http_url(text: str) -> str:
    """Raises ArgumentTypeError."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"want http://HOST:PORT or https://HOST:PORT, not {text!r}")
    return text.rstrip("/")


def post(url: str, how: Reach, body: bytes = b"", seconds: float = 10.0) -> bytes:
    """What is answered to a POST, some of it. Raises OSError, as HTTPError is one, HTTPException and ValueError."""
    headers = {**how.headers, "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - see http_url
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=how.tls), _Straight
    )
    with direct.open(request, timeout=seconds) as answer:
        return bytes(answer.read(MOST_BYTES))


def refusal(error: urllib.error.HTTPError) -> str:
    """What was answered instead, in a line: its status and the beginning of its text."""
    said = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        said = error.read(MOST_BYTES)
    return f"{error.code}: {' '.join(said.decode('utf-8', 'replace').split())}"[:300]


def token(file: str | None, place: str, variable: str = "") -> str:
    """The token in a file, else in a variable; "" where there is none. Raises BadInput."""
    if file:
        return webconfig.read_token(Path(file), place)
    said = os.environ.get(variable, "")
    return webconfig.checked_token(said, variable) if said else ""


def _dest(flag: str) -> str:
    return flag.rpartition(".")[2].lstrip("-").replace("-", "_")


def _flag(_: str, key: str = "") -> str:
    """The place of a problem with one of the files, or with two that go together."""
    return f"--{key.replace('_', '-')}" if key else "--cert-file, --key-file"
