"""The `targets:` that peers and bastions share: one entry of the file in, the streams it asks for out.

1. The keys of an entry keep their meaning for good.
2. What an entry says for itself wins over what is said for all. Protocols are those listed, else those with a port,
   else all; families those listed, else that of a literal address, else IPv4.
3. An answer is prompt below the kernel's first retransmission, and no stream is probed twice.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from exporters.options import Given
from exporters.strictyaml import Problem

Protocol = Literal["http", "tcp", "ws"]
PathKind = Literal["pod", "service", "nodeport", "loadbalancer", "route", "ingress", "host", "egress"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
PATHS: tuple[PathKind, ...] = get_args(PathKind)
PORTS: dict[Protocol, int] = {"http": 8082, "tcp": 8081, "ws": 8080}
PROMPT_SHARE, PROMPT_MOST = 0.6, 0.15  # of the interval; seconds
PROMPT_BELOW = 0.18  # seconds; Linux retransmits after 0.2 s at the earliest, less what its clocks may be off


@dataclass(frozen=True, slots=True)
class Tls:
    """How a stream speaks TLS; names of PEM files, None for the system's authorities or for no certificate of ours."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Stream:
    """One thing probed on one clock; times in seconds."""

    source: str
    target: str
    path: str
    protocol: str
    family: int
    host: str
    port: int
    interval: float
    prompt: float
    patience: float
    tls: Tls | None = None
    target_node: str = ""
    target_zone: str = ""
    url_path: str = "/ping"  # what http asks for
    shown: str = ""  # what pages and history call the target, if not that

    @property
    def key(self) -> str:
        return f"{self.source}|{self.target}|{self.path}|{self.protocol}|{self.family}"


# What values look like: ValueError says what is wanted.


def name(text: str) -> str:
    if not text:
        raise ValueError("a name is wanted")
    return label(text)


def label(text: str) -> str:
    """A name, or nothing."""
    if not text.isprintable() or "|" in text or len(text) > 253 or text != text.strip():
        raise ValueError("a name is printable, at most 253 characters long and without |")
    return text


def host(text: str) -> str:
    """A literal address, or a name the resolver may be asked for: labels of 1 to 63 letters, digits, - and _."""
    if literal_family(text):
        return text
    labels = text.removesuffix(".").split(".")
    numeric = all(label.isdigit() for label in labels)  # the C library takes 10.0.1 for 10.0.0.1
    if numeric or len(text) > 253 or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", label) for label in labels):
        raise ValueError(f"want a host name or an address, without scheme, brackets or port: {text!r}")
    return text


def reachable(text: str) -> str:
    """A host that is one: no wildcard, and no address of many."""
    if literal_family(host(text)):
        literal = ipaddress.ip_address(text)
        at = getattr(literal, "ipv4_mapped", None) or literal
        if at.is_unspecified or at.is_multicast or at == ipaddress.ip_address("255.255.255.255"):
            raise ValueError(f"want the address of one host: {text!r}")
    return text


def same_name(text: str) -> str:
    """The name as it is compared: to the resolver, letter case and a dot at the end make no other name."""
    return text.lower().removesuffix(".")


def address(text: str) -> tuple[str, int]:
    """`:8083`, `127.0.0.1:0` or `[::1]:8083` as (host, port); no host is all addresses, port 0 any free one."""
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]*)):([0-9]{1,5})", text)
    if not found or int(found[3]) > 65535 or (found[1] and literal_family(found[1]) != 6):
        raise ValueError(f"want HOST:PORT, [ADDRESS]:PORT or :PORT, with a port up to 65535: {text!r}")
    where = found[1] or found[2]
    return (host(where) if where else "", int(found[3]))


def address_or_off(text: str) -> tuple[str, int] | None:
    """An address, or None for `off`."""
    return None if text == "off" else address(text)


def url_path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text) or set(text) & set('"#<>?\\^`{|}'):
        raise ValueError(f"want the path of a URL, such as /ping, without query: {text!r}")
    return text


def file_name(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"want the name of a file: {text!r}")
    return text


def literal_family(text: str) -> int | None:
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None


def interval(seconds: float) -> float:
    if not 0.02 <= seconds <= 3600:
        raise ValueError("must be from 0.02 to 3600 seconds")
    if abs(seconds * 1000 - round(seconds * 1000)) > 1e-6:
        raise ValueError("must be a whole number of milliseconds")
    return seconds


