"""Which model is loaded and how, and how items become its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slq.config.fields import option, validate

MODEL, PREPROCESSING = "Model", "Preprocessing"  # panels of --help


def model_of_collection(help: str) -> Any:
    """The option of a model that is by default the one of a collection, whatever SLQ_MODEL says.

    Args:
        help: what the model is for.
    """
    return option(None, help=help, default_text="the collection's", panel=MODEL, flags=("--model", "-m"), model_reference=True)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model to load: an adapter, which brings its base model, or a base model."""

    model: str = option(
        "miniature",
        help="Adapter (folder or hub name) or base model: `miniature`, a folder, a hub name such as OpenGVLab/InternVL3-1B-hf, or "
        "`random:internvl3-1b` (its true shape, random weights).",
        panel=MODEL,
        flags=("--model", "-m"),
        environment="SLQ_MODEL",
        model_reference=True,
    )
    base_model: str | None = option(
        None, help="Base model in place of the one an adapter names.", default_text="the adapter's", panel=MODEL, model_reference=True
    )
    revision: str | None = option(None, help="Commit, tag or branch of the model on the hub.", default_text="the newest", panel=MODEL)
    dtype: str = option(
        "auto",
        help="Number format of the weights; `auto` is float32 on the CPU and bfloat16 elsewhere.",
        choices=("auto", "float32", "bfloat16", "float16"),
        panel=MODEL,
    )
    device: str | None = option(None, help="cpu, cuda, cuda:1 or mps.", default_text="an accelerator if there is one", panel=MODEL)
    device_map: str | None = option(
        None,
        help="`auto` spreads a model that is larger than one device over all there are, in place of --device.",
        default_text="one device",
        panel=MODEL,
    )
    attn_implementation: str | None = option(
        None, help="Attention: eager, sdpa, flash_attention_2, ...", default_text="what transformers chooses for the model", panel=MODEL
    )
    quantization: str | None = option(
        None, help="8bit or 4bit weights by bitsandbytes: less memory, other results.", choices=("8bit", "4bit"), panel=MODEL
    )
    trust_remote_code: bool = option(
        False,
        help="Run the Python files that come with the weights of the model named here; read them first. Never holds for a base model that "
        "only an adapter names.",
        panel=MODEL,
        explicit=True,
        recorded=False,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """How items become tokens; an adapter brings its own."""

    preprocessing: str = option(
        "paper",
        help="How images are prepared: `paper` (one view each, as in the SLQ paper) or `native` (the model's own way).",
        choices=("paper", "native"),
        panel=PREPROCESSING,
    )
    max_pixels: int | None = option(
        None,
        help="Larger images are scaled down to this many pixels, where the model keeps an image's shape (Qwen-VL).",
        default_text="the processor's own; with `paper` at most 1,310,720",
        minimum=1,
        panel=PREPROCESSING,
    )
    max_length: int = option(128, help="Texts are cut after this many tokens.", minimum=1, panel=PREPROCESSING)
    instruction: str = option("", help="Text put after every item, on a line of its own.", panel=PREPROCESSING)

    def __post_init__(self) -> None:
        validate(self)
