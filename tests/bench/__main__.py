"""`python -m tests.bench [NAME...]`: run benchmarks, print their ratios, write build/bench.json.

Exit status: 0 when every goal is met, 2 when one is missed, 1 when a benchmark could not be made. To add a benchmark:
a function that takes an Effort and returns its results, and a line in BENCHMARKS.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .boards import boards
from .measure import FULL, ROOT, SHORT, BenchError, Effort, Result
from .metrics import metrics
from .node import node
from .probes import probes
from .rules import rules
from .scheduler import scheduler
from .watching import watching

BENCHMARKS: dict[str, Callable[[Effort], list[Result]]] = {
    "probes": probes,
    "scheduler": scheduler,
    "metrics": metrics,
    "node": node,
    "watching": watching,
    "rules": rules,
    "boards": boards,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all if none is given")
    parser.add_argument("--short", action="store_true", help="one short turn each, to see that they run")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json", help="the results as JSON")
    given = parser.parse_args()
    if unknown := set(given.names) - BENCHMARKS.keys():
        print(f"no such benchmark: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    results: list[Result] = []
    failed = False
    for name in given.names or BENCHMARKS:
        begin = time.monotonic()
        try:
            found = BENCHMARKS[name](SHORT if given.short else FULL)
        except BenchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        for each in found:
            print(line(each))
        print(f"  ({name}: {time.monotonic() - begin:.0f} s)", flush=True)
        results += found
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0 if all(each.ok for each in results) else 2


def line(found: Result) -> str:
    low, high = found.detail["spread"]
    rest = ", ".join(f"{key} {value}" for key, value in found.detail.items() if key != "spread")
    verdict = "ok  " if found.ok else "MISS"
    return f"{verdict} {found.name}: {found.ratio:g} ({low:g} to {high:g}), goal {found.goal:g}\n       {rest}"


if __name__ == "__main__":
    sys.exit(main())
