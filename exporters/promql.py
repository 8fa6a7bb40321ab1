"""PromQL as text: which series a query reads, which brackets it leaves open, and how long a duration is."""

import re

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdw]))+")
# What is no metric name in PromQL: strings, matchers, windows, label lists; then words of the language and functions.
_NOT_NAMES = re.compile(
    r"""'[^']*' | "[^"]*" | \{[^}]*\} | \[[^]]*\]
    | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)""",
    re.VERBOSE,
)
_WORDS = re.compile(r"(?<![\w:.$])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])")
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|#[^\n]*""")
_INNER = r"""[^()\[\]{}'"`]*"""
_PAIR = re.compile(rf"\({_INNER}\)|\[{_INNER}\]|\{{{_INNER}\}}")
_KEYWORDS = frozenset(("and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf", "nan"))


def metrics_in(query: str) -> set[str]:
    """Names of the series a PromQL query reads."""
    return set(_WORDS.findall(_NOT_NAMES.sub(" ", query))) - _KEYWORDS


def outermost(query: str) -> str:
    """What of a query stands in no string and no brackets; a bracket or quote that is left has no other one."""
    rest, before = _STRING.sub(" ", query), ""
    while rest != before:
        rest, before = _PAIR.sub(" ", rest), rest
    return rest


def lone(query: str) -> str:
    """The first bracket or quote that has no other one; "" where there is none."""
    found = re.search(r"""[()\[\]{}'"`]""", outermost(query))
    return found[0] if found else ""


def seconds(duration: str) -> float:
    """Seconds in a duration as Prometheus writes it (`90s`, `1h30m`); ValueError for anything else."""
    if not _DURATION.fullmatch(duration):
        raise ValueError(f"{duration!r} is not a duration such as 90s or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration))
