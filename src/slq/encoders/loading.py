"""Anything that `slq train` has saved, loaded by what its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slq.encoders.finetuned import FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel


def load_encoder(path: str | Path, model: FrozenModel | None = None, **loading: Any) -> LatentEncoder | FineTunedModel:
    """The adapter of latent queries, or the fine-tuned model, in a folder; or the adapter in a hub repository.

    Args:
        path: a folder, or `owner/name` on the hub.
        model: see `LatentEncoder.from_pretrained`.
        **loading: see `LatentEncoder.from_pretrained`.

    Raises:
        AdapterError: see `LatentEncoder.from_pretrained`, like the other errors.
    """
    if FineTunedModel.is_in(Path(path)):
        return FineTunedModel.from_pretrained(Path(path), model, **loading)
    return LatentEncoder.from_pretrained(path, model, **loading)
