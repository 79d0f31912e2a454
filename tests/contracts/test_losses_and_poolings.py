"""Every loss and pooling keeps its contract; and faults that the contract must catch, told by the check that is about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

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
        detached = type(batch)(**{name: each.detach() for name, each in vars(batch).items()})
        match self.fault:
            case "changes":
                batch.queries_BD.mul_(2)
            case "not one number":
                return value.expand(2)
            case "a float":
                return value.item()
            case "nothing":
                return None
            case "float64":
                return value.double()
            case "nan":
                return value / 0 * 0
            case "detached":
                return value.detach()
            case "no gradient":
                return InfoNCE()(detached).requires_grad_()
            case "of queries alone":
                return InfoNCE()(replace(batch, candidates_CND=detached.candidates_CND, candidates_CD=detached.candidates_CD))
            case "order":
                return value + 0.1 * batch.candidates_CD[0, 0]
            case "upside down":
                return 10 - value
            case "raises":
                raise KeyError("margin")
            case "random":
                return value + torch.rand(())
        return value


class Plain:
    """No dataclass."""

    def __call__(self, batch):
        return InfoNCE()(batch)


@dataclass(frozen=True)
class WithoutDefault:
    margin: float

    __call__ = Plain.__call__


@dataclass(frozen=True)
class OddOption:
    kind: Literal["a", "b"] = "a"

    __call__ = Plain.__call__


@dataclass(frozen=True)
class NotCallable:
    margin: float = 0.1


@dataclass(frozen=True)
class TakesTwo:
    def __call__(self, queries, candidates):
        return queries.sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Faulty, "changes"), "must leave its batch as it is; it changed its batch: queries_BD"),
        (partial(Faulty, "not one number"), r"must give one number, .*; it gave a Tensor of shape \(2,\)"),
        (partial(Faulty, "a float"), r"must give one number, a float32 tensor of shape \(\); it gave .* \(float\)"),
        (partial(Faulty, "nothing"), r"must give one number, .*; it gave None \(NoneType\)"),
        (partial(Faulty, "float64"), "must give one number, a float32 tensor .* type float64"),
        (partial(Faulty, "nan"), "must give a finite number; it gave nan"),
        (partial(Faulty, "detached"), "must have a gradient to states or embeddings; it gave a number without gradient"),
        (partial(Faulty, "no gradient"), "must have a gradient to the states of the queries; it gave them no gradient"),
        (partial(Faulty, "of queries alone"), "must have a gradient to the states of the candidates; it gave them no gradient"),
        (partial(Faulty, "order"), "must not depend on the order of queries and candidates; it gave a batch in another order"),
        (partial(Faulty, "upside down"), "must be lower where queries meet their positives; it is"),
        (partial(Faulty, "raises"), "must give the loss of a batch .*; it raised KeyError: 'margin'"),
        (partial(Faulty, "random"), "must give one value for the same batch; it gave two values"),
        (Plain, "must be a dataclass, whose fields are its options"),
        (WithoutDefault, "must have a default for every field, and has none for margin"),
        (OddOption, "must have fields of bool, int, float, str or a tuple of one of them, or None beside it: kind"),
        (NotCallable, "must be called with a LossBatch; it has no method __call__"),
        (TakesTwo, "must give the loss of .*; it raised TypeError: .* missing 1 required positional argument"),
        (Faulty(), "must be given as its class, or a function that makes one; it is an object of Faulty"),
    ],
)
def test_a_fault_of_a_loss_is_told(make, message):
    with pytest.raises(AssertionError, match=rf"^The loss \S+:(Faulty|{getattr(make, '__name__', 'Faulty')}) {message}"):
        check_loss(make)


def test_the_loss_without_fault_holds():
    check_loss(Faulty)


class FaultyPooling:
    """Mean pooling with one fault."""

    def __init__(self, fault: str):
        self.fault = fault
        self.weight = torch.rand(16) if fault == "random" else torch.ones(16)

    def __call__(self, states_BND):
        mean_BD = states_BND.float().mean(dim=1) * self.weight
        match self.fault:
            case "batch":
                mean_BD = mean_BD - mean_BD.mean(dim=0)
            case "the same":
                mean_BD = mean_BD * 0 + torch.linspace(1, 2, mean_BD.shape[1])
            case "detached":
                mean_BD = mean_BD.detach()
            case "changes":
                states_BND.data.mul_(2)
            case "raises":
                raise ValueError("no states")
            case "numpy":
                return mean_BD.detach().numpy()
        pooled = mean_BD if self.fault == "length" else functional.normalize(mean_BD, dim=-1)
        return pooled.to(states_BND.dtype) if self.fault == "bfloat16" else pooled

    def vector_shape(self, dim):
        return {"vector_shape": (dim, 1), "list": [dim], "int": dim, "three": (1, 1, dim)}.get(self.fault, (dim,))


class WithoutShape:
    __call__ = FaultyPooling.__call__


class ShapeTakesNothing(WithoutShape):
    fault, weight = "", torch.ones(16)

    def vector_shape(self):
        return (16,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(FaultyPooling, "batch"), "must not depend on the other items of a batch; it gave an item alone"),
        (partial(FaultyPooling, "the same"), "must tell items of other states apart; it gave the same embedding"),
        (partial(FaultyPooling, "length"), "must give vectors of length 1; it gave vectors of another length"),
        (partial(FaultyPooling, "bfloat16"), "must give float32 embeddings of states in bfloat16; it gave .* type bfloat16"),
        (partial(FaultyPooling, "vector_shape"), r"must give embeddings of the shape .* \(4, 16, 1\); it gave a Tensor of shape \(4, 16\)"),
        (partial(FaultyPooling, "list"), r"must say by vector_shape\(dim\) that an embedding is .*; it said \[16\] \(list\)"),
        (partial(FaultyPooling, "int"), r"must say by vector_shape\(dim\) that an embedding is .*; it said 16"),
        (partial(FaultyPooling, "three"), r"must say by vector_shape\(dim\) that an embedding is .*; it said \(1, 1, 16\)"),
        (partial(FaultyPooling, "detached"), "must pass the gradient on to its states; it gave embeddings without gradient"),
        (partial(FaultyPooling, "changes"), "must leave its states as they are; it changed its states"),
        (partial(FaultyPooling, "raises"), r"must pool states \(B, N, D\); it raised ValueError: no states"),
        (partial(FaultyPooling, "numpy"), "must give float32 embeddings; it gave a ndarray"),
        (partial(FaultyPooling, "random"), "must give the same embeddings whenever it is made"),
        (FaultyPooling, "must be made without arguments; it raised TypeError: .*fault"),
        (WithoutShape, "must have __call__, vector_shape; it lacks vector_shape"),
        (ShapeTakesNothing, r"must say by vector_shape\(dim\) which shape .*; it raised TypeError"),
        (FaultyPooling(""), "must be given as its class, or a function that makes one; it is an object of FaultyPooling"),
    ],
)
def test_a_fault_of_a_pooling_is_told(make, message):
    with pytest.raises(AssertionError, match=rf"^The pooling \S+:\w+ {message}"):
        check_pooling(make)
