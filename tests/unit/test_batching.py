"""What runs together: alike in length, within the budget of tokens, nothing left out."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from PIL import Image

from slq.backbone import Preprocessing
from slq.batching import (
    LARGEST_PASS,
    LONGEST_BESIDE_SHORTEST,
    PICTURE_TOKENS,
    TEMPLATE_TOKENS,
    even_batches,
    even_parts,
    expected_tokens,
    tokens_that_fit,
)
from slq.types import Item


def shaped(shapes_differ: bool, tokens_of_view: int | None = None, **preprocessing) -> SimpleNamespace:
    processor = SimpleNamespace(shapes_differ=shapes_differ, tokens_of_view=tokens_of_view, count_tokens=lambda texts: [0] * len(texts))
    return SimpleNamespace(preprocessing=Preprocessing(**preprocessing), item_processor=processor)


def test_parts_hold_what_fits_with_padding():
    lengths = [10, 10, 12, 14, 16, 40, 41]
    assert even_parts(range(7), lengths, 10**6) == [[0, 1, 2], [3, 4], [5, 6]]
    assert even_parts(range(7), lengths, 28) == [[0, 1], [2, 3], [4], [5], [6]]
    assert even_parts(range(7), lengths, 1) == [[0], [1], [2], [3], [4], [5], [6]]
    assert even_parts(range(7), lengths, 10**6, longest_beside_shortest=2) == [[0, 1, 2, 3, 4], [5, 6]]
    assert even_parts(range(7), lengths, 10**6, small=160) == [[0, 1, 2, 3, 4], [5, 6]], "four items of 40 tokens are small, six are not"
    assert even_parts(range(7), lengths, 10**6, small=240) == [[0, 1, 2, 3, 4, 5], [6]]
    assert even_parts(range(7), lengths, 28, small=10**6) == [[0, 1], [2, 3], [4], [5], [6]], "what fits comes first"


def test_batches_hold_every_item_once_alike_in_length(backbone, items):
    rng = random.Random(0)
    words = [Item("a " * rng.randrange(1, 60)) for _ in range(300)]
    mixed = [*words, *items]
    batches = even_batches(mixed, backbone, 2 * PICTURE_TOKENS)
    assert sorted(i for batch in batches for i in batch) == list(range(len(mixed)))
    for batch in batches:
        lengths = expected_tokens([mixed[i] for i in batch], backbone)
        assert len({mixed[i].image is None for i in batch}) == 1
        assert max(lengths) <= LONGEST_BESIDE_SHORTEST * min(lengths)
        assert len(batch) == 1 or len(batch) * max(lengths) <= 2 * PICTURE_TOKENS
    assert max(len(batch) for batch in batches) > 8, "many short texts at once"


def test_pictures_count_by_their_size_only_where_it_matters(tmp_path):
    Image.new("RGB", (280, 560)).save(tmp_path / "one.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    one, opened = Item(image=tmp_path / "one.png"), Item(image=Image.new("RGB", (280, 560)))
    for item in (one, opened):
        assert expected_tokens([item], shaped(True)) == [16 + 200]
        assert expected_tokens([item], shaped(True, max_pixels=78_400)) == [16 + 100]
        assert expected_tokens([item], shaped(False)) == [16 + PICTURE_TOKENS]
        assert expected_tokens([item], shaped(False, tokens_of_view=36)) == [16 + 36]
        assert expected_tokens([item], shaped(True, tokens_of_view=36)) == [16 + 200], "tiles: as many views as the picture is large"
    for name in ("broken.png", "missing.png"):
        assert expected_tokens([Item(image=tmp_path / name)], shaped(True)) == [16 + PICTURE_TOKENS]


def test_a_picture_counts_what_it_is_where_the_processor_says_so(backbone):
    picture = Item(image=Image.new("RGB", (96, 96)))
    actual = backbone.prepare([picture]).inputs["input_ids"].shape[1]
    (expected,) = expected_tokens([picture], backbone)
    assert backbone.item_processor.tokens_of_view == 36 and actual <= expected <= actual + 16


def test_no_more_pictures_at_once_than_asked_for(backbone):
    pictures = [Item(image=Image.new("RGB", (96, 96)))] * 7
    assert even_batches([Item("a"), *pictures], backbone, 10**6, most_pictures=3) == [[1, 2, 3], [4, 5, 6], [7], [0]]
    assert even_batches(pictures, backbone, 10**6) == [list(range(7))]


def test_words_are_counted_as_the_tokens_that_are_left_of_them(backbone):
    """Also of texts that cannot be embedded: what is wrong with them is told when they are."""
    texts = ["a cat", "日本語の猫", "the animal said to have nine lives", "猫" * 500, "a" * 10**6, "half a \ud83d character", "", 7]
    most = backbone.preprocessing.max_text_tokens
    counted = [count - TEMPLATE_TOKENS for count in expected_tokens([Item(text) for text in texts], backbone)]
    around = len(backbone.prepare([Item("a")]).inputs["input_ids"][0]) - 1
    for text, count in zip(texts[:3], counted[:3], strict=True):
        assert count == len(backbone.prepare([Item(text)]).inputs["input_ids"][0]) - around
    assert counted[3] == counted[4] == most and counted[6] == 0
    assert all(0 < count < 20 for count in (counted[5], counted[7]))
    assert expected_tokens([], backbone) == []


def test_as_many_tokens_run_at_once_as_fit(backbone, monkeypatch):
    def fit(memory: int, prefix_split: bool = True) -> int:
        monkeypatch.setattr("slq.batching.total_memory", lambda device: memory)
        return tokens_that_fit(backbone, prefix_split)

    assert fit(1) == 1 and fit(2**50) == LARGEST_PASS
    assert 0 < fit(2**30) < fit(2**31) < LARGEST_PASS
    assert fit(2**30) == pytest.approx(2 * fit(2**30, prefix_split=False), abs=1)
