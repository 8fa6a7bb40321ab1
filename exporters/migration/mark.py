"""`ovnwatch migration mark PHASE [--node NODE]`: tells a migration exporter which phase begins, or that it ends."""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from exporters.ends import Parser

SECONDS = 10.0
MOST_BYTES = 64 * 1024


def main(argv: Sequence[str]) -> int:
    """0: marked; 1: anything else."""
    args = _parser().parse_args(argv)
    try:
        token = (
            args.token_file.read_text(encoding="utf-8").strip() if args.token_file else os.environ.get("OVNWATCH_TOKEN")
        )
        if not token:
            raise ValueError("no token: --web.token-file or OVNWATCH_TOKEN")  # noqa: TRY301 - told as the others are
        _post(args.url, token, {"phase": args.phase, "node": args.node, "rolls": args.rolls})
    except urllib.error.HTTPError as error:
        print(f"ovnwatch migration mark: {args.url}: {error.code}: {_plain(error.read(MOST_BYTES))}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"ovnwatch migration mark: {args.url}: {error}", file=sys.stderr)
        return 1
    print(f"{args.phase} of {args.node or 'the cluster'}")
    return 0


def _post(url: str, token: str, body: dict[str, object]) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    where = f"{url.rstrip('/')}/api/phases"
    request = urllib.request.Request(where, json.dumps(body).encode(), headers, method="POST")  # noqa: S310 - checked
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=SECONDS) as answer:
        answer.read(MOST_BYTES)


def _plain(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return "".join(each if each.isprintable() else "?" for each in text)[:300]


def _parser() -> argparse.ArgumentParser:
    says = "Tell a migration exporter which phase begins now; `none` ends the one there is."
    parser = Parser(prog="ovnwatch migration mark", description=says, allow_abbrev=False)
    parser.add_argument("phase", metavar="PHASE", help="its name, as reboot; none: no phase any more")
    parser.add_argument("--node", default="", help="whose turn it is; * for all nodes; the cluster's if not given")
    parser.add_argument("--rolls", action="store_true", help="it goes from node to node without their names being told")
    parser.add_argument("--url", type=_url, default="http://127.0.0.1:9482", help="default: %(default)s")
    parser.add_argument("--web.token-file", dest="token_file", type=Path, metavar="FILE", help="else OVNWATCH_TOKEN")
    return parser


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"want http://HOST:PORT or https://HOST:PORT, not {text!r}")
    return text
