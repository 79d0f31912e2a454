"""Load a model: the built-in miniature, a folder, a hub id, or random weights at a published shape. All give the same contract."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from huggingface_hub import is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
)
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from slq.errors import MissingExtraError, ModelError, shorten
from slq.io.device import choose_device, choose_dtype
from slq.models import shapes
from slq.models.families import families, family_of
from slq.models.frozen import FrozenModel
from slq.models.identity import UNKNOWN
from slq.models.invariance import check_invariance
from slq.models.preprocessing import Preprocessing
from slq.models.processors import InternVLStillProcessor, Qwen3VLStillProcessor
from slq.models.trust import check_repository

MINIATURE = "miniature"
# Processors of our own, by the name they are saved under; transformers' AutoProcessor does not know them.
OWN_PROCESSORS = {each.__name__: each for each in (InternVLStillProcessor, Qwen3VLStillProcessor)}
QUANTIZATIONS = ("8bit", "4bit")
LOADING = RLock()  # transformers makes weights under settings of the whole process: two models loaded at once get one another's


def load_model(
    name: str = MINIATURE,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    *,
    attn_implementation: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    preprocessing: Preprocessing | None = None,
) -> FrozenModel:
    """Load a frozen model, ready for use. A family without a verified row is tried first.

    Args:
        name: `miniature`, a folder saved with `save_pretrained`, a hub id (with HF_HUB_OFFLINE=1 what is cached of it), or
            `random:<shape>` for random weights at a published shape.
        revision: commit, tag or branch of a hub id.
        dtype: float32, bfloat16 or float16; default, float32 on the CPU and bfloat16 elsewhere.
        device: where the model is to be; default, the first accelerator.
        attn_implementation: eager, sdpa, flash_attention_2, ...; default, what transformers takes.
        device_map: `auto`, or modules to devices, for a model larger than one device.
        quantization: 8bit or 4bit, with bitsandbytes.
        trust_remote_code: run the Python files that come with the weights; of a hub id at the full commit hash that `revision` is.
        preprocessing: how items become tokens; default, as in the SLQ paper.

    Returns:
        The model; all of the above give the same contract.

    Raises:
        MissingExtraError: where a package is wanting.
        ModelError: if the model cannot be loaded, is not a causal image-text-to-text model, or lacks what latent queries need.

    Example:
        >>> from slq.types import Item
        >>> model = load_model("miniature", device="cpu")
        >>> model.prefill(model.prepare([Item("a red cat"), Item("a boat")])).mask.shape[0]
        2
    """
    if device is not None and device_map is not None:
        raise ModelError("Give a device, or a device_map that says where each part goes, not both.")
    with LOADING:
        return _load(name, revision, dtype, device, attn_implementation, device_map, quantization, trust_remote_code, preprocessing)


def _load(
    name: str,
    revision: str | None,
    dtype: str | None,
    device: str | None,
    attn_implementation: str | None,
    device_map: str | dict[str, Any] | None,
    quantization: str | None,
    trust_remote_code: bool,
    preprocessing: Preprocessing | None,
) -> FrozenModel:
    on = choose_device(device)
    wanted = choose_dtype(dtype, on)
    quantized = _quantized(quantization, wanted)
    path = _path(name)
    if revision is not None and (path.startswith(shapes.PREFIX) or os.path.isdir(path)):
        raise ModelError(f"{name!r} has no revisions, only models on the hub have: leave out the revision {revision!r}.")
    if path.startswith(shapes.PREFIX):
        if quantized or device_map is not None:
            raise ModelError(f"{name!r} is for one device and without quantization: leave out device_map and quantization.")
        network, processor = shapes.build_random(name, wanted, on, attn_implementation)
        return FrozenModel(network, processor, family_of(network.config.model_type), name, shapes.revision(name), preprocessing)
    origin: dict[str, Any] = {"trust_remote_code": trust_remote_code} | ({} if revision is None else {"revision": revision})
    options = {"attn_implementation": attn_implementation, "device_map": device_map, "quantization_config": quantized}
    if quantized and device_map is None:
        options["device_map"] = {"": on}  # quantized weights are made where they are to stay
    network, processor = _read(path, name, origin, {"dtype": wanted, **options}, on)
    folder, commit = _files(path, revision)
    family = family_of(network.config.model_type)
    model = FrozenModel(network, processor, family, name, commit, preprocessing, folder)
    if not family.verified:
        _try_family(model)
    model.quantization = quantization
    return model


def _try_family(model: FrozenModel) -> None:
    """`check_invariance`, whose error also says where the family has no row."""
    kind = model.model.config.model_type
    try:
        check_invariance(model)
    except ModelError as error:
        if kind in families:
            raise
        raise ModelError(f"{error} {families.group} has no row for it: install a distribution that adds {kind!r}.") from error


def _read(path: str, name: str, origin: dict[str, Any], options: dict[str, Any], device: torch.device) -> tuple[Any, Any]:
    """Model and processor from their files; raises what `load_model` raises."""
    try:
        if name != MINIATURE:
            check_repository(path, name, origin.get("revision"), origin["trust_remote_code"])
        config = AutoConfig.from_pretrained(path, **origin)
        _check_kind(config, name)
        processor = _load_processor(path, name, origin)
        given = {key: value for key, value in options.items() if value is not None}
        network: Any = AutoModelForImageTextToText.from_pretrained(path, **origin, **given, use_safetensors=True)
        return (network if "device_map" in given else network.to(device)), processor
    except (ModelError, MissingExtraError):
        raise
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, AssertionError, SafetensorError) as error:
        raise ModelError(f"Cannot load the model {name!r}: {_reason(error, path)}") from error


def _path(name: str) -> str:
    """The folder or hub id behind a name; raises ModelError for a folder that is not there."""
    if name == MINIATURE:
        disable_progress_bar()  # it loads in a blink
    path = str(files("slq.miniature").joinpath("weights")) if name == MINIATURE else name
    if not os.path.isdir(path) and (name == MINIATURE or path.startswith((".", "/", "~"))):
        raise ModelError(f"There is no model folder {path}: give a folder, a hub id, or '{MINIATURE}'.")
    return path


def _quantized(quantization: str | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization is None:
        return None
    if quantization not in QUANTIZATIONS:
        raise ModelError(f"Unknown quantization {quantization!r}: choose one of {', '.join(QUANTIZATIONS)}.")
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(f"Loading a model in {quantization} needs bitsandbytes: pip install bitsandbytes.")
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _check_kind(config: Any, name: str) -> None:
    """Refuse, before any weight is read, what is no causal model of images and text."""
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        raise ModelError(f"{name!r} is an encoder-decoder; latent queries need a causal decoder that reads left to right.")
    own_code = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not own_code:
        raise ModelError(
            f"{name!r} is a {config.model_type} model, which does not take images and text together: an image-text-to-text model "
            "is needed, such as OpenGVLab/InternVL3-1B-hf."
        )
    vision = getattr(config, "vision_config", None)
    if getattr(vision, "model_type", "") == "timm_wrapper" and find_spec("timm") is None:
        raise MissingExtraError(f'The image encoder of {name!r} needs timm: pip install -e ".[vision]" (or pip install timm).')


def _load_processor(path: str, name: str, origin: dict[str, Any]) -> Any:
    settings = _processor_config(path, origin)
    own: Any = OWN_PROCESSORS.get((settings or {}).get("processor_class", ""))
    torchvision = f'The processor of {name!r} needs torchvision: pip install -e ".[vision]" (or pip install torchvision).'
    nothing = f"{name!r} has no processor for images and text: put the processor's and the tokenizer's files beside its weights."
    try:
        processor = own.from_pretrained(path, **origin) if own else AutoProcessor.from_pretrained(path, **origin)
        if own:  # by Pillow, with torchvision or without it: the two resize a little differently, and embeddings would follow
            processor.image_processor = AutoImageProcessor.from_pretrained(path, backend="pil", **origin)
    except (OSError, ImportError, ValueError) as error:
        if find_spec("torchvision") is None and ("video processor" in str(error) or "torchvision" in str(error).lower()):
            raise MissingExtraError(torchvision) from error
        if os.path.isdir(path) and isinstance(error, OSError):
            raise ModelError(nothing) from error
        raise
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        if find_spec("torchvision") is None and settings is not None:  # transformers then quietly hands out the tokenizer alone
            raise MissingExtraError(torchvision)
        raise ModelError(nothing)
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(f"{name!r} has no chat template: an instruction-tuned image-text-to-text model is needed.")
    return processor


def _processor_config(path: str, origin: dict[str, Any]) -> dict[str, Any] | None:
    """What `processor_config.json` holds, in a folder or on the hub; None where there is none."""
    found = cached_file(path, "processor_config.json", revision=origin.get("revision"), _raise_exceptions_for_missing_entries=False)
    return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))


def _reason(error: BaseException, path: str) -> str:
    """Why a model cannot be loaded, in one sentence."""
    text = str(error).strip()
    if "file named model.safetensors" in text and any(Path(path).glob("*.bin")):
        return "its weights are no safetensors files, and pickle files (.bin, .pt) are not read, since they may run code; convert them."
    if "trust_remote_code=True" in text:
        return "it brings Python code of its own; read that code, and if you trust it pass trust_remote_code=True with its commit."
    if isinstance(error, OfflineModeIsEnabled) or isinstance(error.__cause__, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        return f"it is not on this machine, and {why}; connect and try again, or give a folder."
    return shorten(text.split("\n")[0] or type(error).__name__, 400).rstrip(".") + "."


def _files(path: str, revision: str | None) -> tuple[Path | None, str]:
    """Where a loaded model's files are, its folder or its snapshot in the hub's cache, and the commit that they are of."""
    if os.path.isdir(path):
        return Path(path), UNKNOWN
    config = try_to_load_from_cache(path, "config.json", revision=revision)
    if not isinstance(config, str):
        return None, revision or UNKNOWN
    return Path(config).parent, Path(config).parent.name  # the hub's client names a snapshot by its commit
