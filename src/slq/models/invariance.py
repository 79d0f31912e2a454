"""What must hold of every model: the same values alone and in a batch, in two passes and in one, packed and padded.

`check_invariance` is what `load_model` runs on a family without a verified row. The measurements below it are shared with
`slq.testing.check_family`, and say how far two ways lie apart.

Shapes: B items, N latent queries, D hidden size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

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
def check_invariance(model: FrozenModel) -> None:
    """Run a text, an image and both through a model, alone and together; give up its two-pass forward where that gives other values.

    Args:
        model: of a family that no test has run; its `supports_two_pass` becomes false, with a warning, where the two passes do not hold.

    Raises:
        ModelError: that says what the model lacks.
    """
    kind = model.model.config.model_type
    if model.processor.tokenizer.pad_token_id is None:
        raise ModelError(f"A {kind} model cannot be used: its tokenizer has no padding token, so items cannot stand in one batch.")
    items, latents_ND = probe_items(), probe_latents(model)
    together_BD = _embed(model, items, latents_ND, two_pass=False)
    alone_BD = torch.cat([_embed(model, [item], latents_ND, two_pass=False) for item in items])
    if not _alike(model, alone_BD, together_BD):
        raise ModelError(f"A {kind} model cannot be used: its embeddings depend on what else is in the batch (left padding is seen).")
    if _alike(model, _embed(model, items, -latents_ND, two_pass=False), together_BD):
        raise ModelError(f"A {kind} model cannot be used: its last states do not depend on vectors appended to its input.")
    if _alike(model, together_BD[1:2], together_BD[2:3]) or _alike(model, together_BD[:1], together_BD[1:2]):
        raise ModelError(f"A {kind} model cannot be used: what is appended to its input does not see the text or the image before it.")
    if model.supports_two_pass and not _two_passes_hold(model, items, latents_ND, together_BD):
        model.supports_two_pass = False
        warnings.warn(f"A {kind} model takes the reference path: in two passes it gives other values, or none.", stacklevel=3)


def probe_items() -> list[Item]:
    """A text, an image, and both, of different lengths."""
    image = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    return [Item("a red cat on a green mat"), Item(image=image), Item("but blue", image)]


def probe_latents(model: FrozenModel, count: int = 4) -> Tensor:
    """Latent queries (N, D) as they are initialised, the same ones every time, on the model's device.

    Args:
        model: that they are for.
        count: N.
    """
    return (torch.randn(count, model.dim, generator=torch.Generator().manual_seed(0)) * model.dim**-0.5).to(model.device)


@torch.no_grad()
def batch_difference(model: FrozenModel, items: Sequence[Item], latents_ND: Tensor) -> float:
    """How far states of items alone lie from those in one batch, relative to the largest value.

    Args:
        model: what is tried.
        items: of different lengths.
        latents_ND: (N, D).
    """
    together = model.forward_reference(model.prepare(items), latents_ND)
    alone = torch.cat([model.forward_reference(model.prepare([item]), latents_ND) for item in items])
    return relative_difference(alone, together)


def two_pass_difference(
    model: FrozenModel, items: Sequence[Item], latents_ND: Tensor, generation_prompt: bool = True
) -> tuple[float, float]:
    """How far the two-pass forward lies from the reference path: of states, and of the latents' gradient, each relative to the largest.

    The gradient is that of a fixed random projection of the states, so that every dimension counts.

    Args:
        model: what is tried.
        items: of different lengths.
        latents_ND: (N, D).
        generation_prompt: whether the latent queries stand behind it.

    Returns:
        Of the states, and of the gradient.
    """
    latents = latents_ND.detach().clone().requires_grad_()
    prepared = model.prepare(items, generation_prompt)
    found = [model.decode_latents(model.prefill(prepared), latents), model.forward_reference(prepared, latents)]
    weights = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(1)).to(found[0])
    gradients = [torch.autograd.grad((states * weights).sum(), latents)[0] for states in found]
    return relative_difference(*(states.detach() for states in found)), relative_difference(*gradients)


@torch.no_grad()
def packing_difference(model: FrozenModel, items: Sequence[Item]) -> float:
    """How far keys and values read in one row without padding lie from those of a padded batch, relative to the largest value.

    Args:
        model: what is tried.
        items: of different lengths.
    """
    prepared = model.prepare(items)
    packed = model.prefill_packed([(prepared, model.features(prepared))])
    padded = model.prefill(prepared).unstack()
    pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(packed, padded, strict=True) for name in ("keys", "values")]
    return max(relative_difference(found, wanted) for found, wanted in pairs)


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest value of the second.

    Args:
        found: of any shape.
        wanted: of the same shape.
    """
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def _two_passes_hold(model: FrozenModel, items: list[Item], latents_ND: Tensor, wanted_BD: Tensor) -> bool:
    try:
        return _alike(model, _embed(model, items, latents_ND, two_pass=True), wanted_BD)
    except ModelError:
        return False


def _embed(model: FrozenModel, items: list[Item], latents_ND: Tensor, two_pass: bool) -> Tensor:
    """Embeddings (B, D) by one of the two ways; raises ModelError where the model does not take it."""
    try:
        prepared = model.prepare(items)
        states = model.decode_latents(model.prefill(prepared), latents_ND) if two_pass else model.forward_reference(prepared, latents_ND)
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
