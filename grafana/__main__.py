"""The boards -> dashboards/*.json: `python -m grafana`. It needs the extra `dashboards`; importing the files does not.

To add a board: a module that makes it, and a line in DASHBOARDS.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grafana import connectivity, itself, migration, network, overview, ovn, ovs, packing

DASHBOARDS: dict[str, Callable[[], dict[str, Any]]] = {
    "overview": overview.board,
    "migration": migration.board,
    "connectivity": connectivity.board,
    "network": network.board,
    "ovn": ovn.board,
    "ovs": ovs.board,
    "itself": itself.board,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write one file a board; 0, or 1 when one cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description="Write the Grafana dashboards.")
    parser.add_argument("--output-dir", type=Path, default=Path("grafana/dashboards"), help="default: %(default)s")
    parser.add_argument("--multi-cluster", action="store_true", help="show the variable that chooses clusters")
    args = parser.parse_args(argv)
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for name, board in DASHBOARDS.items():
            text = packing.text(packing.chosen(board(), multi_cluster=args.multi_cluster))
            (args.output_dir / f"{name}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
