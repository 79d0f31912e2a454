"""What a collection is like: rows that are nearly the same, rows that come up for everything, rows that are like no other, and a map.

All of it from the vectors alone, of all rows or of a sample.

Shapes: N rows, D values of a vector, K neighbours, C clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slq.errors import InputError

K = 10
_ROWS_AT_ONCE = 1024
MOST_CLUSTERS = 12


@dataclass(frozen=True)
class Group:
    """Rows that are nearly the same.

    Attributes:
        places: of the rows, in order.
        cosine: the lowest of the pairs that hold the group together.
    """

    places: tuple[int, ...]
    cosine: float


@dataclass(frozen=True)
class Cluster:
    """Rows that lie together.

    Attributes:
        places: of the rows, the one nearest to the middle first.
        centre: (2,) where it lies on the map.
    """

    places: tuple[int, ...]
    centre: tuple[float, float]


@dataclass(frozen=True)
class Survey:
    """What was found; places are those of the vectors that were given.

    Attributes:
        groups: of nearly equal rows, largest first.
        occurrences: (N,) among the K nearest of how many other rows each is; K on average.
        nearness: (N,) mean cosine with the K nearest.
        positions: (N, 2) on the map, from -1 to 1.
        explained: fraction of the vectors' variance that the map shows.
        clusters: largest first.
    """

    groups: tuple[Group, ...]
    occurrences: np.ndarray
    nearness: np.ndarray
    positions: np.ndarray
    explained: float
    clusters: tuple[Cluster, ...]

    @property
    def held_by_hubs(self) -> float:
        """The fraction of the places among nearest rows that the hundredth of the rows with most of them holds; 0.01 if all are alike."""
        most = np.sort(self.occurrences)[::-1][: max(1, round(len(self.occurrences) / 100))]
        return float(most.sum() / max(1, self.occurrences.sum()))

    def hubs(self, count: int) -> list[int]:
        """The rows that come up most often, those with more than three times their share.

        Args:
            count: how many, at most.
        """
        order = np.argsort(-self.occurrences, kind="stable")[:count].tolist()
        return [place for place in order if self.occurrences[place] > 3 * K]

    def outliers(self, count: int) -> list[int]:
        """The rows that are least like any other.

        Args:
            count: how many.
        """
        return np.argsort(self.nearness, kind="stable")[:count].tolist()


def survey(vectors_ND: np.ndarray, near: float, seed: int = 0, progress: Callable[[int], None] = lambda count: None) -> Survey:
    """Look at vectors as a whole.

    Args:
        vectors_ND: of length 1.
        near: the cosine from which on two rows are nearly the same.
        seed: of the clusters.
        progress: called with the number of rows just compared.

    Raises:
        InputError: for fewer than three rows.
    """
    if len(vectors_ND) < 3:
        raise InputError(f"A collection of {len(vectors_ND)} rows has no neighbours, hubs or map: index three and more.")
    places_NK, scores_NK = _nearest(vectors_ND, progress)
    count = np.bincount(places_NK.ravel(), minlength=len(vectors_ND))
    positions, explained = _map(vectors_ND)
    return Survey(
        _groups(places_NK, scores_NK, near),
        count,
        scores_NK.mean(axis=1),
        positions,
        explained,
        _clusters(vectors_ND, positions, seed),
    )


def _nearest(vectors_ND: np.ndarray, progress: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other rows of each row, and their cosines, best first."""
    number, k = len(vectors_ND), min(K, len(vectors_ND) - 1)
    places, scores = np.zeros((number, k), np.int64), np.zeros((number, k), np.float32)
    for start in range(0, number, _ROWS_AT_ONCE):
        product = vectors_ND[start : start + _ROWS_AT_ONCE] @ vectors_ND.T
        rows = np.arange(len(product))
        product[rows, start + rows] = -np.inf  # itself
        best = np.argpartition(product, -k, axis=1)[:, -k:]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(product, best, axis=1), axis=1, kind="stable"), axis=1)
        places[start : start + len(product)], scores[start : start + len(product)] = best, np.take_along_axis(product, best, axis=1)
        progress(len(product))
    return places, scores


def _groups(places_NK: np.ndarray, scores_NK: np.ndarray, near: float) -> tuple[Group, ...]:
    """Rows that are held together by pairs of at least this cosine."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, ranks = np.nonzero(scores_NK >= near)
    others = places_NK[rows, ranks]
    number = len(places_NK)
    _, label_N = connected_components(coo_array((np.ones(len(rows)), (rows, others)), shape=(number, number)), directed=False)
    lowest: dict[int, float] = {}
    for row, cosine in zip(rows.tolist(), scores_NK[rows, ranks].tolist(), strict=True):
        lowest[int(label_N[row])] = min(cosine, lowest.get(int(label_N[row]), 1.0))
    groups = [Group(tuple(np.flatnonzero(label_N == label).tolist()), cosine) for label, cosine in lowest.items()]
    return tuple(sorted(groups, key=lambda group: (-len(group.places), group.places)))


def _map(vectors_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """The plane that shows most of the vectors' differences, and how much of them (principal components)."""
    centred = vectors_ND - vectors_ND.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    plane = centred @ axes[:, ::-1][:, :2]
    return plane / max(float(np.abs(plane).max()), 1e-12), float(values[-2:].sum() / max(float(values.sum()), 1e-12))


def _clusters(vectors_ND: np.ndarray, positions: np.ndarray, seed: int) -> tuple[Cluster, ...]:
    from scipy.cluster.vq import kmeans2

    number = max(2, min(MOST_CLUSTERS, round(np.sqrt(len(vectors_ND) / 2))))
    means, label_N = kmeans2(vectors_ND.astype(np.float64), number, minit="++", rng=np.random.default_rng(seed), missing="warn")
    found = []
    for label in np.unique(label_N).tolist():
        members = np.flatnonzero(label_N == label)
        order = members[np.argsort(-(vectors_ND[members] @ means[label]), kind="stable")]
        x, y = positions[members].mean(axis=0).tolist()
        found.append(Cluster(tuple(order.tolist()), (x, y)))
    return tuple(sorted(found, key=lambda cluster: -len(cluster.places)))
