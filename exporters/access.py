"""Who may ask the web side: names in a client's certificate, passwords, the bearer token; each as its file says now.

1. Files are looked at every few seconds, for a rotated Secret sends no signal. What cannot be used changes nothing.
2. A password costs tenths of a second of a core: never on the loop, one at a time, and known ones are remembered.
3. Who bears the token needs no password: both are in the same header, and the token may do more.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import os
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web

from exporters import webconfig
from exporters.strictyaml import BadInput, Problem
from exporters.webconfig import WebConfig

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0  # seconds
REMEMBERED = 128
WAITING = 16  # for a password to be checked; more are sent away
UNKNOWN = b"$2b$10$CwTycUXWue0Thq9StjUM0uJ8.SVYHwvwEVHbAOX0iPjFtGsCH0FVS"  # so that a wrong name takes as long
BASIC = {hdrs.WWW_AUTHENTICATE: 'Basic realm="ovnwatch"'}

State = tuple[tuple[int, ...] | None, ...]


class Access:
    """What requests are judged by; `config` and `token` are what is in use."""

    def __init__(
        self, config_file: Path | None = None, token: str | None = None, token_file: Path | None = None
    ) -> None:
        """Raises BadInput where a file cannot be used."""
        self.config_file = config_file
        self.config = webconfig.load(config_file) if config_file else WebConfig()
        self.token = token
        self.token_file = token_file
        self._seen = self._state()
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        self._secret = os.urandom(32)
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def judge(self, request: web.Request) -> None:
        """Let a request pass that may ask at all; raises 401, 403, or 503 where too many passwords wait."""
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport and self.config.sans else None
        if self.config.sans and not self.config.sans & frozenset(alternative_names(certificate or {})):
            raise web.HTTPForbidden(text="refused: no name in the client's certificate is allowed\n")
        if self.config.users and not self.bears_token(request) and not await self._knows(request):
            raise web.HTTPUnauthorized(text="a user and password are needed\n", headers=BASIC)

    def bears_token(self, request: web.Request) -> bool:
        """Say whether there is a token, and the request bears it."""
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        # Bytes, because compare_digest refuses a str with other characters than ASCII.
        wanted, said = (self.token or "").encode(), given.strip().encode(errors="surrogateescape")
        return bool(self.token) and scheme.lower() == "bearer" and hmac.compare_digest(said, wanted)

    async def _knows(self, request: web.Request) -> bool:
        user, password = credentials(request.headers.get(hdrs.AUTHORIZATION, ""))
        if not user:
            return False
        hashed = self.config.users.get(user, UNKNOWN)
        key = hmac.digest(self._secret, b"\0".join((user.encode(errors="surrogateescape"), hashed, password)), "sha256")
        if (known := self._known.get(key)) is None:
            known = self._known[key] = await self._check(password, hashed) and user in self.config.users
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    async def _check(self, password: bytes, hashed: bytes) -> bool:
        if self._waiting >= WAITING:
            raise web.HTTPServiceUnavailable(text="too many passwords to check\n", headers={hdrs.RETRY_AFTER: "5"})
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(matches, password, hashed)
        finally:
            self._waiting -= 1

    async def watch(self, use_tls: Callable[[ssl.SSLContext], Awaitable[None]], every: float = LOOK_EVERY) -> None:
        """Take changed files into use, for ever; `use_tls` is given the context for connections from then on."""
        while True:
            await asyncio.sleep(every)
            if self.config_file or self.token_file:  # which a reload may have named
                await self.look(use_tls)

    async def look(self, use_tls: Callable[[ssl.SSLContext], Awaitable[None]]) -> None:
        """Take the files into use if they have changed; what is wrong with them is told once."""
        # Away from the loop: the files may be on a network's disk.
        state = await asyncio.to_thread(self._state)
        if state == self._seen:
            return
        self._seen = state
        config, token, problems = await asyncio.to_thread(self._read)
        for problem in problems:
            log.error("access not reloaded: %s: %s", *problem)
        if problems:
            return
        self.token = token
        self.config = config
        if config.tls is not None:
            await use_tls(config.tls)
        log.info("access reloaded")

    def _read(self) -> tuple[WebConfig, str | None, Sequence[Problem]]:
        config, token = self.config, self.token
        try:
            if self.config_file:
                config = webconfig.load(self.config_file)
            if self.token_file:
                token = webconfig.read_token(self.token_file, str(self.token_file))
        except BadInput as bad:
            return self.config, self.token, bad.problems
        if (config.tls is None) != (self.config.tls is None):
            return self.config, self.token, [Problem(str(self.config_file), "TLS came or went, which needs a restart")]
        return config, token, []

    def _state(self) -> State:
        named = [self.config_file, self.token_file, *self.config.files]
        return tuple(_state_of(path) for path in named if path)


def _state_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def alternative_names(certificate: Mapping[str, Any]) -> Iterable[str]:
    """DNS names, addresses, mail addresses and URIs that a certificate, as ssl gives it, is for."""
    return (webconfig.plain_name(str(name)) for _, name in certificate.get("subjectAltName", ()))


def credentials(header: str) -> tuple[str, bytes]:
    """User and password of a Basic Authorization header; an empty user if it is none."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        user, colon, password = base64.b64decode(given.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else ("", b"")
    except (binascii.Error, ValueError):
        return "", b""


def matches(password: bytes, hashed: bytes) -> bool:
    """Say whether a bcrypt hash is that of the password."""
    import bcrypt  # noqa: PLC0415 - only who has passwords needs it

    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:  # longer than bcrypt reads, or with a zero byte
        return False
