"""Late interaction: several latent queries of an item compared one by one, for adapters that were trained so.

Shapes: B batch, N latent queries, D hidden size.
"""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError
from slq.models import PreparedBatch
from slq.pooling import MultiVectorPooling


class MultiVectorEncoder(Encoder):
    """The states of an adapter's first latent queries as vectors of their own; ranked by the best match of each (`evaluation.rank`).

    Args:
        encoder: the adapter.
        size: how many of its latent queries.

    Raises:
        InputError: for a size that the adapter was not trained with.
    """

    kind = "multi_vector"

    def __init__(self, encoder: LatentEncoder, size: int):
        trained = encoder.queries.multi_vector_sizes
        if size not in trained:
            known = f"with sizes {', '.join(map(str, trained))}" if trained else "without any (`slq train --multi-vector-size`)"
            raise InputError(f"This adapter cannot be compared by late interaction of {size} vectors: it was trained {known}.")
        self.encoder, self.model, self.size = encoder, encoder.model, size
        self.pooling = MultiVectorPooling(size)

    @property
    def generation_prompt(self) -> bool:
        """Whether the latent queries come after the generation prompt."""
        return self.encoder.generation_prompt

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """States of the adapter's latent queries (B, N, D); see `Encoder.states_of`."""
        return self.encoder.states_of(prepared)

    @property
    def fingerprint(self) -> str:
        """Hash of the adapter's fingerprint and the size."""
        return hashlib.sha256(f"{self.encoder.fingerprint} multi_vector {self.size}".encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What a result was made with: the adapter's own, with `pooling` and `size` of this one."""
        return self.encoder.describe() | {"kind": self.kind, "pooling": "multi_vector", "size": self.size}
