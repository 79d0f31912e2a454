"""Keys and values in 8 bits: half the room of bfloat16, a quarter of float32, at a measured loss (docs/performance.md)."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127


def pack(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round values to int8; the largest of a vector becomes 127.

    Args:
        values: (..., d).

    Returns:
        int8 (..., d), and one float32 scale for each vector (..., 1).

    Example:
        >>> packed, scale = pack(torch.tensor([[1.27, 0.5, -0.013]]))
        >>> packed
        tensor([[127,  50,  -1]], dtype=torch.int8)
        >>> unpack(packed, scale, torch.float32)
        tensor([[ 1.2700,  0.5000, -0.0100]])
    """
    scale = values.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (values.float() / scale).round().to(torch.int8), scale


def unpack(packed: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `pack`, off by at most half a scale.

    Args:
        packed: int8 (..., d).
        scale: float32 (..., 1).
        dtype: of the result.
    """
    return (packed.float() * scale).to(dtype)
