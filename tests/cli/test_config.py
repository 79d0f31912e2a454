"""Options from files, flags and Python: what repeats a run, and what a run of the command line and one of Python have in common."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from command_line import QUICK, invoke, refused

import slq
from slq.cli.app import execute
from slq.cli.command import command
from slq.config import DemoConfig
from slq.errors import ConfigError
from slq.types import Item


@pytest.fixture(scope="module")
def first(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with options from a file and from flags."""
    folder = tmp_path_factory.mktemp("repeated")
    (folder / "run.toml").write_text(
        '[train]\nseed = 3\nnum_latents = 7\nloss = [{name = "info_nce"}, {name = "orthogonality", weight = 0.1}]\n'
    )
    captions = tiny_world / "train" / "captions.jsonl"
    invoke("train", captions, "--config", folder / "run.toml", "-o", folder / "first", "--max-steps", 2, *QUICK)
    return folder / "first"


def test_the_config_of_a_run_repeats_its_bits(first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its paths are relative to the file, not to where one stands
    said = invoke("train", "--config", first / "config.toml", "--output", "again", "--json")
    assert json.loads(said.stdout)["output"] == "again", "progress and notes are on stderr"
    assert (tmp_path / "again" / "adapter.safetensors").read_bytes() == (first / "adapter.safetensors").read_bytes()
    training = json.loads((tmp_path / "again" / "slq_adapter.json").read_text())["training"]
    assert (training["seed"], training["num_latents"], training["max_steps"]) == (3, 4, 2), "flags come before the file"
    assert training["loss"] == [{"name": "info_nce"}, {"name": "orthogonality", "weight": 0.1}]


def test_python_has_the_same_options(first, tiny_world, tmp_path):
    options = {"seed": 3, "num_latents": 4, "max_steps": 2, "batch_size": 8, "loss": ["info_nce", "orthogonality:weight=0.1"]}
    captions = tiny_world / "train" / "captions.jsonl"
    encoder = slq.train(captions, model="miniature", output=tmp_path / "from-python", **options)
    assert (tmp_path / "from-python" / "adapter.safetensors").read_bytes() == (first / "adapter.safetensors").read_bytes()
    assert encoder.encode([Item("a red cat")]).vectors.shape[0] == 1


def test_python_refuses_what_the_command_line_refuses(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key 'num_latnets'\. Did you mean 'num_latents'\?"):
        slq.train("pairs.jsonl", output=tmp_path / "out", num_latnets=3)
    with pytest.raises(ConfigError, match="output is missing"):
        slq.train("pairs.jsonl")
    with pytest.raises(ConfigError, match="config holds every option: leave out num_latents"):
        slq.train("pairs.jsonl", config=slq.TrainConfig(), num_latents=3)


def test_a_config_file_with_a_wrong_key_is_refused_before_anything(tmp_path):
    (tmp_path / "run.toml").write_text("[train]\nepoch = 3\n")
    said = refused("train", "pairs.jsonl", "--config", tmp_path / "run.toml", "-o", tmp_path / "out")
    assert "[train]: unknown key 'epoch'. Did you mean 'epochs'?" in said and not (tmp_path / "out").exists()


def test_a_warning_is_one_line_on_stderr(capsys):
    @command("warns")
    def app(config: DemoConfig) -> None:
        warnings.simplefilter("always")
        warnings.warn("3 text(s) were cut", UserWarning, stacklevel=1)

    assert execute(lambda: app, []) == 0
    assert capsys.readouterr() == ("", "Warning: 3 text(s) were cut\n")


def test_remote_code_is_for_the_model_that_is_named(adapter, tiny_world):
    said = refused("eval", tiny_world / "test" / "captions.jsonl", "--model", adapter, "--trust-remote-code")
    assert "is an adapter: name its base model with --base-model" in said


def test_an_adapter_is_not_a_base_model_that_tells_facts(adapter, tiny_world, tmp_path):
    said = refused("facts", tiny_world / "train" / "captions.jsonl", "--model", adapter, "-o", tmp_path / "facts.jsonl")
    assert "is an adapter, and a base model is needed here" in said
