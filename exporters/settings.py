"""Flags over environment over YAML file: one checked, frozen settings object, or every problem at once with its place.

1. `PEER_OPTIONS` is the one table: flags, variables, file keys, `--help` and the README's table come from it.
2. An empty variable is an unset one. NODE_NAME and HOSTNAME are not ours: they name the source only where nobody does.
3. Names of files in a file are relative to it, and what they name is opened here: a missing file is a problem at start.
4. A configuration that leaves nothing to do is a problem too: silence must never pass for health.
"""

import re
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Any, TextIO

from pydantic import BaseModel, Field, model_validator

from exporters import options, strictyaml, targets
from exporters.options import Given, Option
from exporters.probing import mesh
from exporters.strictyaml import BadInput, Document, Problem
from exporters.targets import PROTOCOLS, STRICT, Entry, Host, Intervals, Patiences, Prompts, Stream, Target, Tls

__all__ = ["BadInput", "PeerSettings", "Problem", "Stream", "Tls", "at_start", "fits", "load_peer"]

SPARE_DESCRIPTORS = 64  # listeners, scrapes, journal, log, resolver
SOFT_LIMIT = 1024  # what a process may open where nobody says otherwise
MOST_DESCRIPTORS = 1 << 20


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """All that `ovnwatch peer` needs to know; addresses are (host, port), an empty host means all of them."""

    source: str
    node: str
    zone: str
    streams: tuple[Stream, ...]
    listen: Mapping[str, tuple[str, int]]
    web_listen: tuple[str, int]
    telemetry_path: str
    token: str | None
    max_history: int
    log_level: str
    log_format: str
    not_observed: tuple[str, ...]
    descriptors: int  # that probes may have


# The file. Texts are read by the option they belong to; targets are checked one by one.


class Listen(BaseModel):
    model_config = STRICT
    http: str | None = None
    tcp: str | None = None
    ws: str | None = None


class Web(BaseModel):
    model_config = STRICT
    listen_address: str | None = None
    telemetry_path: str | None = None
    token_file: str | None = None


class Log(BaseModel):
    model_config = STRICT
    level: str | None = None
    format: str | None = None


class Mesh(BaseModel):
    model_config = STRICT
    full_up_to: Annotated[int, Field(ge=0, le=10_000)] | None = None
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None


class Defaults(BaseModel):
    model_config = STRICT
    interval: Intervals = {}
    prompt: Prompts = {}
    patience: Patiences = {}


class File(BaseModel):
    model_config = STRICT
    _notes = model_validator(mode="before")(strictyaml.without_notes)
    source: str | None = None
    node: str | None = None
    zone: str | None = None
    peers: list[Host] | None = None
    listen: Listen = Listen()
    web: Web = Web()
    log: Log = Log()
    mesh: Mesh = Mesh()
    defaults: Defaults = Defaults()
    targets: list[Any] = []


FILE_KEYS = tuple(File.model_fields)

# The options.


def names(text: str) -> list[str]:
    return [targets.host(each.strip()) for each in text.split(",") if each.strip()]


def _seconds(check: Callable[[float], float]) -> Callable[[str], float]:
    return lambda text: check(options.number(text))


_TIME, _LIMIT, _WAIT = map(_seconds, (targets.interval, targets.prompt, targets.patience))
_SOURCE = "our name in every stream; else NODE_NAME, `source` in the file, HOSTNAME, the host's own name"
_PROMPT = "seconds within which an answer is prompt; 0.6 of the interval and at most 0.15 if not given"

