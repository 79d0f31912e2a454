"""Position-restricted LoRA: low-rank matrices that act where the latent queries stand and nowhere else.

An item's own tokens never meet them, so its prefix, and all that the model says besides, stay what they are to the bit; one cached prefix
serves adapters with and without them.

Source: LoRA (Hu et al. 2021); restricted to positions behind what can be cached, as in activated LoRA (Greenewald et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slq.errors import AdapterError, ConfigError, ModelError

ALL_LINEAR = "all-linear"  # PEFT's name for every linear layer


class LowRank(nn.Module):
    """The two matrices beside one linear layer.

    Attributes:
        lora_A: (rank, in) float32.
        lora_B: (out, rank) float32.
    """

    def __init__(self, lora_A: Tensor, lora_B: Tensor):
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(lora_A), nn.Parameter(lora_B)

    def forward(self, inputs: Tensor) -> Tensor:
        """What they add to the layer's output (..., out), before scaling.

        Args:
            inputs: (..., in) of the layer, whose dtype and device the result has.
        """
        return functional.linear(functional.linear(inputs, self.lora_A.to(inputs)), self.lora_B.to(inputs))


class LatentLora(nn.Module):
    """Low-rank matrices for linear layers of a decoder.

    Args:
        matrices: by the layer's name below the decoder, such as `layers.0.self_attn.q_proj`: A (rank, in) and B (out, rank).
        alpha: their product is multiplied by alpha / rank.

    Raises:
        ValueError: if there are none, or their ranks differ.

    Example:
        >>> lora = LatentLora({"layers.0.mlp.up_proj": (torch.ones(2, 3), torch.zeros(4, 2))}, alpha=4)
        >>> lora.rank, lora.scale, sum(each.numel() for each in lora.parameters())
        (2, 2.0, 14)
    """

    def __init__(self, matrices: Mapping[str, tuple[Tensor, Tensor]], alpha: float = 16):
        super().__init__()
        ranks = {rank for first, second in matrices.values() for rank in (first.shape[0], second.shape[1])}
        if len(ranks) != 1:
            raise ValueError(f"The matrices of one adapter have one rank, not {sorted(ranks)}.")
        self.rank, self.alpha = ranks.pop(), alpha
        for name, (first, second) in matrices.items():
            parent: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(last, LowRank(first.float(), second.float()))

    @classmethod
    def create(
        cls, model: Any, rank: int, alpha: float = 16, targets: Sequence[str] = (ALL_LINEAR,), generator: torch.Generator | None = None
    ) -> LatentLora:
        """Fresh matrices that add nothing yet: A uniform in +-1/sqrt(in), B zero.

        Args:
            model: transformers' model.
            rank: of every pair of matrices.
            alpha: see the class.
            targets: last parts of layers' names, such as `q_proj`; `all-linear` for every linear layer of the decoder.
            generator: of the random numbers.

        Raises:
            ConfigError: for a target that the decoder does not have.
        """
        matrices = {}
        for name, layer in _linear_layers(model, targets).items():
            start = torch.empty(rank, layer.in_features).uniform_(-1, 1, generator=generator) * layer.in_features**-0.5
            matrices[name] = (start, torch.zeros(layer.out_features, rank))
        return cls(matrices, alpha)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], alpha: float) -> LatentLora:
        """The matrices of a saved state dict.

        Args:
            tensors: what `state_dict` gave.
            alpha: see the class.

        Raises:
            KeyError: if one of a pair is missing.
            ValueError: if there are none, or their ranks differ.
        """
        names = {name.rpartition(".")[0] for name in tensors}
        return cls({name: (tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"]) for name in sorted(names)}, alpha)

    @property
    def by_layer(self) -> dict[str, LowRank]:
        """The pairs of matrices by the name of their layer."""
        return {name: module for name, module in self.named_modules() if isinstance(module, LowRank)}

    @property
    def scale(self) -> float:
        """What the product of each pair is multiplied by."""
        return self.alpha / self.rank

    @property
    def config(self) -> dict[str, Any]:
        """What a file holds beside the matrices."""
        return {"rank": self.rank, "alpha": self.alpha}

    def check(self, model: Any) -> None:
        """Refuse a model whose decoder has no layers for these matrices.

        Args:
            model: transformers' model.

        Raises:
            AdapterError: naming the first layer that is missing or has another size.
        """
        there = _linear_layers(model, (ALL_LINEAR,))
        for name, layer in self.by_layer.items():
            size = (layer.lora_A.shape[1], layer.lora_B.shape[0])
            if name not in there or (there[name].in_features, there[name].out_features) != size:
                raise AdapterError(
                    f"The adapter has matrices for a layer {name} of {size[0]} to {size[1]}, which this model does not have."
                )

    @torch.no_grad()
    def interpolate(self, alpha: float) -> None:
        """Go back from what was learned (alpha 1) to what adds nothing (alpha 0).

        Args:
            alpha: from 0 to 1.
        """
        for layer in self.by_layer.values():
            layer.lora_B.mul_(alpha)


@dataclass(frozen=True)
class LoraOfRows:
    """The matrices of one layer for some rows of a batch.

    Attributes:
        layer: the matrices.
        scale: what their product is multiplied by.
        rows: of the batch; None for all.
    """

    layer: LowRank
    scale: float
    rows: list[int] | None

    def add(self, inputs_BTI: Tensor, output_BTO: Tensor, count: int) -> Tensor:
        """The layer's output with the update at the last positions of the rows, out of place.

        Args:
            inputs_BTI: (B, T, in) of the layer.
            output_BTO: (B, T, out) of the layer.
            count: how many positions.

        Raises:
            ModelError: for a layer that does not see its tokens as (batch, tokens, width).
        """
        if inputs_BTI.ndim != 3:
            raise ModelError("Latent LoRA needs layers that are given (batch, tokens, width): leave this layer out of its targets.")
        if self.rows is None:
            update = self.scale * self.layer(inputs_BTI[:, -count:])
            if count == output_BTO.shape[1]:
                return output_BTO + update
            return torch.cat([output_BTO[:, :-count], output_BTO[:, -count:] + update], dim=1)
        changed = output_BTO.clone()
        changed[self.rows, -count:] += self.scale * self.layer(inputs_BTI[self.rows, -count:])
        return changed


def _linear_layers(model: Any, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Linear layers of the decoder by their name below it."""
    every = {name: module for name, module in model.get_decoder().named_modules() if isinstance(module, nn.Linear)}
    if ALL_LINEAR in targets:
        return every
    endings = {name.rpartition(".")[2] for name in every}
    if unknown := [target for target in targets if target not in endings]:
        raise ConfigError(f"The decoder has no linear layer named {unknown[0]}: choose among {', '.join(sorted(endings))}.")
    return {name: layer for name, layer in every.items() if name.rpartition(".")[2] in targets}
