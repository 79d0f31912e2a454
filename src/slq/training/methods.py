"""Training methods: what is learned, from which start, and how it is saved.

Shapes: B items of a batch, N vectors of an item (1 for fine-tuned models), D hidden size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from slq.adapters.latents import LatentQueries, bound_temperature, temperature_of
from slq.cache import KVCache
from slq.config import TrainConfig
from slq.encoders.base import Encoder
from slq.encoders.finetuned import FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.encoders.reuse import Prefetched
from slq.errors import InputError
from slq.models import FrozenModel, LatentLora
from slq.registry import Registry
from slq.types import Item

# Beside latent LoRA: of the temperature's logarithm, which has no size that a rate would have to go with; and of the matrices, 0.01 at the
# miniature's hidden size, chosen on validation images, and less with wider layers.
TEMPERATURE_LR, LORA_LR_TIMES_DIM = 0.02, 2.56
LR_FRACTION_OF_INIT_RMS = 0.1  # of latent queries: their learning rate is this fraction of the size of their values at the start


class Trainable(nn.Module, ABC):
    """What the training loop is given: its parameters are those that are learned, no others.

    Attributes:
        encoder: the encoder that is trained.
    """

    encoder: Encoder

    @property
    @abstractmethod
    def temperature(self) -> Tensor:
        """The divisor of cosines, a scalar that may be learned."""

    @abstractmethod
    def states(self, items: Sequence[Item], prefetched: Prefetched) -> Tensor:
        """States of items (B, N, D) before pooling, with gradient.

        Args:
            items: of one process.
            prefetched: what `prefetch_batches` gave for the batch.
        """

    @abstractmethod
    def interpolate(self, alpha: float) -> None:
        """Move between where training started and what was learned; see WiSE-FT.

        Args:
            alpha: from 0, the start, to 1, what was learned.
        """

    def start_from(self, learned: Encoder) -> None:
        """Begin at what an earlier run has learned on the same model.

        Args:
            learned: its encoder.

        Raises:
            InputError: if it cannot be gone on from, by default always.
        """
        raise InputError(f"{type(self).__name__} cannot begin at what was learned before ({learned.kind}): name the base model.")

    @abstractmethod
    def save(self, folder: Path, training: dict[str, Any]) -> None:
        """Write what was learned into the run's folder.

        Args:
            folder: an existing folder.
            training: the options of the run, and its provenance.
        """

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What the optimiser is given, by default all parameters at one learning rate.

        Args:
            learning_rate: of the run.
        """
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def after_step(self) -> None:
        """Put right what an optimiser step led out of its bounds; by default nothing."""

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None], num_workers: int) -> str:
        """Compute once what never changes, and say what was cached; by default nothing.

        Args:
            items: of the whole run, each once.
            progress: called with how many were done since the last call.
            num_workers: processes that prepare items.
        """
        return ""

    def prefetch_batches(self, batches: Sequence[Sequence[Item]], num_workers: int) -> Iterator[Prefetched]:
        """For each batch what was prepared of it while the model ran; by default nothing.

        Args:
            batches: items of this process, in the order of the steps.
            num_workers: processes that prepare items.
        """
        yield from ({} for _ in batches)


@runtime_checkable
class Method(Protocol):
    """A way of adapting a model, found by name in `methods`; a distribution adds one, an object, by an entry point of `slq.methods`."""

    def learning_rate(self, model: FrozenModel, config: TrainConfig) -> float:
        """The learning rate of a run that chooses none.

        Args:
            model: the base model.
            config: the run's options.
        """
        ...

    def create(self, model: FrozenModel, config: TrainConfig) -> Trainable:
        """What a run with these options starts from; the model stays as it is.

        Args:
            model: the base model.
            config: the run's options.
        """
        ...

    def load(self, folder: Path, model: FrozenModel | None = None, **loading: Any) -> Encoder:
        """What `Trainable.save` wrote, over its base model.

        Args:
            folder: the run's folder.
            model: see `LatentEncoder.from_pretrained`.
            **loading: see `LatentEncoder.from_pretrained`.
        """
        ...


methods: Registry[Method] = Registry("slq.methods", Method, of="object")


