"""The endpoints of a headless Service by what DNS says it has, which takes no rights: peers by their addresses.

1. Our own address is left out; a peer's node and zone nobody says.
2. We are one of the endpoints ourselves: an answer without any address is none, and what is known stays.
3. IPv4 and IPv6 are asked apart: where one is not answered, what is known of it stays.
4. Of an answer MOST addresses count, the lowest, so that all peers take the same.
"""

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import TypeAlias

from exporters.discovery.find import Entry
from exporters.objects import REASONS, Held, Known
from exporters.probing.names import LookUps

log = logging.getLogger(__name__)

FAMILIES = (4, 6)
MOST = 1000  # addresses of a family
NONE_THERE = (socket.EAI_NONAME, socket.EAI_NODATA)

Answer: TypeAlias = Collection[str] | OSError | UnicodeError  # addresses; none: DNS knows of none; or why none came


# Pure.


def taken(before: Mapping[int, Sequence[str]], answers: Mapping[int, Answer]) -> Mapping[int, Sequence[str]]:
    """The addresses of each family after what was answered; `before` where that is no answer."""
    if not any(isinstance(each, Collection) and each for each in answers.values()):
        return before
    said = {family: _lowest(each) for family, each in answers.items() if isinstance(each, Collection)}
    return {**before, **said}


def _lowest(addresses: Collection[str]) -> Sequence[str]:
    return sorted(set(addresses), key=lambda each: ipaddress.ip_address(each).packed)[:MOST]


def trouble(answers: Mapping[int, Answer]) -> tuple[str, str]:
    """One of REASONS and words, for answers by which not all is known; empty if all is."""
    for answer in answers.values():
        if isinstance(answer, TimeoutError):
            return "timeout", str(answer)
        if isinstance(answer, OSError | UnicodeError):
            unreached = getattr(answer, "errno", None) == socket.EAI_AGAIN
            return "unreachable" if unreached else "server_error", str(answer)
    if not any(answers.values()):
        return "server_error", "no address"
    most = max(len(each) for each in answers.values() if isinstance(each, Collection))
    return ("garbled", f"{most} addresses, of which {MOST} count") if most > MOST else ("", "")


def entry(address: str) -> Entry:
    """A peer's, of which no more is known than where it is."""
    return {"name": address, "path": "pod", "host": address}


def host_of(service: str) -> str:
    """What is asked for NAME or NAMESPACE/NAME; the pod's resolver knows our own namespace and the cluster's domain."""
    namespace, _, name = service.rpartition("/")
    return f"{name}.{namespace}.svc" if namespace else name


# The edge.


class Addresses:
    """Those that DNS says; asked at each `look`, which takes as long as a look-up may."""

    def __init__(self, service: str) -> None:
        self._host = host_of(service)
        self._look_ups: Mapping[int, LookUps] = {}
        self._found: Mapping[int, Sequence[str]] = {}
        self._known = Known(failures=dict.fromkeys(REASONS, 0))
        self._heard_at = -inf  # on the clock that nobody sets
        self._told = ""

    def start(self, changed: Callable[[], None]) -> None:
        """Nothing changes but by a look: DNS does not call."""
        loop = asyncio.get_running_loop()
        self._look_ups = {family: LookUps(loop, self._host, family) for family in FAMILIES}

    async def look(self) -> Sequence[Entry] | None:
        answers = dict(zip(FAMILIES, await asyncio.gather(*map(self._ask, FAMILIES)), strict=True))
        self._found = taken(self._found, answers)
        self._note(*trouble(answers))
        addresses = [each for found in self._found.values() for each in found]
        others = await asyncio.to_thread(_others, addresses)
        return [entry(each) for each in others] if addresses else None

    async def _ask(self, family: int) -> Answer:
        try:
            return {str(each[0]) for each in await self._look_ups[family].addresses()}
        except (OSError, UnicodeError) as error:
            return () if getattr(error, "errno", None) in NONE_THERE else error

    def _note(self, reason: str, words: str) -> None:
        if words and words != self._told:
            log.warning("peers of %s: DNS: %s", self._host, words)
        self._told = words
        failures = dict(self._known.failures)
        if reason:
            failures[reason] += 1
        else:
            self._heard_at = time.monotonic()
        heard = self._known.heard if reason else time.time()
        self._known = Known(self._objects(), heard, 0.0, not reason, failures=failures)

    def _objects(self) -> Mapping[tuple[str, str], Held]:
        return {("", each): Held({}, 0.0, "", ()) for found in self._found.values() for each in found}

    def known(self) -> Mapping[str, Known]:
        """How well; before the first look nothing is."""
        return {"addresses": self._known._replace(age=time.monotonic() - self._heard_at)}

    async def close(self) -> None:
        for each in self._look_ups.values():
            each.close()


def _others(addresses: Sequence[str]) -> Sequence[str]:
    """Those that are not this machine's: to such a one the kernel would send from itself."""
    return [each for each in addresses if not _ours(each)]


def _ours(address: str) -> bool:
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:  # a kernel may have no IPv6
            probe.connect((address, 9))  # sends nothing
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False
