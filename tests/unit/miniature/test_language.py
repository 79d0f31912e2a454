"""Words about scenes: captions, questions and changes are true of their scene, however they are prompted."""

from __future__ import annotations

import random
import re

from seeing import OPENINGS, PLACES, POSITION, plain_scene, read_caption, sampled, true_answer

from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import NUMBERS, caption, change_of_colour, compose, object_name, object_names, phrase, questions
from slq.miniature.world.scenes import BACKGROUNDS, MAX_COUNT, SIGN, Group, recolour
from slq.miniature.world.styles import COLOURS

VOWEL_SOUNDS = {"hourglass"}  # besides words that are written with a vowel first


def test_every_wording_of_a_scene_tells_the_same():
    rng = random.Random(0)
    wordings = set()
    for scene in sampled(300, seed=6):
        truth = ([phrase(group) for group in scene.groups], scene.across if len(scene.groups) > 1 else None, scene.background)
        assert read_caption(caption(scene)) == truth
        for _ in range(8):
            text = caption(scene, rng)
            assert read_caption(text) == truth, text
            wordings |= {word for word in (*OPENINGS, "right of", "below", "from right", "from bottom") if word in text}
    assert wordings >= {"a picture of ", "we see ", "there is ", "right of", "below", "from right", "from bottom"}


def test_a_caption_is_composed_of_its_phrases_in_order():
    rng = random.Random(4)
    for scene in sampled(100, seed=12):
        phrases = [phrase(group) for group in scene.groups]
        assert compose(scene, phrases) == caption(scene)
        assert compose(scene, phrases, random.Random(5)) == caption(scene, random.Random(5))
        told = [f"thing {number}" for number in range(len(phrases))]
        given = list(told)
        for _ in range(8):
            across = scene.across if len(told) > 1 else None
            assert read_caption(compose(scene, given, rng)) == (told, across, scene.background)
        assert given == told, "the phrases given were changed"


def test_phrases():
    assert phrase(Group("cat", "red", small=True)) == "a small red cat"
    assert phrase(Group("apple", "orange")) == "an orange apple"
    assert phrase(Group("apple", "blue", 3)) == "three blue apples"
    assert phrase(Group("glasses", "red")) == "a red pair of glasses"
    assert phrase(Group("glasses", "orange", 2)) == "two orange pairs of glasses"
    assert phrase(Group(SIGN, "", word="exit")) == "a sign saying exit"
    assert object_names(plain_scene(Group("cat", "red"), Group(SIGN, "", word="exit"))) == "cat and sign"


def test_no_two_groups_are_told_alike():
    told = [
        phrase(Group(concept, colour, count, small))
        for concept in concepts()
        for colour in COLOURS
        for count in range(1, MAX_COUNT + 1)
        for small in ([True, False] if count == 1 else [False])
    ]
    assert len(told) == len(set(told))


def test_a_and_an_stand_before_the_right_sounds():
    texts = [concept.singular for concept in concepts().values()]
    texts += [phrase(Group(name, colour, small=small)) for name in concepts() for colour in COLOURS for small in (True, False)]
    for text in texts:
        check_article(text)


def check_article(text: str) -> None:
    article, word = text.split(" ")[:2]
    assert article == ("an" if word[0] in "aeiou" or word in VOWEL_SOUNDS else "a"), text


def test_there_are_several():
    rng = random.Random(0)
    texts = [caption(plain_scene(Group("cat", "red", 2)), rng) for _ in range(100)]
    assert not [text for text in texts if text.startswith("there is")]


def test_position_questions_agree_with_their_subject():
    for scene in sampled(200):
        for kind, question, _ in questions(scene, random.Random(0)):
            if found := kind == "position" and re.match(rf"(is|are) the (.+?) (?:{POSITION}) ", question):
                subject = next(group for group in scene.groups if object_name(group) == found[2])
                assert found[1] == ("is" if subject.count == 1 else "are"), question


def test_plurals_are_spelt_like_their_names():
    for concept in concepts().values():
        assert ("-" in concept.plural) == ("-" in concept.name), concept.plural


def test_every_answer_is_true_of_its_scene():
    rng = random.Random(1)
    kinds: dict[str, set[str]] = {}
    for scene in sampled(500, seed=7):
        for kind, question, answer in questions(scene, rng):
            assert answer == true_answer(scene, question, answer), (scene, question, answer)
            kinds.setdefault(kind, set()).add(answer)
    assert set(kinds) == {"name", "background", "read", "colour", "count", "yes/no", "position", "where"}
    assert kinds["yes/no"] == {"yes", "no"} and {"yes", "no"} <= kinds["position"]
    assert kinds["count"] == set(NUMBERS[1:])
    assert kinds["colour"] == set(COLOURS)
    assert kinds["background"] == set(BACKGROUNDS) - {""}
    assert kinds["where"] == {place for row in PLACES.values() for place in row}


def test_every_group_among_several_is_asked_for_its_place_once():
    for scene in sampled(200, seed=13):
        asked = [question for kind, question, _ in questions(scene, random.Random(0)) if kind == "where"]
        verbs = ["is" if group.count == 1 else "are" for group in scene.groups]
        wanted = [f"where {verb} the {object_name(group)}?" for verb, group in zip(verbs, scene.groups, strict=True)]
        assert asked == (wanted if len(scene.groups) > 1 else [])


def test_what_is_missing_is_often_like_what_is_shown():
    """Asked for a thing that is not there, half of the time for one of a kind with what is: else `no` would follow from the kind."""
    rng = random.Random(6)
    alike: list[bool] = []
    of_signs = set()
    for scene in sampled(1500, seed=14):
        absent = [question for kind, question, answer in questions(scene, rng) if answer == "no" and question.startswith("is there ")]
        (missing,) = (concept for concept in concepts().values() if [f"is there {concept.singular}?"] == absent)
        kinds = {concepts()[group.concept].kind for group in scene.groups if group.concept != SIGN}
        if not kinds:
            of_signs.add(missing.kind)
        elif len(kinds) == 1:
            alike.append(missing.kind in kinds)
    assert 0.5 <= sum(alike) / len(alike) <= 0.67  # a half, and about a sixth of the rest by chance
    assert of_signs == {concept.kind for concept in concepts().values()}, "beside a sign alone everything is missing"


def test_a_change_of_colour_is_asked_only_where_it_is_clear():
    rng = random.Random(2)
    for scene in sampled(300, seed=8):
        change = change_of_colour(scene, rng)
        clear = len(scene.groups) == 1 and scene.groups[0].concept != SIGN
        assert (change is not None) == clear
        if change is not None:
            words, changed = change
            assert words == f"but {changed.groups[0].colour}"
            assert changed.groups[0].colour != scene.groups[0].colour
            assert recolour(changed, 0, scene.groups[0].colour) == scene
