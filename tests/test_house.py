"""What the project says of itself, checked against what it is."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from exporters import catalog, options, targets
from exporters.bastion import settings as bastion
from exporters.bastion.page import KINDS
from exporters.migration.kinds import KINDS as MIGRATIONS
from exporters.migration.members import KIND as MICROOVN
from exporters.migration.names import NODE
from exporters.migration.resources import rules
from exporters.migration.settings import WATCHED
from exporters.node.collectors import COLLECTORS
from exporters.node.settings import OWN
from exporters.peer.settings import OPTIONS, load_peer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MODULES = [path for package in ("exporters", "alerts", "lab") for path in sorted((ROOT / package).rglob("*.py"))]


def test_the_readmes_table_of_options_is_the_table_of_options() -> None:
    assert options.markdown(OPTIONS) in README


def test_the_readmes_table_of_what_is_a_bastions_own_is_right() -> None:
    shared = {option[2:] for option in OPTIONS}  # all but the name and the function that reads it
    assert options.markdown([option for option in bastion.OPTIONS if option[2:] not in shared]) in README


def test_the_readmes_tables_of_the_node_exporter_are_right() -> None:
    assert options.markdown(OWN) in README
    assert all(f"| `{name}` | {collector.line} |" in README for name, collector in COLLECTORS.items())


def test_the_readmes_tables_of_the_migration_exporter_are_right() -> None:
    assert options.markdown(WATCHED) in README
    assert all(f"| `{kind}` |" in README for kind in (*MIGRATIONS, NODE, MICROOVN))
    names: dict[tuple[str, str], list[str]] = {}
    for group, plural, only in rules():
        names.setdefault((group, plural), []).extend([f"`{only}`"] if only else [])
    for (group, plural), wanted in names.items():
        assert f"| {f'`{group}`' if group else 'core'} | `{plural}` | {', '.join(wanted)} |" in README


def test_the_readmes_variables_of_a_bastion_are_good(tmp_path: Path) -> None:
    found = re.findall(r"^    ((?:#|export ).*\n)", README, re.MULTILINE)
    (tmp_path / "config.env").write_text("".join(found))
    streams = bastion.load_bastion([f"--env-file={tmp_path / 'config.env'}", "--source=b"], {}).streams
    assert [each.target for each in streams if each.protocol == "http"] == [
        "peer-1", "peer-2", "peer-1", "peer-2"
    ]  # fmt: skip


def example() -> str:
    found = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_readmes_example_is_a_good_configuration(tmp_path: Path) -> None:
    (tmp_path / "peer.yaml").write_text(example())
    streams = load_peer([f"--config.file={tmp_path / 'peer.yaml'}", "--source=node-1"], {}).streams
    assert {(stream.target, stream.path) for stream in streams} == {
        ("node-2", "service"),
        ("node-3", "service"),
        ("shop", "route"),
    }


def test_the_readmes_example_shows_every_key_of_a_target() -> None:
    shown = set(re.findall(r"^  ?[ -] (\w+):", example(), re.MULTILINE))
    assert shown == set(targets.Target.model_fields)
    assert all(key in example() for key in targets.TlsFiles.model_fields)


def test_the_readme_names_every_path() -> None:
    assert all(f"`{path}`" in README for path in targets.PATHS)


@pytest.mark.parametrize("page", ["README.md", "exporters/README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_metrics_that_pages_name_are_in_the_catalogue(page: str) -> None:
    named = set(re.findall(r"\bovnwatch_\w+", (ROOT / page).read_text()))
    assert named <= set(catalog.load().metrics)


def test_the_map_names_every_module() -> None:
    page = (ROOT / "exporters/README.md").read_text()
    below = [path.relative_to(ROOT / "exporters") for path in MODULES if path.is_relative_to(ROOT / "exporters")]
    wanted = {path.name for path in below if path.parent in (Path(), Path("probing"))} - {"__init__.py"}
    wanted |= {f"{path.parts[0]}/" for path in below if path.parent != Path()}
    assert {name for name in wanted if name not in page} == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_its_job(module: Path) -> None:
    text = module.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_the_wheel_carries_the_catalogue_and_the_console_script(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("ovnwatch-*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        assert wheel.read("exporters/metrics.yaml") == (ROOT / "metrics.yaml").read_bytes()
        (scripts,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
        assert "ovnwatch = exporters.cli:main" in wheel.read(scripts).decode()
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]
    assert any(name.endswith("LICENSE") for name in names)
    assert {str(module.relative_to(ROOT)) for module in MODULES} <= set(names)
    assert {f"exporters/bastion/page/{asset}" for asset in KINDS} <= set(names)


@pytest.mark.parametrize("lock", ["runtime.lock", "kubernetes.lock", "dev.lock"])
def test_locks_carry_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    wanted = re.split(r"\n(?=[a-z])", text.strip())
    assert all(re.match(r"[\w.-]+==\S+", each) and "--hash=sha256:" in each for each in wanted)


def test_what_runs_is_locked_the_same_for_tests() -> None:
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^[\w.-]+==\S+", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))

    assert pins("runtime.lock") <= pins("kubernetes.lock") <= pins("dev.lock")


def test_make_alone_says_what_there_is() -> None:
    ran = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True)
    told = [line.split()[1] for line in ran.stdout.splitlines()]
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert told == [target for target in phony[1].split() if target != "packages"]


def test_ci_runs_what_a_desk_runs() -> None:
    run = ROOT / ".ci/run"
    assert os.access(run, os.X_OK)
    assert {"make check", "make test"} <= set(run.read_text().splitlines())


def test_the_set_up_is_plain_shell() -> None:
    subprocess.run(["sh", "-n", str(ROOT / "lab/setup.sh")], check=True)
