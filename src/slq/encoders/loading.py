"""Anything that `slq train` has saved, loaded by what its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slq.encoders.finetuned import TUNED_FILE, FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel


def load_encoder(path: str | Path, model: FrozenModel | None = None, **loading: Any) -> LatentEncoder | FineTunedModel:
    """The adapter of latent queries, or the tuned model, in a folder (or hub repository); see `LatentEncoder.from_pretrained`."""
    if (Path(path) / TUNED_FILE).is_file():
        return FineTunedModel.from_pretrained(Path(path), model, **loading)
    return LatentEncoder.from_pretrained(path, model, **loading)
