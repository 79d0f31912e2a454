"""Attention as our two passes want it: torch's own, on fewer copies and without padding.

A decoder that would run torch's attention (`sdpa`) runs `slq_sdpa` from its loading on: torch's attention too, unless the call through the
model carries `slq_attention="folded"` or `"packed"`. The keyword travels with the call, so nothing of the model changes between passes.

*Folded heads*, for the latent queries. In models with grouped-query attention G query heads share one key head. The stock implementation
copies keys and values G times, and sums their gradients over the copies. Here the G heads' queries stand one under the other as rows of
one head instead: the same products, row by row. transformers does so for a single query; N latent queries come to G * N rows.

*Packed items*, for reading prefixes. Items stand one behind the other in a single row, so that all else runs without a token of padding;
attention takes the row apart again, and equally long items together.

Shapes: B batch, N queries, K keys, H query heads, G query heads for each key head, d head width, S tokens of all items.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

SDPA, SLQ_SDPA = "sdpa", "slq_sdpa"
UNSUPPORTED = ("position_bias", "softcap")  # what stock attention is left to deal with


def install(model: Any) -> None:
    """Let a model's decoder that would run torch's attention run `slq_sdpa`: the same until a call asks for more.

    Eager and flash attention stay what they are, and so do all other parts of the model; so does a model whose body hands no keywords on,
    or whose code does not look attention up by its name.

    Args:
        model: transformers' own.
    """
    decoder = model.get_decoder()
    parameters = inspect.signature(model.base_model.forward).parameters.values()
    hands_on = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    if decoder.config._attn_implementation == SDPA and hands_on and decoder._can_set_attn_implementation():
        decoder.set_attn_implementation(SLQ_SDPA)


def is_installed(model: Any) -> bool:
    """Whether a model's decoder runs `slq_sdpa`.

    Args:
        model: transformers' own.
    """
    return model.get_decoder().config._attn_implementation == SLQ_SDPA


def keyword(model: Any, mode: Literal["folded", "packed"]) -> dict[str, str]:
    """What a call of the model's body carries so that its decoder attends in this way; nothing where it runs another attention.

    Args:
        model: transformers' own.
        mode: `folded`, `packed`, or None for stock attention.
    """
    return {"slq_attention": mode} if is_installed(model) else {}


def implementation(model: Any) -> str:
    """The attention of a model's decoder by the name that transformers knows it by: `slq_sdpa` is torch's, `sdpa`.

    Args:
        model: transformers' own.
    """
    name = model.get_decoder().config._attn_implementation
    return SDPA if name == SLQ_SDPA else name


def packed_lengths(lengths: Sequence[int]) -> Tensor:
    """The attention mask (1, 1, 1, items) that says how long each item of a packed row is; transformers hands on what has four axes.

    Integers, which torch's attention refuses: where `slq_attention="packed"` does not arrive, the pass ends with an error.

    Args:
        lengths: tokens of each item.
    """
    return torch.tensor(lengths, dtype=torch.long)[None, None, None]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    slq_attention: str | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of queries over keys and values, as transformers calls it.

    Args:
        module: a layer of the decoder.
        query: (B, H, N, d).
        key: (B, H / G, K, d).
        value: (B, H / G, K, d).
        attention_mask: (B, 1, N, K), or for a packed row of items (1, H, S, d) `packed_lengths`.
        dropout: of the weights.
        scaling: of the scores; None for 1 / sqrt(d).
        slq_attention: `folded`, `packed`, or None for stock attention.
        **others: handed on to stock attention.

    Returns:
        (B, N, H, d), and no weights.
    """
    others |= {"dropout": dropout, "scaling": scaling}
    if slq_attention == "packed":
        assert attention_mask is not None
        return _packed(module, query, key, value, attention_mask.flatten().tolist(), **others), None
    if slq_attention == "folded":
        return _folded(module, query, key, value, attention_mask, **others), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **others)


def _folded(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> Tensor:
    """Query heads that share a key head as its rows; stock attention where none do, or where heads have masks of their own."""
    batch, heads, count, width = query.shape
    group = heads // key.shape[1]
    special = any(others.get(name) is not None for name in UNSUPPORTED)
    if group == 1 or special or mask is None or mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **others)[0]
    rows = query.reshape(batch, heads // group, group * count, width)
    attended = nn.functional.scaled_dot_product_attention(rows, key, value, mask.repeat(1, 1, group, 1), dropout, scale=scaling)
    return attended.reshape(batch, heads, count, -1).transpose(1, 2).contiguous()


def _packed(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], **others: Any) -> Tensor:
    """Causal attention of each item in a row over itself alone (1, S, H, d)."""
    attended, start = [], 0
    for length, alike in groupby(lengths):
        count = len(list(alike))
        stop = start + count * length
        its_query, its_key, its_value = (
            each[0, :, start:stop].unflatten(1, (count, length)).transpose(0, 1) for each in (query, key, value)
        )
        output, _ = sdpa_attention_forward(module, its_query, its_key, its_value, None, **others)  # (count, length, H, d)
        attended.append(output.flatten(0, 1))
        start = stop
    return torch.cat(attended)[None]


AttentionInterface.register(SLQ_SDPA, attend)
AttentionMaskInterface.register(SLQ_SDPA, sdpa_mask)
