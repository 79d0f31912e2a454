"""Files of what was learned: formats of earlier versions, what a fingerprint covers, the model card, and the way to the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hub_stand_in import HubStandIn
from safetensors.torch import save_file

from slq.adapters.card import model_card
from slq.adapters.files import Adapter
from slq.adapters.latents import LatentQueries
from slq.encoders import BASELINES, FineTunedModel, LatentEncoder, MultiVectorEncoder, load_encoder
from slq.encoders.finetuned import FineTuneRecord
from slq.errors import AdapterError, FingerprintMismatchError, InputError
from slq.models import load_model
from slq.types import Item

# What versions before this one wrote, as text, for a model of 4 dimensions.
IDENTITY = """{
    "name": "miniature",
    "revision": "0123456789abcdef",
    "template": "fedcba9876543210",
    "preprocessing": {
      "name": "paper",
      "max_pixels": null,
      "max_text_tokens": 128,
      "instruction": "",
      "pictures": {}
    },
    "dim": 4,
    "dtype": "float32"
  }"""
FORMAT_2 = """{
  "format_version": 2,
  "num_latents": 2,
  "dim": 4,
  "generation_prompt": true,
  "pooling": "mean",
  "backbone": %s,
  "training": {
    "seed": 0
  }
}
"""
FORMAT_3 = """{
  "format_version": 3,
  "num_latents": 2,
  "dim": 4,
  "generation_prompt": false,
  "pooling": "last",
  "readout": "before_mlp",
  "per_modality": true,
  "groups": [
    1,
    2
  ],
  "backbone": %s,
  "training": {
    "start_share": 0.25
  }
}
"""


def test_files_of_two_trainings_are_no_adapter(tmp_path):
    """As a crash between the two writes leaves them, or somebody who copies one."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        queries = LatentQueries.create(2, 4, generator=torch.Generator().manual_seed(len(name)))
        Adapter(queries, json.loads(IDENTITY)).save(tmp_path / name)
        assert torch.equal(Adapter.load(tmp_path / name).queries.latents, queries.latents)
    shutil.copy(tmp_path / "other/adapter.safetensors", tmp_path / "one")
    with pytest.raises(FingerprintMismatchError, match="do not belong together"):
        Adapter.load(tmp_path / "one")


def earlier(folder: Path, config: str, shape: tuple[int, ...]) -> torch.Tensor:
    """An adapter as an earlier version left it; its latent queries."""
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    save_file({"latents": latents, "log_temperature": torch.tensor(-2.5)}, folder / "adapter.safetensors")
    (folder / "adapter_config.json").write_text(config % IDENTITY)
    return latents


def test_format_2_is_read(tmp_path):
    latents = earlier(tmp_path, FORMAT_2, (2, 4))
    found = Adapter.load(tmp_path)
    plain = {"pooling": "mean", "hidden_state": "final", "modality_specific": False, "multi_vector_sizes": ()}
    assert found.queries.config == {"generation_prompt": True, **plain}
    assert torch.equal(found.queries.latents, latents) and found.base_model == json.loads(IDENTITY) and found.training == {"seed": 0}


def test_format_3_is_read_and_saved_as_format_4(tmp_path):
    latents = earlier(tmp_path, FORMAT_3, (2, 2, 4))
    found = Adapter.load(tmp_path)
    named = {"pooling": "last", "hidden_state": "pre_mlp", "modality_specific": True, "multi_vector_sizes": (1, 2)}
    assert found.queries.config == {"generation_prompt": False, **named} and found.training == {"wise_ft_alpha": 0.75}
    (tmp_path / "again").mkdir()
    found.save(tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["adapter.safetensors", "slq_adapter.json"]
    again = Adapter.load(tmp_path / "again")
    assert again.queries.config == found.queries.config and torch.equal(again.queries.latents, latents)
    assert (again.base_model, again.training) == (found.base_model, found.training)


@pytest.mark.parametrize(("name", "version"), [("adapter_config.json", 1), ("adapter_config.json", 4), ("slq_adapter.json", 3)])
def test_other_formats_are_refused(tmp_path, name, version):
    earlier(tmp_path, FORMAT_3.replace('"format_version": 3', f'"format_version": {version}'), (2, 2, 4))
    (tmp_path / "adapter_config.json").rename(tmp_path / name)
    with pytest.raises(AdapterError, match=f"format {version}"):
        Adapter.load(tmp_path)


def test_adapter_of_another_library_is_no_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(AdapterError, match="adapter of PEFT"):
        Adapter.load(tmp_path)


def test_earlier_record_of_a_fine_tuned_model_is_read(tmp_path):
    training = {"lora_rank": 8, "lora_alpha": 16, "tune_vision": False, "start_share": 0.5}
    record = {"format_version": 1, "method": "lora", "backbone": json.loads(IDENTITY), "training": training}
    (tmp_path / "tuned.json").write_text(json.dumps(record, indent=2) + "\n")
    found = FineTuneRecord.read(tmp_path)
    assert FineTunedModel.is_in(tmp_path) and found.base_model == json.loads(IDENTITY)
    assert found.training == {"lora_rank": 8, "lora_alpha": 16, "train_vision_encoder": False, "wise_ft_alpha": 0.5}
    found.write(tmp_path)
    assert FineTuneRecord.read(tmp_path) == found and (tmp_path / "finetuned.json").is_file()


def test_remote_code_is_for_models_that_are_named(model, tmp_path):
    LatentEncoder(model, LatentQueries(2, model.dim)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match="trust_remote_code holds for a model that you name"):
        load_encoder(tmp_path / "adapter", trust_remote_code=True)
    named = load_encoder(tmp_path / "adapter", name="miniature", trust_remote_code=True, device="cpu")
    assert named.model.identity.name == "miniature"


@pytest.mark.slow
def test_fingerprint_tells_apart_what_embeds_differently(model):
    queries = LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(0))
    changes = [{"pooling": "last"}, {"hidden_state": "pre_mlp"}, {"generation_prompt": False}, {"multi_vector_sizes": (2,)}]
    others = [LatentQueries(4, model.dim, **change) for change in changes]
    for other in others:
        other.load_state_dict(queries.state_dict())
    loras = []
    for alpha in (16, 32):  # the same matrices, another scale
        torch.manual_seed(0)
        loras.append(FineTunedModel(model, "lora", alpha=alpha))
    latent = [LatentEncoder(model, each) for each in (queries, *others)]
    vectors = MultiVectorEncoder(latent[-1], 2)
    encoders = [*latent, *loras, FineTunedModel(model, "full"), vectors, *(make(model) for make in BASELINES.values())]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    described = [json.dumps(encoder.describe()) for encoder in encoders if encoder not in loras]
    assert len(set(described)) == len(described) and all({"kind", "pooling"} <= set(json.loads(each)) for each in described)


