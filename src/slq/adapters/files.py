"""The adapter: latent queries and what they are bound to, as two small files.

adapter.safetensors    latents (N, D), log_temperature
adapter_config.json    format version, model identity, how the latents stand and are read, where and how they were trained
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slq.adapters.latents import LatentQueries
from slq.errors import AdapterError, FingerprintMismatchError
from slq.io.files import write_atomic, write_json
from slq.models import FrozenModel, ModelIdentity, Preprocessing, check_identity, load_model

WEIGHTS_FILE = "adapter.safetensors"
CONFIG_FILE = "adapter_config.json"
FORMAT_VERSION = 3
READABLE = (2, 3)  # format 2 knows no readout, no latents per modality and no groups: all as in the paper


@dataclass(frozen=True)
class Adapter:
    """Latent queries with the identity of the model they were learned on and the story of their training."""

    queries: LatentQueries
    model: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write both files into an existing folder, each whole or not at all."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.queries.state_dict().items()}
        config = {
            "format_version": FORMAT_VERSION,
            "num_latents": self.queries.num_latents,
            "dim": self.queries.dim,
            **self.queries.form,
            "backbone": dict(self.model),
            "training": dict(self.training),
        }
        write_atomic(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path))
        write_json(folder / CONFIG_FILE, config)

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read an adapter.

        Raises AdapterError if a file is missing or broken, FingerprintMismatchError if the two files do not belong together.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS_FILE)
            if (version := config["format_version"]) not in READABLE:
                raise AdapterError(f"The adapter in {folder} has format {version}; this version of slq reads format {FORMAT_VERSION}.")
            queries = LatentQueries(config["num_latents"], config["dim"], **_form(config))
            model, training = config["backbone"], config["training"]
            Preprocessing.from_dict(model["preprocessing"])
        except FileNotFoundError as error:
            raise AdapterError(f"{folder} is not an adapter: it has no {Path(error.filename).name}.") from error
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise AdapterError(f"The adapter in {folder} is damaged ({error}): save or train it again.") from error
        if {name: value.shape for name, value in tensors.items()} != {name: value.shape for name, value in queries.state_dict().items()}:
            raise FingerprintMismatchError(f"{folder}: {WEIGHTS_FILE} and {CONFIG_FILE} do not belong together.")
        queries.load_state_dict(tensors)
        return cls(queries, model, training)

    def check(self, identity: ModelIdentity) -> None:
        """Refuse a model that is not the one the adapter was learned on; see `models.check_identity`."""
        check_identity(self.model, identity)


def load_learned_on(learned_on: Mapping[str, Any], loading: Mapping[str, Any]) -> FrozenModel:
    """The model that something was learned on, with its revision and preprocessing; `loading` goes to `load_model`, and may name
    another.

    Raises what `load_model` raises.
    """
    options = dict(loading)
    name = options.pop("name", None)
    # A folder's revision is a hash that is checked later; only a hub commit can be asked for.
    if name is None and "/" in learned_on["name"] and not Path(learned_on["name"]).is_dir() and learned_on["revision"] != "unknown":
        options.setdefault("revision", learned_on["revision"])
    return load_model(name or learned_on["name"], preprocessing=Preprocessing.from_dict(learned_on["preprocessing"]), **options)


def _form(config: Mapping[str, Any]) -> dict[str, Any]:
    """How the latents stand and are read; raises KeyError where the file does not say."""
    form = {name: config[name] for name in ("generation_prompt", "pooling")}
    if config["format_version"] > 2:
        form |= {name: config[name] for name in ("readout", "modality_specific")} | {"groups": tuple(config["groups"])}
    return form
