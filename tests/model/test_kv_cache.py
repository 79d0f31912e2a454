"""Kept prefixes: the same embeddings and gradients whatever is kept where, and nothing wrong from a damaged, full or shared disk."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save
from tolerance import FORWARD, GRADIENT, assert_close

from slq.adapters.latents import LatentQueries
from slq.cache import DiskTier, KVCache, MemoryTier
from slq.cache.int8 import pack, unpack
from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel, load_model

TENSORS = {"keys": torch.arange(24.0).reshape(2, 3, 4), "next_position": torch.tensor(7)}
SIZE = 24 * 4 + 8  # bytes of values
FILE_SIZE = len(save(TENSORS))


@pytest.fixture
def queries(model) -> LatentQueries:
    return LatentQueries.create(6, model.dim, generator=torch.Generator().manual_seed(2))


def embedded(model, queries, items, cache=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings, and the gradient of a fixed random projection of them."""
    found = LatentEncoder(model, queries, cache).encode_batch(items)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    return found.detach(), torch.autograd.grad((found * weights).sum(), queries.latents)[0]


def assert_same(found, wanted, why="") -> None:
    (vectors, gradient), (wanted_vectors, wanted_gradient) = found, wanted
    assert_close(vectors, wanted_vectors, steps=FORWARD, why=why)
    assert_close(gradient, wanted_gradient, steps=GRADIENT, why=why)


# Tiers


@pytest.fixture(params=["memory", "disk"])
def tier(request, tmp_path):
    return MemoryTier(2 * SIZE) if request.param == "memory" else DiskTier(tmp_path / "cache", 2 * FILE_SIZE)


def test_a_tier_gives_back_what_it_took_and_takes_what_fits(tier):
    assert tier.get("aa") is None and len(tier) == 0
    assert [tier.put(key, TENSORS) for key in ("aa", "bb", "cc")] == [True, True, False]
    assert len(tier) == 2 and tier.num_bytes == tier.budget and tier.full and tier.get("cc") is None
    found = tier.get("aa")
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool])
def test_every_dtype_survives_the_disk(tmp_path, dtype):
    value = torch.arange(10).to(dtype)
    DiskTier(tmp_path).put("aa", {"value": value})
    found = DiskTier(tmp_path).get("aa")["value"]
    assert found.dtype == dtype and torch.equal(found, value)


# What is kept does not change what comes out

LEVELS = {
    "memory": {},
    "device": {"device_budget": 2**28, "budget": 0},
    "disk": {"budget": 0, "folder": "kept"},
    "some of each": {"device_budget": 2**17, "budget": 2**17, "folder": "kept"},
    "features": {"level": "vision"},
    "features on disk": {"level": "vision", "budget": 0, "folder": "kept"},
    "nothing": {"level": "none"},
    "no room": {"budget": 0},
}


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.parametrize("settings", LEVELS.values(), ids=LEVELS)
def test_kept_equals_fresh(model, queries, items, tmp_path, settings):
    settings = {**settings, "folder": tmp_path / settings["folder"]} if "folder" in settings else settings
    wanted = embedded(model, queries, items)
    cache = KVCache(**settings)
    assert_same(embedded(model, queries, items, cache), wanted, "on the way in")
    shuffled = [items[i] for i in (3, 8, 1, 5, 9)]
    assert_same(embedded(model, queries, shuffled, cache), embedded(model, queries, shuffled), "on the way out")
    if "folder" in settings:
        again = KVCache(**settings)
        assert len(again.tiers[-1]) > 0
        assert_same(embedded(model, queries, items, again), wanted, "found by a later run")


def test_what_has_no_room_is_kept_as_its_images_features(model, queries, items):
    images = [item for item in items if item.image is not None and item.text is None]
    states, features = KVCache(), KVCache(level="vision")
    embedded(model, queries, images, states), embedded(model, queries, images, features)
    assert len(states) == len(features) == len(images)
    assert features.num_bytes < states.num_bytes / 2
    room = states.num_bytes // 2 + features.num_bytes // 2
    mixed = KVCache(budget=room)
    wanted = embedded(model, queries, images)
    assert_same(embedded(model, queries, images, mixed), wanted)
    assert len(mixed) == len(images) and mixed.num_bytes <= room
    assert_same(embedded(model, queries, images, mixed), wanted)


