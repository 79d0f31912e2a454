"""Texts about scenes: captions, questions with answers, and the change that a composed query asks for."""

from __future__ import annotations

import random

from slq.miniature.world.concepts import concepts
from slq.miniature.world.scenes import SIGN, Group, Scene, recolour
from slq.miniature.world.styles import COLOURS

NUMBERS = ("no", "one", "two", "three", "four")
PLACES = ("on the left", "on the right", "at the top", "at the bottom", "in the middle")


def phrase(group: Group) -> str:
    """A group in words.

    Args:
        group: of a scene.

    Example:
        >>> phrase(Group("cat", "red", small=True)), phrase(Group("apple", "blue", count=3)), phrase(Group(SIGN, "", word="exit"))
        ('a small red cat', 'three blue apples', 'a sign saying exit')
    """
    if group.concept == SIGN:
        return f"a sign saying {group.word}"
    concept = concepts()[group.concept]
    words = f"{'small ' if group.small else ''}{group.colour} "
    if group.count > 1:
        return f"{NUMBERS[group.count]} {words}{concept.plural}"
    _, name = concept.singular.split(" ", 1)
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words}{name}"


def object_name(group: Group) -> str:
    """The name of the group's objects without an article: `cat`, `cats`, `sign`.

    Args:
        group: of a scene.
    """
    if group.concept == SIGN:
        return SIGN
    concept = concepts()[group.concept]
    return concept.plural if group.count > 1 else concept.singular.split(" ", 1)[1]


def object_names(scene: Scene) -> str:
    """The scene's concepts in reading order: `cat and apple`.

    Args:
        scene: with one group at least.
    """
    return " and ".join(group.concept for group in scene.groups)


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """The caption of a scene.

    Args:
        scene: what the image shows.
        rng: chooses one of several equivalent wordings; None for one fixed wording.

    Returns:
        A caption such as `a red cat left of two blue dogs on grass`.
    """
    return compose(scene, [phrase(group) for group in scene.groups], rng)


def compose(scene: Scene, phrases: list[str], rng: random.Random | None = None) -> str:
    """A caption from given phrases.

    Args:
        scene: gives the arrangement and the background.
        phrases: one for each group, in the groups' order.
        rng: chooses one of several equivalent wordings; None for one fixed wording.

    Returns:
        The caption.
    """
    phrases = list(phrases)
    reverse = rng is not None and len(phrases) > 1 and rng.random() < 0.4
    if reverse:
        phrases.reverse()
    forward, backward = ("left of", "right of") if scene.across else ("above", "below")
    if len(phrases) == 1:
        text = phrases[0]
    elif len(phrases) == 2:
        text = f"{phrases[0]} {backward if reverse else forward} {phrases[1]}"
    else:
        ends = ("left", "right") if scene.across else ("top", "bottom")
        start, end = ends[::-1] if reverse else ends
        text = f"{phrases[0]}, {phrases[1]} and {phrases[2]} from {start} to {end}"
    background = f" {scene.background}" if scene.background else ""
    if rng is None:
        return text + background
    first = scene.groups[-1 if reverse else 0]
    opening = rng.choice(["", "", "", "there are " if first.count > 1 else "there is ", "a picture of ", "we see "])
    return opening + text + background


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str, str]]:
    """Questions about one scene that have one right answer.

    Args:
        scene: what the image shows.
        rng: chooses the objects and colours that yes/no questions ask for.

    Returns:
        Triples of kind, question and answer; the kinds are colour, count, position, where, yes/no, name, read and background.
    """
    asked: list[tuple[str, str, str]] = [("name", "what is shown?", object_names(scene))]
    if scene.background:
        asked.append(("background", "where is it?", scene.background))
    for place, group in enumerate(scene.groups):
        if place > 0:
            asked += _positions(scene, place)
        if len(scene.groups) > 1:
            asked.append(("where", f"where {'is' if group.count == 1 else 'are'} the {object_name(group)}?", where(scene, place)))
        if group.concept == SIGN:
            asked.append(("read", "what does the sign say?", group.word))
            continue
        one = group.count == 1
        asked.append(("colour", f"what colour {'is' if one else 'are'} the {object_name(group)}?", group.colour))
        plural = concepts()[group.concept].plural
        asked.append(("count", f"how many {plural} are there?", NUMBERS[group.count]))
        asked.append(_yes_no_colour(group, rng))
    present = rng.choice(scene.groups)
    asked.append(("yes/no", f"is there {concepts()[_absent(scene, rng)].singular}?", "no"))
    if present.concept != SIGN:
        asked.append(("yes/no", f"is there {concepts()[present.concept].singular}?", "yes"))
    return asked


def _absent(scene: Scene, rng: random.Random) -> str:
    """A concept that the scene lacks; half of the time one of the same kind as one of its own, where there is one."""
    present = {group.concept for group in scene.groups}
    kinds = {concepts()[name].kind for name in present if name != SIGN}
    others = [name for name in concepts() if name not in present]
    same_kind = [name for name in others if concepts()[name].kind in kinds]
    return rng.choice(same_kind if same_kind and rng.random() < 0.5 else others)


def where(scene: Scene, place: int) -> str:
    """Where the group with index `place` stands among two or three: one of `PLACES`.

    Args:
        scene: of two or three groups.
        place: from 0, in reading order.
    """
    left, right, top, bottom, middle = PLACES
    first, last = (left, right) if scene.across else (top, bottom)
    return first if place == 0 else last if place == len(scene.groups) - 1 else middle


def _yes_no_colour(group: Group, rng: random.Random) -> tuple[str, str, str]:
    truth = rng.random() < 0.5
    colour = group.colour if truth else rng.choice([name for name in COLOURS if name != group.colour])
    verb = "is" if group.count == 1 else "are"
    return "yes/no", f"{verb} the {object_name(group)} {colour}?", "yes" if truth else "no"


def _positions(scene: Scene, place: int) -> list[tuple[str, str, str]]:
    """Which of two neighbours stands where, asked from both sides, so that the words alone never give the answer away.

    Among three, what is left of the last is ambiguous: only yes and no are asked.
    """
    first, second = scene.groups[place - 1], scene.groups[place]
    before, after = ("left of", "right of") if scene.across else ("above", "below")
    is_first, is_second = (f"{'is' if group.count == 1 else 'are'} the {object_name(group)}" for group in (first, second))
    asked = [
        ("position", f"{is_first} {before} the {object_name(second)}?", "yes"),
        ("position", f"{is_first} {after} the {object_name(second)}?", "no"),
        ("position", f"{is_second} {before} the {object_name(first)}?", "no"),
        ("position", f"{is_second} {after} the {object_name(first)}?", "yes"),
    ]
    if len(scene.groups) == 2:
        asked += 2 * [
            ("position", f"what is {before} the {object_name(second)}?", first.concept),
            ("position", f"what is {after} the {object_name(first)}?", second.concept),
        ]
    return asked


def change_of_colour(scene: Scene, rng: random.Random) -> tuple[str, Scene] | None:
    """A change to ask for, and the scene it leads to.

    Args:
        scene: only a scene of one group is changed, so that the text is never ambiguous.
        rng: chooses the new colour.

    Returns:
        A text such as `but blue`, and the recoloured scene; None where nothing can be recoloured.
    """
    if len(scene.groups) > 1 or scene.groups[0].concept == SIGN:
        return None
    colour = rng.choice([name for name in COLOURS if name != scene.groups[0].colour])
    return f"but {colour}", recolour(scene, 0, colour)
