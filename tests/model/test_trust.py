"""What a stranger's model, adapter or fine-tuned model may make this machine do: nothing but lend its numbers."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers.dynamic_module_utils
from command_line import refused
from safetensors.torch import load_file, save_file

from slq.adapters.files import Adapter
from slq.encoders.finetuned import FINETUNED_FILE, FineTuneRecord
from slq.errors import AdapterError, FingerprintMismatchError, ModelError, SlqError
from slq.models import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(model, tmp_path, monkeypatch) -> Path:
    """The miniature as a folder of its own, and a place for what code of its own would be copied to."""
    folder = tmp_path / "base"
    model.model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def refusal(name: object, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(name), device="cpu", **options)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class Leaves:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


# --- code -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_of_another_repository_is_not_covered(folder, file):
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    rewrite(folder / file, auto_map={"AutoConfig": "own.Config", "AutoTokenizer": ["stranger/evil--code.Tokenizer", None]})
    said = refusal(folder, trust_remote_code=True)
    assert "'stranger/evil'" in said and "the one model that you name" in said


def test_code_named_deep_inside_is_found(folder):
    nested: dict = {"auto_map": {"AutoModel": "stranger/evil--code.Model"}}
    for _ in range(50):
        nested = {"text_config": [nested]}
    rewrite(folder / "config.json", **nested)
    assert "stranger/evil" in refusal(folder, trust_remote_code=True)


def test_a_peft_adapter_does_not_stand_for_another_model(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "stranger/evil"}))
    for trust in (False, True):
        said = refusal(folder, trust_remote_code=trust)
        assert "adapter of PEFT over 'stranger/evil'" in said


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], COMMIT.upper()])
def test_trust_needs_the_commit_that_was_read(revision):
    said = refusal("somebody/model", revision=revision, trust_remote_code=True)
    assert "--revision" in said and "40 digits" in said


def test_trust_at_a_commit_goes_on_to_the_model():
    assert "not on this machine" in refusal("somebody/model", revision=COMMIT, trust_remote_code=True)


def test_trust_does_not_cover_what_a_collection_names(tmp_path):
    (tmp_path / "index").mkdir()
    np.savez(tmp_path / "index" / "vectors.npz", vectors=np.zeros((1, 4), np.float32))
    (tmp_path / "index" / "items.jsonl").write_text('{"id": "a"}\n')
    about = {"fingerprint": "x", "failures": [], "adapter": "stranger/evil"}
    (tmp_path / "index" / "embeddings.json").write_text(json.dumps(about))
    said = refused("search", "a cat", "-c", tmp_path / "index", "--trust-remote-code")
    assert "trust_remote_code holds for a model that you name" in said


# --- pickles --------------------------------------------------------------------------------------------------------------


def test_weights_in_a_pickle_are_not_read(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Leaves(tmp_path / "ran")))
    assert "pickle files (.bin, .pt) are not read" in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_no_reader_unpickles():
    """Of torch, numpy, pandas and pickle itself, nothing is called that runs what a file says."""
    calls = ("pickle.load", "joblib.load", "dill.load", "read_pickle", "allow_pickle=True", "weights_only=False", "yaml.load(", "eval(")
    sources = [
        path for root in ("src", "packages") for path in Path(__file__).parents[2].joinpath(root).rglob("*.py") if "tests" not in path.parts
    ]
    assert len(sources) > 100
    for path in sources:
        text = path.read_text(encoding="utf-8").replace(".eval()", "").replace("literal_eval(", "")
        assert not [call for call in calls if call in text], path
        assert "torch.load(" not in text or "weights_only=True" in text, path


# --- adapters -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(adapter, tmp_path) -> Path:
    shutil.copytree(adapter, tmp_path / "adapter")
    return tmp_path / "adapter"


def unreadable(folder: Path) -> str:
    with pytest.raises((AdapterError, FingerprintMismatchError)) as caught:
        Adapter.load(folder)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def test_an_adapter_without_one_of_its_files_says_which(copied):
    (copied / "adapter.safetensors").rename(copied / "moved")
    assert "it has no adapter.safetensors" in unreadable(copied)
    (copied / "moved").rename(copied / "adapter.safetensors")
    (copied / "slq_adapter.json").unlink()
    assert "it has no slq_adapter.json" in unreadable(copied)


def test_torn_weights_are_refused(copied):
    content = (copied / "adapter.safetensors").read_bytes()
    for size in (0, 4, 20, len(content) // 2, len(content) - 1):
        (copied / "adapter.safetensors").write_bytes(content[:size])
        assert "corrupt" in unreadable(copied)
    (copied / "adapter.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "corrupt" in unreadable(copied)


@pytest.mark.parametrize("change", ["shape", "integers", "not finite", "missing", "one more"])
def test_other_tensors_are_refused(copied, change):
    tensors = load_file(copied / "adapter.safetensors")
    latents = tensors["latents"]
    changed: dict[str, dict] = {
        "shape": {"latents": latents[:, :-1].contiguous()},
        "integers": {"latents": latents.to(torch.int64)},
        "not finite": {"latents": latents.clone().index_fill_(0, torch.tensor([0]), float("nan"))},
        "one more": {"more": latents.clone()},
    }
    tensors = {"latents": latents} if change == "missing" else {**tensors, **changed[change]}
    save_file(tensors, copied / "adapter.safetensors")
    assert "belong together" in unreadable(copied) or "corrupt" in unreadable(copied)


OTHER = [None, True, 0, -1, 1.5, 10**30, "x", "x" * 10**6, [], [[]], {}, {"a": 1}]


def test_values_of_other_types_are_refused_or_read(copied):
    """Whatever a value of the description is, the adapter loads or is refused in a sentence."""
    whole = json.loads((copied / "slq_adapter.json").read_text())
    refusals = 0
    for name in whole:
        for value in OTHER:
            (copied / "slq_adapter.json").write_text(json.dumps({**whole, name: value}))
            try:
                assert np.isfinite(Adapter.load(copied).queries.latents.detach().numpy()).all()
            except SlqError as error:
                refusals += 1
                assert len(str(error)) < 700
    assert refusals > 8 * len(whole)
    for name in whole["base_model"]:
        for value in OTHER:
            (copied / "slq_adapter.json").write_text(json.dumps({**whole, "base_model": {**whole["base_model"], name: value}}))
            try:
                Adapter.load(copied)
            except SlqError as error:
                assert len(str(error)) < 700


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"null", b'"x"', b"{", b"[" * 100_000, b"\xff\xfe", b"9" * 5_000, b"{" + b" " * 2**25]
)
def test_other_json_is_refused(copied, content):
    (copied / "slq_adapter.json").write_bytes(content)
    assert "corrupt" in unreadable(copied)
    (copied / FINETUNED_FILE).write_bytes(content)
    with pytest.raises(AdapterError, match="corrupt"):
        FineTuneRecord.read(copied)


def test_more_latents_than_the_file_holds_take_no_memory(copied):
    rewrite(copied / "slq_adapter.json", num_latents=2**30, dim=2**30)
    assert "do not belong together" in unreadable(copied)
