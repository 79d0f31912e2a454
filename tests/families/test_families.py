"""One contract, every family: the fast path against its slow twin, batches against single items, and weights that never change."""

from __future__ import annotations

import random
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import FAMILIES, LAYERS, build
from tolerance import FORWARD, GRADIENT, TRAINING, assert_close
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForImageTextToText, AutoProcessor

from slq.backbone import FrozenBackbone, PictureFeatures, PrefixStates, join, load_backbone
from slq.latents import LatentQueries, pool
from slq.retriever import Retriever
from slq.runtime import parameter_hash
from slq.training import TrainingOptions, train
from slq.types import Item, Pair

# Linear attention cannot take up a prefix; sliding layers drop tokens, so that a prefix fits only the batch it was made in.
SPLITTING = [name for name in FAMILIES if name != "qwen3_5"]
KEEPING = [name for name in SPLITTING if name != "gemma3"]
# What the published code tells a family's processor, so that a picture is one view.
ONE_VIEW = {
    "internvl": {"crop_to_patches": False, "resample": Image.Resampling.BILINEAR},
    "idefics3": {"do_image_splitting": False},
    "gemma3": {"do_pan_and_scan": False},
}
OFF = 1e-2  # what is wrong differs by more than this; what is right, by less than 1e-5


def families(names):
    return pytest.mark.parametrize("folder", list(names), indirect=True, scope="module")


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="module")
def backbone(folder) -> FrozenBackbone:
    return load_backbone(str(folder), device="cpu")


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Coarse noise, which survives being made smaller."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)


WIDE, TALL, SQUARE = picture(0, 160, 64), picture(1, 64, 128), picture(2, 96, 96)
ITEMS = [
    Item("a red cat"),
    Item("two blue boats under a bridge, and what else is there in the picture?"),
    Item(image=WIDE),
    Item(image=TALL),
    Item(image=SQUARE),
    Item("but green", TALL),
    Item("a red cat", SQUARE),
]


@pytest.fixture(scope="module")
def latents(backbone) -> torch.nn.Parameter:
    return LatentQueries.create(6, backbone.dim, generator=torch.Generator().manual_seed(0)).latents


def split(backbone, items, latents):
    return backbone.suffix(backbone.prefix(backbone.prepare(items)), latents)


def full(backbone, items, latents):
    return backbone.full(backbone.prepare(items), latents)


class AttentionSeen(TorchFunctionMode):
    """For each call of torch's attention: the heads and the number of its queries, and the heads of its keys."""

    def __init__(self):
        super().__init__()
        self.queries_and_keys = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2]
            self.queries_and_keys.append((tuple(query.shape[1:3]), key.shape[1]))
        return func(*args, **kwargs or {})


def paths(backbone):
    return [full, split] if backbone.splits_prefix else [full]


