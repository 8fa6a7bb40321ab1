"""Pictures of the boards as a Prometheus fills them: `python grafana/preview/shoot.py URL`; see README.md beside it.

For development and the documentation. It asks Prometheus what Grafana would, and lets Chromium draw the answers.
"""

import argparse
import json
import math
import shutil
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import ViewportSize, sync_playwright

from grafana import asking

HERE = Path(__file__).parent
BOARDS = HERE.parent / "dashboards"
POINTS = 300
SIZE: ViewportSize = {"width": 1632, "height": 1000}
ORIGIN = "http://preview.invalid/"  # Chromium gives a page of none no storage; nothing is fetched from it
PAGE = '<!doctype html><meta charset="utf-8"><style>body { margin: 0 }</style><div id="root"></div>'


def ask(url: str, expr: str, times: dict[str, float]) -> list[dict[str, Any]]:
    """Series with their values, those of an instant as a list of one."""
    path = "query" if "time" in times else "query_range"
    body = urllib.parse.urlencode({"query": expr, **times}).encode()
    with urllib.request.urlopen(f"{url}/api/v1/{path}", body, timeout=60) as answer:  # noqa: S310
        found = json.loads(answer.read())["data"]["result"]
    series = [{"metric": each["metric"], "values": each.get("values") or [each["value"]]} for each in found]
    for each in series:
        each["values"] = [(at, value) for at, value in each["values"] if value not in ("NaN", "+Inf", "-Inf")]
    return [each for each in series if each["values"]]


def fill(board: dict[str, Any], url: str, end: float, seconds: float, given: dict[str, str]) -> dict[str, Any]:
    """The board with all that its queries and marks found."""
    step = max(1, math.ceil(seconds / POINTS))
    results: dict[str, dict[str, Any]] = {}
    for panel in board["panels"]:
        apart = math.ceil(asking.step_of(panel, seconds, step))
        values = asking.everything(board) | asking.timed(seconds, apart) | given
        for target in panel.get("targets", ()):
            spread = {"start": end - seconds, "end": end, "step": apart}
            times = {"time": end} if target["instant"] else spread
            found = ask(url, asking.filled(target["expr"], values), times)
            results.setdefault(str(panel["id"]), {})[target["refId"]] = found
    marks = []
    for mark in board["annotations"]["list"][1:]:
        expr = asking.filled(mark["expr"], asking.everything(board) | asking.timed(seconds, step) | given)
        seen = ask(url, expr, {"start": end - seconds, "end": end, "step": step})
        marks += [{"time": each["values"][0][0], "colour": mark["iconColor"]} for each in seen]
    return {"board": board, "results": results, "marks": marks, "from": end - seconds, "to": end}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of Prometheus")
    parser.add_argument("--end", type=float, default=time.time(), help="Unix time; now if not given")
    parser.add_argument("--range", type=float, default=600.0, help="seconds [%(default)g]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of a variable")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--output-dir", type=Path, default=Path("build/boards"), help="[%(default)s]")
    parser.add_argument("names", nargs="*", metavar="BOARD", help="all if none is given")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    given = dict(each.split("=", 1) for each in args.set)
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name in args.names or sorted(file.stem for file in BOARDS.glob("*.json")):
            board = json.loads((BOARDS / f"{name}.json").read_text(encoding="utf-8"))
            found = fill(board, args.url.rstrip("/"), args.end, args.range, given)
            page = browser.new_page(viewport=SIZE)
            page.on("pageerror", lambda error: print(f"error: {str(error)[:300]}", file=sys.stderr))
            page.route(f"{ORIGIN}**", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
            page.goto(ORIGIN)
            page.evaluate("([found, theme]) => { window.PREVIEW = found; window.THEME = theme; }", [found, args.theme])
            page.add_style_tag(path=HERE / "build/main.css")
            page.add_script_tag(path=HERE / "build/main.js")
            page.wait_for_timeout(1500)
            page.screenshot(path=args.output_dir / f"{name}.png", full_page=True)
            page.close()
            print(args.output_dir / f"{name}.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