class Counting(FrozenModel):
    """Counts what runs through the model."""

    def __init__(self, model: FrozenModel):
        self.__dict__ = dict(model.__dict__)
        self.read = self.images = self.prepared = 0
        self.tokens: list[int] = []  # of each row

    def prefill_packed(self, batches):
        self.read += sum(len(prepared) for prepared, _ in batches)
        self.tokens.append(sum(int(prepared.inputs["attention_mask"].sum()) for prepared, _ in batches))
        return super().prefill_packed(batches)

    def features(self, prepared):
        self.images += len(prepared)
        return super().features(prepared)

    def prepare(self, items, generation_prompt=True):
        self.prepared += len(items)
        return super().prepare(items, generation_prompt)


@pytest.mark.parametrize("settings", [{}, {"level": "vision"}, {"level": "none"}], ids=str)
def test_what_is_too_much_for_one_row_is_read_in_several(model, queries, items, monkeypatch, settings):
    wanted = LatentEncoder(model, queries, KVCache(**settings)).states(items)
    monkeypatch.setattr("slq.encoders.reuse.PREFIX_TOKENS", 100)
    monkeypatch.setattr("slq.encoders.reuse.PREFIX_IMAGES", 2)
    counting = Counting(model)
    encoder = LatentEncoder(counting, queries, KVCache(**settings))
    for _ in range(2):
        assert_close(encoder.states(items), wanted, steps=FORWARD)
    assert len(counting.tokens) > 2 and max(counting.tokens) <= 100, counting.tokens


@pytest.mark.slow
def test_what_is_kept_is_not_computed_again(model, queries, items, tmp_path):
    images = items[4:]
    for settings, prefixes, towers, prepared in (
        ({}, 0, 0, 0),
        ({"level": "vision"}, len(images), 0, 0),
        ({"level": "none"}, len(images), len(images), len(images)),
    ):
        counting, cache = Counting(model), KVCache(**settings)
        embedded(counting, queries, images, cache)
        counting.read = counting.images = counting.prepared = 0
        embedded(counting, queries, images, cache)
        assert (counting.read, counting.images, counting.prepared) == (prefixes, towers, prepared), settings


@pytest.mark.numeric
@pytest.mark.parametrize("settings", [{}, {"level": "vision"}, {"level": "none"}], ids=str)
def test_what_was_prepared_ahead_is_not_prepared_again(model, queries, items, settings):
    counting, batches = Counting(model), [items[:5], items[5:]]
    encoder = LatentEncoder(counting, queries, KVCache(**settings))
    found = [encoder.states(batch, ahead) for batch, ahead in zip(batches, encoder.prefetch_batches(batches, 1), strict=True)]
    assert counting.prepared == 0
    for batch, states in zip(batches, found, strict=True):
        assert_close(states, LatentEncoder(model, queries).states(batch), steps=FORWARD)


def test_what_was_prepared_for_other_items_is_not_used(model, queries, items, tmp_path):
    """Between preparing and reading an entry may appear, or prove damaged: then the groups are others."""
    encoder = LatentEncoder(model, queries, KVCache(budget=0, folder=tmp_path / "kept"))
    wanted = encoder.states(items)
    (tier,) = encoder.cache.tiers[1:]
    for path in tier.records.files()[::2]:
        path.write_bytes(b"damaged")
    (ahead,) = encoder.prefetch_batches([items], 1)
    assert ahead == {}, "all of it seems to be there"
    fresh = LatentEncoder(model, queries, KVCache(budget=0, folder=tmp_path / "kept"))
    assert_close(fresh.states(items, ahead), wanted, steps=FORWARD)


@pytest.mark.parametrize("settings", [{"budget": 0}, {"level": "none"}], ids=["no room", "nothing"])
def test_nothing_is_read_beforehand_that_cannot_be_kept(model, queries, items, settings):
    counting, cache = Counting(model), KVCache(**settings)
    LatentEncoder(counting, queries, cache).prefill(items)
    assert cache.closed and counting.read == 0


def test_texts_are_not_read_beforehand_where_features_alone_are_kept(model, queries, items):
    counting, done = Counting(model), []
    LatentEncoder(counting, queries, KVCache(level="vision")).prefill([*items, *items], done.append)
    images = sum(item.image is not None for item in items)
    assert counting.read == images and sum(done) == len(items)


