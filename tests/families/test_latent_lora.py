"""Low-rank matrices at the latent queries' positions: the same on both paths, in every family, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from family_items import ITEMS, KEEPING, SPLITTING, families
from tiny_models import FAMILIES
from tolerance import FORWARD, GRADIENT, assert_close
from torch import Tensor

from slq.io.provenance import parameter_hash
from slq.models import LatentLora, stack_kv
from slq.pooling import MeanPooling


@pytest.fixture(scope="module")
def lora(model) -> LatentLora:
    """Matrices that add something."""
    generator = torch.Generator().manual_seed(1)
    made = LatentLora.create(model.model, rank=3, generator=generator)
    for layer in made.by_layer.values():
        torch.nn.init.normal_(layer.lora_B, std=0.05, generator=generator)
    return made


def gradients(states: Tensor, latents: Tensor, lora: LatentLora) -> Tensor:
    """Of the latents and all matrices, as one vector; the weights of the sum tell the positions apart."""
    weights = torch.linspace(-1, 1, states.numel()).view_as(states)
    return torch.cat([each.flatten() for each in torch.autograd.grad((states * weights).sum(), [latents, *lora.parameters()])])


@pytest.mark.numeric
@families(SPLITTING)
def test_two_passes_equal_one(model, latents, lora):
    prepared = model.prepare(ITEMS)
    fast = model.decode_latents(model.prefill(prepared), latents, "final", lora)
    slow = model.forward_reference(prepared, latents, "final", lora)
    assert_close(fast, slow, steps=FORWARD)
    assert_close(gradients(fast, latents, lora), gradients(slow, latents, lora), steps=GRADIENT)
    plain = model.forward_reference(prepared, latents)
    assert (MeanPooling()(plain) - MeanPooling()(slow)).norm(dim=1).min() > 1e-3, "they should add something"


@families(FAMILIES)
def test_an_items_own_tokens_never_meet_them(model, latents, lora):
    """One pass over items and latent queries: the states of all tokens before those stay the same bits."""
    prepared, count, seen = model.prepare(ITEMS), len(latents), []
    handle = model.model.base_model.register_forward_hook(lambda _module, _inputs, output: seen.append(output.last_hidden_state))
    try:
        with torch.no_grad():
            model.forward_reference(prepared, latents)
            model.forward_reference(prepared, latents, "final", lora)
    finally:
        handle.remove()
    plain, changed = seen
    assert torch.equal(plain[:, :-count], changed[:, :-count]) and not torch.equal(plain[:, -count:], changed[:, -count:])


@families(KEEPING)
def test_one_cached_prefix_serves_adapters_with_and_without_in_one_batch(model, latents, lora):
    with torch.no_grad():
        (kept,) = model.prefill(model.prepare(ITEMS[:1])).unstack()
        other = LatentLora.create(model.model, rank=2, targets=("q_proj", "o_proj"), generator=torch.Generator().manual_seed(2))
        for layer in other.by_layer.values():
            torch.nn.init.ones_(layer.lora_B)
        adapters = [lora, None, other, lora]
        together = model.decode_latents(stack_kv([kept] * 4, model.device), latents, "final", adapters)
        for row, adapter in zip(together, adapters, strict=True):
            assert_close(row, model.decode_latents(stack_kv([kept], model.device), latents, "final", adapter)[0], steps=FORWARD)


@families(FAMILIES)
def test_the_model_is_whole_afterwards(model, latents, lora):
    before, prepared = parameter_hash(model.model), model.prepare(ITEMS[:2])
    with torch.no_grad():
        plain = model.forward_reference(prepared, latents)
        model.forward_reference(prepared, latents, "final", lora)
        assert torch.equal(model.forward_reference(prepared, latents), plain)
    assert parameter_hash(model.model) == before and not any(parameter.requires_grad for parameter in model.model.parameters())
