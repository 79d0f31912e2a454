"""Texts that are cut: which of a batch, how many of a run, and one warning that says so."""

from __future__ import annotations

import copy
import warnings

import pytest

from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.data import RetrievalSet
from slq.encoders.latent import LatentEncoder
from slq.evaluation import evaluate
from slq.evaluation.results import to_dict
from slq.index import load_embeddings, save_embeddings
from slq.integrations.sentence_transformers import as_sentence_transformer
from slq.models import load_model
from slq.training import TrainConfig, train
from slq.types import Item, Pair

LONG = "a red cat sits on the green mat and looks at two boats " * 20
ITEMS = [Item("a cat"), Item(LONG), Item("a boat"), Item(LONG + "again"), Item(LONG)]


@pytest.fixture
def encoder() -> LatentEncoder:
    """Over a model of its own, which has not seen a text yet."""
    model = load_model(device="cpu")
    return LatentEncoder(model, LatentQueries(2, model.dim))


@pytest.mark.parametrize("cached", [False, True])
def test_embeddings_say_whose_text_was_cut(encoder, cached):
    encoder.cache = KVCache() if cached else None
    for _ in range(2):  # whatever the cache has of them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert encoder.encode(ITEMS, ["a", "b", "c", "d", "e"]).truncated == ("b", "d", "e")
    assert encoder.encode(ITEMS[:1]).truncated == ()


def test_results_count_them(encoder, tmp_path):
    one = RetrievalSet("set", {"q": ITEMS[1]}, {"a": ITEMS[0], "b": ITEMS[3]}, {"q": {"a": 1}}, ())
    with pytest.warns(UserWarning, match="had more than 128 tokens"):
        assert to_dict(evaluate(encoder, [one]))["set"]["truncated"] == 2
        save_embeddings(encoder.encode(ITEMS[:2], ["a", "b"]), tmp_path / "index")
    assert load_embeddings(tmp_path / "index")[0].truncated == ("b",)


def test_sentence_transformers_warn_too(encoder):
    with pytest.warns(UserWarning, match=r"^1 text\(s\) had more than 128 tokens"):
        as_sentence_transformer(encoder).encode([LONG])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_one_warning_a_run_says_how_many_texts_were_cut_and_where(encoder, workers, cached):
    encoder.cache = KVCache() if cached else None
    with pytest.warns(UserWarning, match=r"^2 text\(s\) had more than 128 tokens; only their first 128 were read") as caught:
        encoder.encode(ITEMS, workers=workers, batch_size=1)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(ITEMS, workers=workers), "the same texts again are no news"


def test_what_is_short_enough_is_not_told(encoder):
    limit = encoder.model.preprocessing.max_text_tokens
    text = LONG
    while encoder.model.item_processor.token_ids([text])[0][limit:]:
        text = text[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode([Item(text)])
    assert len(encoder.model.item_processor.token_ids([text])[0]) == limit


def test_a_text_of_few_but_long_tokens_counts_where_it_is_cut(encoder):
    processor = copy.copy(encoder.model.item_processor)
    processor.preprocessing = encoder.model.preprocessing.__class__(max_text_tokens=1)
    assert processor.is_truncated(Item("a" * 100))


def test_training_tells_it_too(encoder, tmp_path):
    pairs = [Pair(item, (Item(f"answer {number}"),)) for number, item in enumerate(ITEMS[:4])]
    options = TrainConfig(num_latents=2, batch_size=2, max_steps=2, validation_split=0.0)
    with pytest.warns(UserWarning, match=r"^2 text\(s\) had more than 128 tokens") as caught:
        learned = train(pairs, encoder.model, tmp_path / "out", options, show_progress=False)
    assert len(caught) == 1 and learned.training["truncated_texts"] == 2
