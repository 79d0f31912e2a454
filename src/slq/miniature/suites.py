"""Understanding suites: questions with one right answer about held-out scenes and phrasings, answered by the model's own `generate`.

knowledge   what is <a fact in a phrasing no training uses>?     -> the concept
spatial     colour, count, position, yes/no about an image       -> a word
reading     what does the sign say?                              -> the word
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from slq.miniature.export import split_scenes
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.language import questions
from slq.miniature.world.scenes import render, sample_scene, split_of
from slq.models import FrozenModel
from slq.types import Item

SPATIAL_KINDS = ("colour", "count", "position", "yes/no")
BATCH = 32


@dataclass(frozen=True)
class Question:
    """A question, with or without an image, and the one right answer.

    Attributes:
        kind: what it is scored under besides all.
        item: the question's text, and its image if it has one.
        answer: lower case, without a full stop.
    """

    kind: str
    item: Item
    answer: str


def knowledge_suite(count: int, seed: int = 0) -> list[Question]:
    """`count` facts in their benchmark phrasing, as questions.

    Args:
        count: how many.
        seed: of which and in which order.
    """
    facts = random.Random(f"knowledge {seed}").sample(all_facts(), count)
    return [Question(fact.category, Item(f"what is {fact.benchmark_phrasing}?"), concepts()[fact.concept].singular) for fact in facts]


def spatial_suite(count: int, seed: int = 0) -> list[Question]:
    """As many questions of each kind, about scenes of the test split.

    Args:
        count: how many.
        seed: of the scenes.
    """
    rng = random.Random(f"spatial {seed}")
    chosen: list[Question] = []
    for place, sample in enumerate(split_scenes("test", 3 * count, seed)):
        kind = SPATIAL_KINDS[len(chosen) % len(SPATIAL_KINDS)]
        fitting = [(text, answer) for found, text, answer in questions(sample.scene, rng) if found == kind]
        if fitting and len(chosen) < count and place % 2 == 0:
            text, answer = rng.choice(fitting)
            chosen.append(Question(kind, Item(text, render(sample.scene)), answer))
    return chosen


def reading_suite(count: int, seed: int = 0) -> list[Question]:
    """Scenes of the test split with a sign in place of one group, as many of one, two and three groups.

    A sign alone has few contents (words times backgrounds), so that one may come twice, with another seed.

    Args:
        count: how many.
        seed: of the scenes.
    """
    rng = random.Random(f"reading {seed}")
    chosen: list[Question] = []
    while len(chosen) < count:
        scene = sample_scene(rng, len(chosen) % 3 + 1, signs=1.0)
        if split_of(scene) == "test":
            word = next(group.word for group in scene.groups if group.word)
            chosen.append(Question("read", Item("what does the sign say?", render(scene)), word))
    return chosen


SUITES: dict[str, Callable[[int, int], list[Question]]] = {
    "knowledge": knowledge_suite,
    "spatial": spatial_suite,
    "reading": reading_suite,
}


def score(
    model: FrozenModel, suite: list[Question], progress: Callable[[int], None] = lambda count: None
) -> tuple[float, dict[str, float]]:
    """Accuracy of greedy answers; an answer counts if it equals the right one letter for letter.

    Args:
        model: answers the questions.
        suite: the questions.
        progress: called with the number of questions of each batch.

    Returns:
        The accuracy over all questions, and by kind.
    """
    right: dict[str, list[bool]] = {}
    for start in range(0, len(suite), BATCH):
        batch = suite[start : start + BATCH]
        answers = model.generate([[model.message(question.item)] for question in batch], max_new_tokens=12)
        for question, answer in zip(batch, answers, strict=True):
            right.setdefault(question.kind, []).append(answer == question.answer)
        progress(len(batch))
    total = [flag for flags in right.values() for flag in flags]
    return sum(total) / len(total), {kind: sum(flags) / len(flags) for kind, flags in right.items()}
