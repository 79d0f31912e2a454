"""Zero-shot readouts: nothing is learned, so they show what the backbone gives by itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from torch import Tensor, nn

from slq.backbone import FrozenBackbone, Prepared
from slq.embedder import Embedder
from slq.types import Item


class LastTokenReadout(Embedder):
    """The final state of the prompt's last token, where the backbone is about to answer.

    instruction: text put after every item, such as E5-V's "in one word"; empty for none.
    """

    def __init__(self, backbone: FrozenBackbone, instruction: str = ""):
        self.backbone = backbone
        self.instruction = instruction

    def worded(self, item: Item) -> Item:
        """The item with the instruction behind its text."""
        return replace(item, text=f"{item.text or ''} {self.instruction}".strip()) if self.instruction else item

    def embed_prepared(self, prepared: Prepared) -> Tensor:
        """Embeddings of length 1 (B, D), float32."""
        return nn.functional.normalize(self.backbone.last_token(prepared).float(), dim=-1)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"last token {self.instruction} {self.backbone.identity}".encode()).hexdigest()[:16]
