"""Try a backbone of a family that no test has run: it works, by the fast path or the slow one, or what is missing is named."""

from __future__ import annotations

import warnings

import torch
from PIL import Image
from torch import Tensor

from slq.backbone.frozen import FrozenBackbone
from slq.errors import BackboneError, InputError
from slq.latents import LatentQueries, pool
from slq.types import Item

# Unit vectors this far apart are equal up to rounding; what is wrong (a mask, positions, padding) shows far above it.
FULL_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05


@torch.no_grad()
def probe(backbone: FrozenBackbone) -> None:
    """Run a text, a picture and both through the backbone, alone and together; give up its fast path where that gives other numbers.

    Raises BackboneError that says what the model lacks.
    """
    kind = backbone.model.config.model_type
    if backbone.processor.tokenizer.pad_token_id is None:
        raise BackboneError(f"A {kind} model cannot be used: its tokenizer has no padding token, so items cannot stand in one batch.")
    picture = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    items = [Item("a red cat on a green mat"), Item(image=picture), Item("but blue", picture)]
    latents_ND = LatentQueries.create(4, backbone.dim, generator=torch.Generator().manual_seed(0)).latents.to(backbone.device)
    together_BD = _run(backbone, items, latents_ND, split=False)
    alone_BD = torch.cat([_run(backbone, [item], latents_ND, split=False) for item in items])
    if not _alike(backbone, alone_BD, together_BD):
        raise BackboneError(f"A {kind} model cannot be used: its embeddings depend on what else is in the batch (left padding is seen).")
    if _alike(backbone, _run(backbone, items, -latents_ND, split=False), together_BD):
        raise BackboneError(f"A {kind} model cannot be used: its last states do not depend on vectors appended to its input.")
    if _alike(backbone, together_BD[1:2], together_BD[2:3]) or _alike(backbone, together_BD[:1], together_BD[1:2]):
        raise BackboneError(f"A {kind} model cannot be used: what is appended to its input does not see the text or the picture before it.")
    if backbone.splits_prefix and not _splits(backbone, items, latents_ND, together_BD):
        backbone.splits_prefix = False
        warnings.warn(f"A {kind} model takes the slow path: its prefix cannot be run apart with the same numbers.", stacklevel=3)


def _splits(backbone: FrozenBackbone, items: list[Item], latents_ND: Tensor, wanted_BD: Tensor) -> bool:
    try:
        return _alike(backbone, _run(backbone, items, latents_ND, split=True), wanted_BD)
    except BackboneError:
        return False


def _run(backbone: FrozenBackbone, items: list[Item], latents_ND: Tensor, split: bool) -> Tensor:
    """Embeddings (B, D) by one of the two paths; raises BackboneError where the model does not take it."""
    try:
        prepared = backbone.prepare(items)
        states = backbone.suffix(backbone.prefix(prepared), latents_ND) if split else backbone.full(prepared, latents_ND)
    except InputError:
        raise
    except Exception as error:  # of an unknown model anything can come
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise BackboneError(f"A {backbone.model.config.model_type} model cannot be used: {type(error).__name__}: {reason}.") from error
    if states.shape != (len(items), *latents_ND.shape) or not torch.isfinite(states).all():
        raise BackboneError(f"A {backbone.model.config.model_type} model cannot be used: it gives no finite state for every input token.")
    return pool(states)


def _alike(backbone: FrozenBackbone, first_BD: Tensor, second_BD: Tensor) -> bool:
    tolerance = FULL_TOLERANCE if backbone.model.dtype == torch.float32 else HALF_TOLERANCE
    return bool((first_BD - second_BD).norm(dim=-1).max() <= tolerance)
