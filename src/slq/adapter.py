"""The adapter: latent queries and what they are bound to, as two small files.

adapter.safetensors    latents (N, D), log_temperature
adapter_config.json    format version, backbone identity, generation prompt, pooling, where and how it was trained
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slq.backbone import Preprocessing
from slq.errors import AdapterError, MismatchError
from slq.latents import LatentQueries
from slq.runtime import replace_file

WEIGHTS_FILE = "adapter.safetensors"
CONFIG_FILE = "adapter_config.json"
FORMAT_VERSION = 2
POOLING = "mean"


@dataclass(frozen=True)
class Adapter:
    """Latent queries with the identity of the backbone they were learned on and the story of their training."""

    queries: LatentQueries
    backbone: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write both files into an existing folder, each whole or not at all."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.queries.state_dict().items()}
        config = {
            "format_version": FORMAT_VERSION,
            "num_latents": self.queries.num_latents,
            "dim": self.queries.dim,
            "pooling": POOLING,
            "generation_prompt": self.queries.generation_prompt,
            "backbone": dict(self.backbone),
            "training": dict(self.training),
        }
        replace_file(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path))
        replace_file(folder / CONFIG_FILE, lambda path: path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8"))

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read an adapter.

        Raises AdapterError if a file is missing or broken, MismatchError if the two files do not belong together.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS_FILE)
            if (version := config["format_version"]) != FORMAT_VERSION:
                raise AdapterError(f"The adapter in {folder} has format {version}; this version of slq reads format {FORMAT_VERSION}.")
            shape, generation_prompt = (config["num_latents"], config["dim"]), config["generation_prompt"]
            backbone, training = config["backbone"], config["training"]
            Preprocessing.from_dict(backbone["preprocessing"])
        except FileNotFoundError as error:
            raise AdapterError(f"{folder} is not an adapter: it has no {Path(error.filename).name}.") from error
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise AdapterError(f"The adapter in {folder} is damaged ({error}): save or train it again.") from error
        if set(tensors) != {"latents", "log_temperature"} or tuple(tensors["latents"].shape) != shape:
            raise MismatchError(f"{folder}: {WEIGHTS_FILE} and {CONFIG_FILE} do not belong together.")
        queries = LatentQueries(*shape, generation_prompt=generation_prompt)
        queries.load_state_dict(tensors)
        return cls(queries, backbone, training)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuse a backbone that is not the one the adapter was learned on.

        Raises MismatchError naming what differs. The dtype may differ (it only changes rounding), and so may the name where the
        revision, a hash of the weights or a commit, is equal.
        """
        ignored = {"dtype"} if self.backbone["revision"] == "unknown" else {"dtype", "name"}
        at_hand = _flat(identity)
        for key, wanted in _flat(self.backbone).items():
            if key not in ignored and at_hand.get(key) != wanted:
                raise MismatchError(
                    f"This adapter was learned on the backbone {self.backbone['name']!r} with {key} {wanted!r}, but the backbone at hand "
                    f"is {identity['name']!r} with {key} {at_hand.get(key)!r}: load the one it was learned on, or train a new adapter."
                )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings inside settings as one level, `preprocessing max_pixels`, so that a difference can be named."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key} {inner}": each for inner, each in _flat(value).items()} if isinstance(value, Mapping) else {key: value}
    return flat