# fmt: off
PEER_OPTIONS = (
    Option("config_file", targets.file_name, "", "--config.file", "", "", "YAML file"),
    Option("config_check", None, "", "--config.check", "", "", "check the configuration, start nothing"),
    Option("source", targets.name, "", "--source", "OVNWATCH_SOURCE", "source", _SOURCE),
    Option("node", targets.label, "", "--node", "NODE_NAME", "node", "the node we run on"),
    Option("zone", targets.label, "", "--zone", "OVNWATCH_ZONE", "zone", "the zone we run in"),
    Option("peers", names, "", "--peers", "PEERS", "peers", "names of all peers, with commas; our own is left out"),
    Option("full_up_to", options.count, "40", "", "", "mesh.full_up_to", "up to so many other peers, all are probed"),
    Option("k", options.count, "10", "", "", "mesh.k", "of more, so many are chosen"),
    Option("listen_http", targets.address, ":8082", "--listen.http", "", "listen.http", "address of the HTTP echo"),
    Option("listen_tcp", targets.address, ":8081", "--listen.tcp", "", "listen.tcp", "address of the TCP echo"),
    Option("listen_ws", targets.address, ":8080", "--listen.ws", "", "listen.ws", "address of the WebSocket echo"),
    Option("web_listen", targets.address, ":8083", "--web.listen-address", "", "web.listen_address",
           "address of metrics and health"),
    Option("telemetry_path", options.web_path, "/metrics", "--web.telemetry-path", "", "web.telemetry_path",
           "path of the metrics"),
    Option("token_file", targets.file_name, "", "--web.token-file", "", "web.token_file",
           "file with the bearer token that changing requests must carry"),
    Option("token", str, "", "", "OVNWATCH_TOKEN", "", "that token itself; the flag wins over it, it over the file's"),
    Option("interval_http", _TIME, "0.5", "", "HTTP_INTERVAL", "defaults.interval.http", "seconds between probes"),
    Option("interval_tcp", _TIME, "0.1", "", "TCP_INTERVAL", "defaults.interval.tcp", "seconds between probes"),
    Option("interval_ws", _TIME, "0.1", "", "WS_INTERVAL", "defaults.interval.ws", "seconds between probes"),
    Option("prompt_http", _LIMIT, "", "", "", "defaults.prompt.http", _PROMPT),
    Option("prompt_tcp", _LIMIT, "", "", "", "defaults.prompt.tcp", _PROMPT),
    Option("prompt_ws", _LIMIT, "", "", "", "defaults.prompt.ws", _PROMPT),
    Option("patience_http", _WAIT, "3", "", "HTTP_TIMEOUT", "defaults.patience.http", "seconds a late answer may take"),
    Option("patience_tcp", _WAIT, "3", "", "TCP_CONNECT_TIMEOUT", "defaults.patience.tcp",
           "seconds a late answer may take"),
    Option("patience_ws", _WAIT, "3", "", "WS_OPEN_TIMEOUT", "defaults.patience.ws", "seconds a late answer may take"),
    Option("max_history", options.count, "200", "", "MAX_HISTORY", "", "changes that /history shows"),
    Option("reconnect_delay", options.number, "", "", "RECONNECT_DELAY", "",
           "accepted and without effect: a lost connection is replaced at once"),
    Option("log_level", options.one_of("debug", "info", "warn", "error"), "info", "--log.level", "", "log.level",
           "debug, info, warn or error"),
    Option("log_format", options.one_of("logfmt", "json"), "logfmt", "--log.format", "", "log.format",
           "logfmt or json"),
)
# fmt: on


# From all of it to settings.


