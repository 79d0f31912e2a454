"""InfoNCE over several positives, with hard and false negatives.

Shapes: B queries, C candidates, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slq.errors import InputError
from slq.losses.base import LossBatch, losses


@losses.register("info_nce")
@dataclass(frozen=True)
class InfoNCE:
    """InfoNCE of the pooled embeddings, see `info_nce`.

    Args:
        symmetric: whether candidates are matched against queries too.
        false_negative_margin: leaves out negatives more similar than the lowest positive by this margin; None for all negatives.
        hardness: how much more a negative weighs the more similar it is; 0 for all alike.
    """

    symmetric: bool = True
    false_negative_margin: float | None = None
    hardness: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.hardness < float("inf"):
            raise InputError(f"The hardness of info_nce must be at least 0, not {self.hardness}.")

    def __call__(self, batch: LossBatch) -> Tensor:
        """The loss of a batch; see `Loss`."""
        return info_nce(
            batch.queries_BD,
            batch.candidates_CD,
            batch.positives_BC,
            batch.temperature,
            symmetric=self.symmetric,
            false_negative_margin=self.false_negative_margin,
            hardness=self.hardness,
        )


def info_nce(
    queries_BD: Tensor,
    candidates_CD: Tensor,
    positives_BC: Tensor,
    temperature: float | Tensor,
    *,
    symmetric: bool = True,
    false_negative_margin: float | None = None,
    hardness: float = 0.0,
) -> Tensor:
    """InfoNCE: each positive against the negatives of its query, the query's other positives left out.

    Args:
        queries_BD: (B, D), each row of length 1.
        candidates_CD: (C, D), each row of length 1.
        positives_BC: (B, C) bool; a hard negative is a candidate that is positive for no query.
        temperature: divisor of the cosines, above 0.
        symmetric: whether to average with the other direction, in which each candidate that has a positive query is matched against all
            queries.
        false_negative_margin: leaves out negatives whose cosine exceeds that of the lowest positive by more than this.
        hardness: a negative of cosine s weighs as exp(hardness * s / temperature), with a mean of 1 over those of its query; no gradient
            goes through the weights. 0 for all alike.

    Returns:
        A scalar, float32 (float64 for float64 embeddings): the mean over queries of the mean over their positives.

    Raises:
        InputError: if shapes or dtypes do not fit, the temperature is not above 0 or a query has no positive.

    Source: van den Oord et al. 2018 (InfoNCE); Qwen3-VL-Embedding technical report (false negatives, margin 0.1); Robinson et al. 2021
    (hardness, there beta).
    """
    check_shapes(queries_BD, candidates_CD, positives_BC, temperature)
    # bfloat16 cosines divided by a small temperature would be off by whole units, also under autocast.
    dtype = torch.promote_types(torch.promote_types(queries_BD.dtype, candidates_CD.dtype), torch.float32)
    with torch.autocast(queries_BD.device.type, enabled=False):
        cosines_BC = queries_BD.to(dtype) @ candidates_CD.to(dtype).T
        loss = one_direction(cosines_BC, positives_BC, temperature, false_negative_margin, hardness)
        if not symmetric:
            return loss
        matched_C = positives_BC.any(dim=0)
        backward = one_direction(cosines_BC.T[matched_C], positives_BC.T[matched_C], temperature, false_negative_margin, hardness)
        return (loss + backward) / 2


def one_direction(
    cosines_BC: Tensor, positives_BC: Tensor, temperature: float | Tensor, margin: float | None, hardness: float = 0.0
) -> Tensor:
    """InfoNCE of the rows over the columns; every row has a positive.

    Args:
        cosines_BC: (B, C) of queries and candidates.
        positives_BC: (B, C) bool.
        temperature: scalar, the divisor of cosines.
        margin: leave out negatives that are more similar than the positive by this much; None for all.
        hardness: see `info_nce`.

    Returns:
        A scalar.
    """
    negatives_BC = ~positives_BC
    if margin is not None:
        negatives_BC = negatives_BC & ~_false_negatives(cosines_BC, positives_BC, margin)
    logits_BC = cosines_BC / temperature
    # A row without negatives is given some before logsumexp and is set to -inf after it: the gradient of logsumexp over
    # nothing is NaN, which masking hides in the result but not from torch's anomaly detection.
    alone_B1 = ~negatives_BC.any(dim=1, keepdim=True)
    kept_BC = logits_BC.masked_fill(~(negatives_BC | alone_B1), -torch.inf)
    if hardness:
        counts_B1 = negatives_BC.sum(dim=1, keepdim=True).clamp(min=1).to(kept_BC.dtype)
        kept_BC = kept_BC + (hardness * kept_BC.detach()).log_softmax(dim=1) + counts_B1.log()
    against_B1 = kept_BC.logsumexp(dim=1, keepdim=True).masked_fill(alone_B1, -torch.inf)
    # -log(exp(l) / (exp(l) + exp(n))) = -logsigmoid(l - n), which cannot overflow.
    losses_BC = -functional.logsigmoid(logits_BC - against_B1)
    return (losses_BC.masked_fill(~positives_BC, 0.0).sum(dim=1) / positives_BC.sum(dim=1)).mean()


@torch.no_grad()
def _false_negatives(cosines_BC: Tensor, positives_BC: Tensor, margin: float) -> Tensor:
    """Mark what is closer than the row's lowest positive by more than the margin: (B, C) bool."""
    lowest_B1 = cosines_BC.masked_fill(~positives_BC, torch.inf).amin(dim=1, keepdim=True)
    return cosines_BC > lowest_B1 + margin


def check_shapes(queries_BD: Tensor, candidates_CD: Tensor, positives_BC: Tensor, temperature: float | Tensor) -> None:
    """Refuse what does not fit together.

    Args:
        queries_BD: (B, D).
        candidates_CD: (C, D).
        positives_BC: (B, C) bool.
        temperature: scalar.

    Raises:
        InputError: naming the shape that does not fit.
    """
    queries_shape, candidates_shape = tuple(queries_BD.shape), tuple(candidates_CD.shape)
    if queries_BD.ndim != 2 or candidates_CD.ndim != 2 or queries_BD.shape[1] != candidates_CD.shape[1]:
        raise InputError(f"Queries and candidates must be matrices of one width, not {queries_shape} and {candidates_shape}.")
    if queries_BD.numel() == 0 or candidates_CD.numel() == 0:
        raise InputError(f"Queries and candidates must not be empty; they are {queries_shape} and {candidates_shape}.")
    expected = (len(queries_BD), len(candidates_CD))
    if positives_BC.dtype != torch.bool or positives_BC.shape != expected:
        raise InputError(f"Positives must be bool of shape {expected}, not {positives_BC.dtype} of shape {tuple(positives_BC.shape)}.")
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise InputError(f"The temperature must be one number, not a tensor of shape {tuple(temperature.shape)}.")
    if not temperature > 0:
        raise InputError(f"The temperature must be above 0, not {float(temperature)}.")
    without = (~positives_BC.any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise InputError(f"Every query needs a positive; rows {without[:5]} ({len(without)} in all) have none.")
