"""slq: turn the multimodal LLM you already run into a retriever by learning a few shared latent queries; its weights stay as they are.

import slq
model = slq.load("my-adapter")
similarity = model.similarity(model.encode(["a red apple"]), model.encode([Path("apple.jpg")]))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slq.config import TrainConfig
    from slq.data import read_items, read_pairs
    from slq.encoders.latent import LatentEncoder
    from slq.errors import Failure
    from slq.evaluation.evaluate import evaluate
    from slq.index.collection import open_collection
    from slq.integrations.sentence_transformers import load
    from slq.models import load_model
    from slq.training.run import train
    from slq.types import Embeddings, Item, Pair

__version__ = "0.1.0"
__all__ = [
    "Embeddings",
    "Failure",
    "Item",
    "LatentEncoder",
    "Pair",
    "TrainConfig",
    "evaluate",
    "load",
    "load_model",
    "open_collection",
    "read_items",
    "read_pairs",
    "train",
]

# Where each public name lives. Looked up on first use, so that `import slq` and `slq --help` do not wait for torch.
_HOMES = {
    "Embeddings": "slq.types",
    "Item": "slq.types",
    "Pair": "slq.types",
    "LatentEncoder": "slq.encoders.latent",
    "Failure": "slq.errors",
    "TrainConfig": "slq.config",
    "evaluate": "slq.evaluation",
    "load": "slq.integrations.sentence_transformers",
    "load_model": "slq.models",
    "open_collection": "slq.index.collection",
    "read_items": "slq.data",
    "read_pairs": "slq.data",
    "train": "slq.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slq' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
