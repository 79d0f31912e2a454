"""What is compared with latent queries, and their variants: tuned copies leave the backbone alone, and every form survives its saving."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tolerance import FORWARD, GRADIENT, ROUNDED, TRAINING, assert_close

from slq.adapter import Adapter
from slq.data import RetrievalSet
from slq.errors import AdapterError, InputError, MismatchError
from slq.evaluate import evaluate
from slq.latents import LatentQueries
from slq.losses import info_nce, late_interaction, late_interaction_nce
from slq.methods import ZERO_SHOT, LastTokenReadout, LateInteraction, MeanReadout, TunedBackbone, ZeroTokenReadout, load_embedder
from slq.methods.zero_shot import ONE_WORD
from slq.retriever import Retriever
from slq.runtime import parameter_hash
from slq.scoring import rank
from slq.training import TrainingOptions, train
from slq.training.batches import Batches
from slq.training.learners import fresh_learner, fresh_queries
from slq.types import Item

OPTIONS = TrainingOptions(num_latents=4, epochs=2, batch_size=8, validation=8, save_every=2, learning_rate=5e-3)
TUNED = ["lora", "full"]


def tuning(method: str) -> TrainingOptions:
    plain = TrainingOptions()
    return replace(OPTIONS, method=method, num_latents=plain.num_latents, learning_rate=1e-3)


def run(pairs, backbone, out, options, **changes):
    return train(pairs, backbone, out, options, show_progress=False, **changes)


def embed(embedder, items):
    with torch.no_grad():
        return embedder.embed_batch(items)


@pytest.fixture(scope="module", params=TUNED)
def tuned(request, pairs, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    before = parameter_hash(backbone.model)
    embedder = run(pairs, backbone, out, tuning(request.param))
    assert parameter_hash(backbone.model) == before, "tuning a copy changed the backbone"
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    return out, embedder


# Tuned backbones


@pytest.mark.parametrize("method", TUNED)
def test_untrained_it_is_the_last_token(backbone, items, method):
    fresh = TunedBackbone(backbone, method)
    assert_close(embed(fresh, items), embed(LastTokenReadout(backbone), items), steps=FORWARD)


def test_what_is_trainable(backbone):
    decoder = backbone.model.get_decoder()
    linear = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    lora, full = TunedBackbone(backbone, "lora", rank=8), TunedBackbone(backbone, "full")
    assert sum(p.numel() for p in lora.trainable) == sum(8 * (layer.in_features + layer.out_features) for layer in linear)
    assert sum(p.numel() for p in full.trainable) == sum(p.numel() for p in decoder.parameters())
    seeing = TunedBackbone(backbone, "full", tune_vision=True)
    assert sum(p.numel() for p in seeing.trainable) == sum(p.numel() for p in backbone.model.base_model.parameters())
    shared = {p.data_ptr() for p in backbone.model.parameters()}
    assert shared <= {p.data_ptr() for p in lora.backbone.model.parameters()}, "LoRA's copy holds no weights of its own"
    assert not shared & {p.data_ptr() for p in full.backbone.model.parameters()}


def test_tuning_learns_and_logs(tuned, pairs, backbone):
    out, embedder = tuned
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["temperature"] != pytest.approx(0.07, abs=1e-4), "at a whole model's learning rate it would not move"
    pictures, captions = [pair.query for pair in pairs], [pair.positives[0] for pair in pairs]
    before, after = (
        info_nce(embed(each, pictures), embed(each, captions), torch.eye(len(pairs), dtype=torch.bool), 0.07)
        for each in (LastTokenReadout(backbone), embedder)
    )
    assert after < before
    assert embedder.training["steps"] == 8 and embedder.training["method"] == embedder.method


def test_tuned_saved_and_loaded_are_the_same(tuned, backbone, items):
    out, embedder = tuned
    again = load_embedder(out, backbone)
    assert isinstance(again, TunedBackbone) and again.training == json.loads((out / "tuned.json").read_text())["training"]
    assert again.fingerprint == embedder.fingerprint != TunedBackbone(backbone, embedder.method).fingerprint
    assert torch.equal(embed(again, items), embed(embedder, items))
    assert (embed(again, items) - embed(LastTokenReadout(backbone), items)).abs().max() > 1e-3
    assert load_embedder(out).fingerprint == embedder.fingerprint, "its backbone is named in it"


def test_merged_equals_unmerged(tuned, backbone, items):
    embedder = tuned[1]
    merged = embedder.merged()
    assert {name: p.shape for name, p in merged.model.named_parameters()} == {n: p.shape for n, p in backbone.model.named_parameters()}
    assert_close(embed(LastTokenReadout(merged), items), embed(embedder, items), steps=FORWARD)
    assert merged.fingerprint != backbone.fingerprint and merged.identity.revision == "unknown"


def test_a_tuned_backbone_answers_with_its_own_weights(tuned, backbone):
    ask = [[backbone.message(Item("what is the animal said to have nine lives?"))]]
    assert tuned[1].backbone.generate(ask) == tuned[1].merged().generate(ask)


@pytest.mark.parametrize("method", TUNED)
def test_tuning_resumed_equals_unbroken(method, pairs, backbone, tmp_path):
    options = tuning(method)
    whole = run(pairs, backbone, tmp_path / "whole", options)
    run(pairs, backbone, tmp_path / "broken", options, stop_after=3)
    resumed = run(pairs, backbone, tmp_path / "broken", options, resume=True)
    assert all(torch.equal(one, other) for one, other in zip(whole.trainable, resumed.trainable, strict=True))


@pytest.mark.parametrize("method", [*TUNED, "latents"])
def test_several_passes_have_the_gradient_of_one(method, pairs, backbone):
    ((batch,),) = Batches(pairs, 8, 1, seed=0).from_step(0, 1)
    options = OPTIONS if method == "latents" else tuning(method)
    found = []
    for tokens in (10_000, 120):
        torch.manual_seed(0)  # where LoRA starts
        learner = fresh_learner(backbone, replace(options, tokens_per_pass=tokens, prefix_split=False))
        loss = learner(batch)
        found.append((loss.item(), torch.autograd.grad(loss, list(learner.parameters()))))
    (one_loss, one), (parts_loss, parts) = found
    assert_close(parts_loss, one_loss, steps=FORWARD)
    for whole, part in zip(one, parts, strict=True):
        assert_close(part, whole, steps=GRADIENT)


def test_a_damaged_or_foreign_tuned_backbone(tuned, backbone, tmp_path):
    out, _ = tuned
    with pytest.raises(MismatchError, match="learned on the backbone 'miniature'"):
        TunedBackbone.from_pretrained(out, backbone.with_model(backbone.model, "another"))
    about = json.loads((out / "tuned.json").read_text())
    (tmp_path / "tuned.json").write_text(json.dumps(about))
    with pytest.raises(AdapterError, match="damaged"):
        TunedBackbone.from_pretrained(tmp_path, backbone)
    (tmp_path / "tuned.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(AdapterError, match="format 99"):
        TunedBackbone.from_pretrained(tmp_path, backbone)


def test_options_of_latents_are_refused_where_there_are_none():
    with pytest.raises(InputError, match="groups is of latent queries, and method lora has none"):
        TrainingOptions(method="lora", groups=(1,))
    with pytest.raises(InputError, match="tune_vision is of method full"):
        TrainingOptions(method="lora", tune_vision=True)


@pytest.mark.parametrize("method", [*TUNED, "latents"])
def test_the_end_keeps_a_share_of_the_start(method, pairs, backbone, items, tmp_path):
    options = OPTIONS if method == "latents" else tuning(method)
    learned, kept = (run(pairs, backbone, tmp_path / str(share), replace(options, max_steps=3, start_share=share)) for share in (0.0, 0.25))
    if method == "latents":
        start = fresh_queries(backbone, options).latents
        assert_close(kept.queries.latents, 0.75 * learned.queries.latents + 0.25 * start, steps=ROUNDED)
    elif method == "full":
        start = dict(backbone.model.named_parameters())
        for name, parameter in kept.backbone.model.named_parameters():
            whole = learned.backbone.model.get_parameter(name)
            assert_close(parameter, 0.75 * whole + 0.25 * start[name], steps=ROUNDED)
    else:
        for one, other in zip(layers(kept), layers(learned), strict=True):
            assert_close(one.get_delta_weight("default"), 0.75 * other.get_delta_weight("default"), steps=ROUNDED)
    if method == "latents":  # without prefixes that training read in other company, which rounds otherwise
        kept = Retriever(backbone, kept.queries)
    assert torch.equal(embed(load_embedder(tmp_path / "0.25", backbone), items), embed(kept, items)), "and that is what is saved"


def layers(tuned):
    return [module for module in tuned.backbone.model.modules() if hasattr(module, "get_delta_weight")]


# Zero-shot readouts


def test_the_mean_of_tokens_by_hand(backbone, items):
    for item in (items[0], items[4]):
        states = backbone.token_states(backbone.prepare([item]))[0]
        wanted = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
        assert_close(embed(MeanReadout(backbone), [item, items[1]])[0], wanted, steps=FORWARD)


def test_the_zero_token_stands_behind_the_instruction(backbone, items):
    plain, asked = ZeroTokenReadout(backbone), ZeroTokenReadout(backbone, ONE_WORD)
    by_hand = Retriever(backbone, LatentQueries(1, backbone.dim))
    assert torch.equal(embed(plain, items), embed(by_hand, items))
    assert_close(embed(asked, [Item("a cat")]), embed(by_hand, [Item(f"a cat {ONE_WORD}")]), steps=FORWARD)
    assert_close(embed(asked, [items[4]]), embed(by_hand, [replace(items[4], text=ONE_WORD)]), steps=FORWARD)


def test_every_zero_shot_readout_is_another_one(backbone, items):
    readouts = {name: make(backbone) for name, make in ZERO_SHOT.items()}
    assert len({readout.fingerprint for readout in readouts.values()}) == len(readouts)
    embedded = [embed(readout, items) for readout in readouts.values()]
    assert all((one - other).abs().max() > 1e-3 for place, one in enumerate(embedded) for other in embedded[:place])


# Forms of latent queries

FORMS = [
    {"pooling": "last"},
    {"readout": "before_mlp"},
    {"per_modality": True},
    {"groups": (1, 3), "generation_prompt": True},
    {"pooling": "last", "readout": "before_mlp", "per_modality": True, "groups": (4,)},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forms_train_and_survive_saving(form, pairs, backbone, items, tmp_path):
    found = run(pairs, backbone, tmp_path / "fast", replace(OPTIONS, max_steps=2, **form))
    slow = run(pairs, backbone, tmp_path / "slow", replace(OPTIONS, max_steps=2, prefix_split=False, **form))
    assert_close(found.queries.latents, slow.queries.latents, steps=TRAINING)
    again = Retriever.from_pretrained(tmp_path / "fast", backbone)
    assert again.queries.form == found.queries.form == {**LatentQueries(4, 8, generation_prompt=False).form, **form}
    assert torch.equal(embed(again, items), embed(Retriever(backbone, found.queries), items))
    assert_close(embed(found, items), embed(again, items), steps=FORWARD, why="kept prefixes change nothing")
    plain = LatentQueries(4, backbone.dim)
    plain.latents.data = found.queries.latents.data if plain.latents.shape == found.queries.latents.shape else found.queries.latents[0].data
    assert again.fingerprint != Retriever(backbone, plain).fingerprint


def test_each_modality_has_its_own_latents(backbone, items):
    queries = LatentQueries.create(3, backbone.dim, generator=torch.Generator().manual_seed(0), per_modality=True)
    texts, pictures = Retriever(backbone, LatentQueries(3, backbone.dim)), Retriever(backbone, LatentQueries(3, backbone.dim))
    texts.queries.latents.data, pictures.queries.latents.data = queries.latents.data[0], queries.latents.data[1]
    found = embed(Retriever(backbone, queries), items)
    for place, item in enumerate(items):
        own = texts if item.image is None else pictures
        assert_close(found[place], embed(own, [item])[0], steps=FORWARD)


def test_last_pooling_is_the_last_latents_state():
    states = torch.randn(2, 3, 5)
    assert_close(LatentQueries(3, 5, pooling="last").pool(states), torch.nn.functional.normalize(states[:, -1], dim=-1), steps=FORWARD)


@pytest.mark.parametrize(("form", "message"), [({"pooling": "max"}, "Pooling is one of"), ({"groups": (5,)}, "between 1 and 4")])
def test_forms_that_do_not_exist(form, message):
    with pytest.raises(ValueError, match=message):
        LatentQueries(4, 8, **form)
    with pytest.raises(InputError):
        TrainingOptions(num_latents=4, **form)


def test_an_adapter_of_format_2_is_still_read(backbone, tmp_path):
    queries = LatentQueries.create(3, backbone.dim, generator=torch.Generator().manual_seed(0), generation_prompt=False)
    save_file({name: value.detach() for name, value in queries.state_dict().items()}, tmp_path / "adapter.safetensors")
    config = {"format_version": 2, "num_latents": 3, "dim": backbone.dim, "pooling": "mean", "generation_prompt": False}
    config |= {"backbone": backbone.identity.to_dict(), "training": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert Adapter.load(tmp_path).queries.form == queries.form


# Late interaction and Matryoshka


def test_late_interaction_by_hand():
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    candidates = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[-1.0, 0.0], [0.0, -1.0]]])
    assert_close(late_interaction(queries, candidates), torch.tensor([[(1 + 0.8) / 2, (0 + 0) / 2]]), steps=FORWARD)
    assert_close(late_interaction(candidates, queries)[:, 0], torch.tensor([(1 + 0.8) / 2, (0 + 0) / 2]), steps=FORWARD)


def test_late_interaction_ranks_as_the_scorer_does():
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.nn.functional.normalize(torch.randn(n, 3, 8, generator=generator), dim=-1) for n in (4, 30))
    similarities = late_interaction(queries, candidates)
    for row, ranking in enumerate(rank(queries.numpy(), candidates.numpy(), [{0: 1}] * 4, top=30)):
        assert ranking.top_K.tolist() == similarities[row].argsort(descending=True).tolist()
        assert_close(ranking.scores_K, 3 * similarities[row].sort(descending=True).values.numpy(), steps=FORWARD)


def test_late_interaction_loss_in_closed_form():
    alike = torch.ones(5, 2, 4) / 2
    positives = torch.eye(5, dtype=torch.bool)
    assert late_interaction_nce(alike, alike, positives, 0.07).item() == pytest.approx(math.log(5))
    right = torch.nn.functional.one_hot(torch.arange(5)).float()[:, None].expand(5, 2, 5)
    wanted = math.log(math.exp(1 / 0.5) + 4) - 1 / 0.5
    assert late_interaction_nce(right, right, positives, 0.5).item() == pytest.approx(wanted, rel=1e-5)


def test_with_one_vector_it_is_info_nce(pairs, backbone):
    ((batch,),) = Batches(pairs, 8, 2, seed=0).from_step(0, 1)
    options = replace(OPTIONS, num_latents=1, false_negative_margin=0.1)
    plain, grouped = (fresh_learner(backbone, replace(options, groups=groups))(batch) for groups in ((), (1,)))
    assert grouped.item() == pytest.approx(2 * plain.item(), rel=1e-5)


def test_a_matryoshka_loss_is_the_mean_over_widths(pairs, backbone):
    ((batch,),) = Batches(pairs, 8, 1, seed=0).from_step(0, 1)
    learner = fresh_learner(backbone, replace(OPTIONS, matryoshka=(16, 64)))
    whole, losses = learner(batch), []
    original = learner.pool
    for width in (backbone.dim, 16, 64):
        single = fresh_learner(backbone, OPTIONS)
        single.pool = lambda states, width=width: torch.nn.functional.normalize(original(states)[:, :width], dim=-1)
        losses.append(single(batch).item())
    assert whole.item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert len({round(loss, 3) for loss in losses}) == 3


def test_late_interaction_is_scored_where_it_was_trained(pairs, backbone, tmp_path):
    options = replace(OPTIONS, groups=(1, 4), epochs=3)
    retriever = Retriever(backbone, run(pairs, backbone, tmp_path / "run", options).queries)
    late = LateInteraction(retriever, 4)
    embedded = late.embed([pairs[0].query, *pairs[0].positives], ["p", "a", "b"])
    assert embedded.vectors.shape == (3, 4, backbone.dim)
    assert_close(np.linalg.norm(embedded.vectors, axis=-1), 1, steps=ROUNDED)
    asked = RetrievalSet(
        "captions",
        {str(place): pair.positives[0] for place, pair in enumerate(pairs)},
        {f"picture {place}": pair.query for place, pair in enumerate(pairs)},
        {str(place): {f"picture {place}": 1} for place in range(len(pairs))},
        (),
    )
    plain, fine = evaluate(late, [asked])[0], evaluate(late, [asked], keep=tmp_path / "kept")[0]
    again = evaluate(late, [asked], keep=tmp_path / "kept")[0]
    assert plain.metrics == fine.metrics == again.metrics and plain.metrics["hit@5"] > 5 / len(pairs)
    (one,) = load_file(next((tmp_path / "kept").rglob("*.safetensors"))).values()
    assert one.shape[1:] == (4, backbone.dim)


def test_late_interaction_needs_an_adapter_trained_for_it(backbone):
    with pytest.raises(InputError, match="trained without any"):
        LateInteraction(Retriever(backbone, LatentQueries(4, backbone.dim)), 4)
    with pytest.raises(InputError, match="groups of 1, 4 latents"):
        LateInteraction(Retriever(backbone, LatentQueries(4, backbone.dim, groups=(4, 1))), 2)
