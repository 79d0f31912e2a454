"""The miniature as judge: kept prefixes against one pass, its question, hits in order and cut, thresholds."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slq.cache import KVCache
from slq.encoders.reuse import PrefixReuse
from slq.errors import InputError
from slq.judge import Example, Judge, Question, Scores, ask, calibrate, choose_question, examples_of, judge_hits, matching
from slq.judge import scoring as scoring_module
from slq.judge.hits import log_odds
from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.types import Item, Pair

PLAIN = Question("{item}is there {text}?")
GONE = Item(image=Path("gone.png"))


@pytest.fixture(scope="module")
def judge(model) -> Judge:
    return Judge(model, PLAIN, PrefixReuse(model, KVCache(), generation_prompt=False))


@pytest.fixture(scope="module")
def shown() -> list[tuple[Item, str]]:
    """Images of one thing each, with its name."""
    rng = random.Random(5)
    names = rng.sample(list(concepts()), 32)
    return [(Item(image=render(sample_scene(rng, 1, first_concept=name))), concepts()[name].singular) for name in names]


# --- scores -----------------------------------------------------------------------------------------------------------------


def test_kept_prefixes_give_the_answers_of_one_pass(judge, items, shown):
    pairs = [(item, text) for item in [*items, *(item for item, _ in shown[:4])] for text in ("a cat", "two red dogs on grass")]
    assert judge.uses_prefixes
    found, wanted = judge.scores(pairs), judge.reference(pairs)
    assert not found.failures and log_odds(found.probabilities) == pytest.approx(log_odds(wanted), abs=1e-4)
    one_by_one = [judge.scores([pair]).probabilities[0] for pair in pairs[:6]]
    assert log_odds(found.probabilities[:6]) == pytest.approx(log_odds(np.array(one_by_one)), abs=1e-4)


def test_an_image_whose_prefix_is_kept_is_not_prepared_again(judge, shown, monkeypatch):
    pairs = [(shown[0][0], "a cat"), (shown[0][0], "a dog")]
    before = judge.scores(pairs).probabilities

    def refuse(*_given, **_more):
        raise AssertionError("an image was prepared")

    monkeypatch.setattr(judge.model.item_processor, "prepare_messages", refuse)
    assert judge.scores(pairs).probabilities.tolist() == before.tolist()
    with pytest.raises(AssertionError, match="prepared"):
        judge.reference(pairs)


def test_what_cannot_be_judged_takes_nothing_with_it(judge, shown):
    good = [(item, "a cat") for item, _ in shown[:3]]
    found = judge.scores([good[0], (GONE, "a cat"), good[1], (shown[0][0], " "), good[2], (Item(), "a cat")])
    assert set(found.failures) == {1, 3, 5} and "gone.png" in found.failures[1] and "white space" in found.failures[3]
    assert np.isnan(found.probabilities[[1, 3, 5]]).all()
    assert found.probabilities[[0, 2, 4]] == pytest.approx(judge.scores(good).probabilities, abs=1e-6)


def test_answers_that_are_not_finite_are_failures_of_their_own_pairs(judge, shown, monkeypatch):
    right = scoring_module.next_logits

    def overflowing(model, prefixes, continuations):
        logits = right(model, prefixes, continuations)
        logits[0] = torch.nan
        return logits

    monkeypatch.setattr(scoring_module, "next_logits", overflowing)
    found = judge.scores([(item, "a cat") for item, _ in shown[:3]])
    assert len(found.failures) == 1 and "not finite" in next(iter(found.failures.values()))
    assert np.isfinite(found.probabilities).sum() == 2


@pytest.mark.parametrize("wording", ["is there {text}?", "{item}{text}{text}", "{item}"])
def test_a_question_needs_both_places(wording):
    with pytest.raises(InputError, match=r"needs \{item\} and \{text\}"):
        Question(wording)


def test_braces_of_a_text_are_no_places(judge, shown):
    found = judge.scores([(shown[0][0], "a {item} and a {text}"), (shown[0][0], "a {query}")])
    assert not found.failures


# --- which question ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_question_that_works_is_chosen_and_measured_on_others(model, shown):
    other = Question("{item}\nQuery: {text}\nDoes this match the query? Answer yes or no.")
    tried: list[Question] = []
    choice = choose_question(model, [*shown, (GONE, "a cat")], [other, PLAIN], progress=tried.append)
    assert choice.question == PLAIN and choice.works and tried == [other, PLAIN]
    assert choice.auc > 0.9 and choice.tried[PLAIN] > choice.tried[other] and choice.num_items in (16, 17)
    assert str(choice).startswith("'{item}is there {text}?', AUC 0.9") or choice.auc > 0.99


@pytest.mark.slow
def test_a_model_without_a_working_question_says_so(model, shown):
    names = [text for _, text in shown]
    wrong = [(item, text) for (item, _), text in zip(shown, names[1:] + names[:1], strict=True)]
    choice = choose_question(model, wrong, [PLAIN])
    assert not choice.works and str(choice).startswith("this model cannot judge: its best of 1 questions")


def test_too_few_items_choose_nothing(model, shown):
    with pytest.raises(InputError, match="four items"):
        choose_question(model, [*shown[:2], *shown[:2]])


def test_pairs_as_a_judge_takes_them():
    image, text = Item(image=Path("a.png")), Item("a cat")
    assert matching([Pair(image, (text, Item("a dog")))]) == [(image, "a cat")] == matching([Pair(text, (image,))])
    assert matching([Pair(image, (image,))]) == [] and matching([Pair(Item("a"), (Item("b"),))]) == [(Item("b"), "a")]


# --- hits -------------------------------------------------------------------------------------------------------------------


def test_the_right_hit_comes_first_and_wrong_ones_are_cut(judge, shown):
    items = [item for item, _ in shown[:6]]
    found = judge_hits(judge, Item(shown[4][1]), items, threshold=0.0)
    assert found.places[0] == 4 and len(found.kept) + len(found.cut) == 6 and len(found.cut) >= 4
    assert all(hit.score >= 0 > cut.score for hit in found.kept for cut in found.cut)
    assert judge_hits(judge, Item(shown[4][1]), items).cut == ()
    nothing = judge_hits(judge, Item(shown[9][1]), items, threshold=0.0)
    assert nothing.nothing_matches and len(nothing.cut) == 6 and not judge_hits(judge, Item("a cat"), [], threshold=0.0).nothing_matches


def test_what_cannot_be_judged_stays_behind_the_others(judge, shown):
    found = judge_hits(judge, Item(shown[0][1]), [GONE, shown[0][0], shown[1][0]], threshold=0.0)
    assert found.places == [1, 0] and found.kept[-1].probability is None and "gone.png" in found.kept[-1].reason
    alone = judge_hits(judge, Item(shown[5][1]), [GONE, shown[0][0]], threshold=0.0)
    assert alone.places == [0] and not alone.nothing_matches, "nobody knows what the damaged one shows"


def test_captions_are_judged_of_an_image(judge, shown):
    texts = [Item(text) for _, text in shown[:5]]
    assert judge_hits(judge, shown[2][0], texts, threshold=0.0).places[0] == 2


def test_a_weight_puts_similarities_beside_the_answers(judge, shown):
    items = [item for item, _ in shown[:3]]
    by_similarity = judge_hits(judge, Item(shown[2][1]), items, [0.9, 0.5, 0.1], weight=1e6)
    assert by_similarity.places == [0, 1, 2]
    mixed = judge_hits(judge, Item(shown[2][1]), items, [0.9, 0.5, 0.1], weight=0.01)
    assert mixed.places[0] == 2
    with pytest.raises(InputError, match="one of each of the 3 hits"):
        judge_hits(judge, Item("a cat"), items, [0.9], weight=1.0)


def test_an_image_with_a_change_is_no_question(judge, shown):
    for query in (Item("but blue", shown[0][0].image), shown[0][0]):
        with pytest.raises(InputError, match="rewrite it in words"):
            judge_hits(judge, query, [shown[1][0]])


# --- thresholds -------------------------------------------------------------------------------------------------------------


class Knows:
    """A judge of numbered items that says yes to those that a text names, as surely as it is told to be."""

    def __init__(self, yes: float = 0.9, no: float = 0.2, unreadable: str = ""):
        self.yes, self.no, self.unreadable = yes, no, unreadable

    def scores(self, pairs):
        found = np.array([np.nan if item.text == self.unreadable else self.yes if item.text == text else self.no for item, text in pairs])
        return Scores(found, {place: "unreadable" for place in np.flatnonzero(np.isnan(found)).tolist()})


def numbered(count: int, seed: int = 0) -> list[Example]:
    """Queries whose right hit stands anywhere among five, by similarities that say nothing."""
    rng = random.Random(seed)
    examples = []
    for number in range(count):
        right = rng.randrange(5)
        texts = [str(number) if place == right else f"{number} {place}" for place in range(5)]
        similarities = tuple(sorted((rng.random() for _ in range(5)), reverse=True))
        examples.append(Example(str(number), tuple(map(Item, texts)), similarities, frozenset([right]), str(number)))
    return examples


def test_a_threshold_is_chosen_on_half_and_measured_on_the_other():
    found = calibrate(Knows(), numbered(80))
    assert found.num_queries == 40 and found.helps and found.weight == 0 and found.num_failures == 0
    assert found.threshold == pytest.approx(np.log(9)) and found.judged.precision.value == found.judged.coverage.value == 1
    assert found.judged.told_nothing.value == 1 and found.judged.first_right.value == 1
    assert found.unjudged.threshold is None and found.gain.value == 1, "similarities that say nothing reach no precision"
    assert 0.8 < found.judged.precision.bounds.low < 1
    assert calibrate(Knows(), numbered(80), seed=1).num_queries == 40


def test_a_judge_that_knows_nothing_does_not_help():
    found = calibrate(Knows(yes=0.4, no=0.4), numbered(80))
    assert not found.helps and found.gain.bounds.low <= 0
    examples = [replace(one, similarities=tuple(1.0 - (place not in one.right) for place in range(5))) for one in numbered(80)]
    by_similarity = calibrate(Knows(), examples)
    assert by_similarity.unjudged.coverage.value == 1 and not by_similarity.helps, "there is nothing left to gain"


def test_a_precision_that_is_out_of_reach_cuts_nothing():
    found = calibrate(Knows(yes=0.2, no=0.9), numbered(60), precision=0.99, weights=(0.0,))
    assert found.threshold is None and not found.helps and found.judged.coverage.value == 1
    assert found.judged.precision.value == pytest.approx(1 / 5)


def test_hits_that_cannot_be_judged_are_counted_and_never_kept():
    found = calibrate(Knows(unreadable="7"), numbered(40))
    assert found.num_failures == 1 and found.judged.precision.value == 1


@pytest.mark.parametrize(("examples", "precision"), [(numbered(1), 0.9), (numbered(9), 0.0), (numbered(9), 1.5)])
def test_what_cannot_be_calibrated_is_refused(examples, precision):
    with pytest.raises(InputError):
        calibrate(Knows(), examples, precision)


def test_examples_are_what_captions_find(encoder):
    rng = random.Random(2)
    scenes = [sample_scene(rng, 1) for _ in range(12)]
    matches = [(Item(image=render(scene)), caption(scene)) for scene in scenes]
    examples = examples_of(encoder, [*matches, (matches[0][0], "another one")], hits=4)
    assert len(examples) == len({text for _, text in matches}) + 1 and all(len(example.items) == 4 for example in examples)
    of_text = {text: item for item, text in matches}
    for example in examples[:-1]:
        assert list(example.similarities) == sorted(example.similarities, reverse=True)
        assert {example.items[place].content_hash for place in example.right} <= {of_text[example.text].content_hash}
    assert examples[-1].cluster == matches[0][0].content_hash == examples[0].cluster
    assert sum(bool(example.right) for example in examples[:-1]) > 6


# --- asking -----------------------------------------------------------------------------------------------------------------


def test_an_item_is_asked_about(model, shown):
    right = [ask(model, item, "what is shown?") in name for item, name in shown[:4]]
    assert sum(right) >= 3
    with pytest.raises(InputError, match=r"gone\.png"):
        ask(model, GONE, "what is shown?")
