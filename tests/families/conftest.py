"""A tiny model of the family that a test is parametrised with, loaded, and latent queries for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import build

from slq.adapters.latents import LatentQueries
from slq.models import FrozenModel, load_model


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="module")
def model(folder) -> FrozenModel:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def latents(model) -> torch.nn.Parameter:
    return LatentQueries.create(6, model.dim, generator=torch.Generator().manual_seed(0)).latents
