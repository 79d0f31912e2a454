"""What stands where, told to the tokens themselves: losses that pre-training adds and whose readers the shipped model does not keep.

An image token stands for a square of 16 pixels. Reading the thing, its colour, its number, its place in the scene or its printed word
from each token teaches the vision encoder from 36 places an image, where answers alone give it a handful of words.
"""

from __future__ import annotations

import torch
from torch import Tensor

from research.pretraining.architecture import IMAGE_TOKENS
from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import NUMBERS, PLACES, where
from slq.miniature.world.lettering import WORDS
from slq.miniature.world.scenes import IMAGE_SIZE, SIGN, Scene, placed_objects
from slq.miniature.world.styles import COLOURS

UNKNOWN = -100  # as IGNORED in batches: torch's own index to ignore
SIDE = int(IMAGE_TOKENS**0.5)
CLASSES = {"things": [*concepts(), SIGN], "colours": list(COLOURS), "words": list(WORDS), "counts": list(NUMBERS), "places": list(PLACES)}


def group_labels(scene: Scene, place: int) -> dict[str, int]:
    """Class of one group, by kind of class; without the kinds it has none of: a sign no colour, a group alone no place."""
    group = scene.groups[place]
    named = {"things": group.concept, "counts": NUMBERS[group.count]}
    named |= {"words": group.word} if group.concept == SIGN else {"colours": group.colour}
    named |= {"places": where(scene, place)} if len(scene.groups) > 1 else {}
    return {kind: CLASSES[kind].index(name) for kind, name in named.items()}


def cell_labels(scene: Scene) -> dict[str, Tensor]:
    """Class of each image token (IMAGE_TOKENS), by kind of class; UNKNOWN where nothing of that kind stands."""
    labels = {kind: torch.full((SIDE, SIDE), UNKNOWN) for kind in CLASSES}
    of_groups = [group_labels(scene, place) for place in range(len(scene.groups))]
    step = IMAGE_SIZE / SIDE
    centres = (torch.arange(SIDE) + 0.5) * step
    for thing in placed_objects(scene):
        sign = scene.groups[thing.group].concept == SIGN
        across, down = 0.42 * thing.size, (0.16 if sign else 0.42) * thing.size
        covered = ((centres - thing.y).abs() <= down)[:, None] & ((centres - thing.x).abs() <= across)[None, :]
        row, column = (min(SIDE - 1, max(0, int(place / step))) for place in (thing.y, thing.x))
        covered[row, column] = True  # a small thing may cover no cell's centre
        for kind, label in of_groups[thing.group].items():
            labels[kind][covered] = label
    return {kind: grid.flatten() for kind, grid in labels.items()}
