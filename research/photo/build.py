"""The recipe as a whole: parts, image features, training, and the saved model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaProcessor

from research.photo.assemble import assemble
from research.photo.captions import CaptionBatches, CaptionTokens
from research.photo.command import BuildConfig
from research.photo.features import FeatureCache
from research.photo.language import load_language_model
from research.photo.photographs import TRAIN, VALIDATION, content_sha256, of_split, read_photographs
from research.photo.pretrain import LOG_FILE, Phase, Run, pretrain
from research.photo.vision import load_encoder
from slq import console
from slq.config.fields import result_settings
from slq.errors import ConfigError, OutputExistsError, ResumeMismatchError
from slq.io.device import choose_device, choose_dtype
from slq.io.files import load_json, write_folder, write_json
from slq.io.provenance import record
from slq.models.identity import flat

BUILD_FILE, RUN_FILE = "build.json", "run.json"
VALIDATED = 100  # photographs whose first caption is scored at each checkpoint
PROJECTOR_SHARE = 0.1  # of the projector's learning rate, while the decoder is tuned: it was trained before


def work_folder(model: Path, given: Path | None) -> Path:
    """Where image features, checkpoint and log of a model are kept: beside it, unless another folder is given.

    Args:
        model: the model's folder.
        given: another one.
    """
    return given or model.with_name(f"{model.name}-work")


def build(config: BuildConfig, command: str) -> dict[str, Any]:
    """Build a model, or go on with building it.

    Args:
        config: the options.
        command: the command line, for the record.

    Returns:
        What `build.json` holds, which stands in the model's folder.

    Raises:
        DataError: if the data are missing or wrong.
        MissingExtraError: if a package is missing.
        ModelError: if a part cannot be read or used.
        OutputExistsError: if the output folder holds something else.
        ResumeMismatchError: if the work folder is of a run with other options, parts or data.
    """
    assert config.output is not None and config.data is not None
    _check_free(config.output)
    photographs = read_photographs(config.data)
    training, validation = of_split(photographs, TRAIN), [each for each in photographs if each.split == VALIDATION][:VALIDATED]
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    model, processor, parts = _parts(config)
    work = work_folder(config.output, config.work)
    settings = {**result_settings(config), "dtype": str(dtype).removeprefix("torch."), **parts, "photographs": content_sha256(training)}
    if _is_built(config.output, settings):
        return load_json(config.output / BUILD_FILE)
    _begin(work, settings)

    model.to(device)
    features = FeatureCache(work / "features", model, processor)
    features.fill([each.image for each in (*training, *validation)])
    tokens = CaptionTokens(processor)
    batches = CaptionBatches(training, tokens, config.batch_size, config.captions_per_image, config.seed)
    scored = [tokens.row(each) for each in validation]
    every, half = config.checkpoint_every, dtype == torch.bfloat16
    done = pretrain(Run(model, batches, features, scored, _phases(config), work, every, half))

    content = {"settings": settings, "minutes": config.minutes, "training_photographs": len(training), "phases": done}
    built = record(content, command=command, device=str(device), seed=config.seed)
    _check_free(config.output)
    _write(config.output, model.cpu(), processor, built, work / LOG_FILE)
    return built


def _parts(config: BuildConfig) -> tuple[Any, LlavaProcessor, dict[str, Any]]:
    """The assembled model, its processor, and where its parts come from."""
    language, encoder = load_language_model(config.language), load_encoder(config.encoder, config.encoder_weights)
    if config.tune_decoder > (most := language.config["num_hidden_layers"]):
        raise ConfigError(f"tune_decoder must be at most {most}, the layers of the language model, not {config.tune_decoder}.")
    model, processor = assemble(language, encoder, config.size, config.seed)
    return model, processor, {"language": language.source, "encoder": encoder.source}


def _phases(config: BuildConfig) -> list[Phase]:
    """The projector, then the decoder if it is tuned; the minutes are shared in proportion to their passes."""
    tuned = config.tune_epochs if config.tune_decoder else 0
    share = None if config.minutes is None else 60 * config.minutes / (config.epochs + tuned)
    seconds = [None if share is None else share * epochs for epochs in (config.epochs, tuned)]
    phases = [Phase("projector", config.epochs, config.learning_rate, seconds=seconds[0])]
    if tuned:
        rates = (PROJECTOR_SHARE * config.learning_rate, config.tune_rate)
        phases.append(Phase("projector and decoder", tuned, *rates, layers=config.tune_decoder, seconds=seconds[1]))
    return phases


def _check_free(output: Path) -> None:
    """Refuse an output folder that holds something else than a model of this recipe."""
    if output.exists() and not (output / BUILD_FILE).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise OutputExistsError(f"{output} holds something that this recipe did not write: choose another folder.")


def _is_built(output: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds the model already."""
    if not (output / BUILD_FILE).is_file():
        return False
    if different := _difference(load_json(output / BUILD_FILE)["settings"], settings):
        raise OutputExistsError(f"{output} holds another model: {different}. Choose another folder.")
    console.note(f"{output} is built already.")
    return True


def _begin(work: Path, settings: Mapping[str, Any]) -> None:
    """State what the run is of, or refuse to go on with another one."""
    file = work / RUN_FILE
    if file.is_file() and (different := _difference(load_json(file), settings)):
        raise ResumeMismatchError(f"Cannot go on in {work}: {different}. Build with the same options and data, or into another folder.")
    work.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What of the settings is not as it was, as a part of a sentence; empty if all is."""
    old, new = flat(before), flat(json.loads(json.dumps(now)))
    names = [name for name in (*old, *new) if old.get(name) != new.get(name)]
    return f"{names[0]} was {old.get(names[0])!r} and is now {new.get(names[0])!r}" if names else ""


def _write(output: Path, model: Any, processor: LlavaProcessor, built: Mapping[str, Any], log: Path) -> None:
    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        shutil.copyfile(log, folder / LOG_FILE)
        write_json(folder / BUILD_FILE, built)

    output.parent.mkdir(parents=True, exist_ok=True)
    write_folder(output, write)