def test_encoding_leaves_global_random_numbers_alone(model):
    encoder = LatentEncoder(model, LatentQueries(2, model.dim))
    before = torch.get_rng_state()
    encoder.encode([Item("a red cat"), Item("two blue dogs")])
    assert torch.equal(torch.get_rng_state(), before)


def test_card_names_base_model_and_use(tmp_path):
    earlier(tmp_path, FORMAT_2, (2, 4))
    adapter = Adapter.load(tmp_path)
    header, body = model_card(adapter, "owner/adapter").split("\n---\n")
    assert header.startswith("---\nlibrary_name: slq\n") and "base_model" not in header and "sentence-transformers" not in header
    assert 'slq.load("owner/adapter")' in body and "2 latent queries of 4 dimensions" in body
    on_hub = Adapter(adapter.queries, {**adapter.base_model, "name": "OpenGVLab/InternVL3-1B-hf"})
    assert "base_model: OpenGVLab/InternVL3-1B-hf\nbase_model_relation: adapter\n" in model_card(on_hub)
    local = Adapter(adapter.queries, {**adapter.base_model, "name": "/home/someone/model"})
    assert "someone" not in model_card(local)


PUSH = """
import sys
from pathlib import Path
from slq.adapters.card import push_to_hub
from slq.adapters.files import Adapter
print(push_to_hub(Adapter.load(Path(sys.argv[1])), "owner/adapter"))
"""


@pytest.mark.process
def test_adapter_is_pushed_with_its_card(tmp_path):
    earlier(tmp_path, FORMAT_2, (2, 4))
    with HubStandIn() as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub"), "HF_TOKEN": "hf_of_no_one"}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "127.0.0.1"}
        command = [sys.executable, "-c", PUSH, str(tmp_path)]
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        files = hub.repos["models", "owner/adapter", "main"]
    assert done.stdout.startswith(f"{hub.url}/owner/adapter/commit/")
    assert sorted(files) == ["README.md", "adapter.safetensors", "slq_adapter.json"]
    assert files["adapter.safetensors"] == (tmp_path / "adapter.safetensors").read_bytes()
    assert json.loads(files["slq_adapter.json"])["base_model"] == json.loads(IDENTITY)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["latents", "lora"])
def test_what_was_learned_moves_with_a_base_model_beside_it(kind, tmp_path, monkeypatch):
    here = tmp_path / "here"
    shutil.copytree(str(files("slq.miniature").joinpath("weights")), here / "models" / "base")
    monkeypatch.chdir(here)
    base = load_model("models/base", device="cpu")
    if kind == "lora":
        pytest.importorskip("peft")
        tuned = FineTunedModel(base, "lora")
        tuned.training = {"lora_rank": 8, "lora_alpha": 16, "train_vision_encoder": False}
        (here / "learned").mkdir()
        tuned.save(here / "learned")
    else:
        LatentEncoder(base, LatentQueries.create(2, base.dim)).save_pretrained("learned")
    here.rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    assert load_encoder("there/learned", device="cpu").fingerprint
    name = "finetuned.json" if kind == "lora" else "slq_adapter.json"
    told = json.loads((tmp_path / "there" / "learned" / name).read_text())
    assert told["base_model"]["name"] == "../models/base"
