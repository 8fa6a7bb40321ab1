"""Asks a member of MicroOVN on its control socket how far an upgrade is, again and again, and enters the phase."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import msgspec

from exporters.migration import microovn
from exporters.migration.kinds import State
from exporters.migration.phases import FullError, NewPhase, Phases
from exporters.migration.seen import UNKNOWN_SECONDS
from exporters.objects import Known
from exporters.probing.record import Record

log = logging.getLogger(__name__)

KIND = "microovn"
EVERY_SECONDS = 5.0
ANSWER_SECONDS = 5.0
MOST_BYTES = 2**20  # of an answer


class UnheardError(Exception):
    """It did not answer what it should: one of REASONS, and some words."""

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(f"{reason}: {said[:200]}")
        self.reason = reason


class Members:
    """One member, asked from `run` until `close`."""

    def __init__(self, path: Path, phases: Phases, record: Record) -> None:
        self._path = path
        self._phases = phases
        self._record = record
        self._since, self._heard_at = time.time(), time.monotonic()
        self._known = Known()

    def known(self) -> Mapping[str, Known]:
        known = self._known
        return {KIND: known._replace(age=time.monotonic() - self._heard_at) if known.heard else known}

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.step()
            await asyncio.sleep(EVERY_SECONDS)

    async def step(self) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                state = await self._state()
        except (UnheardError, TimeoutError) as error:
            reason = error.reason if isinstance(error, UnheardError) else "timeout"
            self.failed(reason, str(error), time.monotonic() - self._heard_at)
        else:
            self._heard_at = time.monotonic()
            self._known = self._known._replace(heard=time.time(), up=True)
            self._enter(state, self._known.heard)
        await self._record.save()

    def failed(self, reason: str, said: str, age: float) -> None:
        """What was last known, so many seconds ago, may not count any more."""
        if self._known.up or not any(self._known.failures.values()):
            log.warning("MicroOVN at %s: %s", self._path, said or reason)
        failures = {**self._known.failures, reason: self._known.failures[reason] + 1}
        self._known = self._known._replace(up=False, failures=failures)
        if age > UNKNOWN_SECONDS:
            self._enter(State(), self._known.heard or self._since)

    def _enter(self, state: State, at: float) -> None:
        self._phases.progress[KIND] = state.progress
        try:
            if self._phases.set(KIND, NewPhase(phase=state.phase, rolls=state.rolls), at):
                log.info("%s: %s", KIND, state.phase)
        except FullError:
            log.error("too many phases: %s is not kept", state.phase)  # noqa: TRY400 - no bug

    async def _state(self) -> State:
        try:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._path))) as session:
                answers = {path: await _answer(session, path) for path in microovn.paths()}
        except (aiohttp.ClientError, OSError) as error:
            raise UnheardError("unreachable", str(error)) from None
        try:
            found = microovn.read(answers)
        except msgspec.DecodeError as error:
            raise UnheardError("garbled", str(error)) from None
        if found is None:
            raise UnheardError("server_error", "it does not tell its members")
        return microovn.upgrade(*found)

    async def close(self) -> None:
        """Nothing is left open between two questions."""


async def _answer(session: aiohttp.ClientSession, path: str) -> bytes:
    """A body, an error's too. Raises UnheardError."""
    async with session.get(f"http://microovn{path}", allow_redirects=False) as response:
        body = bytearray()
        async for data in response.content.iter_any():
            body += data
            if len(body) > MOST_BYTES:
                raise UnheardError("garbled", "the answer is too long")
        return bytes(body)
