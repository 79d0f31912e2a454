"""The command line for what is compared with latent queries, and for their variants: train, evaluate, search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import invoke, refused

SMALL = ("--batch-size", "8", "--max-steps", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("methods") / "sample-data"
    invoke("sample-data", "--split", "train", "--count", 24, "--output", folder)
    return folder


def scores(world: Path, tmp_path: Path, *arguments: object) -> dict:
    invoke("eval", world, "--output", tmp_path / "scores.json", "--overwrite", "--device", "cpu", *arguments)
    return json.loads((tmp_path / "scores.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_tuned_model_is_trained_scored_and_searched_with(method, world, tmp_path):
    tuned = tmp_path / "tuned"
    said = invoke("train", world, "--output", tuned, "--method", method, *SMALL).output
    assert f"Fine-tuned model ({method}) saved" in said
    found = scores(world, tmp_path, "--model", tuned)
    assert found["encoder"]["kind"] == method and found["fingerprint"] != scores(world, tmp_path)["fingerprint"]
    invoke("embed", world / "images", "--model", tuned, "--output", tmp_path / "index", "--device", "cpu")
    assert "score" in invoke("search", "a cat", "--collection", tmp_path / "index", "--device", "cpu").output


@pytest.mark.slow
def test_latents_trained_in_groups_are_scored_both_ways(world, tmp_path):
    invoke(
        "train",
        world,
        "--output",
        tmp_path / "a",
        "-n",
        4,
        "--multi-vector-size",
        1,
        "--multi-vector-size",
        4,
        "--matryoshka-dims",
        32,
        *SMALL,
    )
    mean, late = (scores(world, tmp_path, "--model", tmp_path / "a", *more) for more in ((), ("--multi-vector-size", 4)))
    assert (mean["encoder"]["kind"], late["encoder"]["kind"]) == ("latents", "multi_vector")
    assert mean["scores"] != late["scores"]
    assert "trained with sizes 1, 4" in refused("eval", world, "--model", tmp_path / "a", "--multi-vector-size", 2, "--device", "cpu")


@pytest.mark.slow
def test_zero_shot_readouts(world, tmp_path):
    names = ("last_token", "last_token_one_word", "mean_tokens", "zero_token", "zero_token_one_word")
    found = [scores(world, tmp_path, "--baseline", name) for name in names]
    assert [one["encoder"]["kind"] for one in found] == [name.removesuffix("_one_word") for name in names]
    assert len({json.dumps(one["scores"]) for one in found}) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--multi-vector-size", "4"), "compares the latent queries of an adapter, and miniature is a base model"),
        (("--baseline", "first_token"), 'Invalid value "first_token" for --baseline'),
        (("--baseline", "zero_token", "--model", "ADAPTER"), "baseline is for base models"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments, message, world, adapter):
    assert message in refused("eval", world, *[adapter if each == "ADAPTER" else each for each in arguments])
