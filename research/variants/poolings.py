"""Poolings that were tried.

Shapes: B batch, N latent queries, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Concatenated:
    """Five latent queries one after the other, each of the same length: their cosines are averaged, where `mean` averages directions."""

    num_latents: int = 5

    def __call__(self, states_BND: Tensor) -> Tensor:
        """(B, N, D) to (B, N x D)."""
        return functional.normalize(functional.normalize(states_BND.float(), dim=-1).flatten(start_dim=1), dim=-1)

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """(N x D,)."""
        return (self.num_latents * dim,)
