"""`ovnwatch dashboards`: write the boards in the form a site takes, check them, or push them into a Grafana."""

import argparse
import json
import re
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Never

from grafana import checking, packing, pushing
from grafana.packing import Boards, Where
from grafana.remote import Remote, RemoteError

BOARDS = Path(__file__).parent / "dashboards"
LEAST_SECONDS, MOST_SECONDS = 1.0, 366 * 86400.0
LONGEST_TOKEN = 64 * 1024  # bytes


def main(argv: Sequence[str]) -> int:
    """0: done, or nothing wrong was found; 2: something was (check); 1: it could not be done or found out."""
    args = _parser().parse_args(argv)
    try:
        return int(args.work(args))
    except (OSError, ValueError, RemoteError) as error:
        print(f"ovnwatch dashboards: {error}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")  # 2 is a verdict


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ovnwatch dashboards", description="The dashboards, as files, objects or in a Grafana.")
    subs = parser.add_subparsers(required=True, metavar="render|check|push", parser_class=_Parser)
    common = _Parser(add_help=False)
    common.add_argument("--multi-cluster", action="store_true", help="show the variable that chooses clusters")
    asks = _Parser(add_help=False)
    asks.add_argument("--ca-file", type=Path, help="who signs the server's certificate, if not a known authority")
    sub = subs.add_parser("render", parents=[common], help="write them in the form that a site takes")
    sub.add_argument("--form", choices=packing.FORMS, default="json", help="[%(default)s]")
    sub.add_argument("--output-dir", type=Path, required=True, help="where the files are written")
    sub.add_argument("--namespace", type=_name, help="of the objects; none if not given")
    label = "KEY=VALUE by which the operator finds its Grafana [dashboards=grafana]"
    sub.add_argument("--instance-label", type=_label, default=Where().instance, metavar="LABEL", help=label)
    sub.set_defaults(work=_render)
    sub = subs.add_parser(
        "check", parents=[asks], help="is a board whole, and does a Prometheus answer all its queries?"
    )
    sub.add_argument("files", nargs="*", type=Path, metavar="FILE", help="boards; ours if none is given")
    sub.add_argument("--prometheus", type=_url, metavar="URL", help="ask it every query")
    sub.add_argument(
        "--range", type=_seconds, default=3600.0, metavar="SECONDS", help="that queries look at [%(default)g]"
    )
    sub.add_argument("--token-file", type=Path, help="with a token for Prometheus")
    sub.set_defaults(work=_check)
    sub = subs.add_parser("push", parents=[common, asks], help="into a folder of a Grafana; twice is as good as once")
    sub.add_argument("--url", type=_url, required=True, help="of Grafana, as https://grafana.example.com")
    sub.add_argument("--token-file", type=Path, required=True, help="with the token of a service account")
    sub.add_argument(
        "--folder", type=_name, default=packing.FOLDER, help="its uid; made if there is none [%(default)s]"
    )
    sub.set_defaults(work=_push)
    return parser


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise argparse.ArgumentTypeError(f"want http:// or https:// and a host, without a name or query: {text!r}")
    return text.rstrip("/")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:  # which nan is not, either
        raise argparse.ArgumentTypeError(f"want {LEAST_SECONDS:g} to {MOST_SECONDS:g} seconds: {text!r}")
    return seconds


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"want up to 40 small letters, digits and hyphens: {text!r}")
    return text


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and re.fullmatch(r"[\w./-]+", key) and re.fullmatch(r"[\w.-]+", value)):
        raise argparse.ArgumentTypeError(f"want KEY=VALUE: {text!r}")
    return key, value


def _read(path: Path) -> dict[str, Any]:
    try:
        return checking.board_of(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _ours(*, multi_cluster: bool = False) -> Boards:
    files = sorted(BOARDS.glob("*.json"))
    return {file.stem: packing.chosen(_read(file), multi_cluster=multi_cluster) for file in files}


# --- what is done


def _render(args: argparse.Namespace) -> int:
    where = Where(args.namespace or "", args.instance_label)
    for name, text in packing.FORMS[args.form](_ours(multi_cluster=args.multi_cluster), where).items():
        file = args.output_dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(file)
    return 0


def _check(args: argparse.Namespace) -> int:
    boards = {str(file): _read(file) for file in args.files} or dict(_ours())
    wrong = [f"{name}: {each}" for name, board in boards.items() for each in checking.problems(board)]
    print("".join(f"{each}\n" for each in wrong), end="")
    empty = (
        list(_unanswered(boards, _remote(args.prometheus, args), args.range)) if args.prometheus and not wrong else []
    )
    print("".join(f"{each}\n" for each in empty), end="")
    print(
        f"{len(boards)} boards, {len(wrong)} problems"
        + (f", {len(empty)} queries without data" * bool(args.prometheus))
    )
    return 2 if wrong or empty else 0


def _unanswered(boards: Boards, prometheus: Remote, seconds: float) -> Iterator[str]:
    for name, board in boards.items():
        yield from (f"{name}: {each} finds nothing" for each in checking.unanswered(board, prometheus, seconds))


def _push(args: argparse.Namespace) -> int:
    grafana = _remote(args.url, args)
    pushing.make_folder(grafana, args.folder, args.folder)
    for name, board in _ours(multi_cluster=args.multi_cluster).items():
        print(f"{name}: {'pushed' if pushing.push(grafana, board, args.folder) else 'is there'}")
    return 0


def _remote(url: str, args: argparse.Namespace) -> Remote:
    try:
        context = ssl.create_default_context(cafile=args.ca_file) if args.ca_file else None
    except ssl.SSLError as error:
        raise ValueError(f"{args.ca_file} holds no certificate: {error}") from None
    return Remote(url, _token(args.token_file) if args.token_file else "", context)


def _token(path: Path) -> str:
    with path.open("rb") as file:
        token = file.read(LONGEST_TOKEN).strip()
    text = token.decode("ascii", errors="replace")
    if not re.fullmatch(r"[!-~]+", text) or len(token) == LONGEST_TOKEN:
        raise ValueError(f"{path} holds no token")
    return text
