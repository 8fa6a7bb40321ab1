"""What a peer tells of its measurements, read as from a stranger: bytes in, checked and bounded values out. Pure.

1. Only what is known is kept, of the type it should be and no longer than it need be; anything else refuses the answer.
2. Numbers are finite, times have an offset, and nothing is taken as markup: pages and JSON escape every text.
3. What a newer peer adds is passed over.
"""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError

from exporters import times

# While an answer is read no probe of ours is sent or judged, so it may not take longer than a few milliseconds.
MOST_BYTES = 1024 * 1024
MOST_VALUES = 30_000  # about 900 streams
PAGE = 100  # items of history that one answer may have

_PEER = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True)


class RefusedError(Exception):
    """The answer is none; args[0] says why."""


def _time(text: str) -> str:
    if not 0 <= times.seconds(text) < 1e11:
        raise ValueError("a time that is none")
    return text


def _line(text: str) -> str:
    if text and not text.isprintable():
        raise ValueError("a text of more than a line, or with control characters")
    return text


Word = Annotated[str, StringConstraints(max_length=64)]
Name = Annotated[str, StringConstraints(max_length=253)]
Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(_line)]
Key = Annotated[str, StringConstraints(max_length=1100)]  # four names and more
Time = Annotated[str, StringConstraints(max_length=40), AfterValidator(_time)]
Stamp = Annotated[str, StringConstraints(pattern=r"^[0-9T:.+-]{20,40}$")]  # a time that nobody computes with
Number = Annotated[int, Field(ge=0, lt=1 << 53)]
Seconds = Annotated[float, Field(ge=0, lt=1e11)]
State = Literal["connected", "disconnected", "unknown"]


class Connection(BaseModel):
    """An earlier system's view of one target."""

    model_config = _PEER
    ws: State = "unknown"
    tcp: State = "unknown"
    http: State = "unknown"
    last_change: Stamp | None = None


class Duration(BaseModel):
    model_config = _PEER
    lower: Seconds
    estimate: Seconds
    upper: Seconds


class Edge(BaseModel):
    model_config = _PEER
    earliest: Stamp | None = None
    latest: Stamp | None = None


class Item(BaseModel):
    """An entry of a peer's history."""

    model_config = _PEER
    seq: Number
    id: Word
    kind: Word
    state: Literal["open", "closed", "truncated"]
    stream: Key
    name: Name
    protocol: Word
    source: Word = "pod"
    reporter: Name = ""
    start_time: Time
    end_time: Time | None = None
    duration_sec: Seconds
    start: Edge = Edge()
    end: Edge = Edge()
    duration: Duration
    cause: Word = ""
    causes: Annotated[dict[Word, Number], Field(max_length=32)] = {}
    before: Annotated[dict[Word, Name], Field(max_length=16)] = {}
    after: Annotated[dict[Word, Name], Field(max_length=16)] = {}
    unconfirmed: bool = False
    stall_overlap: bool = False
    text: Line = ""  # what a phase is called, what a note says
    node: Name = ""  # whose phase it is
    rolls: bool = False


class Stream(BaseModel):
    """One of a peer's streams, as it stands."""

    model_config = _PEER
    stream: Key
    source: Name
    target: Name
    path: Word
    protocol: Word
    family: Literal[4, 6] = 4
    state: Literal["up", "down", "frozen", "unknown"]
    since: Time
    cause: Word = ""
    observed: bool = True
    observed_seconds: Seconds = 0.0  # in all, over the peer's restarts
    reached_since: Time | None = None  # an older peer does not say
    peer: Annotated[dict[Word, Name], Field(max_length=16)] = {}
    open: Item | None = None


class Status(BaseModel):
    """Who a peer is, and what it sees."""

    model_config = _PEER
    self: Name
    timestamp: Time
    source: Name
    node: Name = ""
    zone: Name = ""
    instance: Word
    boot_id: Word = ""
    version: Word = ""
    journal: Word
    connections: Annotated[dict[Name, Connection], Field(max_length=5000)]
    streams: Annotated[list[Stream], FailFast(), Field(max_length=5000)] = []


class History(BaseModel):
    """A page of a peer's history, oldest change first."""

    model_config = _PEER
    journal: Word
    items: Annotated[list[Item], FailFast(), Field(max_length=PAGE)]


Told = TypeVar("Told", Status, History)


def read(model: type[Told], body: bytes | bytearray) -> Told:
    """The answer as that model. Raises RefusedError, whatever the bytes are."""
    if len(body) > MOST_BYTES or sum(body.count(each) for each in (b",", b"{", b"[")) > MOST_VALUES:
        raise RefusedError("too much")
    try:
        return model.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise RefusedError(f"{place}: {first['msg'][:100]}" if place else first["msg"][:100]) from None
    except (ValueError, RecursionError):
        raise RefusedError("not JSON") from None
