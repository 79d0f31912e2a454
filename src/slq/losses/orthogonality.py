"""The orthogonality regulariser, which keeps the latent queries of an item from becoming copies of one another.

Shapes: B items, N latent queries, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slq.errors import ConfigError, InputError
from slq.losses.base import LossBatch, losses


@losses.register("orthogonality")
@dataclass(frozen=True)
class Orthogonality:
    """The mean squared cosine between different states of an item, over queries and candidates, times a weight.

    Args:
        weight: at least 0.

    Raises:
        ConfigError: if the weight is below 0, or not a number.
    """

    reads_states = True

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"loss orthogonality: weight must be a number, at least 0, not {self.weight}.")

    def __call__(self, batch: LossBatch) -> Tensor:
        """The loss of a batch; see `Loss`."""
        return self.weight * orthogonality_penalty(torch.cat([batch.queries_BND, batch.candidates_CND]))


def orthogonality_penalty(states_BND: Tensor) -> Tensor:
    """Mean squared cosine between different states of an item: 0 if they are orthogonal, 1 if all are equal.

    Args:
        states_BND: (B, N, D), of any length.

    Returns:
        A scalar, float32 (float64 for float64 states); 0 for N = 1.

    Raises:
        InputError: if the shape is not (B, N, D) or there are no states.
    """
    if states_BND.ndim != 3 or states_BND.numel() == 0:
        raise InputError(f"Latent states must be (batch, latents, hidden) and not empty, not {tuple(states_BND.shape)}.")
    batch, num_latents, _ = states_BND.shape
    dtype = torch.promote_types(states_BND.dtype, torch.float32)
    with torch.autocast(states_BND.device.type, enabled=False):
        units_BND = functional.normalize(states_BND.to(dtype), dim=-1)
        cosines_BNN = units_BND @ units_BND.mT
        itself_NN = torch.eye(num_latents, dtype=torch.bool, device=states_BND.device)
        # Dividing by at least 1 keeps N = 1 a plain 0 that can still be differentiated.
        return cosines_BNN.masked_fill(itself_NN, 0.0).square().sum() / max(batch * num_latents * (num_latents - 1), 1)
