"""One model in other precisions, on other threads and in other processes: always the numbers it says, or an error."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tolerance import FORWARD, assert_close

import slq
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.encoders import BASELINES, LatentEncoder, MultiVectorEncoder
from slq.errors import InputError
from slq.integrations.sentence_transformers import as_sentence_transformer
from slq.models import load_model

HALF = 0.06  # what bfloat16 and float16 may round a vector of length 1 by


@pytest.fixture
def encoder() -> LatentEncoder:
    """Over a model of its own, which may be changed."""
    model = load_model(device="cpu")
    return LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "half", "to"])
def test_a_model_of_sentence_transformers_changes_its_precision(encoder, items, dtype, cached):
    encoder.cache = KVCache() if cached else None
    wanted, before, prefixes = encoder.encode(items[:3]).vectors, encoder.fingerprint, encoder.model.fingerprint
    model = as_sentence_transformer(encoder)
    changed = model.to(torch.bfloat16) if dtype == "to" else getattr(model, dtype)()
    found = changed.encode([items[0].text, items[1].text, items[2].text])
    assert found.dtype == np.float32 and 0 < np.abs(found - wanted).max() < HALF
    named = "float16" if dtype == "half" else "bfloat16"
    assert encoder.model.identity.dtype == named and encoder.model.fingerprint != prefixes, "prefixes in float32 are not taken for these"
    assert encoder.fingerprint != before, "the latent queries were rounded"
    assert np.abs(encoder.encode(items[:3]).vectors - found).max() < HALF / 10


@pytest.mark.parametrize(
    ("given", "dtype", "attention"),
    [
        ({"dtype": torch.bfloat16}, torch.bfloat16, "slq_sdpa"),
        ({"torch_dtype": "bfloat16", "attn_implementation": "eager"}, torch.bfloat16, "eager"),
        ({"dtype": "auto"}, torch.float32, "slq_sdpa"),
        (None, torch.float32, "slq_sdpa"),
    ],
)
def test_model_kwargs_of_sentence_transformers_are_passed_on(encoder, tmp_path, given, dtype, attention):
    from sentence_transformers import SentenceTransformer

    as_sentence_transformer(encoder).save(str(tmp_path / "saved"))
    named = {"device": "cpu", "model_kwargs": given}
    for model in (SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, **named), slq.load(tmp_path / "saved", **named)):
        network = model[0].encoder.model.model
        assert network.dtype == dtype and network.get_decoder().config._attn_implementation == attention
        assert np.isfinite(model.encode("a red cat")).all()


def test_model_kwargs_that_would_be_dropped_are_refused(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match="model_kwargs subfolder cannot be passed on"):
        slq.load(str(tmp_path / "adapter"), model_kwargs={"subfolder": "x"})


def test_an_encoder_is_handed_to_another_process(encoder, items):
    again = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(again.encode(items[:3]).vectors, encoder.encode(items[:3]).vectors)
    assert again.fingerprint == encoder.fingerprint
    other = encoder.model.with_model(encoder.model.model, "another")
    assert other.lock is encoder.model.lock, "both run the same weights"


def test_models_are_loaded_in_threads():
    with ThreadPoolExecutor(3) as pool:
        loaded = [each.result() for each in [pool.submit(load_model, device="cpu") for _ in range(6)]]
    assert len({model.fingerprint for model in loaded}) == 1
    assert not any(parameter.is_meta for model in loaded for parameter in model.model.parameters())
    vectors = [BASELINES["last_token"](model).encode([slq.Item("a red cat")]).vectors for model in loaded]
    assert all(np.array_equal(vectors[0], each) for each in vectors)


@pytest.mark.slow
def test_encoders_of_every_kind_share_a_model_in_threads(model, items):
    def latents(**config) -> LatentEncoder:
        generator = torch.Generator().manual_seed(len(config))
        return LatentEncoder(model, LatentQueries.create(4, model.dim, generator=generator, multi_vector_sizes=(2,), **config))

    encoders = [
        latents(),
        latents(hidden_state="pre_mlp"),
        latents(generation_prompt=False, pooling="last", modality_specific=True),
        MultiVectorEncoder(latents(), 2),
        LatentEncoder(model, latents(hidden_state="pre_mlp").queries, KVCache()),
        LatentEncoder(model, latents().queries, prefix_caching=False),
        *(make(model) for make in BASELINES.values()),
    ]
    wanted = [encoder.encode(items).vectors for encoder in encoders]
    with ThreadPoolExecutor(len(encoders)) as pool:
        found = [[pool.submit(encoder.encode, items) for _ in range(3)] for encoder in encoders]
        for alone, turns in zip(wanted, found, strict=True):
            for turn in turns:
                assert_close(turn.result().vectors, alone, steps=FORWARD)
