"""The command line for what is compared with latent queries, and for their variants: train, evaluate, search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slq import cli
from slq.errors import InputError

SMALL = ("--batch-size", "8", "--max-steps", "2", "--device", "cpu")


def invoke(*arguments: object):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("methods") / "world"
    invoke("world", "--split", "train", "--count", 24, "--out", folder)
    return folder


def scores(world: Path, tmp_path: Path, *arguments: object) -> dict:
    invoke("eval", "--data", world, "--json", tmp_path / "scores.json", "--device", "cpu", *arguments)
    return json.loads((tmp_path / "scores.json").read_text())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_tuned_model_is_trained_scored_and_searched_with(method, world, tmp_path):
    tuned = tmp_path / "tuned"
    said = invoke("train", "--pairs", world, "--out", tuned, "--method", method, *SMALL).output
    assert f"Tuned model ({method}) saved" in said
    found = scores(world, tmp_path, "--adapter", tuned)
    assert found["encoder"] == f"{method}, last token" and found["fingerprint"] != scores(world, tmp_path)["fingerprint"]
    invoke("embed", world / "images", "--adapter", tuned, "--out", tmp_path / "index", "--device", "cpu")
    assert "score" in invoke("search", "a cat", "--index", tmp_path / "index", "--device", "cpu").output


def test_latents_trained_in_groups_are_scored_both_ways(world, tmp_path):
    invoke("train", "--pairs", world, "--out", tmp_path / "a", "-n", 4, "--group", 1, "--group", 4, "--matryoshka", 32, *SMALL)
    mean, late = (scores(world, tmp_path, "--adapter", tmp_path / "a", *more) for more in ((), ("--late-interaction", 4)))
    assert (mean["encoder"], late["encoder"]) == ("latent queries", "late interaction of 4 latents")
    assert mean["scores"] != late["scores"]
    with pytest.raises(InputError, match="groups of 1, 4"):
        invoke("eval", "--data", world, "--adapter", tmp_path / "a", "--late-interaction", 2, "--device", "cpu")


def test_zero_shot_readouts(world, tmp_path):
    names = ("last_token", "last_token_one_word", "mean_tokens", "zero_token", "zero_token_one_word")
    found = [scores(world, tmp_path, "--readout", name) for name in names]
    assert [one["encoder"] for one in found] == list(names)
    assert len({json.dumps(one["scores"]) for one in found}) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--late-interaction", "4"), "name one with --adapter"),
        (("--readout", "first token"), "Unknown readout 'first token': choose one of last token"),
        (("--readout", "zero_token", "--adapter", "a"), "without an adapter"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments, message, world):
    with pytest.raises(InputError, match=message):
        invoke("eval", "--data", world, *arguments)
