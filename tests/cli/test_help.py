"""Help, exit codes and usage errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import ONE_LINE
from typer.main import get_command
from typer.testing import CliRunner

from slq import cli

COMMANDS = get_command(cli.app).commands  # type: ignore[attr-defined]


def help_of(name: str) -> list[str]:
    """The lines of a command's help as a wide terminal shows them, without frames."""
    shown = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(cli.app, [name, "--help"])
    assert shown.exit_code == 0
    return [line.strip(" │") for line in shown.output.splitlines()]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_tells_of_every_option(name):
    parameters = COMMANDS[name].params
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", None)] == []
    shown = "\n".join(help_of(name))
    assert [option for parameter in parameters for option in parameter.opts if option.startswith("--") and option not in shown] == []


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "eval",
        "benchmarks",
        "embed",
        "search",
        "doctor",
        "world",
        "demo",
    ],
)
def test_help_shows_examples_as_one_would_type_them(name):
    shown = help_of(name)
    written = [line.strip() for line in COMMANDS[name].help.splitlines() if line.strip().startswith("slq ")]
    assert any(line.startswith(f"slq {name}") for line in written)
    assert [line for line in written if line not in shown] == []


def test_help_does_not_wait_for_torch():
    code = "import sys, typer.testing, slq.cli; typer.testing.CliRunner().invoke(slq.cli.app, ['--help']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "slq.cli", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.process
def test_exit_codes(tmp_path):
    good = process("--help")
    assert good.returncode == 0 and "slq demo" in good.stdout
    failed = process("search", "a cat", "--index", tmp_path / "nowhere")
    assert failed.returncode == 1 and failed.stdout == ""
    assert ONE_LINE.fullmatch(failed.stderr) and str(tmp_path / "nowhere") in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [["search", "--no-such-option"], ["no-such-command"], ["embed"], ["search", "cat", "--top", "0"], ["train", "--epochs", "many"]],
)
def test_wrong_usage_ends_with_code_2(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slq", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "Usage: " in capsys.readouterr().err
