"""A small world, an endpoint's script that knows it, and a set that was built from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import run
from picture_book import PictureBook
from slq_karr.build import Built

from slq.miniature.export import write_sample_data
from slq.models import FrozenModel, load_model


@pytest.fixture(scope="session")
def model() -> FrozenModel:
    return load_model(device="cpu")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("karr") / "world"
    write_sample_data(folder, "test", 40)
    return folder


@pytest.fixture(scope="session")
def book(world: Path) -> PictureBook:
    return PictureBook(world)


@pytest.fixture(scope="session")
def whole(world, book, tmp_path_factory) -> tuple[Path, Built, list[str]]:
    out, asked = tmp_path_factory.mktemp("karr") / "set", []
    return out, run(book, world / "captions.jsonl", out, asked=asked), asked
