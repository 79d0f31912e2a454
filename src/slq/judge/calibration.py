"""From which score on a hit is kept: chosen on a collection's own queries for a wanted precision, and measured on other ones.

A probability of yes is no probability of being right: how often the model is right when it says 0.8 depends on model, question and data.
So the threshold comes from queries whose answers are known, such as captions of the collection's images, with the hits that they found:
wrong hits are then as near to right ones as they will be in use. Beside it stands what the similarity alone would give, with a threshold
chosen in the same way: where judging helps no query, it is better left out.

Shapes: H hits of a query.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slq.encoders.base import Encoder
from slq.errors import InputError
from slq.evaluation.ranking import rank
from slq.evaluation.statistics import Bounds, QueryValues, interval, paired_test
from slq.judge.hits import log_odds
from slq.judge.scoring import Judge
from slq.types import Item, content_hash

HITS = 10
PRECISION = 0.9
WEIGHTS = (0.0, 10.0, 20.0, 40.0, 80.0)  # of a similarity beside the logarithm of the odds


@dataclass(frozen=True)
class Example:
    """A query whose answers are known, with what it found.

    Attributes:
        text: the query.
        items: its hits, best first.
        similarities: of the hits.
        right: places of the hits that are right.
        cluster: the image, or whatever else, that it shares with queries that are not independent of it.
    """

    text: str
    items: tuple[Item, ...]
    similarities: tuple[float, ...]
    right: frozenset[int]
    cluster: str


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval by cluster.

    Attributes:
        value: the mean; NaN where there was nothing to count.
        bounds: of it.
    """

    value: float
    bounds: Bounds

    def __str__(self) -> str:
        """In percent."""
        return f"{100 * self.value:.0f} % ({100 * self.bounds.low:.0f} to {100 * self.bounds.high:.0f})"


@dataclass(frozen=True)
class CutOff:
    """A threshold, and what it does on queries that had no part in choosing it.

    Attributes:
        threshold: the score from which a hit is kept; None if none reaches the wanted precision, so that nothing is cut.
        precision: of the hits that are kept, those that are right.
        coverage: of the queries with a right hit, those that keep one.
        told_nothing: of queries whose right hits were taken away, those that are told that nothing matches.
        first_right: of all queries, those whose first hit is right, before anything is cut.
    """

    threshold: float | None
    precision: Figure
    coverage: Figure
    told_nothing: Figure
    first_right: Figure


@dataclass(frozen=True)
class Calibration:
    """What judging gives, beside what the similarity alone gives.

    Attributes:
        weight: of the similarity in a judged score; see `judge_hits`.
        judged: by the model's answers and the similarity.
        unjudged: by the similarity alone.
        gain: of coverage by judging; without a threshold that reaches the precision, nothing is covered.
        wanted: the precision that was asked for.
        num_queries: on which all this was measured.
        num_failures: hits that could not be judged.
    """

    weight: float
    judged: CutOff
    unjudged: CutOff
    gain: Figure
    wanted: float
    num_queries: int
    num_failures: int

    @property
    def threshold(self) -> float | None:
        """The judged score from which a hit is kept."""
        return self.judged.threshold

    @property
    def helps(self) -> bool:
        """Whether judged scores reach the wanted precision at a coverage that is higher beyond chance."""
        return self.threshold is not None and self.gain.bounds.low > 0


