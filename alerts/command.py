"""`ovnwatch rules render|check`: writes the catalogue's rules for Prometheus and its relatives; says what is wrong."""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Never

from alerts import rules
from alerts.forms import FORMS, Wanted
from alerts.lint import faults
from exporters import earlier
from exporters.catalog import Catalog, load
from exporters.strictyaml import BadInput, Problem

RENDER, CHECK = "render", "check"
PASSED, FAILED, UNKNOWN = 0, 2, 1
PROMTOOL_SECONDS = 60.0
# What Kubernetes takes.
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
LABEL_NAME = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def main(argv: Sequence[str] | None = None) -> int:
    """Rendered or in order: 0; 2: something is not in order (check); 1: the catalogue or a file cannot be used."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in (RENDER, CHECK, "-h", "--help"):
        given.insert(0, RENDER)
    args = _parser().parse_args(given)
    try:
        catalog, notes = _read(args.metrics)
        return render(args, catalog, notes) if args.command == RENDER else check(args, catalog, notes)
    except (BadInput, OSError, subprocess.TimeoutExpired) as error:
        print(f"ovnwatch rules: {error}", file=sys.stderr)
        return UNKNOWN


def render(args: argparse.Namespace, catalog: Catalog, notes: Sequence[str]) -> int:
    """Write the files of one form."""
    for note in notes:
        print(f"ovnwatch rules: {note}", file=sys.stderr)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, document in FORMS[args.form](catalog, _wanted(args)).items():
        (args.output_dir / name).write_text(rules.render(document), encoding="utf-8")
    return PASSED


def check(args: argparse.Namespace, catalog: Catalog, notes: Sequence[str]) -> int:
    """Say what is wrong with the catalogue's rules, or differs from them in a folder."""
    documents = FORMS[args.form](catalog, _wanted(args))
    files = rules.rule_files(catalog)
    tool = shutil.which("promtool")
    wrong = [*notes, *faults(files, catalog), *(_misread(tool, files) if tool else ())]
    wrong += [] if catalog.thresholds else ["there is no alert in it"]
    if args.rules_dir is not None:
        wrong += _differing({name: rules.render(each) for name, each in documents.items()}, args.rules_dir)
    for each in wrong:
        print(each)
    if not wrong:
        parsed = "" if tool else "; promtool is not here, which would parse their queries"
        print(f"{len(catalog.thresholds)} alerts and {len(catalog.recorded)} recorded series are in order{parsed}")
    return FAILED if wrong else PASSED


def _read(path: Path | None) -> tuple[Catalog, list[str]]:
    """The catalogue, or that of a file of the earlier analysis; and what in it is not as its author thought."""
    if path is not None and earlier.is_earlier(text := _text(path)):
        return earlier.read(text, path.name, load())
    return load(path), []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput([Problem(str(path), "is no text in UTF-8")]) from error


def _misread(tool: str, files: Mapping[str, dict[str, Any]]) -> list[str]:
    """What Prometheus itself cannot read of the rules, in its own words."""
    if not files:
        return []  # of no file promtool reads what is typed
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in files]
        for path in paths:
            path.write_text(rules.render(files[path.name]), encoding="utf-8")
        run = [tool, "check", "rules", *map(str, paths)]
        done = subprocess.run(
            run, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROMTOOL_SECONDS, check=False
        )
        said = [each.strip().removeprefix(f"{folder}/") for each in (done.stdout + done.stderr).splitlines()]
    found = [each for each in said if each.startswith(tuple(files))]
    return found or [f"promtool: {' '.join(said)}"] if done.returncode else []


def _differing(wanted: dict[str, str], folder: Path) -> list[str]:
    rendered = {name: text.encode() for name, text in wanted.items()}
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".yaml"}
    names = sorted(rendered.keys() | found.keys())
    return [f"{folder / name} is not what would be rendered" for name in names if rendered.get(name) != found.get(name)]


def _wanted(args: argparse.Namespace) -> Wanted:
    return Wanted(args.scale_for, args.runbook_base, args.namespace, dict(args.label))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        self.print_usage(sys.stderr)
        self.exit(UNKNOWN, f"{self.prog}: {message}\n")  # 2 is a verdict


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ovnwatch rules", description="Prometheus rules of metrics.yaml; `render` if nothing is said."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    writes = commands.add_parser(RENDER, help="write them")
    writes.add_argument("--output-dir", type=Path, default=Path("alerts/rules"), help="default: %(default)s")
    checks = commands.add_parser(CHECK, help="say what is wrong with them: 0 nothing, 2 something, 1 not found out")
    checks.add_argument("--rules-dir", type=Path, help="folder of files that should be what would be rendered")
    for each in (writes, checks):
        each.add_argument("--form", choices=FORMS, default="plain", help="default: %(default)s")
        each.add_argument(
            "--metrics", type=Path, metavar="FILE", help="another metrics.yaml, the earlier dialect's too"
        )
        each.add_argument("--scale-for", type=_factor, default=1.0, metavar="FACTOR", help="multiply every `for` by it")
        each.add_argument("--runbook-base", default=rules.RUNBOOK_BASE, metavar="URL", help="default: %(default)s")
        each.add_argument(
            "--namespace", type=_namespace, default=Wanted().namespace, help="of objects; default: %(default)s"
        )
        each.add_argument(
            "--label", type=_label, action="append", default=[], metavar="NAME=VALUE", help="of objects, for selectors"
        )
    return parser


def _factor(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor between 0 and 1000")
    return float(text)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not LABEL_NAME.fullmatch(name) or not LABEL_VALUE.fullmatch(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE as Kubernetes takes it")
    return name, value


def _namespace(text: str) -> str:
    if not NAMESPACE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a namespace")
    return text


if __name__ == "__main__":
    sys.exit(main())
