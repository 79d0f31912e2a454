"""What can be chosen about a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slq.config.evaluate import num_workers
from slq.config.fields import NamedOptions, option, options_of, validate
from slq.config.tables import ReadingConfig
from slq.errors import ConfigError

# Panels of --help.
DATA, ADAPTER, LOSS, METHOD, OPTIMISATION, MEMORY, RUN = "Data", "Adapter", "Loss", "Method", "Optimisation", "Memory", "Run"

DEFAULT_SPLIT = 0.05
NEAR_PAIRS: Mapping[str, Any] = {"batch_sampler": "nearest", "loss": (NamedOptions("info_nce", {"hardness": 0.5}),)}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "latent-lora": {"latent_lora_rank": 8, **NEAR_PAIRS},
    "latent-lora-small": {"latent_lora_rank": 2, **NEAR_PAIRS},
    "paper": {"num_latents": 20, "init": "normal", "add_generation_prompt": True},  # the latent queries of the SLQ paper and its code
}


@dataclass(frozen=True, kw_only=True)
class DataConfig(ReadingConfig):
    """Which pairs are trained on, and which are split off."""

    data: Path | None = option(
        None,
        help="Training pairs: a JSONL, JSON, CSV, TSV or Parquet file with the columns image + caption, or anchor (or query) + positive "
        "(+ negative); a folder with captions; or a Karpathy split, of which train and restval are read, or "
        "COCO's captions_train2014.json.",
        panel=DATA,
        affects_result=False,
        positional=True,
        required=True,
    )
    validation_split: float = option(
        DEFAULT_SPLIT, help="Fraction of the pairs split off for validation, 500 pairs at most.", minimum=0, below=1, panel=DATA
    )
    validation_size: int | None = option(
        None, help="Number of pairs split off for validation, in place of --validation-split.", minimum=1, panel=DATA
    )
    positives_per_query: int = option(1, help="Positives drawn for each query and step, where it has several.", minimum=1, panel=DATA)
    facts: Path | None = option(
        None,
        help="Facts that the model told about the training images, learned beside the pairs: what `slq facts` wrote.",
        default_text="none",
        panel=DATA,
        affects_result=False,
    )
    facts_weight: float = option(0.2, help="Weight of the facts' loss beside that of the pairs.", above=0, panel=DATA)
    facts_per_step: int = option(64, help="Facts drawn for each step, about what its images show.", minimum=1, panel=DATA)
    test_sets: tuple[Path, ...] = option(
        (),
        help="Pairs or a BEIR folder to be tested on later (repeat it): warns of items that are in both, and lists them in leakage.json.",
        panel=DATA,
        flags=("--test-set",),
        affects_result=False,
    )


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The latent queries: how many, where they start, and how their states become an embedding."""

    num_latents: int = option(5, help="Number of latent queries.", minimum=1, panel=ADAPTER, flags=("--num-latents", "-n"))
    init: str = option(
        "prompt",
        help="What the latent queries start as: `prompt` (the embedding of the generation prompt), `normal` (standard deviation 1/sqrt(D)) "
        "or `zeros`.",
        choices=("prompt", "normal", "zeros"),
        panel=ADAPTER,
    )
    add_generation_prompt: bool = option(
        False, help="Put the latent queries after the generation prompt instead of in its place.", panel=ADAPTER
    )
    pooling: str = option(
        "mean",
        help="How the states of the latent queries become one embedding.",
        choices=("mean", "last"),
        plugin_group="slq.poolings",
        panel=ADAPTER,
    )
    hidden_state: str = option(
        "final",
        help="Which states are pooled: `final`, or `pre_mlp`, without the MLP of the last layer (FreeRet).",
        choices=("final", "pre_mlp"),
        panel=ADAPTER,
    )
    modality_specific: bool = option(False, help="Learn other latent queries for items with an image than for text alone.", panel=ADAPTER)
    multi_vector_sizes: tuple[int, ...] = option(
        (),
        help="Also train this many of the first latent queries for late interaction (repeat it for nested sizes).",
        minimum=1,
        panel=ADAPTER,
        flags=("--multi-vector-size",),
    )
    latent_lora_rank: int = option(
        0,
        help="Rank of matrices added to the decoder where the latent queries stand, and nowhere else: the model's own weights and every "
        "prefix stay as they are. 0 is none.",
        minimum=0,
        panel=ADAPTER,
    )
    latent_lora_alpha: float = option(16.0, help="Scale of those matrices times their rank.", above=0, panel=ADAPTER)
    latent_lora_targets: tuple[str, ...] = option(
        ("all-linear",),
        help="Linear layers that get them, by the last part of their name, such as q_proj (repeat it).",
        panel=ADAPTER,
        flags=("--latent-lora-target",),
    )
    latent_lora_learning_rate: float | None = option(
        None,
        help="Peak learning rate of those matrices.",
        default_text="2.56 divided by the hidden size",
        above=0,
        panel=ADAPTER,
        flags=("--latent-lora-lr",),
    )
    wise_ft_alpha: float = option(
        1.0,
        help="Interpolate between the start (0) and what was learned (1) after the last step; 0.5 keeps more of the model's knowledge "
        "(WiSE-FT).",
        above=0,
        maximum=1,
        panel=ADAPTER,
    )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    loss: tuple[NamedOptions, ...] = option(
        (NamedOptions("info_nce"),),
        help="Loss as NAME or NAME:key=value,... (repeat it to add several): `info_nce`, in which near negatives weigh more by "
        "`info_nce:hardness=0.5`; or beside it `orthogonality:weight=0.01`.",
        choices=("info_nce", "orthogonality"),
        plugin_group="slq.losses",
        panel=LOSS,
    )
    matryoshka_dims: tuple[int, ...] = option(
        (), help="Also train this many of the first dimensions to stand alone (repeat it).", minimum=1, panel=LOSS
    )
    false_negative_margin: float | None = option(
        None, help="Leave out negatives more similar than the positive by this margin; 0.1 is usual.", default_text="off", panel=LOSS
    )


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What is learned: latent queries, or what they are compared with."""

    method: str = option(
        "latents",
        help="`latents`; or, to compare with, `lora` or `full`, which tune the decoder's own weights in a copy and read its last token.",
        choices=("latents", "lora", "full"),
        plugin_group="slq.methods",
        panel=METHOD,
    )
    lora_rank: int = option(8, help="Rank of LoRA's matrices.", minimum=1, panel=METHOD)
    lora_alpha: int = option(16, help="LoRA's scale times its rank.", minimum=1, panel=METHOD)
    train_vision_encoder: bool = option(False, help="With --method full: train the vision encoder too.", panel=METHOD)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Steps, batches and the optimiser."""

    epochs: int = option(5, help="Passes over the pairs.", minimum=1, panel=OPTIMISATION)
    batch_size: int = option(
        128, help="Pairs a step, of all processes together; a batch's other pairs are the negatives.", minimum=2, panel=OPTIMISATION
    )
    batch_sampler: str = option(
        "random",
        help="Which pairs meet in a batch: any (`random`), or from the second epoch on those that the model takes for one another "
        "(`nearest`), as hard negatives of each other.",
        choices=("random", "nearest"),
        panel=OPTIMISATION,
    )
    neighbors: int = option(7, help="With --batch-sampler nearest: how many near pairs each takes along.", minimum=1, panel=OPTIMISATION)
    max_steps: int | None = option(None, help="Stop after this many steps.", default_text="all epochs", minimum=1, panel=OPTIMISATION)
    learning_rate: float | None = option(
        None,
        help="Peak learning rate of AdamW.",
        default_text="a tenth of the initial size of the latent queries; 1e-4 for lora, 1e-5 for full",
        above=0,
        panel=OPTIMISATION,
        flags=("--learning-rate", "--lr"),
    )
    warmup_steps: int = option(100, help="Steps of linear warm-up, at most a tenth of the run.", panel=OPTIMISATION)
    weight_decay: float = option(0.0, help="Weight decay of AdamW, for --method lora and full.", minimum=0, panel=OPTIMISATION)
    seed: int = option(0, help="Seed of the start, of the order of pairs and of the validation split.", panel=OPTIMISATION)


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is computed once and cached, and how much memory a step takes."""

    mini_batch_tokens: int | None = option(
        None,
        help="Tokens run at once with gradients; a larger batch is run in mini-batches with the same gradient (GradCache).",
        default_text="what a quarter of the device's memory holds, 32,768 at most",
        minimum=1,
        panel=MEMORY,
    )
    prefix_caching: bool = option(
        True,
        help="Run each item's own tokens once, without gradient, and cache them. Off: the reference path, the same result.",
        panel=MEMORY,
    )
    cache_level: str = option(
        "kv",
        help="What is cached: `kv` (prefixes; vision features where there is no room for those), `vision` (vision features alone) or "
        "`none`.",
        choices=("kv", "vision", "none"),
        panel=MEMORY,
    )
    kv_cache_dtype: str = option(
        "auto",
        help="Number format of cached prefixes: the model's own, or `int8`, which takes less room and gives slightly other results.",
        choices=("auto", "int8"),
        panel=MEMORY,
    )
    cache_memory_gb: float | None = option(
        None, help="Memory for the cache; 0 is none.", default_text="a quarter of what is free", minimum=0, panel=MEMORY
    )
    cache_device_gb: float = option(
        0.0, help="Memory of the accelerator for the cache, used first.", minimum=0, panel=MEMORY, affects_result=False
    )
    cache_dir: Path | None = option(
        None,
        help="Folder for what memory has no room for; later runs find it again. See `slq cache`.",
        default_text="none",
        environment="SLQ_CACHE_DIR",
        panel=MEMORY,
        affects_result=False,
    )
    cache_disk_gb: float | None = option(
        None, help="The most that --cache-dir may hold.", default_text="what the disk holds", minimum=0, panel=MEMORY, affects_result=False
    )
    num_workers: int | None = num_workers(MEMORY)


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """Where a run writes, how often, and whether it resumes."""

    output: Path | None = option(
        None,
        help="Folder for the adapter, the log and the newest checkpoint.",
        panel=RUN,
        flags=("--output", "-o"),
        affects_result=False,
        required=True,
    )
    overwrite: bool = option(False, help="Replace what an earlier run wrote there.", panel=RUN, affects_result=False, recorded=False)
    resume: bool = option(
        False,
        help="Continue from the newest checkpoint in --output. A finished run is trained longer with more --epochs or --max-steps.",
        panel=RUN,
        affects_result=False,
        recorded=False,
    )
    save_steps: int = option(100, help="Steps between checkpoints.", minimum=1, panel=RUN, affects_result=False)
    report_to: tuple[str, ...] = option(
        (),
        help="Also log to TensorBoard files in --output, or to Weights & Biases (repeat it); `none` where a config file asks for one.",
        choices=("tensorboard", "wandb", "none"),
        panel=RUN,
        affects_result=False,
    )


# Dataclasses collect fields from the last base to the first: the order of --help is this list read backwards.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoggingConfig, CacheConfig, OptimConfig, MethodConfig, LossConfig, AdapterConfig, DataConfig):
    """One training run; by default few latent queries that start as the model's own generation prompt.

    The latent queries of the paper are `TrainConfig(**PRESETS["paper"])`; docs/design/0015-default-recipe.md has both beside each other.

    Example:
        >>> TrainConfig(num_latents=20).epochs
        5
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def __post_init__(self) -> None:
        validate(self)
        if any(size > self.num_latents for size in self.multi_vector_sizes):
            raise ConfigError(f"multi_vector_sizes must be at most num_latents, {self.num_latents}, not {max(self.multi_vector_sizes)}.")
        if self.validation_size is not None and self.validation_split != DEFAULT_SPLIT:
            raise ConfigError(f"validation_split {self.validation_split} and validation_size {self.validation_size}: give one of the two.")
        if self.train_vision_encoder and self.method != "full":
            raise ConfigError(f"train_vision_encoder is for method full: {self.method} leaves the vision encoder as it is.")
        if self.weight_decay and self.method == "latents" and not self.latent_lora_rank:
            raise ConfigError("weight_decay would only draw latent queries to 0: leave it out, or use it with method lora or full.")
        if not self.loss:
            raise ConfigError("loss is empty: name at least one, such as info_nce.")
        if all(loss.name == "orthogonality" for loss in self.loss):
            raise ConfigError("loss orthogonality compares no query with a candidate: name another beside it, such as info_nce.")
        if self.method in ("lora", "full"):
            self._refuse_options_of_latents()

    def _refuse_options_of_latents(self) -> None:
        """Fine-tuning reads the last token: options of latent queries would be ignored without a word."""
        for name, each in options_of(AdapterConfig).items():
            if name != "wise_ft_alpha" and getattr(self, name) != each.default:
                raise ConfigError(f"{name} is an option of latent queries, and method {self.method} has none: leave it out.")
        if any(loss.name == "orthogonality" for loss in self.loss):
            raise ConfigError(f"loss orthogonality is for latent queries, and method {self.method} has none: leave it out.")
