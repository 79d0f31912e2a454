"""Scenes: what is drawn is what captions, questions and changes say, checked in the pixels and against the scene itself."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import NUMBERS, caption, change_of_colour, names, noun, phrase, questions
from slq.miniature.world.lettering import STROKES, WORDS, draw_word
from slq.miniature.world.scenes import (
    BACKGROUNDS,
    MAX_COUNT,
    PICTURE_SIZE,
    SIGN,
    Group,
    Scene,
    recolour,
    render,
    sample_scene,
    to_svg,
)
from slq.miniature.world.styles import COLOURS, HELD_OUT_STYLE, STYLES, SVG, TRAINING_STYLES

OPENINGS = ("there is ", "there are ", "a picture of ", "we see ")
NAMED_PLACES = {"left of": (True, -1), "right of": (True, 1), "above": (False, -1), "below": (False, 1)}
POSITION = "|".join(NAMED_PLACES)
VOWEL_SOUNDS = {"hourglass"}  # besides words that are written with a vowel first


def sampled(count: int, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, rng.choice([1, 2, 3]), signs=0.3) for _ in range(count)]


def plain_scene(*groups: Group, across: bool = True, seed: int = 0, style: str = "flat") -> Scene:
    return Scene(groups=groups, across=across, background="", style=style, seed=seed)


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene), dtype=np.int16)


def where(scene: Scene, place: int) -> np.ndarray:
    """Which pixels one group paints: those that another colour, or another word, changes."""
    group = scene.groups[place]
    if group.concept == SIGN:
        others = list(scene.groups)
        others[place] = replace(group, word="zoo" if group.word != "zoo" else "walk")
        other = replace(scene, groups=tuple(others))
    else:
        other = recolour(scene, place, "blue" if group.colour != "blue" else "red")
    return np.abs(pixels(scene) - pixels(other)).max(-1) > 40


def centre(mask: np.ndarray) -> tuple[float, float]:
    """x, y of a mask's middle."""
    rows, columns = np.nonzero(mask)
    assert len(rows) > 20, "hardly visible"
    return float(columns.mean()), float(rows.mean())


# Pictures


def test_a_scene_always_gives_the_same_picture():
    for style in STYLES:
        scene = replace(sampled(1)[0], style=style)
        picture = render(scene)
        assert picture.size == (PICTURE_SIZE, PICTURE_SIZE) and picture.mode == "RGB"
        assert picture.tobytes() == render(replace(scene)).tobytes()


def test_seeds_give_different_pictures_of_one_content():
    scene = plain_scene(Group("cat", "red", 2), Group("apple", "green"))
    other = replace(scene, seed=1)
    assert scene.content == other.content
    assert render(scene).tobytes() != render(other).tobytes()


def test_styles_and_backgrounds_can_be_told_apart():
    scene = plain_scene(Group("house", "blue"))
    styled = {render(replace(scene, style=style)).tobytes() for style in STYLES}
    assert len(styled) == len(STYLES)
    grounds = {render(replace(scene, background=background)).tobytes() for background in BACKGROUNDS}
    assert len(grounds) == len(BACKGROUNDS)


def test_the_held_out_style_is_never_sampled_unless_asked_for():
    rng = random.Random(0)
    drawn = {sample_scene(rng, 1).style for _ in range(500)}
    assert drawn == set(TRAINING_STYLES) == set(STYLES) - {HELD_OUT_STYLE}
    assert sample_scene(rng, 1, styles=(HELD_OUT_STYLE,)).style == HELD_OUT_STYLE


def test_sampling_is_reproducible_and_keeps_the_wished_concept():
    assert sampled(20, seed=3) == sampled(20, seed=3) != sampled(20, seed=4)
    rng = random.Random(0)
    for number in (1, 2, 3):
        for _ in range(50):
            scene = sample_scene(rng, number, first_concept="owl")
            shown = [group.concept for group in scene.groups]
            assert len(set(shown)) == len(shown) == number
            assert "owl" in shown


@pytest.mark.parametrize("count", range(1, MAX_COUNT + 1))
@pytest.mark.parametrize("across", [True, False], ids=["across", "down"])
def test_as_many_are_drawn_as_told(count, across):
    if count <= 3:
        scene = plain_scene(Group("star", "yellow", count), Group("moon", "blue"), across=across, seed=count)
    else:
        scene = plain_scene(Group("star", "yellow", count), across=across, seed=count)
    things = list(ET.fromstring(to_svg(scene)).findall(f"{{{SVG}}}g")[-1])
    assert len(things) == sum(group.count for group in scene.groups)
    placed = [re.findall(r"-?[\d.]+", thing.get("transform", "")) for thing in things]  # x, y, turn, width, height, -50, -50
    centres = [(float(numbers[0]), float(numbers[1])) for numbers in placed]
    scales = [float(numbers[4]) for numbers in placed]
    for (x, y), scale in zip(centres, scales, strict=True):
        assert 25 * scale <= x <= PICTURE_SIZE - 25 * scale and 25 * scale <= y <= PICTURE_SIZE - 25 * scale
    for i, first in enumerate(centres):
        for second in centres[:i]:
            assert np.hypot(first[0] - second[0], first[1] - second[1]) > 70 * min(scales), "things cover each other"


