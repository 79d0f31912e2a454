"""What the tests of several experiments share."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.models import FrozenModel, load_model
from slq.types import Item


@pytest.fixture(scope="session")
def model() -> FrozenModel:
    return load_model(device="cpu")


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Four texts of different lengths, four images, and two of both."""
    rng = random.Random(7)
    scenes = [sample_scene(rng, 1 + number % 3) for number in range(4)]
    images = [Item(image=render(scene)) for scene in scenes]
    texts = [Item(caption(scene, rng)) for scene in scenes]
    return [*texts, *images, Item("but blue", images[0].image), Item("at night", images[1].image)]


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """What the photo recipe is tried on; see `photo_stand_ins`."""
    from research.tests.photo_stand_ins import write_parts

    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder
