"""The scrape configurations to copy: well formed, and about ports, paths and labels that the exporters really have."""

import json
import os
import re
import shutil
import subprocess
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for

from alerts.forms import FORMS, Wanted
from exporters import catalog
from exporters.bastion.settings import BASTION
from exporters.node.settings import NODE
from exporters.peer.settings import PEER
from lab.children import hold_port, plain_environ

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "manifests/scrape"
RULES = sorted((ROOT / "alerts/rules").glob("*.yaml"))
CONFIGS = sorted(FOLDER.glob("prometheus*.yaml"))
OBJECTS = {each.stem: yaml.safe_load(each.read_text()) for each in sorted(FOLDER.glob("*-*.yaml"))}
OBJECTS.pop("prometheus-files")
MONITORS = {name: each for name, each in OBJECTS.items() if each["kind"].endswith("Monitor")}
SCHEMAS = Path(os.environ.get("OVNWATCH_SCHEMAS") or ROOT.parent / "shared/data/schemas")
# What Prometheus, its operator or OpenShift's monitoring set; a series' label of that name would be renamed.
TAKEN = {"job", "instance", "namespace", "pod", "service", "container", "endpoint", "node", "prometheus", "cluster"}
CATALOG = catalog.load()
OURS = {label for metric in CATALOG.metrics.values() for label in metric.labels}
OPTIONS = {"peer": PEER.options, "bastion": BASTION.options, "node": NODE.options}

each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


def default(component: str, name: str) -> str:
    """The default of an exporter's option."""
    return next(option.default for option in OPTIONS[component] if option.name == name)


def port_of(component: str) -> int:
    return int(default(component, "web_listen").rpartition(":")[2])


def targets(config: Mapping[str, Any], folder: Path = FOLDER) -> dict[str, list[dict[str, Any]]]:
    """The groups of targets of each job."""
    found: dict[str, list[dict[str, Any]]] = {}
    for job in config["scrape_configs"]:
        files = [folder / name for each in job.get("file_sd_configs", ()) for name in each["files"]]
        groups = [
            *job.get("static_configs", ()),
            *(group for file in files for group in yaml.safe_load(file.read_text())),
        ]
        found[job["job_name"]] = groups
    return found


def copied(folder: Path) -> Path:
    """A user's copy of all of it, the rules beside it."""
    shutil.copytree(FOLDER, folder / "scrape")
    shutil.copytree(ROOT / "alerts/rules", folder / "scrape/rules")
    return folder / "scrape"


# --- what is written