def test_what_is_damaged_is_read_beforehand(model, queries, items, tmp_path):
    LatentEncoder(model, queries, KVCache(budget=0, folder=tmp_path)).prefill(items)
    cache = KVCache(budget=0, folder=tmp_path)
    cache.tiers[-1].records.files()[0].write_bytes(b"damaged")
    counting = Counting(model)
    LatentEncoder(counting, queries, cache).prefill(items)
    assert 0 < counting.read < len(items), "those of its batch, so that the bits are those of a first time"
    assert len(KVCache(budget=0, folder=tmp_path)) == len(items)


# Eight bits


def test_eight_bits_are_off_by_at_most_half_a_step():
    values = torch.randn(3, 2, 5, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.001, 1.0, 1000.0])[:, None, None, None]
    packed, scale = pack(values)
    assert packed.dtype == torch.int8 and scale.shape == (3, 2, 5, 1)
    assert ((unpack(packed, scale, values.dtype) - values).abs() <= 0.51 * scale).all()
    assert torch.equal(unpack(*pack(torch.zeros(2, 4)), torch.float32), torch.zeros(2, 4))


def test_eight_bits_take_a_quarter_of_the_room_and_stay_close(model, queries, items, tmp_path):
    whole, packed = KVCache(), KVCache(kv_cache_dtype="int8", folder=tmp_path)
    wanted, found = (embedded(model, queries, items, cache)[0] for cache in (whole, packed))
    found = embedded(model, queries, items, packed)[0]
    assert packed.num_bytes < 0.3 * whole.num_bytes
    cosines = (found * wanted).sum(-1)
    assert 0.99 < cosines.min() < 1 - 1e-7, "close, and not untouched"


# Addresses


def test_an_address_tells_apart_all_that_matters(model, queries):
    half = load_model(dtype="bfloat16", device="cpu")
    cache, packed = KVCache(), KVCache(kv_cache_dtype="int8")
    addresses = [
        cache.cache_key(model, "a", True),
        cache.cache_key(model, "b", True),
        cache.cache_key(model, "a", False),
        cache.cache_key(half, "a", True),
        packed.cache_key(model, "a", True),
    ]
    assert len(set(addresses)) == len(addresses)
    assert cache.cache_key(load_model(device="cpu"), "a", True) == addresses[0]


def test_weights_without_a_revision_are_told_apart_by_themselves(model):
    from dataclasses import replace

    def of(weights_changed: bool) -> str:
        one = Counting(load_model(device="cpu"))
        one._identity = replace(one.identity, revision="unknown", weights_sha256=None)
        if weights_changed:
            next(one.model.parameters()).data.view(-1)[0] += 1
        return one.fingerprint

    assert of(False) == of(False) != of(True)


# Several runs over one folder; crashes, full disks and corrupt records: tests/unit/test_records.py


def test_two_runs_may_share_a_folder(model, queries, items, tmp_path):
    wanted = embedded(model, queries, items)
    first, second = (KVCache(budget=0, folder=tmp_path) for _ in range(2))
    assert_same(embedded(model, queries, items, first), wanted)
    assert_same(embedded(model, queries, items, second), wanted)
    assert len(second.tiers[-1].records.files()) == len({item.content_hash for item in items})


def test_levels_are_named():
    with pytest.raises(ValueError, match="choose one of kv, vision, none"):
        KVCache(level="everything")


def test_it_says_what_is_kept_where_and_why_not_more(model, queries, items, tmp_path):
    def said(**settings) -> str:
        encoder = LatentEncoder(model, queries, KVCache(**settings))
        encoder.prefill(items)
        return encoder.reuse.describe(items)

    number, images = len(items), sum(item.image is not None for item in items)
    assert re.fullmatch(rf"{number} prefixes in memory; used \d+ of 1024 MB in memory", said(budget=2**30))
    assert re.fullmatch(
        r"\d+ prefixes in memory, \d+ prefixes on disk; used 1 of 1 MB in memory", said(budget=2**20, folder=tmp_path / "kept")
    )
    assert said(budget=0).startswith(f"nothing of {number}: no room, so they are computed again in every epoch")
    assert said(level="none") == f"nothing of {number} (as was asked for)"
    features = said(level="vision", budget=2**30)
    assert features.startswith(f"{images} vision features in memory, nothing of {number - images} (as was asked for)")
