"""One contract, every family: the fast path against its slow twin, batches against single items, and weights that never change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_items import ITEMS, KEEPING, OFF, SPLITTING, error, families, full, gradient, paths, split
from tiny_models import FAMILIES
from tolerance import FORWARD, GRADIENT, TRAINING, assert_close

from slq.backbone import PictureFeatures, PrefixStates, join, load_backbone
from slq.latents import LatentQueries, pool
from slq.retriever import Retriever
from slq.runtime import parameter_hash
from slq.training import TrainingOptions, train
from slq.types import Item, Pair

# The fast path


@families(FAMILIES)
def test_capabilities(folder, backbone):
    assert type(backbone.model).__name__ == FAMILIES[folder.name].model
    assert type(backbone.processor).__name__ == FAMILIES[folder.name].processor
    assert (backbone.splits_prefix, backbone.keeps_prefix) == (folder.name in SPLITTING, folder.name in KEEPING)


@families(SPLITTING)
def test_prefix_split_equals_concatenated(backbone, latents):
    fast, slow = split(backbone, ITEMS, latents), full(backbone, ITEMS, latents)
    assert_close(fast, slow, steps=FORWARD)
    assert_close(gradient(pool(fast), latents), gradient(pool(slow), latents), steps=GRADIENT)
    in_place = backbone.prepare(ITEMS, generation_prompt=False)  # the latents in the place of the prompt at which it would answer
    assert_close(backbone.suffix(backbone.prefix(in_place), latents), backbone.full(in_place, latents), steps=FORWARD)


@families(SPLITTING)
def test_states_before_the_last_mlp_on_both_paths(backbone, latents):
    prepared = backbone.prepare(ITEMS)
    fast, slow = (
        states("before_mlp")
        for states in (
            lambda readout: backbone.suffix(backbone.prefix(prepared), latents, readout),
            lambda readout: backbone.full(prepared, latents, readout),
        )
    )
    assert_close(fast, slow, steps=FORWARD)
    assert_close(gradient(pool(fast), latents), gradient(pool(slow), latents), steps=GRADIENT)
    assert error(pool(fast), pool(split(backbone, ITEMS, latents))) > OFF, "the last MLP counts"
    assert_close(split(backbone, ITEMS, latents), full(backbone, ITEMS, latents), steps=FORWARD, why="and is there again afterwards")


@families(SPLITTING)
def test_latents_of_their_own_for_each_item_on_both_paths(backbone, latents):
    pictured = backbone.pictured(backbone.prepare(ITEMS))
    assert pictured.tolist() == [item.image is not None for item in ITEMS]
    own = torch.stack([latents if shows else -latents for shows in pictured])
    fast, slow = split(backbone, ITEMS, own), full(backbone, ITEMS, own)
    assert_close(fast, slow, steps=FORWARD)
    assert_close(fast[pictured], split(backbone, ITEMS, latents)[pictured], steps=FORWARD)
    assert_close(fast[~pictured], split(backbone, ITEMS, -latents)[~pictured], steps=FORWARD)


@families(SPLITTING)
def test_prefix_states_serve_many_suffixes_unchanged(backbone, latents):
    states = backbone.prefix(backbone.prepare(ITEMS))
    first = backbone.suffix(states, latents)
    assert error(backbone.suffix(states, -latents[:3]), first[:, :3]) > OFF
    assert torch.equal(backbone.suffix(states, latents), first)


@families(FAMILIES)
def test_every_item_and_every_latent_matters(backbone, latents):
    embeddings = pool(full(backbone, ITEMS, latents))
    distances = torch.cdist(embeddings, embeddings) + torch.eye(len(ITEMS))
    assert distances.min() > OFF
    for number in range(len(latents)):
        changed = latents.detach().clone()
        changed[number] *= -1
        assert error(pool(full(backbone, ITEMS, changed)), embeddings) > OFF


WRONGS = {
    "mask over the suffix only": lambda states: replace(states, mask=states.mask[:, :0]),
    "padding seen": lambda states: replace(states, mask=torch.ones_like(states.mask)),
    "positions from the padded length": lambda states: replace(states, next_position=0 * states.next_position + states.mask.shape[1]),
}


@families(SPLITTING)
@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS)
def test_what_is_wrong_does_not_pass_for_equal(backbone, latents, wrong):
    states = backbone.prefix(backbone.prepare(ITEMS))
    slow = full(backbone, ITEMS, latents)
    assert error(backbone.suffix(wrong(states), latents), slow) > OFF


@families(SPLITTING)
def test_features_stand_in_for_pixels(backbone, latents):
    """As the vision tower gives them, and as they come back from a file, in batches they were not made in."""
    prepared = backbone.prepare(ITEMS)
    together = split(backbone, ITEMS, latents)
    if not backbone.keeps_features:
        pytest.skip("this family's body takes pixels alone")
    made = backbone.features(prepared)
    assert [each is None for each in made] == [item.image is None for item in ITEMS]
    assert_close(backbone.suffix(backbone.prefix(prepared, made), latents), together, steps=FORWARD)
    alone = [PictureFeatures.from_tensors(backbone.features(backbone.prepare([item]))[0].to_tensors()) for item in ITEMS[2:]]
    order = [3, 0, 4, 2]
    shuffled = backbone.prepare([ITEMS[2 + i] for i in order])
    found = backbone.suffix(backbone.prefix(shuffled, [alone[i] for i in order]), latents)
    assert_close(found, together[[2 + i for i in order]], steps=FORWARD)
    again = [alone[i] for i in order]
    found = backbone.suffix(backbone.prefix(backbone.prepared_again(again), again), latents)
    assert_close(found, together[[2 + i for i in order]], steps=FORWARD, why="without opening a picture")
    assert_close(backbone.full(shuffled, latents, pictures=[alone[i] for i in order]), found, steps=FORWARD, why="in the slow twin too")
    zero = [replace(each, pooled=0 * each.pooled, deep=tuple(0 * layer for layer in each.deep)) for each in alone]
    assert error(backbone.suffix(backbone.prefix(shuffled, [zero[i] for i in order]), latents), found) > OFF, "it looks at them"


@families(KEEPING)
def test_prefixes_read_in_one_row_equal_those_of_padded_batches(folder, backbone, latents):
    """Texts, pictures and both, from several batches: prepared anew, or from kept features."""
    assert backbone.packs == backbone.keeps_features
    batches = [ITEMS[5:], ITEMS[:2], ITEMS[2:5]]
    prepared = [backbone.prepare(batch) for batch in batches]
    shown = [backbone.features(each) if backbone.keeps_features else [None] * len(each) for each in prepared]
    wanted = [kept for each in prepared for kept in backbone.prefix(each).split()]
    found = backbone.prefixes(list(zip(prepared, shown, strict=True)))
    if backbone.keeps_features:
        found[-3:] = backbone.prefixes([(backbone.prepared_again(shown[2]), shown[2])])
    assert len(found) == len(wanted) == len(ITEMS)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys.is_contiguous() and torch.equal(ours.next_position, theirs.next_position)
        assert_close(ours.keys, theirs.keys, steps=FORWARD)
        assert_close(ours.values, theirs.values, steps=FORWARD)


@families(KEEPING)
def test_kept_prefixes_equal_the_batch(backbone, latents):
    together = split(backbone, ITEMS, latents)
    kept = backbone.prefix(backbone.prepare(ITEMS)).split()
    shuffled = [5, 0, 6, 2, 1]
    assert_close(backbone.suffix(join([kept[i] for i in shuffled], backbone.device), latents), together[shuffled], steps=FORWARD)
    alone: list[PrefixStates] = [backbone.prefix(backbone.prepare([item])) for item in ITEMS]
    joined = join([states.split()[0] for states in alone], backbone.device)
    assert_close(backbone.suffix(joined, latents), together, steps=FORWARD)


# Batches


@families(FAMILIES)
def test_batch_equals_single_items_in_any_order(backbone, latents):
    lengths = backbone.prepare(ITEMS).inputs["attention_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) >= 4, "there should be padding of several widths"
    for path in paths(backbone):
        together = path(backbone, ITEMS, latents)
        alone = torch.cat([path(backbone, [item], latents) for item in ITEMS])
        assert_close(together, alone, steps=FORWARD)
        assert_close(path(backbone, ITEMS[::-1], latents).flip(0), together, steps=FORWARD)


@families(FAMILIES)
def test_bfloat16_gives_nearly_the_same_embeddings(folder, backbone, latents):
    rounded = load_backbone(str(folder), dtype="bfloat16", device="cpu")
    for path in paths(backbone):
        exact, found = pool(path(backbone, ITEMS, latents)), pool(path(rounded, ITEMS, latents))
        assert rounded.model.dtype == torch.bfloat16 and not torch.equal(exact, found)
        assert (exact * found).sum(dim=1).min() >= 0.999


# Training


@families(FAMILIES)
def test_training_changes_the_latents_and_nothing_else(folder, backbone, tmp_path):
    before = parameter_hash(backbone.model)
    pairs = [Pair(Item(f"number {number} of six"), (ITEMS[number],)) for number in range(6)]
    options = TrainingOptions(num_latents=4, batch_size=3, max_steps=2, validation=0, init="prompt", learning_rate=1e-2)
    learned = {}
    for prefix_split in (True, False):
        chosen = replace(options, prefix_split=prefix_split)
        retriever = train(pairs, backbone, tmp_path / f"split {prefix_split}", chosen, show_progress=False)
        assert retriever.prefix_split == (prefix_split and folder.name in SPLITTING)
        assert (retriever.cache is not None) == (prefix_split and folder.name in KEEPING)
        learned[prefix_split] = retriever.queries.latents.detach()
    start = LatentQueries.create(4, backbone.dim, "prompt", backbone.prompt_embeddings()).latents
    assert (learned[True] - start).abs().max() > OFF
    assert_close(learned[True], learned[False], steps=TRAINING)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.model.parameters())
    assert parameter_hash(backbone.model) == before


@families(FAMILIES)
def test_the_retriever_embeds_every_kind_of_item(backbone, latents):
    queries = LatentQueries(len(latents), backbone.dim)
    queries.latents = latents
    vectors = Retriever(backbone, queries).embed(ITEMS).vectors
    assert_close(torch.from_numpy(vectors), pool(full(backbone, ITEMS, latents)).detach(), steps=FORWARD)
