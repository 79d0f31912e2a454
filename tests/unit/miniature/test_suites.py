"""Understanding suites: their questions are true of what they show, and scores count what is right to the letter."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from fact_sheet_texts import FACT_CATEGORIES
from PIL import Image
from seeing import true_answer

from slq.miniature.export import split_scenes
from slq.miniature.suites import SPATIAL_KINDS, SUITES, Question, knowledge_suite, reading_suite, score, spatial_suite
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.lettering import WORDS
from slq.miniature.world.scenes import SIGN, Scene, render, split_of
from slq.models import FrozenModel
from slq.types import Item


def shown(question: Question) -> bytes:
    assert isinstance(question.item.image, Image.Image)
    return question.item.image.tobytes()


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_suites_repeat_with_the_seed(suite):
    def asked(seed: int) -> list[tuple]:
        return [(one.kind, one.item.content_hash, one.answer) for one in suite(8, seed)]

    assert len(asked(0)) == 8
    assert asked(0) == asked(0) != asked(1)


def test_knowledge_is_asked_in_phrasings_that_no_training_uses():
    facts = {f"what is {fact.benchmark_phrasing}?": fact for fact in all_facts()}
    asked = knowledge_suite(200)
    assert len({question.item.text for question in asked}) == 200
    for question in asked:
        fact = facts[question.item.text]
        assert question.item.image is None
        assert (question.kind, question.answer) == (fact.category, concepts()[fact.concept].singular)
    assert {question.kind for question in asked} == set(FACT_CATEGORIES)


@pytest.mark.slow
def test_spatial_questions_are_true_of_scenes_of_the_test_split():
    scenes = {render(one.scene).tobytes(): one.scene for one in split_scenes("test", 3 * 40)}
    asked = spatial_suite(40)
    assert Counter(question.kind for question in asked) == {kind: 10 for kind in SPATIAL_KINDS}
    for question in asked:
        assert question.answer == true_answer(scenes[shown(question)], question.item.text, question.answer)
    assert len({shown(question) for question in asked}) == 40


def test_signs_of_the_reading_suite_say_their_answer(monkeypatch):
    scenes = {}

    def remembered(scene: Scene) -> Image.Image:
        image = render(scene)
        scenes[image.tobytes()] = scene
        return image

    monkeypatch.setattr("slq.miniature.suites.render", remembered)
    asked = reading_suite(15)
    assert len(scenes) == 15
    for question in asked:
        scene = scenes[shown(question)]
        assert split_of(scene) == "test" and not scene.across
        assert (question.kind, question.item.text) == ("read", "what does the sign say?")
        assert [question.answer] == [group.word for group in scene.groups if group.concept == SIGN]
        assert question.answer in WORDS
    assert Counter(len(scene.groups) for scene in scenes.values()) == {1: 5, 2: 5, 3: 5}
    assert len({question.answer for question in asked}) > 5


def test_scores_count_answers_that_are_right_to_the_letter(model: FrozenModel):
    items = [Item("what is the animal that says miaow?"), *(question.item for question in reading_suite(2))]
    said = model.generate([[model.message(item)] for item in items], max_new_tokens=12)
    kinds = ("known", "known", "read")
    steps: list[int] = []
    asked = [Question(kind, item, answer) for kind, item, answer in zip(kinds, items, said, strict=True)]
    assert score(model, asked, steps.append) == (1.0, {"known": 1.0, "read": 1.0})
    assert sum(steps) == 3
    wrong = [asked[0], replace(asked[1], answer=f"{said[1]} "), replace(asked[2], answer=said[2] + "s")]
    assert score(model, wrong) == (pytest.approx(1 / 3), {"known": 0.5, "read": 0.0})
