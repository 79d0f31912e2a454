"""What many tests share, made once a run and only read: the built-in model, sample data, a trained adapter, and a few scenes as items."""

from __future__ import annotations

import importlib
import os
import random
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from folder import Folder
from golden import recorded

from slq.encoders.latent import LatentEncoder
from slq.io.provenance import isolated_rng
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.models import FrozenModel, load_model
from slq.types import Item, Pair

LIMIT = 1.0  # seconds of CPU time of a test without a marker; more would let `make test-fast` grow
SLACK = 4 if "CI" in os.environ else 3  # machines differ, and other work slows them, such as the second process of tests
EXEMPT = ("slow", "process", "gpu", "network", "browser", "research")
MANY = 300  # tests: of fewer, one would be charged with the first import of a library


def pytest_report_header() -> str:
    """What numbers may depend on."""
    return f"torch: {torch.backends.cpu.get_cpu_capability()} instructions, {torch.get_num_threads()} thread(s)"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Import what tests import lazily before any is measured."""
    if len(session.items) > MANY and not session.config.option.collectonly:
        for name in ("accelerate", "lancedb", "peft", "sentence_transformers"):
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that takes longer than its markers say: without one, a second of CPU time, that of its child processes counted in."""
    started = sum(os.times()[:4])
    result = yield
    spent = sum(os.times()[:4]) - started
    measured = len(item.session.items) > MANY and item.config.option.durations is None
    if measured and spent > LIMIT * SLACK and not any(item.get_closest_marker(name) for name in EXEMPT):
        pytest.fail(
            f"It took {spent:.1f} s of CPU time, and without a marker it has {LIMIT * SLACK:g}: mark it slow, or process.", pytrace=False
        )
    return result


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Let connections reach this machine only."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"The tests use no network, and this would connect to {address}.")
        connect(self, address)

    socket.socket.connect = only_here  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def random_numbers() -> Iterator[None]:
    """Give every test the same random numbers, whatever ran before it."""
    if "torch" in sys.modules:
        with isolated_rng(seed=0):
            yield
    else:
        random.seed(0)
        yield


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
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder of which no disk is waited for, where the system has one: for tests that write small files often."""
    if not os.path.isdir("/dev/shm"):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def folder_at(tmp_path: Path) -> Callable[[str], Folder]:
    def make(name: str) -> Folder:
        (tmp_path / name).mkdir()
        return Folder(tmp_path / name)

    return make
