"""Judging in every family: kept prefixes against one pass, where the capability says so; and where an image's tokens lie in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_items import ITEMS, KEEPING, SQUARE, TALL, WIDE, families
from PIL import Image, ImageOps
from tiny_models import FAMILIES
from tolerance import FORWARD, assert_close

from slq.cache import KVCache
from slq.encoders.reuse import PrefixReuse
from slq.judge import Judge, Question, grid_of
from slq.models.chat import first_logits
from slq.models.continuation import beginning, next_logits
from slq.types import Item

QUESTION = Question("{item}\nIs there {text}? Answer yes or no.")
TEXTS = ["a red cat", "two blue boats under a bridge"]
PAIRS = [(item, text) for item in ITEMS for text in TEXTS]


@pytest.mark.numeric
@pytest.mark.parametrize("generation_prompt", [True, False])
@families(KEEPING)
def test_questions_behind_kept_prefixes_get_the_logits_of_one_pass(model, generation_prompt):
    """Prefixes with and without the prompt at which the model would answer: it is cut off, and comes again behind the question."""
    judge = Judge(model, QUESTION, PrefixReuse(model, KVCache(), generation_prompt))
    assert judge.uses_prefixes
    prefixes, continuations = judge._continued(PAIRS)
    wanted = first_logits(model, [judge._conversation(*pair) for pair in PAIRS])
    assert_close(next_logits(model, prefixes, continuations), wanted, steps=FORWARD)
    alone = torch.cat([next_logits(model, [prefix], [own]) for prefix, own in zip(prefixes, continuations, strict=True)])
    assert_close(alone, wanted, steps=FORWARD, why="padding is not seen")


@families(FAMILIES)
def test_scores_are_those_of_the_models_own_reranker(model):
    judge = Judge(model, QUESTION)
    found = judge.scores(PAIRS)
    assert not found.failures and np.isfinite(found.probabilities).all() and np.ptp(found.probabilities) > 1e-3
    wanted = [model.score(Item(text), [item], "{candidate}\nIs there {query}? Answer yes or no.")[0] for item, text in PAIRS]
    assert found.probabilities == pytest.approx(wanted, abs=1e-4)
    assert judge.uses_prefixes == (model.supports_kv_cache)


@families(KEEPING)
def test_a_question_that_comes_before_the_item_takes_the_reference_path(model):
    judge = Judge(model, Question("Is there {text}? Answer yes or no. {item}"))
    assert not judge.uses_prefixes
    assert judge.scores(PAIRS[:3]).probabilities.tolist() == judge.reference(PAIRS[:3]).tolist()


@families(KEEPING)
def test_the_beginning_of_a_prefix_is_that_of_a_shorter_item(model):
    (whole,) = model.prefill(model.prepare([Item("a red cat")])).unstack()
    (shorter,) = model.prefill(model.prepare([Item("a red")])).unstack()
    behind = whole.keys.shape[2] - shorter.keys.shape[2]
    ids = model.prepare([Item("a red")]).inputs["input_ids"][0].tolist()
    shared = next(place for place, (a, b) in enumerate(zip(ids, _ids(model, "a red cat"), strict=False)) if a != b)
    cut = beginning(whole, whole.keys.shape[2] - shared)
    assert behind > 0 and cut.keys.shape[2] == shared
    assert_close(cut.keys, shorter.keys[:, :, :shared], steps=FORWARD)
    assert (cut.next_position + behind == whole.next_position - (whole.keys.shape[2] - shared) + behind).all()


def _ids(model, text: str) -> list[int]:
    return model.prepare([Item(text)]).inputs["input_ids"][0].tolist()


@families(FAMILIES)
def test_a_cell_lies_where_a_change_of_the_image_shows_first(model):
    """Inverting a cell changes the features of its own token more than those of any other."""
    for image in (WIDE, TALL, SQUARE):
        grid = grid_of(model, Item(image=image))
        if grid is None:
            assert model.model.config.model_type in ("llava_next", "fast_vlm"), "every other family sees an image whole, and as one"
            continue
        before = _features(model, image)
        assert len(before) == len(grid)
        for place in grid.inside(*image.size):
            inverted, cell = image.copy(), grid.cell(place)
            inverted.paste(ImageOps.invert(image.crop(cell)), cell[:2])
            changed = (_features(model, inverted) - before).norm(dim=-1)
            assert changed.argmax() == place, (image.size, place, changed)


def _features(model, image: Image.Image) -> torch.Tensor:
    (features,) = model.features(model.prepare([replace(ITEMS[0], text=None, image=image)]))
    return features.pooled
