"""Minimal pairs: two scenes that differ in one thing, so that the right words in the wrong order find the wrong one.

recoloured   one group in another colour               (also a composed query's answer: "but blue")
exchanged    two groups with each other's colours      a red cat left of a blue dog | a blue cat left of a red dog
rearranged   two groups in each other's positions      a cat left of a dog          | a dog left of a cat
recounted    one object more or less                   two cats above a dog         | three cats above a dog
replaced     an object of the same kind instead        a cat left of a dog          | a fox left of a dog
"""

from __future__ import annotations

import random
from dataclasses import replace

from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import change_of_colour
from slq.miniature.world.scenes import MAX_COUNT, SIGN, Group, Scene

DIFFERENCES = ("recoloured", "exchanged", "rearranged", "recounted", "replaced")


def minimal_pair(scene: Scene, differs_in: str, rng: random.Random) -> Scene | None:
    """The other scene of a minimal pair.

    Args:
        scene: the first of the pair.
        differs_in: one of `DIFFERENCES`.
        rng: chooses what the difference leaves open, and the new scene's seed.

    Returns:
        A scene with a seed of its own that differs in this one thing; None where it does not apply (an exchange needs two groups).
    """
    changed = _CHANGES[differs_in](scene, rng)
    return None if changed is None or changed.content == scene.content else replace(changed, seed=rng.randrange(2**31))


def _recoloured(scene: Scene, rng: random.Random) -> Scene | None:
    change = change_of_colour(scene, rng)
    return change[1] if change else None


def _exchanged(scene: Scene, rng: random.Random) -> Scene | None:
    if len(scene.groups) != 2 or any(group.concept == SIGN for group in scene.groups):
        return None
    first, second = scene.groups
    return replace(scene, groups=(replace(first, colour=second.colour), replace(second, colour=first.colour)))


def _rearranged(scene: Scene, rng: random.Random) -> Scene | None:
    return replace(scene, groups=scene.groups[::-1]) if len(scene.groups) == 2 else None


def _recounted(scene: Scene, rng: random.Random) -> Scene | None:
    """One more or one less, as far as such an image has room; a small object is small only while it is alone."""
    place = _any_group(scene, rng)
    if place is None:
        return None
    most = {1: MAX_COUNT, 2: MAX_COUNT - 1}.get(len(scene.groups), 1)
    counts = [count for count in (scene.groups[place].count - 1, scene.groups[place].count + 1) if 1 <= count <= most]
    if not counts:
        return None
    return _with_group(scene, place, replace(scene.groups[place], count=rng.choice(counts), small=False))


def _replaced(scene: Scene, rng: random.Random) -> Scene | None:
    place = _any_group(scene, rng)
    if place is None:
        return None
    present = {group.concept for group in scene.groups}
    kind = concepts()[scene.groups[place].concept].kind
    same_kind = [name for name, concept in concepts().items() if concept.kind == kind and name not in present]
    return _with_group(scene, place, replace(scene.groups[place], concept=rng.choice(same_kind)))


def _any_group(scene: Scene, rng: random.Random) -> int | None:
    """Index of one group of objects; None where there are only signs."""
    places = [place for place, group in enumerate(scene.groups) if group.concept != SIGN]
    return rng.choice(places) if places else None


def _with_group(scene: Scene, place: int, group: Group) -> Scene:
    return replace(scene, groups=(*scene.groups[:place], group, *scene.groups[place + 1 :]))


_CHANGES = {
    "recoloured": _recoloured,
    "exchanged": _exchanged,
    "rearranged": _rearranged,
    "recounted": _recounted,
    "replaced": _replaced,
}
