"""Flags over environment over YAML file: one checked, frozen settings object, or every problem at once with its place.

What all exporters that probe share; what only one of them needs stands in its own settings.py.

1. Each has one table of options: flags, variables, file keys, `--help` and the README's table come from it.
2. An empty variable is an unset one; one of the environment wins over the same one in --env-file. NODE_NAME and
   HOSTNAME are not ours: they name the source only where nobody does.
3. Names of files in a file are relative to it, and what they name is opened here: a missing file is a problem at start.
4. A configuration that leaves nothing to do is a problem too: silence must never pass for health.
"""

import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TextIO, TypeVar

from pydantic import BaseModel, BeforeValidator, model_validator

from exporters import envfile, options, strictyaml, targets, webconfig
from exporters.options import Given, Option
from exporters.strictyaml import BadInput, Document, Problem
from exporters.targets import PROTOCOLS, STRICT, Entry, Intervals, Patiences, Prompts, Protocol, Stream, Target, Tls

__all__ = ["BadInput", "Problem", "Settings", "Stream", "Tls", "at_start", "fits", "read", "settle", "table"]

SPARE_DESCRIPTORS = 64  # listeners, scrapes, journal, log, resolver
SOFT_LIMIT = 1024  # what a process may open where nobody says otherwise
MOST_DESCRIPTORS = 1 << 20
MOST_FOR_SERVERS = 4096
EXACT = 1e-6  # descriptors: what sums of floats may be wrong by

