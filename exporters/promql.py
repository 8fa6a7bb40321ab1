"""PromQL as text: which series a query reads, and how long a duration is."""

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
_KEYWORDS = frozenset(("and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf", "nan"))


def metrics_in(query: str) -> set[str]:
    """Names of the series a PromQL query reads."""
    return set(_WORDS.findall(_NOT_NAMES.sub(" ", query))) - _KEYWORDS


def seconds(duration: str) -> float:
    """Seconds in a duration as Prometheus writes it (`90s`, `1h30m`); ValueError for anything else."""
    if not _DURATION.fullmatch(duration):
        raise ValueError(f"{duration!r} is not a duration such as 90s or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration))
