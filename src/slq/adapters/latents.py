"""Shared latent queries: the learned vectors, how they are read, and the temperature that trains with them.

Shapes: B batch, N latent queries, D hidden size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

INITS = ("normal", "zeros", "prompt")
READOUTS = ("final", "pre_mlp")
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1.0


class LatentQueries(nn.Module):
    """N vectors appended to any item's tokens, and the temperature of their training loss.

    `latents` (N, D) float32, or (2, N, D) with modality_specific; `log_temperature` scalar. The rest is how they stand and are read, by
    default as in the paper. generation_prompt: whether they stand after the prompt at which the model would answer (SLQ's code), or in its
    place. pooling: the name of a `slq.pooling.Pooling`. readout: their `final` states, or those `pre_mlp` of the last layer.
    modality_specific: other latents for items with an image than for words alone. groups: how many leading latents are also trained as
    vectors of their own, compared by late interaction. Method: SLQ section 3; starts at normal with std 1/sqrt(D). Raises ValueError for a
    form that does not exist.
    """

    def __init__(
        self,
        num_latents: int,
        dim: int,
        temperature: float = 0.07,
        *,
        generation_prompt: bool = True,
        pooling: str = "mean",
        readout: str = "final",
        modality_specific: bool = False,
        groups: tuple[int, ...] = (),
    ):
        super().__init__()
        if num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, not {num_latents}.")
        if readout not in READOUTS:
            raise ValueError(f"readout is one of {', '.join(READOUTS)}, not {readout}.")
        if any(not 1 <= group <= num_latents for group in groups):
            raise ValueError(f"Groups are leading latents, so between 1 and {num_latents}: not {', '.join(map(str, groups))}.")
        self.generation_prompt, self.pooling, self.readout = generation_prompt, pooling, readout
        self.groups = tuple(sorted(groups))
        self.latents = nn.Parameter(torch.zeros((2, num_latents, dim) if modality_specific else (num_latents, dim)))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @classmethod
    def create(
        cls,
        num_latents: int,
        dim: int,
        init: str = "normal",
        prompt: Tensor | None = None,
        generator: torch.Generator | None = None,
        **form: Any,
    ) -> LatentQueries:
        """Fresh latent queries.

        init: `normal` (std 1/sqrt(D)), `zeros`, or `prompt`: every latent starts at the last of the `prompt` embeddings (P, D), the
        token after which the model would answer; in the prompt's place, the first ones start at its other tokens, in their order,
        so that the P-th latent starts as the zero-shot readout. form: see the class. Raises ValueError for another name.
        """
        if init not in INITS:
            raise ValueError(f"Unknown init {init!r}: choose one of {', '.join(INITS)}.")
        queries = cls(num_latents, dim, **form)
        with torch.no_grad():
            if init == "normal":
                queries.latents.normal_(std=dim**-0.5, generator=generator)
            elif init == "prompt":
                if prompt is None:
                    raise ValueError("init 'prompt' needs the embeddings of the model's generation prompt.")
                queries.latents.copy_(prompt[-1].float().expand_as(queries.latents))
                if not queries.generation_prompt:
                    queries.latents[..., : len(prompt), :] = prompt[:num_latents].float()
        return queries

    @property
    def num_latents(self) -> int:
        return self.latents.shape[-2]

    @property
    def dim(self) -> int:
        return self.latents.shape[-1]

    @property
    def modality_specific(self) -> bool:
        return self.latents.ndim == 3

    @property
    def form(self) -> dict[str, Any]:
        """How the latents stand and are read: what the constructor takes beside their size."""
        names = ("generation_prompt", "pooling", "readout", "modality_specific", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def temperature(self) -> Tensor:
        """The divisor of the logits, clamped to [0.01, 1]."""
        return temperature_of(self.log_temperature)

    def of(self, has_image_B: Tensor) -> Tensor:
        """The vectors to append to each item of a batch: (N, D) where all share them, else (B, N, D) by who has an image (B) bool."""
        return self.latents[has_image_B.long().to(self.latents.device)] if self.modality_specific else self.latents

    @torch.no_grad()
    def toward(self, start: Tensor, share: float) -> None:
        """Move the latents back by a share of their way from `start`: 0 leaves them, 1 is the start."""
        self.latents.lerp_(start.to(self.latents), share)


def temperature_of(log_temperature: Tensor) -> Tensor:
    """The divisor of the logits that a learned logarithm stands for, clamped to [0.01, 1]."""
    return log_temperature.exp().clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)
