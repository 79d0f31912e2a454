"""What runs together: alike in length, within the budget of tokens, nothing left out."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from PIL import Image

from slq.models import Preprocessing
from slq.models.batching import (
    IMAGE_TOKENS,
    LARGEST_PASS,
    LONGEST_BESIDE_SHORTEST,
    TEMPLATE_TOKENS,
    bucketed_batches,
    estimate_tokens,
    length_buckets,
    max_tokens_that_fit,
)
from slq.types import Item


def shaped(variable_resolution: bool, tokens_per_tile: int | None = None, **preprocessing) -> SimpleNamespace:
    processor = SimpleNamespace(
        variable_resolution=variable_resolution, tokens_per_tile=tokens_per_tile, count_tokens=lambda texts: [0] * len(texts)
    )
    return SimpleNamespace(preprocessing=Preprocessing(**preprocessing), item_processor=processor)


def test_parts_hold_what_fits_with_padding():
    lengths = [10, 10, 12, 14, 16, 40, 41]
    assert length_buckets(range(7), lengths, 10**6) == [[0, 1, 2], [3, 4], [5, 6]]
    assert length_buckets(range(7), lengths, 28) == [[0, 1], [2, 3], [4], [5], [6]]
    assert length_buckets(range(7), lengths, 1) == [[0], [1], [2], [3], [4], [5], [6]]
    assert length_buckets(range(7), lengths, 10**6, longest_beside_shortest=2) == [[0, 1, 2, 3, 4], [5, 6]]
    assert length_buckets(range(7), lengths, 10**6, small=160) == [[0, 1, 2, 3, 4], [5, 6]], (
        "four items of 40 tokens are small, six are not"
    )
    assert length_buckets(range(7), lengths, 10**6, small=240) == [[0, 1, 2, 3, 4, 5], [6]]
    assert length_buckets(range(7), lengths, 28, small=10**6) == [[0, 1], [2, 3], [4], [5], [6]], "what fits comes first"


def test_batches_hold_every_item_once_alike_in_length(model, items):
    rng = random.Random(0)
    words = [Item("a " * rng.randrange(1, 60)) for _ in range(300)]
    mixed = [*words, *items]
    batches = bucketed_batches(mixed, model, 2 * IMAGE_TOKENS)
    assert sorted(i for batch in batches for i in batch) == list(range(len(mixed)))
    for batch in batches:
        lengths = estimate_tokens([mixed[i] for i in batch], model)
        assert len({mixed[i].image is None for i in batch}) == 1
        assert max(lengths) <= LONGEST_BESIDE_SHORTEST * min(lengths)
        assert len(batch) == 1 or len(batch) * max(lengths) <= 2 * IMAGE_TOKENS
    assert max(len(batch) for batch in batches) > 8, "many short texts at once"


def test_images_count_by_their_size_only_where_it_matters(tmp_path):
    Image.new("RGB", (280, 560)).save(tmp_path / "one.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    one, opened = Item(image=tmp_path / "one.png"), Item(image=Image.new("RGB", (280, 560)))
    for item in (one, opened):
        assert estimate_tokens([item], shaped(True)) == [16 + 200]
        assert estimate_tokens([item], shaped(True, max_pixels=78_400)) == [16 + 100]
        assert estimate_tokens([item], shaped(False)) == [16 + IMAGE_TOKENS]
        assert estimate_tokens([item], shaped(False, tokens_per_tile=36)) == [16 + 36]
        assert estimate_tokens([item], shaped(True, tokens_per_tile=36)) == [16 + 200], "tiles: as many views as the image is large"
    for name in ("broken.png", "missing.png"):
        assert estimate_tokens([Item(image=tmp_path / name)], shaped(True)) == [16 + IMAGE_TOKENS]


def test_an_image_counts_what_it_is_where_the_processor_says_so(model):
    image = Item(image=Image.new("RGB", (96, 96)))
    actual = model.prepare([image]).inputs["input_ids"].shape[1]
    (expected,) = estimate_tokens([image], model)
    assert model.item_processor.tokens_per_tile == 36 and actual <= expected <= actual + 16


def test_no_more_images_at_once_than_asked_for(model):
    images = [Item(image=Image.new("RGB", (96, 96)))] * 7
    assert bucketed_batches([Item("a"), *images], model, 10**6, most_images=3) == [[1, 2, 3], [4, 5, 6], [7], [0]]
    assert bucketed_batches(images, model, 10**6) == [list(range(7))]


def test_words_are_counted_as_the_tokens_that_are_left_of_them(model):
    """Also of texts that cannot be embedded: what is wrong with them is told when they are."""
    texts = ["a cat", "日本語の猫", "the animal said to have nine lives", "猫" * 500, "a" * 10**6, "half a \ud83d character", "", 7]
    most = model.preprocessing.max_text_tokens
    counted = [count - TEMPLATE_TOKENS for count in estimate_tokens([Item(text) for text in texts], model)]
    around = len(model.prepare([Item("a")]).inputs["input_ids"][0]) - 1
    for text, count in zip(texts[:3], counted[:3], strict=True):
        assert count == len(model.prepare([Item(text)]).inputs["input_ids"][0]) - around
    assert counted[3] == counted[4] == most and counted[6] == 0
    assert all(0 < count < 20 for count in (counted[5], counted[7]))
    assert estimate_tokens([], model) == []


def test_as_many_tokens_run_at_once_as_fit(model, monkeypatch):
    def fit(memory: int, prefix_caching: bool = True) -> int:
        monkeypatch.setattr("slq.models.batching.memory_of", lambda device: memory)
        return max_tokens_that_fit(model, prefix_caching)

    assert fit(1) == 1 and fit(2**50) == LARGEST_PASS
    assert 0 < fit(2**30) < fit(2**31) < LARGEST_PASS
    assert fit(2**30) == pytest.approx(2 * fit(2**30, prefix_caching=False), abs=1)
