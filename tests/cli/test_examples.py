"""The examples of every command's help: all of them are understood, and those that need no download do what they show."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import invoke

from slq.cli.app import build_app, commands_and_configs
from slq.cli.command import Flags, words_of
from slq.config import CommonConfig, Sources
from slq.config.fields import options_of

# Run in this order, each on what the ones before it wrote.
RUN = (
    "slq embed data/test/images -m my-adapter -o my-index",
    "slq index photos shop.csv -m my-adapter -c my-collection",
    "slq index -c my-collection --failed",
    'slq search "the animal said to have nine lives" -c my-collection',
    'slq search "but blue" --image cat.png -c my-collection',
    'slq search "a beach" "at sunset" --not "people" -c my-collection',
    "slq search --like photos/0003.png -c my-collection -o alike.png",
    "slq collection info my-collection",
    "slq collection verify my-collection",
    "slq collection optimize my-collection",
    "slq collection export my-collection -o vectors.parquet",
    "slq eval data/test/captions.jsonl -m my-adapter -o scores.json --per-query",
    "slq eval data/test/captions.jsonl -m miniature --baseline last_token_one_word",
    "slq mine data/train/captions.jsonl -m my-adapter -o mined.jsonl",
    "slq leakage data/train/captions.jsonl data/test/captions.jsonl",
    "slq model info my-adapter",
    "slq benchmarks",
    "slq benchmarks cirr",
    "slq plugins",
)


def examples() -> Iterator[str]:
    """Every line of a help page that one would type."""
    app = build_app()
    for name in commands_and_configs():
        command = app
        for part in name.split():
            command = command[part]
        lines = command.help_formatter.text.splitlines()
        yield from (line.strip() for line in lines if line.strip().startswith("slq "))


EXAMPLES = list(dict.fromkeys(examples()))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_understood(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-adapter").mkdir()
    (tmp_path / "my-adapter" / "config.toml").write_text('[train]\ndata = "pairs.jsonl"\n')
    arguments = shlex.split(example)[1:]
    flags = build_app(arguments[0])(words_of(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    assert isinstance(flags, Flags)
    given = {name: value for name, value in vars(flags).items() if value is not None}
    sources = Sources.read(given.get("config"), environment={})
    for config in flags.configs.values():
        resolved = sources.resolve(config, given)
        for name in set(given) & set(options_of(config)):
            assert getattr(resolved, name) == given[name] or name == "loss"
    assert set(given) <= {name for config in (*flags.configs.values(), CommonConfig) for name in options_of(config)} | {"preset"}


@pytest.mark.slow
def test_examples_do_what_they_show(tiny_world: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_world, tmp_path / "data")
    shutil.copytree(adapter, tmp_path / "my-adapter")
    shutil.copy(tmp_path / "data" / "test" / "images" / "0003.png", tmp_path / "cat.png")
    shutil.copytree(tmp_path / "data" / "test" / "images", tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_text("no image")
    (tmp_path / "shop.csv").write_text("text,price\na red cat,10\n")
    monkeypatch.chdir(tmp_path)
    for example in RUN:
        assert example in EXAMPLES, f"no help shows it: {example}"
        assert invoke(*shlex.split(example)[1:]).stdout.strip(), example
    assert (tmp_path / "scores.json").is_file() and (tmp_path / "mined.jsonl").is_file()
