"""What the vision encoder gives for an image, apart from the decoder: the smaller thing to cache where keys and values are too large.

Shapes: P image tokens, D hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from slq.models.kv import PreparedBatch

PIXELS = ("pixel_values", "pixel_attention_mask")  # what the vision encoder alone reads


@dataclass(frozen=True)
class VisionFeatures:
    """One item's image as the decoder takes it, and the item's other inputs, so that the image need not be opened again.

    Attributes:
        pooled: (P, D).
        deep: what a family feeds into later layers of its decoder (Qwen3-VL), each (P, D).
        listed: whether the family hands on lists of images rather than tensors.
        inputs: what the processor made of the item, without padding and pixels.
    """

    pooled: Tensor
    deep: tuple[Tensor, ...]
    listed: bool
    inputs: dict[str, Tensor]

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it by name, as a file holds it."""
        deep = {f"deep {i}": value for i, value in enumerate(self.deep)}
        inputs = {f"input {name}": value for name, value in self.inputs.items()}
        return {"pooled": self.pooled, "listed": torch.tensor(self.listed), **deep, **inputs}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> VisionFeatures:
        """The inverse of `to_tensors`.

        Args:
            tensors: by name.
        """
        deep = tuple(tensors[f"deep {i}"] for i in range(sum(name.startswith("deep ") for name in tensors)))
        inputs = {name.removeprefix("input "): value for name, value in tensors.items() if name.startswith("input ")}
        return cls(tensors["pooled"], deep, bool(tensors["listed"]), inputs)


def is_supported(model: Any) -> bool:
    """Whether the model's body takes features in the place of pixels.

    Args:
        model: transformers' own.
    """
    body = model.base_model
    return hasattr(body, "get_image_features") and "mm_encoder_outputs" in inspect.signature(body.forward).parameters


def encode(model: Any, inputs: Mapping[str, Tensor]) -> list[VisionFeatures | None]:
    """Features of each item of a batch in whose images they are; None for an item without an image.

    Args:
        model: transformers' own.
        inputs: of `PreparedBatch`.
    """
    counts = (inputs["input_ids"] == model.config.image_token_id).sum(dim=1).tolist()
    if "pixel_values" not in inputs:
        return [None] * len(counts)
    wanted = inspect.signature(model.base_model.get_image_features).parameters
    output = model.base_model.get_image_features(**{name: value for name, value in inputs.items() if name in wanted}, return_dict=True)
    listed = not isinstance(output.pooler_output, Tensor)
    layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
    parts = [_flat(layer).split(counts) for layer in layers]
    return [
        VisionFeatures(pooled.clone().cpu(), tuple(value.clone().cpu() for value in deep), listed, own) if count else None
        for count, own, pooled, *deep in zip(counts, inputs_of_items(inputs, [count > 0 for count in counts]), *parts, strict=True)
    ]


def inputs_of_items(inputs: Mapping[str, Tensor], has_image: Sequence[bool]) -> list[dict[str, Tensor]]:
    """Each item's inputs without padding and pixels.

    Args:
        inputs: of `PreparedBatch`.
        has_image: which items have an image.
    """
    of_tokens = {name: value for name, value in inputs.items() if value.shape == inputs["input_ids"].shape}
    of_images = {name: value for name, value in inputs.items() if name not in of_tokens and name not in PIXELS}
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    found, image = [], 0
    for row, (length, shows) in enumerate(zip(lengths, has_image, strict=True)):
        own = {name: value[row : row + 1, -length:] for name, value in of_tokens.items()}
        if shows:
            own |= {name: value[image : image + 1] for name, value in of_images.items()}
        found.append({name: value.clone().cpu() for name, value in own.items()})
        image += shows
    return found


def collate(features: Sequence[VisionFeatures], filler: int) -> PreparedBatch:
    """The items' inputs as one left-padded batch, without pixels.

    Args:
        features: of the items.
        filler: what pads each input.
    """
    lengths = [each.inputs["input_ids"].shape[1] for each in features]
    joined = {}
    for name, first in features[0].inputs.items():
        values = [each.inputs[name] for each in features]
        if first.shape == features[0].inputs["input_ids"].shape:
            fill = filler if name == "input_ids" else 0
            values = [functional.pad(value, (max(lengths) - length, 0), value=fill) for value, length in zip(values, lengths, strict=True)]
        joined[name] = torch.cat(values)
    return PreparedBatch(joined)


def as_inputs(features: Sequence[VisionFeatures], device: torch.device) -> dict[str, Any]:
    """Features of the images of a batch, in their order, as the model's body takes them.

    Args:
        features: of the items of a batch that have an image.
        device: of the model.
    """
    pooled = torch.cat([each.pooled for each in features]).to(device)
    deep = [torch.cat(layer).to(device) for layer in zip(*(each.deep for each in features), strict=True)]
    if features[0].listed:
        return {"image": SimpleNamespace(pooler_output=[pooled], deepstack_features=[[layer] for layer in deep] or None)}
    return {"image": SimpleNamespace(pooler_output=pooled[None], deepstack_features=deep or None)}


def _flat(layer: Tensor | Sequence[Tensor]) -> Tensor:
    """All image tokens of a batch, one after the other (P, D)."""
    parts = [layer] if isinstance(layer, Tensor) else layer
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
