"""`slq retention` on the miniature: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import Said, refused
from command_line import invoke as invoke_slq

from slq.adapters.latents import LatentQueries
from slq.config import ModelConfig
from slq.encoders import FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.encoders.opening import open_base_and_encoder
from slq.models import FrozenModel

SMALL = ("--num-questions", "6", "--device", "cpu")


def invoke(*arguments: object, code: int = 0) -> Said:
    return invoke_slq("retention", *arguments, code=code)


@pytest.fixture(scope="module")
def adapter(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retention") / "adapter"
    LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(0))).save_pretrained(folder)
    return folder


def test_latent_queries_are_proven_to_leave_everything(adapter, tmp_path):
    said = invoke(
        "--model", adapter, "--task", "knowledge", "--task", "reading", "--output", tmp_path / "r.json", "--per-question", *SMALL
    ).stdout
    assert "Weights: bit-identical after encoding 12 items" in said and "Answers: all 12 the same, text for text." in said
    assert "0 (0 lost, 0 gained)" in said and "+0.0 [+0.0, +0.0]" in said
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["adapter"] == str(adapter) and result["provenance"]["seed"] == 0
    assert result["settings"] == {"batch_size": 32, "questions": 6, "limit": None}
    assert [len(task["answers"]) for task in result["tasks"].values()] == [6, 6]


def test_without_an_adapter_the_model_is_asked(tmp_path):
    said = invoke("--task", "spatial", "--limit", 2, "--cache-dir", tmp_path / "kept", *SMALL).stdout
    assert "spatial" in said and "before" not in said and "Weights" not in said
    assert len(list((tmp_path / "kept").glob("*/*.json"))) == 1


@pytest.mark.slow
def test_what_lora_changed_is_measured(model, tmp_path):
    pytest.importorskip("peft")
    tuned = FineTunedModel(model, "lora")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.trainable:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    tuned.training = {"lora_rank": 8, "lora_alpha": 16, "train_vision_encoder": False}
    tuned.save(tmp_path)
    said = invoke("--model", tmp_path, "--task", "knowledge", "--output", tmp_path / "r.json", *SMALL).stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert "Weights" not in said and result["encoder"]["kind"] == "lora"
    assert result["before"]["weights_sha256"] == result["weights_sha256_at_the_end"] != result["after"]["weights_sha256"]
    assert result["after"]["base_model"]["name"] == "miniature, lora"
    assert result["tasks"]["knowledge"]["change"]["answers"] >= 1


def test_a_broken_proof_is_said_and_ends_with_code_1(adapter, monkeypatch):
    """A model whose weights drift by being used."""
    generate = FrozenModel.generate

    def drifting(self, conversations, max_new_tokens=32):
        answers = generate(self, conversations, max_new_tokens)
        self.embedding.weight.data.copy_(self.embedding.weight.data.roll(7, 0))
        return answers

    monkeypatch.setattr(FrozenModel, "generate", drifting)
    said = invoke("--model", adapter, "--task", "knowledge", *SMALL, code=1).output
    assert "Weights: NOT the same" in said and "are NOT the same" in said and "slq doctor" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "0"), "Error: --limit must be at least 1, not 0."),
        (("--task", "spatial", "--task", "spatial"), "Error: Name tasks, each once: spatial, spatial."),
        (("--per-question",), "Error: per_question writes answers to a file: name it with --output."),
        (("--model", "ADAPTER", "--max-length", "9"), "brings its own preprocessing: leave out max_length."),
    ],
)
def test_what_is_refused(arguments, message, adapter):
    given = [adapter if each == "ADAPTER" else each for each in arguments]
    assert message in refused("retention", "--num-questions", 2, *given)


def test_a_damaged_tuned_model_is_said(tmp_path):
    (tmp_path / "tuned.json").write_text("{}")
    said = refused("retention", "--model", tmp_path, "--task", "knowledge", *SMALL)
    assert "is corrupt" in said and "train it again" in said


def test_an_adapter_lies_over_the_model_that_is_asked(adapter):
    before, encoder = open_base_and_encoder(ModelConfig(model=str(adapter), device="cpu"))
    assert encoder is not None and encoder.model is before
