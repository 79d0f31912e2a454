"""One contract, every family: two passes against one, batches against single items, and weights that never change."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch
from family_items import ITEMS, KEEPING, OFF, SPLITTING, error, families, full, gradient, paths, split
from tiny_models import FAMILIES
from tolerance import FORWARD, GRADIENT, TRAINING, assert_close

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import MissingExtraError
from slq.io.provenance import parameter_hash
from slq.models import PrefixKV, VisionFeatures, load_model, stack_kv
from slq.pooling import MeanPooling
from slq.testing import check_family
from slq.training import TrainConfig, train
from slq.types import Item, Pair


@families(["fast_vlm"])
def test_an_encoder_of_timm_without_timm_says_so(folder, monkeypatch):
    monkeypatch.setattr("slq.models.loading.find_spec", lambda name: None if name == "timm" else importlib.util.find_spec(name))
    with pytest.raises(MissingExtraError, match="needs timm: pip install"):
        load_model(str(folder))


# The fast path


@families(FAMILIES)
def test_capabilities(folder, model):
    assert type(model.model).__name__ == FAMILIES[folder.name].model
    assert type(model.processor).__name__ == FAMILIES[folder.name].processor
    assert (model.supports_two_pass, model.supports_kv_cache) == (folder.name in SPLITTING, folder.name in KEEPING)


@families(FAMILIES)
def test_the_contract_for_plugins_holds(model):
    check_family(model)


@pytest.mark.numeric
@families(SPLITTING)
def test_prefix_split_equals_concatenated(model, latents):
    fast, slow = split(model, ITEMS, latents), full(model, ITEMS, latents)
    assert_close(fast, slow, steps=FORWARD)
    assert_close(gradient(MeanPooling()(fast), latents), gradient(MeanPooling()(slow), latents), steps=GRADIENT)
    in_place = model.prepare(ITEMS, generation_prompt=False)  # the latents in the place of the prompt at which it would answer
    assert_close(model.decode_latents(model.prefill(in_place), latents), model.forward_reference(in_place, latents), steps=FORWARD)


@families(SPLITTING)
def test_states_before_the_last_mlp_on_both_paths(model, latents):
    prepared = model.prepare(ITEMS)
    fast, slow = (
        states("pre_mlp")
        for states in (
            lambda readout: model.decode_latents(model.prefill(prepared), latents, readout),
            lambda readout: model.forward_reference(prepared, latents, readout),
        )
    )
    assert_close(fast, slow, steps=FORWARD)
    assert_close(gradient(MeanPooling()(fast), latents), gradient(MeanPooling()(slow), latents), steps=GRADIENT)
    assert error(MeanPooling()(fast), MeanPooling()(split(model, ITEMS, latents))) > OFF, "the last MLP counts"
    assert_close(split(model, ITEMS, latents), full(model, ITEMS, latents), steps=FORWARD, why="and is there again afterwards")


@families(SPLITTING)
def test_latents_of_their_own_for_each_item_on_both_paths(model, latents):
    pictured = model.has_image(model.prepare(ITEMS))
    assert pictured.tolist() == [item.image is not None for item in ITEMS]
    own = torch.stack([latents if shows else -latents for shows in pictured])
    fast, slow = split(model, ITEMS, own), full(model, ITEMS, own)
    assert_close(fast, slow, steps=FORWARD)
    assert_close(fast[pictured], split(model, ITEMS, latents)[pictured], steps=FORWARD)
    assert_close(fast[~pictured], split(model, ITEMS, -latents)[~pictured], steps=FORWARD)


@families(SPLITTING)
def test_prefix_states_serve_many_suffixes_unchanged(model, latents):
    states = model.prefill(model.prepare(ITEMS))
    first = model.decode_latents(states, latents)
    assert error(model.decode_latents(states, -latents[:3]), first[:, :3]) > OFF
    assert torch.equal(model.decode_latents(states, latents), first)


@families(FAMILIES)
def test_every_item_and_every_latent_matters(model, latents):
    embeddings = MeanPooling()(full(model, ITEMS, latents))
    distances = torch.cdist(embeddings, embeddings) + torch.eye(len(ITEMS))
    assert distances.min() > OFF
    for number in range(len(latents)):
        changed = latents.detach().clone()
        changed[number] *= -1
        assert error(MeanPooling()(full(model, ITEMS, changed)), embeddings) > OFF


WRONGS = {
    "mask over the suffix only": lambda states: replace(states, mask=states.mask[:, :0]),
    "padding seen": lambda states: replace(states, mask=torch.ones_like(states.mask)),
    "positions from the padded length": lambda states: replace(states, next_position=0 * states.next_position + states.mask.shape[1]),
}


@families(SPLITTING)
@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS)
def test_what_is_wrong_does_not_pass_for_equal(model, latents, wrong):
    states = model.prefill(model.prepare(ITEMS))
    slow = full(model, ITEMS, latents)
    assert error(model.decode_latents(wrong(states), latents), slow) > OFF


@families(SPLITTING)
def test_features_stand_in_for_pixels(model, latents):
    """As the vision tower gives them, and as they come back from a file, in batches they were not made in."""
    prepared = model.prepare(ITEMS)
    together = split(model, ITEMS, latents)
    if not model.supports_vision_cache:
        pytest.skip("this family's body takes pixels alone")
    made = model.features(prepared)
    assert [each is None for each in made] == [item.image is None for item in ITEMS]
    assert_close(model.decode_latents(model.prefill(prepared, made), latents), together, steps=FORWARD)
    alone = [VisionFeatures.from_tensors(model.features(model.prepare([item]))[0].to_tensors()) for item in ITEMS[2:]]
    order = [3, 0, 4, 2]
    shuffled = model.prepare([ITEMS[2 + i] for i in order])
    found = model.decode_latents(model.prefill(shuffled, [alone[i] for i in order]), latents)
    assert_close(found, together[[2 + i for i in order]], steps=FORWARD)
    again = [alone[i] for i in order]
    found = model.decode_latents(model.prefill(model.prepare_from_features(again), again), latents)
    assert_close(found, together[[2 + i for i in order]], steps=FORWARD, why="without opening an image")
    assert_close(
        model.forward_reference(shuffled, latents, images=[alone[i] for i in order]), found, steps=FORWARD, why="on the reference path too"
    )
    zero = [replace(each, pooled=0 * each.pooled, deep=tuple(0 * layer for layer in each.deep)) for each in alone]
    assert error(model.decode_latents(model.prefill(shuffled, [zero[i] for i in order]), latents), found) > OFF, "it looks at them"


@families(KEEPING)
def test_prefixes_read_in_one_row_equal_those_of_padded_batches(folder, model, latents):
    """Texts, images and both, from several batches: prepared anew, or from kept features."""
    assert model.supports_packing == model.supports_vision_cache
    batches = [ITEMS[5:], ITEMS[:2], ITEMS[2:5]]
    prepared = [model.prepare(batch) for batch in batches]
    shown = [model.features(each) if model.supports_vision_cache else [None] * len(each) for each in prepared]
    wanted = [kept for each in prepared for kept in model.prefill(each).unstack()]
    found = model.prefill_packed(list(zip(prepared, shown, strict=True)))
    if model.supports_vision_cache:
        found[-3:] = model.prefill_packed([(model.prepare_from_features(shown[2]), shown[2])])
    assert len(found) == len(wanted) == len(ITEMS)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys.is_contiguous() and torch.equal(ours.next_position, theirs.next_position)
        assert_close(ours.keys, theirs.keys, steps=FORWARD)
        assert_close(ours.values, theirs.values, steps=FORWARD)


@families(KEEPING)
def test_kept_prefixes_equal_the_batch(model, latents):
    together = split(model, ITEMS, latents)
    kept = model.prefill(model.prepare(ITEMS)).unstack()
    shuffled = [5, 0, 6, 2, 1]
    assert_close(model.decode_latents(stack_kv([kept[i] for i in shuffled], model.device), latents), together[shuffled], steps=FORWARD)
    alone: list[PrefixKV] = [model.prefill(model.prepare([item])) for item in ITEMS]
    joined = stack_kv([states.unstack()[0] for states in alone], model.device)
    assert_close(model.decode_latents(joined, latents), together, steps=FORWARD)


# Batches


@pytest.mark.numeric
@families(FAMILIES)
def test_batch_equals_single_items_in_any_order(model, latents):
    lengths = model.prepare(ITEMS).inputs["attention_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) >= 4, "there should be padding of several widths"
    for path in paths(model):
        together = path(model, ITEMS, latents)
        alone = torch.cat([path(model, [item], latents) for item in ITEMS])
        assert_close(together, alone, steps=FORWARD)
        assert_close(path(model, ITEMS[::-1], latents).flip(0), together, steps=FORWARD)


@families(FAMILIES)
def test_bfloat16_gives_nearly_the_same_embeddings(folder, model, latents):
    rounded = load_model(str(folder), dtype="bfloat16", device="cpu")
    for path in paths(model):
        exact, found = MeanPooling()(path(model, ITEMS, latents)), MeanPooling()(path(rounded, ITEMS, latents))
        assert rounded.model.dtype == torch.bfloat16 and not torch.equal(exact, found)
        assert (exact * found).sum(dim=1).min() >= 0.999


# Training


@families(FAMILIES)
def test_training_changes_the_latents_and_nothing_else(folder, model, tmp_path):
    before = parameter_hash(model.model)
    pairs = [Pair(Item(f"number {number} of six"), (ITEMS[number],)) for number in range(6)]
    options = TrainConfig(num_latents=4, batch_size=3, max_steps=2, validation_split=0, init="prompt", learning_rate=1e-2)
    learned = {}
    for prefix_caching in (True, False):
        chosen = replace(options, prefix_caching=prefix_caching)
        encoder = train(pairs, model, tmp_path / f"split {prefix_caching}", chosen, show_progress=False)
        assert encoder.prefix_caching == (prefix_caching and folder.name in SPLITTING)
        assert (encoder.cache is not None) == (prefix_caching and folder.name in KEEPING)
        learned[prefix_caching] = encoder.queries.latents.detach()
    start = LatentQueries.create(4, model.dim, "prompt", model.prompt_embeddings()).latents
    assert (learned[True] - start).abs().max() > OFF
    assert_close(learned[True], learned[False], steps=TRAINING)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.model.parameters())
    assert parameter_hash(model.model) == before


@families(FAMILIES)
def test_the_retriever_embeds_every_kind_of_item(model, latents):
    queries = LatentQueries(len(latents), model.dim)
    queries.latents = latents
    vectors = LatentEncoder(model, queries).encode(ITEMS).vectors
    assert_close(torch.from_numpy(vectors), MeanPooling()(full(model, ITEMS, latents)).detach(), steps=FORWARD)
