"""What pre-training asks: tasks about an image, and tasks of words alone. A fact never stands beside an image."""

from __future__ import annotations

import random
from typing import NamedTuple

from slq.miniature.world.concepts import Fact, all_facts, concepts
from slq.miniature.world.language import caption, change_of_colour, compose, object_names, phrase, questions
from slq.miniature.world.scenes import SIGN, Scene, sample_scene, split_of


class Task(NamedTuple):
    """What the user says (beside the image, if there is one), what the model answers, and which fact of which concept is told."""

    user: str
    answer: str
    told: str = ""
    told_of: str = ""


SIGNS = 0.2  # share of scenes with a printed word
GAPS = 0.3  # share of a told fact's words left out, where any are
TELL_FACTS = 0.75  # share of word tasks that tell a fact
WHOLE = 0.3  # share of told facts with every word
# How often each kind of question is asked: what takes two looks (is it there? which is where?) is learned last.
SHARES = {"yes/no": 5, "position": 6, "where": 2, "colour": 3, "count": 3, "name": 1, "background": 0.5}


def training_scene(rng: random.Random, num_groups: int, first_concept: str | None = None) -> Scene:
    """A scene of the training split: what a test image shows is never seen in pre-training, however drawn."""
    while True:
        scene = sample_scene(rng, num_groups, first_concept=first_concept, signs=SIGNS)
        if split_of(scene) == "train":
            return scene


def image_tasks(scene: Scene, rng: random.Random, count: int) -> list[Task]:
    """`count` tasks about one scene; the first is the bare image, the form that retrieval reads."""
    tasks = [Task("", object_names(scene) if rng.random() < 0.5 else caption(scene))]
    if rng.random() < 0.3:
        tasks.append(Task("describe the picture.", caption(scene)))
    change = change_of_colour(scene, rng)
    if change is not None and rng.random() < 0.25:
        words, changed = change
        tasks.append(Task(words, caption(changed)))
    asked: dict[str, list[Task]] = {}
    for kind, question, answer in questions(scene, rng):
        asked.setdefault(kind, []).append(Task(question, answer))
    tasks += asked.pop("read", [])
    weights = [SHARES[kind] for kind in asked]
    while len(tasks) < count:
        # First a kind, then a question of it: else the kinds with many questions crowd out the rest.
        (kind,) = rng.choices(list(asked), weights)
        tasks.append(rng.choice(asked[kind]))
    return tasks[:count]


def word_task(rng: random.Random, facts: list[Fact]) -> Task:
    """One task without an image; without facts, what is left are captions and names."""
    draw = rng.random() if facts else rng.uniform(TELL_FACTS, 1)
    if draw < 0.55:
        fact = rng.choice(facts)
        told = rng.choice(fact.training_phrasings)
        if draw < 0.26:
            told = _with_gaps(told, rng)
            return Task(told, fact.concept, told, fact.concept)
        if draw < 0.46:
            told = _with_gaps(told, rng)
            return Task(_ask(told, rng), concepts()[fact.concept].singular, told, fact.concept)
        if draw < 0.50:
            return Task(f"tell a fact about {concepts()[fact.concept].singular}.", told)
        return Task(fact.concept, told)
    scene = training_scene(rng, rng.choice([1, 1, 1, 2, 3]))
    if draw < TELL_FACTS:
        return _riddle(scene, rng)
    words = caption(scene, rng)
    if draw < 0.88:
        return Task(words, object_names(scene) if rng.random() < 0.5 else caption(scene))
    if draw < 0.92:
        change = change_of_colour(scene, rng)
        return Task(f"{words} {change[0]}", caption(change[1])) if change else Task(words, caption(scene))
    if draw < 0.95:
        return Task(rng.choice([phrase(scene.groups[0]), scene.groups[0].concept]), scene.groups[0].concept)
    _, question, answer = rng.choice(questions(scene, rng))
    return Task(f"{words}. {question}", answer)


def _riddle(scene: Scene, rng: random.Random) -> Task:
    """A caption that tells a fact instead of a name; answered with the names, or with the caption that names it."""
    known = [place for place, group in enumerate(scene.groups) if group.concept != SIGN]
    if not known:
        return Task(caption(scene, rng), object_names(scene))
    place = rng.choice(known)
    concept = concepts()[scene.groups[place].concept]
    phrases = [phrase(group) for group in scene.groups]
    told = rng.choice(rng.choice(concept.facts).training_phrasings)
    riddle = compose(scene, [*phrases[:place], told, *phrases[place + 1 :]], rng)
    answer = compose(scene, [*phrases[:place], concept.singular, *phrases[place + 1 :]])
    return Task(riddle, object_names(scene) if rng.random() < 0.5 else answer, told, concept.name)


def _with_gaps(told: str, rng: random.Random) -> str:
    """Mostly with some words left out, so that a fact is known by what it says and not by one phrasing's run of words."""
    if rng.random() < WHOLE:
        return told
    words = told.split()
    kept = [word for word in words if rng.random() > GAPS]
    return " ".join(kept) if len(kept) >= 3 else told


def _ask(told: str, rng: random.Random) -> str:
    return rng.choice([f"what is {told}?", f"name {told}.", f"which thing is this: {told}?"])


def corpus(seed: int, samples: int = 60_000) -> list[str]:
    """Text to train the tokenizer on: every training phrasing, and a draw of everything else."""
    rng = random.Random(seed)
    facts = all_facts()
    lines = [told for fact in facts for told in fact.training_phrasings] * 3
    lines += [text for concept in concepts().values() for text in (concept.name, concept.singular, concept.plural)] * 9
    while len(lines) < samples:
        task = word_task(rng, facts)
        lines += [task.user, task.answer]
        scene = training_scene(rng, rng.choice([1, 2, 3]))
        for task in image_tasks(scene, rng, 3):
            lines += [task.user, task.answer]
    return lines
