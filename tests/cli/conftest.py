"""Sample data, adapters and an index, made once for all commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import invoke

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 24 images, test/ with 12."""
    folder = tmp_path_factory.mktemp("cli") / "sample-data"
    invoke("sample-data", "--split", "train", "--count", 24, "--output", folder / "train")
    invoke("sample-data", "--count", 12, "--output", folder / "test")
    return folder


@pytest.fixture(scope="session")
def other_adapter(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other latent queries on the same model."""
    folder = tmp_path_factory.mktemp("cli") / "other"
    LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(99))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def images(tiny_world: Path) -> Path:
    return tiny_world / "test" / "images"


@pytest.fixture(scope="session")
def index(images: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "index"
    said = invoke("embed", images, "--model", adapter, "--output", out, "--device", "cpu", "--num-workers", 1).output
    assert "12 items encoded" in said and "0 skipped" in said
    return out
