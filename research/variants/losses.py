"""Losses that were tried.

Shapes: B queries, C candidates, N latent queries, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slq.losses import LossBatch
from slq.losses.info_nce import info_nce
from slq.losses.late_interaction import late_interaction


@dataclass(frozen=True)
class FixedTemperature:
    """InfoNCE at a temperature that is not learned."""

    temperature: float = 0.03

    def __call__(self, batch: LossBatch) -> Tensor:
        return info_nce(batch.queries_BD, batch.candidates_CD, batch.positives_BC, self.temperature)


@dataclass(frozen=True)
class SameModality:
    """Other queries as negatives of a query, and other candidates of a candidate, so that kinds are not told apart by where they lie."""

    weight: float = 0.3

    def __call__(self, batch: LossBatch) -> Tensor:
        own_B = batch.positives_BC.float().argmax(dim=1)
        queries_BD, candidates_BD = batch.queries_BD, batch.candidates_CD[own_B]
        alike_BB = batch.positives_BC[:, own_B]
        matched_B = (queries_BD * candidates_BD).sum(dim=1) / batch.temperature
        ways = [(of @ of.T / batch.temperature).masked_fill(alike_BB | alike_BB.T, -torch.inf) for of in (queries_BD, candidates_BD)]
        losses = [-functional.logsigmoid(matched_B - logits_BB.logsumexp(dim=1)).mean() for logits_BB in ways]
        return self.weight * (losses[0] + losses[1]) / 2


@dataclass(frozen=True)
class Distilled:
    """The mean of the latent queries learns the ranking that their late interaction gives (`multi_vector_sizes` trains it)."""

    reads_states = True

    weight: float = 1.0

    def __call__(self, batch: LossBatch) -> Tensor:
        with torch.no_grad():
            each = [functional.normalize(states.float(), dim=-1) for states in (batch.queries_BND, batch.candidates_CND)]
            wanted = [late_interaction(each[0], each[1]), late_interaction(each[1], each[0])]
        found_BC = batch.queries_BD @ batch.candidates_CD.T
        divergences = [
            functional.kl_div(
                (ours / batch.temperature).log_softmax(dim=1),
                (theirs / batch.temperature.detach()).log_softmax(dim=1),
                log_target=True,
                reduction="batchmean",
            )
            for ours, theirs in zip((found_BC, found_BC.T), wanted, strict=True)
        ]
        return self.weight * (divergences[0] + divergences[1]) / 2
