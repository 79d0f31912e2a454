"""What the training loop is given of each method: its parameters, the states of a batch with gradients, its loss, and how it is saved.

Shapes: B items of a batch, N vectors of an item (1 for tuned backbones), D hidden size.
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
from torch.nn import functional

from slq.backbone import FrozenBackbone
from slq.embedder import Embedder
from slq.latents import LatentQueries, pool, temperature_of
from slq.losses import info_nce, late_interaction_nce, orthogonality_penalty
from slq.methods import TunedBackbone
from slq.retriever import Ahead, Retriever
from slq.training.batches import ContrastiveBatch
from slq.training.options import TrainingOptions
from slq.training.processes import spread
from slq.types import Item

LEARNING_RATES = {"lora": 1e-4, "full": 1e-5}
SHARE_OF_START = 0.1  # of latents: their learning rate is this share of the size of their start


class Learner(nn.Module, ABC):
    """One forward pass from items to loss; its parameters are those that are learned, no others.

    On several processes each embeds its share of the batch, and every one computes the loss of all of it.
    """

    embedder: Embedder

    def __init__(self, options: TrainingOptions, rank: int = 0, processes: int = 1):
        super().__init__()
        self.options, self._place = options, (rank, processes)

    @property
    @abstractmethod
    def temperature(self) -> Tensor:
        """The divisor of the logits."""

    @abstractmethod
    def states(self, items: Sequence[Item], ahead: Ahead) -> Tensor:
        """States of items (B, N, D) with gradient; ahead: see `Retriever.states`."""

    @abstractmethod
    def save(self, out: Path, training: dict[str, Any]) -> None:
        """Write what was learned, with the story of its training, into the run's folder."""

    @abstractmethod
    def toward_start(self, share: float) -> None:
        """Move what was learned back by a share of its way from where it started."""

    def pool(self, states_BND: Tensor) -> Tensor:
        """Embeddings of length 1 (B, D) from the states."""
        return pool(states_BND)

    def groups_of_parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        """What the optimiser is given."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None], workers: int) -> str:
        """Read ahead what never changes, and say what was kept; nothing, where all weights change."""
        return ""

    def prepare_ahead(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Ahead]:
        """For each batch what was prepared of it while the model ran."""
        yield from ({} for _ in batches)

    def forward(self, batch: ContrastiveBatch, ahead: Ahead | None = None) -> Tensor:
        """The loss of a batch: InfoNCE of the pooled embeddings, and what the options add to it."""
        states_BND = spread(batch.items, partial(self.states, ahead=ahead or {}), *self._place)
        sizes = [len(batch.queries), len(batch.candidates)]
        positives_BC = batch.positives.to(states_BND.device)
        margin = self.options.false_negative_margin
        queries_BD, candidates_CD = self.pool(states_BND).split(sizes)
        widths = [queries_BD.shape[1], *self.options.matryoshka]
        loss = torch.stack(
            [
                info_nce(
                    functional.normalize(queries_BD[:, :width], dim=-1) if width < widths[0] else queries_BD,
                    functional.normalize(candidates_CD[:, :width], dim=-1) if width < widths[0] else candidates_CD,
                    positives_BC,
                    self.temperature,
                    false_negative_margin=margin,
                )
                for width in widths
            ]
        ).mean()
        if self.options.groups:
            queries_BND, candidates_CND = functional.normalize(states_BND.float(), dim=-1).split(sizes)
            by_group = [
                late_interaction_nce(queries_BND[:, :group], candidates_CND[:, :group], positives_BC, self.temperature, margin)
                for group in self.options.groups
            ]
            loss = loss + torch.stack(by_group).mean()
        if self.options.orthogonality:
            loss = loss + self.options.orthogonality * orthogonality_penalty(states_BND)
        return loss


class LatentLearner(Learner):
    """Latent queries over a frozen backbone."""

    def __init__(self, retriever: Retriever, options: TrainingOptions, rank: int = 0, processes: int = 1):
        super().__init__(options, rank, processes)
        self.embedder = self.retriever = retriever
        self.queries = retriever.queries
        self._start = retriever.queries.latents.detach().clone()

    @property
    def temperature(self) -> Tensor:
        return self.queries.temperature

    def states(self, items: Sequence[Item], ahead: Ahead) -> Tensor:
        return self.retriever.states(items, ahead)

    def toward_start(self, share: float) -> None:
        self.queries.toward(self._start, share)

    def pool(self, states_BND: Tensor) -> Tensor:
        return self.queries.pool(states_BND)

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None], workers: int) -> str:
        self.retriever.prefill(items, progress, workers)
        return "" if self.retriever.cache is None else f"kept of {len(items)} items: {self.retriever.kept(items)}"

    def prepare_ahead(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Ahead]:
        return self.retriever.prepare_ahead(batches, workers)

    def save(self, out: Path, training: dict[str, Any]) -> None:
        self.retriever.training = training
        self.retriever.adapter.save(out)


class TunedLearner(Learner):
    """A backbone whose own weights are learned, by LoRA or in full.

    The temperature has the learning rate that it has beside the paper's latent queries: at that of a whole model it would hardly move.
    """

    def __init__(self, tuned: TunedBackbone, options: TrainingOptions, rank: int = 0, processes: int = 1):
        super().__init__(options, rank, processes)
        self.embedder = self.tuned = tuned
        self.weights = nn.ParameterList(tuned.trainable)  # not the model: a checkpoint is to hold what is learned alone
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07), device=tuned.backbone.device))

    @property
    def temperature(self) -> Tensor:
        return temperature_of(self.log_temperature)

    def states(self, items: Sequence[Item], ahead: Ahead) -> Tensor:
        return self.tuned.states(items)

    def toward_start(self, share: float) -> None:
        self.tuned.toward_start(share)

    def groups_of_parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        own = SHARE_OF_START * size_of_start(self.tuned.backbone, "normal")
        return [{"params": list(self.weights), "lr": learning_rate}, {"params": [self.log_temperature], "lr": own, "weight_decay": 0.0}]

    def save(self, out: Path, training: dict[str, Any]) -> None:
        self.tuned.training = training
        self.tuned.save(out)


def fresh_learner(backbone: FrozenBackbone, options: TrainingOptions, rank: int = 0, processes: int = 1) -> Learner:
    """What a run with these options starts from, with an empty cache."""
    if options.method != "latents":
        tuned = TunedBackbone(backbone, options.method, options.lora_rank, options.lora_alpha, options.tokens_per_pass, options.tune_vision)
        return TunedLearner(tuned, options, rank, processes)
    cache = options.prefix_cache(backbone.device) if options.prefix_split else None
    queries = fresh_queries(backbone, options)
    retriever = Retriever(backbone, queries, cache, options.prefix_split, tokens_per_pass=options.tokens_per_pass)
    return LatentLearner(retriever, options, rank, processes)


def fresh_queries(backbone: FrozenBackbone, options: TrainingOptions) -> LatentQueries:
    """The latent queries a run with these options starts from; also the untrained control of its results."""
    return LatentQueries.create(
        options.num_latents,
        backbone.dim,
        options.init,
        backbone.prompt_embeddings() if options.init == "prompt" else None,
        torch.Generator().manual_seed(options.seed),
        generation_prompt=options.generation_prompt,
        pooling=options.pooling,
        readout=options.readout,
        per_modality=options.per_modality,
        groups=options.groups,
    )


def learning_rate(backbone: FrozenBackbone, options: TrainingOptions) -> float:
    """The learning rate of a run: the one that was chosen, or the method's own; for latents a tenth of the size of their start."""
    return options.learning_rate or LEARNING_RATES.get(options.method) or SHARE_OF_START * size_of_start(backbone, options.init)


def size_of_start(backbone: FrozenBackbone, init: str) -> float:
    """The size of a number of the latents where they start: of the prompt's embeddings their root mean square, else 1/sqrt(D)."""
    return backbone.prompt_embeddings().float().square().mean().sqrt().item() if init == "prompt" else backbone.dim**-0.5
