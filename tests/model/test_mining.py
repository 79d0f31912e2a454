"""Hard negatives: those of a plain loop over all scores, never a positive in other clothes, and read back by training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import invoke, refused
from PIL import Image

from slq.adapters.latents import LatentQueries
from slq.data import read_pairs, write_pairs
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError
from slq.miniature.export import write_sample_data
from slq.models import FrozenModel
from slq.training import TrainConfig, train
from slq.training.mining import DIRECTIONS, items_of, mine, reversed_pairs
from slq.types import Item, Pair


@pytest.fixture(scope="module")
def encoder(model: FrozenModel) -> LatentEncoder:
    return LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mining") / "sample-data"
    write_sample_data(folder, "train", 24)
    return folder


def keys(items):
    return [item.content_hash for item in items]


def slow_negatives(encoder, pairs, count, skip, margin):
    """One query at a time, over every candidate, in Python."""
    items = {item.content_hash: item for pair in pairs for item in (pair.query, *pair.positives, *pair.negatives)}
    embedded = encoder.encode(list(items.values()), list(items))
    vector = dict(zip(embedded.ids, embedded.vectors, strict=True))
    candidates = dict.fromkeys(key for pair in pairs for key in keys((*pair.positives, *pair.negatives)))
    for pair in pairs:
        score = {key: float(vector[pair.query.content_hash] @ vector[key]) for key in candidates}
        own = {key for other in pairs if other.query.content_hash == pair.query.content_hash for key in keys(other.positives)}
        weakest = min(score[key] for key in own)
        ranked = sorted(
            (key for key in candidates if key not in own | {pair.query.content_hash, *keys(pair.negatives)}), key=score.__getitem__
        )
        yield [key for key in ranked[::-1][skip:] if score[key] <= weakest - margin][:count]


@pytest.mark.slow
@pytest.mark.parametrize(("skip", "margin", "cells"), [(0, -2, 2**24), (2, 0.02, 100), (0, 0.05, 1)])
def test_mined_are_the_highest_ranked_below_the_margin(encoder, pairs, skip, margin, cells):
    pairs = [replace(pairs[0], negatives=pairs[5].positives[:1]), *pairs[1:24]]
    mined = mine(encoder, pairs, 3, skip, margin, cells=cells)
    found = [keys(pair.negatives)[len(before.negatives) :] for pair, before in zip(mined.pairs, pairs, strict=True)]
    assert found == list(slow_negatives(encoder, pairs, 3, skip, margin))
    assert mined.failures == () and mined.short == sum(len(one) < 3 for one in found)
    assert margin > 0 or mined.short == 0
    assert mined.pairs[0].negatives[0] == pairs[5].positives[0]
    for pair in mined.pairs:
        assert len(set(keys(pair.negatives))) == len(pair.negatives) and not set(keys(pair.negatives)) & set(keys(pair.positives))


def test_a_positive_is_known_by_its_content(encoder, pairs, tmp_path):
    """The same image under two names, and a caption that two images share, are never negatives of each other."""
    image = pairs[0].query.image
    for name in ("a.png", "b.png"):
        image.save(tmp_path / name)
    twice = [
        Pair(Item("the query"), (Item(image=tmp_path / "a.png"),)),
        Pair(Item("the query"), (Item("shared"),)),
        Pair(Item("another query"), (Item(image=tmp_path / "b.png"),)),
        Pair(Item("a third query"), (Item("shared"),)),
        Pair(Item("shared"), (Item("the query"),)),
    ]
    assert items_of(twice) == 5
    first, second, another, third, backwards = (keys(pair.negatives) for pair in mine(encoder, twice, 9, absolute_margin=-2).pairs)
    seen, shared, query = Item(image=tmp_path / "a.png").content_hash, Item("shared").content_hash, Item("the query").content_hash
    assert first == second == []  # all there is are its positives and itself
    assert set(another) == {shared, query} and set(third) == {seen, query} and backwards == [seen]


def test_what_cannot_be_embedded_is_left_out(encoder, pairs, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken, gone = Item(image=tmp_path / "broken.png"), Item(image=tmp_path / "gone.png")
    given = [
        Pair(Item("good"), (Item("yes"), broken), (gone,), "line 1"),
        Pair(broken, (Item("lost"),), (), "line 2"),
        Pair(Item("alone"), (gone,), (), "line 3"),
        *pairs[:3],
    ]
    mined = mine(encoder, given, 1, absolute_margin=-2)
    assert [pair.source for pair in mined.pairs] == ["line 1", "", "", ""]
    assert mined.pairs[0].positives == (Item("yes"),)
    assert [failure.item for failure in mined.failures] == ["line 1", "line 3", "line 1", "line 2"]
    with pytest.raises(InputError, match="num_negatives >= 1"):
        mine(encoder, pairs, 0)


def test_written_pairs_are_read_back(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, colour in (("a.png", "red"), ("deep/b.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    both = Item("but blue", tmp_path / "a.png")
    pairs = [
        Pair(Item(image=tmp_path / "a.png"), (Item("rot 红"), Item("it is\nred")), (Item(image=tmp_path / "deep" / "b.png"), both)),
        Pair(both, (Item(image=tmp_path / "deep" / "b.png"),)),
    ]
    write_pairs(tmp_path / "deep" / "pairs.jsonl", pairs)
    found = read_pairs(tmp_path / "deep" / "pairs.jsonl", allow_outside=True).pairs
    for one, other in zip(found, pairs, strict=True):
        for side in ("positives", "negatives"):
            assert keys(getattr(one, side)) == keys(getattr(other, side))
        assert one.query.content_hash == other.query.content_hash
    with pytest.raises(InputError, match="open image"):
        write_pairs(tmp_path / "open.jsonl", [Pair(Item(image=Image.new("RGB", (8, 8))), (Item("a"),))])


# --- the command line, and training on what it wrote --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mined(encoder: LatentEncoder, world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The file that was written, the adapter, and what the command said."""
    folder = tmp_path_factory.mktemp("mined")
    encoder.save_pretrained(folder / "adapter")
    arguments = (world, "--model", folder / "adapter", "--output", folder / "mined.jsonl", "--absolute-margin", -2, "--device", "cpu")
    result = invoke("mine", *arguments, "--num-negatives", 2)
    return folder / "mined.jsonl", folder / "adapter", result.output


