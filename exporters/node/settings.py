"""What `ovnwatch node` is told: which collectors, where daemons and files are, how long a collection may take."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from exporters import options, targets
from exporters.node.collectors import COLLECTORS
from exporters.node.failing import NotCollectedError
from exporters.node.host import Databases, Paths
from exporters.node.ovn import remote
from exporters.node.ovn.remote import Files
from exporters.options import Given, Option
from exporters.settings import (
    FIRST,
    LOGGED,
    WEB_CONFIG,
    BasicFile,
    Basics,
    Program,
    Said,
    bad_listeners,
    basics,
    beside,
    read,
    telemetry,
    web_config,
)
from exporters.strictyaml import BadInput, Problem
from exporters.targets import STRICT

SHORTEST, LONGEST = 0.1, 60.0  # seconds of a collection
OUTPUTS = ("text", "table", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings(Basics):
    """All that `ovnwatch node` needs to know."""

    collectors: tuple[str, ...]
    seconds: float
    paths: Paths
    exclude: re.Pattern[str] | None
    every_event: bool
    workloads: int | None  # None: all
    databases: Databases
    once: bool
    output: str

    def summary(self) -> str:
        return f"{len(self.collectors)} collectors"


class NodeWeb(BaseModel):
    model_config = STRICT
    listen_address: str | None = None
    telemetry_path: str | None = None
    config_file: str | None = None


class Ovs(BaseModel):
    model_config = STRICT
    rundir: str | None = None
    workloads: Annotated[int, Field(ge=0, lt=1_000_000)] | Literal["all"] | None = None
    all_events: bool | None = None


class Ovn(BaseModel):
    model_config = STRICT
    rundir: str | None = None
    nb_db: str | None = None
    sb_db: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    chassis: Annotated[int, Field(ge=0, lt=1_000_000)] | Literal["all"] | None = None
    addresses: Literal["plain", "hashed"] | None = None


class PathKeys(BaseModel):
    model_config = STRICT
    rootfs: str | None = None
    procfs: str | None = None
    sysfs: str | None = None


class CollectorKeys(BaseModel):
    model_config = STRICT
    timeout: Annotated[float, Field(ge=SHORTEST, le=LONGEST)] | None = None


class LinkKeys(BaseModel):
    model_config = STRICT
    exclude: str | None = None


class NodeFile(BasicFile):
    web: NodeWeb = NodeWeb()
    collectors: dict[str, bool] = Field(default_factory=dict)
    collector: CollectorKeys = CollectorKeys()
    links: LinkKeys = LinkKeys()
    ovs: Ovs = Ovs()
    ovn: Ovn = Ovn()
    path: PathKeys = PathKeys()


def _seconds(text: str) -> float:
    seconds = options.number(text)
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"want {SHORTEST:g} to {LONGEST:g} seconds: {text!r}")
    return seconds


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error


def _workloads(text: str) -> int | None:
    if text == "all":
        return None
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError(f"want a number, or all: {text!r}")
    return int(text)


def _folder(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"want a path that begins with /: {text!r}")
    return targets.file_name(text)


# fmt: off
OWN = (
    Option("ovs", _folder, "", "--ovs.rundir", "OVS_RUNDIR", "ovs.rundir",
           "folder of OVS' sockets; looked for where OpenShift, MicroOVN and distributions have it if not given"),
    Option("ovn", _folder, "", "--ovn.rundir", "OVN_RUNDIR", "ovn.rundir", "the same of OVN's"),
    Option("root", _folder, "/", "--path.rootfs", "", "path.rootfs", "where the node's / is, for containers"),
    Option("proc", _folder, "/proc", "--path.procfs", "", "path.procfs", "where the node's /proc is"),
    Option("sys", _folder, "/sys", "--path.sysfs", "", "path.sysfs", "where the node's /sys is"),
    Option("snap_common", _folder, "", "", "SNAP_COMMON", "", "the snap's folder, where MicroOVN has its sockets"),
    Option("seconds", _seconds, "2", "--collector.timeout", "", "collector.timeout",
           "seconds a collector may take; three fifths of what the scraper allows if that is less"),
    Option("exclude", _pattern, "", "--links.exclude", "", "links.exclude",
           "regular expression of the whole names of links not to show"),
    Option("workloads", _workloads, "20", "--ovs.workloads", "", "ovs.workloads",
           "ports of pods and virtual machines shown one by one, those that lost and carried most first; or all"),
    Option("every_event", None, "", "--ovs.all-events", "", "ovs.all_events",
           "show every event that OVS counts, not only those that say how it is doing"),
    Option("northbound", remote.parse, "", "--ovn.nb-db", "OVN_NB_DB", "ovn.nb_db",
           "addresses of the northbound database, tried in turn; this node's own server if not given"),
    Option("southbound", remote.parse, "", "--ovn.sb-db", "OVN_SB_DB", "ovn.sb_db", "the same of the southbound one"),
    Option("ovn_ca", targets.file_name, "", "--ovn.ca-file", "", "ovn.ca_file",
           "who signs the databases' certificates, for addresses that begin with ssl:"),
    Option("ovn_cert", targets.file_name, "", "--ovn.cert-file", "", "ovn.cert_file", "our certificate for them"),
    Option("ovn_key", targets.file_name, "", "--ovn.key-file", "", "ovn.key_file", "and its key"),
    Option("ovn_chassis", _workloads, "50", "--ovn.chassis", "", "ovn.chassis",
           "chassis shown one by one, those that are most behind first; or all"),
    Option("ovn_addresses", options.one_of("plain", "hashed"), "plain", "--ovn.addresses", "", "ovn.addresses",
           "how addresses of SNAT are shown: plain or hashed"),
    Option("once", None, "", "--once", "", "", "collect once, print it and end"),
    Option("output", options.one_of(*OUTPUTS), "text", "--output", "", "", "with --once: text, table or json"),
)
OPTIONS = (
    *FIRST,
    *OWN,
    Option("web_listen", targets.address, ":9481", "--web.listen-address", "", "web.listen_address",
           "address of metrics, health and /state"),
    telemetry(),
    WEB_CONFIG,
    *LOGGED,
)
# fmt: on
SWITCHES = tuple(
    option
    for name, collector in COLLECTORS.items()
    for option in (
        Option(f"with_{name}", None, "", f"--collector.{name}", "", f"collectors.{name}", f"collect {collector.line}"),
        Option(f"without_{name}", None, "", f"--no-collector.{name}", "", "", "do not"),
    )
)


def load_node(argv: Sequence[str], environ: Mapping[str, str], _: int | None = None) -> NodeSettings:
    """Settings from flags, the environment and the files they name. Raises BadInput with all problems."""
    said = read((*OPTIONS, *SWITCHES), NodeFile, argv, environ)
    given, problems = said.given, said.problems
    problems[:0] = said.document.in_order()
    collectors = _collectors(said)
    if given["web_listen"].value:
        problems += bad_listeners([given["web_listen"]])
    web_config(said)
    databases = _databases(said)
    if problems:
        raise BadInput([*dict.fromkeys(problems), *said.doubts])
    return NodeSettings(
        **basics(said),
        collectors=collectors,
        seconds=given["seconds"].value,
        paths=Paths(
            Path(given["root"].value),
            Path(given["proc"].value),
            Path(given["sys"].value),
            given["ovs"].value,
            given["ovn"].value,
            given["snap_common"].value or "",
        ),
        exclude=given["exclude"].value,
        every_event=_switch(given["every_event"]),
        workloads=given["workloads"].value,
        databases=databases,
        once=_switch(given["once"]),
        output=given["output"].value,
    )


def _switch(said: Given) -> bool:
    """A flag that takes no value is "", and true or false in the file."""
    return said.value is not None and said.value is not False


def _databases(said: Said) -> Databases:
    """Where they are; what of TLS would keep them from being read is noted."""
    given = said.given
    northbound, southbound = given["northbound"].value or (), given["southbound"].value or ()
    named = (given[f"ovn_{each}"] for each in ("ca", "cert", "key"))
    files = Files(*(str(beside(said, each)) if each.value else "" for each in named))
    if files.ca or any(each.kind == "ssl" for each in (*northbound, *southbound)):
        try:
            remote.tls_context(files)
        except NotCollectedError as error:
            said.problems.append(Problem(given["ovn_ca"].place if files.ca else "--ovn.ca-file", str(error)))
    return Databases(
        northbound=northbound,
        southbound=southbound,
        files=files,
        chassis=given["ovn_chassis"].value,
        hashed=given["ovn_addresses"].value == "hashed",
    )


def _collectors(said: Said) -> tuple[str, ...]:
    """Those that are on: all but those that are off by flag, or else by file. Naming one turns no other off."""
    given, problems = said.given, said.problems
    named = said.document.data.get("collectors") if isinstance(said.document.data, dict) else None
    for name in named if isinstance(named, dict) else ():
        if name not in COLLECTORS:
            problems.append(Problem(said.document.place(("collectors", name)), f"no collector {name!r}"))
    chosen = []
    for name in COLLECTORS:
        on, off = given[f"with_{name}"], given[f"without_{name}"]
        if on.place.startswith("--") and off.value is not None:
            problems.append(Problem(off.place, f"and {on.place} contradict each other"))
        if off.value is None and on.value is not False:
            chosen.append(name)
    if not chosen:
        problems.append(Problem("collectors", "all of them are off: there would be nothing to tell"))
    return tuple(chosen)


NODE = Program("node", (*OPTIONS, *SWITCHES), load_node)
