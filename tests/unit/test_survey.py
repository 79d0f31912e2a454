"""What is said of a collection as a whole, against all pairs of its rows."""

from __future__ import annotations

import numpy as np
import pytest

from slq.errors import InputError
from slq.index.survey import K, survey


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Three heaps, with rows that are nearly the same, one in the middle of all, and one like none."""
    draw = np.random.default_rng(3)
    heaps = [np.eye(16)[heap] + 0.2 * draw.normal(size=(40, 16)) for heap in range(3)]
    middle, other = np.ones(16) * [1, 1, 1, *[0] * 13], -np.eye(16)[9]
    rows = np.concatenate([*heaps, middle[None], other[None], heaps[0][:2] + 0.001, heaps[0][:1] - 0.001])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_neighbours_groups_hubs_and_outliers_are_those_of_all_pairs(vectors):
    compared: list[int] = []
    found = survey(vectors, near=0.995, progress=compared.append)
    cosines = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :K]
    assert np.array_equal(found.occurrences, np.bincount(nearest.ravel(), minlength=len(vectors)))
    assert np.allclose(found.nearness, np.take_along_axis(cosines, nearest, axis=1).mean(axis=1), atol=1e-6)
    assert [group.places for group in found.groups] == [(0, 122, 124), (1, 123)] and sum(compared) == len(vectors)
    assert found.groups[0].cosine == pytest.approx(min(cosines[0, 122], cosines[0, 124], cosines[122, 124]), abs=1e-5)
    assert found.outliers(1) == [121] and 0.01 < found.held_by_hubs < 0.2
    most = int(np.argmax(found.occurrences))
    assert found.hubs(3) == ([most] if found.occurrences[most] > 3 * K else [])


def test_a_row_that_is_near_to_all_is_a_hub():
    draw = np.random.default_rng(0)
    spread = draw.normal(size=(300, 64))
    rows = np.concatenate([spread / np.linalg.norm(spread, axis=1, keepdims=True) + 0.3 * np.eye(64)[0], np.eye(64)[:1]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = survey(rows.astype(np.float32), near=0.99)
    assert found.hubs(1) == [300] and found.occurrences[300] > 100 and found.held_by_hubs > 0.05


def test_heaps_are_clusters_and_lie_apart_on_the_map(vectors):
    found = survey(vectors, near=0.99)
    assert found.positions.shape == (len(vectors), 2) and np.abs(found.positions).max() == pytest.approx(1) and 0.1 < found.explained < 1
    assert sorted(place for cluster in found.clusters for place in cluster.places) == list(range(len(vectors)))
    for cluster in found.clusters:
        heaps = {place // 40 for place in cluster.places if place < 120}
        assert len(heaps) <= 1 or len(cluster.places) < 6
        assert np.allclose(cluster.centre, found.positions[list(cluster.places)].mean(axis=0))
    assert [each.places for each in survey(vectors, near=0.99).clusters] == [each.places for each in found.clusters], "the seed decides"


def test_two_rows_are_no_collection(vectors):
    with pytest.raises(InputError, match="A collection of 2 rows has no neighbours"):
        survey(vectors[:2], near=0.9)
