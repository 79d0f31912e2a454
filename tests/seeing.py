"""What the tests of the miniature share: scenes to look at, pixels told apart by repainting, and captions taken apart."""

from __future__ import annotations

import random
import re
from dataclasses import fields, replace

import numpy as np

from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import NUMBERS, object_name
from slq.miniature.world.scenes import BACKGROUNDS, MAX_COUNT, SIGN, Group, Scene, recolour, render, sample_scene

OPENINGS = ("there is ", "there are ", "a picture of ", "we see ")
NAMED_PLACES = {"left of": (True, -1), "right of": (True, 1), "above": (False, -1), "below": (False, 1)}
POSITION = "|".join(NAMED_PLACES)
PLACES = {True: ("on the left", "in the middle", "on the right"), False: ("at the top", "in the middle", "at the bottom")}


def sampled(count: int, seed: int = 0, signs: float = 0.3) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, rng.choice([1, 2, 3]), signs=signs) for _ in range(count)]


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


def true_answer(scene: Scene, question: str, answer: str) -> str:
    """What the scene says to a question, read from its words; `answer` where several neighbours would do."""
    groups = {object_name(group): group for group in scene.groups}
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
    if found := re.fullmatch(r"where (is|are) the (.+)\?", question):
        assert (found[1] == "is") == (groups[found[2]].count == 1)
        first, middle, last = PLACES[scene.across]
        return {2: (first, last), 3: (first, middle, last)}[len(groups)][places[found[2]]]
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


def told_apart(first: Scene, second: Scene) -> set[str]:
    """In what two scenes of equally many groups differ: a word for each place and part of it, or for the scene as a whole."""
    assert len(first.groups) == len(second.groups)
    parts = {field.name for field in fields(Scene) if getattr(first, field.name) != getattr(second, field.name)} - {"groups"}
    for place, (one, other) in enumerate(zip(first.groups, second.groups, strict=True)):
        parts |= {f"{place} {field.name}" for field in fields(Group) if getattr(one, field.name) != getattr(other, field.name)}
    return parts


def check_minimal_pair(scene: Scene, other: Scene, differs_in: str) -> None:
    """The scenes of a minimal pair differ in one thing, in their seeds, and in nothing else."""
    apart = told_apart(scene, other) - {"seed"}
    assert other.seed != scene.seed
    if differs_in == "recoloured":
        assert apart == {"0 colour"} and len(scene.groups) == 1
    elif differs_in == "exchanged":
        assert apart == {"0 colour", "1 colour"}
        assert [group.colour for group in other.groups] == [group.colour for group in reversed(scene.groups)]
    elif differs_in == "rearranged":
        assert other == replace(scene, groups=(scene.groups[1], scene.groups[0]), seed=other.seed)
    elif differs_in == "recounted":
        (place,) = (place for place in range(len(scene.groups)) if f"{place} count" in apart)
        before, after = scene.groups[place], other.groups[place]
        assert abs(before.count - after.count) == 1 and 1 <= after.count <= MAX_COUNT
        assert apart == {f"{place} count"} | ({f"{place} small"} if before.small else set()) and not after.small
    elif differs_in == "replaced":
        (place,) = (place for place in range(len(scene.groups)) if f"{place} concept" in apart)
        assert apart == {f"{place} concept"}
        before, after = (concepts()[shown.groups[place].concept] for shown in (scene, other))
        assert before.kind == after.kind and after.name not in {group.concept for group in scene.groups}
    else:
        raise AssertionError(f"an unknown difference: {differs_in}")
