"""What differs between families of models, as data: one row a family."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from slq.errors import ModelError
from slq.models.preprocessing import MAX_PIXELS, Preprocessing


@dataclass(frozen=True)
class Family:
    """How a family's images are prepared, and whether the contract test has run its classes.

    pad_to_square: for `paper`, pad with this grey level before resizing (None: leave the shape to the processor). single_tile_kwargs: for
    `paper`, what makes its processor give one view of an image. variable_resolution: images have as many tokens as their size asks for.
    verified: proven by tests/families/test_families.py; another family is tried when it is loaded.
    """

    pad_to_square: int | None = None
    single_tile_kwargs: dict[str, Any] = field(default_factory=dict)
    variable_resolution: bool = False
    verified: bool = True

    def image_options(self, preprocessing: Preprocessing, processor: Any) -> dict[str, Any]:
        """What the processor is told with every batch; raises ModelError for a bound on images that have a fixed size."""
        paper = preprocessing.name == "paper"
        if not self.variable_resolution:
            if preprocessing.max_pixels is not None:
                raise ModelError("Images of this model have a fixed size, so there is nothing to bound: leave out max_pixels.")
            return dict(self.single_tile_kwargs) if paper else {}
        own = processor.image_processor.size  # of the Qwens: not of an edge, but of all pixels
        smallest, largest = own["shortest_edge"], own["longest_edge"]
        most = preprocessing.max_pixels or (min(largest, MAX_PIXELS) if paper else largest)
        return {"size": {"shortest_edge": min(smallest, most), "longest_edge": most}}


QWEN = Family(variable_resolution=True)
IDEFICS = Family(single_tile_kwargs={"do_image_splitting": False})

FAMILIES = {
    "internvl": Family(pad_to_square=127, single_tile_kwargs={"crop_to_patches": False, "resample": Image.Resampling.BILINEAR.value}),
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN,
    "qwen3_5": QWEN,
    **{name: replace(QWEN, verified=False) for name in ("qwen2_vl", "qwen3_vl_moe", "qwen3_5_moe")},
    "idefics3": IDEFICS,
    "smolvlm": replace(IDEFICS, verified=False),
    "llava_next": Family(),  # its processor has no setting without tiles
    "gemma3": Family(single_tile_kwargs={"do_pan_and_scan": False}),
}


def family_of(model_type: str) -> Family:
    """The family's row; a family without one gets its processor's own defaults, and is tried before it is used."""
    return FAMILIES.get(model_type, Family(verified=False))
