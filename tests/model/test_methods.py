"""What is compared with latent queries, and their variants: tuned copies leave the model alone, and every form survives its saving."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tolerance import FORWARD, GRADIENT, ROUNDED, TRAINING, assert_close

from slq.adapters.latents import LatentQueries
from slq.data import RetrievalSet
from slq.encoders import BASELINES, FineTunedModel, LastTokenEncoder, MeanTokensEncoder, MultiVectorEncoder, ZeroTokenEncoder, load_encoder
from slq.encoders.baselines import ONE_WORD
from slq.encoders.latent import LatentEncoder
from slq.errors import AdapterError, FingerprintMismatchError, InputError
from slq.evaluation import evaluate
from slq.evaluation.ranking import rank
from slq.io.provenance import parameter_hash
from slq.losses import compose_loss
from slq.losses.info_nce import info_nce
from slq.losses.late_interaction import late_interaction, late_interaction_nce
from slq.pooling import Pooling
from slq.training import TrainConfig, train
from slq.training.batches import Batches
from slq.training.methods import fresh_queries, methods
from slq.training.step import ContrastiveStep
from slq.types import Item

OPTIONS = TrainConfig(num_latents=4, epochs=2, batch_size=8, validation_size=8, save_steps=2, learning_rate=5e-3)
TUNED = ["lora", "full"]


def tuning(method: str) -> TrainConfig:
    plain = TrainConfig()
    return replace(OPTIONS, method=method, num_latents=plain.num_latents, learning_rate=1e-3)


def step_of(model, config):
    return ContrastiveStep(methods.get(config.method).create(model, config), compose_loss(config))


def run(pairs, model, out, options, **changes):
    return train(pairs, model, out, options, show_progress=False, **changes)


def embed(encoder, items):
    with torch.no_grad():
        return encoder.encode_batch(items)


@pytest.fixture(scope="module", params=TUNED)
def tuned(request, pairs, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    before = parameter_hash(model.model)
    encoder = run(pairs, model, out, tuning(request.param))
    assert parameter_hash(model.model) == before, "tuning a copy changed the model"
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    return out, encoder


# Tuned models


@pytest.mark.parametrize("method", TUNED)
def test_untrained_it_is_the_last_token(model, items, method):
    fresh = FineTunedModel(model, method)
    assert_close(embed(fresh, items), embed(LastTokenEncoder(model), items), steps=FORWARD)


def test_what_is_trainable(model):
    decoder = model.model.get_decoder()
    linear = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    lora, full = FineTunedModel(model, "lora", rank=8), FineTunedModel(model, "full")
    assert sum(p.numel() for p in lora.trainable) == sum(8 * (layer.in_features + layer.out_features) for layer in linear)
    assert sum(p.numel() for p in full.trainable) == sum(p.numel() for p in decoder.parameters())
    seeing = FineTunedModel(model, "full", train_vision_encoder=True)
    assert sum(p.numel() for p in seeing.trainable) == sum(p.numel() for p in model.model.base_model.parameters())
    shared = {p.data_ptr() for p in model.model.parameters()}
    assert shared <= {p.data_ptr() for p in lora.model.model.parameters()}, "LoRA's copy holds no weights of its own"
    assert not shared & {p.data_ptr() for p in full.model.model.parameters()}


@pytest.mark.slow
def test_tuning_learns_and_logs(tuned, pairs, model):
    out, encoder = tuned
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["temperature"] != pytest.approx(0.07, abs=1e-4), "at a whole model's learning rate it would not move"
    images, captions = [pair.query for pair in pairs], [pair.positives[0] for pair in pairs]
    before, after = (
        info_nce(embed(each, images), embed(each, captions), torch.eye(len(pairs), dtype=torch.bool), 0.07)
        for each in (LastTokenEncoder(model), encoder)
    )
    assert after < before
    assert encoder.training["steps"] == 8 and encoder.training["method"] == encoder.method


@pytest.mark.slow
def test_tuned_saved_and_loaded_are_the_same(tuned, model, items):
    out, encoder = tuned
    again = load_encoder(out, model)
    assert isinstance(again, FineTunedModel) and again.training == json.loads((out / "finetuned.json").read_text())["training"]
    assert again.fingerprint == encoder.fingerprint != FineTunedModel(model, encoder.method).fingerprint
    assert torch.equal(embed(again, items), embed(encoder, items))
    assert (embed(again, items) - embed(LastTokenEncoder(model), items)).abs().max() > 1e-3
    assert load_encoder(out).fingerprint == encoder.fingerprint, "its model is named in it"


def test_merged_equals_unmerged(tuned, model, items):
    encoder = tuned[1]
    merged = encoder.merged()
    assert {name: p.shape for name, p in merged.model.named_parameters()} == {n: p.shape for n, p in model.model.named_parameters()}
    assert_close(embed(LastTokenEncoder(merged), items), embed(encoder, items), steps=FORWARD)
    assert merged.fingerprint != model.fingerprint and merged.identity.revision == "unknown"


def test_a_tuned_model_answers_with_its_own_weights(tuned, model):
    ask = [[model.message(Item("what is the animal said to have nine lives?"))]]
    assert tuned[1].model.generate(ask) == tuned[1].merged().generate(ask)


@pytest.mark.slow
def test_tuning_resumed_equals_unbroken(tuned, pairs, model, tmp_path):
    whole, options = tuned[1], tuning(tuned[1].method)
    run(pairs, model, tmp_path / "broken", options, stop_after=3)
    resumed = run(pairs, model, tmp_path / "broken", options, resume=True)
    assert all(torch.equal(one, other) for one, other in zip(whole.trainable, resumed.trainable, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("method", [*TUNED, "latents"])
def test_several_passes_have_the_gradient_of_one(method, pairs, model):
    ((batch,),) = Batches(pairs, 8, 1, seed=0).from_step(0, 1)
    options = OPTIONS if method == "latents" else tuning(method)
    found = []
    for tokens in (10_000, 120):
        torch.manual_seed(0)  # where LoRA starts
        step = step_of(model, replace(options, mini_batch_tokens=tokens, prefix_caching=False))
        loss = step(batch)
        found.append((loss.item(), torch.autograd.grad(loss, list(step.parameters()))))
    (one_loss, one), (parts_loss, parts) = found
    assert_close(parts_loss, one_loss, steps=FORWARD)
    for whole, part in zip(one, parts, strict=True):
        assert_close(part, whole, steps=GRADIENT)


def test_a_damaged_or_foreign_tuned_model(tuned, model, tmp_path):
    out, _ = tuned
    with pytest.raises(FingerprintMismatchError, match="learned on the model 'miniature'"):
        FineTunedModel.from_pretrained(out, model.with_model(model.model, "another"))
    about = json.loads((out / "finetuned.json").read_text())
    (tmp_path / "finetuned.json").write_text(json.dumps(about))
    with pytest.raises(AdapterError, match="corrupt"):
        FineTunedModel.from_pretrained(tmp_path, model)
    (tmp_path / "finetuned.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(AdapterError, match="format 99"):
        FineTunedModel.from_pretrained(tmp_path, model)


def test_options_of_latents_are_refused_where_there_are_none():
    with pytest.raises(InputError, match="multi_vector_sizes is an option of latent queries, and method lora has none"):
        TrainConfig(method="lora", multi_vector_sizes=(1,))
    with pytest.raises(InputError, match="train_vision_encoder is for method full"):
        TrainConfig(method="lora", train_vision_encoder=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*TUNED, "latents"])
def test_the_end_keeps_a_share_of_the_start(method, pairs, model, items, tmp_path):
    options = OPTIONS if method == "latents" else tuning(method)
    learned, kept = (run(pairs, model, tmp_path / str(alpha), replace(options, max_steps=1, wise_ft_alpha=alpha)) for alpha in (1.0, 0.75))
    if method == "latents":
        start = fresh_queries(model, options).latents
        assert_close(kept.queries.latents, 0.75 * learned.queries.latents + 0.25 * start, steps=ROUNDED)
    elif method == "full":
        start = dict(model.model.named_parameters())
        for name, parameter in kept.model.model.named_parameters():
            whole = learned.model.model.get_parameter(name)
            assert_close(parameter, 0.75 * whole + 0.25 * start[name], steps=ROUNDED)
    else:
        for one, other in zip(layers(kept), layers(learned), strict=True):
            assert_close(one.get_delta_weight("default"), 0.75 * other.get_delta_weight("default"), steps=ROUNDED)
    if method == "latents":  # without prefixes that training read in other company, which rounds otherwise
        kept = LatentEncoder(model, kept.queries)
    assert torch.equal(embed(load_encoder(tmp_path / "0.75", model), items), embed(kept, items)), "and that is what is saved"


def layers(tuned):
    return [module for module in tuned.model.model.modules() if hasattr(module, "get_delta_weight")]


# Zero-shot readouts


def test_the_mean_of_tokens_by_hand(model, items):
    for item in (items[0], items[4]):
        states = model.token_states(model.prepare([item]))[0]
        wanted = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
        assert_close(embed(MeanTokensEncoder(model), [item, items[1]])[0], wanted, steps=FORWARD)


def test_the_zero_token_stands_behind_the_instruction(model, items):
    plain, asked = ZeroTokenEncoder(model), ZeroTokenEncoder(model, ONE_WORD)
    by_hand = LatentEncoder(model, LatentQueries(1, model.dim))
    assert torch.equal(embed(plain, items), embed(by_hand, items))
    assert_close(embed(asked, [Item("a cat")]), embed(by_hand, [Item(f"a cat {ONE_WORD}")]), steps=FORWARD)
    assert_close(embed(asked, [items[4]]), embed(by_hand, [replace(items[4], text=ONE_WORD)]), steps=FORWARD)


@pytest.mark.slow
def test_every_zero_shot_readout_is_another_one(model, items):
    readouts = {name: make(model) for name, make in BASELINES.items()}
    assert len({readout.fingerprint for readout in readouts.values()}) == len(readouts)
    embedded = [embed(readout, items) for readout in readouts.values()]
    assert all((one - other).abs().max() > 1e-3 for place, one in enumerate(embedded) for other in embedded[:place])


# Forms of latent queries

FORMS = [
    {"pooling": "last"},
    {"hidden_state": "pre_mlp"},
    {"modality_specific": True},
    {"multi_vector_sizes": (1, 3), "generation_prompt": True},
    {"pooling": "last", "hidden_state": "pre_mlp", "modality_specific": True, "multi_vector_sizes": (4,)},
]


def as_options(form: dict) -> dict:
    """What `LatentQueries` calls by one name and the options by another."""
    return {"add_generation_prompt" if name == "generation_prompt" else name: value for name, value in form.items()}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forms_train_and_survive_saving(form, pairs, model, items, tmp_path):
    found = run(pairs, model, tmp_path / "fast", replace(OPTIONS, max_steps=2, **as_options(form)))
    slow = run(pairs, model, tmp_path / "slow", replace(OPTIONS, max_steps=2, prefix_caching=False, **as_options(form)))
    assert_close(found.queries.latents, slow.queries.latents, steps=TRAINING)
    again = LatentEncoder.from_pretrained(tmp_path / "fast", model)
    assert again.queries.config == found.queries.config == {**LatentQueries(4, 8, generation_prompt=False).config, **form}
    assert torch.equal(embed(again, items), embed(LatentEncoder(model, found.queries), items))
    assert_close(embed(found, items), embed(again, items), steps=FORWARD, why="kept prefixes change nothing")
    plain = LatentQueries(4, model.dim)
    plain.latents.data = found.queries.latents.data if plain.latents.shape == found.queries.latents.shape else found.queries.latents[0].data
    assert again.fingerprint != LatentEncoder(model, plain).fingerprint


def test_each_modality_has_its_own_latents(model, items):
    queries = LatentQueries.create(3, model.dim, generator=torch.Generator().manual_seed(0), modality_specific=True)
    texts, images = LatentEncoder(model, LatentQueries(3, model.dim)), LatentEncoder(model, LatentQueries(3, model.dim))
    texts.queries.latents.data, images.queries.latents.data = queries.latents.data[0], queries.latents.data[1]
    found = embed(LatentEncoder(model, queries), items)
    for place, item in enumerate(items):
        own = texts if item.image is None else images
        assert_close(found[place], embed(own, [item])[0], steps=FORWARD)


@pytest.mark.parametrize(
    ("form", "message"), [({"pooling": "max"}, "Unknown name 'max' in slq.poolings"), ({"multi_vector_sizes": (5,)}, "between 1 and 4")]
)
def test_forms_that_do_not_exist(form, message, model):
    with pytest.raises(ValueError, match=message):
        LatentEncoder(model, LatentQueries(4, model.dim, **form))
    with pytest.raises(InputError):
        TrainConfig(num_latents=4, **as_options(form))


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
    for row, ranking in enumerate(rank(queries.numpy(), candidates.numpy(), [{0: 1}] * 4, top_k=30)):
        assert ranking.top_K.tolist() == similarities[row].argsort(descending=True).tolist()
        assert_close(ranking.scores_K, 3 * similarities[row].sort(descending=True).values.numpy(), steps=FORWARD)


def test_late_interaction_loss_in_closed_form():
    alike = torch.ones(5, 2, 4) / 2
    positives = torch.eye(5, dtype=torch.bool)
    assert late_interaction_nce(alike, alike, positives, 0.07).item() == pytest.approx(math.log(5))
    right = torch.nn.functional.one_hot(torch.arange(5)).float()[:, None].expand(5, 2, 5)
    wanted = math.log(math.exp(1 / 0.5) + 4) - 1 / 0.5
    assert late_interaction_nce(right, right, positives, 0.5).item() == pytest.approx(wanted, rel=1e-5)


def test_with_one_vector_it_is_info_nce(pairs, model):
    ((batch,),) = Batches(pairs, 8, 2, seed=0).from_step(0, 1)
    options = replace(OPTIONS, num_latents=1, false_negative_margin=0.1)
    plain, grouped = (step_of(model, replace(options, multi_vector_sizes=groups))(batch) for groups in ((), (1,)))
    assert grouped.item() == pytest.approx(2 * plain.item(), rel=1e-5)


@dataclass(frozen=True)
class LeadingDimensions:
    """The first dimensions of a pooling's embeddings, at length 1 again."""

    pooling: Pooling
    width: int

    def __call__(self, states_BND: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.pooling(states_BND)[:, : self.width], dim=-1)

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        return (self.width,)


