"""Hits judged: put in another order by what the model says of each, and cut where it says no.

An embedding ranks, and has no opinion on whether the first is right; a yes or no has. So a query that nothing answers can be told so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slq.errors import InputError
from slq.judge.scoring import Judge
from slq.types import Item

MOST_LOGIT = 30.0  # a probability so near 0 or 1 says no more


@dataclass(frozen=True)
class JudgedHit:
    """One hit.

    Attributes:
        place: where it stood before it was judged, from 0.
        probability: of yes; None for one that could not be judged.
        score: what the order is by: the logarithm of the odds of yes, and the similarity by its weight; None as the probability.
        reason: why it could not be judged; empty if it could.
    """

    place: int
    probability: float | None
    score: float | None
    reason: str = ""


@dataclass(frozen=True)
class JudgedHits:
    """All hits of a query.

    Attributes:
        kept: those that are not cut, best first, and behind them those that could not be judged, in the order they had.
        cut: those whose score is below the threshold, best first.
    """

    kept: tuple[JudgedHit, ...]
    cut: tuple[JudgedHit, ...]

    @property
    def nothing_matches(self) -> bool:
        """Whether there were hits, all were judged, and all were cut."""
        return bool(self.cut) and not self.kept

    @property
    def places(self) -> list[int]:
        """Where the hits that are kept stood, in their new order."""
        return [hit.place for hit in self.kept]


def judge_hits(
    judge: Judge,
    query: Item,
    items: Sequence[Item],
    similarities: Sequence[float] | None = None,
    weight: float = 0.0,
    threshold: float | None = None,
) -> JudgedHits:
    """Ask of every hit whether it answers the query.

    Args:
        judge: with the question that was chosen for the model.
        query: a text; or an image, where the hits are texts. Of a riddle better its rewriting: a model that knows the answer may still not
            know it by the riddle.
        items: the hits, best first.
        similarities: of the hits to the query, for a weight above 0.
        weight: what a similarity of 1 counts beside the logarithm of the odds of yes; see `calibrate`.
        threshold: the score below which a hit is cut, such as `calibrate` found; None cuts nothing.

    Returns:
        The hits in their new order; equal ones in the order they had.

    Raises:
        InputError: for a query that cannot be put as a question: an image, with or without text, for hits that are no texts (`rewrite` says
            in words what it asks for); or without the similarities that a weight needs.
    """
    if weight and (similarities is None or len(similarities) != len(items)):
        raise InputError(f"A weight of similarities needs one of each of the {len(items)} hits.")
    answers = judge.scores(_asked(query, items))
    scores = log_odds(answers.probabilities) + weight * np.asarray(similarities if weight else 0.0)
    hits = [
        JudgedHit(place, float(answers.probabilities[place]), float(scores[place]))
        for place in np.argsort(-scores, kind="stable").tolist()
        if place not in answers.failures
    ]
    unjudged = [JudgedHit(place, None, None, answers.failures[place]) for place in sorted(answers.failures)]
    least = -np.inf if threshold is None else threshold
    kept = [hit for hit in hits if hit.score is not None and hit.score >= least]
    return JudgedHits((*kept, *unjudged), tuple(hits[len(kept) :]))


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Logarithm of the odds of each probability, from -30 to 30; NaN stays.

    Args:
        probabilities: (N,), from 0 to 1.

    Example:
        >>> log_odds(np.array([0.5, 1.0]))
        array([ 0., 30.])
    """
    with np.errstate(divide="ignore"):
        return (np.log(probabilities) - np.log1p(-probabilities)).clip(-MOST_LOGIT, MOST_LOGIT)


def _asked(query: Item, items: Sequence[Item]) -> list[tuple[Item, str]]:
    """Items with the texts that they are asked about: the query's about each hit, or each hit's about the query."""
    if query.image is None and query.text is not None:
        return [(item, query.text) for item in items]
    if query.text is None and all(item.image is None for item in items):
        return [(query, item.text or "") for item in items]
    raise InputError("A judge is asked whether a text is true of an item, and this query has an image: let the model rewrite it in words.")