def test_command_writes_pairs_with_negatives(mined, encoder, world):
    out, _, said = mined
    assert f"24 pairs with 48 negatives written to {out}; 0 got fewer than 2" in said
    assert all(set(json.loads(line)) == {"query", "positive", "negative"} for line in out.read_text().splitlines())
    wanted = mine(encoder, read_pairs(world).pairs, 2, absolute_margin=-2).pairs
    assert f"train {out} --allow-outside" in said, "its images are elsewhere"
    found = read_pairs(out, allow_outside=True)
    assert found.failures == ()
    assert [keys(pair.negatives) for pair in found.pairs] == [keys(pair.negatives) for pair in wanted]
    assert [(pair.query.content_hash, keys(pair.positives)) for pair in found.pairs] == [
        (pair.query.content_hash, keys(pair.positives)) for pair in wanted
    ]


@pytest.mark.slow
def test_training_takes_the_negatives(mined, model, tmp_path):
    pairs = read_pairs(mined[0], allow_outside=True).pairs
    options = TrainConfig(num_latents=2, batch_size=8, max_steps=2, validation_split=0)
    with_negatives = train(pairs, model, tmp_path / "with", options, show_progress=False)
    without = train([replace(pair, negatives=()) for pair in pairs], model, tmp_path / "without", options, show_progress=False)
    latents = [one.queries.latents.detach().numpy() for one in (with_negatives, without)]
    assert np.isfinite(latents[0]).all() and not np.array_equal(*latents)


def test_command_refuses(mined, world, tmp_path):
    out, adapter, _ = mined
    written = out.read_bytes()
    for arguments, words in (
        (("--output", out), "exists already"),
        (("--output", tmp_path / "mined.csv"), "JSON lines"),
        (("--output", tmp_path / "mined.jsonl", "--num-negatives", 0), "--num-negatives must be at least 1"),
    ):
        assert words in refused("mine", world, "--model", adapter, *arguments, "--device", "cpu")
    assert out.read_bytes() == written and list(tmp_path.iterdir()) == []


def test_negatives_for_the_other_side(encoder, pairs):
    """Each caption of an image is a query for images; one that two images share has both as positives."""
    shared = [replace(pairs[0], positives=(*pairs[0].positives, pairs[1].positives[0])), *pairs[1:10]]
    turned = reversed_pairs(shared)
    assert keys(turned[2].positives) == [pairs[0].query.content_hash, pairs[1].query.content_hash]
    forward, back, both = (mine(encoder, shared, 2, 0, -1, direction=way) for way in DIRECTIONS)
    assert [pair.query for pair in back.pairs] == [pair.query for pair in turned]
    assert all(item.image is not None for pair in back.pairs for item in pair.negatives)
    assert both.pairs == (*forward.pairs, *back.pairs) and both.short == forward.short + back.short
    for pair, negatives in zip(back.pairs, slow_negatives(encoder, turned, 2, 0, -1), strict=True):
        assert keys(pair.negatives) == negatives
    with pytest.raises(InputError, match="Unknown direction"):
        mine(encoder, shared, direction="sideways")


def test_mining_that_finds_nothing_is_a_failure(world, tmp_path):
    said = invoke("mine", world / "captions.jsonl", "-o", tmp_path / "mined.jsonl", "--absolute-margin", 2, "--device", "cpu", code=1)
    assert "got a negative, and nothing is written" in said.stderr and not (tmp_path / "mined.jsonl").exists()
