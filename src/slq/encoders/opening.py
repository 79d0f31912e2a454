"""What the options of a model name: a base model, or an encoder over it."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from slq import console
from slq.adapters.files import CONFIG_FILE, EARLIER_CONFIG_FILE, WEIGHTS_FILE, Adapter, load_learned_on
from slq.config import ModelConfig, PreprocessingConfig
from slq.encoders.base import Encoder
from slq.encoders.baselines import BASELINES
from slq.encoders.finetuned import FineTunedModel, FineTuneRecord
from slq.encoders.latent import LatentEncoder
from slq.encoders.loading import load_encoder
from slq.encoders.multi_vector import MultiVectorEncoder
from slq.errors import AdapterError, ConfigError, ModelError
from slq.io.hub import snapshot
from slq.models import FrozenModel, Preprocessing, load_model

DEFAULT_BASELINE = "last_token"
MINIATURE, REAL_MODEL = "miniature", "OpenGVLab/InternVL3-1B-hf"


def is_adapter(name: str) -> bool:
    """Whether a folder or hub repository holds something learned rather than a base model; seen from its files.

    Args:
        name: a folder, or `owner/name` on the hub.
    """
    folder = Path(name)
    if os.path.isdir(folder):
        return FineTunedModel.is_in(folder) or any(os.path.isfile(folder / name) for name in (CONFIG_FILE, EARLIER_CONFIG_FILE))
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return False
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        hf_hub_download(name, CONFIG_FILE)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ValueError, OSError):
        return False  # what is wrong with the name is said when it is loaded
    return True


def open_model(config: ModelConfig, preprocessing: PreprocessingConfig | None = None) -> FrozenModel:
    """The base model that is named.

    Args:
        config: which model, and how it is loaded.
        preprocessing: how items become tokens; None for the defaults.

    Raises:
        ConfigError: if an adapter is named.
        ModelError: if it cannot be loaded.
    """
    if is_adapter(config.model):
        raise ConfigError(f"{config.model} is an adapter, and a base model is needed here: name its base model.")
    if config.base_model is not None:
        raise ConfigError(f"base_model is for adapters, and {config.model} is a base model itself: leave it out.")
    if os.path.isdir(config.model) and not os.path.isfile(Path(config.model) / "config.json"):
        raise ModelError(f"{config.model} is neither an adapter nor a base model: it has no {CONFIG_FILE} and no config.json.")
    return load_model(config.model, preprocessing=_preprocessing(preprocessing), **_loading(config))


def open_encoder(
    config: ModelConfig,
    preprocessing: PreprocessingConfig | None = None,
    *,
    baseline: str | None = None,
    multi_vector_size: int | None = None,
) -> Encoder:
    """The encoder that is named: an adapter over its base model, or a base model read by a baseline.

    Args:
        config: which model.
        preprocessing: how items become tokens, for a base model; an adapter brings its own.
        baseline: which of a base model's states are read; by default its last token's.
        multi_vector_size: how many latent queries of an adapter are compared one by one.

    Raises:
        ConfigError: if options are given that what is named has no use for.
        AdapterError, ModelError: if it cannot be loaded.
    """
    if not is_adapter(config.model):
        if multi_vector_size is not None:
            raise ConfigError(f"multi_vector_size compares the latent queries of an adapter, and {config.model} is a base model.")
        return BASELINES[baseline or DEFAULT_BASELINE](open_model(config, preprocessing))
    if baseline is not None:
        raise ConfigError(f"baseline is for base models, and {config.model} is an adapter: leave out one of the two.")
    loading = loading_of_adapter(config, preprocessing)
    if multi_vector_size is None:
        return load_encoder(config.model, **loading)
    return MultiVectorEncoder(LatentEncoder.from_pretrained(config.model, **loading), multi_vector_size)


def tell_of_miniature(model: FrozenModel) -> None:
    """Say that the built-in model is made to try things on, where it is the one in use.

    Args:
        model: the base model.
    """
    if model.identity.name == MINIATURE:
        console.note(
            "Note: the built-in miniature is a toy that knows the drawings of the sample data alone. For photographs and other texts "
            f"train on a real model: -m {REAL_MODEL}."
        )


def describe_adapter(name: str) -> dict[str, dict[str, Any]]:
    """What an adapter is, in groups of names and values; loads no model.

    Args:
        name: a folder, or `owner/name` on the hub.

    Raises:
        AdapterError: if there is no adapter, or it cannot be read.
    """
    folder = (
        Path(name)
        if os.path.isdir(name)
        else snapshot(name, patterns=[WEIGHTS_FILE, CONFIG_FILE, EARLIER_CONFIG_FILE], repo_type="model", error=AdapterError)
    )
    if FineTunedModel.is_in(folder):
        record = FineTuneRecord.read(folder)
        return {"fine-tuned model": {"method": record.method}, "base model": dict(record.base_model), "training": dict(record.training)}
    adapter = Adapter.load(folder)
    latents = {"num_latents": adapter.queries.num_latents, "dim": adapter.queries.dim, **adapter.queries.config}
    return {"latent queries": latents, "base model": dict(adapter.base_model), "training": dict(adapter.training)}


def open_base_and_encoder(
    config: ModelConfig, preprocessing: PreprocessingConfig | None = None
) -> tuple[FrozenModel, LatentEncoder | FineTunedModel | None]:
    """The base model as it is, and what was learned on it, if an adapter is named; for latent queries over the very same object.

    Raises:
        ConfigError, AdapterError, ModelError: see `open_encoder`.
    """
    if not is_adapter(config.model):
        return open_model(config, preprocessing), None
    loading = loading_of_adapter(config, preprocessing)
    if not FineTunedModel.is_in(Path(config.model)):
        encoder = LatentEncoder.from_pretrained(config.model, **loading)
        return encoder.model, encoder
    before = load_learned_on(FineTuneRecord.read(Path(config.model)).base_model, loading)
    return before, load_encoder(config.model, before)


def loading_of_adapter(config: ModelConfig, preprocessing: PreprocessingConfig | None = None) -> dict[str, Any]:
    """How the base model of an adapter is loaded.

    Args:
        config: which adapter, and how its base model is loaded.
        preprocessing: what is asked for, to be refused where it is not the default.

    Returns:
        Arguments of `load_model`.

    Raises:
        ConfigError: if other preprocessing than the adapter's is asked for, or remote code for a model that only the adapter names.
    """
    asked = [each.name for each in fields(PreprocessingConfig) if preprocessing and getattr(preprocessing, each.name) != each.default]
    if asked:
        raise ConfigError(f"The adapter {config.model} brings its own preprocessing: leave out {', '.join(asked)}.")
    if config.trust_remote_code and config.base_model is None:
        raise ConfigError(
            f"trust_remote_code holds for a model that you name, and {config.model} is an adapter: name its base model with --base-model."
        )
    return _loading(config) | ({} if config.base_model is None else {"name": config.base_model})


def _loading(config: ModelConfig) -> dict[str, Any]:
    """What `load_model` is told apart from the name and the preprocessing."""
    names = ("revision", "device", "attn_implementation", "device_map", "quantization")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    dtype = {} if config.dtype == "auto" else {"dtype": config.dtype}
    return given | dtype | {"trust_remote_code": config.trust_remote_code}


def _preprocessing(config: PreprocessingConfig | None) -> Preprocessing:
    config = config or PreprocessingConfig()
    return Preprocessing(config.preprocessing, config.max_pixels, config.max_length, config.instruction)
