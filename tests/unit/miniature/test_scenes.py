"""Scenes: what is drawn is what scenes, captions and answers say, checked in the pixels."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from seeing import NAMED_PLACES, POSITION, centre, pixels, plain_scene, read_caption, sampled, where

from slq.miniature.world.language import caption, object_name, phrase, questions
from slq.miniature.world.lettering import BOARD_HEIGHT, BOARD_WIDTH, STROKES, WORDS, draw_word
from slq.miniature.world.scenes import (
    BACKGROUNDS,
    IMAGE_SIZE,
    MAX_COUNT,
    SIGN,
    Group,
    Scene,
    placed_objects,
    recolour,
    render,
    sample_scene,
    to_svg,
    with_sign,
)
from slq.miniature.world.styles import COLOURS, HELD_OUT_STYLE, STYLES, SVG, TRAINING_STYLES

# Images


def test_a_scene_always_gives_the_same_image():
    for style in STYLES:
        scene = replace(sampled(1)[0], style=style)
        image = render(scene)
        assert image.size == (IMAGE_SIZE, IMAGE_SIZE) and image.mode == "RGB"
        assert image.tobytes() == render(replace(scene)).tobytes()


def test_seeds_give_different_images_of_one_content():
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
        assert 25 * scale <= x <= IMAGE_SIZE - 25 * scale and 25 * scale <= y <= IMAGE_SIZE - 25 * scale
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
        scene = replace(sample_scene(rng, number), across=across, background="", style="flat")
        scene = scene if across or seed % 2 else with_sign(scene, rng)
        axis = 0 if across else 1
        middles = [centre(where(scene, place)) for place in range(number)]
        coordinates = {group.concept: middle[axis] for group, middle in zip(scene.groups, middles, strict=True)}
        assert [place[axis] for place in middles] == sorted(place[axis] for place in middles)
        told, told_across, _ = read_caption(caption(scene))
        assert told_across is across
        assert told == [phrase(group) for group in sorted(scene.groups, key=lambda group: coordinates[group.concept])]
        for kind, question, answer in questions(scene, rng):
            if kind == "where":
                asked = re.fullmatch(r"where (?:is|are) the (.+)\?", question)
                assert asked and seen_place(coordinates, concept_of(scene, asked[1]), across) == answer
            if kind != "position":
                continue
            if found := re.fullmatch(rf"what is ({POSITION}) the (.+)\?", question):
                relation, landmark = found.groups()
                placed = coordinates[answer] - coordinates[concept_of(scene, landmark)]
                assert placed * NAMED_PLACES[relation][1] > 0, question
            else:
                ((first, relation, second),) = re.findall(rf"^(?:is|are) the (.+) ({POSITION}) the (.+)\?$", question)
                placed = coordinates[concept_of(scene, first)] - coordinates[concept_of(scene, second)]
                assert (placed * NAMED_PLACES[relation][1] > 0) == (answer == "yes"), question


def concept_of(scene: Scene, words: str) -> str:
    return next(group.concept for group in scene.groups if object_name(group) == words)


def seen_place(coordinates: dict[str, float], concept: str, across: bool) -> str:
    """Where a concept stands among all, from the middles of what is seen."""
    if coordinates[concept] == min(coordinates.values()):
        return "on the left" if across else "at the top"
    if coordinates[concept] == max(coordinates.values()):
        return "on the right" if across else "at the bottom"
    return "in the middle"


def test_things_are_drawn_where_they_are_placed():
    sizes = set()
    for scene in sampled(60, seed=9):
        placed = placed_objects(scene)
        assert [thing.group for thing in placed] == [number for number, group in enumerate(scene.groups) for _ in range(group.count)]
        drawn = [
            re.findall(r"-?[\d.]+", thing.get("transform", "")) for thing in list(ET.fromstring(to_svg(scene)).findall(f"{{{SVG}}}g")[-1])
        ]
        for thing, (x, y, turn, width, height, *_) in zip(placed, drawn, strict=True):
            assert (float(x), float(y), float(turn)) == pytest.approx((thing.x, thing.y, thing.degrees), abs=0.06)
            assert 100 * float(height) == pytest.approx(thing.size, abs=0.01)
            assert float(width) == pytest.approx(-float(height) if thing.flipped else float(height))
            assert not (thing.flipped and scene.groups[thing.group].concept == SIGN), "mirrored letters"
            assert abs(thing.degrees) <= (3.2 if scene.groups[thing.group].concept == SIGN else 8)
            sizes.add(scene.groups[thing.group].small)
    assert sizes == {True, False}
    alone = [thing for scene in sampled(200, seed=11) if len(scene.groups) == scene.groups[0].count == 1 for thing in placed_objects(scene)]
    assert np.mean([(thing.x, thing.y) for thing in alone], axis=0) == pytest.approx([IMAGE_SIZE / 2] * 2, abs=1.5)


def test_what_is_painted_lies_around_where_it_is_placed():
    for scene in sampled(40, seed=10):
        scene = replace(scene, style="flat", background="")
        placed = placed_objects(scene)
        for number, group in enumerate(scene.groups):
            mask = where(scene, number)
            around = np.zeros_like(mask)
            for thing in (thing for thing in placed if thing.group == number):
                half = 0.58 * thing.size + 1  # half a box, turned by at most 8 degrees
                top, left = max(0, round(thing.y - half)), max(0, round(thing.x - half))
                box = np.s_[top : round(thing.y + half), left : round(thing.x + half)]
                assert mask[box].mean() > 0.05, (scene, thing)
                around[box] = True
            assert not (mask & ~around).any(), (scene, group)


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


def test_a_sign_takes_the_place_of_one_group_and_stacks_the_scene():
    rng = random.Random(0)
    words, places = set(), set()
    for number in (1, 2, 3):
        for _ in range(60):
            scene = sample_scene(rng, number)
            kept = replace(scene)
            signed = with_sign(scene, rng)
            (place,) = (place for place, group in enumerate(signed.groups) if group.concept == SIGN)
            assert signed.groups[place] == Group(SIGN, "", word=signed.groups[place].word)
            assert signed.groups[place].word in WORDS
            assert signed == replace(scene, across=False, groups=(*scene.groups[:place], signed.groups[place], *scene.groups[place + 1 :]))
            assert scene == kept, "the scene given was changed"
            words.add(signed.groups[place].word)
            places.add((number, place))
    assert len(words) > 60
    assert places == {(number, place) for number in (1, 2, 3) for place in range(number)}


def test_signs_are_sampled_as_often_as_wished_and_never_side_by_side():
    rng = random.Random(3)
    scenes = [sample_scene(rng, rng.choice([1, 2, 3]), signs=0.3) for _ in range(1000)]
    signed = [scene for scene in scenes if any(group.concept == SIGN for group in scene.groups)]
    assert 240 <= len(signed) <= 360
    assert not any(scene.across for scene in signed)
    assert {scene.across for scene in scenes if scene not in signed} == {True, False}
    assert not any(group.concept == SIGN for _ in range(200) for group in sample_scene(rng, 2).groups)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_sign_has_room_for_its_word_wherever_it_stands(number):
    """Stacked, its letters are as wide among three as alone; side by side they would not be."""
    others = [Group("cat", "red"), Group("apple", "green")][: number - 1]
    for place in range(number):
        groups = [*others[:place], Group(SIGN, "", word="school"), *others[place:]]
        for seed in range(4):
            _, columns = np.nonzero(where(plain_scene(*groups, across=False, seed=seed), place))
            assert np.ptp(columns) > 45
            if number == 3:
                _, columns = np.nonzero(where(plain_scene(*groups, across=True, seed=seed), place))
                assert np.ptp(columns) < 35


@cache
def sign(word: str) -> np.ndarray:
    return pixels(plain_scene(Group(SIGN, "", word=word)))


def test_every_word_looks_different():
    assert len(WORDS) == len(set(WORDS)) >= 60
    assert len({sign(word).tobytes() for word in WORDS}) == len(WORDS)


@pytest.mark.parametrize("height", [BOARD_HEIGHT, 48, 38.3, 30])
def test_letters_stay_inside_their_board(height):
    for word in WORDS:
        drawn = ET.fromstring(f"<g>{draw_word(word, height)}</g>")
        board, lines = drawn.find("rect"), drawn.find("g")
        assert board is not None and lines is not None
        x, y, wide, high, rim = (float(board.get(name, "")) for name in ("x", "y", "width", "height", "stroke-width"))
        assert (x, y, wide, high) == pytest.approx(((100 - BOARD_WIDTH) / 2, (100 - height) / 2, BOARD_WIDTH, height), abs=0.051)
        edge = (rim + float(lines.get("stroke-width", ""))) / 2
        strokes = lines.findall("polyline")
        assert len(strokes) == sum(len(STROKES[letter]) for letter in word)
        points = [tuple(map(float, point.split(","))) for stroke in strokes for point in stroke.get("points", "").split()]
        for across, down in points:
            assert x + edge <= across <= x + wide - edge and y + edge <= down <= y + high - edge, f"{word} leaves its board"
        tall = max(down for _, down in points) - min(down for _, down in points)
        assert tall >= min(0.25 * height, 14), f"{word} is too small to read"


def test_a_lower_board_has_smaller_letters_only_where_it_must():
    long, short = "menu" * 3, "up"
    assert letters(long, BOARD_HEIGHT) == letters(long, 30), "a long word is bound by the board's width"
    assert letters(short, BOARD_HEIGHT) > letters(short, 38.3) > letters(short, 30)


def letters(word: str, height: float) -> float:
    """How wide a word is written."""
    points = [float(x) for x in re.findall(r"([\d.]+),", draw_word(word, height))]
    return round(max(points) - min(points), 1)


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
