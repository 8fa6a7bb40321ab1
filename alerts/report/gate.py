"""`ovnwatch gate`: asks a bastion until the next node may go, or must not."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from exporters import reach
from exporters.ends import Parser
from exporters.history.source import Remote, SourceError, base_url
from exporters.plain import plain
from exporters.strictyaml import BadInput

EVERY = 1.0  # seconds between two questions
ANSWER_SECONDS = 10.0
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
MOST = 86400.0
Line = Annotated[str, Meta(max_length=4096)]


class _Answer(msgspec.Struct):
    verdict: Literal["go", "wait", "stop"]
    reasons: Annotated[list[Line], Meta(max_length=50)]


_read = msgspec.json.Decoder(_Answer).decode


def main(argv: Sequence[str]) -> int:
    """0: go; 2: stop, or still wait at the timeout; 1: the bastion could not be asked until then."""
    args = _parser().parse_args(argv)
    try:
        how = reach.reach(args)
    except BadInput as bad:
        print(bad, file=sys.stderr)
        return 1
    query = {"quiet": f"{args.quiet:g}", "budget_left": f"{args.budget_left:g}"}
    until, told = time.monotonic() + args.timeout, ""
    with Remote(args.url, {}, how, seconds=ANSWER_SECONDS) as bastion:
        while True:
            try:
                answer = _read(bastion.answer("/gate", query))
                line, code = f"{answer.verdict.upper()}: {'; '.join(answer.reasons)}", 2
                if answer.verdict != "wait":
                    print(plain(line), flush=True)
                    return 0 if answer.verdict == "go" else 2
            except (SourceError, msgspec.DecodeError) as error:
                line, code = f"not known: {error}", 1
            except KeyboardInterrupt:
                return 1
            if line.split(";")[0] != told:
                told = line.split(";")[0]
                print(plain(line), file=sys.stderr, flush=True)
            if time.monotonic() >= until:
                print(plain(f"TIMEOUT: {line}"), flush=True)
                return code
            time.sleep(min(EVERY, max(0.0, until - time.monotonic())))


def _parser() -> argparse.ArgumentParser:
    says = "Wait until the next node may go. 0: go, 2: stop or timeout, 1: the bastion could not be asked."
    parser = Parser(prog="ovnwatch gate", description=says, allow_abbrev=False)
    parser.add_argument("--url", type=_url, required=True, help="of the bastion, as http://bastion:9091")
    parser.add_argument("--quiet", type=_length, default=60.0, metavar="TIME", help="without an outage; default 60s")
    parser.add_argument("--budget-left", type=_length, default=0.0, metavar="TIME", help="of the window; default 0")
    parser.add_argument("--timeout", type=_length, default=900.0, metavar="TIME", help="default 15m; 0 asks once")
    reach.add_flags(parser)
    return parser


def _url(text: str) -> str:
    try:
        return base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _length(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)", text, re.ASCII)
    seconds = float(found[1]) * UNITS[found[2]] if found else MOST + 1
    if seconds > MOST:
        raise argparse.ArgumentTypeError(f"want a time up to a day, as 60s, 15m or 0: {text!r}")
    return seconds
