"""The image, built without a network, as people run it; and the bundle, where there is no way out.

The base is what mmdebstrap makes of this machine's own distribution; it is kept in build/ for the next run.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from running import wait_for
from scraped_by import scraping
from servers import make_certificates

from manifests.__main__ import ROOT

pytestmark = [
    pytest.mark.needs_root("podman", "runc", "mmdebstrap", "prometheus"),
    pytest.mark.beside,
    pytest.mark.slow,
]

CONTAINERS = ROOT / "containers"
BASE = "localhost/base:here"
APT = Path("/etc/apt")
MOST_MB = 150  # over the base
STOP_SECONDS = 5.0
TRIES = 3  # to load a Debian
RANDOM_USER = "1000670000:0"  # as OpenShift gives them
AIR = f"owair{os.getpid()}"  # a run that was killed left its own
LOCKED = [
    "--user", RANDOM_USER, "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges",
    "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=30000:30000", "--net", "host",
]  # fmt: skip

Engine = Callable[..., str]


def run(*command: object, **variables: str) -> str:
    """What a command printed; it failing is told with what it said."""
    environ = {**os.environ, **variables}
    ran = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, env=environ, cwd=ROOT, timeout=300
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def own_engine() -> Path:
    """A podman with images and containers of its own; its folder has a short name, for podman takes no long one."""
    folder = Path(tempfile.mkdtemp(prefix="ow-", dir="/tmp"))
    script = folder / "podman"
    own = f"--root {folder}/store --runroot {folder}/run --storage-driver overlay --cgroup-manager cgroupfs"
    runc = shutil.which("runc")
    script.write_text(f'#!/bin/sh\nexec podman --runtime {runc} {own} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture(scope="module")
def engine() -> Iterator[Path]:
    script = own_engine()
    yield script
    subprocess.run([script, "rm", "--all", "--force"], check=False, capture_output=True)
    shutil.rmtree(script.parent)  # a gigabyte


def made_base() -> Path:
    """An archive of a Debian, or Ubuntu, with Python, and nothing else.

    By the package lists that this machine's apt has checked already, or, where that fails (they are old, or there are
    none), by new ones.
    """
    archive = ROOT / "build/base.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(exist_ok=True)
    own = archive.parent / f"base.{os.getpid()}.tar"
    sources = [each for pattern in ("*.list", "*.d/*.list", "*.d/*.sources") for each in sorted(APT.glob(pattern))]
    what = ["--variant=minbase", "--include=python3,python3-venv", '--aptopt=Acquire::Retries "5"']
    lists = ["--skip=update", '--setup-hook=mkdir -p "$1/var/lib/apt" && cp -a /var/lib/apt/lists "$1/var/lib/apt/"']
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    for attempt in range(TRIES):
        try:
            run("mmdebstrap", *what, *([] if attempt else lists), release, own, *sources)
            break
        except AssertionError:  # a mirror has its moments
            if attempt + 1 == TRIES:
                raise
            time.sleep(20.0)
    return own.rename(archive)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels") / "wheels"
    version = run("/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    print(run(CONTAINERS / "download-dependencies.sh", folder, PYTHON_VERSION=version, ARCH=platform.machine()))
    return folder


@pytest.fixture(scope="module")
def image(engine: Path, wheels: Path) -> str:
    began = time.monotonic()
    run(engine, "import", "--quiet", made_base(), BASE)
    based = time.monotonic()
    said = run(
        CONTAINERS / "build-images.sh", BASE=BASE, WHEELS=str(wheels), ENGINE=str(engine), BUILD_FLAGS="--layers=false"
    )
    print(f"base {based - began:.0f} s, image {time.monotonic() - based:.0f} s")
    return said.split()[-1]


def test_the_image_is_small_has_no_pip_and_says_what_it_is(engine: Path, image: str) -> None:
    sizes = [int(run(engine, "image", "inspect", "--format", "{{.Size}}", each)) for each in (image, BASE)]
    over = (sizes[0] - sizes[1]) / 1e6
    print(f"{over:.0f} MB over its base")
    assert 0 < over <= MOST_MB
    (told,) = yaml.safe_load(run(engine, "image", "inspect", image))
    config = told["Config"]
    assert config["User"] == "65532:0"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Entrypoint"] == ["/opt/ovnwatch/bin/ovnwatch"]
    assert re.fullmatch(r"[0-9a-f]{40}", config["Labels"]["org.opencontainers.image.revision"])
    asked = (
        "import importlib.metadata as m, kubernetes.client, kubernetes.config\n"
        "print(sorted(each.name for each in m.distributions()))"
    )
    listed = run(engine, "run", "--rm", *LOCKED, "--entrypoint", "/opt/ovnwatch/bin/python", image, "-c", asked)
    assert "'aiohttp'" in listed
    assert "'pip'" not in listed


class Container:
    """A running exporter; what is in `folder` is /etc/ovnwatch, its journal is kept in `state`."""

    def __init__(self, engine: Path, image: str, folder: Path, name: str, *argv: str) -> None:
        self.engine, self.name = engine, name
        self.state = folder / f"{name}.state"
        self.state.mkdir()
        self.state.chmod(0o777)  # as an emptyDir
        mounts = ["-v", f"{folder}:/etc/ovnwatch:ro", "-v", f"{self.state}:/var/lib/ovnwatch"]
        listen = ["--web.listen-address=127.0.0.1:0", "--web.config.file=/etc/ovnwatch/web.yml"]
        run(engine, "run", "--detach", "--name", name, *LOCKED, *mounts, image, *argv, *listen)

    def said(self) -> str:
        ran = subprocess.run([self.engine, "logs", self.name], check=False, capture_output=True, text=True)
        return ran.stdout + ran.stderr

    def port(self, server: str = "web") -> int:
        found = re.findall(rf'msg="{server} is served on port (\d+)"', self.said())
        return int(found[0]) if found else 0

    def end(self) -> tuple[int, float]:
        """Its exit code after SIGTERM, and how many seconds it took."""
        began = time.monotonic()
        run(self.engine, "kill", "--signal", "TERM", self.name)
        code = int(run(self.engine, "wait", self.name))
        return code, time.monotonic() - began


def journal_of(container: Container) -> str:
    (journal,) = container.state.glob("*.db")
    return run(ROOT / ".venv/bin/ovnwatch", "history", "verify", "--journal", journal)


def test_exporters_run_as_anybody_read_only_are_scraped_over_tls_and_end_soon(
    engine: Path, image: str, tmp_path: Path
) -> None:
    folder = make_certificates(tmp_path).folder
    folder.chmod(0o755)
    (folder / "key").chmod(0o644)
    tls = {"cert_file": "good.pem", "key_file": "key", "client_ca_file": "ca.pem"}
    mutual = {**tls, "client_auth_type": "RequireAndVerifyClientCert", "client_allowed_sans": ["localhost"]}
    (folder / "web.yml").write_text(yaml.safe_dump({"tls_server_config": mutual}))
    off = [f"--listen.{each}=127.0.0.1:0" for each in ("http", "tcp", "ws")]
    probed = Container(engine, image, folder, "probed", "peer", "--source=probed", "--peers=nobody", *off)
    wait_for(probed.port)
    target = {
        "name": "probed", "host": "127.0.0.1", "ports": {each: probed.port(each) for each in ("http", "tcp", "ws")}
    }  # fmt: skip
    (folder / "targets.yaml").write_text(yaml.safe_dump({"targets": [target]}))
    probing = ["--config.file=/etc/ovnwatch/targets.yaml", "--source=here", *off]
    running = {
        "peer": Container(engine, image, folder, "peer", "peer", *probing),
        "bastion": Container(engine, image, folder, "bastion", "bastion", *probing),
        "node": Container(engine, image, folder, "node", "node", "--source=here"),
    }
    wait_for(lambda: all(each.port() for each in running.values()))
    files = {
        f"{name}_file": str(folder / path) for name, path in (("ca", "ca.pem"), ("cert", "good.pem"), ("key", "key"))
    }
    jobs = {
        name: {
            "scheme": "https", "tls_config": files, "static_configs": [{"targets": [f"127.0.0.1:{each.port()}"]}]
        } for name, each in running.items()
    }  # fmt: skip
    with scraping(tmp_path, jobs) as query:
        wait_for(lambda: len(query("up == 1")) == len(jobs), 60)
        wait_for(lambda: len(query("ovnwatch_stream_up == 1")) == 6, 60)
        assert [each["value"][1] for each in query('ovnwatch_node_collector_success{collector="links"}')] == ["1"]
        revisions = {each["metric"]["revision"] for each in query("ovnwatch_build_info")}
        assert {len(each) for each in revisions} == {40}
        assert probed.end()[0] == 0
        wait_for(lambda: len(query("ovnwatch_outage_open == 1")) == 6, 60)
    for name, each in running.items():
        code, seconds = each.end()
        print(f"{name} ended in {seconds:.1f} s")
        assert code == 0, each.said()
        assert seconds < STOP_SECONDS
    for name in ("peer", "bastion"):
        said = journal_of(running[name])
        assert said.startswith("PASS")
        assert ": 0 entries" not in said, "the outages are in it"


def test_the_quadlets_health_check_tells_a_bastion_that_hangs(engine: Path, image: str, tmp_path: Path) -> None:
    unit = (CONTAINERS / "systemd/ovnwatch-bastion.container").read_text()
    (check,) = re.findall(r"^HealthCmd=(.*)$", unit, re.MULTILINE)
    (exec_,) = re.findall(r"^Exec=(.*)$", unit, re.MULTILINE)
    for name, text in (("bastion.env", "ROUTE_PEERS=127.0.0.1\n"), ("token", "t\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o640)  # for group 0, as the unit's first lines say
    tmp_path.chmod(0o755)
    health = ["--health-cmd", check, "--health-interval", "disable"]  # its timer would be systemd's
    mounts = ["-v", f"{tmp_path}:/etc/ovnwatch:ro", "-v", "health:/var/lib/ovnwatch"]
    run(engine, "run", "--detach", "--name", "health", *LOCKED[:-1], "none", *health, *mounts, image, *exec_.split())

    def healthy() -> bool:
        return (
            subprocess.run([engine, "healthcheck", "run", "health"], check=False, capture_output=True).returncode == 0
        )

    wait_for(healthy, every=1.0)
    run(engine, "kill", "--signal", "STOP", "health")
    assert not healthy()
    run(engine, "kill", "--signal", "CONT", "health")
    wait_for(healthy, every=1.0)
    run(engine, "kill", "--signal", "TERM", "health")
    assert int(run(engine, "wait", "health")) == 0


@pytest.fixture(scope="module")
def bundle(
    engine: Path, image: str, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A bundle, and the sum that was printed for it."""
    folder = tmp_path_factory.mktemp("carried") / "bundle"
    said = run(CONTAINERS / "bundle.sh", folder, WHEELS=str(wheels), ENGINE=str(engine))
    print(said, image)
    yield folder, said.split()[-1]
    shutil.rmtree(folder)