class LatentTrainable(Trainable):
    """Latent queries over a frozen model."""

    encoder: LatentEncoder

    def __init__(self, encoder: LatentEncoder, lora_learning_rate: float | None = None):
        super().__init__()
        self.encoder = encoder
        self.queries = encoder.queries
        self._lora_learning_rate = lora_learning_rate or LORA_LR_TIMES_DIM / encoder.model.dim
        self._start = encoder.queries.latents.detach().clone()

    @property
    def temperature(self) -> Tensor:
        """The divisor of cosines."""
        return self.queries.temperature

    def after_step(self) -> None:
        """Keep the temperature within its bounds."""
        bound_temperature(self.queries.log_temperature)

    def states(self, items: Sequence[Item], prefetched: Prefetched) -> Tensor:
        """States of items (B, N, D) before pooling; see `Trainable.states`."""
        return self.encoder.states(items, prefetched)

    def interpolate(self, alpha: float) -> None:
        """Move between the start (alpha 0) and what was learned (alpha 1); see `Trainable.interpolate`."""
        self.queries.interpolate(self._start, alpha)

    def start_from(self, learned: Encoder) -> None:
        """Begin with the latent queries and the temperature of an adapter; see `Trainable.start_from`."""
        if not isinstance(learned, LatentEncoder):
            raise InputError(f"Latent queries cannot begin at {learned.kind}: name an adapter of latent queries, or the base model.")
        self.queries.load_state_dict(learned.queries.state_dict(), strict=self.queries.lora is None or learned.queries.lora is not None)
        self._start = self.queries.latents.detach().clone()

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Latent queries and temperature at the chosen rate; beside latent LoRA, each at its own; see `Trainable.parameter_groups`.

        Weight decay, which would draw latent queries to 0 and the temperature to 1, is for the matrices of LoRA alone.
        """
        if self.queries.lora is None:
            return [{"params": list(self.parameters()), "lr": learning_rate, "weight_decay": 0.0}]
        return [
            {"params": [self.queries.latents], "lr": learning_rate, "weight_decay": 0.0},
            {"params": [self.queries.log_temperature], "lr": TEMPERATURE_LR, "weight_decay": 0.0},
            {"params": list(self.queries.lora.parameters()), "lr": self._lora_learning_rate},
        ]

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None], num_workers: int) -> str:
        """Cache the items' prefixes, and say how many; see `Trainable.prefill`."""
        self.encoder.prefill(items, progress, num_workers)
        return "" if self.encoder.cache is None else f"cached of {len(items)} items: {self.encoder.describe_cache(items)}"

    def prefetch_batches(self, batches: Sequence[Sequence[Item]], num_workers: int) -> Iterator[Prefetched]:
        """Items that the cache lacks, prepared while the model runs; see `Trainable.prefetch_batches`."""
        return self.encoder.prefetch_batches(batches, num_workers)

    def save(self, folder: Path, training: dict[str, Any]) -> None:
        """Write what was learned; see `Trainable.save`."""
        self.encoder.training = training
        self.encoder.adapter.save(folder)


class LatentMethod:
    """Learn latent queries; the model stays frozen."""

    def learning_rate(self, model: FrozenModel, config: TrainConfig) -> float:
        """A tenth of the size of the latent queries' values at the start; see `Method.learning_rate`."""
        return LR_FRACTION_OF_INIT_RMS * init_rms(model, config.init)

    def create(self, model: FrozenModel, config: TrainConfig) -> LatentTrainable:
        """Initialised latent queries with an empty cache; see `Method.create`."""
        cache = kv_cache(config, model.device) if config.prefix_caching else None
        queries = fresh_queries(model, config)
        encoder = LatentEncoder(model, queries, cache, config.prefix_caching, mini_batch_tokens=config.mini_batch_tokens)
        return LatentTrainable(encoder, config.latent_lora_learning_rate)

    def load(self, folder: Path, model: FrozenModel | None = None, **loading: Any) -> LatentEncoder:
        """The adapter in a folder; see `Method.load`."""
        return LatentEncoder.from_pretrained(folder, model, **loading)


