"""A report as text for a terminal, as JSON, and as JUnit for a pipeline. Pure."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from alerts.report.page import page
from exporters.history.shown import columns
from exporters.plain import plain

Report = Mapping[str, Any]
MOST = 20  # lines of one kind in a terminal; JSON and the page have all


def seconds(spent: Sequence[float]) -> str:
    lower, estimate, upper = spent
    return f"{estimate:.1f} s ({lower:.1f}..{upper:.1f})"


def text(report: Report) -> str:
    return "".join(plain(line) + "\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    window = report["window"]
    yield f"{window['name']}: {window['begin'][:19]}Z to {window['end'][11:19]}Z, {window['seconds']:.0f} s"
    yield f"out for {seconds(report['seconds'])}, unexplained {seconds(report['unexplained_seconds'])}"
    yield ", ".join(f"{count} {word}" for word, count in report["explained"].items())
    if report["longest"]:
        yield f"longest: {_of(report['longest'])}"
    totals = [
        ("PATH/PROTOCOL", "STREAMS", "OUTAGES", "BLIPS", "BREAKS", "FROZEN", "OUT", "LONGEST"),
        *(
            (
                f"{each['path']}/{each['protocol']}",
                *(str(each[name]) for name in ("streams", "outages", "blips", "breaks", "frozen")),
                seconds(each["seconds"]),
                f"{each['longest_seconds']:.1f} s",
            )
            for each in report["totals"]
        ),
    ]
    yield from _table(totals)
    if report["turns"]:
        rows = [
            (each["node"], each["begin"][11:19], str(each["outages"]), seconds(each["seconds"]))
            for each in report["turns"]
        ]
        yield from _table([("TURN OF", "BEGAN", "OUTAGES", "OUT"), *rows])
    for word, each in report["connections"].items():
        if each["broken"]:
            again = (
                ""
                if each["median_seconds"] is None
                else (f", again after {each['median_seconds']:.2f} s (median), {each['longest_seconds']:.2f} s at most")
            )
            yield f"{word} connections: {each['broken']} broken{again}"
    unexplained = [each for each in report["outages"] if each["left_seconds"]]
    for each in unexplained[:MOST]:
        yield f"{each['verdict'].upper()} {_of(each)}: {'; '.join(each['evidence'])}"
    if len(unexplained) > MOST:
        yield f"and {len(unexplained) - MOST} more"
    for check in report["checks"]:
        word = "ok  " if check["passed"] else "OVER"
        yield f"{word} {check['name']}: {seconds(check['spent'])} of {check['limit']:g} s"
    yield from (f"not known: {each}" for each in report["inconclusive_because"])
    yield report["verdict"].upper()


def short(report: Report) -> str:
    """A few lines: the verdict, what it cost, the longest outage, what nothing explains, and how much was watched."""
    return "".join(plain(line) + "\n" for line in _short(report))


def _short(report: Report) -> Iterator[str]:
    window, coverage = report["window"], report["coverage"]
    counts = ", ".join(f"{count} {word}" for word, count in report["explained"].items() if count)
    yield f"{report['verdict'].upper()}: {window['name']}, {window['seconds']:.0f} s"
    yield f"out for {seconds(report['seconds'])}: {counts or 'no outage'}"
    if report["longest"]:
        yield f"longest: {_of(report['longest'])}"
    yield f"unexplained: {seconds(report['unexplained_seconds'])}"
    least = min(coverage, key=lambda each: each["share"], default=None)
    if least is None:
        yield "watched: nothing"
    else:
        share = int(least["share"] * 1e4) / 100  # never up: all is all
        yield f"watched: {share:.2f} % at least, {least['target']} by {least['path']}, of {len(coverage)} paths"


def _of(each: Report) -> str:
    how = f"{each['path']}/{each['protocol']}"
    return f"{each['begin'][11:19]} {each['source']} -> {each['target']} by {how}, {seconds(each['seconds'])}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (line.rstrip("\n") for line in columns(rows))


def as_json(report: Report) -> str:
    return json.dumps(report, indent=2).replace("\x7f", "\\u007f") + "\n"


def junit(report: Report) -> str:
    """A case for each limit, and one for what was observed; what is inconclusive is an error, not a failure."""
    checks, missing = report["checks"], report["inconclusive_because"]
    failed = [each for each in checks if not each["passed"]]
    counts = {"tests": len(checks) + 1, "failures": len(failed), "errors": int(bool(missing))}
    window = report["window"]
    suite = ET.Element(
        "testsuite", {"name": f"ovnwatch report {_xml(window['name'])}", "time": f"{window['seconds']:.3f}"}
    )
    suite.attrib |= {name: str(count) for name, count in counts.items()} | {"timestamp": window["begin"][:19]}
    for each in checks:
        case = ET.SubElement(suite, "testcase", {"classname": "ovnwatch.budget", "name": _xml(each["name"])})
        if not each["passed"]:
            told = f"{seconds(each['spent'])} of {each['limit']:g} s"
            failure = ET.SubElement(case, "failure", {"message": told, "type": "budget"})
            left = [each for each in report["outages"] if each["left_seconds"]]
            failure.text = _xml("\n".join(f"{_of(one)}: {'; '.join(one['evidence'])}" for one in left[:MOST]))
    case = ET.SubElement(suite, "testcase", {"classname": "ovnwatch.coverage", "name": "observed"})
    if missing:
        ET.SubElement(case, "error", {"message": _xml(missing[0]), "type": "inconclusive"}).text = _xml(
            "\n".join(missing)
        )
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text_: str) -> str:
    """XML has no place for control characters, escaped or not."""
    return "\n".join(plain(line) for line in text_.split("\n"))


# To add a form: a function, and a line here.
FORMS: dict[str, Callable[[Report], str]] = {
    "text": text,
    "short": short,
    "json": as_json,
    "html": page,
    "junit": junit,
}