@pytest.mark.parametrize("count", range(1, MAX_COUNT + 1))
def test_as_many_are_seen_as_told(count):
    """A solid shape of one piece, drawn alone, leaves as many separate blots."""
    mask = where(plain_scene(Group("star", "red", count)), 0)
    assert blots(mask) == count


def blots(mask: np.ndarray) -> int:
    """Connected regions of more than a few pixels."""
    left, found = mask.copy(), 0
    while left.any():
        edge = [tuple(np.argwhere(left)[0])]
        left[edge[0]] = False
        size = 0
        while edge:
            row, column = edge.pop()
            size += 1
            for r in (row - 1, row, row + 1):
                for c in (column - 1, column, column + 1):
                    if 0 <= r < left.shape[0] and 0 <= c < left.shape[1] and left[r, c]:
                        left[r, c] = False
                        edge.append((r, c))
        found += size > 15
    return found


@pytest.mark.parametrize("across", [True, False], ids=["across", "down"])
@pytest.mark.parametrize("number", [2, 3])
def test_captions_and_answers_tell_where_things_are_in_the_pixels(across, number):
    for seed in range(6):
        rng = random.Random(f"{seed} {number} {across}")
        scene = sample_scene(rng, number, signs=0.3)
        scene = replace(scene, across=across, background="", style="flat")
        axis = 0 if across else 1
        middles = [centre(where(scene, place)) for place in range(number)]
        coordinates = {group.concept: middle[axis] for group, middle in zip(scene.groups, middles, strict=True)}
        assert [place[axis] for place in middles] == sorted(place[axis] for place in middles)
        told, told_across, _ = read_caption(caption(scene))
        assert told_across is across
        assert told == [phrase(group) for group in sorted(scene.groups, key=lambda group: coordinates[group.concept])]
        for kind, question, answer in questions(scene, rng):
            if kind != "position":
                continue
            if found := re.fullmatch(rf"what is ({POSITION}) the (.+)\?", question):
                relation, landmark = found.groups()
                placed = coordinates[answer] - coordinates[concept_of(scene, landmark)]
                assert placed * NAMED_PLACES[relation][1] > 0, question
            else:
                first, relation, second = re.fullmatch(rf"(?:is|are) the (.+) ({POSITION}) the (.+)\?", question).groups()  # type: ignore[union-attr]
                placed = coordinates[concept_of(scene, first)] - coordinates[concept_of(scene, second)]
                assert (placed * NAMED_PLACES[relation][1] > 0) == (answer == "yes"), question


def concept_of(scene: Scene, words: str) -> str:
    return next(group.concept for group in scene.groups if noun(group) == words)


@pytest.mark.parametrize("concept", ["cat", "key", "bridge"])
def test_small_is_smaller(concept):
    large = where(plain_scene(Group(concept, "red")), 0).sum()
    small = where(plain_scene(Group(concept, "red", small=True)), 0).sum()
    assert 0.25 * large < small < 0.55 * large


@pytest.mark.parametrize("style", STYLES)
def test_recolouring_changes_colour_and_nothing_else(style):
    for scene in sampled(12, seed=5):
        scene = replace(scene, style=style)
        for place, group in enumerate(scene.groups):
            if group.concept == SIGN:
                continue
            colour = "green" if group.colour != "green" else "pink"
            other = recolour(scene, place, colour)
            assert other.groups[place] == replace(group, colour=colour)
            assert replace(other, groups=scene.groups) == scene
            assert [g for i, g in enumerate(other.groups) if i != place] == [g for i, g in enumerate(scene.groups) if i != place]
            before, after = to_svg(scene), to_svg(other)
            assert before != after
            colourless = re.compile("#[0-9a-f]{6}")
            assert colourless.sub("#", before) == colourless.sub("#", after)


def test_every_colour_can_be_seen():
    """Plain fills of the nine colours stay apart even when two draws jitter them against each other."""
    means = {}
    for colour in COLOURS:
        for seed in range(2):
            scene = plain_scene(Group("ball", colour), seed=seed)
            means[colour, seed] = pixels(scene)[where(scene, 0)].mean(0)
    for (colour, _), mean in means.items():
        for (other, _), second in means.items():
            assert colour == other or np.abs(mean - second).max() > 18, (colour, other)


# Signs


@cache
def sign(word: str) -> np.ndarray:
    return pixels(plain_scene(Group(SIGN, "", word=word)))


