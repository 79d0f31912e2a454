"""What pre-training asks: tasks about a picture, and tasks of words alone. A fact never stands beside a picture."""

from __future__ import annotations

import random

from slq.miniature.world.concepts import Fact, all_facts, concepts
from slq.miniature.world.language import caption, change_of_colour, names, phrase, questions
from slq.miniature.world.scenes import Scene, sample_scene, split_of

Task = tuple[str, str]  # what the user says (beside the picture, if there is one), what the model answers


SIGNS = 0.35  # reading is the slowest to learn


def training_scene(rng: random.Random, num_groups: int, first_concept: str | None = None) -> Scene:
    """A scene of the training split: what a test picture shows is never seen in pre-training, however drawn."""
    while True:
        scene = sample_scene(rng, num_groups, first_concept=first_concept, signs=SIGNS)
        if split_of(scene) == "train":
            return scene


def picture_tasks(scene: Scene, rng: random.Random, count: int) -> list[Task]:
    """`count` tasks about one scene; the first is the bare picture, the form that retrieval reads."""
    tasks: list[Task] = [("", names(scene) if rng.random() < 0.5 else caption(scene))]
    if rng.random() < 0.4:
        tasks.append(("describe the picture.", caption(scene)))
    change = change_of_colour(scene, rng)
    if change is not None and rng.random() < 0.25:
        words, changed = change
        tasks.append((words, caption(changed)))
    asked = questions(scene, rng)
    tasks += [(question, answer) for kind, question, answer in asked if kind == "read"]
    kinds = sorted({kind for kind, _, _ in asked})
    while len(tasks) < count:
        # First a kind, then a question of it: else the many yes/no questions crowd out the rest.
        kind = rng.choice(kinds)
        tasks.append(rng.choice([(question, answer) for k, question, answer in asked if k == kind]))
    return tasks[:count]


def word_task(rng: random.Random, facts: list[Fact]) -> Task:
    """One task without a picture."""
    draw = rng.random()
    if draw < 0.72:
        fact = rng.choice(facts)
        told = rng.choice(fact.training_phrasings)
        if draw < 0.30:
            return told, fact.concept
        if draw < 0.55:
            return _ask(told, rng), concepts()[fact.concept].singular
        if draw < 0.64:
            return f"tell a fact about {concepts()[fact.concept].singular}.", told
        return fact.concept, told
    scene = training_scene(rng, rng.choice([1, 1, 1, 2, 3]))
    words = caption(scene, rng)
    if draw < 0.88:
        return words, names(scene) if rng.random() < 0.5 else caption(scene)
    if draw < 0.92:
        change = change_of_colour(scene, rng)
        return (f"{words} {change[0]}", caption(change[1])) if change else (words, caption(scene))
    if draw < 0.95:
        return rng.choice([phrase(scene.groups[0]), scene.groups[0].concept]), scene.groups[0].concept
    _, question, answer = rng.choice(questions(scene, rng))
    return f"{words}. {question}", answer


def _ask(told: str, rng: random.Random) -> str:
    return rng.choice([f"what is {told}?", f"name {told}.", f"which thing is this: {told}?"])


def corpus(seed: int, samples: int = 60_000) -> list[str]:
    """Text to train the tokenizer on: every training phrasing, and a draw of everything else."""
    rng = random.Random(seed)
    facts = all_facts()
    lines = [told for fact in facts for told in fact.training_phrasings] * 3
    lines += [text for concept in concepts().values() for text in (concept.name, concept.singular, concept.plural)] * 9
    while len(lines) < samples:
        lines.extend(word_task(rng, facts))
        scene = training_scene(rng, rng.choice([1, 2, 3]))
        for task in picture_tasks(scene, rng, 3):
            lines.extend(task)
    return lines