def error(found, wanted):
    """The largest difference, relative to the largest value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def gradient(embeddings_BD, latents_ND):
    """Gradient of a fixed random projection, so that every dimension counts."""
    weights = torch.randn(embeddings_BD.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((embeddings_BD * weights).sum(), latents_ND)[0]


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
def test_the_latents_read_keys_of_which_there_is_one_for_several_heads(backbone, latents):
    config = backbone.model.get_decoder().config
    assert config.num_attention_heads > config.num_key_value_heads, "or there is nothing to fold"
    states = backbone.prefix(backbone.prepare(ITEMS))
    with AttentionSeen() as seen:
        backbone.suffix(states, latents)
    heads, rows = config.num_key_value_heads, len(latents) * config.num_attention_heads // config.num_key_value_heads
    assert seen.queries_and_keys == [((heads, rows), heads)] * config.num_hidden_layers


@families(FAMILIES)
def test_a_keyword_of_the_call_reaches_every_attention_layer_of_the_decoder_and_no_other(backbone):
    """Where it does not, `verified` must be false: packed rows depend on it."""
    config = backbone.model.get_decoder().config
    inputs = backbone.prepare(ITEMS).inputs
    positions, length = backbone._positions(inputs), inputs["input_ids"].shape[1]
    group = config.num_attention_heads // config.num_key_value_heads
    with AttentionSeen() as plain, torch.no_grad():
        wanted = backbone.model.base_model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
    with AttentionSeen() as folded, torch.no_grad():
        found = backbone.model.base_model(**inputs, position_ids=positions, use_cache=False, slq_attention="folded").last_hidden_state
    rows = ((config.num_key_value_heads, group * length), config.num_key_value_heads)
    layers = sum(kind != "linear_attention" for kind in getattr(config, "layer_types", None) or [""] * LAYERS)
    assert folded.queries_and_keys.count(rows) == layers and rows not in plain.queries_and_keys
    stock = [(queries, keys) for queries, keys in plain.queries_and_keys if queries[1] != length]
    assert [each for each in folded.queries_and_keys if each != rows] == stock, "vision layers stay what they were"
    shown = inputs["attention_mask"].bool()
    assert_close(found[shown], wanted[shown], steps=FORWARD)


@families(FAMILIES)
def test_generation_runs_stock_attention(backbone):
    with AttentionSeen() as seen:
        backbone.generate([[backbone.message(item)] for item in ITEMS[:2]], max_new_tokens=1)
    assert {queries[0] for queries, _ in seen.queries_and_keys} == {backbone.model.get_decoder().config.num_attention_heads}


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


# Generation and text


@families(FAMILIES)
def test_generation_is_plain_transformers_generation(folder, backbone, latents):
    conversations = [[backbone.message(item)] for item in ITEMS]
    split(backbone, ITEMS, latents) if backbone.splits_prefix else full(backbone, ITEMS, latents)  # leaves nothing behind
    answers = backbone.generate(conversations, max_new_tokens=6)
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    options = ONE_VIEW.get(folder.name, {})
    plain = []
    for conversation in conversations:
        inputs = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options
        )
        tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        plain.append(processor.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    assert answers == plain
    assert len(set(answers)) > len(ITEMS) // 2, "answers should depend on what is asked"


@families(FAMILIES)
def test_scores_are_the_models_own_yes_against_its_no(folder, backbone):
    query, candidates = Item("a red cat"), [Item(image=WIDE), Item("two boats"), Item("but green", TALL)]
    scores = backbone.score(query, candidates, batch_size=2)
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    yes, no = (
        [processor.tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in forms] for forms in (("yes", "Yes"), ("no", "No"))
    )
    assert not set(yes) & set(no)
    for candidate, score in zip(candidates, scores, strict=True):
        shown = backbone.message(candidate)["content"]
        asked = [{"type": "text", "text": "Query: "}, {"type": "text", "text": "a red cat"}, {"type": "text", "text": "\nCandidate: "}]
        asked += [*shown, {"type": "text", "text": "\nDoes the candidate match the query? Answer yes or no."}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": asked}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=ONE_VIEW.get(folder.name, {}),
        )
        with torch.no_grad():
            likely = model(**inputs).logits[0, -1].softmax(-1)
        assert score == pytest.approx((likely[yes].sum() / (likely[yes].sum() + likely[no].sum())).item(), abs=1e-4)
    assert max(scores) - min(scores) > 1e-3, "scores should depend on the candidate"


@families(FAMILIES)
def test_short_plain_texts_are_let_through_uncounted(backbone):
    """None of them has more tokens than are kept of any text, by the family's own tokenizer."""
    most, rng = backbone.preprocessing.max_text_tokens, random.Random(0)
    texts = ["".join(rng.choices(string.printable, k=most - 1)) for _ in range(50)] + [each * (most - 1) for each in "!7 \n\ta"]
    for text in texts:
        assert len(backbone.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) <= most
        assert backbone.message(Item(f"a{text[1:]}"))["content"] == [{"type": "text", "text": f"a{text[1:]}"}]


@families(FAMILIES)
def test_user_text_is_never_read_as_control(folder, backbone, latents):
    case = FAMILIES[folder.name]
    control = {token for token in (case.pad, case.eos, case.bos, *case.control, *case.named.values()) if token}
    tokenizer = backbone.processor.tokenizer
    assert all(len(tokenizer.encode(token, add_special_tokens=False)) == 1 for token in control), "as text they would be control"
    words = sorted(control)
    for start in range(0, len(words), 8):  # few enough that nothing is cut
        spelled, plain = Item(" ".join(words[start : start + 8]), SQUARE), Item("x", SQUARE)
        ids, plain_ids = (backbone.prepare([item]).inputs["input_ids"][0].tolist() for item in (spelled, plain))
        for token in control:
            number = tokenizer.convert_tokens_to_ids(token)
            assert ids.count(number) == plain_ids.count(number), token
        text = tokenizer.decode(ids)
        assert all(f"{token[0]} {token[1:]}" in text for token in words[start : start + 8])
        assert torch.isfinite(full(backbone, [spelled], latents)).all()
