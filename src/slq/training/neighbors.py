"""Batches of nearest neighbours: pairs that an encoder takes for one another meet in one step, as each other's hard negatives.

Shapes: P pairs, D hidden size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from slq.pooling import pool
from slq.training.distributed import gather_states
from slq.training.methods import Trainable
from slq.types import Pair

EMBEDDED_AT_ONCE = 512
CHUNK = 16_384  # pairs among which neighbours are looked for: what it costs grows with the pairs times this


@torch.no_grad()
def arrange(trainable: Trainable, pairs: Sequence[Pair], neighbors: int, rank: int, processes: int, rng: random.Random) -> list[int]:
    """The order of pairs for an epoch, by the embeddings of what is learned as it is now.

    Args:
        trainable: what is learned.
        pairs: all pairs; of each the query and its first positive are embedded.
        neighbors: how many pairs each takes along.
        rank: of this process; every process gets the same order.
        processes: how many there are.
        rng: of the order.
    """
    items = [*(pair.query for pair in pairs), *(pair.positives[0] for pair in pairs)]
    vectors = []
    for start in range(0, len(items), EMBEDDED_AT_ONCE):
        states_BND = gather_states(items[start : start + EMBEDDED_AT_ONCE], partial(trainable.states, prefetched={}), rank, processes)
        vectors.append(pool(trainable.encoder.pooling, states_BND).flatten(start_dim=1).cpu().numpy())
    found = np.concatenate(vectors)
    return order_by_neighbors(found[: len(pairs)], found[len(pairs) :], neighbors, rng)


def order_by_neighbors(queries_PD: np.ndarray, positives_PD: np.ndarray, neighbors: int, rng: random.Random) -> list[int]:
    """An order of all pairs in which each group of near ones stands together.

    The pairs are walked in random order; each that is still free takes its nearest free ones along. Two pairs are as near as the nearer of
    their two ways across: the query of one and the positive of the other.

    Args:
        queries_PD: (P, D) float32, each row of length 1.
        positives_PD: (P, D), one positive of each pair.
        neighbors: how many a pair takes along.
        rng: of the walk, and of the order of the groups.

    Returns:
        Every pair's number once.

    Example:
        >>> vectors = np.eye(4, dtype=np.float32)[[0, 1, 0, 1]]
        >>> sorted(sorted(pair) for pair in np.reshape(order_by_neighbors(vectors, vectors, 1, random.Random(0)), (2, 2)).tolist())
        [[0, 2], [1, 3]]
    """
    walk = list(range(len(queries_PD)))
    rng.shuffle(walk)
    groups = []
    for start in range(0, len(walk), CHUNK):
        chunk = np.array(walk[start : start + CHUNK])
        groups += [chunk[group].tolist() for group in _groups(queries_PD[chunk], positives_PD[chunk], neighbors)]
    rng.shuffle(groups)
    return [pair for group in groups for pair in group]


def _groups(queries_PD: np.ndarray, positives_PD: np.ndarray, neighbors: int) -> list[list[int]]:
    """Each pair in turn, if it is still free, with its nearest free ones, nearest first."""
    free = np.ones(len(queries_PD), dtype=bool)
    groups = []
    for pair in range(len(queries_PD)):
        if not free[pair]:
            continue
        free[pair] = False
        others = np.flatnonzero(free)
        near = np.maximum(positives_PD[others] @ queries_PD[pair], queries_PD[others] @ positives_PD[pair])
        taken = others[np.argsort(-near, kind="stable")[:neighbors]]
        free[taken] = False
        groups.append([pair, *taken.tolist()])
    return groups
