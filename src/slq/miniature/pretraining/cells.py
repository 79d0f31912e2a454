"""What stands where, told to the picture tokens themselves: a second loss that pre-training adds and the shipped model does not keep.

A picture token stands for a square of 16 pixels. Naming the thing, the colour and the printed word under each token teaches the vision
tower from 36 places a picture, where answers alone give it a handful of words.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slq.miniature.architecture import IMAGE_TOKENS
from slq.miniature.world.concepts import concepts
from slq.miniature.world.lettering import WORDS
from slq.miniature.world.scenes import PICTURE_SIZE, SIGN, Scene, placed_things
from slq.miniature.world.styles import COLOURS

UNKNOWN = -100  # as IGNORED in batches: torch's own index to ignore
SIDE = int(IMAGE_TOKENS**0.5)
CLASSES = {"things": [*concepts(), SIGN], "colours": list(COLOURS), "words": list(WORDS)}


def cell_labels(scene: Scene) -> dict[str, Tensor]:
    """Class of each picture token (IMAGE_TOKENS), by kind of class; UNKNOWN where nothing of that kind stands."""
    labels = {kind: torch.full((SIDE, SIDE), UNKNOWN) for kind in CLASSES}
    step = PICTURE_SIZE / SIDE
    centres = (torch.arange(SIDE) + 0.5) * step
    for thing in placed_things(scene):
        group = scene.groups[thing.group]
        across, down = 0.42 * thing.size, (0.16 if group.concept == SIGN else 0.42) * thing.size
        covered = ((centres - thing.y).abs() <= down)[:, None] & ((centres - thing.x).abs() <= across)[None, :]
        row, column = (min(SIDE - 1, max(0, int(place / step))) for place in (thing.y, thing.x))
        covered[row, column] = True  # a small thing may cover no cell's centre
        labels["things"][covered] = CLASSES["things"].index(group.concept)
        if group.concept == SIGN:
            labels["words"][covered] = CLASSES["words"].index(group.word)
        else:
            labels["colours"][covered] = CLASSES["colours"].index(group.colour)
    return {kind: grid.flatten() for kind, grid in labels.items()}
