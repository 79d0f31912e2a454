"""What the tests of several experiments share."""

from __future__ import annotations

import random

import pytest

from slq.backbone import FrozenBackbone, load_backbone
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.types import Item


@pytest.fixture(scope="session")
def backbone() -> FrozenBackbone:
    return load_backbone(device="cpu")


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Four texts of different lengths, four pictures, and two of both."""
    rng = random.Random(7)
    scenes = [sample_scene(rng, 1 + number % 3) for number in range(4)]
    pictures = [Item(image=render(scene)) for scene in scenes]
    texts = [Item(caption(scene, rng)) for scene in scenes]
    return [*texts, *pictures, Item("but blue", pictures[0].image), Item("at night", pictures[1].image)]
