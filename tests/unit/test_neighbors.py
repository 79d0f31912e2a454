"""Batches of nearest neighbours: every pair once, near ones together."""

from __future__ import annotations

import random

import numpy as np
import pytest

from slq.training.neighbors import order_by_neighbors


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("pairs", "neighbors"), [(1, 7), (2, 7), (23, 3), (64, 7)])
def test_every_pair_stands_in_the_order_once(pairs, neighbors):
    rng = np.random.default_rng(0)
    queries, positives = unit(rng.normal(size=(pairs, 6))), unit(rng.normal(size=(pairs, 6)))
    assert sorted(order_by_neighbors(queries, positives, neighbors, random.Random(0))) == list(range(pairs))


def test_near_pairs_stand_together():
    """Of eight directions, eight pairs each; a pair is near where its query meets the other's positive."""
    directions = np.eye(8, dtype=np.float32)
    kind = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 8))
    noise = np.random.default_rng(2).normal(scale=0.05, size=(2, 64, 8))
    order = order_by_neighbors(unit(directions[kind] + noise[0]), unit(directions[kind] + noise[1]), 7, random.Random(0))
    groups = [set(kind[order[start : start + 8]]) for start in range(0, 64, 8)]
    assert [len(group) for group in groups] == [1] * 8 and set.union(*groups) == set(range(8))


def test_the_nearer_of_both_ways_counts():
    """The query of pair 0 is near the positive of pair 1 alone, and the positive of pair 2 near the query of pair 3 alone."""
    queries = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, -1], [0, 1, 0, 0]], dtype=np.float32)
    positives = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]], dtype=np.float32)
    order = order_by_neighbors(queries, positives, 1, random.Random(0))
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 1}), frozenset({2, 3})}


def test_the_order_depends_on_the_random_numbers_alone():
    queries = unit(np.random.default_rng(0).normal(size=(40, 4)))
    orders = [order_by_neighbors(queries, queries, 3, random.Random(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
