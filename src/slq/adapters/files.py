"""The adapter: latent queries and what they are bound to, as two small files.

    adapter.safetensors    latents (N, D), log_temperature; with latent LoRA also lora.<layer>.lora_A (rank, in) and lora_B (out, rank)
    slq_adapter.json       format version, hash of the other file's values, how the latents are placed and read, identity of the base
                           model, how they were trained

Formats 2 and 3 called the second file `adapter_config.json`, which is PEFT's name; they are still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slq.adapters.latents import LatentQueries
from slq.errors import AdapterError, FingerprintMismatchError, InputError, ModelError, shorten
from slq.io.files import load_json, located, named_from, write_atomic, write_json
from slq.io.provenance import tensors_hash
from slq.models import FrozenModel, LatentLora, ModelIdentity, Preprocessing, check_identity, load_model

WEIGHTS_FILE = "adapter.safetensors"
CONFIG_FILE = "slq_adapter.json"
EARLIER_CONFIG_FILE = "adapter_config.json"
FORMAT_VERSION = 4
MAX_CONFIG_BYTES = 2**24  # thousands of times what it takes
_KINDS = {int: "a whole number from 1", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
PLUGINS = "plugins"  # under which `training` lists what other distributions added
# What formats 2 and 3 called what is called otherwise now; format 2 knows none of the last three.
_EARLIER_NAMES = {"backbone": "base_model", "readout": "hidden_state", "per_modality": "modality_specific", "groups": "multi_vector_sizes"}
_EARLIER_HIDDEN_STATES = {"before_mlp": "pre_mlp"}


@dataclass(frozen=True)
class Adapter:
    """Latent queries with the identity of the base model they were learned on.

    Attributes:
        queries: the latent queries.
        base_model: what `ModelIdentity.to_dict` gave of their base model.
        training: how they were learned: the options of the run, and its provenance.
    """

    queries: LatentQueries
    base_model: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, stays: bool = True) -> None:
        """Write both files into an existing folder, each whole or not at all.

        Args:
            folder: where to; files of these names are replaced.
            stays: whether the adapter is used on this machine: a base model that is a folder is then named so that both may be moved.

        Raises:
            AdapterError: if a value is not finite.
            OutputError: if they cannot be written.
        """
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.queries.state_dict().items()}
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise AdapterError("These latent queries hold values that are not finite, and are not saved: train them again.")
        write_atomic(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path))
        base_model = model_named_from(self.base_model, folder) if stays else self.base_model
        write_json(folder / CONFIG_FILE, {**self.to_dict(), "base_model": dict(base_model), "weights_sha256": tensors_hash(tensors)})

    def to_dict(self) -> dict[str, Any]:
        """All but the tensors, as `slq_adapter.json` holds it."""
        return {
            "format_version": FORMAT_VERSION,
            "num_latents": self.queries.num_latents,
            "dim": self.queries.dim,
            **self.queries.config,
            **({} if self.queries.lora is None else {"latent_lora": self.queries.lora.config}),
            "base_model": dict(self.base_model),
            "training": dict(self.training),
        }

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read an adapter of format 2, 3 or 4.

        Args:
            folder: a folder that holds both files.

        Raises:
            AdapterError: if a file is missing or corrupt, or of another format.
            FingerprintMismatchError: if the two files do not belong together.
        """
        file = next((file for name in (CONFIG_FILE, EARLIER_CONFIG_FILE) if (file := folder / name).is_file()), folder / CONFIG_FILE)
        try:
            config = _in_this_format(load_json(file, MAX_CONFIG_BYTES), file)
            _check_types(config)
            tensors = load_file(folder / WEIGHTS_FILE)
            if config["num_latents"] * config["dim"] > sum(value.numel() for value in tensors.values()):
                raise FingerprintMismatchError(f"{folder}: {WEIGHTS_FILE} and {file.name} do not belong together.")
            names = ("generation_prompt", "pooling", "hidden_state", "modality_specific", "multi_vector_sizes")
            lora = _lora(tensors, config.get("latent_lora"))
            queries = LatentQueries(config["num_latents"], config["dim"], **{name: config[name] for name in names}, lora=lora)
            base_model, training = {**config["base_model"], "name": located(config["base_model"]["name"], folder)}, config["training"]
            Preprocessing.from_dict(base_model["preprocessing"])
        except FileNotFoundError as error:
            missing = WEIGHTS_FILE if file.is_file() else file.name  # safetensors does not say which file it missed
            raise AdapterError(f"{shorten(folder)} is not an adapter: it has no {missing}.") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError, ModelError) as error:
            raise AdapterError(f"The adapter in {shorten(folder)} is corrupt ({shorten(error)}): save or train it again.") from error
        if {name: value.shape for name, value in tensors.items()} != {name: value.shape for name, value in queries.state_dict().items()}:
            raise FingerprintMismatchError(f"{folder}: {WEIGHTS_FILE} and {file.name} do not belong together.")
        if not all(value.is_floating_point() and bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise AdapterError(
                f"The adapter in {shorten(folder)} is corrupt ({WEIGHTS_FILE} holds values that are not finite): train it again."
            )
        if config.get("weights_sha256") not in (None, tensors_hash(tensors)):  # a crash came between the two, or somebody changed one
            raise FingerprintMismatchError(f"{folder}: {WEIGHTS_FILE} and {file.name} do not belong together.")
        queries.load_state_dict(tensors)
        return cls(queries, base_model, training)

    def added_by(self, group: str, name: str) -> str:
        """Name and version of the distribution that added a name to a registry when this was learned; empty where that is not recorded.

        Args:
            group: of the registry, such as `slq.poolings`.
            name: such as that of the pooling.
        """
        told = self.training.get(PLUGINS)
        for each in told if isinstance(told, list) else []:
            if isinstance(each, dict) and (each.get("group"), each.get("name")) == (group, name):
                return f"{each.get('distribution')} {each.get('version')}"[:100]
        return ""

    def check(self, identity: ModelIdentity) -> None:
        """Refuse a model that is not the one the adapter was learned on; see `models.check_identity`."""
        check_identity(self.base_model, identity)


def _lora(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> LatentLora | None:
    """The matrices among an adapter's tensors; None for one without."""
    if config is None:
        return None
    own = {name.removeprefix("lora."): value for name, value in tensors.items() if name.startswith("lora.")}
    if not isinstance(alpha := config["alpha"], int | float) or not 0 < alpha < float("inf"):
        raise ValueError("the scale of its latent LoRA is no number above 0")
    return LatentLora.from_tensors(own, alpha)


def model_named_from(base_model: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """An identity whose name, where it is that of a folder, is written so that a file in another folder can hold it.

    Args:
        base_model: what `ModelIdentity.to_dict` gave.
        folder: of the file.
    """
    name = base_model["name"]
    return {**base_model, "name": named_from(Path(name), folder) if "/" in name and Path(name).is_dir() else name}


def load_learned_on(learned_on: Mapping[str, Any], loading: Mapping[str, Any]) -> FrozenModel:
    """Load the model that something was learned on, with its revision and preprocessing.

    Args:
        learned_on: what `ModelIdentity.to_dict` gave of it.
        loading: further arguments of `load_model`; a `name` among them stands for another copy of the model.

    Raises:
        InputError: for `trust_remote_code` without a `name`: what an adapter names may run no code of its own.
        ModelError: if the model cannot be loaded.
    """
    options = dict(loading)
    name = options.pop("name", None)
    if name is None and options.pop("trust_remote_code", False):
        raise InputError(
            f"trust_remote_code holds for a model that you name, and {learned_on['name']!r} is named by what was learned on it: "
            "give the base model by name too."
        )
    # A folder's weights are hashed and compared later; only a hub commit can be asked for.
    if name is None and "/" in learned_on["name"] and not Path(learned_on["name"]).is_dir() and learned_on["revision"] != "unknown":
        options.setdefault("revision", learned_on["revision"])
    return load_model(name or learned_on["name"], preprocessing=Preprocessing.from_dict(learned_on["preprocessing"]), **options)


def training_in_this_format(training: Mapping[str, Any]) -> dict[str, Any]:
    """How something was learned, with the names that earlier formats gave to options replaced.

    Args:
        training: what the file holds.
    """
    told = dict(training)
    if "start_share" in told:
        told["wise_ft_alpha"] = 1 - told.pop("start_share")
    if "tune_vision" in told:
        told["train_vision_encoder"] = told.pop("tune_vision")
    return told


def _check_types(config: dict[str, Any]) -> None:
    """Raises ValueError for a value of another type than its own, which anybody may have written."""
    wanted = {"num_latents": int, "dim": int, "generation_prompt": bool, "pooling": str, "hidden_state": str, "modality_specific": bool}
    wanted |= {"multi_vector_sizes": list, "base_model": dict, "training": dict}
    for name, kind in wanted.items():
        _check_type(name, config[name], kind)
    for size in config["multi_vector_sizes"]:
        _check_type("multi_vector_sizes", size, int)
    for name, kind in {"name": str, "revision": str, "preprocessing": dict}.items():
        _check_type(f"base_model.{name}", config["base_model"][name], kind)


def _check_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or not 1 <= value < 2**31)):  # type: ignore[operator]
        raise ValueError(f"{name} must be {_KINDS[kind]}, not {shorten(repr(value), 60)}")


def _in_this_format(config: Any, file: Path) -> dict[str, Any]:
    """What a file of any readable format says, as format 4 says it."""
    if not isinstance(config, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    if file.name == EARLIER_CONFIG_FILE and "peft_type" in config:
        raise AdapterError(f"{shorten(file.parent)} is an adapter of PEFT: merge it into its model, and give the folder of the result.")
    version = config["format_version"]
    if version not in ((FORMAT_VERSION,) if file.name == CONFIG_FILE else (2, 3)):
        raise AdapterError(
            f"{shorten(file)} has format {shorten(repr(version), 60)}; this version of slq reads formats 2 to {FORMAT_VERSION}."
        )
    if version == FORMAT_VERSION:
        return config
    plain = {"readout": "final", "per_modality": False, "groups": []}
    told = {_EARLIER_NAMES.get(name, name): value for name, value in {**plain, **config}.items()}
    told["hidden_state"] = _EARLIER_HIDDEN_STATES.get(told["hidden_state"], told["hidden_state"])
    return told | {"training": training_in_this_format(told["training"])}
