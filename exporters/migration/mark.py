"""`ovnwatch migration mark PHASE [--node NODE]`: tells a migration exporter which phase begins, or that it ends."""

import argparse
import http.client
import json
import sys
import urllib.error
from collections.abc import Sequence
from typing import Any

import msgspec

from exporters import reach
from exporters.ends import Parser
from exporters.plain import plain
from exporters.strictyaml import BadInput


def main(argv: Sequence[str]) -> int:
    """0: marked; 1: anything else."""
    args = _parser().parse_args(argv)
    try:
        how = reach.reach(args)
        if not how.token:
            raise ValueError("no token: --web.token-file or OVNWATCH_TOKEN")  # noqa: TRY301 - told as the others are
        body = json.dumps({"phase": args.phase, "node": args.node, "rolls": args.rolls}).encode()
        _read(reach.post(f"{args.url}/api/phases", how, body))  # raises ValueError where it is no migration exporter
    except BadInput as bad:
        print(bad, file=sys.stderr)
        return 1
    except urllib.error.HTTPError as error:
        print(plain(f"ovnwatch migration mark: {args.url}: {reach.refusal(error)}"), file=sys.stderr)
        return 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        print(plain(f"ovnwatch migration mark: {args.url}: {said}"[:500]), file=sys.stderr)
        return 1
    print(plain(f"{args.phase} of {args.node or 'the cluster'}"))
    return 0


class _Answer(msgspec.Struct):
    changed: Any


_read = msgspec.json.Decoder(_Answer).decode


def _parser() -> argparse.ArgumentParser:
    says = "Tell a migration exporter which phase begins now; `none` ends the one there is."
    parser = Parser(prog="ovnwatch migration mark", description=says, allow_abbrev=False)
    parser.add_argument("phase", metavar="PHASE", help="its name, as reboot; none: no phase any more")
    parser.add_argument("--node", default="", help="whose turn it is; * for all nodes; the cluster's if not given")
    parser.add_argument("--rolls", action="store_true", help="it goes from node to node without their names being told")
    parser.add_argument("--url", type=reach.http_url, default="http://127.0.0.1:9482", help="default: %(default)s")
    reach.add_flags(parser)
    return parser
