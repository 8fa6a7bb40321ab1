"""A file of variables in: `NAME=value` lines as shells and container engines write them; what they say out. Pure.

1. `export ` before a name is passed over, and so are empty lines and what follows a `#` at a line's or word's start.
2. A value in single or double quotes is what stands between them, be it on several lines; in double quotes a backslash
   before `"`, `\\`, `$` or a backquote is passed over. Without quotes it is the rest of the line, quotes within it
   included, so that JSON survives either way. Nothing is expanded.
3. A name we do not know is somebody else's, unless it is one slip of the fingers away from one of ours.
"""

import re
from collections.abc import Collection, Mapping

from exporters.options import Given
from exporters.strictyaml import Problem

_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\$`])')
_PLAIN = re.compile(r"(?!['\"])((?:(?![ \t]+#)[^\n])*)")
_INJECTED = re.compile(r"(tcp|udp|sctp)://")  # Kubernetes makes DASHBOARDS_PORT of a Service called dashboards


def parse(text: str, name: str, known: Collection[str], problems: list[Problem]) -> dict[str, Given]:
    """The variables of a text, each with its place, `config.env:3: METALLB_PEERS`; `known` are those that are ours.

    What is wrong is added to `problems`; a value that cannot be read is left out.
    """
    found: dict[str, Given] = {}
    text = text.replace("\r\n", "\n")
    at = 0
    while at < len(text):
        blank = _LINE.match(text, at)
        if blank:
            at = blank.end()
            continue
        place = f"{name}:{text.count(chr(10), 0, at) + 1}"
        start = _NAME.match(text, at)
        if not start:
            problems.append(Problem(place, f"want NAME=value: {_shown(_rest(text, at))}"))
            at += len(_rest(text, at)) + 1
            continue
        variable, at = start[1], start.end()
        place = f"{place}: {variable}"
        value, at, wrong = _value(text, at)
        wrong = wrong or _name_problem(variable, known, found)
        if wrong:
            problems.append(Problem(place, wrong))
        else:
            found[variable] = Given(value, place)
    return found


def misspelt(environ: Mapping[str, str], known: Collection[str]) -> list[Problem]:
    """Variables of the environment that are one slip away from one of ours, each with the one that may be meant.

    Nearness of another kind says nothing there: POLL_INTERVAL is as like TCP_INTERVAL as a misspelling.
    """
    return [
        Problem(name, f"unknown variable, did you mean {close}?")
        for name, value in environ.items()
        if value and not _INJECTED.match(value) and (close := _meant(name, known))
    ]


def _meant(variable: str, known: Collection[str]) -> str:
    """The known variable that a name is but for one letter more, less or another, two swapped, or lower case."""
    return "" if variable in known else next((each for each in known if _one_slip(variable.upper(), each)), "")


def _one_slip(said: str, meant: str) -> bool:
    if abs(len(said) - len(meant)) > 1:
        return False
    differ = (at for at, (one, other) in enumerate(zip(said, meant, strict=False)) if one != other)
    same = next(differ, min(len(said), len(meant)))
    a, b = said[same:], meant[same:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def _value(text: str, at: int) -> tuple[str, int, str]:
    """A value, where the next line begins, and what is wrong with it."""
    quoted = {"'": _SINGLE, '"': _DOUBLE}.get(text[at : at + 1])
    said = (quoted or _PLAIN).match(text, at)
    if said is None:
        return "", at + len(_rest(text, at)) + 1, "the quote is never closed"
    end = _LINE.match(text, said.end())
    if end is None:
        after = _rest(text, said.end())
        return "", said.end() + len(after) + 1, f"unexpected after the closing quote: {_shown(after)}"
    value = _ESCAPE.sub(r"\1", said[1]) if quoted is _DOUBLE else said[1]
    return value if quoted else value.rstrip(), end.end(), ""


def _name_problem(variable: str, known: Collection[str], found: Mapping[str, Given]) -> str:
    if variable in found:
        return f"given twice, first at {found[variable].place.removesuffix(f': {variable}')}"
    close = _meant(variable, known)
    return f"unknown variable, did you mean {close}?" if close else ""


def _rest(text: str, at: int) -> str:
    return text[at:].partition("\n")[0]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
