"""The contract of a row of `slq.families`: on a model of the family, every way to the same values gives the same values."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from slq.io.provenance import parameter_hash
from slq.models import FrozenModel
from slq.models.invariance import batch_difference, packing_difference, probe_items, probe_latents, relative_difference, two_pass_difference
from slq.types import Item

VALUES, GRADIENTS = 1e-5, 1e-4  # relative, in float32
DISTINCT = 1e-3  # relative: what is to count differs by more


def check_family(model: FrozenModel, items: Sequence[Item] | None = None) -> None:
    """Hold a model to what a verified family promises; a tiny model with random weights will do.

    Args:
        model: in float32, loaded with the family's row.
        items: a text, an image, and both at least; default, three of our own.

    Raises:
        AssertionError: naming the first promise that does not hold.
    """
    assert model.model.dtype == torch.float32, "load the model in float32: in half precision rounding hides what is wrong"
    items, latents = items or probe_items(), probe_latents(model)
    weights, conversations = parameter_hash(model.model), [[model.message(item)] for item in items]
    answers = model.generate(conversations, max_new_tokens=4)
    _hold("the states of an item depend on its batch: left padding is seen", batch_difference(model, items, latents), VALUES)
    with torch.no_grad():
        states = model.forward_reference(model.prepare(items), latents)
        changed = model.forward_reference(model.prepare(items), -latents)
    assert relative_difference(changed, states) > DISTINCT, "the latent queries do not count"
    for one in range(len(items)):
        for other in range(one):
            assert relative_difference(states[one], states[other]) > DISTINCT, f"items {other} and {one} have the same states"
    if model.supports_two_pass:
        values, gradients = two_pass_difference(model, items, latents)
        _hold("the two-pass forward gives other states than the reference path", values, VALUES)
        _hold("the two-pass forward gives other gradients than the reference path", gradients, GRADIENTS)
    if model.supports_packing:
        _hold("items in one row without padding have other keys and values", packing_difference(model, items), VALUES)
    assert model.generate(conversations, max_new_tokens=4) == answers, "embedding changed what the model answers"
    assert parameter_hash(model.model) == weights, "embedding changed the weights"
    assert not any(each.requires_grad for each in model.model.parameters()), "a parameter asks for a gradient"


def _hold(what: str, difference: float, tolerance: float) -> None:
    assert difference <= tolerance, f"{what} ({difference:.1e}, more than {tolerance:.0e})"
