"""The contracts of losses and poolings, on small batches of random states.

Shapes: B queries, C candidates, N states of an item, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from slq.losses import Loss, LossBatch
from slq.losses.base import fault_of_loss
from slq.pooling import MeanPooling, Pooling
from slq.testing.subject import Subject, shown

QUERIES, CANDIDATES, STATES, DIM = 4, 7, 3, 16
CLOSE = 1e-5  # relative, in float32


def check_loss(make: Callable[[], Loss]) -> None:
    """Hold a loss to what training relies on.

    Args:
        make: the class of the loss, or a function that makes one without arguments.

    Raises:
        AssertionError: naming the loss, the first promise that does not hold, and what it did.
    """
    subject = Subject("loss", make)
    if isinstance(make, type):
        subject.is_free_of(fault_of_loss("", make))
    loss = subject.made(make)
    subject.is_free_of(fault_of_loss("", type(loss)))
    subject.must("be called with a LossBatch", callable(loss), "has no method __call__")
    for states in (STATES, 1):
        what, batch = f"a batch with {states} state(s) an item", loss_batch(states=states)
        before = [getattr(batch, each.name).clone() for each in fields(batch)]
        value = _value(subject, loss, batch, what)
        changed = [each.name for each, old in zip(fields(batch), before, strict=True) if not torch.equal(getattr(batch, each.name), old)]
        subject.must("leave its batch as it is", not changed, f"changed its batch: {', '.join(changed)}")
        again = _value(subject, loss, batch, what)
        subject.must("give one value for the same batch", torch.equal(again, value), f"gave two values, {value:.6g} and {again:.6g}")
    _check_gradient(subject, loss)
    batch = loss_batch()
    right = _value(subject, loss, batch, "a batch")
    shuffled = _reordered(batch, torch.tensor([2, 0, 3, 1]), torch.tensor([6, 3, 0, 5, 1, 4, 2]))
    asked = "not depend on the order of queries and candidates"
    _hold(subject, asked, "a batch in another order", _value(subject, loss, shuffled, "a batch in another order"), right)
    wrong = _value(subject, loss, replace(batch, positives_BC=batch.positives_BC.roll(1, dims=0)), "a batch with other positives")
    lower = bool(right <= wrong + CLOSE * wrong.abs())
    subject.must(
        "be lower where queries meet their positives", lower, f"is {right:.4f} for those, and {wrong:.4f} for those that meet others"
    )
    _value(subject, loss, loss_batch(dtype=torch.bfloat16), "states in bfloat16")


def check_pooling(make: Callable[[], Pooling]) -> None:
    """Hold a pooling to what encoders rely on.

    Args:
        make: the class of the pooling, or a function that makes one without arguments.

    Raises:
        AssertionError: naming the pooling, the first promise that does not hold, and what it did.
    """
    subject = Subject("pooling", make)
    pooling = subject.made(make, "__call__", "vector_shape")
    states_BND = _states(QUERIES, STATES).requires_grad_()
    before = states_BND.detach().clone()
    found = _pooled(subject, pooling, states_BND)
    subject.must("leave its states as they are", torch.equal(states_BND, before), "changed its states")
    lengths = found.norm(dim=-1)
    _hold(subject, "give vectors of length 1", "vectors of another length", lengths, torch.ones_like(lengths))
    alone = torch.cat([_pooled(subject, pooling, states_BND[i : i + 1]) for i in range(QUERIES)])
    _hold(subject, "not depend on the other items of a batch", "an item alone", alone, found)
    apart = bool((found[0] - found[1]).abs().max() > 1e-3)
    subject.must("tell items of other states apart", apart, "gave the same embedding for two of them")
    with subject.trying("be made anew, as for each adapter that is loaded"):
        other = make()
    again = _pooled(subject, other, states_BND)
    _hold(subject, "give the same embeddings whenever it is made: what it learned is saved nowhere", "another object", again, found)
    _check_gradient_of_states(subject, found, states_BND)
    _pooled(subject, pooling, states_BND.detach().bfloat16(), " of states in bfloat16")


def loss_batch(states: int = STATES, dtype: torch.dtype = torch.float32) -> LossBatch:
    """A batch in which queries are near their positives.

    One positive is shared, one query has two, and the last two candidates are hard negatives.

    Args:
        states: of each item.
        dtype: of the states.
    """
    candidates_CND = _states(CANDIDATES, states)
    queries_BND = candidates_CND[:QUERIES] + 0.3 * _states(QUERIES, states, seed=1)
    positives_BC = torch.eye(QUERIES, CANDIDATES, dtype=torch.bool)
    positives_BC[0, 4] = positives_BC[2, 1] = True
    queries_BND, candidates_CND = queries_BND.to(dtype), candidates_CND.to(dtype)
    queries_BD, candidates_CD = MeanPooling()(queries_BND), MeanPooling()(candidates_CND)
    return LossBatch(queries_BND, candidates_CND, queries_BD, candidates_CD, positives_BC, torch.tensor(0.1))


def _value(subject: Subject, loss: Loss, batch: LossBatch, what: str) -> Tensor:
    """The loss of a batch, which must be one finite number."""
    with subject.trying(f"give the loss of {what}"):
        value = loss(batch)
    is_number = isinstance(value, Tensor) and value.ndim == 0 and value.dtype == torch.float32
    subject.must("give one number, a float32 tensor of shape ()", is_number, f"gave {shown(value)} for {what}")
    subject.must("give a finite number", value.isfinite(), f"gave {value.item()} for {what}")
    return value


def _pooled(subject: Subject, pooling: Pooling, states_BND: Tensor, what: str = "") -> Tensor:
    """The embeddings of states, which must be of the shape that the pooling says."""
    with subject.trying(f"pool states (B, N, D){what}"):
        found = pooling(states_BND)
    subject.must(f"give float32 embeddings{what}", isinstance(found, Tensor) and found.dtype == torch.float32, f"gave {shown(found)}")
    with subject.trying("say by vector_shape(dim) which shape an embedding has"):
        shape = pooling.vector_shape(DIM)
    is_shape = isinstance(shape, tuple) and len(shape) in (1, 2) and all(isinstance(size, int) for size in shape)
    subject.must("say by vector_shape(dim) that an embedding is (D,) or (G, D)", is_shape, f"said {shown(shape)}")
    wanted = (len(states_BND), *shape)
    subject.must(f"give embeddings of the shape that vector_shape says, {wanted}", found.shape == wanted, f"gave {shown(found)}")
    return found


def _check_gradient(subject: Subject, loss: Loss) -> None:
    """States get a gradient, and the temperature one that is finite where it is read."""
    plain = loss_batch()
    queries_BND, candidates_CND = plain.queries_BND.requires_grad_(), plain.candidates_CND.requires_grad_()
    temperature = plain.temperature.requires_grad_()
    queries_BD, candidates_CD = MeanPooling()(queries_BND), MeanPooling()(candidates_CND)
    batch = LossBatch(queries_BND, candidates_CND, queries_BD, candidates_CD, plain.positives_BC, temperature)
    value = _value(subject, loss, batch, "a batch with gradient")
    subject.must("have a gradient to states or embeddings", value.requires_grad, "gave a number without gradient")
    with subject.trying("have a gradient to states or embeddings"):
        found = torch.autograd.grad(value, [queries_BND, candidates_CND, temperature], allow_unused=True)
    for name, gradient in zip(("queries", "candidates"), found, strict=False):
        reached = gradient is not None and gradient.any()
        subject.must(f"have a gradient to the states of the {name}", reached, "gave them no gradient, or 0")
    finite = all(gradient is None or bool(gradient.isfinite().all()) for gradient in found)
    subject.must("have a finite gradient", finite, "gave a gradient that is not finite")


def _check_gradient_of_states(subject: Subject, found: Tensor, states_BND: Tensor) -> None:
    """States get a finite gradient of what is made of them."""
    asked = "pass the gradient on to its states"
    subject.must(asked, found.requires_grad, "gave embeddings without gradient")
    with subject.trying(asked):
        weighed = (found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum()
        (gradient,) = torch.autograd.grad(weighed, states_BND, allow_unused=True)
    reached = gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
    subject.must(asked, reached, "gave them no gradient, or one that is not finite")


def _reordered(batch: LossBatch, rows: Tensor, columns: Tensor) -> LossBatch:
    return LossBatch(
        batch.queries_BND[rows],
        batch.candidates_CND[columns],
        batch.queries_BD[rows],
        batch.candidates_CD[columns],
        batch.positives_BC[rows][:, columns],
        batch.temperature,
    )


def _states(items: int, states: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(items, states, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1) * 3


def _hold(subject: Subject, asked: str, where: str, found: Tensor, wanted: Tensor) -> None:
    difference = ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)).item()
    subject.must(asked, difference <= CLOSE, f"gave {where} a relative difference of {difference:.1e}")
