"""A wrong value is named in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import refused


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "gone.jsonl", "--output", "OUT"], "gone.jsonl"),
        (["train", "CAPTIONS", "--output", "OUT", "--batch-size", "1"], "--batch-size must be at least 2"),
        (["train", "CAPTIONS", "--output", "OUT", "--num-latents", "0"], "--num-latents must be at least 1"),
        (["train", "CAPTIONS", "--output", "OUT", "--init", "best"], "best"),
        (["train", "CAPTIONS", "--output", "OUT", "--model", "./gone"], "gone"),
        (["train", "CAPTIONS", "--output", "OUT", "--dtype", "int3"], "int3"),
        (["train", "CAPTIONS", "--output", "OUT", "--quantization", "3bit"], "3bit"),
        (["train", "CAPTIONS", "--output", "OUT", "--preprocessing", "best"], "best"),
        (["train", "CAPTIONS", "--output", "OUT", "--max-pixels", "1000"], "max_pixels"),
        (["train", "CAPTIONS", "--output", "OUT", "--device", "cpu", "--device-map", "auto"], "device_map"),
        (["doctor", "--quantization", "3bit"], "3bit"),
        (["doctor", "--preprocessing", "best"], "best"),
        (["doctor", "--quiet", "--model", "./gone"], "gone"),
        (["doctor", "--quiet", "--model", "ADAPTER", "--instruction", "in one word"], "leave out instruction"),
        (["eval", "QUESTIONS", "--model", "ADAPTER", "--preprocessing", "native"], "leave out preprocessing"),
        (["eval", "QUESTIONS", "--max-length", "0"], "--max-length must be at least 1"),
        (["eval", "gone", "--model", "ADAPTER"], "gone"),
        (["eval", "QUESTIONS", "--split", "dev"], "dev"),
        (["eval", "--model", "ADAPTER"], "--benchmark"),
        (["eval", "QUESTIONS", "--variant", "five"], "variant belongs to a benchmark"),
        (["eval", "QUESTIONS", "--prompts"], "prompts belongs to a benchmark"),
        (["eval", "QUESTIONS", "--data-revision", "main"], "data_revision belongs to a benchmark"),
        (["eval", "QUESTIONS", "--per-query"], "--output"),
        (["compare", "gone.json", "gone.json"], "cannot be read"),
        (["embed", "gone", "--model", "ADAPTER", "--output", "OUT"], "gone"),
        (["sample-data", "--split", "dev", "--output", "OUT"], "dev"),
        (["sample-data", "--count", "0", "--output", "OUT"], "--count must be at least 1"),
        pytest.param(
            ["search", "cat", "--collection", "INDEX", "--device", "abacus"],
            "abacus",
        ),
        pytest.param(
            ["train", "CAPTIONS", "--output", "OUT", "--learning-rate", "-1"],
            "--learning-rate must be above 0",
        ),
        pytest.param(
            ["train", "CAPTIONS", "--output", "OUT", "--max-steps", "-1"],
            "--max-steps must be at least 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_named(arguments, named, tiny_world, adapter, index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = tiny_world / "test"
    places = {
        "OUT": tmp_path / "out",
        "ADAPTER": adapter,
        "INDEX": index,
        "CAPTIONS": test / "captions.jsonl",
        "QUESTIONS": test / "knowledge",
    }
    assert named in refused(*[places.get(argument, argument) for argument in arguments])
    assert not (tmp_path / "out" / "adapter.safetensors").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_bad_adapter_is_named(images, adapter, tmp_path):
    assert "is neither an adapter nor a base model" in refused("embed", images, "--model", images, "--output", tmp_path / "one")
    shutil.copytree(adapter, tmp_path / "cut")
    cut(tmp_path / "cut" / "adapter.safetensors")
    assert "is corrupt" in refused("embed", images, "--model", tmp_path / "cut", "--output", tmp_path / "two")
