"""What stands beside the image: scripts, compose.yaml and what it mounts, systemd units; checked by who reads them."""

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporters.bastion.settings import load_bastion
from manifests.__main__ import ROOT

CONTAINERS = ROOT / "containers"
SCRIPTS = sorted(CONTAINERS.glob("*.sh"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_plain_shell_that_can_be_run(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert os.access(script, os.X_OK) == (script.name != "common.sh")


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("build-images.sh", "BASE"),
        ("push-images.sh", "registry"),
        ("bundle.sh", "folder"),
        ("verify-bundle.sh", "SUMS"),
    ],
)
def test_a_script_that_lacks_something_says_what(script: str, wrong: str, tmp_path: Path) -> None:
    given = [tmp_path] if script == "verify-bundle.sh" else []
    ran = subprocess.run([CONTAINERS / script, *given], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode != 0
    assert wrong in ran.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PYTHON_VERSION", "3.10"), ("PYTHON_VERSION", "3"), ("PYTHON_VERSION", "3.12.1"), ("ARCH", "amd64")],
)
def test_wheels_are_for_a_python_that_there_is(variable: str, value: str, tmp_path: Path) -> None:
    environ = {**os.environ, variable: value}
    ran = subprocess.run(
        [CONTAINERS / "download-dependencies.sh", tmp_path / "wheels"],
        check=False, capture_output=True, text=True, env=environ,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"{variable}: want ")
    assert not (tmp_path / "wheels").exists()


def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Where it comes from there is nothing."""
    environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_RETRIES": "0"}
    ran = subprocess.run(
        [CONTAINERS / "download-dependencies.sh", tmp_path], check=False, capture_output=True, text=True, env=environ
    )
    assert ran.returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a bundle is made of, with wheels and an engine that are none."""
    folder = tmp_path / "checkout"
    for each in ("manifests", "grafana/dashboards", "alerts/rules", "alerts/runbooks", "docs", "containers"):
        shutil.copytree(ROOT / each, folder / each)
    for each in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / each, folder / each)
    wheels = folder / "wheels"
    wheels.mkdir()
    (wheels / "a.whl").write_text("a")
    (wheels / "SHA256SUMS").write_text(f"{hashlib.sha256(b'a').hexdigest()}  a.whl\n")
    (folder / "engine").write_text('#!/bin/sh\nfor last; do :; done\n[ ! -e fail ] || exit 1\necho x >"$5"\n')
    (folder / "engine").chmod(0o755)
    return folder


def bundled(checkout: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "ENGINE": str(checkout / "engine")}
    script = checkout / "containers/bundle.sh"
    return subprocess.run(
        [script, checkout / "out/bundle"], check=False, capture_output=True, text=True, cwd=checkout, env=environ
    )


def test_no_secret_of_a_bastion_is_carried_along(checkout: Path) -> None:
    for name in ("secrets/token", "secrets/grafana", "config.env", ".env", "targets/peers.yaml"):
        (checkout / "containers" / name).parent.mkdir(exist_ok=True)
        (checkout / "containers" / name).write_text("of-this-site")
    ran = bundled(checkout)
    assert ran.returncode == 0, ran.stderr
    assert subprocess.run(["grep", "-r", "of-this-site", checkout / "out"], check=False).returncode == 1
    verify = checkout / "out/bundle/containers/verify-bundle.sh"
    assert "whole" in subprocess.run([verify], check=True, capture_output=True, text=True).stdout


def test_an_image_that_is_not_here_is_named_and_not_pushed(checkout: Path) -> None:
    (checkout / "engine").write_text('#!/bin/sh\necho "$*" >>log\n[ "$1 $2" != "image exists" ]\n')
    environ = {**os.environ, "ENGINE": str(checkout / "engine")}
    script = checkout / "containers/push-images.sh"
    ran = subprocess.run(
        [script, "registry.example.com"], check=False, capture_output=True, text=True, cwd=checkout, env=environ
    )
    assert ran.returncode == 1
    assert f"neither registry.example.com/applications/ovnwatch:{VERSION} nor localhost/" in ran.stderr
    assert "push" not in (checkout / "log").read_text()


def test_a_bundle_is_there_as_a_whole_or_not_at_all(checkout: Path) -> None:
    (checkout / "fail").touch()
    assert bundled(checkout).returncode != 0
    assert list((checkout / "out").iterdir()) == []
    (checkout / "fail").unlink()
    assert bundled(checkout).returncode == 0
    assert [each.name for each in (checkout / "out").iterdir()] == ["bundle"]
    again = bundled(checkout)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_every_name_of_the_image_has_the_projects_version() -> None:
    for path in (CONTAINERS / "env.example", CONTAINERS / "systemd/ovnwatch-bastion.container"):
        assert re.findall(r"applications/ovnwatch:(\S+)", path.read_text()) == [VERSION]


