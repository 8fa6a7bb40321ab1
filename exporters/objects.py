"""What a Kubernetes API says, read as from a stranger, and what is kept of it. Pure.

1. A list says all there is: what is not in it is gone.
2. A resourceVersion says nothing but "the same". When a version that was left behind comes again, there is no order in
   what is told, and only a new list says what is so.
3. What does not have the form it should have is refused as a whole: nothing is guessed.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple, TypeVar

import msgspec

MOST_SEEN = 8  # versions of an object that were left behind
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
LONGEST_ASKED = 300.0  # that we wait because the server says so
REASONS = (
    "unreachable", "timeout", "tls", "unauthorized", "forbidden", "throttled", "expired", "server_error", "garbled"
)  # fmt: skip
_OF_STATUS = {401: "unauthorized", 403: "forbidden", 410: "expired", 429: "throttled"}

Key = tuple[str, str]  # namespace and name
T = TypeVar("T")
Fields = dict[str, Any]


class WatchError(Exception):
    """A list or watch failed: one of REASONS, some words, and for how many seconds the server wants no request."""

    def __init__(self, reason: str, said: str, wait: float = 0.0) -> None:
        super().__init__(f"{reason}: {' '.join(said.split())[:200]}")
        self.reason = reason
        self.wait = wait


class AbsentError(Exception):
    """The cluster does not have the resource."""


@dataclass(frozen=True)
class Resource:
    """What to watch: all objects of a kind, those of one namespace or with some labels, or the one of that name.

    `read` makes of an object's JSON what is kept of it, its metadata with namespace, name, uid and resourceVersion in
    any case; it raises msgspec.DecodeError or ValueError for what it should not be. kind and apiVersion are added.
    """

    name: str
    api_version: str  # v1, apps/v1
    kind: str
    plural: str
    read: Callable[[bytes], Fields]
    namespace: str = ""
    only: str = ""  # the object's name
    metadata_only: bool = False
    labels: str = ""  # a selector of labels

    @property
    def path(self) -> str:
        root = "/apis" if "/" in self.api_version else "/api"
        within = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{root}/{self.api_version}{within}/{self.plural}"

    @property
    def selector(self) -> list[tuple[str, str]]:
        chosen = (("fieldSelector", self.only and f"metadata.name={self.only}"), ("labelSelector", self.labels))
        return [(name, text) for name, text in chosen if text]

    def accept(self, kind: str) -> str:
        return f"application/json;as={kind};g=meta.k8s.io;v=v1" if self.metadata_only else "application/json"


class Held(NamedTuple):
    """An object as it is kept, when it came (Unix time), and its versions, the newest first."""

    object: Fields
    at: float
    uid: str
    versions: tuple[str, ...]


class Known(NamedTuple):
    """What is known of a resource. `heard`: Unix time as of which it is, 0.0 while nothing is known; `age`: seconds."""

    objects: Mapping[Key, Held] = {}
    heard: float = 0.0
    age: float = inf
    up: bool = False
    absent: bool = False
    failures: Mapping[str, int] = dict.fromkeys(REASONS, 0)


# What is kept, decided without a server.


def listed(held: Mapping[Key, Held], found: Mapping[Key, Fields], now: float) -> dict[Key, Held]:
    """What is held after a list; an object that is as it was stays the same one."""
    return {key: _newer(held.get(key), each, now, trusted=True) for key, each in found.items()}


def changed(held: dict[Key, Held], what: str, each: Fields, now: float) -> bool:
    """Apply an ADDED, MODIFIED or DELETED event; whether anything is different. Raises WatchError."""
    key = key_of(each)
    before = held.get(key)
    if what == "DELETED":
        if before is None or before.uid != each["metadata"].get("uid", ""):
            return False  # of one that had the name before
        del held[key]
        return True
    after = _newer(before, each, now, trusted=False)
    if after is not before:
        held[key] = after
    return after is not before


def _newer(before: Held | None, each: Fields, now: float, *, trusted: bool) -> Held:
    """The object, unless its version is that which is held. Raises WatchError for one that was left behind."""
    version, uid = each["metadata"].get("resourceVersion", ""), each["metadata"].get("uid", "")
    if before is None or before.uid != uid:
        return Held(each, now, uid, (version,))
    if version == before.versions[0]:
        return before
    if version in before.versions and not trusted:
        raise WatchError("expired", "a version that was left behind came again")
    return Held(each, now, uid, (version, *before.versions)[: MOST_SEEN + 1])


def key_of(each: Fields) -> Key:
    return each["metadata"].get("namespace", ""), each["metadata"]["name"]


def pause(failed: int, asked: float, dice: float) -> float:
    """Seconds until the next try after so many failures in a row; `dice` from 0 to 1 keeps watches apart."""
    own: float = min(SHORTEST_PAUSE * 2 ** min(failed - 1, 16), LONGEST_PAUSE) * (0.5 + dice / 2)
    return max(own, min(asked, LONGEST_ASKED) * (1 + dice / 10))


# What the server says.


class _ListMeta(msgspec.Struct):
    version: str = msgspec.field(name="resourceVersion", default="")
    more: str = msgspec.field(name="continue", default="")


class List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: _ListMeta


class _Details(msgspec.Struct):
    retry_after: int = msgspec.field(name="retryAfterSeconds", default=0)


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


read_list = msgspec.json.Decoder(List).decode
read_event = msgspec.json.Decoder(_Event).decode
read_bookmark = msgspec.json.Decoder(_Bookmark).decode
read_status = msgspec.json.Decoder(_Status).decode


def decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise WatchError("garbled", str(error)) from None


def failure(status: int, body: bytes, retry_after: str = "") -> Exception:
    """What an answer, or an ERROR event, means that is no success."""
    if status == 404:
        return AbsentError()
    with contextlib.suppress(msgspec.DecodeError, ValueError):
        said = read_status(body)
        wait = float(said.details.retry_after) if said.details else 0.0
        words = f"{status} {said.reason} {said.message}"
        return WatchError(_OF_STATUS.get(status, "server_error"), words, max(wait, _seconds(retry_after)))
    return WatchError(_OF_STATUS.get(status, "server_error"), str(status), _seconds(retry_after))


def _seconds(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
