"""A wrong value is named in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import refused


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--pairs", "gone.jsonl", "--out", "OUT"], "gone.jsonl"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--batch-size", "1"], "batch_size"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--num-latents", "0"], "num_latents"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--init", "best"], "best"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--model", "./gone"], "gone"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--dtype", "int3"], "int3"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--quantization", "3bit"], "3bit"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--preprocessing", "best"], "best"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--max-pixels", "1000"], "max_pixels"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--device", "cpu", "--device-map", "auto"], "device_map"),
        (["doctor", "--quantization", "3bit"], "3bit"),
        (["doctor", "--preprocessing", "best"], "best"),
        (["doctor", "--model", "./gone"], "gone"),
        (["doctor", "--adapter", "ADAPTER", "--instruction", "in one word"], "--instruction"),
        (["eval", "--data", "QUESTIONS", "--adapter", "ADAPTER", "--preprocessing", "native"], "--preprocessing"),
        (["eval", "--data", "QUESTIONS", "--max-text-tokens", "0"], "max_text_tokens"),
        (["eval", "--data", "gone", "--adapter", "ADAPTER"], "gone"),
        (["eval", "--data", "QUESTIONS", "--split", "dev"], "dev"),
        (["eval", "--adapter", "ADAPTER"], "--benchmark"),
        (["eval", "--data", "QUESTIONS", "--variant", "five"], "--variant belongs to a benchmark"),
        (["eval", "--data", "QUESTIONS", "--prompts"], "--prompts belongs to a benchmark"),
        (["eval", "--data", "QUESTIONS", "--data-revision", "main"], "--data-revision belongs to a benchmark"),
        (["eval", "--data", "QUESTIONS", "--per-query"], "--json"),
        (["compare", "gone.json", "gone.json"], "cannot be read"),
        (["embed", "gone", "--adapter", "ADAPTER", "--out", "OUT"], "gone"),
        (["world", "--split", "dev", "--out", "OUT"], "dev"),
        (["world", "--count", "0", "--out", "OUT"], "count"),
        pytest.param(
            ["search", "cat", "--index", "INDEX", "--device", "abacus"],
            "abacus",
        ),
        pytest.param(
            ["train", "--pairs", "CAPTIONS", "--out", "OUT", "--learning-rate", "-1"],
            "learning_rate",
        ),
        pytest.param(
            ["train", "--pairs", "CAPTIONS", "--out", "OUT", "--max-steps", "-1"],
            "max_steps",
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
    assert "slq_adapter.json" in refused("embed", images, "--adapter", images, "--out", tmp_path / "one")
    shutil.copytree(adapter, tmp_path / "cut")
    cut(tmp_path / "cut" / "adapter.safetensors")
    assert "damaged" in refused("embed", images, "--adapter", tmp_path / "cut", "--out", tmp_path / "two")