def composed(folder: Path) -> dict[str, Any]:
    """The compose file as docker-compose reads it, with the example's variables."""
    here = folder / "containers"
    shutil.copytree(CONTAINERS, here)
    shutil.copy(here / "env.example", here / ".env")
    subprocess.run(["docker-compose", "config", "-q"], cwd=here, check=True, capture_output=True)
    ran = subprocess.run(["docker-compose", "config"], cwd=here, check=True, capture_output=True, text=True)
    found: dict[str, Any] = yaml.safe_load(ran.stdout)["services"]
    return found


@pytest.mark.system("docker-compose")
def test_compose_mounts_what_there_is_and_runs_nothing_with_rights(tmp_path: Path) -> None:
    services = composed(tmp_path)
    assert set(services) == {"bastion", "prometheus", "alertmanager", "grafana"}
    own = {"config.env", "token", "grafana", "targets"}  # which a user writes: docs/bastion.md
    for name, each in services.items():
        assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"]), name
        for volume in each["volumes"]:
            source = str(volume).partition(":")[0]
            if source.startswith("/") and Path(source).name not in own:
                inside = Path(source).relative_to(tmp_path)
                assert (ROOT / inside).exists(), source


def test_compose_without_images_named_is_refused_by_name() -> None:
    text = (CONTAINERS / "compose.yaml").read_text()
    named = set(re.findall(r"\$\{(\w+):\?", text))
    assert named == set(re.findall(r"^(\w+)=", (CONTAINERS / "env.example").read_text(), re.MULTILINE))


def test_the_bastion_of_compose_has_good_settings(tmp_path: Path) -> None:
    command = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]["bastion"]["command"]
    (tmp_path / "config.env").write_text("ROUTE_PEERS=peer-1.example.com\n")
    (tmp_path / "token").write_text("t")
    given = [re.sub(r"/etc/ovnwatch|/run/secrets", str(tmp_path), each) for each in command]
    assert given.pop(0) == "bastion"
    assert load_bastion(given, {}).token == "t"


@pytest.mark.system("promtool", "amtool")
def test_prometheus_and_alertmanager_take_their_configuration(tmp_path: Path) -> None:
    text = (CONTAINERS / "compose/prometheus.yaml").read_text()
    (tmp_path / "prometheus.yaml").write_text(text.replace("/etc/prometheus/rules", str(ROOT / "alerts/rules")))
    ran = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"], check=True, capture_output=True, text=True
    )
    assert "rule files found" in ran.stdout
    alertmanager = CONTAINERS / "compose/alertmanager.yaml"
    subprocess.run(["amtool", "check-config", alertmanager], check=True, capture_output=True)


def test_grafana_finds_prometheus_and_the_boards_where_compose_has_them() -> None:
    services = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]
    (source,) = yaml.safe_load((CONTAINERS / "compose/grafana/datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((CONTAINERS / "compose/grafana/dashboards/ovnwatch.yaml").read_text())["providers"]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    assert any(volume.split(":")[1] == provider["options"]["path"] for volume in services["grafana"]["volumes"])


@pytest.mark.system("systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = sorted((CONTAINERS / "systemd").glob("*.service"))
    assert len(units) == 3
    for unit in units:
        text = unit.read_text()
        (tmp_path / unit.name).write_text(text.replace("/opt/ovnwatch/bin/ovnwatch", "/bin/true"))
        ran = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], check=False, capture_output=True, text=True
        )
        ours = [line for line in ran.stderr.splitlines() if unit.name in line]
        assert ours == []
    broken = tmp_path / "broken.service"
    broken.write_text("[Service]\nExecStart=relative\nProtectSytem=strict\n")
    ran = subprocess.run(["systemd-analyze", "verify", broken], check=False, capture_output=True, text=True)
    assert "ProtectSytem" in ran.stderr


def test_the_quadlet_is_what_podman_reads() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((CONTAINERS / "systemd/ovnwatch-bastion.container").read_text())
    assert {"Image", "Exec", "ReadOnly", "DropCapability", "NoNewPrivileges", "HealthCmd"} <= set(unit["Container"])


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_pages_name_files_that_are_there(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"\b((?:manifests|containers|alerts)/[\w./-]*\w)", text):
        assert (ROOT / path).exists(), path
