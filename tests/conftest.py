"""What many tests share, made once a run and only read: the built-in model, sample data, a trained adapter, and a few scenes as items."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

# Before torch and the hub's library are imported: they read these once. With one thread small models run as fast, and sums do not wait
# for a second core that is busy elsewhere.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "SLQ_LOAD_PLUGINS": ""}

import pytest
from folder import Folder
from golden import recorded

from slq.encoders.latent import LatentEncoder
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.models import FrozenModel, load_model
from slq.types import Item, Pair


@pytest.fixture(scope="session")
def model() -> FrozenModel:
    return load_model(device="cpu")


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """Sample data: train/ with 60 images and test/ with 40 others, each with captions and judged sets."""
    folder = tmp_path_factory.mktemp("sample")
    recorded.write_sample(folder)
    return folder


@pytest.fixture(scope="session")
def adapter(sample, model) -> Path:
    """Latent queries after 20 steps on the sample: the golden run, which tests/golden compares with what was recorded."""
    return recorded.train_adapter(sample, model)


@pytest.fixture(scope="session")
def encoder(adapter, model) -> LatentEncoder:
    return LatentEncoder.from_pretrained(adapter, model)


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Four texts of different lengths, four images, and two of both."""
    rng = random.Random(7)
    scenes = [sample_scene(rng, 1 + number % 3) for number in range(4)]
    images = [Item(image=render(scene)) for scene in scenes]
    texts = [Item(caption(scene, rng)) for scene in scenes]
    return [*texts, *images, Item("but blue", images[0].image), Item("at night", images[1].image)]


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """40 pairs of an image with two captions."""
    rng = random.Random(8)
    scenes = [sample_scene(rng, 1 + number % 2) for number in range(40)]
    return [Pair(Item(image=render(scene)), (Item(caption(scene)), Item("we see " + caption(scene)))) for scene in scenes]


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty cache folder in the place of the user's, and of the hub's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def folder_at(tmp_path: Path) -> Callable[[str], Folder]:
    def make(name: str) -> Folder:
        (tmp_path / name).mkdir()
        return Folder(tmp_path / name)

    return make