@pytest.fixture
def air() -> Iterator[list[str]]:
    """What runs a command where there is no route to anywhere."""
    run("ip", "netns", "add", AIR)
    yield ["ip", "netns", "exec", AIR]
    run("ip", "netns", "delete", AIR)


def test_the_bundle_is_installed_where_there_is_no_way_out(
    bundle: tuple[Path, str], air: list[str], image: str, tmp_path: Path
) -> None:
    folder, noted = bundle
    assert run(*air, "ip", "route") == ""
    assert "whole" in run(*air, folder / "containers/verify-bundle.sh", folder, noted)
    environment = tmp_path / "installed"
    run(*air, "/usr/bin/python3", "-m", "venv", environment)
    install = [environment / "bin/pip", "install", "--quiet", "--no-index", "--find-links", folder / "wheels"]
    run(*air, *install, "--require-hashes", "--requirement", folder / "wheels/requirements.lock")
    run(*air, *install, "--no-deps", "ovnwatch")
    run(*air, environment / "bin/pip", "check")
    told = run(*air, environment / "bin/ovnwatch", "peer", "--config.check", "--peers=a,b", "--source=c")
    assert told == "configuration ok: 6 streams\n"
    other = own_engine()
    try:
        (archive,) = (folder / "images").iterdir()
        run(*air, other, "load", "--quiet", "--input", archive)
        run(other, "run", "--rm", *LOCKED[:-1], "none", image, "peer", "--config.check", "--peers=a,b", "--source=c")
    finally:
        shutil.rmtree(other.parent)


