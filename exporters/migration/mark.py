"""`ovnwatch migration mark PHASE [--node NODE]`: tells a migration exporter which phase begins, or that it ends."""

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec

from exporters import reach
from exporters.ends import Parser
from exporters.plain import plain
from exporters.reach import Reach
from exporters.strictyaml import BadInput

SECONDS = 10.0
MOST_BYTES = 64 * 1024


def main(argv: Sequence[str]) -> int:
    """0: marked; 1: anything else."""
    args = _parser().parse_args(argv)
    try:
        how = reach.reach(args)
        if not how.token:
            raise ValueError("no token: --web.token-file or OVNWATCH_TOKEN")  # noqa: TRY301 - told as the others are
        _post(args.url, how, {"phase": args.phase, "node": args.node, "rolls": args.rolls})
    except BadInput as bad:
        print(bad, file=sys.stderr)
        return 1
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(MOST_BYTES).decode("utf-8", "replace").split())[:300]
        print(plain(f"ovnwatch migration mark: {args.url}: {error.code}: {said}"), file=sys.stderr)
        return 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        print(plain(f"ovnwatch migration mark: {args.url}: {said}"[:500]), file=sys.stderr)
        return 1
    print(plain(f"{args.phase} of {args.node or 'the cluster'}"))
    return 0


class _Straight(urllib.request.HTTPRedirectHandler):
    """The token goes where it was sent to, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _post(url: str, how: Reach, body: dict[str, object]) -> None:
    headers = {**how.headers, "Content-Type": "application/json"}
    where = f"{url.rstrip('/')}/api/phases"
    request = urllib.request.Request(where, json.dumps(body).encode(), headers, method="POST")  # noqa: S310 - checked
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=how.tls), _Straight
    )
    with direct.open(request, timeout=SECONDS) as answer:
        _read(answer.read(MOST_BYTES))  # raises ValueError where it is none of a migration exporter


class _Answer(msgspec.Struct):
    changed: Any


_read = msgspec.json.Decoder(_Answer).decode


def _parser() -> argparse.ArgumentParser:
    says = "Tell a migration exporter which phase begins now; `none` ends the one there is."
    parser = Parser(prog="ovnwatch migration mark", description=says, allow_abbrev=False)
    parser.add_argument("phase", metavar="PHASE", help="its name, as reboot; none: no phase any more")
    parser.add_argument("--node", default="", help="whose turn it is; * for all nodes; the cluster's if not given")
    parser.add_argument("--rolls", action="store_true", help="it goes from node to node without their names being told")
    parser.add_argument("--url", type=_url, default="http://127.0.0.1:9482", help="default: %(default)s")
    reach.add_flags(parser)
    return parser


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"want http://HOST:PORT or https://HOST:PORT, not {text!r}")
    return text
