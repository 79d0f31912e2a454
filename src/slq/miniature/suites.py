"""Understanding suites: what the miniature knows, sees and reads, asked through its own `generate` on held-out scenes and phrasings.

knowledge   what is <a fact in a phrasing no training uses>?     -> the concept
spatial     colour, count, position, yes/no about an image      -> a word
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
    """What is asked, with or without an image, and the one right answer."""

    kind: str
    item: Item
    answer: str


def knowledge_suite(count: int, seed: int = 0) -> list[Question]:
    """Facts in their benchmark phrasing, in question form."""
    facts = random.Random(f"knowledge {seed}").sample(all_facts(), count)
    return [Question(fact.category, Item(f"what is {fact.benchmark_phrasing}?"), concepts()[fact.concept].singular) for fact in facts]


def spatial_suite(count: int, seed: int = 0) -> list[Question]:
    """As many questions of each kind, about scenes of the test split."""
    rng = random.Random(f"spatial {seed}")
    asked: list[Question] = []
    for place, drawn in enumerate(split_scenes("test", 3 * count, seed)):
        kind = SPATIAL_KINDS[len(asked) % len(SPATIAL_KINDS)]
        fitting = [(text, answer) for found, text, answer in questions(drawn.scene, rng) if found == kind]
        if fitting and len(asked) < count and place % 2 == 0:
            text, answer = rng.choice(fitting)
            asked.append(Question(kind, Item(text, render(drawn.scene)), answer))
    return asked


def reading_suite(count: int, seed: int = 0) -> list[Question]:
    """Scenes of the test split with a sign in the place of one group, as many of one, two and three groups.

    A sign alone has few contents (words times backgrounds), so the same one may come twice, drawn otherwise.
    """
    rng = random.Random(f"reading {seed}")
    asked: list[Question] = []
    while len(asked) < count:
        scene = sample_scene(rng, len(asked) % 3 + 1, signs=1.0)
        if split_of(scene) == "test":
            word = next(group.word for group in scene.groups if group.word)
            asked.append(Question("read", Item("what does the sign say?", render(scene)), word))
    return asked


SUITES: dict[str, Callable[[int, int], list[Question]]] = {
    "knowledge": knowledge_suite,
    "spatial": spatial_suite,
    "reading": reading_suite,
}


def score(
    model: FrozenModel, asked: list[Question], progress: Callable[[int], None] = lambda count: None
) -> tuple[float, dict[str, float]]:
    """Share of greedy answers that are right to the letter: over all questions, and by kind."""
    right: dict[str, list[bool]] = {}
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        answers = model.generate([[model.message(question.item)] for question in batch], max_new_tokens=12)
        for question, answer in zip(batch, answers, strict=True):
            right.setdefault(question.kind, []).append(answer == question.answer)
        progress(len(batch))
    total = [flag for flags in right.values() for flag in flags]
    return sum(total) / len(total), {kind: sum(flags) / len(flags) for kind, flags in right.items()}