def test_a_bundle_that_is_not_whole_is_found_out(bundle: tuple[Path, str], tmp_path: Path) -> None:
    whole, noted = bundle
    rules = Path("alerts/rules/connectivity.yaml")
    # Without the image, which is large.
    sums = (whole / "SHA256SUMS").read_text()
    light = "".join(line for line in sums.splitlines(keepends=True) if "./images/" not in line)

    def harmed(name: str, text: str | None, noted: str, sums: str = light) -> tuple[int, str]:
        folder = tmp_path / "copy"
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("images"))
        (folder / "SHA256SUMS").write_text(sums)
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)
        command = [str(folder / "containers/verify-bundle.sh"), str(folder), *([noted] if noted else [])]
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        shutil.rmtree(folder)
        return ran.returncode, ran.stdout + ran.stderr

    untouched = (whole / rules).read_text()
    assert "whole" in harmed(str(rules), untouched, "")[1]
    for name, text in ((str(rules), ""), ("wheels/ovnwatch-99-py3-none-any.whl", ""), (str(rules), None)):
        code, said = harmed(name, text, "")
        assert (code, "whole" in said) == (1, False)
        assert name in said
    code, said = harmed(str(rules), untouched, noted)  # all sums are right, and not the ones noted down
    assert (code, "noted down" in said) == (1, True)