def calibrate(
    judge: Judge, examples: Sequence[Example], precision: float = PRECISION, weights: Sequence[float] = WEIGHTS, seed: int = 0
) -> Calibration:
    """Choose weight and threshold on half of the examples, and measure them on the other half.

    Args:
        judge: with the question that was chosen for the model.
        examples: queries with their hits, 50 and more; see `examples_of`.
        precision: wanted, of the hits that are kept.
        weights: of the similarity, of which the one with the highest coverage at that precision is taken.
        seed: of the halves.

    Returns:
        The lowest threshold that reaches the precision, with what it gives.

    Raises:
        InputError: if there are examples of fewer than two clusters, or precision is not between 0 and 1.
    """
    if not 0 < precision <= 1:
        raise InputError(f"precision must be above 0 and at most 1, not {precision}.")
    clusters = sorted({example.cluster for example in examples})
    if len(clusters) < 2:
        raise InputError(f"A threshold is chosen on some queries and measured on others: {len(clusters)} of them is too few.")
    random.Random(seed).shuffle(clusters)
    first = set(clusters[::2])
    logits = log_odds(judge.scores([(item, example.text) for example in examples for item in example.items]).probabilities)
    parts = np.split(logits, np.cumsum([len(example.items) for example in examples])[:-1])
    both = list(zip(examples, parts, strict=True))
    chosen_on, measured_on = ([each for each in both if (each[0].cluster in first) == chosen] for chosen in (True, False))
    tried = {weight: _chosen([_ranked(*each, weight) for each in chosen_on], precision) for weight in weights}
    weight = max(tried, key=lambda each: tried[each][1:])
    judged = [_ranked(*each, weight) for each in measured_on]
    unjudged = [_by_similarity(example) for example, _ in measured_on]
    similar, _, _ = _chosen([_by_similarity(example) for example, _ in chosen_on], precision)
    return Calibration(
        weight,
        cut_off(judged, tried[weight][0]),
        cut_off(unjudged, similar),
        _gain(judged, tried[weight][0], unjudged, similar),
        precision,
        len(measured_on),
        int(np.isnan(logits).sum()),
    )


@dataclass(frozen=True)
class Ranked:
    """The hits of one query in the order of their scores, best first.

    Attributes:
        right_H: (H,) bool.
        scores_H: (H,) float64.
        cluster: of the query.
    """

    right_H: np.ndarray
    scores_H: np.ndarray
    cluster: str


def lowest_threshold(ranked: Sequence[Ranked], precision: float) -> float | None:
    """The lowest score from which on the wanted fraction of hits is right.

    Args:
        ranked: queries with their hits.
        precision: wanted.

    Returns:
        A score that one of the hits has; None if no threshold reaches the precision.

    Example:
        >>> hits = Ranked(np.array([True, False, True, False]), np.array([9.0, 8.0, 7.0, 2.0]), "a query")
        >>> lowest_threshold([hits], 0.6), lowest_threshold([hits], 0.9), lowest_threshold([hits], 0.5)
        (7.0, 9.0, 2.0)
    """
    right, scores = (np.concatenate([getattr(one, name) for one in ranked]) for name in ("right_H", "scores_H"))
    right, scores = right[np.isfinite(scores)], scores[np.isfinite(scores)]
    order = np.argsort(-scores, kind="stable")
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision
    last_of_equal = np.append(np.diff(scores[order]) < 0, True)[: len(order)]  # equal ones are kept or cut together
    good = np.flatnonzero(reached & last_of_equal)
    return float(scores[order][good[-1]]) if len(good) else None


def cut_off(ranked: Sequence[Ranked], threshold: float | None) -> CutOff:
    """What a threshold does.

    Args:
        ranked: queries with their hits, none of which had a part in choosing the threshold.
        threshold: the score from which a hit is kept; None for keeping all.
    """
    kept = [one.scores_H >= (-np.inf if threshold is None else threshold) for one in ranked]
    both = list(zip(ranked, kept, strict=True))
    of_hit = [one.cluster for one, keeps in both for _ in range(int(keeps.sum()))]
    clusters = [one.cluster for one in ranked]
    return CutOff(
        threshold,
        figure(np.concatenate([one.right_H[keeps] for one, keeps in both]), of_hit),
        figure(_covered(ranked, threshold), [one.cluster for one in ranked if one.right_H.any()]),
        figure([not (~one.right_H & keeps).any() for one, keeps in both], clusters),
        figure([bool(one.right_H[:1].any()) for one in ranked], clusters),
    )


