"""A report as one HTML page with its timeline: no script, nothing from elsewhere, every name escaped. Pure."""

import html
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exporters import times

Report = Mapping[str, Any]
WIDTH, LEFT, ROW = 1000, 190, 18  # of the timeline; LEFT is where the time begins
MOST_ROWS = 200  # paths on the timeline: those that were out longest
STYLE = """
body{font-family:system-ui,sans-serif;margin:1.5em auto;max-width:70em;padding:0 1em;color:#1b1f24;background:#fff}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25em .6em;border-bottom:1px solid #d0d7de;vertical-align:top}
.pass{color:#116329}.fail{color:#a40e26}.inconclusive{color:#7d4e00}svg{width:100%;height:auto}
svg text{font-size:11px;fill:#1b1f24}.turn{fill:#ddf4ff;stroke:#54aeff}.grid{stroke:#d0d7de}
.expected{fill:#54aeff}.collateral{fill:#bf8700}.unexplained{fill:#cf222e}.observer{fill:#8250df}.gap{fill:#afb8c1}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}svg text{fill:#e6edf3}.turn{fill:#0c2d6b}
th,td{border-color:#30363d}.grid{stroke:#30363d}.pass{color:#3fb950}.fail{color:#ff7b72}.inconclusive{color:#d29922}}
"""


def page(report: Report) -> str:
    return "".join(_parts(report))


def _parts(report: Report) -> Iterator[str]:
    window, verdict = report["window"], report["verdict"]
    title = f"{window['name']}: {verdict}"
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="viewport" content="width=device-width"><title>{_e(title)}</title>'
        f"<style>{STYLE}</style></head><body>"
        f'<h1>{_e(window["name"])}: <span class="{_e(verdict)}">{_e(verdict.upper())}</span></h1>'
        f"<p>{_e(_time(window['begin']))} to {_e(_time(window['end']))}: out for {_s(report['seconds'])}, "
        f"of it unexplained {_s(report['unexplained_seconds'])}.</p>"
    )
    if report["inconclusive_because"]:
        yield "<ul>" + "".join(f"<li>{_e(each)}</li>" for each in report["inconclusive_because"]) + "</ul>"
    yield from _timeline(report)
    yield from _table(
        "Limits",
        ("limit", "spent", "of", "verdict"),
        (
            (each["name"], _plain(each["spent"]), f"{each['limit']:g} s", "held" if each["passed"] else "over")
            for each in report["checks"]
        ),
    )
    yield from _table(
        "Node by node",
        ("node", "from", "to", "phases", "outages", "out"),
        (
            (each["node"], _time(each["begin"]), _time(each["end"]), ", ".join(each["phases"]), each["outages"],
             _plain(each["seconds"]))
            for each in report["turns"]
        ),
    )  # fmt: skip
    yield from _table(
        "Paths",
        ("path", "streams", "outages", "blips", "breaks", "frozen", "out", "longest"),
        (
            (f"{each['path']}/{each['protocol']}", each["streams"], each["outages"], each["blips"], each["breaks"],
             each["frozen"], _plain(each["seconds"]), f"{each['longest_seconds']:.1f} s")
            for each in report["totals"]
        ),
    )  # fmt: skip
    yield from _table(
        "Connections",
        ("", "broken", "again after (median)", "at most"),
        (
            (word, each["broken"], _length(each["median_seconds"]), _length(each["longest_seconds"]))
            for word, each in report["connections"].items()
        ),
    )
    yield from _table(
        "Outages",
        ("began", "from", "to", "by", "out", "why", "evidence"),
        (
            (_time(each["begin"]), each["source"], each["target"], f"{each['path']}/{each['protocol']}",
             _plain(each["seconds"]), each["verdict"], "; ".join(each["evidence"]))
            for each in report["outages"]
        ),
    )  # fmt: skip
    yield from _table(
        "Coverage",
        ("target", "path", "observed", "gaps"),
        (
            (each["target"], each["path"], f"{int(each['share'] * 10000) / 100:.2f} %",
             ", ".join(f"{_time(gap['begin'])} {gap['reason']}" for gap in each["gaps"]))
            for each in report["coverage"]
        ),
    )  # fmt: skip
    yield "</body></html>\n"


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    cells = ["<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    if cells:
        heads = "".join(f'<th scope="col">{_e(each)}</th>' for each in head)
        yield f"<h2>{_e(caption)}</h2><table><thead><tr>{heads}</tr></thead><tbody>{''.join(cells)}</tbody></table>"


def _timeline(report: Report) -> Iterator[str]:
    """Turns above, a row for each path that was out below; what nobody observed is grey."""
    begin, end = times.seconds(report["window"]["begin"]), times.seconds(report["window"]["end"])

    def x(time: str | None) -> float:
        at = end if time is None else times.seconds(time)
        return LEFT + (WIDTH - LEFT) * (min(max(at, begin), end) - begin) / (end - begin)

    def bar(row: int, span: Mapping[str, Any], kind: str, says: str) -> str:
        left, right = x(span["begin"]), x(span["end"])
        return (
            f'<rect class="{_e(kind)}" x="{left:.1f}" y="{row * ROW + 3}" width="{max(right - left, 1.5):.1f}" '
            f'height="{ROW - 6}"><title>{_e(says)}</title></rect>'
        )

    rows: defaultdict[str, list[tuple[str, Mapping[str, Any], str]]] = defaultdict(list)
    for each in report["turns"]:
        rows[f"turn of {each['node']}"].append(("turn", each, ", ".join(each["phases"])))
    weights: defaultdict[str, float] = defaultdict(float)
    for each in report["outages"]:
        weights[f"{each['target']} by {each['path']}"] += each["seconds"][1]
    shown = sorted(weights, key=lambda name: -weights[name])[:MOST_ROWS]
    for each in report["coverage"]:
        for gap in each["gaps"]:
            if (name := f"{each['target']} by {each['path']}") in shown:
                rows[name].append(("gap", gap, f"not observed: {gap['reason']}"))
    for each in report["outages"]:
        if (name := f"{each['target']} by {each['path']}") in shown:
            says = f"{each['source']} {each['protocol']} {_plain(each['seconds'])} {each['verdict']}"
            rows[name].append((each["verdict"], each, says))
    height = (len(rows) + 1) * ROW
    yield f'<h2>Timeline</h2><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="turns and outages over time">'
    for quarter in range(5):
        at = begin + (end - begin) * quarter / 4
        place = LEFT + (WIDTH - LEFT) * quarter / 4
        anchor = "end" if quarter == 4 else "middle" if quarter else "start"
        yield f'<line class="grid" x1="{place}" x2="{place}" y1="0" y2="{height - ROW}"/>'
        yield f'<text x="{place}" y="{height - 4}" text-anchor="{anchor}">{times.iso(at)[11:19]}</text>'
    for number, (name, bars) in enumerate(rows.items()):
        yield f'<text x="0" y="{number * ROW + 13}">{_e(name[:30])}<title>{_e(name)}</title></text>'
        yield from (bar(number, span, kind, says) for kind, span, says in bars)
    yield "</svg>"


def _e(value: object) -> str:
    return html.escape(str(value))


def _time(text: str | None) -> str:
    return "" if text is None else f"{text[:10]} {text[11:19]}"


def _plain(spent: Sequence[float]) -> str:
    return f"{spent[1]:.1f} s ({spent[0]:.1f} to {spent[2]:.1f})"


def _s(spent: Sequence[float]) -> str:
    return _e(_plain(spent))


def _length(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
