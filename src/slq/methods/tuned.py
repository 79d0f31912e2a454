"""A backbone whose own weights are trained, by LoRA or in full: what latent queries are compared with.

Saved as a folder:
    tuned.json     method, backbone identity, where and how it was trained
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

from slq.adapter import check_identity, load_learned_on
from slq.backbone import FrozenBackbone, Prepared
from slq.batching import tokens_that_fit
from slq.embedder import in_passes
from slq.errors import AdapterError, BackboneError, MissingExtraError
from slq.methods.zero_shot import LastTokenReadout
from slq.runtime import replace_file, writing
from slq.types import Item

TUNED_FILE = "tuned.json"
FOLDERS = {"lora": "lora", "full": "model"}
FORMAT_VERSION = 1


class TunedBackbone(LastTokenReadout):
    """A copy of a backbone with trainable weights in its decoder, read at the last token; the backbone it is made from stays as it is.

    method: `lora` (low-rank matrices beside every linear layer of the decoder; the copy shares all other weights) or `full` (every weight
    of the decoder, in float32; under autocast where the backbone is in half precision). The vision tower stays frozen in both, as the
    parameter counts of the paper imply; tune_vision: in `full` it learns too. tokens_per_pass: see `Retriever`.
    Raises MissingExtraError where PEFT is missing, BackboneError for weights that cannot be trained.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        method: str,
        rank: int = 8,
        alpha: int = 16,
        tokens_per_pass: int | None = None,
        tune_vision: bool = False,
    ):
        if getattr(backbone.model, "is_quantized", False) and method == "full":
            raise BackboneError("Quantized weights cannot be trained: load the backbone without --quantization, or use --method lora.")
        self.method, self.kind = method, f"{method}, last token"
        self.computed_in = backbone.model.dtype
        self.origin, self.learned_on = backbone, backbone.identity.to_dict()
        super().__init__(_low_rank(backbone, rank, alpha) if method == "lora" else _trainable(backbone, tune_vision))
        self.tokens_per_pass = tokens_per_pass or tokens_that_fit(backbone, prefix_split=False)
        self.training: dict[str, Any] = {}

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The weights that are learned."""
        return [parameter for parameter in self.backbone.model.parameters() if parameter.requires_grad]

    def states(self, items: Sequence[Item]) -> Tensor:
        """Final states of each item's last token (B, 1, D), with gradient to the trainable weights."""
        return in_passes(self._states_of, self, items, self.tokens_per_pass)

    def embed_prepared(self, prepared: Prepared) -> Tensor:
        """Embeddings of length 1 (B, D), float32."""
        return nn.functional.normalize(self._states_of(prepared)[:, 0].float(), dim=-1)

    def _states_of(self, prepared: Prepared) -> Tensor:
        halved = self.method == "full" and self.computed_in != torch.float32
        with torch.autocast(self.backbone.device.type, self.computed_in, enabled=halved):
            return self.backbone.last_token(prepared)[:, None]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{super().fingerprint} {self.method}".encode())
        for parameter in self.trainable:
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def toward_start(self, share: float) -> None:
        """Move the weights back by a share of their way from the backbone's: 0 leaves them, 1 is the backbone (WiSE-FT)."""
        start = dict(self.origin.model.named_parameters())
        for name, parameter in self.backbone.model.named_parameters():
            if parameter.requires_grad and self.method == "full":
                parameter.lerp_(start[name].to(parameter), share)
            elif parameter.requires_grad and "lora_B" in name:  # the other factor may stay: what is added is their product
                parameter.mul_(1 - share)

    def merged(self) -> FrozenBackbone:
        """The tuned weights as an ordinary backbone: for `lora` with its matrices multiplied into a copy of the model."""
        model = copy.deepcopy(self.backbone.model)
        for name, layer in [(name, module) for name, module in model.named_modules() if hasattr(module, "get_base_layer")]:
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        return self.backbone.with_model(model.requires_grad_(False), f"{self.backbone.identity.name}, merged")

    def save(self, folder: Path) -> None:
        """Write what was learned into an existing folder."""
        about = {"format_version": FORMAT_VERSION, "method": self.method, "backbone": self.learned_on, "training": self.training}
        with writing(folder):
            self.backbone.model.save_pretrained(folder / FOLDERS[self.method])  # with LoRA, transformers writes its matrices alone
            if self.method == "full":
                self.backbone.processor.save_pretrained(folder / FOLDERS[self.method])
        replace_file(folder / TUNED_FILE, lambda path: path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8"))

    @classmethod
    def from_pretrained(cls, path: Path, backbone: FrozenBackbone | None = None, **loading: Any) -> TunedBackbone:
        """What `save` wrote, over its backbone; see `Retriever.from_pretrained`. Raises AdapterError for a damaged folder."""
        try:
            about = json.loads((path / TUNED_FILE).read_text(encoding="utf-8"))
            if (version := about["format_version"]) != FORMAT_VERSION:
                raise AdapterError(f"{path} has format {version}; this version of slq reads format {FORMAT_VERSION}.")
            method, learned_on, training = about["method"], about["backbone"], about["training"]
            folder = path / FOLDERS[method]
        except (OSError, ValueError, KeyError) as error:
            raise AdapterError(f"The tuned backbone in {path} is damaged ({error}): save or train it again.") from error
        if backbone is None:
            backbone = load_learned_on(learned_on, loading)
        check_identity(learned_on, backbone.identity.to_dict())
        tuned = cls(backbone, method, training["lora_rank"], training["lora_alpha"], tune_vision=training["tune_vision"])
        tuned.training = training
        try:
            _load_weights(tuned.backbone.model, method, folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise AdapterError(f"The tuned backbone in {path} is damaged ({error}): save or train it again.") from error
        return tuned


def _low_rank(backbone: FrozenBackbone, rank: int, alpha: int) -> FrozenBackbone:
    """A copy that shares all weights but has low-rank matrices, in float32, beside every linear layer of its decoder."""
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise MissingExtraError('LoRA needs PEFT: pip install "slq[lora]".') from error
    shared = {id(tensor): tensor for tensor in (*backbone.model.parameters(), *backbone.model.buffers())}
    model = copy.deepcopy(backbone.model, shared)
    of_decoder = set(model.get_decoder().modules())
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module in of_decoder]
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return backbone.with_model(model, f"{backbone.identity.name}, lora")


def _trainable(backbone: FrozenBackbone, tune_vision: bool) -> FrozenBackbone:
    """A copy in float32 whose decoder has gradients, or all that leads to its last layer."""
    model = copy.deepcopy(backbone.model).float()
    (model.base_model if tune_vision else model.get_decoder()).requires_grad_(True)
    return backbone.with_model(model, f"{backbone.identity.name}, full")


def _load_weights(model: Any, method: str, folder: Path) -> None:
    if method == "lora":
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        return
    saved = type(model).from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())