def prompt(seconds: float) -> float:
    if not 0 < seconds < PROMPT_BELOW:
        raise ValueError(
            f"must be above 0 and below {PROMPT_BELOW} seconds: after 0.2 s the kernel sends a lost packet again, "
            "and the answer to that one is not prompt"
        )
    return seconds


def patience(seconds: float) -> float:
    if not 0 < seconds <= 60:
        raise ValueError("must be above 0 and at most 60 seconds")
    return seconds


# The shape of an entry.

STRICT = ConfigDict(extra="forbid")
Name = Annotated[str, AfterValidator(name)]
Label = Annotated[str, AfterValidator(label)]
FileName = Annotated[str, AfterValidator(file_name)]
Host = Annotated[str, AfterValidator(reachable)]
UrlPath = Annotated[str, AfterValidator(url_path)]


def _by_protocol(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | dict):
        raise ValueError("want a number of seconds, or a mapping of http, tcp and ws to one")  # noqa: TRY004 - pydantic's
    return value if isinstance(value, dict) else dict.fromkeys(PROTOCOLS, value)


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def mapped(value: object) -> object:
    return ({} if value else None) if isinstance(value, bool) else value


def _distinct(values: list[Any]) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise ValueError("want at least one, and none twice")
    return values


Intervals = Annotated[dict[Protocol, Annotated[float, AfterValidator(interval)]], BeforeValidator(_by_protocol)]
Prompts = Annotated[dict[Protocol, Annotated[float, AfterValidator(prompt)]], BeforeValidator(_by_protocol)]
Patiences = Annotated[dict[Protocol, Annotated[float, AfterValidator(patience)]], BeforeValidator(_by_protocol)]
Families = Annotated[list[Literal[4, 6]], BeforeValidator(_listed), AfterValidator(_distinct)]


class TlsFiles(BaseModel):
    """An entry's `tls:`; `true` stands for an empty one."""

    model_config = STRICT
    ca_file: FileName | None = None
    cert_file: FileName | None = None
    key_file: FileName | None = None
    server_name: Host | None = None
    insecure_skip_verify: bool = False


class Target(BaseModel):
    """An entry of `targets:`."""

    model_config = STRICT
    name: Name
    path: PathKind = "service"
    host: Host = ""  # the name, if not given
    family: Families = []
    ports: dict[Protocol, Annotated[int, Field(ge=1, le=65535)]] = {}
    protocols: Annotated[list[Protocol], AfterValidator(_distinct)] = []
    interval: Intervals = {}
    prompt: Prompts = {}
    patience: Patiences = {}
    tls: Annotated[TlsFiles | None, BeforeValidator(mapped)] = None
    node: Label = ""
    zone: Label = ""
    url_path: UrlPath = "/ping"

    @model_validator(mode="after")
    def _host_fits(self) -> "Target":
        reached = reachable(self.host or self.name)
        literal = literal_family(reached)
        if literal and self.family not in ([], [literal]):
            raise ValueError(f"{reached} is an IPv{literal} address, so family can only be {literal}")
        return self


def probed(target: Target) -> Sequence[Protocol]:
    """The protocols a target is probed by."""
    return target.protocols or list(target.ports) or PROTOCOLS


BY_PROTOCOL = ("ports", "interval", "prompt", "patience")  # keys that may say something else for each protocol


