"""Late interaction: several latents of an item compared one by one, for adapters that were trained so.

Shapes: B batch, G vectors of an item, D hidden size.
"""

from __future__ import annotations

import hashlib

from torch import Tensor

from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError
from slq.models import PreparedBatch
from slq.pooling import MultiVectorPooling


class LateInteraction(Encoder):
    """The first `group` latents of an encoder as vectors of their own; scored by the best match of each (`scoring.rank`).

    Raises InputError for a group that the adapter was not trained with.
    """

    def __init__(self, encoder: LatentEncoder, group: int):
        trained = encoder.queries.groups
        if group not in trained:
            known = f"with groups of {', '.join(map(str, trained))} latents" if trained else "without any (`slq train --group`)"
            raise InputError(f"This adapter cannot be compared by late interaction over {group} latents: it was trained {known}.")
        self.encoder, self.model, self.group = encoder, encoder.model, group
        self.pooling = MultiVectorPooling(group)
        self.name = f"late interaction of {group} latents"

    @property
    def generation_prompt(self) -> bool:
        return self.encoder.generation_prompt

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """States of the adapter's latent queries (B, N, D)."""
        return self.encoder.states_of(prepared)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.encoder.fingerprint} late interaction {self.group}".encode()).hexdigest()[:16]
