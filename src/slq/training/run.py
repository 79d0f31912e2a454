"""A training run from files to an adapter: what `slq train` and `slq.train` do."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slq import console
from slq.config import ModelConfig, PreprocessingConfig, TrainConfig, from_values
from slq.data import PairFile, read_pairs
from slq.encoders.base import Encoder
from slq.encoders.opening import open_base_and_encoder, tell_of_miniature
from slq.errors import ConfigError
from slq.evaluation.leakage import Leakage, compare_files
from slq.io.files import write_json
from slq.io.outputs import OutputFolder
from slq.models import FrozenModel
from slq.training.log import check_trackers
from slq.training.loop import train as train_on_pairs
from slq.training.start import going_on_from
from slq.training.telling import read_facts
from slq.types import Pair

LEAKAGE_FILE = "leakage.json"


def train(
    data: str | Path | Sequence[Pair] | None = None,
    *,
    model: str | FrozenModel | ModelConfig = "miniature",
    preprocessing: PreprocessingConfig | None = None,
    config: TrainConfig | None = None,
    **options: Any,
) -> Encoder:
    """Learn an adapter on pairs and save it in a folder; the model stays frozen.

    Args:
        data: a file or folder of pairs, or the pairs themselves.
        model: the base model by its name, as a config, or loaded; or an adapter by its name, from which the run goes on.
        preprocessing: how items become tokens, for a model that is not loaded yet.
        config: every option at once.
        **options: instead of `config`, fields of `TrainConfig` by keyword, such as `output` and `num_latents`, and `preset="paper"`.

    Returns:
        The encoder, whose adapter the output folder then holds.

    Raises:
        ConfigError: for an option that does not exist, with the nearest one, or that is not allowed.
        InputError: if the data cannot be used.
        OutputExistsError: if the folder holds something and neither `resume` nor `overwrite` is given.
    """
    if config is not None and options:
        raise ConfigError(f"config holds every option: leave out {', '.join(options)}, or the config.")
    config = config or from_values(TrainConfig, options)
    if isinstance(data, str | Path):
        config = replace(config, data=Path(data))
    pairs = None if isinstance(data, str | Path) or data is None else PairFile(tuple(data), (), Path())
    return _train(config, pairs, model, preprocessing or PreprocessingConfig())


def train_from_configs(config: TrainConfig, model: ModelConfig, preprocessing: PreprocessingConfig, command: str | None = None) -> Encoder:
    """As `train`, with every option as the command line has it, which stands in the run's record.

    Args:
        config: the run's options.
        model: which base model, and how it is loaded.
        preprocessing: how items become tokens.
        command: what was typed; None for nothing to record.
    """
    return _train(config, None, model, preprocessing, command)


def _train(
    config: TrainConfig,
    pairs: PairFile | None,
    model: str | FrozenModel | ModelConfig,
    preprocessing: PreprocessingConfig,
    command: str | None = None,
) -> Encoder:
    """Read what is to be read, refuse before anything is loaded what cannot work, and train."""
    if config.output is None:
        raise ConfigError("output is missing: name the folder for the adapter.")
    check_trackers(config.report_to)
    named = ModelConfig(model=model) if isinstance(model, str) else model
    output = config.output
    reads = [config.data, config.facts, *config.test_sets, *([] if isinstance(named, FrozenModel) else [named.model, named.base_model])]
    OutputFolder.check(config.output, "train", overwrite=config.overwrite, keep=reads, resume=config.resume)
    if pairs is None:
        if config.data is None:
            raise ConfigError("data is missing: name a file of pairs, or hand over the pairs.")
        pairs = read_pairs(config.data, **config.reading)
        console.list_failures(pairs.failures)
        console.check_skipped(pairs.failures, pairs.num_rows, config.max_skipped)
    facts = None if config.facts is None else read_facts(config.facts)
    if config.latent_lora_rank and facts is None:
        console.note(
            "Latent LoRA on captions alone finds more, and forgets facts that the model knows: `slq facts` lets it tell them, and --facts "
            "keeps them (docs/claims.md)."
        )
    leakages = _warn_of_overlap(pairs, config)
    recorded: list[Any] = []
    start = None
    if isinstance(named, FrozenModel):
        base = named
    else:
        recorded = [named, preprocessing]
        with console.waiting("loading the model"):
            base, start = open_base_and_encoder(named, preprocessing)
        tell_of_miniature(base)
        if start is not None:
            config = going_on_from(start, named.model, config)
            console.note(f"Going on from {named.model}, on {base.identity.name}.")
    return train_on_pairs(
        pairs.pairs,
        base,
        output,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        after_step=_write_after_first_step(leakages, output),
        recorded=recorded,
        start=start,
        command=command,
        facts=facts,
    )


def _warn_of_overlap(pairs: PairFile, config: TrainConfig) -> dict[str, Leakage]:
    """Compare each test set with training pairs, and say which images and how many texts both hold.

    Of several processes that train together the first one does it.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    limits: dict[str, Any] = {"allow_outside": config.allow_outside, "max_skipped": config.max_skipped}
    found = {str(test): compare_files(pairs, test, **limits) for test in config.test_sets}
    for test, one in found.items():
        if one.images:
            console.warn(f"{test}: {one.summary()}. Scores on it will be too high.")
        if one.texts:
            console.note(f"Note: {test}: {len(one.texts)} of its {one.test_texts} texts stand in the training set.")
    return found


def _write_after_first_step(leakages: dict[str, Leakage], output: Path) -> Callable[[int, int, Encoder], None]:
    """What writes leakage.json after the first step of a training, when its folder is there."""

    def after_step(step: int, total: int, encoder: Encoder) -> None:
        if leakages:
            write_json(output / LEAKAGE_FILE, {test: one.to_json() for test, one in leakages.items()})
            leakages.clear()

    return after_step
