"""The one console script."""

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest

from exporters import cli


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in cli.COMMANDS.items():
        assert any(line.split() == [name, *command.line.split()] for line in lines)


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ovnwatch {version('ovnwatch')}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["per"], "ovnwatch: no command 'per', did you mean peer?"),
        (["nothing"], "ovnwatch: no command 'nothing', usage: ovnwatch COMMAND [flags]"),
        ([], "ovnwatch: which command?, usage: ovnwatch COMMAND [flags]"),
    ],
)
def test_a_command_there_is_not_exits_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", said)


def test_the_rest_goes_to_the_command_and_its_code_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fake", cli.Command("tests.test_cli", "for this test"))
    monkeypatch.setitem(sys.modules, "tests.test_cli", sys.modules[__name__])
    assert cli.main(["fake", "--one", "two"]) == 12


def main(argv: list[str]) -> int:
    """The command of the test above."""
    return 12 if argv == ["--one", "two"] else 1


@pytest.mark.parametrize("module", [command.module for command in cli.COMMANDS.values()])
def test_every_commands_module_is_there(module: str) -> None:
    assert find_spec(module)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, exporters.cli as c; c.main(['--help']); print(sorted({'aiohttp', 'yaml'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_without_arguments_of_its_own_it_reads_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ovnwatch"])
    assert cli.main() == 2
