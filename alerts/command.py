"""`ovnwatch rules render|check`: writes the catalogue's rules for Prometheus and its relatives; says what is wrong."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from alerts import rules
from alerts.forms import FORMS, Wanted
from alerts.lint import faults
from exporters import earlier
from exporters.catalog import Catalog, load
from exporters.strictyaml import BadInput

RENDER, CHECK = "render", "check"
PASSED, FAILED, UNKNOWN = 0, 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Rendered or in order: 0; 2: something is not in order (check); 1: the catalogue or a file cannot be used."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in (RENDER, CHECK, "-h", "--help"):
        given.insert(0, RENDER)
    args = _parser().parse_args(given)
    try:
        catalog, notes = _read(args.metrics)
        return render(args, catalog, notes) if args.command == RENDER else check(args, catalog, notes)
    except (BadInput, OSError) as error:
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
    wrong = [*notes, *faults(rules.rule_files(catalog), catalog)]
    if args.rules_dir is not None:
        wrong += _differing({name: rules.render(each) for name, each in documents.items()}, args.rules_dir)
    for each in wrong:
        print(each)
    if not wrong:
        print(f"{len(catalog.thresholds)} alerts and {len(catalog.recorded)} recorded series are in order")
    return FAILED if wrong else PASSED


def _read(path: Path | None) -> tuple[Catalog, list[str]]:
    """The catalogue, or that of a file of the earlier analysis; and what in it is not as its author thought."""
    if path is not None and earlier.is_earlier(path.read_text(encoding="utf-8")):
        return earlier.read(path.read_text(encoding="utf-8"), path.name, load())
    return load(path), []


def _differing(wanted: dict[str, str], folder: Path) -> list[str]:
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.yaml")}
    names = sorted(wanted.keys() | found.keys())
    return [f"{folder / name} is not what would be rendered" for name in names if wanted.get(name) != found.get(name)]


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
        each.add_argument("--namespace", default=Wanted().namespace, help="of objects; default: %(default)s")
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
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
