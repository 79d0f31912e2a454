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


class ContrastiveStep(nn.Module):
    """The forward pass of training. Of several processes each encodes its part of the batch, and every one computes the loss of all of it.

    Args:
        trainable: what is learned; its parameters are this module's.
        loss: what is minimised.
        rank: of this process.
        processes: how many there are.
    """

    def __init__(self, trainable: Trainable, loss: Loss, rank: int = 0, processes: int = 1):
        super().__init__()
        self.trainable, self.loss, self._place = trainable, loss, (rank, processes)

    def forward(self, batch: ContrastiveBatch, prefetched: Prefetched | None = None) -> Tensor:
        """The loss of a batch, a scalar with gradient.

        Args:
            batch: queries, candidates, and which belong together.
            prefetched: what `Trainable.prefetch_batches` gave for it.
        """
        trainable, sizes = self.trainable, [len(batch.queries), len(batch.candidates)]
        states_BND = gather_states(batch.items, partial(trainable.states, prefetched=prefetched or {}), *self._place)
        positives_BC = batch.positives.to(states_BND.device)
        queries_BND, candidates_CND = states_BND.split(sizes)
        queries_BD, candidates_CD = pool(trainable.encoder.pooling, states_BND).split(sizes)
        return self.loss(LossBatch(queries_BND, candidates_CND, queries_BD, candidates_CD, positives_BC, trainable.temperature))
