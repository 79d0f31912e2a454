"""Items of several batches as one row of tokens without padding, and what was read of it taken apart again.

Shapes: B batch, T tokens with padding, L an item's own tokens, S those of all items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from slq.models import vision
from slq.models.attention import packed_lengths
from slq.models.kv import ItemKV
from slq.models.vision import VisionFeatures


@dataclass(frozen=True)
class UnpaddedItem:
    """One item of a batch.

    Attributes:
        inputs: its own (1, L) and those of its image, without pixels.
        positions: (..., L + 1), the last one of what comes next.
        image: features of its image, None for an item without one.
    """

    inputs: dict[str, Tensor]
    positions: Tensor
    image: VisionFeatures | None

    def __len__(self) -> int:
        return self.inputs["input_ids"].shape[1]


def unpad(inputs: dict[str, Tensor], positions: Tensor, images: Sequence[VisionFeatures | None]) -> list[UnpaddedItem]:
    """The items of a left-padded batch; positions (..., B, T + 1).

    Args:
        inputs: of `PreparedBatch`.
        positions: (..., B, T + 1), with that of the first latent query.
        images: features of each item's image, None for an item without one.
    """
    owns = vision.inputs_of_items(inputs, [image is not None for image in images])
    items = enumerate(zip(owns, images, strict=True))
    return [UnpaddedItem(own, positions[..., i, -own["input_ids"].shape[1] - 1 :], image) for i, (own, image) in items]


def pack(items: Sequence[UnpaddedItem], device: torch.device) -> dict[str, Any]:
    """The items one behind the other (1, S), as a model's body takes them with `slq_attention="packed"`.

    Args:
        items: from `unpad`.
        device: of the model.
    """
    inputs: dict[str, Any] = {}
    for name, first in {name: item.inputs for item in reversed(items) for name in item.inputs if name != "attention_mask"}.items():
        if first[name].shape == first["input_ids"].shape:
            parts = [item.inputs.get(name, torch.zeros_like(item.inputs["input_ids"])) for item in items]
            inputs[name] = torch.cat(parts, dim=1).to(device)
        else:
            inputs[name] = torch.cat([item.inputs[name] for item in items if name in item.inputs]).to(device)
    given = [item.image for item in items if item.image is not None]
    if given:
        inputs["mm_encoder_outputs"] = vision.as_inputs(given, device)
    inputs["attention_mask"] = packed_lengths([len(item) for item in items])
    inputs["position_ids"] = torch.cat([item.positions[..., :-1] for item in items], dim=-1).unsqueeze(-2)
    return inputs


def unpack(cache: DynamicCache, items: Sequence[UnpaddedItem]) -> list[ItemKV]:
    """Each item's prefix, in compact host memory of its own.

    Args:
        cache: that the pass has filled.
        items: from `unpad`, in the same order.
    """
    layers: list[Any] = cache.layers
    found, start = [], 0
    for item in items:
        stop = start + len(item)
        keys, values = (torch.stack([getattr(layer, name)[0, :, start:stop] for layer in layers]) for name in ("keys", "values"))
        found.append(ItemKV(keys.cpu(), values.cpu(), item.positions[..., -1].clone().cpu()))
        start = stop
    return found


def extend(inputs: dict[str, Tensor], count: int, filler: int) -> dict[str, Tensor]:
    """Every per-token input (B, T) grown by `count` columns: filler ids, mask 1, token type 0 (text).

    Args:
        inputs: of a batch.
        count: how many columns.
        filler: the id that stands in them.
    """
    shape = inputs["input_ids"].shape
    fill = {"input_ids": filler, "attention_mask": 1}
    extended = dict(inputs)
    for name, value in inputs.items():
        if value.shape == shape:
            extended[name] = torch.cat([value, value.new_full((shape[0], count), fill.get(name, 0))], dim=1)
    return extended