@each_config
@pytest.mark.system("promtool")
def test_prometheus_takes_a_configuration_and_its_rules(config: Path, tmp_path: Path) -> None:
    command = ["promtool", "check", "config", str(copied(tmp_path) / config.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rule files found" in done.stdout


@each_config
def test_a_configuration_names_the_ports_and_the_path_that_exporters_have(config: Path) -> None:
    written = yaml.safe_load(config.read_text())
    for job in written["scrape_configs"]:
        component = job["job_name"].removeprefix("ovnwatch-")
        assert job.get("metrics_path", "/metrics") == default(component, "telemetry_path")
        groups = targets(written)[job["job_name"]]
        ports = {address.rpartition(":")[2] for group in groups for address in group["targets"]}
        assert ports == {str(port_of(component))}
        assert not {label for group in groups for label in group.get("labels", {})} & OURS
    assert targets(written).keys() == {f"ovnwatch-{component}" for component in OPTIONS}


def test_the_readme_shows_what_the_file_says() -> None:
    found = re.search(r"^    (scrape_configs:\n(?:     .*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert found
    shown = yaml.safe_load(textwrap.dedent(f"    {found[1]}"))
    assert shown["scrape_configs"] == yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]


def test_scrapes_are_as_far_apart_as_the_rules_are_made_for() -> None:
    said = [yaml.safe_load(each.read_text())["global"]["scrape_interval"] for each in CONFIGS]
    said += [endpoint["interval"] for each in MONITORS.values() for endpoint in endpoints(each)]
    assert len(said) == len(CONFIGS) + len(MONITORS)
    assert all(1 <= int(each.removesuffix("s")) <= 30 for each in said)


def test_no_label_of_ours_is_renamed() -> None:
    assert not OURS & TAKEN
    assert not [label for label in OURS if label.startswith("exported_")]


def endpoints(monitor: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
    return found


@pytest.mark.parametrize("name", MONITORS)
def test_a_monitor_asks_for_nothing_that_users_of_openshift_may_not(name: str) -> None:
    assert "namespaceSelector" not in MONITORS[name]["spec"]
    for endpoint in endpoints(MONITORS[name]):
        assert endpoint.keys().isdisjoint({"honorLabels", "honorTimestamps", "bearerTokenFile", "tlsConfig"})
        assert endpoint["path"] == default(name.partition("-")[0], "telemetry_path")
        assert not {each["targetLabel"] for each in endpoint.get("relabelings", ())} & OURS


def test_a_monitor_its_service_and_the_addresses_belong_together() -> None:
    monitor, service, addresses = (
        OBJECTS[f"bastion-{each}"] for each in ("servicemonitor", "service", "endpointslice")
    )
    assert len({each["metadata"]["namespace"] for each in OBJECTS.values()}) == 1
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert "selector" not in service["spec"]
    assert addresses["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
    ports = [{key: each[key] for key in ("name", "port", "protocol")} for each in service["spec"]["ports"]]
    assert ports == addresses["ports"] == [{"name": "metrics", "port": port_of("bastion"), "protocol": "TCP"}]
    assert [each["port"] for each in endpoints(monitor)] == ["metrics"]


def strict(schema: Any) -> Any:
    """The schema, refusing keys that it does not know, as the API server does."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return closed | {key: strict(value) for key, value in schema.items() if value is not None}  # OpenShift has such


def schema_errors(written: dict[str, Any]) -> list[str]:
    """What the schema of its kind says is wrong with an object; nothing where schemas are not at hand."""
    if "OVNWATCH_SCHEMAS" not in os.environ and not SCHEMAS.is_dir():
        return []
    schema = strict(json.loads(schema_file(written).read_text())["schema"])
    return [
        f"{written['kind']}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(written)
    ]


def resources() -> Iterator[dict[str, Any]]:
    """All that we write for somebody's operator: monitors, rules, dashboards, and what overlays have of such."""
    yield from MONITORS.values()
    yield from (each for form in FORMS if form != "plain" for each in FORMS[form](CATALOG, Wanted()).values())
    for file in (
        ROOT / "manifests/components/grafana-operator/dashboards.yaml",
        *ROOT.glob("manifests/rendered/*.yaml"),
    ):
        objects = yaml.safe_load_all(file.read_text())
        yield from (each for each in objects if "." in each["apiVersion"].split("/")[0] and schema_file(each).exists())


def schema_file(written: Mapping[str, Any]) -> Path:
    group, version = written["apiVersion"].split("/")
    return SCHEMAS / f"{group}_{written['kind']}_{version}.json"


def test_custom_resources_are_what_their_schemas_say() -> None:
    if "OVNWATCH_SCHEMAS" not in os.environ and not SCHEMAS.is_dir():
        print("schemas not checked")
        pytest.skip("schemas not checked")
    kinds = set()
    for written in resources():
        kinds.add(written["kind"])
        assert schema_errors(written) == []
        wrong = (
            {**written, "spec": {**written["spec"], "unknown": 1}} if "spec" in written else {**written, "unknown": 1}
        )
        assert any("unknown" in each for each in schema_errors(wrong))
    assert kinds >= {"PodMonitor", "ServiceMonitor", "PrometheusRule", "AlertingRule", "GrafanaDashboard", "Route"}


# --- what is scraped


@contextmanager
def prometheus(config: Path) -> Iterator[int]:
    """A Prometheus with that configuration; its port."""
    with closing(hold_port()) as holder:
        port = int(holder.getsockname()[1])
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={config.parent / 'data'}"]
        with (config.parent / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{port}"],
                stdout=log,
                stderr=log,
                env=plain_environ((), {}),
            )
        try:
            yield port
        finally:
            process.kill()
            process.wait()


def ask(port: int, path: str, **query: str) -> Any:
    """What Prometheus answers; {} while it does not."""
    try:
        address = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)["data"]
    except OSError:
        return {}


def addressed(folder: Path, real: Mapping[str, str]) -> None:
    """Put real addresses into all files, leave those out that nobody has, and have Prometheus hurry."""
    for file in [*folder.glob("prometheus*.yaml"), *folder.glob("targets/*.yaml")]:
        written = yaml.safe_load(file.read_text())
        groups = written if isinstance(written, list) else [g for each in targets(written).values() for g in each]
        for group in groups:
            group["targets"] = [real[address] for address in group["targets"] if address in real]
        file.write_text(yaml.safe_dump(written).replace("15s", "1s"))


@pytest.mark.system("prometheus")
@pytest.mark.slow
@each_config
def test_a_real_prometheus_scrapes_real_exporters_by_it(config: Path, tmp_path: Path) -> None:
    target = {"targets": [{"name": "node-2", "host": "127.0.0.1", "ports": {"tcp": 9}}]}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(target))
    folder = copied(tmp_path)
    sources = {"peer": "node-1", "bastion": "bastion-1"}
    with killed_at_the_end() as running:
        for component, source in sources.items():
            argv = [component, f"--config.file={tmp_path / 'file.yaml'}", *flags(ANY_PORT)]
            running.append(Exporter(tmp_path / f"{component}.log", *argv, OVNWATCH_SOURCE=source))
        listen = "--web.listen-address=127.0.0.1:0"
        running.append(Exporter(tmp_path / "node.log", "node", listen, OVNWATCH_SOURCE="node-1"))
        for each in running:
            wait_for(each.ready)
        addresses = [f"{source}:{port_of(component)}" for component, source in {**sources, "node": "node-1"}.items()]
        addressed(folder, dict(zip(addresses, (f"127.0.0.1:{each.ports['web']}" for each in running), strict=True)))
        with prometheus(folder / config.name) as port:
            wait_for(lambda: len(ask(port, "query", query="ovnwatch_probes_total").get("result", ())) == len(sources))
            links = 'ovnwatch_node_collector_success{collector="links"} == 1'
            wait_for(lambda: len(ask(port, "query", query=links).get("result", ())) == 1)
            found = [each["metric"] for each in ask(port, "query", query='{__name__=~"ovnwatch_.*"}')["result"]]
            groups = {group["name"] for group in ask(port, "rules")["groups"]}
            up = [each["value"][1] for each in ask(port, "query", query="up")["result"]]
    known = catalog.load().metrics
    for labels in found:
        assert not [label for label in labels if label.startswith("exported_")]
        if labels["__name__"] in known:
            assert labels.keys() <= {"__name__", "job", "instance", *known[labels["__name__"]].labels}
    counted = {(each["job"], each["source"]) for each in found if each["__name__"] == "ovnwatch_probes_total"}
    assert counted == {(f"ovnwatch-{component}", source) for component, source in sources.items()}
    assert groups == {f"ovnwatch-{each.stem}" for each in RULES}
    assert up == ["1", "1", "1"]