class FineTuneTrainable(Trainable):
    """A model whose own weights are learned, by LoRA or in full.

    The temperature has the learning rate that it has beside latent queries: at that of a whole model it would hardly move.
    """

    encoder: FineTunedModel

    def __init__(self, tuned: FineTunedModel):
        super().__init__()
        self.encoder = tuned
        self.weights = nn.ParameterList(tuned.trainable)  # not the model: a checkpoint is to hold what is learned alone
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07), device=tuned.model.device))

    @property
    def temperature(self) -> Tensor:
        """The divisor of cosines."""
        return temperature_of(self.log_temperature)

    def after_step(self) -> None:
        """Keep the temperature within its bounds."""
        bound_temperature(self.log_temperature)

    def states(self, items: Sequence[Item], prefetched: Prefetched) -> Tensor:
        """States of items (B, N, D) before pooling; see `Trainable.states`."""
        return self.encoder.states(items)

    def interpolate(self, alpha: float) -> None:
        """Move between the start (alpha 0) and what was learned (alpha 1); see `Trainable.interpolate`."""
        self.encoder.interpolate(alpha)

    @torch.no_grad()
    def start_from(self, learned: Encoder) -> None:
        """Begin with the weights of a fine-tuned model; its temperature is not saved with it; see `Trainable.start_from`."""
        if not isinstance(learned, FineTunedModel) or learned.method != self.encoder.method:
            raise InputError(f"Method {self.encoder.method} cannot begin at {learned.kind}: choose that method, or name the base model.")
        for own, before in zip(self.weights, learned.trainable, strict=True):
            own.copy_(before)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The weights at the chosen rate, the temperature at its own; see `Trainable.parameter_groups`."""
        own = LR_FRACTION_OF_INIT_RMS * init_rms(self.encoder.model, "normal")
        return [{"params": list(self.weights), "lr": learning_rate}, {"params": [self.log_temperature], "lr": own, "weight_decay": 0.0}]

    def save(self, folder: Path, training: dict[str, Any]) -> None:
        """Write what was learned; see `Trainable.save`."""
        self.encoder.training = training
        self.encoder.save(folder)


@dataclass(frozen=True)
class FineTuneMethod:
    """Fine-tune a copy of the model, by low-rank matrices or in full: what latent queries are compared with.

    Args:
        kind: `lora` or `full`.
        rate: the learning rate of a run that chooses none.
    """

    kind: str
    rate: float

    def learning_rate(self, model: FrozenModel, config: TrainConfig) -> float:
        """The method's usual learning rate; see `Method.learning_rate`."""
        return self.rate

    def create(self, model: FrozenModel, config: TrainConfig) -> FineTuneTrainable:
        """A copy of the model with trainable weights; see `Method.create`."""
        sizes = (config.lora_rank, config.lora_alpha, config.mini_batch_tokens)
        return FineTuneTrainable(FineTunedModel(model, self.kind, *sizes, config.train_vision_encoder))

    def load(self, folder: Path, model: FrozenModel | None = None, **loading: Any) -> FineTunedModel:
        """The fine-tuned model in a folder; see `Method.load`."""
        return FineTunedModel.from_pretrained(folder, model, **loading)


methods.register("latents")(LatentMethod())
methods.register("lora")(FineTuneMethod("lora", 1e-4))
methods.register("full")(FineTuneMethod("full", 1e-5))


def fresh_queries(model: FrozenModel, config: TrainConfig) -> LatentQueries:
    """Initialise the latent queries of a run; also the untrained control of its results.

    Args:
        model: the base model.
        config: the run's options.
    """
    generator = torch.Generator().manual_seed(config.seed)
    rank, alpha, targets = config.latent_lora_rank, config.latent_lora_alpha, config.latent_lora_targets
    return LatentQueries.create(
        config.num_latents,
        model.dim,
        config.init,
        model.prompt_embeddings() if config.init == "prompt" else None,
        generator,
        generation_prompt=config.add_generation_prompt,
        pooling=config.pooling,
        hidden_state=config.hidden_state,
        modality_specific=config.modality_specific,
        multi_vector_sizes=config.multi_vector_sizes,
        lora=LatentLora.create(model.model, rank, alpha, targets, generator) if rank else None,
    )


def kv_cache(config: TrainConfig, device: torch.device) -> KVCache:
    """The cache of a run with these options.

    Args:
        config: the run's options.
        device: that the model is on.
    """
    return KVCache(
        _bytes(config.cache_memory_gb),
        device_budget=_bytes(config.cache_device_gb) or 0,
        device=str(device),
        folder=config.cache_dir,
        disk_budget=_bytes(config.cache_disk_gb),
        level=config.cache_level,
        kv_cache_dtype=config.kv_cache_dtype,
    )


def init_rms(model: FrozenModel, init: str) -> float:
    """The size of a latent query's values at the start: of the prompt's embeddings their root mean square, else 1/sqrt(D).

    Args:
        model: the base model.
        init: how they are initialised, such as `prompt`.
    """
    return model.prompt_embeddings().float().square().mean().sqrt().item() if init == "prompt" else model.dim**-0.5


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 2**30)
