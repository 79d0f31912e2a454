"""A tiny model of the family that a test is parametrised with, loaded, and latent queries for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import build

from slq.backbone import FrozenBackbone, load_backbone
from slq.latents import LatentQueries


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="module")
def backbone(folder) -> FrozenBackbone:
    return load_backbone(str(folder), device="cpu")


@pytest.fixture(scope="module")
def latents(backbone) -> torch.nn.Parameter:
    return LatentQueries.create(6, backbone.dim, generator=torch.Generator().manual_seed(0)).latents
