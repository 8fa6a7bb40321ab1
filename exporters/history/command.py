"""`ovnwatch history`: an exporter's or a journal's events shown, exported or verified."""

import argparse
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from exporters import options, reach, times
from exporters.ends import Parser
from exporters.history.checks import Checker
from exporters.history.items import Read, RefusedError, Wanted, read
from exporters.history.shown import FORMS, line
from exporters.history.source import File, Remote, SourceError, TornError, base_url
from exporters.plain import plain
from exporters.strictyaml import BadInput

MOST_TOLD = 20  # problems that verify tells; the rest are counted
FILTERS = ("kind", "path", "target", "state")


class Problems:
    """What verify finds: the first MOST_TOLD in words, all in number."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[str] = []

    def add(self, found: Iterable[str]) -> None:
        for each in found:
            self.count += 1
            if len(self.told) < MOST_TOLD:
                self.told.append(each)


def main(argv: Sequence[str]) -> int:
    """0: done, or it passed; 2: verify found something wrong; 1: anything else."""
    args = _parser().parse_args(argv)
    try:
        with _source(args) as source:
            return int(args.work(args, source))
    except (SourceError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has gone, and shall not hear of the rest
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            print(f"ovnwatch history: {plain(str(error))}", file=sys.stderr)
    except BadInput as bad:
        print(bad, file=sys.stderr)
    except KeyboardInterrupt:
        pass
    return 1


def _source(args: argparse.Namespace) -> AbstractContextManager[Remote | File]:
    if args.journal:
        return File(args.journal)
    one_each = {name: next(iter(words)) for name in FILTERS if len(words := getattr(args, name, ())) == 1}
    return Remote(args.url, one_each, reach.reach(args))


def _show(args: argparse.Namespace, source: Remote | File) -> int:
    newest = deque(_chosen(args, source), args.limit)
    sys.stdout.writelines(FORMS[args.output](newest, time.time()))
    sys.stdout.flush()
    return 0


def _export(args: argparse.Namespace, source: Remote | File) -> int:
    with _written(args.file) as out:
        out.writelines(FORMS[args.output](_chosen(args, source), time.time()))
    return 0


def _verify(args: argparse.Namespace, source: Remote | File) -> int:
    checker, problems, run = Checker(), Problems(), 0
    if isinstance(source, File):
        about = source.about()
        run = about.run
        problems.add(about.wrong)
    try:
        _check(source, checker, problems)
    except TornError as error:
        problems.add([str(error)])
    except SourceError as error:
        if not isinstance(source, File):
            raise
        problems.add([str(error)])  # it is a journal, and cannot be read to its end
    problems.add(checker.end(run))
    passed = not problems.count
    if args.output == "json":
        said = {"verdict": "pass" if passed else "fail", "source": source.name, "entries": checker.entries}
        print(line({**said, "problems": problems.told, "problems_found": problems.count}))
    else:
        for each in problems.told:
            print(plain(each))
        more = f" ({MOST_TOLD} shown)" if problems.count > MOST_TOLD else ""
        found = "nothing wrong" if passed else f"{problems.count} wrong{more}"
        print(f"{'PASS' if passed else 'FAIL'}: {plain(source.name)}: {checker.entries} entries, {found}")
    sys.stdout.flush()
    return 0 if passed else 2


def _check(source: Remote | File, checker: Checker, problems: Problems) -> None:
    for entry in source.entries():
        try:
            item = read(entry.told).item
        except RefusedError as error:
            checker.entries += 1
            problems.add([f"seq {entry.seq}: {error}"])
            continue
        row = entry.row
        columns = row and {name: getattr(row, name) for name in ("seq", "id", "kind", "state", "stream", *FILTERS[1:3])}
        problems.add(checker.add(item, columns))


def _chosen(args: argparse.Namespace, source: Remote | File) -> Iterator[Read]:
    """What the filters let through, the oldest change first. Raises SourceError."""
    words = {name: frozenset(getattr(args, name)) for name in FILTERS}
    wanted = Wanted(**words, since=args.since, until=args.until)
    for entry in source.entries():
        try:
            found = read(entry.told)
            if wanted.fits(found.item):
                yield found
        except (RefusedError, ValueError, OverflowError) as error:
            raise SourceError(f"{source.name}: seq {entry.seq}: {error}; `history verify` tells all") from None


@contextmanager
def _written(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is there whole or not at all."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as out:
            yield out
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ovnwatch history", description="Show, export or verify what an exporter has recorded.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, work, says, forms in (
        ("show", _show, "the newest entries, the last change last", tuple(FORMS)),
        ("export", _export, "everything, to standard output or a file", ("csv", "json", "ndjson")),
        ("verify", _verify, "is it in itself right? 0: pass, 2: fail, 1: it could not be found out", ("text", "json")),
    ):
        sub = commands.add_parser(name, help=says, description=says, allow_abbrev=False)
        sub.set_defaults(work=work)
        where = sub.add_mutually_exclusive_group(required=True)
        where.add_argument("--url", type=_url, help="of an exporter that serves /history, as http://node-1:8082")
        where.add_argument("--journal", type=Path, metavar="FILE", help="a journal; its exporter may be running")
        reach.add_flags(sub)
        sub.add_argument("--output", choices=forms, default=forms[0], help="default: %(default)s")
        if work is not _verify:
            _add_filters(sub)
        if work is _show:
            sub.add_argument("--limit", type=_count, default=200, metavar="N", help="only the newest N (default 200)")
        if work is _export:
            sub.add_argument("--file", type=Path, help="written when all is read, or not at all")
    return parser


def _add_filters(sub: argparse.ArgumentParser) -> None:
    for name, example in zip(FILTERS, ("outage,blip", "pod,service", "node-2", "open,truncated"), strict=True):
        sub.add_argument(f"--{name}", type=_words, default=(), metavar="WORDS", help=f"only these, as {example}")
    for name, says in (("since", "at or after"), ("until", "at or before")):
        sub.add_argument(
            f"--{name}", type=_time, metavar="TIME", help=f"only what was {says} it, as 2026-01-02T03:04:05Z"
        )


def _url(text: str) -> str:
    try:
        return base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _words(text: str) -> tuple[str, ...]:
    words = tuple(each.strip() for each in text.split(","))
    if not all(words):
        raise argparse.ArgumentTypeError(f"want words with commas between them: {text!r}")
    return words


def _time(text: str) -> float:
    try:
        return times.seconds(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"want a time with an offset, as 2026-01-02T03:04:05Z: {text!r}") from None


def _count(text: str) -> int:
    try:
        return options.count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
