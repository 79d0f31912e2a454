"""What can be chosen about a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from slq.adapters.latents import INITS, POOLINGS, READOUTS
from slq.cache import LEVELS, KVCache
from slq.errors import InputError

METHODS = ("latents", "lora", "full")
PAPER: dict[str, Any] = {"num_latents": 20, "init": "normal", "generation_prompt": True}  # the latent queries of the SLQ paper and its code
OF_LATENTS = ("num_latents", "init", "generation_prompt", "pooling", "readout", "modality_specific", "groups", "orthogonality")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run, by default few latent queries that start as the model's own readout, learned in minutes rather than days.

    The paper's latent queries are `TrainConfig(**PAPER)`; docs/design/0015-default-recipe.md has the two side by side.

    method: what is learned: `latents`, or what they are compared with, the decoder's own weights by `lora` (lora_rank, lora_alpha) or in
    `full` (train_vision_encoder: with the vision tower's); those are read at the last token. pooling, readout, modality_specific, groups:
    see `latents.LatentQueries`; groups are trained by late interaction beside the pooled embedding. matryoshka: leading numbers of the
    embedding that are also trained to stand alone. start_share: after the last step what was learned is moved back by this share of its way
    from the start, which keeps more of what the model knew (Wortsman et al. 2022, WiSE-FT).
    generation_prompt: whether the latents stand behind the prompt at which the model would answer, or in its place.
    learning_rate: None means a tenth of the size of the latents' start (`learners.size_of_start`); 1e-4 for lora, 1e-5 for full.
    warmup_steps: at most a tenth of the run.
    positives_per_query: positives drawn per pair and step. false_negative_margin: see `losses.info_nce`. validation: pairs set aside, a
    share (< 1) or a number. batch_size: of all processes together. mini_batch_tokens: tokens that run at once with gradients (None: what a
    quarter of the memory holds); a larger batch is run in parts with the same gradient. cache_*: see `kv_cache.KVCache`;
    cache_bytes is host memory (None: a quarter of what is free; 0: none). workers: processes that prepare items while the model runs
    (None: see `model.default_num_workers`).
    """

    method: str = "latents"
    num_latents: int = 5
    init: str = "prompt"
    generation_prompt: bool = False
    pooling: str = "mean"
    readout: str = "final"
    modality_specific: bool = False
    groups: tuple[int, ...] = ()
    matryoshka: tuple[int, ...] = ()
    start_share: float = 0.0
    lora_rank: int = 8
    lora_alpha: int = 16
    train_vision_encoder: bool = False
    epochs: int = 5
    batch_size: int = 128
    max_steps: int | None = None
    learning_rate: float | None = None
    warmup_steps: int = 100
    weight_decay: float = 0.0
    orthogonality: float = 0.0
    false_negative_margin: float | None = None
    positives_per_query: int = 1
    validation: float = 0.05
    save_every: int = 100
    seed: int = 0
    prefix_caching: bool = True
    mini_batch_tokens: int | None = None
    cache_bytes: int | None = None
    cache_device_bytes: int = 0
    cache_folder: str | None = None
    cache_disk_bytes: int | None = None
    cache_level: str = "states"
    cache_eight_bit: bool = False
    workers: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        at_least_one = ("num_latents", "epochs", "positives_per_query", "save_every", "lora_rank", "lora_alpha")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("max_steps", "mini_batch_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, not {self.learning_rate}.")
        if self.batch_size < 2:
            raise InputError(f"batch_size must be at least 2, not {self.batch_size}: a batch's other pairs are the negatives.")
        if self.orthogonality < 0:
            raise InputError(f"orthogonality must not be below 0: it is {self.orthogonality}.")
        choices = {"method": METHODS, "init": INITS, "pooling": POOLINGS, "readout": READOUTS, "cache_level": LEVELS}
        for name, choice in choices.items():
            if getattr(self, name) not in choice:
                raise InputError(f"Unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choice)}.")
        for group in self.groups:
            if not 1 <= group <= self.num_latents:
                raise InputError(f"groups are leading latents, so between 1 and {self.num_latents}, not {group}.")
        for dims in self.matryoshka:
            if dims < 1:
                raise InputError(f"matryoshka must be numbers of dimensions from 1 on, not {dims}.")
        if not 0 <= self.start_share < 1:
            raise InputError(f"start_share must be a share from 0 to below 1, not {self.start_share}.")
        if self.train_vision_encoder and self.method != "full":
            raise InputError("train_vision_encoder is of method full: the others leave the vision tower as it is.")
        if self.method != "latents":
            plain = {field.name: field.default for field in fields(self)}
            for name in OF_LATENTS:
                if getattr(self, name) != plain[name]:
                    raise InputError(f"{name} is of latent queries, and method {self.method} has none: leave it out.")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers must not be below 0: it is {self.workers}.")
        if self.validation < 0:
            raise InputError(f"validation must be a share or a number of pairs, not {self.validation}.")

    def kv_cache(self, device: torch.device) -> KVCache:
        """The cache that a run with these options keeps its prefixes in."""
        return KVCache(
            self.cache_bytes,
            device_budget=self.cache_device_bytes,
            device=str(device),
            folder=None if self.cache_folder is None else Path(self.cache_folder),
            disk_budget=self.cache_disk_bytes,
            level=self.cache_level,
            eight_bit=self.cache_eight_bit,
        )

    def that_decide_the_weights(self) -> dict[str, Any]:
        """The settings a resumed run must share with the run it resumes."""
        free = {"save_every", "tensorboard", "workers", "cache_folder", "cache_disk_bytes", "cache_device_bytes"}
        settings = {name: value for name, value in asdict(self).items() if name not in free}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}  # as JSON has them