B = TypeVar("B", bound="Basics")
S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Basics:
    """What every exporter needs to know; addresses are (host, port), an empty host means all of them."""

    source: str
    node: str
    zone: str
    web_listen: tuple[str, int]
    web_config: Path | None  # the file that says who may ask, and over what
    telemetry_path: str
    log_level: str
    log_format: str
    doubts: tuple[Problem, ...]  # what may be a mistake, and is none for sure

    def summary(self) -> str:
        """What there is to do, in a few words."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Basics):
    """What every exporter that probes needs to know."""

    streams: tuple[Stream, ...]
    listen: Mapping[Protocol, tuple[str, int]]  # without those that are off
    token: str | None
    token_file: Path | None  # where it is from
    max_history: int
    journal: Path | None  # the folder of its file; None: in memory only
    descriptors: int  # that probes may have

    def summary(self) -> str:
        return f"{len(self.streams)} streams"


# The file. Texts are read by the option they belong to; targets are checked one by one.


def _off(value: object) -> object:
    return "off" if value is False else value  # as YAML reads it


Echo = Annotated[str | None, BeforeValidator(_off)]


class Listen(BaseModel):
    model_config = STRICT
    http: Echo = None
    tcp: Echo = None
    ws: Echo = None


class Web(BaseModel):
    model_config = STRICT
    listen_address: str | None = None
    telemetry_path: str | None = None
    config_file: str | None = None
    token_file: str | None = None


class Log(BaseModel):
    model_config = STRICT
    level: str | None = None
    format: str | None = None


class Defaults(BaseModel):
    model_config = STRICT
    interval: Intervals = {}
    prompt: Prompts = {}
    patience: Patiences = {}


class JournalKeys(BaseModel):
    model_config = STRICT
    path: Echo = None


class BasicFile(BaseModel):
    """The keys that all files may have."""

    model_config = STRICT
    _notes = model_validator(mode="before")(strictyaml.without_notes)
    source: str | None = None
    node: str | None = None
    zone: str | None = None
    log: Log = Log()


class File(BasicFile):
    """Those of all that probe."""

    web: Web = Web()
    listen: Listen = Listen()
    journal: JournalKeys = JournalKeys()
    defaults: Defaults = Defaults()
    targets: list[Any] = []


# The options.


def _seconds(check: Callable[[float], float]) -> Callable[[str], float]:
    return lambda text: check(options.number(text))


def _folder(text: str) -> str:
    """systemd names several folders with colons between them."""
    return targets.file_name(text.partition(":")[0])


_TIME, _LIMIT, _WAIT = map(_seconds, (targets.interval, targets.prompt, targets.patience))
_SOURCE = "our name in every stream; else NODE_NAME, `source` in the file, HOSTNAME, the host's own name"
_PROMPT = "seconds within which an answer is prompt; 0.6 of the interval and at most 0.15 if not given"
_TIMEOUTS = {"http": "HTTP_TIMEOUT", "tcp": "TCP_CONNECT_TIMEOUT", "ws": "WS_OPEN_TIMEOUT"}
_ECHOES = {"http": "HTTP", "tcp": "TCP", "ws": "WebSocket"}


# fmt: off
FIRST = (
    Option("config_file", targets.file_name, "", "--config.file", "", "", "YAML file"),
    Option("config_check", None, "", "--config.check", "", "", "check the configuration, start nothing"),
    Option("env_file", targets.file_name, "", "--env-file", "", "",
           "file of variables, one NAME=value a line; those of the environment win"),
    Option("source", targets.name, "", "--source", "OVNWATCH_SOURCE", "source", _SOURCE),
    Option("node", targets.label, "", "--node", "NODE_NAME", "node", "the node we run on"),
    Option("zone", targets.label, "", "--zone", "OVNWATCH_ZONE", "zone", "the zone we run in"),
)
WEB_CONFIG = Option("web_config", targets.file_name, "", "--web.config.file", "", "web.config_file",
                    "file that says who may ask, and over TLS, as Prometheus' exporters have it")
TOKEN = (
    Option("token_file", targets.file_name, "", "--web.token-file", "", "web.token_file",
           "file with the bearer token that changing requests must carry"),
    Option("token", str, "", "", "OVNWATCH_TOKEN", "",
           "that token itself; the flag wins over it, it over the file's"),
)
KEPT = (
    Option("max_history", options.count, "200", "", "MAX_HISTORY", "", "changes that /history shows"),
    Option("journal_path", _folder, "/var/lib/ovnwatch", "--journal.path", "STATE_DIRECTORY", "journal.path",
           "folder of the journal, which survives a crash; off: in memory only"),
)
LOGGED = (
    Option("log_level", options.one_of("debug", "info", "warn", "error"), "info", "--log.level", "", "log.level",
           "debug, info, warn or error"),
    Option("log_format", options.one_of("logfmt", "json"), "logfmt", "--log.format", "", "log.format",
           "logfmt or json"),
)
# fmt: on


def telemetry(read: Callable[[str], str] = options.web_path) -> Option:
    """The option that says where the metrics are."""
    key = "web.telemetry_path"
    return Option("telemetry_path", read, "/metrics", "--web.telemetry-path", "", key, "path of the metrics")


def table(
    own: Sequence[Option],
    web_listen: Option,
    intervals: Mapping[Protocol, str],
    telemetry_path: Callable[[str], str] = options.web_path,
    listen: Callable[[str], Any] = targets.address,
) -> tuple[Option, ...]:
    """The options of one exporter: its `own`, that of its web address, and what all have."""
    echo = "address of the {} echo" + (", or off" if listen is targets.address_or_off else "")
    # fmt: off
    return (
        *FIRST,
        *own,
        *(Option(f"listen_{each}", listen, f":{targets.PORTS[each]}", f"--listen.{each}", "", f"listen.{each}",
                 echo.format(_ECHOES[each])) for each in PROTOCOLS),
        web_listen,
        telemetry(telemetry_path),
        WEB_CONFIG,
        *TOKEN,
        *(Option(f"interval_{each}", _TIME, intervals[each], "", f"{each.upper()}_INTERVAL",
                 f"defaults.interval.{each}", "seconds between probes") for each in PROTOCOLS),
        *(Option(f"prompt_{each}", _LIMIT, "", "", "", f"defaults.prompt.{each}", _PROMPT) for each in PROTOCOLS),
        *(Option(f"patience_{each}", _WAIT, "3", "", _TIMEOUTS[each], f"defaults.patience.{each}",
                 "seconds a late answer may take") for each in PROTOCOLS),
        *KEPT,
        Option("reconnect_delay", options.number, "", "", "RECONNECT_DELAY", "",
               "accepted and without effect: a lost connection is replaced at once"),
        *LOGGED,
    )
    # fmt: on


# From all of it to settings.


class Program(NamedTuple, Generic[B]):
    """An exporter's command, its options, and what makes settings of argv, the environment and a descriptor limit."""

    command: str
    options: Sequence[Option]
    load: Callable[[Sequence[str], Mapping[str, str], int], B]


