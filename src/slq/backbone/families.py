"""What differs between families of backbones, as data: one row a family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """How a family's pictures are prepared.

    pad_to_square: pad with this grey level before resizing (None: leave the shape to the processor).
    processor_options: passed to the processor with every batch.
    """

    pad_to_square: int | None = None
    processor_options: dict[str, Any] = field(default_factory=dict)


# InternVL: one tile, padded to a square with grey 127, as in the SLQ paper's code.
FAMILIES = {
    "internvl": Family(pad_to_square=127, processor_options={"crop_to_patches": False}),
}


def family_of(model_type: str) -> Family:
    """The family's row; a family without one gets its processor's own defaults."""
    return FAMILIES.get(model_type, Family())
