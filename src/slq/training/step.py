"""One step of contrastive training: from the items of a batch to its loss.

Shapes: B queries, C candidates, N vectors of an item before pooling, D hidden size.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from slq.encoders.reuse import Prefetched
from slq.losses import Loss, LossBatch
from slq.pooling import pool
from slq.training.batches import ContrastiveBatch
from slq.training.distributed import gather_states
from slq.training.methods import Trainable

Place = slice | list[int]


class ContrastiveStep(nn.Module):
    """The forward pass of training. Of several processes each encodes its part of the batch, and every one computes the loss of all of it.

    Args:
        trainable: what is learned; its parameters are this module's.
        loss: what is minimised.
        facts_weight: of the loss of a batch's facts, beside that of its pairs.
        rank: of this process.
        processes: how many there are.
    """

    def __init__(self, trainable: Trainable, loss: Loss, facts_weight: float = 0.0, rank: int = 0, processes: int = 1):
        super().__init__()
        self.trainable, self.loss, self.facts_weight, self._place = trainable, loss, facts_weight, (rank, processes)

    def forward(self, batch: ContrastiveBatch, prefetched: Prefetched | None = None) -> Tensor:
        """The loss of a batch, a scalar with gradient.

        Args:
            batch: queries, candidates, and which belong together.
            prefetched: what `Trainable.prefetch_batches` gave for it.
        """
        states_BND = gather_states(batch.items, partial(self.trainable.states, prefetched=prefetched or {}), *self._place)
        vectors_BD = pool(self.trainable.encoder.pooling, states_BND)
        B, C = len(batch.queries), len(batch.candidates)
        loss = self._compare(states_BND, vectors_BD, slice(0, B), slice(B, B + C), batch.positives)
        if batch.facts is None:
            return loss
        facts, images = slice(B + C, None), list(batch.facts.places)
        return loss + self.facts_weight * self._compare(states_BND, vectors_BD, facts, images, batch.facts.positives)

    def _compare(self, states_BND: Tensor, vectors_BD: Tensor, queries: Place, candidates: Place, positives_BC: Tensor) -> Tensor:
        """The loss of some rows as queries against others as candidates."""
        compared = (states_BND[queries], states_BND[candidates], vectors_BD[queries], vectors_BD[candidates])
        return self.loss(LossBatch(*compared, positives_BC.to(states_BND.device), self.trainable.temperature))
