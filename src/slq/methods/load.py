"""Anything that `slq train` has saved, loaded by what its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slq.backbone import FrozenBackbone
from slq.methods.tuned import TUNED_FILE, TunedBackbone
from slq.retriever import Retriever


def load_embedder(path: str | Path, backbone: FrozenBackbone | None = None, **loading: Any) -> Retriever | TunedBackbone:
    """The adapter of latent queries, or the tuned backbone, in a folder (or hub repository); see `Retriever.from_pretrained`."""
    if (Path(path) / TUNED_FILE).is_file():
        return TunedBackbone.from_pretrained(Path(path), backbone, **loading)
    return Retriever.from_pretrained(path, backbone, **loading)
