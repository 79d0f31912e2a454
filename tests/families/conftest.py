"""A tiny model of the family that a test is parametrised with, loaded, and latent queries for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import build

from slq.adapters.latents import LatentQueries
from slq.models import FrozenModel, load_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a family's tiny random model, built once a run and only read."""
    built: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in built:
            built[name] = build(name, tmp_path_factory.mktemp("families") / name)
        return built[name]

    return folder_of


@pytest.fixture(scope="module")
def folder(request, tiny) -> Path:
    return tiny(request.param)


@pytest.fixture(scope="module")
def model(folder) -> FrozenModel:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def latents(model) -> torch.nn.Parameter:
    return LatentQueries.create(6, model.dim, generator=torch.Generator().manual_seed(0)).latents
