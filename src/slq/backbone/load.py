"""Load a backbone: the built-in miniature, a folder, or a hub id. All go through the same code."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

from slq.backbone.families import family_of
from slq.backbone.frozen import FrozenBackbone
from slq.backbone.processors import InternVLStillProcessor
from slq.errors import BackboneError, MissingExtraError
from slq.runtime import choose_device, choose_dtype

MINIATURE = "miniature"
# Processors of our own, by the name they are saved under; transformers' AutoProcessor does not know them.
OWN_PROCESSORS = {"InternVLStillProcessor": InternVLStillProcessor}


def load_backbone(
    name: str = MINIATURE, revision: str | None = None, dtype: str | None = None, device: str | None = None
) -> FrozenBackbone:
    """A frozen backbone ready for use.

    name: `miniature`, a folder saved with `save_pretrained`, or a hub id. dtype: float32 | bfloat16 | float16 (default: float32 on
    the CPU, bfloat16 elsewhere). Raises MissingExtraError where the family needs torchvision, BackboneError when it cannot be loaded
    or is not an image-text-to-text model.
    """
    place = choose_device(device)
    if name == MINIATURE:
        disable_progress_bar()  # it loads in a blink
    path = str(files("slq.miniature").joinpath("weights")) if name == MINIATURE else name
    if not Path(path).is_dir() and (name == MINIATURE or path.startswith((".", "/", "~"))):
        raise BackboneError(f"There is no backbone folder {path}: give a folder, a hub id, or '{MINIATURE}'.")
    pinned: dict[str, Any] = {} if revision is None else {"revision": revision}
    try:
        config = AutoConfig.from_pretrained(path, **pinned)
        processor = _load_processor(path, pinned)
        model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=choose_dtype(dtype, place), **pinned)
    except MissingExtraError:
        raise
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise BackboneError(f"Cannot load the backbone {name!r}: {_first_sentence(error)}") from error
    if config.is_encoder_decoder:
        raise BackboneError(f"{name!r} is an encoder-decoder; latent queries need a causal decoder that reads left to right.")
    found = _folder_hash(Path(path)) if Path(path).is_dir() else (getattr(config, "_commit_hash", None) or revision or "unknown")
    return FrozenBackbone(model.to(place), processor, family_of(config.model_type), name, found)


def _load_processor(path: str, pinned: dict[str, Any]) -> Any:
    own: Any = None
    config_file = Path(path) / "processor_config.json"
    if config_file.is_file():
        own = OWN_PROCESSORS.get(json.loads(config_file.read_text(encoding="utf-8")).get("processor_class", ""))
    torchvision = f'The processor of {path} needs torchvision: pip install -e ".[vision]" (or pip install torchvision).'
    try:
        processor = (own or AutoProcessor).from_pretrained(path, **pinned)
    except (OSError, ImportError) as error:
        if find_spec("torchvision") is None and ("video processor" in str(error) or "torchvision" in str(error).lower()):
            raise MissingExtraError(torchvision) from error
        raise
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        if find_spec("torchvision") is None and config_file.is_file():  # transformers then quietly hands out the tokenizer alone
            raise MissingExtraError(torchvision)
        raise BackboneError(f"{path} has no processor for pictures and text: an image-text-to-text model is needed.")
    if getattr(processor, "chat_template", None) is None:
        raise BackboneError(f"{path} has no chat template: an instruction-tuned image-text-to-text model is needed.")
    return processor


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def _folder_hash(folder: Path) -> str:
    """What stands for a revision where there is no commit: a hash of the config and of each weight file's size and ends."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for weights in sorted(folder.glob("*.safetensors")):
        size = weights.stat().st_size
        digest.update(f"{weights.name} {size}".encode())
        with weights.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]
