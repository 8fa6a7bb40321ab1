"""The page as one HTML table, for curl, text browsers and whoever wants no script. Pure.

One line of HTML is one row: a path from outside, or what one peer sees of the others.
"""

import html
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporters import times
from exporters.bastion.state import State, natural

REFRESH_SECONDS = 5
PROTOCOLS = ("http", "tcp", "ws")
MOST_NAMED = 5  # targets that fail, in one cell
WORST = ("down", "frozen", "unknown", "up")
HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><link rel="icon" href="page/icon.svg"><link rel="stylesheet" href="page/page.css"></head>
<body class="simple">
<table><caption>{caption}</caption>
<thead><tr><th>from</th><th>to</th><th>by</th>{protocols}<th>since</th></tr></thead><tbody>
"""


def simple(state: State, wall: float) -> str:
    """The page of a state at `wall` (Unix time)."""
    about, verdict, summary = (state["facts"][name] for name in ("about", "verdict", "summary"))
    low, middle, high = summary["spent"]
    spent = f"{middle} s out ({low} to {high}) since {summary['name']}"
    if summary["budget"]:
        spent += f", of {summary['budget']:g} s"
    look = (each["text"] if each["likely"] else f"Possibly: {each['text']}" for each in state["facts"]["look"])
    parts = [verdict["text"], spent, *_coverage(state["facts"].get("coverage")), *look]
    title = f"{verdict['text']}: {about['source']}"
    caption = "<br>".join(html.escape(each) for each in (*parts, f"{times.iso(wall)[:19]}Z"))
    protocols = "".join(f"<th>{each}</th>" for each in PROTOCOLS)
    head = HEAD.format(title=html.escape(title), caption=caption, protocols=protocols)
    return "".join([head, *_from_outside(state), *_from_peers(state), "</tbody></table></body></html>\n"])


def _coverage(found: Mapping[str, Any] | None) -> Iterator[str]:
    """What was observed: each path by any source, so that the others are named, too."""
    if not found:
        return
    if found["worst"]:
        share = f"{found['share'] * 100:.2f} %"
        yield f"Observed by any source: {share} of {' by '.join(found['worst'])}, the least of {found['paths']} paths"
    if found["unknowns"]:
        yield f"Never reached, so unknown: {_few([' by '.join(each) for each in found['unknown']], found['unknowns'])}"
    if found["misses"]:
        names = [f"{name} missed {seconds} s" for name, seconds in found["missed"]]
        yield f"Did not observe all the time: {_few(names, found['misses'])}"


def _few(names: Sequence[str], count: int) -> str:
    return ", ".join(names) + (f" and {count - len(names)} more" if count > len(names) else "")


def _from_outside(state: State) -> Iterator[str]:
    rows: dict[tuple[str, str, str], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for number, (side, source, target, path, protocol, *_) in state["streams"].items():
        if side == "out":
            rows[source, target, path][protocol].append(state["cells"][number])
    for (source, target, path), cells in sorted(rows.items(), key=lambda row: list(map(natural, row[0]))):
        words = [_worst(cells[protocol]) for protocol in PROTOCOLS]
        yield _row(source, target, path, words, [cell for each in cells.values() for cell in each])


def _worst(cells: Sequence[Any]) -> str:
    if not cells:
        return ""
    word, _, cause = min(cells, key=lambda cell: WORST.index(cell[0]))
    return f"{word.upper() if word != 'up' else 'up'} {cause}".strip()


def _from_peers(state: State) -> Iterator[str]:
    """A row for each peer: how many of the others it reaches, and which not."""
    rows: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    changed: dict[str, list[Any]] = defaultdict(list)
    for number, (side, source, target, _, protocol, *_) in state["streams"].items():
        if side == "in":
            cell = state["cells"][number]
            rows[source][protocol][cell[0]].append(target)
            changed[source].append(cell)
    for source, told in sorted(rows.items(), key=lambda row: natural(row[0])):
        targets = {target for words in told.values() for each in words.values() for target in each}
        words = [_counts(told[protocol]) for protocol in PROTOCOLS]
        yield _row(source, f"{len(targets)} peer{'s' * (len(targets) != 1)}", "", words, changed[source])
    for name, peer in state["peers"].items():
        if peer["heard"] is False:
            said = f"NOT HEARD {peer['error']}".strip()
            yield _row(name, "", "", [said, "", ""], [["unknown", peer["since"], ""]])


def _counts(words: dict[str, list[str]]) -> str:
    counted = Counter({word: len(words[word]) for word in WORST if words[word]})
    said = [f"{counted['up']} up"] if counted["up"] else []
    for word in WORST[:-1]:
        if counted[word]:
            more = f" and {counted[word] - MOST_NAMED} more" if counted[word] > MOST_NAMED else ""
            said.insert(
                0, f"{counted[word]} {word.upper()}: {', '.join(sorted(words[word], key=natural)[:MOST_NAMED])}{more}"
            )
    return "; ".join(said)


def _row(source: str, target: str, path: str, words: Sequence[str], cells: Sequence[Any]) -> str:
    """One line; `since` is when the last of it changed."""
    since = times.iso(max(cell[1] for cell in cells))[:19] + "Z"
    level = next((word for word in WORST if any(cell[0] == word for cell in cells)), "unknown")
    cells_of = "".join(f"<td>{html.escape(each)}</td>" for each in (source, target, path, *words, since))
    return f'<tr class="{level}">{cells_of}</tr>\n'
