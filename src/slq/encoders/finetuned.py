"""A model whose own weights are trained, by LoRA or in full: what latent queries are compared with.

Saved as a folder:
    finetuned.json    method, identity of the base model, how it was trained (format 1 called it `tuned.json`, which is still read)
    lora/             the low-rank matrices, as PEFT saves them
    model/            or the whole model with its processor, as transformers saves them

Shapes: B batch, D hidden size.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from slq.adapters.files import load_learned_on, model_named_from, training_in_this_format
from slq.encoders.base import run_in_mini_batches
from slq.encoders.baselines import LastTokenEncoder
from slq.errors import AdapterError, MissingExtraError, ModelError, shorten
from slq.io.files import load_json, located, write_folder, write_json
from slq.models import FrozenModel, PreparedBatch, check_identity
from slq.models.batching import max_tokens_that_fit
from slq.models.loading import LOADING
from slq.types import Item

FINETUNED_FILE = "finetuned.json"
EARLIER_FILE = "tuned.json"
FOLDERS = {"lora": "lora", "full": "model"}
FORMAT_VERSION = 2


@dataclass(frozen=True)
class FineTuneRecord:
    """What stands beside the weights of a fine-tuned model.

    Attributes:
        method: `lora` or `full`.
        base_model: what `ModelIdentity.to_dict` gave of the base model.
        training: how it was trained: the options of the run, and its provenance.
    """

    method: str
    base_model: Mapping[str, Any]
    training: Mapping[str, Any]

    @staticmethod
    def file_in(folder: Path) -> Path | None:
        """The record's file in a folder, under its name or its earlier one; None where there is none.

        Args:
            folder: where it is looked for.
        """
        return next((folder / name for name in (FINETUNED_FILE, EARLIER_FILE) if os.path.isfile(folder / name)), None)

    @classmethod
    def read(cls, folder: Path) -> FineTuneRecord:
        """Read the record of a folder.

        Args:
            folder: of the fine-tuned model.

        Raises:
            AdapterError: if there is none, it is corrupt, or of another format.
        """
        file = cls.file_in(folder)
        if file is None:
            raise AdapterError(f"{folder} is not a fine-tuned model: it has no {FINETUNED_FILE}.")
        try:
            told = load_json(file)
            if not isinstance(told, dict):
                raise ValueError(f"{file.name} holds no JSON object")
            wanted = FORMAT_VERSION if file.name == FINETUNED_FILE else 1
            if (version := told["format_version"]) != wanted:
                raise AdapterError(f"{file} has format {version}; this version of slq reads formats 1 and {FORMAT_VERSION}.")
            base_model = told["base_model" if version > 1 else "backbone"]
            training = training_in_this_format(told["training"])
            FOLDERS[told["method"]], base_model["name"], base_model["revision"], base_model["preprocessing"]["name"]
            for name, kind in {"lora_rank": int, "lora_alpha": int, "train_vision_encoder": bool}.items():
                if not isinstance(training[name], kind) or (kind is int and not 1 <= training[name] < 2**16):
                    raise ValueError(f"{name} is {shorten(repr(training[name]), 60)}")
            return cls(told["method"], {**base_model, "name": located(base_model["name"], folder)}, training)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise AdapterError(
                f"The fine-tuned model in {shorten(folder)} is corrupt ({shorten(error)}): save or train it again."
            ) from error

    def write(self, folder: Path) -> None:
        """Write the record into a folder.

        Args:
            folder: an existing one.
        """
        told = {"method": self.method, "base_model": model_named_from(self.base_model, folder), "training": dict(self.training)}
        write_json(folder / FINETUNED_FILE, {"format_version": FORMAT_VERSION, **told})


class FineTunedModel(LastTokenEncoder):
    """A copy of a model with trainable weights in its decoder, read at the last token; the model it is made from stays as it is.

    The vision encoder stays frozen, as the parameter counts of the paper imply, unless it is asked for.

    Args:
        model: the base model.
        method: `lora`: low-rank matrices beside every linear layer of the decoder, while the copy shares all other weights; or `full`:
            every weight of the decoder, in float32, under autocast where the model is in half precision.
        rank: of LoRA's matrices.
        alpha: LoRA's scale times its rank.
        mini_batch_tokens: see `LatentEncoder`.
        train_vision_encoder: whether `full` trains the vision encoder too.

    Raises:
        MissingExtraError: where PEFT is missing.
        ModelError: for weights that cannot be trained.
    """

    def __init__(
        self,
        model: FrozenModel,
        method: str,
        rank: int = 8,
        alpha: int = 16,
        mini_batch_tokens: int | None = None,
        train_vision_encoder: bool = False,
    ):
        if getattr(model.model, "is_quantized", False) and method == "full":
            raise ModelError("Quantized weights cannot be trained: load the model without --quantization, or use --method lora.")
        self.method = self.kind = method
        self.scale = alpha / rank if method == "lora" else 1.0
        self.computed_in = model.model.dtype
        self.origin, self.learned_on = model, model.identity.to_dict()
        super().__init__(_low_rank(model, rank, alpha) if method == "lora" else _trainable(model, train_vision_encoder))
        self.mini_batch_tokens = mini_batch_tokens or max_tokens_that_fit(model, prefix_caching=False)
        self.training: dict[str, Any] = {}

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The weights that are learned."""
        return [parameter for parameter in self.model.model.parameters() if parameter.requires_grad]

    def states(self, items: Sequence[Item]) -> Tensor:
        """Final states of each item's last token (B, 1, D), with gradient to the trainable weights.

        Args:
            items: texts, images and both may stand in one batch.
        """
        return run_in_mini_batches(self.states_of, self, items, self.mini_batch_tokens)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of each item's last token (B, 1, D), with gradient to the trainable weights; see `Encoder.states_of`."""
        halved = self.method == "full" and self.computed_in != torch.float32
        with torch.autocast(self.model.device.type, self.computed_in, enabled=halved):
            return self.model.last_token(prepared)[:, None]

    @property
    def fingerprint(self) -> str:
        """Hash of the method, the base model, and every trained weight."""
        digest = hashlib.sha256(json.dumps([self.method, self.scale, self.origin.content], sort_keys=True).encode())
        for name, parameter in self.model.model.named_parameters():
            if parameter.requires_grad:
                digest.update(name.encode())
                digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def interpolate(self, alpha: float) -> None:
        """Move the weights between the base model's (alpha 0) and what was learned (alpha 1).

        Args:
            alpha: from 0 to 1.

        Source: Wortsman et al. 2022 (WiSE-FT).
        """
        start = dict(self.origin.model.named_parameters())
        for name, parameter in self.model.model.named_parameters():
            if parameter.requires_grad and self.method == "full":
                parameter.lerp_(start[name].to(parameter), 1 - alpha)
            elif parameter.requires_grad and "lora_B" in name:  # the other factor may stay: what is added is their product
                parameter.mul_(alpha)

    def merged(self) -> FrozenModel:
        """The fine-tuned weights as an ordinary model: for `lora` with its matrices multiplied into a copy of the model."""
        model = copy.deepcopy(self.model.model)
        for name, layer in [(name, module) for name, module in model.named_modules() if hasattr(module, "get_base_layer")]:
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        return self.model.with_model(model.requires_grad_(False), f"{self.model.identity.name}, merged")

    def save(self, folder: Path) -> None:
        """Write what was learned into an existing folder.

        Args:
            folder: an existing one.

        Raises:
            AdapterError: if a weight is not finite.
            OutputError: if it cannot be written.
        """
        if not all(bool(weights.isfinite().all()) for weights in self.trainable):
            raise AdapterError("This fine-tuned model holds weights that are not finite, and is not saved: train it again.")

        def write(place: Path) -> None:
            self.model.model.save_pretrained(place)  # with LoRA, transformers writes its matrices alone
            if self.method == "full":
                self.model.processor.save_pretrained(place)

        write_folder(folder / FOLDERS[self.method], write)
        FineTuneRecord(self.method, self.learned_on, self.training).write(folder)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder holds a fine-tuned model.

        Args:
            folder: which may not be there.
        """
        return FineTuneRecord.file_in(folder) is not None

    @classmethod
    def from_pretrained(cls, path: Path, model: FrozenModel | None = None, **loading: Any) -> FineTunedModel:
        """What `save` wrote, over its base model.

        Args:
            path: the folder.
            model: see `LatentEncoder.from_pretrained`.
            **loading: see `LatentEncoder.from_pretrained`.

        Raises:
            AdapterError: if the folder is corrupt, or holds something else.
            FingerprintMismatchError: if the base model is not the one it was learned on.
        """
        told = FineTuneRecord.read(path)
        if model is None:
            model = load_learned_on(told.base_model, loading)
        check_identity(told.base_model, model.identity)
        rank, alpha = told.training["lora_rank"], told.training["lora_alpha"]
        tuned = cls(model, told.method, rank, alpha, train_vision_encoder=told.training["train_vision_encoder"])
        tuned.training = dict(told.training)
        try:
            _load_weights(tuned.model.model, told.method, path / FOLDERS[told.method])
        except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
            reason = shorten(str(error).split("\n")[0], 200)
            raise AdapterError(f"The fine-tuned model in {shorten(path)} is corrupt ({reason}): save or train it again.") from error
        if not all(bool(weights.isfinite().all()) for weights in tuned.trainable):
            raise AdapterError(f"The fine-tuned model in {shorten(path)} holds weights that are not finite: train it again.")
        return tuned


def _low_rank(model: FrozenModel, rank: int, alpha: int) -> FrozenModel:
    """A copy that shares all weights but has low-rank matrices, in float32, beside every linear layer of its decoder."""
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise MissingExtraError('LoRA needs PEFT: pip install "slq[lora]".') from error
    shared = {id(tensor): tensor for tensor in (*model.model.parameters(), *model.model.buffers())}  # copy's own record of what it knows
    network = copy.deepcopy(model.model, shared)
    of_decoder = set(network.get_decoder().modules())
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear) and module in of_decoder]
    network.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear))
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.with_model(network, f"{model.identity.name}, lora")


def _trainable(model: FrozenModel, train_vision_encoder: bool) -> FrozenModel:
    """A copy in float32 whose decoder has gradients, or all that leads to its last layer."""
    network = copy.deepcopy(model.model).float()
    (network.base_model if train_vision_encoder else network.get_decoder()).requires_grad_(True)
    return model.with_model(network, f"{model.identity.name}, full")


def _load_weights(model: Any, method: str, folder: Path) -> None:
    if method == "lora":
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        return
    if (folder / "adapter_config.json").exists():  # in whose place transformers would load the model that it names
        raise ValueError("adapter_config.json stands beside its weights")
    with LOADING:
        saved = type(model).from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    model.load_state_dict(saved.state_dict())
