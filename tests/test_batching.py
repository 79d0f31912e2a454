"""What runs together: alike in length, within the budget of tokens, nothing left out."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from PIL import Image

from slq.backbone import Preprocessing
from slq.batching import LARGEST_PASS, PICTURE_TOKENS, even_batches, even_parts, expected_tokens, tokens_that_fit
from slq.types import Item


def shaped(shapes_differ: bool, tokens_of_view: int | None = None, **preprocessing) -> SimpleNamespace:
    processor = SimpleNamespace(shapes_differ=shapes_differ, tokens_of_view=tokens_of_view)
    return SimpleNamespace(preprocessing=Preprocessing(**preprocessing), item_processor=processor)


def test_parts_hold_what_fits_with_padding():
    lengths = [10, 10, 12, 14, 16, 40, 41]
    assert even_parts(range(7), lengths, 10**6) == [[0, 1, 2, 3], [4], [5, 6]]
    assert even_parts(range(7), lengths, 28) == [[0, 1], [2, 3], [4], [5], [6]]
    assert even_parts(range(7), lengths, 1) == [[0], [1], [2], [3], [4], [5], [6]]


def test_batches_hold_every_item_once_alike_in_length(backbone, items):
    rng = random.Random(0)
    words = [Item("a " * rng.randrange(1, 60)) for _ in range(300)]
    mixed = [*words, *items]
    batches = even_batches(mixed, backbone, 2 * PICTURE_TOKENS)
    assert sorted(i for batch in batches for i in batch) == list(range(len(mixed)))
    for batch in batches:
        lengths = [expected_tokens(mixed[i], backbone) for i in batch]
        assert len({mixed[i].image is None for i in batch}) == 1
        assert max(lengths) <= 1.5 * min(lengths)
        assert len(batch) == 1 or len(batch) * max(lengths) <= 2 * PICTURE_TOKENS
    assert max(len(batch) for batch in batches) > 8, "many short texts at once"


def test_pictures_count_by_their_size_only_where_it_matters(tmp_path):
    Image.new("RGB", (280, 560)).save(tmp_path / "one.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    one, opened = Item(image=tmp_path / "one.png"), Item(image=Image.new("RGB", (280, 560)))
    for item in (one, opened):
        assert expected_tokens(item, shaped(True)) == 16 + 200
        assert expected_tokens(item, shaped(True, max_pixels=78_400)) == 16 + 100
        assert expected_tokens(item, shaped(False)) == 16 + PICTURE_TOKENS
        assert expected_tokens(item, shaped(False, tokens_of_view=36)) == 16 + 36
        assert expected_tokens(item, shaped(True, tokens_of_view=36)) == 16 + 200, "tiles: as many views as the picture is large"
    for name in ("broken.png", "missing.png"):
        assert expected_tokens(Item(image=tmp_path / name), shaped(True)) == 16 + PICTURE_TOKENS


def test_a_picture_counts_what_it_is_where_the_processor_says_so(backbone):
    picture = Item(image=Image.new("RGB", (96, 96)))
    actual = backbone.prepare([picture]).inputs["input_ids"].shape[1]
    assert backbone.item_processor.tokens_of_view == 36 and actual <= expected_tokens(picture, backbone) <= actual + 16


def test_no_more_pictures_at_once_than_asked_for(backbone):
    pictures = [Item(image=Image.new("RGB", (96, 96)))] * 7
    assert even_batches([Item("a"), *pictures], backbone, 10**6, most_pictures=3) == [[1, 2, 3], [4, 5, 6], [7], [0]]
    assert even_batches(pictures, backbone, 10**6) == [list(range(7))]


def test_long_texts_count_as_what_is_left_of_them():
    assert expected_tokens(Item("a" * 10**6), shaped(False)) == 16 + 128
    assert expected_tokens(Item("a" * 30), shaped(False)) == 16 + 10


def test_as_many_tokens_run_at_once_as_fit(backbone, monkeypatch):
    def fit(memory: int, prefix_split: bool = True) -> int:
        monkeypatch.setattr("slq.batching.total_memory", lambda device: memory)
        return tokens_that_fit(backbone, prefix_split)

    assert fit(1) == 1 and fit(2**50) == LARGEST_PASS
    assert 0 < fit(2**30) < fit(2**31) < LARGEST_PASS
    assert fit(2**30) == pytest.approx(2 * fit(2**30, prefix_split=False), abs=1)
