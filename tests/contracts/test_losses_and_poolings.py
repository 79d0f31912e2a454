"""Every loss and pooling keeps its contract; and faults that the contract must catch, told by the check that is about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch.nn import functional

from slq.losses import InfoNCE, LateInteraction, Matryoshka, losses
from slq.pooling import MultiVectorPooling, poolings
from slq.testing import check_loss, check_pooling


@pytest.mark.parametrize("name", losses.names())
def test_every_loss_keeps_the_contract(name):
    check_loss(losses.get(name))


@pytest.mark.parametrize(
    "make",
    [
        partial(InfoNCE, symmetric=False),
        partial(InfoNCE, false_negative_margin=0.1),
        partial(LateInteraction, (1, 3)),
        partial(Matryoshka, dims=(4,)),
    ],
    ids=str,
)
def test_losses_with_options_keep_the_contract(make):
    check_loss(make)


@pytest.mark.parametrize("name", poolings.names())
def test_every_pooling_keeps_the_contract(name):
    check_pooling(poolings.get(name))
    check_pooling(partial(MultiVectorPooling, 3))


@dataclass(frozen=True)
class Faulty:
    """InfoNCE with one fault."""

    fault: str = ""

    def __call__(self, batch):
        value = InfoNCE()(batch)
        if self.fault == "changes its batch":
            batch.queries_BD.mul_(2)
        elif self.fault == "one number":
            return value.expand(2)
        elif self.fault == "no gradient":
            return InfoNCE()(type(batch)(**{name: each.detach() for name, each in vars(batch).items()})).requires_grad_()
        elif self.fault == "order":
            return value + 0.1 * batch.candidates_CD[0, 0]
        elif self.fault == "those that meet others":
            return 10 - value
        return value


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changes its batch", "two values|changed its batch"),
        ("one number", "must be one number"),
        ("no gradient", "get no gradient|not have been used|differentiated"),
        ("order", "order of queries and candidates"),
        ("those that meet others", "those that meet others"),
    ],
)
def test_faults_of_losses_are_told(fault, message):
    with pytest.raises((AssertionError, RuntimeError), match=message):
        check_loss(partial(Faulty, fault))
    check_loss(Faulty)


class FaultyPooling:
    """Mean pooling with one fault."""

    def __init__(self, fault: str):
        self.fault = fault

    def __call__(self, states_BND):
        mean_BD = states_BND.float().mean(dim=1)
        if self.fault == "batch":
            mean_BD = mean_BD - mean_BD.mean(dim=0)
        if self.fault == "the same embedding":
            mean_BD = mean_BD * 0 + torch.linspace(1, 2, mean_BD.shape[1])
        pooled = mean_BD if self.fault == "length" else functional.normalize(mean_BD, dim=-1)
        return pooled.to(states_BND.dtype) if self.fault == "bfloat16" else pooled

    def vector_shape(self, dim):
        return (dim, 1) if self.fault == "vector_shape" else (dim,)


@pytest.mark.parametrize("fault", ["batch", "the same embedding", "length", "bfloat16", "vector_shape"])
def test_faults_of_poolings_are_told(fault):
    with pytest.raises(AssertionError, match=fault):
        check_pooling(partial(FaultyPooling, fault))
