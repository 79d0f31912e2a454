"""What differs between families of models, as data: one row a family, found by the model type of its configuration.

Another distribution adds a row by an entry point of the group `slq.families`, named by its `config.model_type`; `slq.testing.check_family`
says whether it may call itself verified.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from slq.errors import ModelError
from slq.models.preprocessing import MAX_PIXELS, Preprocessing
from slq.registry import Registry, left_out


@dataclass(frozen=True)
class Family:
    """How a family's images are prepared, and whether the contract test has run its classes.

    Attributes:
        pad_to_square: for `paper`, pad with this grey level before resizing; None leaves the shape to the processor.
        antialias: for `paper`, whether resizing smooths what it makes smaller, as processors do; SLQ's own code for InternVL does not.
        image_newline: for `paper`, whether a line break of the chat template behind an image stays; SLQ's own prompt for InternVL has none.
        single_tile_kwargs: for `paper`, what makes its processor give one tile of an image.
        variable_resolution: whether images have as many tokens as their size asks for.
        max_aspect_ratio: how many times as long as its other side a side of an image may be, where the processor refuses more.
        verified: whether `slq.testing.check_family` holds; another family is tried when it is loaded, and never packed.

    Example:
        >>> family = Family(single_tile_kwargs={"do_image_splitting": False})
        >>> family.image_options(Preprocessing("paper"), processor=None)
        {'do_image_splitting': False}
        >>> family.image_options(Preprocessing("native"), processor=None)
        {}
    """

    pad_to_square: int | None = None
    antialias: bool = True
    image_newline: bool = True
    single_tile_kwargs: dict[str, Any] = field(default_factory=dict)
    variable_resolution: bool = False
    max_aspect_ratio: float | None = None
    verified: bool = True

    def image_options(self, preprocessing: Preprocessing, processor: Any) -> dict[str, Any]:
        """What the processor is told with every batch.

        Args:
            preprocessing: the settings that were chosen.
            processor: the family's own.

        Raises:
            ModelError: for a bound on images that have a fixed size.
        """
        paper = preprocessing.name == "paper"
        if not self.variable_resolution:
            if preprocessing.max_pixels is not None:
                raise ModelError("Images of this model have a fixed size, so there is nothing to bound: leave out max_pixels.")
            return dict(self.single_tile_kwargs) if paper else {}
        own = processor.image_processor.size  # of the Qwens: not of an edge, but of all pixels
        smallest, largest = own["shortest_edge"], own["longest_edge"]
        most = preprocessing.max_pixels or (min(largest, MAX_PIXELS) if paper else largest)
        return {"size": {"shortest_edge": min(smallest, most), "longest_edge": most}}


families: Registry[Family] = Registry("slq.families", Family, of="object")

_QWEN = Family(variable_resolution=True, max_aspect_ratio=200)
_IDEFICS = Family(single_tile_kwargs={"do_image_splitting": False})

for _name, _family in {
    "internvl": Family(
        pad_to_square=127,
        antialias=False,
        image_newline=False,
        single_tile_kwargs={"crop_to_patches": False, "resample": Image.Resampling.BILINEAR.value},
    ),
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_5": _QWEN,
    **{name: replace(_QWEN, verified=False) for name in ("qwen2_vl", "qwen3_vl_moe", "qwen3_5_moe")},
    "idefics3": _IDEFICS,
    "smolvlm": replace(_IDEFICS, verified=False),
    "fast_vlm": Family(),
    "llava_next": Family(),  # its processor has no setting without tiles
    "gemma3": Family(single_tile_kwargs={"do_pan_and_scan": False}),
}.items():
    families.register(_name)(_family)


def family_of(model_type: str) -> Family:
    """The row of a model type; a family without one gets its processor's own defaults, and is tried before it is used.

    Args:
        model_type: `config.model_type` of the model.

    Raises:
        PluginError: if another distribution has the row, and it cannot be used.
    """
    if model_type in families:
        return families.get(model_type)
    if where := left_out(families.group, model_type):
        warnings.warn(f"{families.group} has no row for {model_type!r}, so it is tried as an unknown family: {where}", stacklevel=2)
    return Family(verified=False)
