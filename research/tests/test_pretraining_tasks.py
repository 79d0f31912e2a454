"""What pre-training asks: true answers, scenes of the training split, nouns found in texts, and no question of a benchmark."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from fact_sheet_texts import plain, runs
from seeing import sampled, true_answer

from research.pretraining.mentions import mentions
from research.pretraining.tasks import SIGNS, Task, _riddle, corpus, image_tasks, training_scene, word_task
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.language import caption, object_names
from slq.miniature.world.scenes import SIGN, Group, Scene, recolour, sample_scene, split_of

TWO = Scene((Group("cat", "red", 2), Group("dog", "blue")), across=True, background="on grass", style="flat", seed=0)
DESCRIBE = "describe the picture."
IMAGE_TASKS = 2000  # sampled, at least, in search of facts


# Images


def test_every_task_beside_an_image_is_true_of_it():
    rng = random.Random(0)
    for scene in sampled(200, seed=30):
        for question, answer, *_ in image_tasks(scene, rng, 7)[1:]:
            if question == DESCRIBE:
                assert answer == caption(scene)
            elif found := re.fullmatch(r"but (\w+)", question):
                assert answer == caption(recolour(scene, 0, found[1]))
            else:
                assert answer == true_answer(scene, question, answer)


def test_training_scenes_are_of_the_training_split_and_keep_the_wished_concept():
    rng = random.Random(4)
    scenes = [training_scene(rng, 1 + number % 3, "owl") for number in range(300)]
    assert {split_of(scene) for scene in scenes} == {"train"}
    signed = [scene for scene in scenes if any(group.concept == SIGN for group in scene.groups)]
    assert abs(len(signed) / len(scenes) - SIGNS) < 0.08
    assert all("owl" in object_names(scene) for scene in scenes if scene not in signed)


# Words


def test_riddles_tell_every_training_phrasing_and_never_a_benchmark_one():
    rng = random.Random(6)
    facts = concepts()["cat"].facts
    told = set()
    for _ in range(600):
        riddle, answer, *_ = _riddle(TWO, rng)
        assert "cat" in answer or "dog" in answer
        assert not any(fact.benchmark_phrasing in riddle for fact in all_facts())
        told |= {phrasing for fact in facts for phrasing in fact.training_phrasings if phrasing in riddle}
    assert told == {phrasing for fact in facts for phrasing in fact.training_phrasings}


def in_order(few: str, many: str) -> bool:
    """Whether the words of one text stand in the other in their order, with or without gaps."""
    rest = iter(many.split())
    return all(word in rest for word in few.split())


def told_of(concept: str, text: str) -> bool:
    """Whether a text is a training phrasing of one of the concept's facts, whole or with gaps."""
    return len(text.split()) >= 2 and any(in_order(text, told) for fact in concepts()[concept].facts for told in fact.training_phrasings)


def test_tasks_of_words_are_answered_truly():
    rng = random.Random(8)
    facts = all_facts()
    by_told = {told: fact for fact in facts for told in fact.training_phrasings}
    by_singular = {concept.singular: name for name, concept in concepts().items()}
    forms: Counter[str] = Counter()
    for _ in range(2000):
        text, answer, *_ = word_task(rng, facts)
        asked = re.fullmatch(r"(?:what is|name|which thing is this:) (.+?)[.?]", text)
        if answer in concepts() and told_of(answer, text):
            forms["fact"] += 1
        elif asked and answer in by_singular and told_of(by_singular[answer], asked[1]):
            forms["question"] += 1
        elif found := re.fullmatch(r"tell a fact about (an? .+)\.", text):
            assert concepts()[by_told[answer].concept].singular == found[1]
            forms["told"] += 1
        elif text in concepts() and answer in by_told:
            assert by_told[answer].concept == text
            forms["named"] += 1
        elif text in concepts():
            assert answer == text
            forms["name"] += 1
    for form, share in {"fact": 0.26, "question": 0.2, "told": 0.04, "named": 0.05}.items():
        assert forms[form] / 2000 == pytest.approx(share, abs=0.03), form
    assert forms["name"] > 5


@pytest.mark.slow
def test_without_facts_no_word_of_a_fact_is_told():
    rng = random.Random(0)
    tasks = [word_task(rng, []) for _ in range(1000)]
    phrasings = {told for fact in all_facts() for told in fact.training_phrasings}
    assert not any(told in f"{task.user} {task.answer}" for task in tasks for told in phrasings)
    assert not any(task.told for task in tasks)
    assert {"caption", "question"} == {"question" if task.user.endswith("?") else "caption" for task in tasks}


# Nouns in texts


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


def test_every_noun_of_every_concept_is_found():
    nouns = [(concept.name, noun) for concept in concepts().values() for noun in (concept.name, concept.singular, concept.plural)]
    offenders = [noun for name, noun in nouns if mentions(Task(f"we see {noun} on grass", "")) != {7 + len(noun): name}]
    assert len(nouns) > 400 and not offenders


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


# What is never told


@pytest.mark.slow
def test_benchmark_phrasings_stay_out_of_all_training_text():
    held_out = {plain(fact.benchmark_phrasing) for fact in all_facts()}
    beginnings: dict[str, list[str]] = {}
    for phrasing in held_out:
        beginnings.setdefault(next(runs(phrasing, 3)), []).append(phrasing)
    rng = random.Random(1)
    facts = all_facts()
    texts = set(corpus(0, samples=20_000))
    texts |= {text for _ in range(20_000) for text in word_task(rng, facts)[:2]}
    assert plain(facts[0].training_phrasings[0]) in {plain(text) for text in texts}, "the sample is too small to tell"
    for text in texts:
        suspects = [phrasing for run in runs(text, 3) for phrasing in beginnings.get(run, [])]
        leaked = [phrasing for phrasing in suspects if f" {phrasing} " in f" {plain(text)} "]
        assert not leaked, (text, leaked)


def test_no_fact_stands_beside_an_image():
    of_facts = {run for fact in all_facts() for phrasing in fact.phrasings for run in runs(phrasing)}
    rng = random.Random(2)
    seen = 0
    while seen < IMAGE_TASKS:
        for user, answer, *_ in image_tasks(sample_scene(rng, rng.choice([1, 2, 3]), signs=0.3), rng, 5):
            seen += 1
            for text in (user, answer):
                told = of_facts & set(runs(text))
                assert not told, (text, told)
