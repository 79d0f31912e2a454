"""Our attention against the stock one, outputs and gradients; and that a decoder runs it only where a call asks for it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tolerance import FORWARD, assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from slq.models import load_model
from slq.models.attention import SLQ_SDPA, attend, implementation, is_installed, keyword, packed_lengths

BATCH, COUNT, KEYS, WIDTH = 3, 5, 17, 8


def drawn(group: int, dtype: torch.dtype = torch.float32, key_heads: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(group)
    shapes = (key_heads * group, COUNT, WIDTH), (key_heads, KEYS, WIDTH), (key_heads, KEYS, WIDTH)
    return tuple(torch.randn(BATCH, *shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)


def seen() -> torch.Tensor:
    """What each query may look at (B, 1, N, K): left padding is out of sight, and so is what comes after it."""
    causal = torch.ones(COUNT, KEYS, dtype=torch.bool).tril(KEYS - COUNT)
    return torch.stack([causal & (torch.arange(KEYS) >= padding) for padding in (0, 3, 11)])[:, None]


def both(group: int, mask: torch.Tensor, inputs: tuple[torch.Tensor, ...], **others) -> list[tuple[torch.Tensor, ...]]:
    """Output and gradients of queries, keys and values, folded and stock."""
    module = SimpleNamespace(num_key_value_groups=group, is_causal=True)
    found = []
    for attention in (partial(attend, slq_attention="folded"), sdpa_attention_forward):
        output, weights = attention(module, *inputs, mask, scaling=0.3, **others)
        assert weights is None
        towards = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).to(output.dtype)
        found.append((output, *torch.autograd.grad((output * towards).sum(), inputs)))
    return found


@pytest.mark.numeric
@pytest.mark.parametrize("added", [False, True], ids=["what is seen", "what is added"])
@pytest.mark.parametrize("group", [1, 2, 7])
def test_the_same_numbers_as_stock_attention(group, added):
    mask = torch.zeros(seen().shape).masked_fill(~seen(), float("-inf")) if added else seen()
    folded, stock = both(group, mask, drawn(group))
    assert folded[0].shape == (BATCH, COUNT, 2 * group, WIDTH)
    for ours, theirs in zip(folded, stock, strict=True):
        assert_close(ours, theirs, steps=FORWARD)


def test_the_same_numbers_in_half_precision():
    folded, stock = both(4, seen(), drawn(4, torch.bfloat16))
    assert folded[0].dtype == torch.bfloat16
    for ours, theirs in zip(folded, stock, strict=True):
        assert_close(ours, theirs, steps=FORWARD)


def test_the_mask_and_the_order_of_heads_count():
    query, key, value = drawn(2)
    (output, *_), _ = both(2, seen(), (query, key, value))
    (unmasked, *_), _ = both(2, torch.ones_like(seen()), (query, key, value))
    assert (output - unmasked).abs().max() > 1e-2
    (flipped, *_), _ = both(2, seen(), (query.flip(1), key, value))
    assert (output - flipped.flip(2)).abs().max() > 1e-2


def test_heads_with_masks_of_their_own_are_left_to_stock_attention():
    query, key, value = drawn(2)
    mask = seen().repeat(1, 4, 1, 1)
    mask[:, 1, :, 12:14] = False
    folded, stock = both(2, mask, (query, key, value))
    assert torch.equal(folded[0], stock[0])
    bias = torch.randn(1, 4, COUNT, KEYS, generator=torch.Generator().manual_seed(3))
    folded, stock = both(2, seen(), (query, key, value), position_bias=bias)
    assert torch.equal(folded[0], stock[0])


def test_without_a_mask_it_is_left_to_stock_attention():
    inputs = tuple(each[..., :COUNT, :].detach().requires_grad_() for each in drawn(2))
    folded, stock = both(2, None, inputs)
    assert torch.equal(folded[0], stock[0])


@pytest.mark.numeric
@pytest.mark.parametrize("group", [1, 2])
def test_items_of_a_packed_row_see_themselves_alone(group):
    lengths = [3, 5, 5, 1]
    module = SimpleNamespace(num_key_value_groups=group, is_causal=True)
    generator = torch.Generator().manual_seed(group)
    query, key, value = (torch.randn(1, heads, sum(lengths), WIDTH, generator=generator) for heads in (2 * group, 2, 2))
    packed, weights = attend(module, query, key, value, packed_lengths(lengths), scaling=0.3, slq_attention="packed")
    assert packed.shape == (1, sum(lengths), 2 * group, WIDTH) and weights is None
    apart = [
        sdpa_attention_forward(module, *each, None, scaling=0.3, is_causal=True)[0]
        for each in zip(*(every.split(lengths, dim=2) for every in (query, key, value)), strict=True)
    ]
    assert_close(packed, torch.cat(apart, dim=1), steps=FORWARD)
    together, _ = attend(module, query, key, value, packed_lengths([sum(lengths)]), scaling=0.3, slq_attention="packed")
    assert (packed - together)[:, lengths[0] :].abs().max() > 1e-2


@pytest.mark.parametrize("group", [1, 2, 7])
def test_without_the_keyword_it_is_stock_attention(group):
    inputs, module = drawn(group), SimpleNamespace(num_key_value_groups=group, is_causal=True)
    ours, stock = (attention(module, *inputs, seen(), scaling=0.3)[0] for attention in (attend, sdpa_attention_forward))
    assert torch.equal(ours, stock)


def test_a_decoder_of_torchs_attention_has_it_and_goes_by_the_name_of_torchs(model):
    assert is_installed(model.model) and implementation(model.model) == "sdpa"
    config = model.model.config
    assert config.get_text_config()._attn_implementation == SLQ_SDPA
    assert config.vision_config._attn_implementation == config._attn_implementation == "sdpa"
    assert keyword(model.model, "folded") == {"slq_attention": "folded"}


def test_another_attention_stays_what_it_is():
    eager = load_model(device="cpu", attn_implementation="eager").model
    assert not is_installed(eager) and implementation(eager) == eager.get_decoder().config._attn_implementation == "eager"
    assert keyword(eager, "packed") == {}


def test_it_is_not_saved_with_a_model(tmp_path):
    load_model(device="cpu").model.save_pretrained(tmp_path)
    assert SLQ_SDPA not in (tmp_path / "config.json").read_text(encoding="utf-8")


def test_a_packed_row_without_the_keyword_is_an_error_and_no_wrong_number(model):
    row = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": packed_lengths([1, 3]), "position_ids": torch.arange(4)[None]}
    with pytest.raises(RuntimeError, match="Expected attn_mask dtype"):
        model.model.base_model(**row)
    assert model.model.base_model(**row, slq_attention="packed").last_hidden_state.isfinite().all()
