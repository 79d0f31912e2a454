"""Saved embeddings come back equal, are never half there, and are not written over by accident."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from drawn import drawn

from slq.adapters.files import Adapter
from slq.adapters.latents import LatentQueries
from slq.data import read_items
from slq.errors import DataError, OutputError, OutputExistsError
from slq.index import load_embeddings, save_embeddings
from slq.types import Embeddings, Item


def some_embeddings(count: int = 3) -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    return Embeddings(tuple(f"id {n}" for n in range(count)), vectors, "fingerprint")


def test_saved_embeddings_come_back_equal(encoder, tmp_path):
    drawn().save(tmp_path / "whole.png")
    (tmp_path / "text.png").write_text("no image")
    whole, text = Item(image=tmp_path / "whole.png"), Item(image=tmp_path / "text.png")
    items = [Item("a red cat"), whole, Item("but blue", drawn(20, 50, seed=1)), text, Item(" \t")]
    embedded = encoder.encode(items, ["words", "file", "open", "قطة", "🐈 \\ \" '"], on_error="skip")
    shown = ({"text": 'قطة 🐈 \\ " \n \t'}, {"image": "/a b/ü.png"}, {})
    embedded = Embeddings(embedded.ids, embedded.vectors, embedded.fingerprint, shown, embedded.failures)
    save_embeddings(embedded, tmp_path / "saved", {"adapter": "somewhere"})
    loaded, about = load_embeddings(tmp_path / "saved")
    assert np.array_equal(loaded.vectors, embedded.vectors) and loaded.vectors.dtype == np.float32
    assert (loaded.ids, loaded.fingerprint, loaded.items) == (embedded.ids, embedded.fingerprint, shown)
    assert len(loaded.failures) == 2 and loaded.failures == embedded.failures
    assert about["adapter"] == "somewhere"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_line_marks_of_unicode_in_a_text_come_back(mark, tmp_path):
    embedded = Embeddings(("a", "b"), np.eye(2, dtype=np.float32), "f", ({"text": f"one{mark}two"}, {"text": "three"}))
    save_embeddings(embedded, tmp_path / "saved")
    assert load_embeddings(tmp_path / "saved")[0].items == embedded.items


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_file_name_that_is_not_utf8_can_be_saved(encoder, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    drawn().save(folder / "a.png")
    os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    file = read_items(folder)
    embedded = encoder.encode(list(file.items.values()), list(file.items))
    save_embeddings(embedded, tmp_path / "saved")
    assert load_embeddings(tmp_path / "saved")[0].ids == embedded.ids


def test_an_index_is_not_written_over_by_accident(tmp_path):
    save_embeddings(some_embeddings(), tmp_path / "saved")
    with pytest.raises(OutputExistsError, match="exists already"):
        save_embeddings(some_embeddings(5), tmp_path / "saved")
    assert len(load_embeddings(tmp_path / "saved")[0].ids) == 3
    save_embeddings(some_embeddings(5), tmp_path / "saved", overwrite=True)
    assert len(load_embeddings(tmp_path / "saved")[0].ids) == 5


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "below"
    with pytest.raises(OutputError, match=r"^Cannot write .*below: Not a directory\.$"):
        save_embeddings(some_embeddings(), out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    Adapter(LatentQueries(2, 8), {"name": "some", "revision": "one"}).save(closed)
    closed.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*Permission denied"):
            save_embeddings(some_embeddings(), closed / "index")
        with pytest.raises(OutputError, match="Cannot write"):
            Adapter(LatentQueries(3, 8), {"name": "some", "revision": "one"}).save(closed)
        assert Adapter.load(closed).queries.num_latents == 2
    finally:
        closed.chmod(0o755)


def test_a_half_written_index_is_refused(tmp_path):
    """embeddings.json is written last: without it nothing of a broken-off run can pass for an index."""
    save_embeddings(some_embeddings(), tmp_path / "saved")
    (tmp_path / "saved" / "embeddings.json").unlink()
    with pytest.raises(DataError, match=r"embeddings\.json is missing"):
        load_embeddings(tmp_path / "saved")
