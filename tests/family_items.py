"""What the contract tests of all families share: which families, the items, the two ways of running them, and how they are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import FAMILIES

from slq.types import Item

# Linear attention cannot take up a prefix; sliding layers drop tokens, so that a prefix fits only the batch it was made in.
SPLITTING = [name for name in FAMILIES if name != "qwen3_5"]
KEEPING = [name for name in SPLITTING if name != "gemma3"]
OFF = 1e-2  # what is wrong differs by more than this; what is right, by less than 1e-5


def families(names):
    return pytest.mark.parametrize("folder", list(names), indirect=True, scope="module")


def image(seed: int, width: int, height: int) -> Image.Image:
    """Coarse noise, which survives being made smaller."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)


WIDE, TALL, SQUARE = image(0, 160, 64), image(1, 64, 128), image(2, 96, 96)
ITEMS = [
    Item("a red cat"),
    Item("two blue boats under a bridge, and what else is there in the image?"),
    Item(image=WIDE),
    Item(image=TALL),
    Item(image=SQUARE),
    Item("but green", TALL),
    Item("a red cat", SQUARE),
]


def split(model, items, latents):
    return model.decode_latents(model.prefill(model.prepare(items)), latents)


def full(model, items, latents):
    return model.forward_reference(model.prepare(items), latents)


def paths(model):
    return [full, split] if model.supports_two_pass else [full]


def error(found, wanted):
    """The largest difference, relative to the largest value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def gradient(embeddings_BD, latents_ND):
    """Gradient of a fixed random projection, so that every dimension counts."""
    weights = torch.randn(embeddings_BD.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((embeddings_BD * weights).sum(), latents_ND)[0]
