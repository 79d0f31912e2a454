"""Minimal pairs: each difference changes exactly what it says, and is refused where it does not apply."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from seeing import check_minimal_pair, pixels, plain_scene, sampled

from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import caption
from slq.miniature.world.minimal_pairs import DIFFERENCES, minimal_pair
from slq.miniature.world.scenes import MAX_COUNT, SIGN, Group, Scene, placed_objects, render, split_of, with_sign

CAT, DOG = Group("cat", "red", 2), Group("dog", "blue")
PAIR = plain_scene(CAT, DOG)

each_difference = pytest.mark.parametrize("differs_in", DIFFERENCES)


def applies(scene: Scene, differs_in: str) -> bool:
    colours = [group.colour for group in scene.groups]
    return {
        "recoloured": len(scene.groups) == 1,
        "exchanged": len(scene.groups) == 2 and colours[0] != colours[-1],
        "rearranged": len(scene.groups) == 2,
        "recounted": len(scene.groups) <= 2,
        "replaced": True,
    }[differs_in]


@each_difference
def test_a_pair_differs_in_one_thing_and_in_nothing_else(differs_in):
    rng = random.Random(differs_in)
    made = 0
    for scene in sampled(400, signs=0):
        copy = replace(scene)
        other = minimal_pair(scene, differs_in, rng)
        assert scene == copy
        assert (other is not None) == applies(scene, differs_in), scene
        if other is not None:
            check_minimal_pair(scene, other, differs_in)
            made += 1
    assert made > 80


@each_difference
def test_a_pair_has_different_captions(differs_in):
    rng = random.Random(differs_in)
    for scene in sampled(300, seed=1, signs=0):
        other = minimal_pair(scene, differs_in, rng)
        if other is not None:
            assert caption(scene) != caption(other)
            assert scene.content != other.content


@each_difference
def test_a_pair_looks_different_even_with_one_seed(differs_in):
    rng = random.Random(differs_in)
    for scene in (plain_scene(CAT), PAIR, plain_scene(CAT, DOG, across=False)):
        other = minimal_pair(scene, differs_in, rng)
        if other is not None:
            assert (abs(pixels(scene) - pixels(replace(other, seed=scene.seed))).max(-1) > 40).sum() > 50


def test_a_recount_renders_one_object_more_or_less():
    rng = random.Random(0)
    changes: Counter[int] = Counter()
    for scene in sampled(300, seed=2, signs=0):
        other = minimal_pair(scene, "recounted", rng)
        if other is not None:
            assert max(group.count for group in other.groups) <= (MAX_COUNT if len(scene.groups) == 1 else MAX_COUNT - 1)
            changes[len(placed_objects(other)) - len(placed_objects(scene))] += 1
    assert changes.keys() == {-1, 1} and min(changes.values()) > 20


def test_a_recount_takes_away_smallness_and_only_there():
    small = replace(DOG, small=True)
    (recounted,) = {minimal_pair(plain_scene(small), "recounted", random.Random(seed)).groups for seed in range(5)}
    assert recounted == (replace(DOG, count=2),)
    found = {minimal_pair(plain_scene(small, CAT), "recounted", random.Random(seed)).groups for seed in range(30)}
    assert found == {(replace(DOG, count=2), CAT), (small, replace(CAT, count=1)), (small, replace(CAT, count=3))}


def test_every_other_colour_and_every_object_of_the_kind_can_come():
    rng = random.Random(0)
    same_kind = {name for name, concept in concepts().items() if concept.kind == concepts()["cat"].kind} - {"cat"}
    assert {minimal_pair(plain_scene(CAT), "replaced", rng).groups[0].concept for _ in range(1000)} == same_kind
    assert len({minimal_pair(plain_scene(CAT), "recoloured", rng).groups[0].colour for _ in range(200)}) == 8
    changed = [
        [place for place, group in enumerate(minimal_pair(PAIR, "replaced", rng).groups) if group != PAIR.groups[place]] for _ in range(30)
    ]
    assert {tuple(places) for places in changed} == {(0,), (1,)}


def test_what_does_not_apply_is_refused():
    rng = random.Random(0)
    three = plain_scene(replace(CAT, count=1), DOG, Group("cow", "green"))
    same_colour = plain_scene(CAT, replace(DOG, colour=CAT.colour))
    for scene, differences in (
        (plain_scene(CAT), ("exchanged", "rearranged")),
        (PAIR, ("recoloured",)),
        (three, ("recoloured", "exchanged", "rearranged", "recounted")),
        (same_colour, ("recoloured", "exchanged")),
    ):
        refused = {differs_in for differs_in in DIFFERENCES if all(minimal_pair(scene, differs_in, rng) is None for _ in range(20))}
        assert refused == set(differences), scene


@each_difference
def test_the_same_seed_gives_the_same_counterpart(differs_in):
    scene = plain_scene(CAT) if differs_in == "recoloured" else PAIR
    assert minimal_pair(scene, differs_in, random.Random(1)) == minimal_pair(scene, differs_in, random.Random(1)) is not None
    assert len({minimal_pair(scene, differs_in, random.Random(seed)) for seed in range(5)}) == 5


def test_recolouring_keeps_the_split():
    rng = random.Random(0)
    scenes = [scene for scene in sampled(300, seed=3, signs=0) if len(scene.groups) == 1]
    assert all(split_of(minimal_pair(scene, "recoloured", rng)) == split_of(scene) for scene in scenes)


@each_difference
def test_beside_a_sign_only_objects_change(differs_in):
    """A sign has no colour and is one: neither is exchanged or recounted, and every counterpart has a caption of its own."""
    rng = random.Random(differs_in)
    made = 0
    for scene in (with_sign(scene, rng) for scene in sampled(80, seed=4, signs=0)):
        other = minimal_pair(scene, differs_in, rng)
        if other is None:
            continue
        check_minimal_pair(scene, other, differs_in)
        signs = [group for group in scene.groups if group.concept == SIGN]
        assert [group for group in other.groups if group.concept == SIGN] == signs
        assert caption(scene) != caption(other)
        render(other)
        made += 1
    assert (made > 5) == (differs_in in ("rearranged", "recounted", "replaced"))
