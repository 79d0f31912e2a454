"""What the training loop is given of each method: its parameters, the states of a batch with gradients, its loss, and how it is saved.

Shapes: B items of a batch, N vectors of an item (1 for tuned models), D hidden size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slq.adapters.latents import LatentQueries, temperature_of
from slq.cache import KVCache
from slq.config import TrainConfig
from slq.encoders import FineTunedModel
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder, Prefetched
from slq.losses import LossBatch, compose_loss
from slq.models import FrozenModel
from slq.training.batches import ContrastiveBatch
from slq.training.distributed import gather_states
from slq.types import Item

CACHE_LEVELS = {"kv": "states", "vision": "features", "none": "none"}
LEARNING_RATES = {"lora": 1e-4, "full": 1e-5}
SHARE_OF_START = 0.1  # of latents: their learning rate is this share of the size of their start


class Learner(nn.Module, ABC):
    """One forward pass from items to loss; its parameters are those that are learned, no others.

    On several processes each embeds its share of the batch, and every one computes the loss of all of it.
    """

    encoder: Encoder

    def __init__(self, config: TrainConfig, rank: int = 0, processes: int = 1):
        super().__init__()
        self.config, self._place = config, (rank, processes)
        self.loss = compose_loss(config)

    @property
    @abstractmethod
    def temperature(self) -> Tensor:
        """The divisor of the logits."""

    @abstractmethod
    def states(self, items: Sequence[Item], ahead: Prefetched) -> Tensor:
        """States of items (B, N, D) with gradient; ahead: see `LatentEncoder.states`."""

    @abstractmethod
    def save(self, out: Path, training: dict[str, Any]) -> None:
        """Write what was learned, with the story of its training, into the run's folder."""

    @abstractmethod
    def interpolate(self, alpha: float) -> None:
        """Move between where training started (alpha 0) and what was learned (alpha 1)."""

    def groups_of_parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        """What the optimiser is given."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None], workers: int) -> str:
        """Read ahead what never changes, and say what was kept; nothing, where all weights change."""
        return ""

    def prefetch_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Prefetched]:
        """For each batch what was prepared of it while the model ran."""
        yield from ({} for _ in batches)

    def forward(self, batch: ContrastiveBatch, ahead: Prefetched | None = None) -> Tensor:
        """The loss of a batch."""
        states_BND = gather_states(batch.items, partial(self.states, ahead=ahead or {}), *self._place)
        sizes = [len(batch.queries), len(batch.candidates)]
        positives_BC = batch.positives.to(states_BND.device)
        queries_BND, candidates_CND = states_BND.split(sizes)
        queries_BD, candidates_CD = self.encoder.pooling(states_BND).split(sizes)
        return self.loss(LossBatch(queries_BND, candidates_CND, queries_BD, candidates_CD, positives_BC, self.temperature))


class LatentLearner(Learner):
    """Latent queries over a frozen model."""

    encoder: LatentEncoder

    def __init__(self, encoder: LatentEncoder, config: TrainConfig, rank: int = 0, processes: int = 1):
        super().__init__(config, rank, processes)
        self.encoder = encoder
        self.queries = encoder.queries
        self._start = encoder.queries.latents.detach().clone()

    @property
    def temperature(self) -> Tensor:
        return self.queries.temperature

    def states(self, items: Sequence[Item], ahead: Prefetched) -> Tensor:
        return self.encoder.states(items, ahead)

    def interpolate(self, alpha: float) -> None:
        self.queries.interpolate(self._start, alpha)

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None], workers: int) -> str:
        self.encoder.prefill(items, progress, workers)
        return "" if self.encoder.cache is None else f"kept of {len(items)} items: {self.encoder.describe_cache(items)}"

    def prefetch_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Prefetched]:
        return self.encoder.prefetch_batches(batches, workers)

    def save(self, out: Path, training: dict[str, Any]) -> None:
        self.encoder.training = training
        self.encoder.adapter.save(out)


class TunedLearner(Learner):
    """A model whose own weights are learned, by LoRA or in full.

    The temperature has the learning rate that it has beside the paper's latent queries: at that of a whole model it would hardly move.
    """

    def __init__(self, tuned: FineTunedModel, config: TrainConfig, rank: int = 0, processes: int = 1):
        super().__init__(config, rank, processes)
        self.encoder = self.tuned = tuned
        self.weights = nn.ParameterList(tuned.trainable)  # not the model: a checkpoint is to hold what is learned alone
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07), device=tuned.model.device))

    @property
    def temperature(self) -> Tensor:
        return temperature_of(self.log_temperature)

    def states(self, items: Sequence[Item], ahead: Prefetched) -> Tensor:
        return self.tuned.states(items)

    def interpolate(self, alpha: float) -> None:
        self.tuned.interpolate(alpha)

    def groups_of_parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        own = SHARE_OF_START * size_of_start(self.tuned.model, "normal")
        return [{"params": list(self.weights), "lr": learning_rate}, {"params": [self.log_temperature], "lr": own, "weight_decay": 0.0}]

    def save(self, out: Path, training: dict[str, Any]) -> None:
        self.tuned.training = training
        self.tuned.save(out)


def fresh_learner(model: FrozenModel, config: TrainConfig, rank: int = 0, processes: int = 1) -> Learner:
    """What a run with these options starts from, with an empty cache."""
    if config.method != "latents":
        tuned = FineTunedModel(
            model, config.method, config.lora_rank, config.lora_alpha, config.mini_batch_tokens, config.train_vision_encoder
        )
        return TunedLearner(tuned, config, rank, processes)
    cache = kv_cache(config, model.device) if config.prefix_caching else None
    queries = fresh_queries(model, config)
    encoder = LatentEncoder(model, queries, cache, config.prefix_caching, mini_batch_tokens=config.mini_batch_tokens)
    return LatentLearner(encoder, config, rank, processes)


def fresh_queries(model: FrozenModel, config: TrainConfig) -> LatentQueries:
    """The latent queries a run with these options starts from; also the untrained control of its results."""
    return LatentQueries.create(
        config.num_latents,
        model.dim,
        config.init,
        model.prompt_embeddings() if config.init == "prompt" else None,
        torch.Generator().manual_seed(config.seed),
        generation_prompt=config.add_generation_prompt,
        pooling=config.pooling,
        hidden_state=config.hidden_state,
        modality_specific=config.modality_specific,
        multi_vector_sizes=config.multi_vector_sizes,
    )


def kv_cache(config: TrainConfig, device: torch.device) -> KVCache:
    """The cache that a run with these options keeps its prefixes in."""
    return KVCache(
        _bytes(config.cache_memory_gb),
        device_budget=_bytes(config.cache_device_gb) or 0,
        device=str(device),
        folder=config.cache_dir,
        disk_budget=_bytes(config.cache_disk_gb),
        level=CACHE_LEVELS[config.cache_level],
        eight_bit=config.kv_cache_dtype == "int8",
    )


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 2**30)


def learning_rate(model: FrozenModel, config: TrainConfig) -> float:
    """The learning rate of a run: the one that was chosen, or the method's own; for latents a tenth of the size of their start."""
    return config.learning_rate or LEARNING_RATES.get(config.method) or SHARE_OF_START * size_of_start(model, config.init)


def size_of_start(model: FrozenModel, init: str) -> float:
    """The size of a number of the latents where they start: of the prompt's embeddings their root mean square, else 1/sqrt(D)."""
    return model.prompt_embeddings().float().square().mean().sqrt().item() if init == "prompt" else model.dim**-0.5
