"""Preparing ahead in other processes: the same tensors in the same order, and the same faults."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from slq.backbone import prepare_ahead
from slq.errors import InputError, PictureError, TextError
from slq.types import Item


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_prepare_the_same(backbone, items, workers, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    batches = [items[:4], [items[4], Item(" ")], items[4:], [Item(image=tmp_path / "missing.png")]]
    first, empty, last, missing = prepare_ahead(backbone.item_processor, batches, workers=workers)
    for found, wanted in ((first, batches[0]), (last, batches[2])):
        wanted = backbone.prepare(wanted).inputs
        assert found.inputs.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[name]) for name, value in found.inputs.items())
    assert isinstance(empty, TextError) and isinstance(missing, PictureError) and "missing.png" in str(missing)
    assert "fork" not in capfd.readouterr().err and "TOKENIZERS_PARALLELISM" not in os.environ


def test_without_generation_prompt(backbone, items):
    (found,) = prepare_ahead(backbone.item_processor, [items[:2]], generation_prompt=False, workers=1)
    assert torch.equal(found.inputs["input_ids"], backbone.prepare(items[:2], False).inputs["input_ids"])


def test_it_works_while_nobody_asks_and_stops_when_nobody_listens(backbone, items):
    prepared = prepare_ahead(backbone.item_processor, [items[:2]] * 50, workers=2)
    next(prepared)
    prepared.close()
    assert list(prepare_ahead(backbone.item_processor, [], workers=2)) == []


def test_what_workers_are_sent_survives_the_way(backbone, items):
    """Systems that start processes afresh pickle the processor, and every system pickles errors."""
    again = pickle.loads(pickle.dumps(backbone.item_processor))
    assert torch.equal(again.prepare(items).inputs["input_ids"], backbone.prepare(items).inputs["input_ids"])
    for error in (InputError("one"), PictureError("two"), TextError("three")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error) and type(pickle.loads(pickle.dumps(error))) is type(error)
