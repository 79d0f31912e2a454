"""How a backbone is loaded: the options of every command that names one, and what they make, written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slq.errors import InputError

if TYPE_CHECKING:
    from slq.backbone import FrozenBackbone
    from slq.methods import TunedBackbone
    from slq.retriever import Retriever

BACKBONE_HELP = "`miniature`, a folder, a hub id such as OpenGVLab/InternVL3-1B-hf, or `random:internvl3-1b` (true shape, random weights)."

REVISION = Annotated[str | None, typer.Option(help="Commit, tag or branch of a backbone on the hub.")]
DTYPE = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: float32 on the CPU, else bfloat16.")]
ATTN_IMPLEMENTATION = Annotated[
    str | None, typer.Option(help="eager, sdpa, flash_attention_2, ... Default: what transformers chooses, sdpa where the model has it.")
]
DEVICE_MAP = Annotated[
    str | None, typer.Option(help="`auto` spreads a model that is larger than one device over all there are; in place of --device.")
]
QUANTIZATION = Annotated[str | None, typer.Option(help="8bit or 4bit weights, with bitsandbytes: less memory, other numbers.")]
TRUST_REMOTE_CODE = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python files that come with the weights. Read them before you do.")
]
PREPROCESSING = Annotated[
    str | None,
    typer.Option(help="How pictures are prepared: paper (one view each, as in the SLQ paper) or native (the model's own). Default: paper."),
]
MAX_PIXELS = Annotated[
    int | None, typer.Option(help="Larger pictures are scaled down to this many pixels, where the model keeps a picture's shape (Qwen-VL).")
]
MAX_TEXT_TOKENS = Annotated[int | None, typer.Option(help="Texts are cut after this many tokens. Default: 128.")]
INSTRUCTION = Annotated[str | None, typer.Option(help="Words put behind every item. Default: none.")]


@dataclass(frozen=True)
class Loading:
    """What the options say about loading a backbone; None where nothing was said."""

    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    attn_implementation: str | None = None
    device_map: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False
    preprocessing: str | None = None
    max_pixels: int | None = None
    max_text_tokens: int | None = None
    instruction: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Loading:
        """Those of a command's options, by name, that are about loading."""
        return cls(**{field.name: options[field.name] for field in fields(cls) if field.name in options})

    def backbone(self, name: str) -> FrozenBackbone:
        """The backbone of this name, with the preprocessing that was asked for."""
        from slq.backbone import Preprocessing, load_backbone

        return load_backbone(name, preprocessing=Preprocessing(**self._asked_preprocessing()), **self._options())

    def retriever(self, adapter: str, name: str | None = None) -> Retriever:
        """The adapter over the backbone of this name (None: the one it was learned on), with the adapter's own preprocessing.

        Raises InputError where other preprocessing was asked for.
        """
        from slq.retriever import Retriever

        return Retriever.from_pretrained(adapter, name=name, **self.beside_its_own_preprocessing())

    def embedder(self, adapter: str, name: str | None = None) -> Retriever | TunedBackbone:
        """As `retriever`, for all that `slq train` can have learned: a backbone tuned by LoRA or in full too."""
        from slq.methods import load_embedder

        return load_embedder(adapter, name=name, **self.beside_its_own_preprocessing())

    def beside_its_own_preprocessing(self) -> dict[str, Any]:
        """What loading something learned is told; raises InputError where other preprocessing was asked for."""
        if asked := self._asked_preprocessing():
            flags = ", ".join("--preprocessing" if key == "name" else "--" + key.replace("_", "-") for key in asked)
            raise InputError(f"An adapter brings its own preprocessing along: leave out {flags}.")
        return self._options()

    def _asked_preprocessing(self) -> dict[str, Any]:
        asked = {
            "name": self.preprocessing,
            "max_pixels": self.max_pixels,
            "max_text_tokens": self.max_text_tokens,
            "instruction": self.instruction,
        }
        return {key: value for key, value in asked.items() if value is not None}

    def _options(self) -> dict[str, Any]:
        """What `load_backbone` is told, apart from the name and the preprocessing."""
        options = {
            "revision": self.revision,
            "dtype": self.dtype,
            "device": self.device,
            "attn_implementation": self.attn_implementation,
            "device_map": self.device_map,
            "quantization": self.quantization,
        }
        return {key: value for key, value in options.items() if value is not None} | {"trust_remote_code": self.trust_remote_code}
