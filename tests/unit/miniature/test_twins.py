"""Twins: each respect changes exactly what it says, and is refused where it does not apply."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from seeing import check_twin, pixels, plain_scene, sampled

from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import MAX_COUNT, SIGN, Group, Scene, placed_things, render, split_of, with_sign
from slq.miniature.world.twins import RESPECTS, twin

CAT, DOG = Group("cat", "red", 2), Group("dog", "blue")
PAIR = plain_scene(CAT, DOG)

each_respect = pytest.mark.parametrize("respect", RESPECTS)


def applies(scene: Scene, respect: str) -> bool:
    colours = [group.colour for group in scene.groups]
    return {
        "recoloured": len(scene.groups) == 1,
        "exchanged": len(scene.groups) == 2 and colours[0] != colours[-1],
        "rearranged": len(scene.groups) == 2,
        "recounted": len(scene.groups) <= 2,
        "replaced": True,
    }[respect]


@each_respect
def test_a_twin_differs_in_its_respect_and_in_nothing_else(respect):
    rng = random.Random(respect)
    made = 0
    for scene in sampled(400, signs=0):
        kept = replace(scene)
        other = twin(scene, respect, rng)
        assert scene == kept
        assert (other is not None) == applies(scene, respect), scene
        if other is not None:
            check_twin(scene, other, respect)
            made += 1
    assert made > 80


@each_respect
def test_twins_are_told_apart_by_their_captions(respect):
    rng = random.Random(respect)
    for scene in sampled(300, seed=1, signs=0):
        other = twin(scene, respect, rng)
        if other is not None:
            assert caption(scene) != caption(other)
            assert scene.content != other.content


@each_respect
def test_twins_look_different_even_if_drawn_alike(respect):
    rng = random.Random(respect)
    for scene in (plain_scene(CAT), PAIR, plain_scene(CAT, DOG, across=False)):
        other = twin(scene, respect, rng)
        if other is not None:
            assert (abs(pixels(scene) - pixels(replace(other, seed=scene.seed))).max(-1) > 40).sum() > 50


def test_a_recount_draws_one_thing_more_or_less():
    rng = random.Random(0)
    changes: Counter[int] = Counter()
    for scene in sampled(300, seed=2, signs=0):
        other = twin(scene, "recounted", rng)
        if other is not None:
            assert max(group.count for group in other.groups) <= (MAX_COUNT if len(scene.groups) == 1 else MAX_COUNT - 1)
            changes[len(placed_things(other)) - len(placed_things(scene))] += 1
    assert changes.keys() == {-1, 1} and min(changes.values()) > 20


def test_a_recount_takes_away_smallness_and_only_there():
    small = replace(DOG, small=True)
    (recounted,) = {twin(plain_scene(small), "recounted", random.Random(seed)).groups for seed in range(5)}
    assert recounted == (replace(DOG, count=2),)
    found = {twin(plain_scene(small, CAT), "recounted", random.Random(seed)).groups for seed in range(30)}
    assert found == {(replace(DOG, count=2), CAT), (small, replace(CAT, count=1)), (small, replace(CAT, count=3))}


def test_every_other_colour_and_every_thing_of_the_kind_can_come():
    rng = random.Random(0)
    alike = {name for name, concept in concepts().items() if concept.kind == concepts()["cat"].kind} - {"cat"}
    assert {twin(plain_scene(CAT), "replaced", rng).groups[0].concept for _ in range(1000)} == alike
    assert len({twin(plain_scene(CAT), "recoloured", rng).groups[0].colour for _ in range(200)}) == 8
    changed = [[place for place, group in enumerate(twin(PAIR, "replaced", rng).groups) if group != PAIR.groups[place]] for _ in range(30)]
    assert {tuple(places) for places in changed} == {(0,), (1,)}


def test_what_does_not_apply_is_refused():
    rng = random.Random(0)
    three = plain_scene(replace(CAT, count=1), DOG, Group("cow", "green"))
    same_colour = plain_scene(CAT, replace(DOG, colour=CAT.colour))
    for scene, respects in (
        (plain_scene(CAT), ("exchanged", "rearranged")),
        (PAIR, ("recoloured",)),
        (three, ("recoloured", "exchanged", "rearranged", "recounted")),
        (same_colour, ("recoloured", "exchanged")),
    ):
        refused = {respect for respect in RESPECTS if all(twin(scene, respect, rng) is None for _ in range(20))}
        assert refused == set(respects), scene


@each_respect
def test_the_same_chance_gives_the_same_twin(respect):
    scene = plain_scene(CAT) if respect == "recoloured" else PAIR
    assert twin(scene, respect, random.Random(1)) == twin(scene, respect, random.Random(1)) is not None
    assert len({twin(scene, respect, random.Random(seed)) for seed in range(5)}) == 5


def test_recolouring_keeps_the_split():
    rng = random.Random(0)
    scenes = [scene for scene in sampled(300, seed=3, signs=0) if len(scene.groups) == 1]
    assert all(split_of(twin(scene, "recoloured", rng)) == split_of(scene) for scene in scenes)


@each_respect
def test_beside_a_sign_only_things_change(respect):
    """A sign has no colour and is one: neither is given away or counted, and every twin can be drawn and told apart."""
    rng = random.Random(respect)
    made = 0
    for scene in (with_sign(scene, rng) for scene in sampled(80, seed=4, signs=0)):
        other = twin(scene, respect, rng)
        if other is None:
            continue
        check_twin(scene, other, respect)
        signs = [group for group in scene.groups if group.concept == SIGN]
        assert [group for group in other.groups if group.concept == SIGN] == signs
        assert caption(scene) != caption(other)
        render(other)
        made += 1
    assert (made > 5) == (respect in ("rearranged", "recounted", "replaced"))
