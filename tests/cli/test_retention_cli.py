"""`slq retention` on the miniature: what it prints, writes and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from slq import cli
from slq.adapters.latents import LatentQueries
from slq.cli import retention as command
from slq.encoders import FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.errors import AdapterError
from slq.models import FrozenModel

SMALL = ("--questions", "6", "--device", "cpu")


def invoke(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, ["retention", *map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def adapter(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retention") / "adapter"
    LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(0))).save_pretrained(folder)
    return folder


def test_latent_queries_are_proven_to_leave_everything(adapter, tmp_path):
    said = invoke("--adapter", adapter, "--tasks", "knowledge, reading", "--json", tmp_path / "r.json", "--per-question", *SMALL).stdout
    assert "Weights: the same to the bit after embedding 12 items" in said and "Answers: all 12 the same, text for text." in said
    assert "0 (0 lost, 0 gained)" in said and "+0.0 [+0.0, +0.0]" in said
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["adapter"] == str(adapter) and result["provenance"]["seed"] == 0
    assert result["settings"] == {"batch_size": 32, "questions": 6, "limit": None}
    assert [len(task["answers"]) for task in result["tasks"].values()] == [6, 6]


def test_without_an_adapter_the_model_is_asked(tmp_path):
    said = invoke("--tasks", "spatial", "--limit", 2, "--keep", tmp_path / "kept", *SMALL).stdout
    assert "spatial" in said and "before" not in said and "Weights" not in said
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_what_lora_changed_is_measured(model, tmp_path):
    pytest.importorskip("peft")
    tuned = FineTunedModel(model, "lora")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.trainable:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    tuned.training = {"lora_rank": 8, "lora_alpha": 16, "train_vision_encoder": False}
    tuned.save(tmp_path)
    said = invoke("--adapter", tmp_path, "--tasks", "knowledge", "--json", tmp_path / "r.json", *SMALL).stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert "Weights" not in said and result["method"] == "lora, last token"
    assert result["before"]["weights_sha256"] == result["weights_sha256_at_the_end"] != result["after"]["weights_sha256"]
    assert result["after"]["backbone"]["name"] == "miniature, lora"
    assert result["tasks"]["knowledge"]["change"]["answers"] >= 1


def test_a_broken_proof_is_said_and_ends_with_code_1(adapter, monkeypatch):
    """A model whose weights drift by being used."""
    generate = FrozenModel.generate

    def drifting(self, conversations, max_new_tokens=32):
        answers = generate(self, conversations, max_new_tokens)
        self.embedding.weight.data.copy_(self.embedding.weight.data.roll(7, 0))
        return answers

    monkeypatch.setattr(FrozenModel, "generate", drifting)
    said = invoke("--adapter", adapter, "--tasks", "knowledge", *SMALL, code=1).output
    assert "Weights: NOT the same" in said and "are NOT the same" in said and "slq doctor" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "0"), "Error: A limit of 0 leaves no question to ask"),
        (("--tasks", ","), "Error: Name tasks, each once: none was named."),
        (("--per-question",), "Error: --per-question writes answers into a file: name it with --json."),
        (("--adapter", "nowhere/at-all", "--max-text-tokens", "9"), "leave out --max-text-tokens"),
    ],
)
def test_what_is_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slq", "retention", "--questions", "2", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr().err
    assert ended.value.code == 1 and message in shown and shown.count("\n") == 1


def test_a_damaged_tuned_model_is_said(tmp_path):
    (tmp_path / "tuned.json").write_text("{}")
    with pytest.raises(AdapterError, match=r"is damaged .*train it again"):
        invoke("--adapter", tmp_path, "--tasks", "knowledge", *SMALL)


def test_an_adapter_lies_over_the_model_that_is_asked(adapter):
    before, encoder = command._before_and_learned(command.loading.Loading(device="cpu"), str(adapter), None)
    assert encoder is not None and encoder.model is before
