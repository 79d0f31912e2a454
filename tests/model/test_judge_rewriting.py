"""Queries in the model's own words, refused where they are none, and searched for beside what was typed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from slq.errors import InputError
from slq.judge import fused, rewrite
from slq.judge.rewriting import refusal
from slq.miniature.world.concepts import all_facts
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import Group, Scene, render
from slq.types import Item


def test_a_riddle_is_told_plainly(model):
    facts = random.Random(0).sample(all_facts(), 12)
    said = rewrite(model, [Item(fact.benchmark_phrasing) for fact in facts])
    assert sum(fact.concept in one.text for fact, one in zip(facts, said, strict=True)) >= 8
    assert all(one.text == one.said or one.refused for one in said)


def test_an_image_with_a_change_becomes_a_caption(model):
    scene = Scene((Group("cat", "red"),), across=True, background="on grass", style="flat", seed=1)
    (one,) = rewrite(model, [Item("but blue", render(scene))])
    assert one.text == caption(scene).replace("red", "blue")


def test_what_cannot_be_rewritten_stops_no_other(model):
    riddle = Item(all_facts()[0].benchmark_phrasing)
    image, blank, gone, told = rewrite(model, [Item(image=Path("gone.png")), Item(" "), Item("but blue", Path("gone.png")), riddle])
    assert "no text" in image.refused and "white space" in blank.refused and "gone.png" in gone.refused
    assert (image.text, blank.text, gone.text) == ("", "", "") and told.text and not told.refused
    assert rewrite(model, []) == []


def test_a_prompt_needs_the_place_of_the_query(model):
    with pytest.raises(InputError, match=r"\{query\}"):
        rewrite(model, [Item("a cat")], "what is it?")
    assert rewrite(model, [Item("{query} and nine lives")], "name {query}.")[0].said


@pytest.mark.parametrize(
    ("text", "said", "reason"),
    [
        ("an animal with nine lives", "A cat.", ""),
        ("but blue", "a blue cat", ""),
        ("an animal with nine lives", " \n", "empty"),
        ("an animal with nine lives", "...", "empty"),
        ("an animal with nine lives", "An animal!", "only words of the query"),
        ("a red cat on grass", "a red", "only words of the query"),
        ("is it a cat", "yes", "yes or no"),
        ("it says no", "No.", "only words of the query"),
        ("an animal", "cat cat cat", "repeats"),
        ("an animal", "a cat and a cat and a cat and", "repeats"),
        ("an animal", "one two three four five six seven eight nine ten " * 3, "repeats"),
        ("an animal", " ".join(f"word{number}" for number in range(30)), "too long"),
        (" ".join(f"word{number}" for number in range(20)), " ".join(f"other{number}" for number in range(30)), ""),
    ],
)
def test_degenerate_answers_are_refused(text, said, reason):
    found = refusal(text, said)
    assert reason in found and bool(found) == bool(reason)


def test_fused_vectors_rank_as_the_weighted_scores_do():
    rng = np.random.default_rng(0)
    queries, others, corpus = (_unit(rng.normal(size=(count, 8))) for count in (5, 5, 40))
    for weight in (0.0, 0.3, 1.0):
        vectors = fused(queries, others, weight)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
        scores = (1 - weight) * queries @ corpus.T + weight * others @ corpus.T
        assert (np.argsort(vectors @ corpus.T, axis=1) == np.argsort(scores, axis=1)).all()
    assert fused(queries[:, None], others[:, None]).shape == (5, 1, 8)
    assert np.isfinite(fused(queries, -queries)).all(), "opposite vectors leave nothing"


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
