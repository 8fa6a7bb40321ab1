"""`ovnwatch report`: what a window cost and why, held against a budget."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alerts.report import limits
from alerts.report.build import NoWindowError, Window, from_baseline, named, report
from alerts.report.forms import FORMS
from alerts.report.read import Told, told
from exporters import reach, times
from exporters.ends import Parser
from exporters.history.source import File, Remote, SourceError, base_url
from exporters.plain import plain
from exporters.strictyaml import BadInput
from exporters.verdict.budget import Limits
from exporters.verdict.coverage import Span

CODES = {"pass": 0, "fail": 2, "inconclusive": 2}


def main(argv: Sequence[str]) -> int:
    """0: pass; 2: fail or inconclusive; 1: it could not be found out."""
    args = _checked(_parser(), argv)
    try:
        said = [*_read(args)]
        window = _window(args, said)
        found = report(said, window, _limits(args, said, window))
    except (SourceError, NoWindowError, OSError) as error:
        print(f"ovnwatch report: {plain(str(error))}", file=sys.stderr)
        return 1
    except BadInput as bad:
        print(bad, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    try:
        for form, path in ((form, getattr(args, form)) for form in ("html", "junit")):
            if path is not None:
                path.write_text(FORMS[form](found), encoding="utf-8")
    except OSError as error:
        print(f"ovnwatch report: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(FORMS[args.output](found))
    sys.stdout.flush()
    return CODES[found["verdict"]]


def _read(args: argparse.Namespace) -> Sequence[Told]:
    said = []
    how = reach.reach(args) if args.url else None
    remotes = [Remote(url, {}, how) for url in args.url]
    sources: list[Remote | File] = [*remotes, *map(File, args.journal)]
    for source in sources:
        with source:
            said.append(told(source))
    return said


def _window(args: argparse.Namespace, said: Sequence[Told]) -> Window:
    if args.window is not None:
        return named(said, args.window)
    return Window(f"{times.iso(args.begin)[:19]}Z", Span(args.begin, args.end))


def _limits(args: argparse.Namespace, said: Sequence[Told], window: Window) -> Limits:
    """The file's; else those of an ordinary time; else the window's own budget. Raises BadInput, OSError."""
    if args.budget is not None:
        return limits.read(args.budget.read_text(encoding="utf-8"), str(args.budget))
    if args.baseline is not None:
        return from_baseline(said, window, named(said, args.baseline))
    return Limits(total=window.budget)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ovnwatch report",
        description="What a window cost, why, and whether that is within its budget. 0: pass, 2: fail or inconclusive, "
        "1: it could not be found out.",
        allow_abbrev=False,
    )
    parser.add_argument("--url", action="append", type=_url, default=[], help="of an exporter; may be given again")
    parser.add_argument("--journal", nargs="+", action="extend", type=Path, default=[], metavar="FILE", help="journals")
    reach.add_flags(parser)
    parser.add_argument("--window", metavar="NAME", help="the newest window of that name")
    parser.add_argument("--from", dest="begin", type=_time, metavar="TIME", help="instead, as 2026-01-02T03:04:05Z")
    parser.add_argument("--to", dest="end", type=_time, metavar="TIME", help="with --from")
    parser.add_argument(
        "--budget", type=Path, metavar="FILE", help="limits; else the window's own, nothing unexplained"
    )
    parser.add_argument("--baseline", metavar="NAME", help="instead: a window of an ordinary time")
    parser.add_argument("--output", choices=tuple(FORMS), default="text", help="default: %(default)s")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page there, too")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit's XML there, too")
    return parser


def _checked(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """What argparse cannot say of flags that belong together, all at once."""
    args = parser.parse_args(argv)
    wrong = []
    if not args.url and not args.journal:
        wrong.append("want --url or --journal")
    if (args.window is None) == (args.begin is None and args.end is None):
        wrong.append("want either --window, or --from and --to")
    elif args.window is None and (args.begin is None or args.end is None or args.end <= args.begin):
        wrong.append("want --from before --to")
    if args.budget is not None and args.baseline is not None:
        wrong.append("want one of --budget and --baseline")
    if wrong:
        parser.error("; ".join(wrong))
    return args


def _url(text: str) -> str:
    try:
        return base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _time(text: str) -> float:
    try:
        return times.seconds(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"want a time with an offset, as 2026-01-02T03:04:05Z: {text!r}") from None
