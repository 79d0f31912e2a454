"""Pairs that are split off, and how well an encoder retrieves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from slq.config import TrainConfig
from slq.data import Matches, unique
from slq.encoders.base import Encoder
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import rank
from slq.types import Item, Pair

MOST = 500  # pairs that a fraction splits off
CUTOFFS = (1, 5)


def split_validation(pairs: Sequence[Pair], config: TrainConfig) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into training and validation, at random.

    Args:
        pairs: at least two of them stay for training.
        config: `validation_split`, or `validation_size`, and `seed`.

    Returns:
        Training pairs and validation pairs, each in their order.
    """
    count = min(MOST, int(config.validation_split * len(pairs))) if config.validation_size is None else config.validation_size
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(config.seed)).tolist()
    chosen = set(order[: min(count, max(0, len(pairs) - 2))])
    return [pair for i, pair in enumerate(pairs) if i not in chosen], [pairs[i] for i in sorted(chosen)]


@torch.no_grad()
def validate(encoder: Encoder, pairs: Sequence[Pair]) -> dict[str, float]:
    """Retrieve each pair's first positive by its query, and back; equal items are encoded once, so that they tie.

    Args:
        encoder: as it is now.
        pairs: what else a query matches (see `data.Matches`) counts as found, too.

    Returns:
        For each way, `val/query_to_positive/hit@1` and so on, as fractions; `.../random_hit@1`, what a random ranking hits; and
        `.../queries`, how many there are.
    """
    queries, positives = (_encoded(encoder, items) for items in ([pair.query for pair in pairs], [pair.positives[0] for pair in pairs]))
    matches = Matches(pairs)
    first = [matches.key(pair.positives[0]) for pair in pairs]
    relevant_QP = np.array([[key in own for key in first] for own in (matches.of(pair.query) for pair in pairs)])
    found = {
        "query_to_positive": _hits(queries, positives, relevant_QP),
        "positive_to_query": _hits(positives, queries, relevant_QP.T),
    }
    names = ["queries", *[f"{metric}@{k}" for metric in ("hit", "random_hit") for k in CUTOFFS]]
    return {f"val/{way}/{name}": metrics[name] for way, metrics in found.items() for name in names}


def _encoded(encoder: Encoder, items: Sequence[Item]) -> np.ndarray:
    """Vectors of the items; equal ones in other batches would differ in their last digits, and luck would decide between them."""
    contents = [item.content_hash for item in items]
    row_of = {content: row for row, content in enumerate(dict.fromkeys(contents))}
    vectors = encoder.encode(unique(items)).vectors
    return vectors[[row_of[content] for content in contents]]


def _hits(queries: np.ndarray, corpus: np.ndarray, relevant_QC: np.ndarray) -> dict[str, float]:
    """Metrics of queries (Q, D) against a corpus (C, D)."""
    judged = [{int(position): 1 for position in np.flatnonzero(relevant_C)} for relevant_C in relevant_QC]
    ranked = rank(queries, corpus, judged)
    queries_found = [RelevantRanks(one.ranks_R, np.ones(len(one.ranks_R), dtype=int)) for one in ranked]
    return from_ranks(queries_found, CUTOFFS, [len(corpus)] * len(queries))
