"""Late interaction: several latents of an item compared one by one, for adapters that were trained so.

Shapes: B batch, G vectors of an item, D hidden size.
"""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from slq.backbone import Prepared
from slq.embedder import Embedder
from slq.errors import InputError
from slq.retriever import Retriever


class LateInteraction(Embedder):
    """The first `group` latents of a retriever as vectors of their own; scored by the best match of each (`scoring.rank`).

    Raises InputError for a group that the adapter was not trained with.
    """

    def __init__(self, retriever: Retriever, group: int):
        trained = retriever.queries.groups
        if group not in trained:
            known = f"with groups of {', '.join(map(str, trained))} latents" if trained else "without any (`slq train --group`)"
            raise InputError(f"This adapter cannot be compared by late interaction over {group} latents: it was trained {known}.")
        self.retriever, self.backbone, self.group = retriever, retriever.backbone, group
        self.name = f"late interaction of {group} latents"

    @property
    def vector_shape(self) -> tuple[int, ...]:
        return self.group, self.backbone.dim

    @property
    def generation_prompt(self) -> bool:
        return self.retriever.generation_prompt

    def embed_prepared(self, prepared: Prepared) -> Tensor:
        """Vectors of length 1 (B, G, D), float32."""
        return nn.functional.normalize(self.retriever.states_of(prepared)[:, : self.group].float(), dim=-1)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.retriever.fingerprint} late interaction {self.group}".encode()).hexdigest()[:16]