def at_start(program: Program[B], argv: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> B | int:
    """The settings, or the exit code when there is nothing to start: after --help, --config.check, or problems (2)."""
    if {"-h", "--help"} & set(argv):
        print(options.help_text(program.options, f"usage: ovnwatch {program.command} [flags]"), file=out)
        return 0
    try:
        settings = program.load(argv, environ, for_probes(raise_descriptor_limit()))
    except BadInput as bad:
        print(bad, file=err)
        return 2
    if "--config.check" in argv:
        for place, message in settings.doubts:
            print(f"warning: {place}: {message}", file=err)
        print(f"configuration ok: {settings.summary()}", file=out)
        return 0
    return settings


@dataclass(frozen=True, slots=True)
class Said:
    """All that was given: options, who we are, the file's targets, and what is wrong with any of it so far."""

    given: Mapping[str, Given]
    source: str
    own: frozenset[str]  # names by which targets may call us, as targets.same_name has them
    document: Document
    folder: Path
    problems: list[Problem]
    doubts: Sequence[Problem]


def read(known: Sequence[Option], model: type[BasicFile], argv: Sequence[str], environ: Mapping[str, str]) -> Said:
    """What flags, the environment, --env-file and the file --config.file names say; problems are noted, not raised."""
    problems: list[Problem] = []
    flags = dict(options.read_flags(known, argv, problems))
    document, folder = _document(flags.get("--config.file"), problems)
    file = _head(document, model)
    ours = [option.variable for option in known if option.variable]
    variables = _variables(flags.get("--env-file"), ours, environ, problems)
    given = options.resolve(known, flags, variables, _in_file(document, file), problems)
    source = _source(given["source"], variables, problems)
    own = frozenset(targets.same_name(each.value) for each in (source, variables.get("HOSTNAME", source)))
    doubts = envfile.misspelt(environ, [each for each in ours if each != "NODE_NAME"])
    return Said(given, source.value, own, document, folder, problems, doubts)


def settle(
    kind: type[S],
    said: Said,
    entries: Sequence[Entry],
    descriptors: int | None,
    *,
    unnamed: str,
    keep: Callable[[Stream], bool] = lambda _: True,
    **more: Any,
) -> S:
    """Settings of that kind: the streams of the file's targets and of `entries` that we `keep`, and `more` fields.

    `unnamed` says what to do where nothing is named; "": then nothing is probed yet. `descriptors` is how many files
    the probes may open; None checks no budget. Raises BadInput with all problems.
    """
    given, problems = said.given, said.problems
    named = [*_named_in_file(said.document, said.folder), *entries]
    others = [entry for entry in named if targets.same_name(entry.target.name) not in said.own]
    streams = tuple(targets.expand(others, said.source, given, problems))
    problems[:0] = said.document.in_order()
    if not streams and not problems and unnamed:
        alone = f"only we ourselves ({said.source}) are named; " if named else ""
        problems.append(Problem("targets", f"nothing to probe: {alone}{unnamed}"))
    listeners = [given["web_listen"], *(given[f"listen_{each}"] for each in PROTOCOLS)]
    problems += bad_listeners([each for each in listeners if each.value])
    kept = tuple(filter(keep, streams))
    problems += _too_many(kept, descriptors)
    bearer, bearer_file = bearer_token(said)
    web_config(said)
    if problems:
        raise BadInput([*dict.fromkeys(problems), *said.doubts])
    return kind(
        **basics(said),
        streams=kept,
        listen={each: given[f"listen_{each}"].value for each in PROTOCOLS if given[f"listen_{each}"].value},
        token=bearer,
        token_file=bearer_file,
        max_history=given["max_history"].value,
        journal=journal_folder(given["journal_path"], said.document.name, said.folder),
        descriptors=descriptors or SOFT_LIMIT,
        **more,
    )


def basics(said: Said) -> dict[str, Any]:
    """The fields of Basics, of a configuration without problems."""
    given = said.given
    return {
        "source": said.source,
        "node": given["node"].value or "",
        "zone": given["zone"].value or "",
        "web_listen": given["web_listen"].value,
        "web_config": _in_folder(given["web_config"], said),
        "telemetry_path": given["telemetry_path"].value,
        "log_level": given["log_level"].value,
        "log_format": given["log_format"].value,
        "doubts": tuple(said.doubts),
    }


# What a reload cannot change, and where it is given.
FIXED = {
    "source": "source",
    "node": "node",
    "zone": "zone",
    "listen": "listen",
    "web_listen": "web.listen_address",
    "web_config": "web.config_file",
    "telemetry_path": "web.telemetry_path",
    "max_history": "MAX_HISTORY",
    "journal": "journal.path",
    "log_format": "log.format",
    "service": "kubernetes.service",
    "cluster": "kubernetes.config",
    "discovery": "kubernetes.discovery",
}


def needs_restart(old: Settings, new: Settings) -> list[Problem]:
    """What differs that only a restart can change."""
    return [
        Problem(place, "changed, which needs a restart")
        for field, place in FIXED.items()
        if getattr(old, field, None) != getattr(new, field, None)  # not every program has each
    ]


def fits(streams: Sequence[Stream], limit: int) -> int:
    """How many of the streams, in their order, can be probed with `limit` file descriptors.

    The floor a stream needs, after patience and extra connections are given up: its connection, and the probes that can
    be in flight within its prompt limit.
    """
    need = float(SPARE_DESCRIPTORS)
    for index, stream in enumerate(streams):
        need += _descriptors(stream)
        if ceil(need - EXACT) > limit:
            return index
    return len(streams)


def for_probes(limit: int) -> int:
    """How many of so many descriptors probes may have; the servers have the others."""
    return limit - min(limit // 2, MOST_FOR_SERVERS)


def raise_descriptor_limit() -> int:
    """Allow this process all the file descriptors it may have, within reason; returns how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _descriptors(stream: Stream) -> float:
    """On average; the streams come up evenly."""
    return 1 + stream.prompt / stream.interval


def _too_many(streams: Sequence[Stream], limit: int | None) -> list[Problem]:
    if limit is None or fits(streams, limit) == len(streams):
        return []
    need = ceil(sum(map(_descriptors, streams)) - EXACT) + SPARE_DESCRIPTORS
    said = (
        f"{len(streams)} streams need {need} descriptors, probes may have {limit}: {fits(streams, limit)} streams fit"
    )
    return [Problem("open files", said)]


def _text(flag: str, path: str | None, problems: list[Problem]) -> str:
    """What a file that a flag names holds; nothing if there is none or it cannot be read."""
    try:
        return "" if path is None else webconfig.read_text(Path(targets.file_name(path)), flag)
    except BadInput as error:
        problems += error.problems
    except ValueError:
        pass  # no name of a file at all, as the option says
    return ""


def _document(path: str | None, problems: list[Problem]) -> tuple[Document, Path]:
    """The configuration file, an empty one if there is none or it cannot be read, and the folder it is in."""
    try:
        return strictyaml.load(_text("--config.file", path, problems), path or ""), Path(path or "").parent
    except BadInput as bad:
        problems.extend(bad.problems)
        return strictyaml.load("", ""), Path()


def _head(document: Document, model: type[BasicFile]) -> BasicFile:
    """The file but for its targets; each key by itself, so that a bad one hides no problem of another."""
    if not isinstance(document.data, dict):
        return document.check(model, document.data) or model()
    parts = {key: document.check(model, {key: value}) for key, value in document.data.items()}
    return model().model_copy(
        update={key: getattr(part, key) for key, part in parts.items() if key in model.model_fields and part}
    )


def _in_file(document: Document, file: BasicFile) -> Callable[[str], Given | None]:
    def value_of(key: str) -> Given | None:
        value: Any = file
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        return None if value is None else Given(value, document.place(tuple(key.split("."))))

    return value_of


def _variables(
    path: str | None, ours: Sequence[str], environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Given]:
    """The environment over the file of variables; empty ones are left out."""
    known = {"NODE_NAME", "HOSTNAME", *ours}
    found = envfile.parse(_text("--env-file", path, problems), path or "", known, problems)
    found.update((name, Given(environ[name], name)) for name in known if environ.get(name))
    return {name: said for name, said in found.items() if said.value}


def _source(said: Given, variables: Mapping[str, Given], problems: list[Problem]) -> Given:
    """Our name. NODE_NAME, which is set on purpose, wins over the file; HOSTNAME, which is merely there, does not."""
    ours = said if said.place == "--source" or "OVNWATCH_SOURCE" in variables else None
    known = (ours, variables.get("NODE_NAME"), said, variables.get("HOSTNAME"))
    host = Given(socket.gethostname(), "the host's name")
    source = next((each for each in known if each and each.value), host)
    try:
        targets.name(source.value)
    except ValueError as error:
        problems.append(Problem(source.place, str(error)))
    return source


def _named_in_file(document: Document, folder: Path) -> Iterator[Entry]:
    named = document.data.get("targets") if isinstance(document.data, dict) else None
    for index, data in enumerate(named if isinstance(named, list) else []):
        target = document.check(Target, data, ("targets", index))
        if target:
            for path, wrong in targets.idle_keys(data, target):
                where: strictyaml.Path = ("targets", index, *path)
                document.add(wrong, where, document.lines[where])
            yield Entry(target, partial(_place, document, index), folder)


def _place(document: Document, index: int, *path: str) -> str:
    return document.place(("targets", index, *path))


def bad_listeners(listeners: Sequence[Given]) -> Iterator[Problem]:
    """What is wrong with (host, port) pairs to listen on: names that lead nowhere, two that want the same."""
    taken: list[tuple[Given, set[str]]] = []
    for one in listeners:
        host, port = one.value
        try:
            # As listening.listen asks: an empty host is 0.0.0.0 and ::, each for its own family only.
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            yield Problem(one.place, f"cannot listen on {host}: {error.strerror}")
            continue
        addresses = {str(address[0]) for *_, address in found}
        for other, others in taken if port else ():  # port 0 is any free one
            if one.value == other.value:
                yield Problem(one.place, f"the same address as another listener's: {other.place}")
            elif port == other.value[1] and _overlap(addresses, others):
                yield Problem(one.place, f"{_spelled(one)} and {_spelled(other)} overlap: {other.place}")
        taken.append((one, addresses))


def _overlap(some: set[str], others: set[str]) -> bool:
    wildcards = {"0.0.0.0": 4, "::": 6}  # noqa: S104 - the addresses that stand for all
    return bool(some & others) or any(
        wildcards.get(each) == targets.literal_family(other) or wildcards.get(other) == targets.literal_family(each)
        for each in some
        for other in others
    )


def _spelled(listener: Given) -> str:
    host, port = listener.value
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def journal_folder(said: Given, name: str, folder: Path) -> Path | None:
    """Where the journal is kept; a path in the file is relative to it."""
    if said.value == "off":
        return None
    return folder / said.value if name and said.place.startswith(f"{name}:") else Path(said.value)


def beside(said: Said, given: Given) -> Path:
    """A path in the file is relative to it."""
    in_file = said.document.name and given.place.startswith(f"{said.document.name}:")
    return said.folder / given.value if in_file else Path(given.value)


def _in_folder(given: Given, said: Said) -> Path | None:
    """A file: relative to the file that names it, else to where we are."""
    if not given.value:
        return None
    folder = Path() if given.place.startswith("--") else said.folder
    return folder / str(given.value)


def web_config(said: Said) -> None:
    """Note what is wrong with the file that says who may ask: it is read anew when it is used."""
    path = _in_folder(said.given["web_config"], said)
    try:
        if path is not None:
            webconfig.load(path)
    except BadInput as bad:
        said.problems.extend(bad.problems)


def bearer_token(said: Said) -> tuple[str | None, Path | None]:
    """The bearer token and its file: the flag's file, else the variable, else that named in the file; or None."""
    file, variable = said.given["token_file"], said.given["token"]
    path = _in_folder(file, said)
    try:
        if path is not None and (file.place.startswith("--") or not variable.value):
            return webconfig.read_token(path, file.place), path
        if variable.value is not None:
            return webconfig.checked_token(variable.value, variable.place), None
    except BadInput as bad:
        said.problems.extend(bad.problems)
    return None, None
