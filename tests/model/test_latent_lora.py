"""Latent LoRA, batches of nearest neighbours and facts in training: saved, resumed, in parts, and beside the model's own chat."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tolerance import GRADIENT, ROUNDED, assert_close

from slq.adapters.files import Adapter
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.encoders.latent import LatentEncoder
from slq.errors import AdapterError, ConfigError, FingerprintMismatchError, InputError, ResumeMismatchError
from slq.io.provenance import parameter_hash
from slq.models import LatentLora
from slq.training import TrainConfig
from slq.training.facts import Facts
from slq.training.loop import train
from slq.training.telling import Questions, read_facts, tell_facts
from slq.types import Item, Pair

CONFIG = TrainConfig(
    **{"num_latents": 3, "batch_size": 10, "epochs": 2, "validation_split": 0, "learning_rate": 0.02, "save_steps": 3},
    **{"latent_lora_rank": 2, "batch_sampler": "nearest", "neighbors": 2, "facts_per_step": 4},
)


@pytest.fixture(scope="module")
def facts(pairs) -> Facts:
    names = {pair.query.content_hash: frozenset({"even" if number % 2 == 0 else "odd"}) for number, pair in enumerate(pairs)}
    texts = [Item(f"a fact of number {number}") for number in range(10)]
    return Facts(tuple(texts), tuple("even" if number % 2 == 0 else "odd" for number in range(10)), names)


@pytest.fixture(scope="module")
def learned(pairs, model, facts, tmp_path_factory) -> LatentEncoder:
    out = tmp_path_factory.mktemp("lora") / "run"
    return train(pairs, model, out, CONFIG, (), show_progress=False, facts=facts)  # type: ignore[return-value]


def with_matrices(model, rank: int = 2, **changes) -> LatentEncoder:
    """An encoder whose matrices add something."""
    generator = torch.Generator().manual_seed(0)
    lora = LatentLora.create(model.model, rank, generator=generator)
    for layer in lora.by_layer.values():
        torch.nn.init.normal_(layer.lora_B, std=0.05, generator=generator)
    queries = LatentQueries.create(4, model.dim, generator=generator, generation_prompt=False, lora=lora)
    return LatentEncoder(model, queries, **changes)


@pytest.mark.slow
def test_training_learns_the_matrices_and_changes_no_weight(pairs, model, learned):
    assert all(layer.lora_B.abs().max() > 0 for layer in learned.queries.lora.by_layer.values())
    assert model.fingerprint == learned.model.fingerprint and not any(each.requires_grad for each in model.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 7])
def test_resumed_equals_unbroken(pairs, model, facts, learned, tmp_path, stop):
    """Four steps an epoch: the order of the second one follows from weights that its steps change."""
    train(pairs, model, tmp_path / "run", CONFIG, (), show_progress=False, facts=facts, stop_after=stop)
    orders = list((tmp_path / "run").glob("checkpoint-*/order.json"))
    assert len(orders) == (stop > 4)
    again = train(pairs, model, tmp_path / "run", CONFIG, (), show_progress=False, facts=facts, resume=True)
    assert parameter_hash(again.queries) == parameter_hash(learned.queries)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"latent_lora_rank": 0}, {"batch_sampler": "random"}, {"facts": None}], ids=str)
def test_each_part_counts(pairs, model, facts, learned, tmp_path, change):
    options = {name: value for name, value in change.items() if name != "facts"}
    facts = None if "facts" in change else facts
    other = train(pairs, model, tmp_path / "run", replace(CONFIG, **options), (), show_progress=False, facts=facts)
    assert not torch.equal(other.queries.latents, learned.queries.latents)


def test_saved_it_comes_back(model, items, tmp_path):
    encoder = with_matrices(model)
    encoder.save_pretrained(tmp_path / "adapter")
    again = LatentEncoder.from_pretrained(tmp_path / "adapter", model)
    assert again.fingerprint == encoder.fingerprint and again.describe()["latent_lora"] == {"rank": 2, "alpha": 16}
    assert torch.equal(again.encode_batch(items[:2]), encoder.encode_batch(items[:2]))
    assert (tmp_path / "adapter/adapter.safetensors").stat().st_size < 200_000


def test_the_fingerprint_covers_every_matrix_and_their_scale(model):
    found = {with_matrices(model).fingerprint, with_matrices(model, rank=3).fingerprint}
    encoder = with_matrices(model)
    encoder.queries.lora.alpha = 8
    found.add(encoder.fingerprint)
    for matrix in encoder.queries.lora.parameters():
        matrix.data[0, 0] += 1e-3
        found.add(encoder.fingerprint)
    assert len(found) == 3 + len(list(encoder.queries.lora.parameters()))


def test_matrices_of_another_model_or_without_their_pair_are_refused(model, tmp_path):
    encoder = with_matrices(model)
    encoder.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter/adapter.safetensors"
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if not name.endswith("q_proj.lora_B")}, file)
    with pytest.raises(AdapterError, match="corrupt"):
        Adapter.load(tmp_path / "adapter")
    save_file({name: value for name, value in tensors.items() if not name.startswith("lora.")}, file)
    with pytest.raises((AdapterError, FingerprintMismatchError)):
        Adapter.load(tmp_path / "adapter")
    lora = LatentLora({"layers.0.self_attn.q_proj": (torch.zeros(2, 7), torch.zeros(256, 2))})
    with pytest.raises(AdapterError, match=r"layers\.0\.self_attn\.q_proj of 7 to 256"):
        LatentEncoder(model, LatentQueries(2, model.dim, lora=lora))


def test_a_target_that_is_not_there_is_named_with_those_that_are(model):
    with pytest.raises(ConfigError, match="no linear layer named query: choose among down_proj, gate_proj"):
        LatentLora.create(model.model, 2, targets=("query",))
    lora = LatentLora.create(model.model, 2, targets=("q_proj", "o_proj"))
    assert {name.rpartition(".")[2] for name in lora.by_layer} == {"q_proj", "o_proj"} and len(lora.by_layer) == 8


@pytest.mark.parametrize("how", [{"mini_batch_tokens": 60}, {"prefix_caching": False}, {"cache": True}], ids=str)
def test_every_way_gives_the_gradient_of_one_pass(model, items, how):
    def gradient(**changes) -> torch.Tensor:
        encoder = with_matrices(model, **changes)
        states = encoder.states(items[:4])
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        return torch.cat([parameter.grad.flatten() for name, parameter in encoder.queries.named_parameters() if parameter.grad is not None])

    found = gradient(**({"cache": KVCache()} if "cache" in how else how))
    assert_close(found, gradient(), steps=GRADIENT)


def test_interpolated_to_its_start_it_adds_nothing(model, items):
    encoder = with_matrices(model)
    plain = LatentEncoder(model, LatentQueries.create(4, model.dim, generation_prompt=False))
    plain.queries.latents.data.copy_(encoder.queries.latents.data)
    encoder.queries.interpolate(encoder.queries.latents.detach().clone(), 0.0)
    assert_close(encoder.encode_batch(items[:3]), plain.encode_batch(items[:3]), steps=ROUNDED)


@pytest.mark.slow
def test_eight_threads_that_chat_and_embed_give_what_one_gives(model, items):
    encoder, question = with_matrices(model), [[model.message(Item("what is shown?", items[4].image))]]

    def embed() -> object:
        return encoder.encode_batch(items[:3])

    def chat() -> object:
        return model.generate(question)

    jobs = [embed, chat] * 4
    alone = [job() for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(lambda job: job(), jobs), alone, strict=True):
                assert torch.equal(found, wanted) if isinstance(wanted, torch.Tensor) else found == wanted


# --- what the model tells ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(model, pairs, tmp_path_factory):
    file = tmp_path_factory.mktemp("told") / "facts.jsonl"
    return file, tell_facts(model, pairs[:4], file, facts_per_name=2, max_names=2)


@pytest.mark.slow
def test_the_model_tells_facts_that_it_knows_again(model, pairs, told):
    file, counts = told
    facts = read_facts(file)
    assert counts.images == 4 and counts.names == 2 and counts.kept == len(facts.texts) >= 1
    assert set(facts.shown) == {pair.query.content_hash for pair in pairs[:4]} and all(facts.shown.values())
    for item, name in zip(facts.texts, facts.names, strict=True):
        assert name in model.generate([[model.message(Item(f"what is {item.text}?"))]])[0]


@pytest.mark.slow
def test_stopped_anywhere_it_goes_on_to_the_same_file(model, pairs, told, tmp_path):
    whole = told[0].read_text()
    for kept in (whole.splitlines()[:1], whole.splitlines()[:6]):
        file = tmp_path / f"{len(kept)}.jsonl"
        file.write_text("\n".join([*kept, '{"kind": "fa']))
        tell_facts(model, pairs[:4], file, facts_per_name=2, max_names=2)
        lines = [line for line in file.read_text().splitlines() if line != '{"kind": "fa']
        assert sorted(lines) == sorted(whole.splitlines())
        assert read_facts(file).sha256 == read_facts(told[0]).sha256


@pytest.mark.slow
def test_another_question_does_not_continue_the_file(model, pairs, told):
    with pytest.raises(ResumeMismatchError, match="another tell"):
        tell_facts(model, pairs[:4], told[0], replace(Questions.of(model), tell="say something of {name}"), facts_per_name=2)
    settings = json.loads(told[0].read_text().splitlines()[0])
    assert settings["tell"] == "tell a fact about a {name}." and settings["model"]["name"] == "miniature"


def test_pairs_without_images_have_nothing_to_be_told_of(model, tmp_path):
    with pytest.raises(InputError, match="no pair has one"):
        tell_facts(model, [Pair(Item("a"), (Item("b"),))], tmp_path / "facts.jsonl")
    assert not (tmp_path / "facts.jsonl").exists()
