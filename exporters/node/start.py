"""`ovnwatch node` from the command line: what must be so before the libraries are imported, then the command."""

import importlib
import os
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `exporters.node.command`."""
    # aiohttp reads every certificate authority of the machine when it is imported, for clients. We are none; it would
    # take a sixth of a second and three megabytes.
    os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)
    return int(importlib.import_module("exporters.node.command").main(argv))
