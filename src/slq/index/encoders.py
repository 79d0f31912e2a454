"""The model of a collection: as it is named in collection.json, and loaded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.config import ModelConfig
from slq.errors import ConfigError, FingerprintMismatchError, InputError, ModelError, shorten
from slq.index.head import Head
from slq.io.files import located, named_from

if TYPE_CHECKING:
    from slq.encoders.base import Encoder

# What decides an embedding beside the model's name; the device does not, and trust is never remembered.
REMEMBERED = ("base_model", "revision", "dtype", "attn_implementation", "quantization")


@dataclass(frozen=True)
class NamedEncoder:
    """A model that is loaded when it is needed.

    Attributes:
        load: loads it.
        name: as the collection is to call it; None for an object in Python.
        options: how it is loaded, beside its name.
        is_asked_for: whether somebody named it, and not the collection.
    """

    load: Callable[[], Encoder]
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_asked_for: bool = True

    def head(self, encoder: Encoder, store: str, generation: int) -> Head:
        """What collection.json says of rows by this model.

        Args:
            encoder: the model.
            store: kind of the store.
            generation: number of the rows' files.

        Raises:
            ModelError: if it gives several vectors an item.
        """
        if len(encoder.vector_shape) != 1:
            raise ModelError("A collection has one vector an item, and this model gives several: leave out late interaction.")
        return Head(store, self.name, encoder.fingerprint, encoder.vector_shape[0], dict(self.options), generation)


class CheckedEncoder:
    """A model that must have encoded the rows that are there.

    Args:
        model: not loaded yet.
        head: what the rows are.
        folder: of the collection, for the message.
    """

    def __init__(self, model: NamedEncoder, head: Head, folder: Path):
        self._model, self._head, self._folder = model, head, folder
        self._encoder: Encoder | None = None

    def __call__(self) -> Encoder:
        """The model, loaded once.

        Raises:
            FingerprintMismatchError: if it has not.
        """
        if self._encoder is None:
            encoder, head = self._model.load(), self._head
            found = self._model.head(encoder, head.store, head.generation)
            if (found.fingerprint, found.dim) != (head.fingerprint, head.dim):
                raise FingerprintMismatchError(
                    f"{shorten(self._folder)} was encoded by {shorten(head.metadata.model)} ({head.fingerprint}), not by "
                    f"{shorten(found.metadata.model)} ({found.fingerprint}): name that model, or encode everything again with --rebuild."
                )
            self._encoder = encoder
        return self._encoder


def named_encoder(model: Any, folder: Path, head: Head | None) -> NamedEncoder:
    """The model that encodes, or looks for, a collection's rows.

    Args:
        model: a name, its options, an encoder, or what `slq.load` gives; None, or options without a name, for the collection's own.
        folder: of the collection.
        head: what collection.json says, if it is there.

    Returns:
        The model, not loaded yet.

    Raises:
        ConfigError: if there is no model to be named.
        InputError: for anything else.
    """
    if model is None or isinstance(model, (str, Path)):
        model = _options(None if model is None else str(model))
    if isinstance(model, ModelConfig):
        return _of_options(model, folder, head)
    inner = model if hasattr(model, "fingerprint") else getattr(_first(model), "encoder", None)
    if inner is None:
        raise InputError(f"{type(model).__name__} does not encode: give the name of a model, an encoder, or what slq.load gives.")
    return NamedEncoder(lambda: inner)


def named_by_folder(config: ModelConfig, folder: Path, name: str | None, options: dict[str, Any]) -> ModelConfig:
    """The options of a model that a folder of vectors names.

    Args:
        config: what a user gave, without a name.
        folder: with the vectors.
        name: of the model, as the folder has it.
        options: how it is loaded, as the folder has it; what the user gave comes first.

    Raises:
        ConfigError: if the folder names none, or remote code is trusted for what only the folder names.
    """
    if name is None:
        raise ConfigError(f"{folder} does not say which model encoded it: name it with --model.")
    if config.trust_remote_code:
        raise ConfigError(f"trust_remote_code holds for a model that you name, and {folder} names this one: use --model.")
    known = {key: located(value, folder) if key == "base_model" else value for key, value in options.items() if key in REMEMBERED}
    unsaid: dict[str, Any] = {key: value for key, value in known.items() if getattr(config, key) == _default(key)}
    return replace(config, model=located(name, folder), **unsaid)


def load(config: ModelConfig) -> Encoder:
    """Load a model, and say so if it is the one that is made to try things on.

    Args:
        config: its name and options.
    """
    from slq.encoders.opening import open_encoder, tell_of_miniature

    with console.waiting("loading the model"):
        encoder = open_encoder(config)
    tell_of_miniature(encoder.model)
    return encoder


def _of_options(config: ModelConfig, folder: Path, head: Head | None) -> NamedEncoder:
    if config.model is None:
        if head is None:
            raise ConfigError("A new collection needs a model, and holds to it: name an adapter or a base model with --model.")
        own = named_by_folder(config, folder, head.model, dict(head.options))
        return NamedEncoder(lambda: load(own), head.model, head.options, is_asked_for=False)
    given = {name: getattr(config, name) for name in REMEMBERED if getattr(config, name) != _default(name)}
    if "base_model" in given:
        given["base_model"] = _named(given["base_model"], folder)
    return NamedEncoder(lambda: load(config), _named(config.model, folder), given)


def _named(name: str, folder: Path) -> str:
    """How a collection calls a model."""
    return named_from(Path(name), folder) if Path(name).is_dir() else name


def _default(name: str) -> Any:
    return next(each.default for each in fields(ModelConfig) if each.name == name)


def _options(name: str | None) -> ModelConfig:
    from slq.config import SearchModelConfig

    return SearchModelConfig(model=name)


def _first(model: Any) -> Any:
    """The first module of a Sentence Transformers model."""
    try:
        return model[0]
    except (TypeError, LookupError):
        return None
