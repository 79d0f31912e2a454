"""The contract of a row of `slq.families`: on a model of the family, every way to the same values gives the same values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from slq.io.provenance import parameter_hash
from slq.models import FrozenModel
from slq.models.invariance import batch_difference, packing_difference, probe_items, probe_latents, relative_difference, two_pass_difference
from slq.testing.subject import Subject, shown
from slq.types import Item

VALUES, GRADIENTS = 1e-5, 1e-4  # relative, in float32
DISTINCT = 1e-3  # relative: what is to count differs by more


def check_family(model: FrozenModel, items: Sequence[Item] | None = None) -> None:
    """Hold a model to what a verified family promises; a tiny model with random weights will do.

    Args:
        model: in float32, loaded with the family's row.
        items: a text, an image, and both at least; default, three of our own.

    Raises:
        AssertionError: naming the family, the first promise that does not hold, and what the model did.
    """
    loaded = isinstance(model, FrozenModel)
    Subject("family", model).must("be tried on a FrozenModel, as load_model gives it", loaded, f"was given {shown(model)}")
    subject = Subject("family", model, f"of {model.model.config.model_type} models")
    dtype = model.model.dtype
    subject.must("be tried in float32: in half precision rounding hides what is wrong", dtype == torch.float32, f"is in {dtype}")
    items, latents = items or probe_items(), probe_latents(model)
    with subject.trying("answer a text, an image, and both"):
        weights, conversations = parameter_hash(model.model), [[model.message(item)] for item in items]
        answers = model.generate(conversations, max_new_tokens=4)
    _hold(
        subject, "give the same states in every batch (left padding is not seen)", lambda: batch_difference(model, items, latents), VALUES
    )
    with subject.trying("give states of latent queries behind an item"), torch.no_grad():
        states = model.forward_reference(model.prepare(items), latents)
        changed = model.forward_reference(model.prepare(items), -latents)
    wanted = (len(items), *latents.shape)
    subject.must(f"give a state for each latent query, {wanted}", states.shape == wanted, f"gave {shown(states)}")
    subject.must(
        "have states that depend on the latent queries", relative_difference(changed, states) > DISTINCT, "gave others the same states"
    )
    for one in range(len(items)):
        for other in range(one):
            apart = relative_difference(states[one], states[other]) > DISTINCT
            subject.must("have states that depend on the item", apart, f"gave items {other} and {one} the same states")
    if model.supports_two_pass:
        _check_two_passes(subject, model, items, latents)
    if model.supports_packing:
        asked = "give the same keys and values in one row without padding as in a padded batch, or not be marked verified"
        _hold(subject, asked, lambda: packing_difference(model, items), VALUES)
    with subject.trying("answer after embedding"):
        again = model.generate(conversations, max_new_tokens=4)
    subject.must("answer as before once it has embedded", again == answers, "answered something else")
    subject.must("leave its weights as they are", parameter_hash(model.model) == weights, "changed them")
    asking = [name for name, each in model.model.named_parameters() if each.requires_grad]
    subject.must("have no parameter with gradient", not asking, f"has {', '.join(asking[:3])}")


def _check_two_passes(subject: Subject, model: FrozenModel, items: Sequence[Item], latents: torch.Tensor) -> None:
    asked = "give the same {} by the two-pass forward as by the reference path"
    with subject.trying(asked.format("states and gradients")):
        values, gradients = two_pass_difference(model, items, latents)
    _hold(subject, asked.format("states"), lambda: values, VALUES)
    _hold(subject, asked.format("gradients"), lambda: gradients, GRADIENTS)


def _hold(subject: Subject, asked: str, measure: Callable[[], float], tolerance: float) -> None:
    with subject.trying(asked):
        difference = measure()
    subject.must(asked, difference <= tolerance, f"differs by {difference:.1e}, relative, and {tolerance:.0e} is rounding")
