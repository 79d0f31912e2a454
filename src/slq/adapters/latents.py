"""Shared latent queries: the learned vectors, how their states are read, and the temperature that trains with them.

Shapes: B batch, N latent queries, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slq.models.latent_lora import LatentLora

INITS = ("normal", "zeros", "prompt")
HIDDEN_STATES = ("final", "pre_mlp")
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1.0
_LOG_BOUNDS = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)


class LatentQueries(nn.Module):
    """N vectors appended to any item's tokens, and the temperature of their training loss.

    Args:
        num_latents: N.
        dim: D, the hidden size of the model.
        temperature: where the temperature starts.
        generation_prompt: whether they come after the generation prompt (SLQ's code) or take its place.
        pooling: the name of a `slq.pooling.Pooling` of their states.
        hidden_state: which states are read: `final`, or `pre_mlp`, those before the MLP of the last layer.
        modality_specific: whether items with an image have other latent queries than text alone.
        multi_vector_sizes: how many of the first latent queries are also trained for late interaction, one number a size.
        lora: matrices that are added to the decoder's linear layers where the latent queries stand.

    Raises:
        ValueError: for a config that does not exist.

    Attributes:
        latents: (N, D) float32, or (2, N, D) where they are modality-specific.
        log_temperature: scalar float32.

    Source: SLQ section 3.
    """

    def __init__(
        self,
        num_latents: int,
        dim: int,
        temperature: float = 0.07,
        *,
        generation_prompt: bool = True,
        pooling: str = "mean",
        hidden_state: str = "final",
        modality_specific: bool = False,
        multi_vector_sizes: Sequence[int] = (),
        lora: LatentLora | None = None,
    ):
        super().__init__()
        if num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, not {num_latents}.")
        if hidden_state not in HIDDEN_STATES:
            raise ValueError(f"hidden_state must be one of {', '.join(HIDDEN_STATES)}, not {hidden_state!r}.")
        if any(not 1 <= size <= num_latents for size in multi_vector_sizes):
            given = ", ".join(map(str, multi_vector_sizes))
            raise ValueError(f"multi_vector_sizes count latent queries, so they are between 1 and {num_latents}, not {given}.")
        self.generation_prompt, self.pooling, self.hidden_state = generation_prompt, pooling, hidden_state
        self.multi_vector_sizes = tuple(sorted(multi_vector_sizes))
        self.latents = nn.Parameter(torch.zeros((2, num_latents, dim) if modality_specific else (num_latents, dim)))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.lora = lora

    @classmethod
    def create(
        cls,
        num_latents: int,
        dim: int,
        init: str = "normal",
        prompt: Tensor | None = None,
        generator: torch.Generator | None = None,
        **config: Any,
    ) -> LatentQueries:
        """Initialise latent queries.

        Args:
            num_latents: N.
            dim: D.
            init: `normal` (standard deviation 1/sqrt(D)), `zeros`, or `prompt`: every latent query starts at the last embedding of the
                generation prompt; where they take its place, the first ones start at its other tokens, in their order, so that the P-th
                starts as the model's own last token.
            prompt: (P, D) embeddings of the generation prompt, for init `prompt`.
            generator: of the random numbers of init `normal`.
            **config: see the class.

        Raises:
            ValueError: for an unknown init, or without the prompt that it needs.
        """
        if init not in INITS:
            raise ValueError(f"Unknown init {init!r}: choose one of {', '.join(INITS)}.")
        queries = cls(num_latents, dim, **config)
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
        """N."""
        return self.latents.shape[-2]

    @property
    def dim(self) -> int:
        """D."""
        return self.latents.shape[-1]

    @property
    def modality_specific(self) -> bool:
        """Whether items with an image have other latent queries than text alone."""
        return self.latents.ndim == 3

    @property
    def config(self) -> dict[str, Any]:
        """What the constructor takes beside their size, the temperature and `lora`."""
        names = ("generation_prompt", "pooling", "hidden_state", "modality_specific", "multi_vector_sizes")
        return {name: getattr(self, name) for name in names}

    @property
    def temperature(self) -> Tensor:
        """The divisor of cosines, clamped to [0.01, 1]."""
        return temperature_of(self.log_temperature)

    def of(self, has_image_B: Tensor) -> Tensor:
        """The vectors to append to each item of a batch.

        Args:
            has_image_B: (B,) bool, which items have an image.

        Returns:
            (N, D) where all items share them, else (B, N, D).
        """
        return self.latents[has_image_B.long().to(self.latents.device)] if self.modality_specific else self.latents

    @torch.no_grad()
    def interpolate(self, start: Tensor, alpha: float) -> None:
        """Move the latent queries, and what `lora` adds, between where they started (alpha 0) and where they are (alpha 1).

        Args:
            start: their values before training, of the shape of `latents`.
            alpha: from 0 to 1.

        Source: Wortsman et al. 2022 (WiSE-FT).
        """
        self.latents.lerp_(start.to(self.latents), 1 - alpha)
        if self.lora is not None:
            self.lora.interpolate(alpha)


def temperature_of(log_temperature: Tensor) -> Tensor:
    """The divisor of cosines that a learned logarithm stands for, clamped to [0.01, 1]; on a bound it still has a gradient.

    Args:
        log_temperature: scalar.
    """
    return log_temperature.clamp(*_LOG_BOUNDS).exp()


@torch.no_grad()
def bound_temperature(log_temperature: Tensor) -> None:
    """Move a logarithm that an optimiser step led out of bounds onto the bound, from which its gradient leads back; beyond, it has none.

    Args:
        log_temperature: scalar.
    """
    log_temperature.clamp_(*_LOG_BOUNDS)
