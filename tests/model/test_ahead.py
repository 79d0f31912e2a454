"""Preparing ahead in other processes: the same tensors in the same order, and the same faults."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from slq.errors import ImageError, InputError, TextError
from slq.models import prefetch_batches
from slq.types import Item


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_prepare_the_same(model, items, workers, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    batches = [items[:4], [items[4], Item(" ")], items[4:], [Item(image=tmp_path / "missing.png")]]
    first, empty, last, missing = prefetch_batches(model.item_processor, batches, workers=workers)
    for found, wanted in ((first, batches[0]), (last, batches[2])):
        wanted = model.prepare(wanted).inputs
        assert found.inputs.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[name]) for name, value in found.inputs.items())
    assert isinstance(empty, TextError) and isinstance(missing, ImageError) and "missing.png" in str(missing)
    assert "fork" not in capfd.readouterr().err and "TOKENIZERS_PARALLELISM" not in os.environ


def test_without_generation_prompt(model, items):
    (found,) = prefetch_batches(model.item_processor, [items[:2]], generation_prompt=False, workers=1)
    assert torch.equal(found.inputs["input_ids"], model.prepare(items[:2], False).inputs["input_ids"])


def test_it_works_while_nobody_asks_and_stops_when_nobody_listens(model, items):
    prepared = prefetch_batches(model.item_processor, [items[:2]] * 50, workers=2)
    next(prepared)
    prepared.close()
    assert list(prefetch_batches(model.item_processor, [], workers=2)) == []


def test_what_workers_are_sent_survives_the_way(model, items):
    """Systems that start processes afresh pickle the processor, and every system pickles errors."""
    again = pickle.loads(pickle.dumps(model.item_processor))
    assert torch.equal(again.prepare(items).inputs["input_ids"], model.prepare(items).inputs["input_ids"])
    for error in (InputError("one"), ImageError("two"), TextError("three")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error) and type(pickle.loads(pickle.dumps(error))) is type(error)
