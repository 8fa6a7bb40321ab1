"""`ovnwatch preflight`: before a window: does every path answer, do clocks agree, do tokens, scrapes, alerts work?"""

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from alerts.preflight import ask, checks
from alerts.preflight.ask import ALERT, Alertmanager, AskError, Client
from alerts.preflight.checks import Check
from exporters import reach, targets
from exporters.ends import Parser
from exporters.history.shown import columns
from exporters.history.source import base_url
from exporters.plain import plain
from exporters.reach import Reach
from exporters.strictyaml import BadInput
from exporters.verdict.explain import SLACK

CHECKS = ("paths", "clocks", "tokens", "prometheus", "alerts")
CODES = {"pass": 0, "fail": 2, "unknown": 1}


class Tokens(NamedTuple):
    """Of who is no exporter; "" for none."""

    prometheus: str
    alertmanager: str


def main(argv: Sequence[str]) -> int:
    """0: all is ready; 2: something is not; 1: something could not be found out."""
    args = _checked(_parser(), argv)
    try:
        how = reach.reach(args)
        tokens = Tokens(*(reach.token(getattr(args, _secret(name)), f"--{name}.token-file") for name in Tokens._fields))
        found = asyncio.run(_all(args, how, tokens))
    except BadInput as bad:
        print(bad, file=sys.stderr)
        return 1
    except OSError as error:  # the webhook's port
        print(f"ovnwatch preflight: {plain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    verdict = checks.verdict(found)
    lines = [ask.document(found, verdict)] if args.output == "json" else [*_table(found), f"{verdict.upper()}\n"]
    sys.stdout.writelines(lines)
    sys.stdout.flush()
    return CODES[verdict]


async def _all(args: argparse.Namespace, how: Reach, tokens: Tokens) -> list[Check]:
    async with Client(how.tls) as client:
        exporters = await ask.exporters(client, args.url, how.token)
        found: list[Check] = []
        if "paths" not in args.skip:
            found += checks.paths(exporters)
        if "clocks" not in args.skip:
            found += checks.clocks(exporters, args.clock_limit)
        if "tokens" not in args.skip:
            found += checks.tokens(exporters, given=bool(how.token))
        if "prometheus" not in args.skip:
            series, wrong = [], ""
            try:
                series = await ask.scraped(client, args.prometheus, tokens.prometheus)
            except AskError as error:
                wrong = str(error)
            found += checks.scrapes(exporters, series, wrong)
        if "alerts" not in args.skip:
            alertmanager = Alertmanager(client, args.alertmanager, tokens.alertmanager)
            said = await ask.alerted(alertmanager, dict(args.alert_label), args.webhook, args.alert_timeout)
            found += checks.alerts(said, ALERT, args.alert_timeout)
        return found


def _secret(name: str) -> str:
    return f"{name}_token_file"


def _table(found: Sequence[Check]) -> Iterator[str]:
    rows = [(each.verdict.upper(), each.check, plain(each.about), plain(each.found)) for each in found]
    lines = [*columns([("VERDICT", "CHECK", "OF", "FOUND"), *rows])]
    yield lines[0]
    for line, each in zip(lines[1:], found, strict=True):
        yield line
        if each.do:
            yield f"         {plain(each.do)}\n"


def _parser() -> argparse.ArgumentParser:
    says = "Before a window: is everything ready? 0: pass, 2: fail, 1: something could not be found out."
    parser = Parser(prog="ovnwatch preflight", description=says, allow_abbrev=False)
    parser.add_argument(
        "--url", action="append", type=_url, default=[], help="of a bastion, peer or migration exporter"
    )
    parser.add_argument("--prometheus", type=_url, metavar="URL", help="does it scrape them?")
    parser.add_argument("--alertmanager", type=_url, metavar="URL", help="does a test alert arrive there?")
    parser.add_argument("--skip", action="append", choices=CHECKS, default=[], help="do not check that")
    reach.add_flags(parser)
    for each in Tokens._fields:
        parser.add_argument(f"--{each}.token-file", dest=_secret(each), metavar="FILE", help="its own")
    parser.add_argument(
        "--clock-limit", type=_seconds, default=SLACK, metavar="SECONDS", help="clocks may be apart [%(default)s]"
    )
    parser.add_argument(
        "--alert-label", action="append", type=_label, default=[("severity", "warning")], metavar="NAME=VALUE",
        help="of the test alert, by which routes choose [severity=warning]",
    )  # fmt: skip
    parser.add_argument(
        "--webhook.listen-address", dest="webhook", type=_address, metavar="ADDRESS",
        help="be a receiver there, to which Alertmanager is configured to send, and see the test alert come",
    )  # fmt: skip
    parser.add_argument(
        "--alert-timeout", type=_seconds, default=60.0, metavar="SECONDS", help="until the webhook is called [60]"
    )
    parser.add_argument("--output", choices=("table", "json"), default="table", help="[%(default)s]")
    return parser


def _checked(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    wrong = [] if args.url else ["want --url"]
    wrong += [
        f"want --{flag}, or --skip {check}"
        for flag, check in (("prometheus", "prometheus"), ("alertmanager", "alerts"))
        if getattr(args, flag) is None and check not in args.skip
    ]
    if wrong:
        parser.error("; ".join(wrong))
    return args


def _url(text: str) -> str:
    try:
        return base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address(text: str) -> tuple[str, int]:
    try:
        return targets.address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or not value:
        raise argparse.ArgumentTypeError(f"want NAME=VALUE: {text!r}")
    return name, value


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"want seconds: {text!r}")
    return float(text)
