"""Which question a model judges best by: tried on pairs of items and texts, and measured on pairs that had no part in the choice.

Models differ in what they understand: a question in the very words of its training may reach an AUC of 0.9 where another one, as clear to
a person, is at chance. A model without any question that works says so here, in place of cutting right hits later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slq.cache import KVCache
from slq.encoders.reuse import PrefixReuse
from slq.errors import Failure, InputError
from slq.evaluation.auc import auc
from slq.evaluation.statistics import Bounds
from slq.judge.scoring import QUESTIONS, Judge, Question
from slq.models import FrozenModel
from slq.types import Item, Pair, content_hash

LEAST_AUC = 0.7  # what a question's interval must lie above to be of use
NEGATIVES = 2  # texts of others that each item is asked about
WORTH_READING_AGAIN = 0.02  # of AUC: what a question that cannot use kept prefixes must be better by


@dataclass(frozen=True)
class QuestionChoice:
    """The question that was chosen, and what it is worth.

    Attributes:
        question: the best of those that were tried.
        auc: probability that it says yes to a match more surely than to another text, on items that had no part in the choice.
        bounds: 95 % interval of it, by item.
        tried: AUC of every question on the items that the choice was made on.
        num_items: on which the chosen one was measured.
        failures: items that could not be judged, by their place from 0.
    """

    question: Question
    auc: float
    bounds: Bounds
    tried: Mapping[Question, float]
    num_items: int
    failures: tuple[Failure, ...] = ()

    @property
    def works(self) -> bool:
        """Whether the model can judge: the interval lies above 0.7."""
        return self.bounds.low > LEAST_AUC

    def __str__(self) -> str:
        """What was found, as a person reads it."""
        measured = f"AUC {self.auc:.2f} ({self.bounds.low:.2f} to {self.bounds.high:.2f})"
        best = f"{self.question.wording!r}, {measured}"
        return best if self.works else f"this model cannot judge: its best of {len(self.tried)} questions is {best}"


def matching(pairs: Sequence[Pair]) -> list[tuple[Item, str]]:
    """Pairs as a judge takes them: the side with an image, and the first text of the other.

    Args:
        pairs: of images with texts, or of texts with images or texts.

    Returns:
        One item with its text for each pair that has both.
    """
    found = []
    for pair in pairs:
        text = next((each.text for each in pair.positives if each.image is None and each.text is not None), None)
        if pair.query.image is None and pair.query.text is not None:
            found.append((pair.positives[0], pair.query.text))
        elif text is not None:
            found.append((pair.query, text))
    return found


def choose_question(
    model: FrozenModel,
    matches: Sequence[tuple[Item, str]],
    questions: Sequence[Question] = QUESTIONS,
    negatives: int = NEGATIVES,
    seed: int = 0,
    reuse: PrefixReuse | None = None,
    progress: Callable[[Question], None] = lambda question: None,
) -> QuestionChoice:
    """Try questions on half of the items, and measure the best of them on the other half.

    Args:
        model: the frozen model.
        matches: items, each with a text that is true of it: of data that nothing was learned on, 30 and more.
        questions: to choose from.
        negatives: texts of other items that each is asked about beside its own.
        seed: of the halves, and of which other texts.
        reuse: where prefixes come from; None keeps them in memory until all questions are tried.
        progress: called with each question that is tried.

    Returns:
        The choice; see `QuestionChoice.works`.

    Raises:
        InputError: if fewer than four different items with different texts are given, or hardly any can be judged.
        ModelError: for a model whose tokens do not tell yes from no.
    """
    true_of: dict[str, set[str]] = {}
    for item, text in matches:
        true_of.setdefault(content_hash(item) or "", set()).add(text)
    halves = [_with_others(half, true_of, negatives, seed) for half in _halves(matches, seed)]
    reuse = reuse or PrefixReuse(model, KVCache(), generation_prompt=True)
    tried: dict[Question, float] = {}
    for question in questions:
        progress(question)
        tried[question] = _measure(Judge(model, question, reuse), halves[0])[0]
    best = max(tried, key=lambda question: tried[question] + question.item_first * WORTH_READING_AGAIN)
    area, bounds, failures = _measure(Judge(model, best, reuse), halves[1])
    return QuestionChoice(best, area, bounds, tried, len({asked.place for asked in halves[1]}), failures)


@dataclass(frozen=True)
class _Asked:
    """An item by its place, a text, and whether that is its own."""

    place: int
    item: Item
    text: str
    match: bool


def _halves(matches: Sequence[tuple[Item, str]], seed: int) -> tuple[list[_Asked], list[_Asked]]:
    """Items with their own texts in two halves at random, each item once."""
    once: dict[str, _Asked] = {}
    for place, (item, text) in enumerate(matches):
        once.setdefault(content_hash(item) or f"unreadable {place}", _Asked(place, item, text, match=True))
    order = list(once.values())
    random.Random(seed).shuffle(order)
    halves = order[::2], order[1::2]
    if any(len({each.text for each in half}) < 2 for half in halves):
        raise InputError(f"A question is chosen on four items and more with different texts, and {len(once)} were given.")
    return halves


def _with_others(half: Sequence[_Asked], true_of: Mapping[str, set[str]], negatives: int, seed: int) -> list[_Asked]:
    """Every item with its own text, and with texts of others that are not known to be true of it too."""
    rng, texts = random.Random(f"others {seed}"), sorted({each.text for each in half})
    asked = []
    for own in half:
        others = [text for text in texts if text not in true_of[content_hash(own.item) or ""]]
        chosen = rng.sample(others, min(negatives, len(others)))
        asked += [own, *(replace(own, text=other, match=False) for other in chosen)]
    return asked


def _measure(judge: Judge, asked: Sequence[_Asked]) -> tuple[float, Bounds, tuple[Failure, ...]]:
    """AUC of a judge, its interval by item, and what could not be judged."""
    scores = judge.scores([(each.item, each.text) for each in asked])
    usable = [row for row in range(len(asked)) if row not in scores.failures]
    matches = np.array([asked[row].match for row in usable], dtype=bool)
    failures = tuple(Failure(f"item {asked[row].place}", reason) for row, reason in scores.failures.items() if asked[row].match)
    if not matches.any() or matches.all():
        raise InputError(f"Hardly any item can be judged: {'; '.join(map(str, failures[:3]))}")
    area, bounds = auc(scores.probabilities[usable], matches, [str(asked[row].place) for row in usable])
    return area, bounds, failures
