"""Files of variables: what shells and container engines write is read, and every mistake has its line."""

import json
import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.envfile import parse
from exporters.strictyaml import Problem

KNOWN = ("METALLB_PEERS", "HTTP_INTERVAL", "PEERS")
WORD = st.text(st.characters(exclude_categories=("Cs", "Cc")))


def variables(text: str) -> dict[str, str]:
    problems: list[Problem] = []
    found = parse(text, "config.env", KNOWN, problems)
    assert problems == []
    return {name: said.value for name, said in found.items()}


def problems(text: str) -> list[str]:
    found: list[Problem] = []
    parse(text, "config.env", KNOWN, found)
    return [f"{each.place}: {each.message}" for each in found]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("  export   A=1  ", "1"),
        ("A=", ""),
        ("A=''", ""),
        ("A='a b' # why", "a b"),
        ('A="a \\" \\\\ \\$ \\n b"', 'a " \\ $ \\n b'),
        ("A='a \\' # why", "a \\"),
        ("A=a b # why", "a b"),
        ("A=a#b", "a#b"),
        ("A=$HOME", "$HOME"),
        ('A={"a": "b"}', '{"a": "b"}'),
        ('A=\'{"a": "b"}\'', '{"a": "b"}'),
        ('A="{\\"a\\": \\"b\\"}"', '{"a": "b"}'),
        ("A='{\n  \"a\":\n 1}'", '{\n  "a":\n 1}'),
        ("A=a=b", "a=b"),
        ("A=1\r\n", "1"),
    ],
)
def test_a_value_is_what_a_shell_or_an_engine_would_make_of_it(line: str, value: str) -> None:
    assert variables(f"# first\n\n{line}\n  # last\nB=2") == {"A": value, "B": "2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nwhat is this\nB=2\n", ["config.env:2: want NAME=value: 'what is this'"]),
        ("A = 1", ["config.env:1: want NAME=value: 'A = 1'"]),
        ("1A=1", ["config.env:1: want NAME=value: '1A=1'"]),
        ("A='1\n\nB=2\n", ["config.env:1: A: the quote is never closed"]),
        ('A="1" 2\n', ["config.env:1: A: unexpected after the closing quote: ' 2'"]),
        ("A='1\n2' x\n=\n", ["config.env:1: A: unexpected after the closing quote: ' x'",
                             "config.env:3: want NAME=value: '='"]),
        ("PEERS=a\n#\nexport PEERS=b\n", ["config.env:3: PEERS: given twice, first at config.env:1"]),
        ("METALB_PEERS={}\n", ["config.env:1: METALB_PEERS: unknown variable, did you mean METALLB_PEERS?"]),
        ("x" * 99, [f"config.env:1: want NAME=value: '{'x' * 40}...'"]),
    ],
)  # fmt: skip
def test_every_mistake_has_its_line(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_what_is_somebody_elses_is_passed_over() -> None:
    assert problems("REGISTRY=quay.example\nNAMESPACE=a\n") == []


@given(st.dictionaries(st.from_regex("X[A-Z_]{1,8}", fullmatch=True), WORD))
def test_whatever_a_shell_would_quote_comes_back(values: dict[str, str]) -> None:
    values = {name: value for name, value in values.items() if "'" not in value}
    assert variables("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())) == values


@given(st.text())
def test_any_text_is_read_or_told(text: str) -> None:
    found: list[Problem] = []
    assert isinstance(parse(text, "x", KNOWN, found), dict)
    assert all(each.place.startswith("x:") for each in found)


def test_a_shell_reads_the_same_file_alike() -> None:
    text = 'export A=\'{"peer-1-lb": "192.0.2.1"}\'\n# a comment\nB="a \\"b\\""\nC=plain\n'
    told = "import json, os; print(json.dumps([os.environ[name] for name in 'ABC']))"
    shell = ["sh", "-c", f'set -a; . /dev/stdin; exec {sys.executable} -c "{told}"']
    ran = subprocess.run(shell, input=text, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == list(variables(text).values())
