"""Loading a model: what each option does, and one clear sentence for everything that cannot be loaded."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers.dynamic_module_utils
from tolerance import FORWARD, assert_close
from transformers import Qwen2Config, Qwen2ForCausalLM, T5Config, T5ForConditionalGeneration

from slq.adapters.latents import LatentQueries
from slq.errors import MissingExtraError, ModelError
from slq.models import FrozenModel, load_model
from slq.pooling import MeanPooling

TINY = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """The miniature as a folder of its own, to be spoilt."""
    folder = tmp_path / "backbone"
    model.model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


def refusal(name: object, **options: object) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def embed(model: FrozenModel, items) -> torch.Tensor:
    queries = LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return MeanPooling()(model.decode_latents(model.prefill(model.prepare(items)), queries.latents))


# --- options --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dtype_is_that_of_weights_and_embeddings(model, items):
    half = load_model(dtype="bfloat16", device="cpu")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    assert half.identity.dtype == "bfloat16"
    assert (embed(half, items) - embed(model, items)).norm(dim=1).max() < 0.05


@pytest.mark.parametrize("option", [{"attn_implementation": "eager", "device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}])
def test_how_it_is_run_does_not_change_the_numbers(model, items, option):
    other = load_model(**option)
    wanted = option.get("attn_implementation", "slq_sdpa")
    assert other.model.config.get_text_config()._attn_implementation == wanted
    assert other.identity == model.identity
    assert_close(embed(other, items), embed(model, items), steps=FORWARD)


def test_code_that_comes_with_weights_runs_only_on_demand(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Config:\n    pass\n")
    rewrite(folder / "config.json", model_type="foreign", auto_map={"AutoConfig": "foreign.Config"})
    assert "Python code of its own" in refusal(folder)
    assert not (tmp_path / "ran").exists()
    with pytest.raises((ModelError, AttributeError)):  # it is no configuration
        load_model(str(folder), trust_remote_code=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantization_without_its_package(quantization):
    with pytest.raises(MissingExtraError, match="pip install bitsandbytes"):
        load_model(quantization=quantization)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize(("quantization", "tolerance"), [("8bit", 0.2), ("4bit", 0.6)])
def test_quantized_it_is_almost_the_same(model, items, quantization, tolerance):
    quantized = load_model(device="cpu", quantization=quantization)
    assert quantized.identity.dtype == quantization
    assert quantized.model.get_memory_footprint() < 0.8 * model.model.get_memory_footprint()
    assert (embed(quantized, items) - embed(model, items)).norm(dim=1).mean() < tolerance


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dtype": "float13"}, "Unknown dtype 'float13'"),
        ({"quantization": "3bit"}, "Unknown quantization '3bit'"),
        ({"attn_implementation": "fast"}, 'Specified `attn_implementation="fast"` is not supported'),
        ({"device_map": "everywhere"}, "device_map"),
        ({"device": "cpu", "device_map": "auto"}, "not both"),
        ({"revision": "v1"}, "has no revisions"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense(options, named):
    assert named in refusal("miniature", **options)


def test_a_text_only_model(tmp_path):
    Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=1, **TINY)).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "qwen2 model, which does not take images" in message
    assert "OpenGVLab/InternVL3-1B-hf" in message


def test_an_encoder_decoder(tmp_path):
    T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    assert "is an encoder-decoder" in refusal(tmp_path)


def test_no_processor(folder):
    (folder / "processor_config.json").unlink()
    assert "no processor for images and text" in refusal(folder)
    for file in [*folder.glob("tokenizer*"), *folder.glob("*.jinja")]:
        file.unlink()
    assert "no processor for images and text" in refusal(folder)


def test_no_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(folder)


def test_no_weights_and_broken_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "Cannot load the model" in refusal(folder)
    weights.unlink()
    assert "model.safetensors" in refusal(folder)


def test_a_hub_id_while_offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("nobody/nothing-of-this-name")
    assert "'nobody/nothing-of-this-name'" in message
    assert "HF_HUB_OFFLINE is set" in message


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its five attempts
    assert "the hub cannot be reached" in refusal("nobody/nothing-of-this-name")


# --- adapters -------------------------------------------------------------------------------------------------------------
