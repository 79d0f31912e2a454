"""A loss, a pooling and a training method."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slq.config import TrainConfig
from slq.losses import LossBatch
from slq.models import FrozenModel
from slq.training.methods import LatentMethod, LatentTrainable


@dataclass(frozen=True)
class Hinge:
    """Every positive beats every negative by a margin. Its fields are its options: `--loss hinge:margin=0.3`.

    Args:
        margin: of the cosines.
    """

    margin: float = 0.2

    def __call__(self, batch: LossBatch) -> Tensor:
        """The loss of a batch."""
        cosines_BC = batch.queries_BD @ batch.candidates_CD.T
        weakest_B1 = cosines_BC.masked_fill(~batch.positives_BC, torch.inf).amin(dim=1, keepdim=True)
        too_near_BC = (self.margin + cosines_BC - weakest_B1).clamp(min=0)
        return too_near_BC.masked_fill(batch.positives_BC, 0.0).sum(dim=1).mean()


@dataclass(frozen=True)
class MaxPooling:
    """The direction of the largest value of each dimension."""

    def __call__(self, states_BND: Tensor) -> Tensor:
        """Embeddings of a batch."""
        return functional.normalize(states_BND.float().amax(dim=1), dim=-1)

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """One vector an item."""
        return (dim,)


class FromVocabulary(LatentMethod):
    """Latent queries that start at the mean of the model's input embeddings."""

    def create(self, model: FrozenModel, config: TrainConfig) -> LatentTrainable:
        """The start of a run."""
        trainable = super().create(model, config)
        with torch.no_grad():
            trainable.queries.latents.copy_(model.embedding.weight.float().mean(dim=0).expand_as(trainable.queries.latents))
        return LatentTrainable(trainable.encoder)


from_vocabulary = FromVocabulary()
