"""Where words tell of a thing: nouns, and facts as a whole."""

from __future__ import annotations

import random

import pytest

from research.pretraining.mentions import mentions
from research.pretraining.tasks import Task, word_task
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.scenes import SIGN


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("two red cats above a dog", {12: "cat", 24: "dog"}),
        ("what colour is the bunch of grapes?", {34: "grapes"}),
        ("hot air balloon", {15: "hot air balloon"}),
        ("a catalogue", {}),
        ("what does the sign say?", {18: SIGN}),
        ("but blue", {}),
        ("", {}),
    ],
)
def test_nouns_end_where_they_end(user, found):
    assert mentions(Task(user, "")) == found


@pytest.mark.parametrize("concept", concepts().values(), ids=lambda concept: concept.name)
def test_every_noun_of_every_concept_is_found(concept):
    for noun in (concept.name, concept.singular, concept.plural):
        assert mentions(Task(f"we see {noun} on grass", "")) == {7 + len(noun): concept.name}


def test_what_a_fact_mentions_is_not_what_it_tells_of():
    told = "the animal a magician pulls out of a top hat"
    user = f"a cat left of {told} at night"
    assert mentions(Task(user, "", told, "rabbit")) == {5: "cat", user.index(" at night"): "rabbit"}
    assert mentions(Task(user, "")) == {5: "cat", user.index(" at night"): "hat"}


def test_every_told_fact_is_mentioned_once():
    rng = random.Random(0)
    tasks = [word_task(rng, all_facts()) for _ in range(1000)]
    of_facts = [task for task in tasks if task.told]
    assert len(of_facts) > 400
    for task in of_facts:
        assert mentions(task)[task.user.index(task.told) + len(task.told)] == task.told_of
        assert task.told_of in concepts()
