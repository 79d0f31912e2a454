"""Attention as our two passes want it: torch's own, on fewer copies and without padding.

*Folded heads*, for the latent queries. In backbones with grouped-query attention G query heads share one key head. The stock
implementation copies keys and values G times, and sums their gradients over the copies. Here the G heads' queries stand one under the
other as rows of one head instead: the same products, row by row. transformers does so for a single query; N latent queries come to G * N
rows.

*Packed items*, for reading prefixes. Items stand one behind the other in a single row, so that all else runs without a token of padding;
attention takes the row apart again, and equally long items together.

Shapes: B batch, N queries, K keys, H query heads, G query heads for each key head, d head width, S tokens of all items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

STOCK, OURS = "sdpa", "sdpa_folded_or_packed"
OTHERWISE = ("position_bias", "softcap")  # what stock attention is left to deal with
_switching = Lock()
_inside: Counter[int] = Counter()  # by the id of a decoder's config


def packed_lengths(lengths: Sequence[int]) -> Tensor:
    """The attention mask (1, 1, 1, items) that says how long each item of a packed row is; transformers hands on what has four axes."""
    return torch.tensor(lengths, dtype=torch.long)[None, None, None]


def attend(
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

    attention_mask: (B, 1, N, K), or `packed_lengths` for one row of items (1, H, S, d). Where no heads share a key, or heads have masks of
    their own, stock attention runs.
    """
    if attention_mask is not None and attention_mask.dtype == torch.long:
        return _packed(module, query, key, value, attention_mask.flatten().tolist(), dropout=dropout, scaling=scaling, **others), None
    batch, heads, count, width = query.shape
    group = heads // key.shape[1]
    special = any(others.get(name) is not None for name in OTHERWISE)
    if group == 1 or special or attention_mask is None or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    rows = query.reshape(batch, heads // group, group * count, width)
    mask = attention_mask.repeat(1, 1, group, 1)
    attended = nn.functional.scaled_dot_product_attention(rows, key, value, mask, dropout, scale=scaling)
    return attended.reshape(batch, heads, count, -1).transpose(1, 2).contiguous(), None


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


@contextmanager
def our_attention(decoder: nn.Module) -> Iterator[None]:
    """Let a decoder that runs torch's attention run ours meanwhile; eager and flash attention stay what they are.

    It counts who is inside, so that threads on the same decoder do not take it from each other.
    """
    if not takes_ours(decoder):
        yield
        return
    config: Any = decoder.config
    with _switching:
        _inside[id(config)] += 1
        config._attn_implementation = OURS
    try:
        yield
    finally:
        with _switching:
            _inside[id(config)] -= 1
            if not _inside[id(config)]:
                del _inside[id(config)]
                config._attn_implementation = STOCK


def takes_ours(decoder: nn.Module) -> bool:
    """Whether `our_attention` changes anything for a decoder."""
    config: Any = decoder.config
    return config._attn_implementation in (STOCK, OURS)


AttentionInterface.register(OURS, attend)
AttentionMaskInterface.register(OURS, sdpa_mask)
