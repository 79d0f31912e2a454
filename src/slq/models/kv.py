"""Prefix states: the frozen keys and values of items' tokens, which the latent queries then attend to.

Shapes: B batch, T prefix tokens, N latent queries, H key/value heads, P position components.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True)
class PreparedBatch:
    """A batch as the model takes it.

    Attributes:
        inputs: left-padded input_ids and attention_mask (B, T), pixel values, and what else the model takes.
        truncated: positions of the items whose text was cut.
    """

    inputs: dict[str, Tensor]
    truncated: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.inputs["input_ids"].shape[0]

    def to(self, device: torch.device) -> PreparedBatch:
        return PreparedBatch({name: value.to(device) for name, value in self.inputs.items()}, self.truncated)


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values of a batch of prefixes; read-only, so one can serve any number of suffix passes.

    mask: (B, T), 1 where there is a token. next_position: (..., B), the position of the first latent query (several components
    for multi-axis rotary positions).
    """

    cache: DynamicCache
    mask: Tensor
    next_position: Tensor

    def __len__(self) -> int:
        return self.mask.shape[0]

    def fork(self) -> DynamicCache:
        """A cache that may grow while this one stays as it is: layers rebind their tensors on update, so nothing is copied."""
        forked = copy.copy(self.cache)
        forked.layers = [copy.copy(layer) for layer in self.cache.layers]
        return forked

    def split(self) -> list[ItemKV]:
        """One kept prefix per item, without padding, in compact host memory of its own."""
        kept = []
        layers: list[Any] = self.cache.layers
        for item, length in enumerate(self.mask.sum(dim=1).tolist()):
            keys = torch.stack([layer.keys[item, :, -length:] for layer in layers])
            values = torch.stack([layer.values[item, :, -length:] for layer in layers])
            kept.append(ItemKV(keys.cpu(), values.cpu(), self.next_position[..., item].clone().cpu()))
        return kept


@dataclass(frozen=True)
class ItemKV:
    """One item's prefix: keys and values (L, H, T, d) and the position that comes next (P or scalar)."""

    keys: Tensor
    values: Tensor
    next_position: Tensor

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self.next_position.nbytes


def join(kept: Sequence[ItemKV], device: torch.device) -> PrefixKV:
    """Kept prefixes as one left-padded batch; the inverse of `PrefixKV.split` up to padding."""
    longest = max(prefix.keys.shape[2] for prefix in kept)
    layers, heads, _, width = kept[0].keys.shape
    keys = kept[0].keys.new_zeros((layers, len(kept), heads, longest, width), device=device)
    values = torch.zeros_like(keys)
    mask = torch.zeros(len(kept), longest, dtype=torch.long, device=device)
    for item, prefix in enumerate(kept):
        length = prefix.keys.shape[2]
        keys[:, item, :, longest - length :] = prefix.keys.to(device)
        values[:, item, :, longest - length :] = prefix.values.to(device)
        mask[item, longest - length :] = 1
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(keys[layer], values[layer], layer)
    return PrefixKV(cache, mask, torch.stack([prefix.next_position.to(device) for prefix in kept], dim=-1))
