"""The command line as a whole, pinned so that a change is deliberate: commands, flags, help, exit codes, streams.

`python tests/cli/test_surface.py --write` records the tree as it is now in surface.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slq.cli.app import build_app, commands_and_configs
from slq.cli.command import Flags
from slq.config.fields import options_of

RECORD = Path(__file__).with_name("surface.json")
COMMANDS = sorted(commands_and_configs())
WIDTH = 80


def surface() -> dict[str, list[str]]:
    """Each command with its arguments and flags, as the parser has them."""
    app = build_app()
    found = {}
    for name in COMMANDS:
        command = app
        for part in name.split():
            command = command[part]
        assert issubclass(command.default_command, Flags)
        arguments = command.assemble_argument_collection()
        found[name] = sorted(
            word for each in arguments for word in (*each.names, *([each.field_info.name.upper()] if each.field_info.is_positional else []))
        )
    return found


def slq(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as its own process."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), **variables}
    return subprocess.run([sys.executable, "-m", "slq.cli", *arguments], capture_output=True, text=True, env=environment, timeout=120)


def test_commands_and_flags() -> None:
    assert surface() == json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of every command as an 80-column pipe gets it, from one process."""
    script = (
        "import contextlib, io, json, sys\n"
        "from slq.cli import main\n"
        "pages = {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    page = io.StringIO()\n"
        "    with contextlib.redirect_stdout(page):\n"
        "        assert main([*name.split(), '--help']) == 0\n"
        "    pages[name] = page.getvalue()\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numpy'} & set(sys.modules)\n"
        "print(json.dumps([pages, sorted(heavy)]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(["", *COMMANDS])],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": str(WIDTH)},
    )
    pages, heavy = json.loads(ran.stdout)
    assert heavy == [], "a help page loaded these"
    return pages


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_and_tells_of_every_option(helps: dict[str, str], name: str) -> None:
    page = helps[name]
    examples = [line for line in page.splitlines() if line.startswith("    slq ")]
    assert any(line.strip().startswith(f"slq {name}") for line in examples), "no example"
    assert [line for line in page.splitlines() if len(line) > WIDTH and line not in examples] == []
    words = " ".join(page.split())
    for config in commands_and_configs()[name]:
        for option in options_of(config).values():
            assert option.positional or option.flag in page, option.flag
            assert " ".join(option.help.split()) in words.replace("- ", "-") or option.help in words, option.name
            assert option.bounds in words, option.name
            assert option.plugin_group or all(choice in words for choice in option.choices), option.name
    assert "\x1b" not in page and "│" not in page, "a pipe gets plain text"


def test_the_first_page_shows_every_command(helps: dict[str, str]) -> None:
    for name in COMMANDS:
        assert re.search(rf"^  {name.split()[0]} ", helps[""], flags=re.M), name


@pytest.mark.process
def test_completion_imports_no_torch() -> None:
    script = (
        "import sys; from slq.cli.app import build_app; text = build_app().generate_completion(shell='bash'); "
        "assert '--num-latents' in text and 'sample-data' in text; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_version() -> None:
    import slq as package

    assert slq("--version").stdout.strip() == package.__version__


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such-command"], 2, "Unknown command"),
        (["train", "--epoch", "3"], 2, "Did you mean --epochs?"),
        (["train", "pairs.jsonl", "-o", "out", "--epochs", "many"], 2, "--epochs"),
        (["train", "pairs.jsonl", "-o", "out", "--epochs", "0"], 2, "--epochs must be at least 1, not 0."),
        (["train"], 2, "DATA is missing"),
        (["train", "pairs.jsonl"], 2, "--output is missing"),
        (["train", "pairs.jsonl", "-o", "out", "--pooling", "meen"], 2, "Did you mean 'mean'?"),
        (["train", "pairs.jsonl", "-o", "out", "--loss", "infonce"], 2, "Did you mean 'info_nce'?"),
        (["search"], 2, "give TEXT, --image FILE, both, or --like ID"),
        (["train", "no-such-file.jsonl", "-o", "out"], 1, "no-such-file.jsonl"),
        (["search", "a cat", "-c", "no-such-folder"], 1, "no-such-folder"),
        (["benchmarks", "--config", "no-such-file.toml"], 2, "no-such-file.toml cannot be read"),
    ],
)
def test_wrong_use_is_one_sentence_and_a_code(arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch) -> None:
    from command_line import run

    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert ran.stderr.startswith("Error: ") and ran.stderr.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m slq.cli train --help | head -n 1"
    ran = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=120)
    assert (ran.stdout, ran.stderr) == ("Usage: slq train DATA -o PATH [OPTIONS]\n", "")


@pytest.mark.process
def test_json_goes_alone_to_stdout() -> None:
    ran = slq("benchmarks", "--json")
    assert {"coco", "beir"} <= {each["name"] for each in json.loads(ran.stdout)}
    assert slq("benchmarks", "cirr", "--json").returncode == 0
    assert isinstance(json.loads(slq("plugins", "--json", SLQ_LOAD_PLUGINS="").stdout), list)


@pytest.mark.process
def test_no_colour_where_none_is_wanted(monkeypatch) -> None:
    """A terminal of its own, with and without NO_COLOR."""
    pty = pytest.importorskip("pty")

    def shown(**variables: str) -> str:
        parent, child = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **variables}
        environment = {name: value for name, value in environment.items() if value}
        with subprocess.Popen([sys.executable, "-m", "slq.cli", "--help"], stdout=child, stderr=child, env=environment):
            os.close(child)
            text = b""
            try:
                while part := os.read(parent, 4096):
                    text += part
            except OSError:  # the end of a terminal, on Linux
                pass
        os.close(parent)
        return text.decode()

    coloured, plain = shown(NO_COLOR=""), shown(NO_COLOR="1")
    assert "\x1b[36m" in coloured and "\x1b[36m" not in plain
    assert "sample-data" in plain


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    RECORD.write_text(json.dumps(surface(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}")