@pytest.mark.slow
def test_a_matryoshka_loss_is_the_mean_over_widths(pairs, model):
    ((batch,),) = Batches(pairs, 8, 1, seed=0).from_step(0, 1)
    step = step_of(model, replace(OPTIONS, matryoshka_dims=(16, 64)))
    whole, losses = step(batch), []
    original = step.trainable.encoder.pooling
    for width in (model.dim, 16, 64):
        single = step_of(model, OPTIONS)
        single.trainable.encoder.pooling = LeadingDimensions(original, width)
        losses.append(single(batch).item())
    assert whole.item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert len({round(loss, 3) for loss in losses}) == 3


@pytest.mark.slow
def test_late_interaction_is_scored_where_it_was_trained(pairs, model, tmp_path):
    options = replace(OPTIONS, multi_vector_sizes=(1, 4), epochs=3)
    encoder = LatentEncoder(model, run(pairs, model, tmp_path / "run", options).queries)
    late = MultiVectorEncoder(encoder, 4)
    embedded = late.encode([pairs[0].query, *pairs[0].positives], ["p", "a", "b"])
    assert embedded.vectors.shape == (3, 4, model.dim)
    assert_close(np.linalg.norm(embedded.vectors, axis=-1), 1, steps=ROUNDED)
    asked = RetrievalSet(
        "captions",
        {str(place): pair.positives[0] for place, pair in enumerate(pairs)},
        {f"image {place}": pair.query for place, pair in enumerate(pairs)},
        {str(place): {f"image {place}": 1} for place in range(len(pairs))},
        (),
    )
    plain, fine = evaluate(late, [asked])[0], evaluate(late, [asked], cache_dir=tmp_path / "cache")[0]
    again = evaluate(late, [asked], cache_dir=tmp_path / "cache")[0]
    assert plain.metrics == fine.metrics == again.metrics and plain.metrics["hit@5"] > 5 / len(pairs)
    (one,) = load_file(next((tmp_path / "cache").rglob("*.safetensors"))).values()
    assert one.shape[1:] == (4, model.dim)


def test_late_interaction_needs_an_adapter_trained_for_it(model):
    with pytest.raises(InputError, match="trained without any"):
        MultiVectorEncoder(LatentEncoder(model, LatentQueries(4, model.dim)), 4)
    with pytest.raises(InputError, match="trained with sizes 1, 4"):
        MultiVectorEncoder(LatentEncoder(model, LatentQueries(4, model.dim, multi_vector_sizes=(4, 1))), 2)