def test_every_word_can_be_lettered_and_looks_different():
    assert len(WORDS) == len(set(WORDS)) >= 60
    seen = set()
    for word in WORDS:
        assert set(word) <= set(STROKES)
        drawn = ET.fromstring(f"<g>{draw_word(word)}</g>")
        strokes = drawn.findall(".//polyline")
        assert len(strokes) == sum(len(STROKES[letter]) for letter in word)
        for stroke in strokes:
            for point in stroke.get("points", "").split():
                x, y = map(float, point.split(","))
                assert 4 <= x <= 96 and 24 <= y <= 76, f"{word} leaves its board"
        seen.add(sign(word).tobytes())
    assert len(seen) == len(WORDS)


def test_letters_are_dark_on_a_light_board():
    for word in WORDS:
        board = sign(word)[30:66, 10:86].max(-1)
        assert (board < 110).mean() > 0.03, word
        assert (board > 230).mean() > 0.3, word


def test_letters_are_all_different():
    assert sorted(STROKES) == [chr(code) for code in range(ord("a"), ord("z") + 1)]
    assert len({tuple(sorted(strokes)) for strokes in STROKES.values()}) == 26


def test_a_word_with_other_signs_than_letters_is_refused():
    with pytest.raises(KeyError):
        draw_word("x2")


# Words


def read_caption(text: str) -> tuple[list[str], bool | None, str]:
    """A caption taken apart without the code under test: phrases from left to right (or top to bottom), across?, background."""
    for opening in OPENINGS:
        text = text.removeprefix(opening)
    background = next((name for name in BACKGROUNDS if name and text.endswith(f" {name}")), "")
    text = text.removesuffix(f" {background}") if background else text
    if found := re.fullmatch(r"(.+), (.+) and (.+) from (left|right|top|bottom) to (left|right|top|bottom)", text):
        *phrases, start, end = found.groups()
        assert {start, end} in ({"left", "right"}, {"top", "bottom"})
        return phrases if start in ("left", "top") else phrases[::-1], start in ("left", "right"), background
    if found := re.fullmatch(rf"(.+) ({POSITION}) (.+)", text):
        first, relation, second = found.groups()
        across, direction = NAMED_PLACES[relation]
        return [first, second] if direction < 0 else [second, first], across, background
    return [text], None, background


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


def test_phrases():
    assert phrase(Group("cat", "red", small=True)) == "a small red cat"
    assert phrase(Group("apple", "orange")) == "an orange apple"
    assert phrase(Group("apple", "blue", 3)) == "three blue apples"
    assert phrase(Group("glasses", "red")) == "a red pair of glasses"
    assert phrase(Group("glasses", "orange", 2)) == "two orange pairs of glasses"
    assert phrase(Group(SIGN, "", word="exit")) == "a sign saying exit"
    assert names(plain_scene(Group("cat", "red"), Group(SIGN, "", word="exit"))) == "cat and sign"


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
                subject = next(group for group in scene.groups if noun(group) == found[2])
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
    assert set(kinds) == {"name", "background", "read", "colour", "count", "yes/no", "position"}
    assert kinds["yes/no"] == {"yes", "no"} and {"yes", "no"} <= kinds["position"]
    assert kinds["count"] == set(NUMBERS[1:])
    assert kinds["colour"] == set(COLOURS)
    assert kinds["background"] == set(BACKGROUNDS) - {""}


def true_answer(scene: Scene, question: str, answer: str) -> str:
    """What the scene says to a question, read from its words; `answer` where several neighbours would do."""
    groups = {noun(group): group for group in scene.groups}
    plurals = {concepts()[group.concept].plural: group for group in scene.groups if group.concept != SIGN}
    if question == "what is shown?":
        return " and ".join(group.concept for group in scene.groups)
    if question == "where is it?":
        return scene.background
    if question == "what does the sign say?":
        return groups[SIGN].word
    if found := re.fullmatch(r"what colour (is|are) the (.+)\?", question):
        assert (found[1] == "is") == (groups[found[2]].count == 1)
        return groups[found[2]].colour
    if found := re.fullmatch(r"how many (.+) are there\?", question):
        return NUMBERS[plurals[found[1]].count]
    if found := re.fullmatch(r"is there (an? .+)\?", question):
        return "yes" if any(concepts()[g.concept].singular == found[1] for g in scene.groups if g.concept != SIGN) else "no"
    places = {name: place for place, name in enumerate(groups)}
    if found := re.fullmatch(rf"what is ({POSITION}) the (.+)\?", question):
        across, direction = NAMED_PLACES[found[1]]
        assert across is scene.across
        return scene.groups[places[found[2]] + direction].concept
    if found := re.fullmatch(rf"(?:is|are) the (.+) ({POSITION}) the (.+)\?", question):
        across, direction = NAMED_PLACES[found[2]]
        assert across is scene.across
        return "yes" if (places[found[1]] - places[found[3]]) * direction > 0 else "no"
    if found := re.fullmatch(r"(is|are) the (.+) (\w+)\?", question):
        assert (found[1] == "is") == (groups[found[2]].count == 1)
        return "yes" if groups[found[2]].colour == found[3] else "no"
    raise AssertionError(f"an unknown question: {question}, {answer}")


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
