"""What `ovnwatch bastion` is told beside what all exporters that probe share: the ways from outside, and its shard."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from exporters import options, targets
from exporters.bastion import variables
from exporters.bastion.shard import Shard, ours, shard
from exporters.bastion.ways import bare, peers
from exporters.options import Given, Option
from exporters.remotes import Remote, listed
from exporters.settings import File, Program, Said, Settings, read, settle, table
from exporters.strictyaml import BadInput, Problem
from exporters.targets import Entry

OWN_PATHS = ("/api/", "/status", "/history", "/gate", "/healthz", "/page/", "/simple")  # what the page's port serves


@dataclass(frozen=True, slots=True, kw_only=True)
class BastionSettings(Settings):
    """All that `ovnwatch bastion` needs to know."""

    poll_interval: float  # seconds between two looks at what a peer measured
    grafana_url: str | None  # that the page links to
    journals: tuple[Remote, ...]  # beside the peers', of a migration exporter say


def _polling(seconds: float) -> float:
    if not 0.2 <= seconds <= 3600:
        raise ValueError("must be from 0.2 to 3600 seconds")
    return seconds


class BastionFile(File):
    poll_interval: Annotated[float, AfterValidator(_polling)] | None = None
    grafana_url: str | None = None
    journals: list[Any] = Field(default_factory=list)


def page_address(text: str) -> tuple[str, int]:
    """An address, or a port alone, as DASHBOARD_PORT has it."""
    return targets.address(f":{text}" if text.isdigit() else text)


def web_url(text: str) -> str:
    """An http or https URL without query, its last slash taken off."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"want a URL such as https://grafana.example.com, without query: {text!r}")
    if parts.username is not None:
        raise ValueError("want a URL without user and password: everybody sees it")
    return text.rstrip("/")


def telemetry_path(text: str) -> str:
    if text.startswith(OWN_PATHS):
        raise ValueError(f"want a path that the page does not use itself: {text!r}")
    return options.web_path(text)


# fmt: off
OPTIONS = table(
    own=[
        Option("load_balancers", variables.load_balancers, "", "", "METALLB_PEERS", "",
               'addresses of LoadBalancers, as JSON: `{"peer-1-lb": "192.0.2.1"}`'),
        Option("node_ports", variables.node_ports, "", "", "NODEPORT_PEERS", "",
               'as JSON: `{"peer-1-np": {"host": "node-1", "ws_port": 30080, "tcp_port": 30081, "http_port": 30082}}`'),
        Option("routes", variables.routes, "", "", "ROUTE_PEERS", "",
               "URLs of Routes, with commas; https if not said; called peer-1-route, peer-2-route and so on"),
        Option("shard", shard, "", "--shard", "OVNWATCH_SHARD", "",
               "I/N: probe the I-th of N equal parts, counted from 0"),
        Option("poll_interval", lambda text: _polling(options.number(text)), "1.0", "", "POLL_INTERVAL",
               "poll_interval", "seconds between two looks at what a peer measured"),
        Option("grafana_url", web_url, "", "--grafana.url", "OVNWATCH_GRAFANA_URL", "grafana_url",
               "where Grafana is, for links from the page to the dashboard of the same moment"),
    ],
    web_listen=Option("web_listen", page_address, ":9091", "--web.listen-address", "DASHBOARD_PORT",
                      "web.listen_address", "address of the page, its API, metrics and health; a port alone will do"),
    intervals={"http": "1.0", "tcp": "0.5", "ws": "0.5"},
    telemetry_path=telemetry_path,
    listen=targets.address_or_off,
)
# fmt: on


def load_bastion(argv: Sequence[str], environ: Mapping[str, str], descriptors: int | None = None) -> BastionSettings:
    """Settings from flags, the environment and the files they name; see `settings.settle`."""
    said = read(OPTIONS, BastionFile, argv, environ)
    mine: Shard | None = said.given["shard"].value
    journals = tuple(listed(said, "journals"))
    settings = settle(
        BastionSettings,
        said,
        list(_named_in_variables(said)),
        descriptors,
        unnamed="name targets in METALLB_PEERS, NODEPORT_PEERS, ROUTE_PEERS or the file's `targets:`",
        keep=lambda stream: mine is None or ours(stream, mine),
        poll_interval=said.given["poll_interval"].value,
        grafana_url=said.given["grafana_url"].value,
        journals=journals,
    )
    both = {each.name for each in journals} & peers(settings.streams).keys()
    if both:
        raise BadInput([Problem("journals", f"{name}: a target has that name, too") for name in sorted(both)])
    return settings


def _named_in_variables(said: Said) -> Iterator[Entry]:
    """Names there end in the path, `peer-1-lb`: the target is the same by all paths, so that they can be compared."""
    given = [said.given[option] for option in ("load_balancers", "node_ports", "routes")]
    named = [(each, target) for each in given for target in each.value or []]
    times = Counter((bare(target.name, target.path), target.path) for _, target in named)
    for each, target in named:
        name = bare(target.name, target.path)
        one = target if times[name, target.path] > 1 else target.model_copy(update={"name": name})
        yield Entry(one, partial(_place, each, target.name), Path(), target.name)


def _place(given: Given, name: str, *_: str) -> str:
    return f"{given.place}: {name}"


BASTION = Program("bastion", OPTIONS, load_bastion)
