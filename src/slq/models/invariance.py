"""Try a model of a family that no test has run: it works, by the fast path or the slow one, or what is missing is named."""

from __future__ import annotations

import warnings

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from slq.errors import InputError, ModelError
from slq.models.frozen import FrozenModel
from slq.types import Item

# Unit vectors this far apart are equal up to rounding; what is wrong (a mask, positions, padding) shows far above it.
FULL_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05


@torch.no_grad()
def probe(model: FrozenModel) -> None:
    """Run a text, an image and both through the model, alone and together; give up its fast path where that gives other numbers.

    Raises ModelError that says what the model lacks.
    """
    kind = model.model.config.model_type
    if model.processor.tokenizer.pad_token_id is None:
        raise ModelError(f"A {kind} model cannot be used: its tokenizer has no padding token, so items cannot stand in one batch.")
    image = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    items = [Item("a red cat on a green mat"), Item(image=image), Item("but blue", image)]
    latents_ND = (torch.randn(4, model.dim, generator=torch.Generator().manual_seed(0)) * model.dim**-0.5).to(model.device)
    together_BD = _run(model, items, latents_ND, split=False)
    alone_BD = torch.cat([_run(model, [item], latents_ND, split=False) for item in items])
    if not _alike(model, alone_BD, together_BD):
        raise ModelError(f"A {kind} model cannot be used: its embeddings depend on what else is in the batch (left padding is seen).")
    if _alike(model, _run(model, items, -latents_ND, split=False), together_BD):
        raise ModelError(f"A {kind} model cannot be used: its last states do not depend on vectors appended to its input.")
    if _alike(model, together_BD[1:2], together_BD[2:3]) or _alike(model, together_BD[:1], together_BD[1:2]):
        raise ModelError(f"A {kind} model cannot be used: what is appended to its input does not see the text or the image before it.")
    if model.supports_two_pass and not _splits(model, items, latents_ND, together_BD):
        model.supports_two_pass = False
        warnings.warn(f"A {kind} model takes the slow path: its prefix cannot be run apart with the same numbers.", stacklevel=3)


def _splits(model: FrozenModel, items: list[Item], latents_ND: Tensor, wanted_BD: Tensor) -> bool:
    try:
        return _alike(model, _run(model, items, latents_ND, split=True), wanted_BD)
    except ModelError:
        return False


def _run(model: FrozenModel, items: list[Item], latents_ND: Tensor, split: bool) -> Tensor:
    """Embeddings (B, D) by one of the two paths; raises ModelError where the model does not take it."""
    try:
        prepared = model.prepare(items)
        states = model.decode_latents(model.prefill(prepared), latents_ND) if split else model.forward_reference(prepared, latents_ND)
    except InputError:
        raise
    except Exception as error:  # of an unknown model anything can come
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(f"A {model.model.config.model_type} model cannot be used: {type(error).__name__}: {reason}.") from error
    if states.shape != (len(items), *latents_ND.shape) or not torch.isfinite(states).all():
        raise ModelError(f"A {model.model.config.model_type} model cannot be used: it gives no finite state for every input token.")
    return functional.normalize(states.float().mean(dim=1), dim=-1)


def _alike(model: FrozenModel, first_BD: Tensor, second_BD: Tensor) -> bool:
    tolerance = FULL_TOLERANCE if model.model.dtype == torch.float32 else HALF_TOLERANCE
    return bool((first_BD - second_BD).norm(dim=-1).max() <= tolerance)