def figure(values: Sequence[bool] | np.ndarray, clusters: Sequence[str]) -> Figure:
    """How often something holds, with its interval.

    Args:
        values: whether it holds, of each.
        clusters: of each.
    """
    if len(values) == 0:
        return Figure(float("nan"), Bounds(0.0, 1.0))
    row = np.asarray(values, dtype=np.float64)
    ((low, high),) = interval([QueryValues(row[None], tuple(clusters))])
    return Figure(float(row.mean()), Bounds(float(low), float(high)))


def examples_of(encoder: Encoder, matches: Sequence[tuple[Item, str]], hits: int = HITS) -> list[Example]:
    """What texts find among the items that they are true of.

    Args:
        encoder: finds.
        matches: items, each with a text that is true of it; equal items and equal texts stand for each other.
        hits: how many of each text.

    Returns:
        One example a text. A text that does not find its item has no right hit.

    Raises:
        BadItemsError: for items that cannot be encoded.
    """
    own = [content_hash(item) or f"unreadable {place}" for place, (item, _) in enumerate(matches)]
    items = dict(zip(own, (item for item, _ in matches), strict=True))
    row_of = {name: row for row, name in enumerate(items)}
    true_of: dict[str, dict[int, int]] = {}
    cluster_of: dict[str, str] = {}
    for name, (_, text) in zip(own, matches, strict=True):
        true_of.setdefault(text, {})[row_of[name]] = 1
        cluster_of.setdefault(text, name)
    corpus = encoder.encode(list(items.values()), list(items)).vectors
    queries = encoder.encode([Item(text) for text in true_of]).vectors
    rankings = rank(queries, corpus, list(true_of.values()), top_k=hits)
    in_order = list(items.values())
    return [
        Example(
            text,
            tuple(in_order[row] for row in ranking.top_K.tolist()),
            tuple(ranking.scores_K.tolist()),
            frozenset(place for place, row in enumerate(ranking.top_K.tolist()) if row in rows),
            cluster_of[text],
        )
        for (text, rows), ranking in zip(true_of.items(), rankings, strict=True)
    ]


def _ranked(example: Example, logits_H: np.ndarray, weight: float) -> Ranked:
    """The hits by the sum of both; those that could not be judged last."""
    scores_H = np.nan_to_num(logits_H + weight * np.asarray(example.similarities), nan=-np.inf)
    order = np.argsort(-scores_H, kind="stable").tolist()
    return Ranked(np.array([place in example.right for place in order], dtype=bool), scores_H[order], example.cluster)


def _by_similarity(example: Example) -> Ranked:
    right_H = np.array([place in example.right for place in range(len(example.items))], dtype=bool)
    return Ranked(right_H, np.asarray(example.similarities, dtype=np.float64), example.cluster)


def _chosen(ranked: Sequence[Ranked], precision: float) -> tuple[float | None, float, float]:
    """A threshold, and on the queries it was chosen on its coverage and how many first hits are right."""
    threshold = lowest_threshold(ranked, precision)
    covered = 0.0 if threshold is None else float(np.mean(_covered(ranked, threshold) or [False]))
    return threshold, covered, float(np.mean([one.right_H[:1].any() for one in ranked]))


def _covered(ranked: Sequence[Ranked], threshold: float | None) -> list[bool]:
    """Of each query with a right hit, whether one is kept."""
    least = -np.inf if threshold is None else threshold
    return [bool((one.right_H & (one.scores_H >= least)).any()) for one in ranked if one.right_H.any()]


def _gain(judged: Sequence[Ranked], threshold: float | None, unjudged: Sequence[Ranked], similar: float | None) -> Figure:
    """The mean difference of coverage, query by query."""
    clusters = tuple(one.cluster for one in judged if one.right_H.any())
    if not clusters:
        return Figure(float("nan"), Bounds(-1.0, 1.0))
    covered = [np.array(_covered(one, least)) & (least is not None) for one, least in ((judged, threshold), (unjudged, similar))]
    difference = covered[0].astype(np.float64) - covered[1]
    ((low, high),) = paired_test([QueryValues(difference[None], clusters)]).bounds_M2
    return Figure(float(difference.mean()), Bounds(float(low), float(high)))
