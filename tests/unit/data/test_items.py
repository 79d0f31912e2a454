"""What a caller has, as items; items without repetition."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn import drawn

from slq.data import as_item, read_items, unique
from slq.errors import ImageError, InputError
from slq.types import Item


def test_what_may_be_encoded_becomes_an_item():
    image, path = drawn(), Path("a.png")
    assert as_item("words") == Item("words") and as_item(path) == Item(image=path) and as_item(image).image is image
    assert as_item("a.png") == Item("a.png"), "there is no such file"
    assert as_item({"text": "words", "image": "a.png"}) == Item("words", path) and as_item({"image": path}) == Item(image=path)
    item = Item("words")
    assert as_item(item) is item
    assert as_item(b"bytes").image == b"bytes"
    for wrong in (3, None, [], {}, {"caption": "words"}, {"text": "words", "year": 2000}):
        with pytest.raises(InputError, match=r"Cannot encode \w+.*: give .*\"text\""):
            as_item(wrong)


def test_the_path_of_an_image_is_an_image_as_text_too(tmp_path):
    """As Sentence Transformers has it: where there is such a file, and its ending says that it is an image."""
    drawn().save(tmp_path / "a.PNG", "PNG")
    (tmp_path / "a.txt").write_text("words")
    assert as_item(str(tmp_path / "a.PNG")) == Item(image=tmp_path / "a.PNG")
    for words in (str(tmp_path / "a.txt"), str(tmp_path / "b.png"), str(tmp_path), "a" * 5000 + ".png", "a\0.png"):
        assert as_item(words) == Item(words)
    assert as_item({"text": str(tmp_path / "a.PNG")}) == Item(str(tmp_path / "a.PNG"))


def test_what_a_table_says_beside_its_items(folder):
    path = folder.text("t.jsonl", '{"text": "a", "price": 3, "new": true, "tags": ["x"], "none": null, "empty": "", "big": 1e999}')
    assert read_items(path).metadata == {"t.jsonl line 1": {"price": 3, "new": True}}


def test_equal_items_are_one(tmp_path):
    drawn(seed=1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    items = [Item("one"), Item(image=tmp_path / "a.png"), Item("two"), Item(image=tmp_path / "b.png"), Item("one")]
    assert [item.content_hash for item in unique(items)] == [item.content_hash for item in items[:3]]
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        unique([*items, Item(image=tmp_path / "gone.png")])