def idle_keys(data: Mapping[str, Any], target: Target) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, what is wrong) of every key of an entry, as written, that is for a protocol it is not probed by."""
    only = ", ".join(probed(target))
    for key in BY_PROTOCOL:
        for protocol in data[key] if isinstance(data.get(key), dict) else ():
            if protocol not in probed(target):
                yield (key, protocol), f"without effect: {protocol} is not probed here, only {only}"
    if "url_path" in data and "http" not in probed(target):
        yield ("url_path",), f"without effect: http is not probed here, only {only}"


# From entries to streams.


class Entry(NamedTuple):
    """A target and the place of each part of it: `place("tls", "ca_file")`."""

    target: Target
    place: Callable[..., str]
    folder: Path  # what its file names are relative to
    shown: str = ""  # see Stream


def expand(
    entries: Iterable[Entry], source: str, given: Mapping[str, Given], problems: list[Problem]
) -> Iterator[Stream]:
    """The streams of all entries; `given` has `interval_http`, `prompt_http`, `patience_http` and so on: for all."""
    first: dict[tuple[str, str, str, int], Entry] = {}
    told: set[tuple[str, str]] = set()
    tls_files: dict[tuple[Any, ...], Tls] = {}
    for entry in entries:
        tls = tls_of(entry.target.tls, entry.folder, entry.place, tls_files, problems)
        for stream in _streams(entry, source, tls, given, problems):
            key = (same_name(stream.target), stream.path, stream.protocol, stream.family)
            same = first.setdefault(key, entry)
            if same is entry:
                yield stream
            elif (same.place(), entry.place()) not in told:
                told.add((same.place(), entry.place()))
                probed = f"{stream.target} by {stream.path} over {stream.protocol}, IPv{stream.family},"
                problems.append(Problem(entry.place(), f"duplicate name: {probed} is already probed: {same.place()}"))


def _streams(
    entry: Entry, source: str, tls: Tls | None, given: Mapping[str, Given], problems: list[Problem]
) -> Iterator[Stream]:
    target = entry.target
    reached = target.host or target.name
    for protocol in PROTOCOLS:
        if protocol not in probed(target):
            continue
        times = _times(entry, protocol, given, problems)
        families: Sequence[int] = target.family or [literal_family(reached) or 4]
        for family in families:
            yield Stream(
                source,
                target.name,
                target.path,
                protocol,
                family,
                reached,
                target.ports.get(protocol, PORTS[protocol]),
                *times,
                tls,
                target.node,
                target.zone,
                target.url_path,
                entry.shown,
            )


def _times(
    entry: Entry, protocol: Protocol, given: Mapping[str, Given], problems: list[Problem]
) -> tuple[float, float, float]:
    """Interval, prompt limit and patience of one protocol of an entry, in seconds."""

    def settled(what: str) -> Given:
        own: Mapping[Protocol, float] = getattr(entry.target, what)
        return Given(own[protocol], entry.place(what)) if protocol in own else given[f"{what}_{protocol}"]

    every, prompt_in, patient = settled("interval"), settled("prompt"), settled("patience")
    limit = prompt_in.value or min(PROMPT_SHARE * every.value, PROMPT_MOST)
    if limit >= every.value:
        said = f"{limit:g} s must be shorter than the {protocol} interval, {every.value:g} s ({every.place})"
        problems.append(Problem(prompt_in.place, f"a prompt limit of {said}"))
    if patient.value < limit:
        said = f"{patient.value:g} s must not be shorter than the {protocol} prompt limit, {limit:g} s"
        problems.append(Problem(patient.place, f"a patience of {said}"))
    return every.value, limit, patient.value


def tls_of(
    files: TlsFiles | None,
    folder: Path,
    place: Callable[..., str],
    known: dict[tuple[Any, ...], Tls],
    problems: list[Problem],
) -> Tls | None:
    """An entry's TLS with absolute file names; files that cannot be used are problems, told once."""
    if files is None:
        return None
    wanted = (files.ca_file, files.cert_file, files.key_file)
    said = (*wanted, files.server_name, files.insecure_skip_verify, folder)
    if said not in known:
        ca, cert, key = (str(folder / each) if each else None for each in wanted)
        known[said] = Tls(ca, cert, key, files.server_name, not files.insecure_skip_verify)
        problems.extend(_unusable(known[said], place))
    return known[said]


def _unusable(tls: Tls, place: Callable[..., str]) -> Iterator[Problem]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if bool(tls.cert_file) != bool(tls.key_file):
        yield Problem(place("tls"), "cert_file and key_file go together")
    if tls.ca_file:
        try:
            context.load_verify_locations(tls.ca_file)
        except OSError as error:  # SSLError is one
            yield Problem(place("tls", "ca_file"), f"cannot use {tls.ca_file}: {error.strerror or error}")
    if tls.cert_file and tls.key_file:
        for key, file in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
            try:
                Path(file).read_bytes()
            except OSError as error:
                yield Problem(place("tls", key), f"cannot read {file}: {error.strerror}")
                return
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # never ask a terminal
        except OSError as error:
            yield Problem(place("tls"), f"cannot use {tls.cert_file} with {tls.key_file}: {error.strerror or error}")
