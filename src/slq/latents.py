"""Shared latent queries: the learned vectors, their pooling, and the temperature that trains with them.

Shapes: B batch, N latent queries, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

INITS = ("normal", "zeros", "prompt")
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1.0


class LatentQueries(nn.Module):
    """N vectors appended to any item's tokens, and the temperature of their training loss.

    `latents` (N, D) float32; `log_temperature` scalar. generation_prompt: whether they stand after the prompt at which the backbone
    would answer (SLQ's code), or in its place. Method: SLQ section 3; starts at normal with std 1/sqrt(D).
    """

    def __init__(self, num_latents: int, dim: int, temperature: float = 0.07, generation_prompt: bool = True):
        super().__init__()
        if num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, not {num_latents}.")
        self.generation_prompt = generation_prompt
        self.latents = nn.Parameter(torch.zeros(num_latents, dim))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @classmethod
    def create(
        cls,
        num_latents: int,
        dim: int,
        init: str = "normal",
        prompt: Tensor | None = None,
        generator: torch.Generator | None = None,
        generation_prompt: bool = True,
    ) -> LatentQueries:
        """Fresh latent queries.

        init: `normal` (std 1/sqrt(D)), `zeros`, or `prompt`: every latent starts at the last of the `prompt` embeddings (P, D), the
        token after which the backbone would answer; in the prompt's place, the first ones start at its other tokens, in their order,
        so that the P-th latent starts as the zero-shot readout. Raises ValueError for another name.
        """
        if init not in INITS:
            raise ValueError(f"Unknown init {init!r}: choose one of {', '.join(INITS)}.")
        queries = cls(num_latents, dim, generation_prompt=generation_prompt)
        with torch.no_grad():
            if init == "normal":
                queries.latents.normal_(std=dim**-0.5, generator=generator)
            elif init == "prompt":
                if prompt is None:
                    raise ValueError("init 'prompt' needs the embeddings of the backbone's generation prompt.")
                queries.latents.copy_(prompt[-1].float().expand(num_latents, dim))
                if not generation_prompt:
                    queries.latents[: len(prompt)] = prompt[:num_latents].float()
        return queries

    @property
    def num_latents(self) -> int:
        return self.latents.shape[0]

    @property
    def dim(self) -> int:
        return self.latents.shape[1]

    @property
    def temperature(self) -> Tensor:
        """The divisor of the logits, clamped to [0.01, 1]."""
        return self.log_temperature.exp().clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)


def pool(states_BND: Tensor) -> Tensor:
    """Final states of the latent queries (B, N, D) -> embeddings of length 1 (B, D), float32: mean, then L2."""
    return nn.functional.normalize(states_BND.float().mean(dim=1), dim=-1)
