"""Every training method keeps its contract; and faults that the contract must catch."""

from __future__ import annotations

import math

import pytest
import torch

from slq.config import TrainConfig
from slq.testing import check_method
from slq.training.methods import LatentMethod, LatentTrainable, methods


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "latents" else pytest.mark.slow) for name in methods.names()])
def test_every_method_keeps_the_contract(name, model):
    check_method(methods.get(name), model, TrainConfig(method=name))


class Stays(LatentTrainable):
    def interpolate(self, alpha):
        """Does nothing."""


class Detaches(LatentTrainable):
    def states(self, items, prefetched):
        return super().states(items, prefetched).detach()


class Forgets(LatentTrainable):
    def save(self, folder, training):
        with torch.no_grad():
            self.queries.latents.zero_()
        super().save(folder, training)


class SavesNothing(LatentTrainable):
    def save(self, folder, training):
        """Does nothing."""


class Frozen(LatentTrainable):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.queries.latents.requires_grad_(False)


class Pooled(LatentTrainable):
    def states(self, items, prefetched):
        return super().states(items, prefetched).mean(dim=1)


def creating(kind: type[LatentTrainable]) -> LatentMethod:
    class Creating(LatentMethod):
        def create(self, model, config):
            return kind(super().create(model, config).encoder)

    return Creating()


class Random(LatentMethod):
    def create(self, model, config):
        trainable = super().create(model, config)
        torch.nn.init.normal_(trainable.queries.latents)
        return trainable


class Touches(LatentMethod):
    def create(self, model, config):
        with torch.no_grad():
            next(model.model.parameters()).mul_(1.01)
        return super().create(model, config)


def with_rate(rate: object) -> LatentMethod:
    method = LatentMethod()
    method.learning_rate = lambda model, config: rate  # type: ignore[method-assign]
    return method


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (LatentMethod, "must be given as an object; it is a class"),
        (object(), "must have learning_rate, create, load; it lacks learning_rate, create, load"),
        (with_rate(None), r"must give a learning rate above 0; it gave None"),
        (with_rate(math.nan), r"must give a learning rate above 0; it gave nan"),
        (creating(Frozen), "must create one whose parameters all learn; it gave 2, not all of which do"),
        (creating(Detaches), r"must give states \(3, N, D\) with gradient; it gave a Tensor"),
        (creating(Pooled), r"must give states \(3, N, D\) with gradient; it gave a Tensor of shape \(3, \d+\)"),
        (Random(), "must start from the same values each time; it gave embeddings that differ"),
        (creating(SavesNothing), r"must save what is loaded by its own load\(folder, model\); it raised AdapterError"),
        (creating(Forgets), "must give the same embeddings when loaded by its own load"),
        (creating(Stays), r"must be at its start again after interpolate\(0\); it gave embeddings that differ"),
    ],
)
def test_a_fault_of_a_method_is_told(method, message, model):
    with pytest.raises(AssertionError, match=rf"^The method \S+ {message}"):
        check_method(method, model)


def test_a_method_that_changes_the_model_is_told(model):
    before = next(model.model.parameters()).detach().clone()
    try:
        with pytest.raises(AssertionError, match=r"^The method \S+:Touches must leave the base model as it is"):
            check_method(Touches(), model)
    finally:
        with torch.no_grad():
            next(model.model.parameters()).copy_(before)
