"""Attention of the latent queries over many kept keys, without a copy of each key for every query head that reads it.

Backbones with grouped-query attention let G query heads share one key head. The stock implementation copies keys and values G times,
and sums their gradients over the copies. Here the G heads' queries stand one under the other as rows of one head instead: the same
products, row by row, without the copies. transformers does so for a single query; N latent queries come to G * N rows.

Shapes: B batch, N queries, K keys, H query heads, G query heads for each key head, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

STOCK, FOLDED = "sdpa", "sdpa_with_folded_heads"
OTHERWISE = ("position_bias", "softcap")  # what stock attention is left to deal with


def folded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of queries (B, H, N, d) over keys and values (B, H / G, K, d): (B, N, H, d), and no weights.

    attention_mask: (B, 1, N, K). Where no heads share a key, or heads have masks of their own, stock attention runs.
    """
    batch, heads, count, width = query.shape
    group = heads // key.shape[1]
    special = any(others.get(name) is not None for name in OTHERWISE)
    if group == 1 or special or attention_mask is None or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    rows = query.reshape(batch, heads // group, group * count, width)
    mask = attention_mask.repeat(1, 1, group, 1)
    attended = nn.functional.scaled_dot_product_attention(rows, key, value, mask, dropout, scale=scaling)
    return attended.reshape(batch, heads, count, -1).transpose(1, 2).contiguous(), None


@contextmanager
def folded_heads(decoder: nn.Module) -> Iterator[None]:
    """Let a decoder that runs torch's attention run it folded meanwhile; eager and flash attention stay what they are.

    Another thread that runs the same decoder may get either of the two, which are the same numbers.
    """
    config: Any = decoder.config
    if config._attn_implementation != STOCK:
        yield
        return
    config._attn_implementation = FOLDED
    try:
        yield
    finally:
        config._attn_implementation = STOCK


AttentionInterface.register(FOLDED, folded_attention)
AttentionMaskInterface.register(FOLDED, sdpa_mask)
