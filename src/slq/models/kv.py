"""Prefix KV: the frozen keys and values of items' tokens, which the latent queries then attend to.

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
    """

    inputs: dict[str, Tensor]

    def __len__(self) -> int:
        return self.inputs["input_ids"].shape[0]

    def to(self, device: torch.device) -> PreparedBatch:
        """The same batch on a device.

        Args:
            device: of the model.
        """
        return PreparedBatch({name: value.to(device) for name, value in self.inputs.items()})


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values of a batch of prefixes; read-only, so that one serves any number of passes of latent queries.

    Attributes:
        cache: transformers' cache, left-padded.
        mask: (B, T), 1 where there is a token.
        next_position: (..., B), the position of the first latent query; several components for multi-axis rotary positions.
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

    def unstack(self) -> list[ItemKV]:
        """Each item's keys and values, without padding, in compact host memory of their own."""
        items = []
        layers: list[Any] = self.cache.layers
        for item, length in enumerate(self.mask.sum(dim=1).tolist()):
            keys = torch.stack([layer.keys[item, :, -length:] for layer in layers])
            values = torch.stack([layer.values[item, :, -length:] for layer in layers])
            items.append(ItemKV(keys.cpu(), values.cpu(), self.next_position[..., item].clone().cpu()))
        return items


@dataclass(frozen=True)
class ItemKV:
    """One item's prefix.

    Attributes:
        keys: (L, H, T, d).
        values: (L, H, T, d).
        next_position: (P) or scalar, the position of the first latent query.
    """

    keys: Tensor
    values: Tensor
    next_position: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of keys, values and position."""
        return self.keys.nbytes + self.values.nbytes + self.next_position.nbytes


def stack_kv(items: Sequence[ItemKV], device: torch.device) -> PrefixKV:
    """Cached prefixes as one left-padded batch on a device; the inverse of `PrefixKV.unstack` up to padding.

    Args:
        items: prefixes of one item each.
        device: of the model.
    """
    longest = max(prefix.keys.shape[2] for prefix in items)
    layers, heads, _, width = items[0].keys.shape
    keys = items[0].keys.new_zeros((layers, len(items), heads, longest, width), device=device)
    values = torch.zeros_like(keys)
    mask = torch.zeros(len(items), longest, dtype=torch.long, device=device)
    for item, prefix in enumerate(items):
        length = prefix.keys.shape[2]
        keys[:, item, :, longest - length :] = prefix.keys.to(device)
        values[:, item, :, longest - length :] = prefix.values.to(device)
        mask[item, longest - length :] = 1
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(keys[layer], values[layer], layer)
    return PrefixKV(cache, mask, torch.stack([prefix.next_position.to(device) for prefix in items], dim=-1))
