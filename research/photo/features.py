"""Image features of photographs, computed once: they depend on nothing that is trained.

They are kept in parts, each a safetensors file that is written whole: a run that was killed computes the last part again, and nothing else.

Shapes: P image tokens, D values of a feature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slq import console
from slq.data.images import open_image
from slq.errors import DataError, ModelError
from slq.io.files import write_atomic
from slq.io.provenance import parameter_hash
from slq.models.identity import file_sha256, processor_settings

FORMAT = 1  # of a part; raised when its tensors or their names change
PART = 256  # images a file


class FeatureCache:
    """Features by the content of an image's file, in a folder of its own for each encoder, size and normalisation.

    Attributes:
        folder: that the parts lie in.
    """

    def __init__(self, folder: Path, model: Any, processor: Any):
        """Open what is kept for a model's encoder.

        Args:
            folder: for all encoders.
            model: the whole model, or anything with its image encoder.
            processor: of the model.

        Raises:
            DataError: if a part is damaged.
        """
        self._encoder, self._images = model.model.vision_tower, processor.image_processor
        made_by = [FORMAT, parameter_hash(self._encoder), processor_settings(processor)]
        self.folder = folder / hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]
        self._parts: dict[str, Any] = {}  # by content
        self._contents: dict[Path, str] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            self._open(file)

    def fill(self, images: Sequence[Path]) -> int:
        """Compute what is not kept yet.

        Args:
            images: files.

        Returns:
            How many were computed.

        Raises:
            ImageError: if a file is missing or no image.
            ModelError: if a feature is not finite.
        """
        missing: dict[str, Path] = {}
        for image in images:
            content = self._contents[image] = file_sha256(image) if image.is_file() else ""
            if content not in self._parts:
                missing.setdefault(content, image)
        with console.progress_bar("image features", len(missing)) as advance:
            contents = list(missing)
            for start in range(0, len(contents), PART):
                computed = {}
                for content in contents[start : start + PART]:
                    computed[content] = self._compute(missing[content])
                    advance()
                self._write(computed)
        return len(missing)

    def get(self, images: Sequence[Path]) -> Tensor:
        """Features of images that `fill` was given, (B, P, D) float16.

        Args:
            images: files.
        """
        contents = [self._contents[image] for image in images]
        return torch.stack([self._parts[content].get_tensor(content) for content in contents])

    @torch.no_grad()
    def _compute(self, image: Path) -> Tensor:
        """Of one image by itself, so that a feature does not depend on the images beside it."""
        pixels = self._images(open_image(image), return_tensors="pt")["pixel_values"].to(self._encoder.device, self._encoder.dtype)
        features_DHW = self._encoder(pixels).last_hidden_state[0]  # in the order in which FastVLM reads them, before its projector
        features_PD = features_DHW.flatten(1).T.to("cpu", torch.float16).contiguous()
        if not bool(torch.isfinite(features_PD).all()):
            raise ModelError(f"The encoder's features of {image} are not finite, or too large for 16 bits: take another encoder.")
        return features_PD

    def _write(self, computed: dict[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(computed).encode()).hexdigest()[:16]
        file = self.folder / f"{name}.safetensors"
        write_atomic(file, lambda partial: save_file(computed, partial))
        self._open(file)

    def _open(self, file: Path) -> None:
        try:
            part = safe_open(file, "pt")
        except SafetensorError as error:
            raise DataError(f"The image features {file} are damaged ({error}): remove the file, and they are computed again.") from error
        self._parts |= dict.fromkeys(part.keys(), part)
