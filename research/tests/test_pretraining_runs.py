"""Pre-training as a whole: a stopped run resumes bit for bit, its weights load like any other model, and means of weights."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from research.pretraining.__main__ import main
from research.pretraining.architecture import IMAGE_TOKENS, build_model, build_processor, train_tokenizer
from research.pretraining.average import average
from research.pretraining.tasks import corpus
from slq.miniature.world.scenes import IMAGE_SIZE, render, sample_scene
from slq.models import load_model
from slq.models.processors import InternVLStillProcessor


@pytest.fixture(scope="module")
def processor() -> InternVLStillProcessor:
    return build_processor(train_tokenizer(corpus(0, samples=2000)))


@pytest.mark.parametrize(("size", "millions"), [("XS", 2.7), ("S", 6.3)])
def test_models_are_as_large_as_their_size_tells(processor, size, millions):
    with torch.device("meta"):
        built = build_model(processor.tokenizer, size)
        images = built.get_image_features(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE)).pooler_output
    assert sum(parameter.numel() for parameter in built.parameters()) / 1e6 == pytest.approx(millions, rel=0.08)
    assert images.shape == (1, IMAGE_TOKENS, built.get_input_embeddings().embedding_dim)


def pretrain(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> None:
    shared = "--steps 4 --rows 2 --workers 0 --image-tasks 2 --word-tasks 1 --save-every 100 --device cpu".split()
    monkeypatch.setattr(sys, "argv", ["pretraining", "--out", str(folder), *shared, *options])
    with torch.random.fork_rng():
        main()


@pytest.mark.slow
def test_a_stopped_run_resumes_bit_for_bit_and_its_weights_ship(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(monkeypatch, whole)
    pretrain(monkeypatch, parts, "--stop-after", "2")
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 2
    halfway = (parts / "weights" / "model.safetensors").read_bytes()
    pretrain(monkeypatch, parts)
    first, second = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, parts))
    assert first["step"] == second["step"] == 4
    assert all(torch.equal(value, second["objective"][name]) for name, value in first["objective"].items())
    assert halfway != (whole / "weights" / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "tokenizer.json", "config.json", "processor_config.json"):
        assert (whole / "weights" / name).read_bytes() == (parts / "weights" / name).read_bytes(), name

    last = json.loads((whole / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4
    assert last.keys() == {"step", "loss", "token_accuracy", "cell_loss", "halfway_loss", "gradient_norm", "images_per_second"}
    assert math.isfinite(last["loss"]) and 0 < last["loss"] < 12
    assert 1 < last["cell_loss"] < 25 and 0 <= last["token_accuracy"] <= 1
    assert (whole / "curves.png").stat().st_size > 1000

    model = load_model(str(whole / "weights"), device="cpu")
    image = render(sample_scene(random.Random(0), 1))
    turns = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what is shown?"}]}]
    inputs = model.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] > IMAGE_TOKENS
    with torch.no_grad():
        written = model.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert inputs["input_ids"].shape[1] < written.shape[1] <= inputs["input_ids"].shape[1] + 4
    trained = model.model.get_input_embeddings().weight
    assert torch.equal(trained, first["objective"]["model.model.language_model.embed_tokens.weight"].to(torch.bfloat16).to(trained.dtype))
    with safe_open(whole / "weights" / "model.safetensors", "pt") as shipped:
        assert {name.split(".")[0] for name in first["objective"]} == {"model", "cells", "halfway"}
        assert not [name for name in shipped.keys() if {"heads", "halfway"} & {*name.split(".")}], "the readers do not ship"  # noqa: SIM118


@pytest.mark.research
def test_a_run_starts_from_weights_with_their_tokens_and_goes_on_from_its_own_checkpoint(tmp_path, monkeypatch):
    """At a rate of zero nothing moves: what is saved is what was started from, whatever the seed would have given."""
    given = tmp_path / "given"
    processor = build_processor(train_tokenizer(corpus(0, samples=2000)))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        build_model(processor.tokenizer).bfloat16().save_pretrained(given)
    processor.save_pretrained(given)
    start = ("--start-from", str(given))
    pretrain(monkeypatch, tmp_path / "still", *start, "--seed", "1", "--rate", "0", "--stop-after", "1")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "still" / "weights" / name).read_bytes() == (given / name).read_bytes(), name

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(monkeypatch, whole, *start, "--stop-after", "2")
    pretrain(monkeypatch, parts, *start, "--stop-after", "1")
    pretrain(monkeypatch, parts, *start, "--stop-after", "2")
    first, second = (torch.load(folder / "checkpoint.pt", weights_only=True)["objective"] for folder in (whole, parts))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (whole / "weights" / "model.safetensors").read_bytes() != (given / "model.safetensors").read_bytes()
    assert (whole / "weights" / "tokenizer.json").read_bytes() == (given / "tokenizer.json").read_bytes()


def test_images_are_prepared_as_in_pre_training(model):
    """By Pillow, whether torchvision is installed or not: transformers would take torchvision's resizing where it is."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    trained_on = build_processor(model.processor.tokenizer).image_processor(image, return_tensors="pt")
    assert torch.equal(model.processor.image_processor(image, return_tensors="pt")["pixel_values"], trained_on["pixel_values"])


# The mean of weights


@pytest.fixture
def folders(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"matrix": torch.full((2, 3), value, dtype=torch.bfloat16)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(name)
    return [tmp_path / "a", tmp_path / "b"]


def test_the_mean_stands_beside_the_files_of_the_first(folders, tmp_path):
    average(folders, tmp_path / "mean")
    matrix = load_file(tmp_path / "mean" / "model.safetensors")["matrix"]
    assert matrix.dtype == torch.bfloat16 and torch.equal(matrix, torch.full((2, 3), 1.5, dtype=torch.bfloat16))
    assert (tmp_path / "mean" / "config.json").read_text() == "a"
    assert load_file(folders[0] / "model.safetensors")["matrix"].sum() == 6


def test_other_models_are_refused(folders, tmp_path):
    save_file({"matrix": torch.ones(3, 3)}, folders[1] / "model.safetensors")
    with pytest.raises(SystemExit, match="not of one model"):
        average(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
