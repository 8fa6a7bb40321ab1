"""Prometheus and Alertmanager for the demo: their configuration, what they are asked, and the receiver they call."""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml
from aiohttp import web

LOCAL = "127.0.0.1"
PROMETHEUS = ("prometheus",)
ALERTMANAGER = ("prometheus-alertmanager", "alertmanager")  # Debian's name, and its own


class MissingError(Exception):
    """A program that must be installed is not; the message says what to install."""


class Notice(NamedTuple):
    """One alert as the receiver was told of it; arrived: monotonic seconds."""

    name: str
    severity: str
    status: str  # firing | resolved
    labels: Mapping[str, str]
    text: str
    arrived: float


def programs() -> tuple[str, str]:
    """Where Prometheus and Alertmanager are. Raises MissingError."""
    found = [next(filter(None, map(shutil.which, names)), None) for names in (PROMETHEUS, ALERTMANAGER)]
    prometheus, alertmanager = found
    if prometheus is None or alertmanager is None:
        raise MissingError("Prometheus and Alertmanager are needed: apt-get install prometheus prometheus-alertmanager")
    return prometheus, alertmanager


def prometheus_config(jobs: Mapping[str, Iterable[str]], alertmanager: str, rules: Path) -> str:
    """Scrape the addresses of each job every second, judge as often; targets appear some 5 s after the start.

    alertmanager: its address; "": there is none.
    """
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules / "*.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager] if alertmanager else []}]}]},
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [*addresses]}]} for name, addresses in jobs.items()
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)


def alertmanager_config(receiver: int) -> str:
    """Everything to one receiver, and soon."""
    route = {"receiver": "demo", "group_by": ["alertname", "severity"], "group_wait": "500ms", "group_interval": "1s"}
    webhook = {"url": f"http://{LOCAL}:{receiver}/", "send_resolved": True}
    return yaml.safe_dump({"route": route, "receivers": [{"name": "demo", "webhook_configs": [webhook]}]})


def command(name: str, program: str, folder: Path, port: int) -> list[str]:
    """How to start "prometheus" or "alertmanager" with NAME.yaml and its data in `folder`."""
    common = [
        program,
        f"--config.file={folder / name}.yaml",
        f"--web.listen-address={LOCAL}:{port}",
        "--log.level=warn",
    ]
    data = str(folder / name)
    if name == "prometheus":
        # What fires before Alertmanager is found, some 5 s after the start, arrives when it is told again.
        return [*common, f"--storage.tsdb.path={data}", "--rules.alert.resend-delay=5s"]
    return [*common, f"--storage.path={data}", "--cluster.listen-address="]


async def query(session: aiohttp.ClientSession, port: int, expression: str) -> float | None:
    """The value of an expression that has one sample; None if it has none or Prometheus does not answer yet."""
    try:
        async with session.get(f"http://{LOCAL}:{port}/api/v1/query", params={"query": expression}) as response:
            result = (await response.json())["data"]["result"] if response.status == 200 else []
    except (aiohttp.ClientError, TimeoutError):
        return None
    return float(result[0]["value"][1]) if result else None


def notices(document: Mapping[str, Any], arrived: float) -> Iterable[tuple[str, Notice]]:
    """(identity of the change, notice) of each alert in a webhook's document; one that is told again has the same."""
    for alert in document["alerts"]:
        labels, notes = alert["labels"], alert["annotations"]
        identity = "|".join((alert["fingerprint"], alert["status"], alert["startsAt"]))
        text = f"{notes.get('summary', '')} {notes.get('description', '')}"
        yield identity, Notice(labels["alertname"], labels.get("severity", ""), alert["status"], labels, text, arrived)


def receiver(told: Callable[[list[Notice]], None]) -> web.Application:
    """An application that hands on each notice it had not before."""
    known: set[str] = set()

    async def post(request: web.Request) -> web.Response:
        new = {key: each for key, each in notices(await request.json(), time.monotonic()) if key not in known}
        known.update(new)
        if new:
            told(list(new.values()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", post)
    return app