def at_start(argv: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> PeerSettings | int:
    """The settings, or the exit code when there is nothing to start: after --help, --config.check, or problems (2)."""
    if {"-h", "--help"} & set(argv):
        print(options.help_text(PEER_OPTIONS, "usage: ovnwatch peer [flags]"), file=out)
        return 0
    try:
        settings = load_peer(argv, environ, raise_descriptor_limit() // 2)  # the other half is the servers'
    except BadInput as bad:
        print(bad, file=err)
        return 2
    if "--config.check" in argv:
        print(f"configuration ok: {len(settings.streams)} streams", file=out)
        return 0
    return settings


def load_peer(argv: Sequence[str], environ: Mapping[str, str], descriptors: int | None = None) -> PeerSettings:
    """Settings of `ovnwatch peer` from its flags, the environment and the file --config.file names.

    `descriptors` is how many files the probes may open; None checks no budget. Raises BadInput with all problems.
    """
    problems: list[Problem] = []
    flags = dict(options.read_flags(PEER_OPTIONS, argv, problems))
    document, folder = _document(flags.get("--config.file"), problems)
    file = _head(document)
    given = options.resolve(PEER_OPTIONS, flags, environ, _in_file(document, file), problems)
    source = _source(given["source"], environ, problems)

    own = {source.value, environ.get("HOSTNAME") or source.value}
    peers, not_observed = _chosen(source.value, given, own, problems)
    entries = [*_named_in_file(document, folder), *peers]
    others = [entry for entry in entries if entry.target.name not in own]
    streams = tuple(targets.expand(others, source.value, given, problems))
    problems[:0] = document.in_order()
    if not streams and not problems:
        alone = f"only we ourselves ({source.value}) are named, name others" if entries else "name peers"
        problems.append(Problem("targets", f"nothing to probe: {alone} in PEERS, --peers or the file's `targets:`"))
    problems += _same_address([given["web_listen"], *(given[f"listen_{each}"] for each in PROTOCOLS)])
    problems += _too_many(streams, descriptors)
    token = _token(given, folder, problems)
    if problems:
        raise BadInput(list(dict.fromkeys(problems)))
    return PeerSettings(
        source=source.value,
        node=given["node"].value or "",
        zone=given["zone"].value or "",
        streams=streams,
        listen={each: given[f"listen_{each}"].value for each in PROTOCOLS},
        web_listen=given["web_listen"].value,
        telemetry_path=given["telemetry_path"].value,
        token=token,
        max_history=given["max_history"].value,
        log_level=given["log_level"].value,
        log_format=given["log_format"].value,
        not_observed=not_observed,
        descriptors=descriptors or SOFT_LIMIT,
    )


def fits(streams: Sequence[Stream], limit: int) -> int:
    """How many of the streams, in their order, can be probed with `limit` file descriptors.

    The floor a stream needs, after patience and extra connections are given up: its connection, and the probes that can
    be in flight within its prompt limit.
    """
    left = limit - SPARE_DESCRIPTORS
    for index, stream in enumerate(streams):
        left -= _descriptors(stream)
        if left < 0:
            return index
    return len(streams)


def raise_descriptor_limit() -> int:
    """Allow this process all the file descriptors it may have, within reason; returns how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _descriptors(stream: Stream) -> int:
    return 1 + ceil(stream.prompt / stream.interval)


def _too_many(streams: Sequence[Stream], limit: int | None) -> list[Problem]:
    if limit is None or fits(streams, limit) == len(streams):
        return []
    need = sum(map(_descriptors, streams)) + SPARE_DESCRIPTORS
    said = (
        f"{len(streams)} streams need {need} descriptors, probes may have {limit}: {fits(streams, limit)} streams fit"
    )
    return [Problem("open files", said)]


def _document(path: str | None, problems: list[Problem]) -> tuple[Document, Path]:
    """The configuration file, an empty one if there is none or it cannot be read, and the folder it is in."""
    text = ""
    try:
        text = Path(targets.file_name(path)).read_text(encoding="utf-8-sig") if path is not None else ""
    except OSError as error:
        problems.append(Problem("--config.file", f"cannot read {path}: {error.strerror}"))
    except UnicodeDecodeError as error:
        problems.append(Problem("--config.file", f"{path} is not UTF-8: {error.reason} at byte {error.start}"))
    except ValueError:
        pass  # no name of a file at all, as the option says
    try:
        return strictyaml.load(text, path or ""), Path(path or "").parent
    except BadInput as bad:
        problems.extend(bad.problems)
        return strictyaml.load("", ""), Path()


def _head(document: Document) -> File:
    """The file but for its targets; each key by itself, so that a bad one hides no problem of another."""
    if not isinstance(document.data, dict):
        return document.check(File, document.data) or File()
    parts = {key: document.check(File, {key: value}) for key, value in document.data.items()}
    return File().model_copy(
        update={key: getattr(part, key) for key, part in parts.items() if key in FILE_KEYS and part}
    )


def _in_file(document: Document, file: File) -> Callable[[str], Given | None]:
    def value_of(key: str) -> Given | None:
        value: Any = file
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        return None if value is None else Given(value, document.place(tuple(key.split("."))))

    return value_of


def _source(said: Given, environ: Mapping[str, str], problems: list[Problem]) -> Given:
    """Our name. NODE_NAME, which is set on purpose, wins over the file; HOSTNAME, which is merely there, does not."""
    ambient = [Given(environ.get("HOSTNAME"), "HOSTNAME"), Given(socket.gethostname(), "the host's name")]
    known = (
        [said]
        if said.place in ("--source", "OVNWATCH_SOURCE")
        else [Given(environ.get("NODE_NAME"), "NODE_NAME"), said]
    )
    source = next((each for each in [*known, *ambient] if each.value), said)
    try:
        targets.name(source.value or "")
    except ValueError as error:
        problems.append(Problem(source.place, str(error)))
    return source


def _named_in_file(document: Document, folder: Path) -> Iterator[Entry]:
    named = document.data.get("targets") if isinstance(document.data, dict) else None
    for index, data in enumerate(named if isinstance(named, list) else []):
        target = document.check(Target, data, ("targets", index))
        if target:
            yield Entry(target, partial(_place, document, index), folder)


def _place(document: Document, index: int, *path: str) -> str:
    return document.place(("targets", index, *path))


def _chosen(
    source: str, given: Mapping[str, Given], own: set[str], problems: list[Problem]
) -> tuple[list[Entry], tuple[str, ...]]:
    """Entries of the peers to probe, and the names left to other peers."""
    peers = given["peers"]
    counted = Counter(peers.value or [])
    problems += [Problem(peers.place, f"duplicate name: {peer}") for peer, times in counted.items() if times > 1]
    others = dict.fromkeys(counted.keys() - own, "")
    chosen, rest = mesh.choose(source, others, given["full_up_to"].value, given["k"].value)
    ours = sorted(counted.keys() & own)
    return [Entry(Target(name=peer), lambda *_: peers.place, Path()) for peer in [*chosen, *ours]], rest


def _same_address(listeners: Sequence[Given]) -> Iterator[Problem]:
    for index, one in enumerate(listeners):
        for other in listeners[:index]:
            if one.value == other.value and one.value[1]:
                yield Problem(one.place, f"the same address as another listener's: {other.place}")


def _token(given: Mapping[str, Given], folder: Path, problems: list[Problem]) -> str | None:
    """The bearer token: the flag's file, else the variable, else the file named in the file; None if there is none."""
    file, said = given["token_file"], given["token"]
    token: str | None = said.value
    flag = file.place.startswith("--")
    if file.value and (flag or not token):
        path, said = Path() / file.value if flag else folder / file.value, file
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(said.place, f"cannot read {path}: {getattr(error, 'strerror', None) or error}"))
            return None
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        problems.append(Problem(said.place, "a token is not empty, and printable ASCII without spaces"))
    return token
