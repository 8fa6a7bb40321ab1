"""A table of options in; what flags, environment and file say for each out, checked; `--help` and documentation too."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporters.strictyaml import BadInput, Problem


class Option(NamedTuple):
    """One setting and the ways to give it; `read` checks its text, and is None for a flag that takes no value.

    `read` raises ValueError, or BadInput with the places within the text.
    """

    name: str
    read: Callable[[str], Any] | None
    default: str  # as a user would write it; empty: none
    flag: str
    variable: str
    key: str  # in the file, with dots
    help: str


class Given(NamedTuple):
    """A checked value and where it was given: a flag, a variable, a line of the file, or "default"."""

    value: Any
    place: str


FileValue = Callable[[str], Given | None]  # of a dotted key; None where the file does not say


def resolve(
    options: Iterable[Option],
    flags: Mapping[str, str],
    variables: Mapping[str, Given],
    in_file: FileValue,
    problems: list[Problem],
) -> dict[str, Given]:
    """Each option's value by name: flag, else variable, else file, else default. All that is given is checked."""
    settled: dict[str, Given] = {}
    for option in options:
        mentions = [
            Given(flags[option.flag], option.flag) if option.flag in flags else None,
            variables.get(option.variable),
            in_file(option.key) if option.key else None,
            Given(option.default, "default") if option.default else None,
        ]
        checked = [each for mention in mentions if mention for each in _checked(option, mention, problems)]
        settled[option.name] = checked[0] if checked else Given(None, "default")
    return settled


def _checked(option: Option, mention: Given, problems: list[Problem]) -> Iterator[Given]:
    if option.read is None or not isinstance(mention.value, str):
        yield mention  # of the file, whose model has checked it
        return
    try:
        yield Given(option.read(mention.value), mention.place)
    except ValueError as error:
        problems.append(Problem(mention.place, str(error)))
    except BadInput as bad:
        for place, message in bad.problems:
            problems.append(Problem(": ".join(filter(None, (mention.place, place))), message))


def read_flags(options: Iterable[Option], argv: Sequence[str], problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """(flag, text) of `--flag=text`, `--flag text` and `--flag`; what is none of these is a problem."""
    known = {option.flag: option for option in options if option.flag}
    seen: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, text = word.partition("=")
        if flag not in known:
            close = difflib.get_close_matches(flag, known, 1)
            meant = f", did you mean {close[0]}?" if close else ""
            problems.append(Problem(word, f"unknown flag{meant}" if word.startswith("-") else "unexpected argument"))
        elif flag in seen:
            problems.append(Problem(flag, "given twice"))
        elif known[flag].read is None and equals:
            problems.append(Problem(flag, "takes no value"))
        elif known[flag].read and not equals and (not words or words[0].startswith("--")):
            problems.append(Problem(flag, "needs a value"))
        else:
            yield flag, text if equals or known[flag].read is None else words.pop(0)
        seen.add(flag)


def help_text(options: Iterable[Option], usage: str) -> str:
    """What `--help` prints: every option with its flag, variable, file key and default."""
    lines = [usage, ""]
    for option in options:
        ways = [option.flag, option.variable, f"{option.key}: in the file" if option.key else ""]
        lines.append("  " + ", ".join(filter(None, ways)))
        lines.append(f"        {option.help}" + (f" (default {option.default})" if option.default else ""))
    return "\n".join(lines)


def markdown(options: Iterable[Option]) -> str:
    """The same as a table for the README."""
    rows = ["| flag | variable | in the file | default | what it is |", "| --- | --- | --- | --- | --- |"]
    for option in options:
        cells = [f"`{cell}`" if cell else "" for cell in (option.flag, option.variable, option.key, option.default)]
        rows.append(f"| {' | '.join([*cells, option.help])} |")
    return "\n".join(rows)


# Readers of texts that more than one exporter takes: ValueError says what is wanted.


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def number(text: str) -> float:
    if not _NUMBER.fullmatch(text.strip(" ")):  # float() also takes 1_0 for 10, nan, and digits of any script
        raise ValueError(f"not a number: {text!r}")
    return float(text)


def count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
        raise ValueError(f"want a whole number from 1 to 999999: {text!r}")
    return int(text)


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"want one of {', '.join(words)}: {text!r}")
        return text

    return read


def web_path(text: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]+", text) or text.startswith("/-/"):
        raise ValueError(f"want a path such as /metrics, not / and none below /-/: {text!r}")
    return text
