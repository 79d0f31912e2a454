"""How items become tokens: named settings, saved in every adapter, since other settings give other embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slq.errors import ModelError

NAMES = ("paper", "native")
# 1,280 image tokens of 32 x 32 pixels (Qwen3-VL). A COCO image (640 x 480) is far below it and keeps its size; a photograph of 12
# megapixels would become 12,000 tokens without a bound.
MAX_PIXELS = 1280 * 32 * 32


@dataclass(frozen=True)
class Preprocessing:
    """Settings of an item's way to tokens.

    Attributes:
        name: `paper` for what SLQ's code does (one tile of an image; InternVL: padded to a square with grey 127, bilinear), `native` for
            what the model's own processor does (tiles, where it has them).
        max_pixels: bound on an image where the family has variable resolution (the Qwens); None takes the processor's own, and for
            `paper` at most 1,310,720.
        max_text_tokens: where texts are cut.
        instruction: text put behind every item, on a line of its own; the paper has none.

    Source: SLQ's code, see docs/design/0007-preprocessing.md.
    """

    name: str = "paper"
    max_pixels: int | None = None
    max_text_tokens: int = 128
    instruction: str = ""

    def __post_init__(self) -> None:
        """Raises ModelError for settings that cannot be."""
        if self.name not in NAMES:
            raise ModelError(f"Unknown preprocessing {self.name!r}: choose one of {', '.join(NAMES)}.")
        if self.max_text_tokens < 1:
            raise ModelError(f"max_text_tokens must be at least 1, not {self.max_text_tokens}.")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise ModelError(f"max_pixels must be at least 1, not {self.max_pixels}.")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Preprocessing:
        """The settings that `ModelIdentity.preprocessing` holds; what is in it beside them follows from them.

        Args:
            saved: from an adapter's file.
        """
        return cls(**{name: saved[name] for name in ("name", "max_pixels", "max_text_tokens", "instruction")})
