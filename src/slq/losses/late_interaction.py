"""Late interaction: several vectors of an item compared one by one.

Shapes: B queries, C candidates, N latent queries, G vectors of one item, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slq.losses.base import LossBatch, losses
from slq.losses.info_nce import check_shapes, one_direction


@losses.register("late_interaction")
@dataclass(frozen=True)
class LateInteraction:
    """Symmetric InfoNCE of the first states as vectors of their own, see `late_interaction_nce`; the mean over nested sizes.

    Args:
        sizes: how many of the first states, one number for each size that is to be usable.
        false_negative_margin: see `InfoNCE`.
    """

    reads_states = True

    sizes: tuple[int, ...] = (1,)
    false_negative_margin: float | None = None

    def __call__(self, batch: LossBatch) -> Tensor:
        """The loss of a batch; see `Loss`."""
        queries_BND = functional.normalize(batch.queries_BND.float(), dim=-1)
        candidates_CND = functional.normalize(batch.candidates_CND.float(), dim=-1)
        of_sizes = [
            late_interaction_nce(
                queries_BND[:, :size], candidates_CND[:, :size], batch.positives_BC, batch.temperature, self.false_negative_margin
            )
            for size in self.sizes
        ]
        return torch.stack(of_sizes).mean()


def late_interaction_nce(
    queries_BGD: Tensor,
    candidates_CGD: Tensor,
    positives_BC: Tensor,
    temperature: float | Tensor,
    false_negative_margin: float | None = None,
) -> Tensor:
    """Symmetric InfoNCE of items that are compared by late interaction; see `info_nce` for what is not told here.

    Each direction asks from its own side: the similarity of a candidate to a query is not that of the query to the candidate.

    Args:
        queries_BGD: (B, G, D), each vector of length 1.
        candidates_CGD: (C, G, D), each vector of length 1.
        positives_BC: (B, C) bool.
        temperature: divisor of the similarities, above 0.
        false_negative_margin: see `info_nce`.

    Returns:
        A scalar, float32.

    Source: Khattab and Zaharia 2020 (ColBERT); MetaEmbed (nested sizes).
    """
    check_shapes(queries_BGD[:, 0], candidates_CGD[:, 0], positives_BC, temperature)
    with torch.autocast(queries_BGD.device.type, enabled=False):
        queries_BGD, candidates_CGD = queries_BGD.float(), candidates_CGD.float()
        forward = one_direction(late_interaction(queries_BGD, candidates_CGD), positives_BC, temperature, false_negative_margin)
        matched_C = positives_BC.any(dim=0)
        asked_back_CB = late_interaction(candidates_CGD[matched_C], queries_BGD)
        return (forward + one_direction(asked_back_CB, positives_BC.T[matched_C], temperature, false_negative_margin)) / 2


def late_interaction(queries_BGD: Tensor, candidates_CGD: Tensor) -> Tensor:
    """Similarities: the mean, over a query's vectors, of the best cosine with any vector of the candidate.

    The vectors of a query take turns, so that no more than B x C x G products are in memory at once.

    Args:
        queries_BGD: (B, G, D), each vector of length 1.
        candidates_CGD: (C, G, D), each vector of length 1.

    Returns:
        (B, C).
    """
    best = [torch.einsum("bd,cgd->bcg", vectors_BD, candidates_CGD).amax(dim=2) for vectors_BD in queries_BGD.unbind(dim=1)]
    return torch.stack(best).mean(dim=0)
