"""A model whose own weights are trained, by LoRA or in full: what latent queries are compared with.

Saved as a folder:
    tuned.json     method, model identity, where and how it was trained
    lora/          the low-rank matrices, as PEFT saves them
    model/         or the whole model with its processor, as transformers saves them

Shapes: B batch, D hidden size.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from slq.adapters.files import load_learned_on
from slq.encoders.base import run_in_mini_batches
from slq.encoders.baselines import LastTokenReadout
from slq.errors import AdapterError, MissingExtraError, ModelError
from slq.io.files import map_os_errors, write_json
from slq.models import FrozenModel, PreparedBatch, check_identity
from slq.models.batching import max_tokens_that_fit
from slq.types import Item

TUNED_FILE = "tuned.json"
FOLDERS = {"lora": "lora", "full": "model"}
FORMAT_VERSION = 1


class FineTunedModel(LastTokenReadout):
    """A copy of a model with trainable weights in its decoder, read at the last token; the model it is made from stays as it is.

    method: `lora` (low-rank matrices beside every linear layer of the decoder; the copy shares all other weights) or `full` (every weight
    of the decoder, in float32; under autocast where the model is in half precision). The vision tower stays frozen in both, as the
    parameter counts of the paper imply; train_vision_encoder: in `full` it learns too. mini_batch_tokens: see `LatentEncoder`.
    Raises MissingExtraError where PEFT is missing, ModelError for weights that cannot be trained.
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
        self.method, self.kind = method, f"{method}, last token"
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
        """Final states of each item's last token (B, 1, D), with gradient to the trainable weights."""
        return run_in_mini_batches(self.states_of, self, items, self.mini_batch_tokens)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of each item's last token (B, 1, D), with gradient to the trainable weights."""
        halved = self.method == "full" and self.computed_in != torch.float32
        with torch.autocast(self.model.device.type, self.computed_in, enabled=halved):
            return self.model.last_token(prepared)[:, None]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{super().fingerprint} {self.method}".encode())
        for parameter in self.trainable:
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def interpolate_to_start(self, share: float) -> None:
        """Move the weights back by a share of their way from the model's: 0 leaves them, 1 is the model (WiSE-FT)."""
        start = dict(self.origin.model.named_parameters())
        for name, parameter in self.model.model.named_parameters():
            if parameter.requires_grad and self.method == "full":
                parameter.lerp_(start[name].to(parameter), share)
            elif parameter.requires_grad and "lora_B" in name:  # the other factor may stay: what is added is their product
                parameter.mul_(1 - share)

    def merged(self) -> FrozenModel:
        """The tuned weights as an ordinary model: for `lora` with its matrices multiplied into a copy of the model."""
        model = copy.deepcopy(self.model.model)
        for name, layer in [(name, module) for name, module in model.named_modules() if hasattr(module, "get_base_layer")]:
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        return self.model.with_model(model.requires_grad_(False), f"{self.model.identity.name}, merged")

    def save(self, folder: Path) -> None:
        """Write what was learned into an existing folder."""
        about = {"format_version": FORMAT_VERSION, "method": self.method, "backbone": self.learned_on, "training": self.training}
        with map_os_errors(folder):
            self.model.model.save_pretrained(folder / FOLDERS[self.method])  # with LoRA, transformers writes its matrices alone
            if self.method == "full":
                self.model.processor.save_pretrained(folder / FOLDERS[self.method])
        write_json(folder / TUNED_FILE, about)

    @classmethod
    def from_pretrained(cls, path: Path, model: FrozenModel | None = None, **loading: Any) -> FineTunedModel:
        """What `save` wrote, over its model; see `LatentEncoder.from_pretrained`. Raises AdapterError for a damaged folder."""
        try:
            about = json.loads((path / TUNED_FILE).read_text(encoding="utf-8"))
            if (version := about["format_version"]) != FORMAT_VERSION:
                raise AdapterError(f"{path} has format {version}; this version of slq reads format {FORMAT_VERSION}.")
            method, learned_on, training = about["method"], about["backbone"], about["training"]
            folder = path / FOLDERS[method]
        except (OSError, ValueError, KeyError) as error:
            raise AdapterError(f"The tuned model in {path} is damaged ({error}): save or train it again.") from error
        if model is None:
            model = load_learned_on(learned_on, loading)
        check_identity(learned_on, model.identity)
        tuned = cls(model, method, training["lora_rank"], training["lora_alpha"], train_vision_encoder=training["train_vision_encoder"])
        tuned.training = training
        try:
            _load_weights(tuned.model.model, method, folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise AdapterError(f"The tuned model in {path} is damaged ({error}): save or train it again.") from error
        return tuned


def _low_rank(model: FrozenModel, rank: int, alpha: int) -> FrozenModel:
    """A copy that shares all weights but has low-rank matrices, in float32, beside every linear layer of its decoder."""
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise MissingExtraError('LoRA needs PEFT: pip install "slq[lora]".') from error
    shared = {id(tensor): tensor for tensor in (*model.model.parameters(), *model.model.buffers())}
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
    saved = type(model).from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())
