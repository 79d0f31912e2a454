"""Matryoshka: the first dimensions of an embedding are trained to stand alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from slq.errors import InputError
from slq.losses.base import Loss, LossBatch, loss_of, losses
from slq.losses.info_nce import InfoNCE


@losses.register("matryoshka")
@dataclass(frozen=True)
class Matryoshka:
    """The mean of another loss over whole embeddings and over their first dimensions, brought to length 1 again.

    Args:
        loss: the loss to wrap; it reads the pooled embeddings.
        dims: how many of the first dimensions, one number for each width that is to be usable.

    Raises:
        InputError: for more dimensions than embeddings have.

    Source: Kusupati et al. 2022.
    """

    loss: Loss = field(default_factory=InfoNCE)
    dims: tuple[int, ...] = ()

    def __call__(self, batch: LossBatch) -> Tensor:
        """The loss of a batch; see `Loss`."""
        return torch.stack([loss_of(self.loss, each) for each in (batch, *(_truncated(batch, dim) for dim in self.dims))]).mean()


def _truncated(batch: LossBatch, dim: int) -> LossBatch:
    """The batch with the first dimensions of its embeddings."""
    if dim > batch.queries_BD.shape[1]:
        raise InputError(f"Matryoshka dims must be at most the {batch.queries_BD.shape[1]} dimensions of an embedding, not {dim}.")
    queries_BD, candidates_CD = (functional.normalize(each[:, :dim], dim=-1) for each in (batch.queries_BD, batch.candidates_CD))
    return replace(batch, queries_BD=queries_BD, candidates_CD=candidates_CD)
