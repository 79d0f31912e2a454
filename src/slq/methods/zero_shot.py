"""Zero-shot readouts: nothing is learned, so they show what the backbone gives by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from slq.backbone import FrozenBackbone
from slq.embedder import Embedder
from slq.types import Item


class LastTokenReadout(Embedder):
    """The final state of the prompt's last token, where the backbone is about to answer.

    instruction: text put after every item, such as E5-V's "in one word"; empty for none.
    """

    def __init__(self, backbone: FrozenBackbone, instruction: str = ""):
        self.backbone = backbone
        self.instruction = instruction

    def embed_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of length 1 (B, D), float32."""
        if self.instruction:
            items = [replace(item, text=f"{item.text or ''} {self.instruction}".strip()) for item in items]
        states = self.backbone.last_token(self.backbone.prepare(items))
        return nn.functional.normalize(states.float(), dim=-1)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"last token {self.instruction} {self.backbone.identity}".encode()).hexdigest()[:16]
