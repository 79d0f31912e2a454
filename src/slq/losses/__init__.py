"""The training losses: InfoNCE over several positives with hard and false negatives, and the penalty that keeps latents apart.

Shapes: B batch (queries), C candidates, D hidden size, N latent queries, G vectors of one item (late interaction).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from slq.errors import InputError


def info_nce(
    queries_BD: Tensor,
    candidates_CD: Tensor,
    positives_BC: Tensor,
    temperature: float | Tensor,
    *,
    symmetric: bool = True,
    false_negative_margin: float | None = None,
) -> Tensor:
    """Return the InfoNCE loss: each positive against the negatives of its query, the query's other positives left out.

    queries_BD: (B, D) and candidates_CD: (C, D), each row of length 1. positives_BC: (B, C) bool; a hard negative is a candidate
    that is positive for no query. temperature: divisor of the cosines. symmetric: average with the other direction, in which each
    candidate that has a positive query is matched against all queries. false_negative_margin: leave out negatives whose cosine
    exceeds that of the lowest positive by more than this.
    Returns a scalar, float32 (float64 for float64 embeddings): the mean over queries of the mean over their positives.
    Raises InputError (a ValueError) if shapes or dtypes do not fit, the temperature is not above 0 or a query has no positive.
    Source: van den Oord et al. 2018 (InfoNCE); Qwen3-VL-Embedding technical report (false negatives, margin 0.1).
    """
    _check(queries_BD, candidates_CD, positives_BC, temperature)
    # bfloat16 cosines divided by a small temperature would be off by whole units, also under autocast.
    dtype = torch.promote_types(torch.promote_types(queries_BD.dtype, candidates_CD.dtype), torch.float32)
    with torch.autocast(queries_BD.device.type, enabled=False):
        cosines_BC = queries_BD.to(dtype) @ candidates_CD.to(dtype).T
        loss = _one_direction(cosines_BC, positives_BC, temperature, false_negative_margin)
        if not symmetric:
            return loss
        matched_C = positives_BC.any(dim=0)
        backward = _one_direction(cosines_BC.T[matched_C], positives_BC.T[matched_C], temperature, false_negative_margin)
        return (loss + backward) / 2


def late_interaction_nce(
    queries_BGD: Tensor,
    candidates_CGD: Tensor,
    positives_BC: Tensor,
    temperature: float | Tensor,
    false_negative_margin: float | None = None,
) -> Tensor:
    """Return the symmetric InfoNCE loss of items that are compared by late interaction; see `info_nce` for the rest.

    queries_BGD: (B, G, D) and candidates_CGD: (C, G, D), each vector of length 1. Each direction asks from its own side: the similarity of
    a candidate to a query is not that of the query to the candidate. Source: Khattab and Zaharia 2020 (ColBERT); MetaEmbed (groups).
    """
    _check(queries_BGD[:, 0], candidates_CGD[:, 0], positives_BC, temperature)
    with torch.autocast(queries_BGD.device.type, enabled=False):
        queries_BGD, candidates_CGD = queries_BGD.float(), candidates_CGD.float()
        forward = _one_direction(late_interaction(queries_BGD, candidates_CGD), positives_BC, temperature, false_negative_margin)
        matched_C = positives_BC.any(dim=0)
        asked_back_CB = late_interaction(candidates_CGD[matched_C], queries_BGD)
        return (forward + _one_direction(asked_back_CB, positives_BC.T[matched_C], temperature, false_negative_margin)) / 2


def late_interaction(queries_BGD: Tensor, candidates_CGD: Tensor) -> Tensor:
    """Return similarities (B, C): the mean, over a query's vectors, of the best cosine with any vector of the candidate.

    The vectors of a query take turns, so that no more than B x C x G products are in memory at once.
    """
    best = [torch.einsum("bd,cgd->bcg", vectors_BD, candidates_CGD).amax(dim=2) for vectors_BD in queries_BGD.unbind(dim=1)]
    return torch.stack(best).mean(dim=0)


def orthogonality_penalty(states_BND: Tensor) -> Tensor:
    """Return the mean squared cosine between different latent output states of an item: 0 if orthogonal, 1 if all equal.

    states_BND: (B, N, D), of any length. Returns a scalar, float32 (float64 for float64 states); 0 for N = 1.
    Raises InputError (a ValueError) if the shape is not (B, N, D) or there are no states.
    """
    if states_BND.ndim != 3 or states_BND.numel() == 0:
        raise InputError(f"Latent states must be (batch, latents, hidden) and not empty, not {tuple(states_BND.shape)}.")
    batch, num_latents, _ = states_BND.shape
    dtype = torch.promote_types(states_BND.dtype, torch.float32)
    with torch.autocast(states_BND.device.type, enabled=False):
        units_BND = functional.normalize(states_BND.to(dtype), dim=-1)
        cosines_BNN = units_BND @ units_BND.mT
        itself_NN = torch.eye(num_latents, dtype=torch.bool, device=states_BND.device)
        # Dividing by at least 1 keeps N = 1 a plain 0 that can still be differentiated.
        return cosines_BNN.masked_fill(itself_NN, 0.0).square().sum() / max(batch * num_latents * (num_latents - 1), 1)


def _one_direction(cosines_BC: Tensor, positives_BC: Tensor, temperature: float | Tensor, margin: float | None) -> Tensor:
    """InfoNCE of the rows over the columns; every row has a positive."""
    negatives_BC = ~positives_BC
    if margin is not None:
        negatives_BC = negatives_BC & ~_false_negatives(cosines_BC, positives_BC, margin)
    logits_BC = cosines_BC / temperature
    # A row without negatives is given some before logsumexp and is set to -inf after it: the gradient of logsumexp over
    # nothing is NaN, which masking hides in the result but not from torch's anomaly detection.
    alone_B1 = ~negatives_BC.any(dim=1, keepdim=True)
    kept_BC = logits_BC.masked_fill(~(negatives_BC | alone_B1), -torch.inf)
    against_B1 = kept_BC.logsumexp(dim=1, keepdim=True).masked_fill(alone_B1, -torch.inf)
    # -log(exp(l) / (exp(l) + exp(n))) = -logsigmoid(l - n), which cannot overflow.
    losses_BC = -functional.logsigmoid(logits_BC - against_B1)
    return (losses_BC.masked_fill(~positives_BC, 0.0).sum(dim=1) / positives_BC.sum(dim=1)).mean()


@torch.no_grad()
def _false_negatives(cosines_BC: Tensor, positives_BC: Tensor, margin: float) -> Tensor:
    """Mark what is closer than the row's lowest positive by more than the margin: (B, C) bool."""
    lowest_B1 = cosines_BC.masked_fill(~positives_BC, torch.inf).amin(dim=1, keepdim=True)
    return cosines_BC > lowest_B1 + margin


def _check(queries_BD: Tensor, candidates_CD: Tensor, positives_BC: Tensor, temperature: float | Tensor) -> None:
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
