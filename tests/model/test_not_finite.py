"""What is not finite is told, with the item that it comes from, and is never returned, saved or cached."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from slq.adapters.files import Adapter
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.data import RetrievalSet
from slq.encoders import BASELINES, FineTunedModel, LatentEncoder, MultiVectorEncoder
from slq.encoders.base import Encoder
from slq.errors import AdapterError, BadItemsError, DataError, InputError, ModelError, NonFiniteLossError
from slq.evaluation import evaluate
from slq.evaluation.results import to_dict
from slq.index import load_embeddings, save_embeddings
from slq.models import FrozenModel
from slq.training import TrainConfig, train
from slq.training.methods import LatentTrainable
from slq.training.mining import mine
from slq.types import Embeddings, Item, Pair

SPOILED = "zzz"  # a text whose tokens the model has no numbers for
ITEMS = [Item("a red cat"), Item(SPOILED), Item("a blue boat")]


@pytest.fixture(scope="module")
def spoiled(model) -> FrozenModel:
    """The miniature with the embeddings of one text's tokens beyond what a float holds, as an overflow in half precision leaves them."""
    network = copy.deepcopy(model.model)
    with torch.no_grad():
        network.get_input_embeddings().weight[model.item_processor.token_ids([SPOILED])[0]] = torch.inf
    return model.with_model(network, "spoiled")


def latents(model: FrozenModel, **options) -> LatentEncoder:
    return LatentEncoder(model, LatentQueries.create(4, model.dim, multi_vector_sizes=(2,), pooling="mean"), **options)


ENCODERS = {
    "latents": latents,
    "latents from the cache": lambda model: latents(model, cache=KVCache()),
    "latents from the cache in 8 bits": lambda model: latents(model, cache=KVCache(kv_cache_dtype="int8")),
    "latents on the reference path": lambda model: latents(model, prefix_caching=False),
    "multi_vector": lambda model: MultiVectorEncoder(latents(model), 2),
    "lora": lambda model: FineTunedModel(model, "lora"),
    **BASELINES,
}


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_an_item_without_a_finite_embedding_is_listed_and_the_others_are_encoded(make, spoiled):
    encoder: Encoder = make(spoiled)
    for _ in range(2):  # a cache that stored it would give it now
        found = encoder.encode(ITEMS, ["one", "two", "three"], on_error="skip")
        assert found.ids == ("one", "three") and np.isfinite(found.vectors).all()
        assert [failure.item for failure in found.failures] == ["two"] and "not finite" in found.failures[0].reason
    with pytest.raises(BadItemsError, match="1: what the model gives of it is not finite"):
        encoder.encode(ITEMS)
    with pytest.raises(ModelError, match="not finite"), torch.no_grad():
        encoder.encode_batch(ITEMS)


def test_sentence_transformers_get_an_error(spoiled):
    from slq.integrations.sentence_transformers import as_sentence_transformer

    with pytest.raises(ModelError, match="not finite"):
        as_sentence_transformer(latents(spoiled)).encode([SPOILED])


def test_the_model_gives_no_answer_and_no_score(spoiled):
    message = spoiled.message(Item(SPOILED))
    with pytest.raises(ModelError, match="logits are not finite"):
        spoiled.generate([[message]])
    with pytest.raises(ModelError, match="logits are not finite"):
        spoiled.score(Item(SPOILED), [Item("a red cat")])


def test_scores_count_it_as_a_failure(spoiled):
    corpus = {"a": ITEMS[0], "b": ITEMS[1]}
    one = RetrievalSet("set", {"q": ITEMS[2]}, corpus, {"q": {"a": 1, "b": 1}}, ())
    found = to_dict(evaluate(latents(spoiled), [one]))["set"]
    assert [failure["item"] for failure in found["failures"]] == ["b"] and np.isfinite(found["mrr"])


def test_mining_leaves_it_out(spoiled):
    mined = mine(latents(spoiled), [Pair(ITEMS[0], (ITEMS[2],)), Pair(Item("a hen"), (ITEMS[1],), source="line 2")], absolute_margin=-2)
    assert len(mined.pairs) == 1 and [failure.item for failure in mined.failures] == ["line 2"]


@pytest.mark.parametrize("method", ["latents", "lora", "full"])
def test_training_names_the_pair(method, spoiled, tmp_path):
    pairs = [Pair(Item(f"{number} apples"), (Item(f"apples: {number}"),)) for number in range(3)]
    pairs.append(Pair(Item("four apples"), (Item(SPOILED),), source="apples.jsonl line 4"))
    options = TrainConfig(method=method, validation_split=0, batch_size=4, num_latents=2 if method == "latents" else 5)
    with pytest.raises(NonFiniteLossError, match=r"The loss of step 1 is nan.*nothing was saved yet. Its pairs: apples.jsonl line 4. "):
        train(pairs, spoiled, tmp_path / "run", options, show_progress=False)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_what_a_step_spoils_is_never_saved(model, tmp_path, monkeypatch):
    monkeypatch.setattr(LatentTrainable, "after_step", lambda trainable: trainable.queries.latents.data.mul_(torch.inf))
    pairs = [Pair(Item(f"{number} apples"), (Item(f"apples: {number}"),)) for number in range(4)]
    options = TrainConfig(validation_split=0, batch_size=4, save_steps=1, num_latents=2)
    with pytest.raises(NonFiniteLossError, match=r"What step 1 learned is not finite.*nothing was saved yet"):
        train(pairs, model, tmp_path / "run", options, show_progress=False)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_an_adapter_is_neither_saved_nor_loaded(model, tmp_path):
    encoder = latents(model)
    encoder.save_pretrained(tmp_path / "adapter")
    encoder.queries.latents.data[0, 0] = torch.nan
    with pytest.raises(AdapterError, match="not finite"):
        encoder.adapter.save(tmp_path / "adapter")
    assert Adapter.load(tmp_path / "adapter").queries.latents.isfinite().all()
    from safetensors.torch import save_file

    save_file(encoder.queries.state_dict(), tmp_path / "adapter" / "adapter.safetensors")
    with pytest.raises(AdapterError, match="not finite"):
        Adapter.load(tmp_path / "adapter")


def test_a_tuned_model_is_not_saved(model, tmp_path):
    tuned = FineTunedModel(model, "lora")
    tuned.trainable[0].data[0, 0] = torch.nan
    with pytest.raises(AdapterError, match="not finite"):
        tuned.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_vectors_are_neither_saved_nor_loaded(tmp_path):
    good = Embeddings(("a", "b"), np.eye(2, dtype=np.float32))
    bad = replace(good, vectors=np.array([[1, np.nan], [0, 1]], dtype=np.float32))
    with pytest.raises(InputError, match="not finite"):
        save_embeddings(bad, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    save_embeddings(good, tmp_path / "index")
    np.savez(tmp_path / "index" / "vectors.npz", vectors=bad.vectors)
    with pytest.raises(DataError, match="not finite"):
        load_embeddings(tmp_path / "index")
