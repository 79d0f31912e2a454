"""Muon for the matrices inside the layers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, in the parameters' own precision and for all matrices of one shape at once.

    torch.optim.Muon does the same in bfloat16, which a CPU without bfloat16 units does about 20 times slower than float32; a test holds
    the two against each other. Source: Jordan et al. 2024 (Muon); step size as Liu et al. 2025 (matched to AdamW's root mean square).
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                updates = orthogonal(torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=size)

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        """Nesterov's look ahead: the gradient blended with its running mean."""
        assert matrix.grad is not None
        state = self.state[matrix]
        mean = state.setdefault("mean", torch.zeros_like(matrix))
        mean.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(mean, momentum)


def orthogonal(matrices_KRC: Tensor) -> Tensor:
    """The nearest (about) orthogonal matrices, by five Newton-Schulz steps; (K, R, C) in, the same shape out."""
    wide = matrices_KRC.shape[1] <= matrices_KRC.shape[2]
    x = matrices_KRC if wide else matrices_KRC.mT
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def build_optimisers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest (embeddings, norms, biases, heads)."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name or ".layer." in name
        (matrices if inside and parameter.ndim == 2 else others).append(parameter)
    return [Muon(matrices, lr=rate, weight_decay=0.05), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]
