"""The contracts of losses and poolings, on small batches of random states.

Shapes: B queries, C candidates, N states of an item, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from slq.losses import Loss, LossBatch
from slq.pooling import MeanPooling, Pooling

QUERIES, CANDIDATES, STATES, DIM = 4, 7, 3, 16
CLOSE = 1e-5  # relative, in float32


def check_loss(make: Callable[[], Loss]) -> None:
    """Hold a loss to what training relies on.

    Args:
        make: the class of the loss, or a function that makes one without arguments.

    Raises:
        AssertionError: naming the first promise that does not hold.
    """
    loss = make()
    assert is_dataclass(loss), "a loss is a dataclass, so that its fields are its options"
    for states in (STATES, 1):
        batch = loss_batch(states=states)
        before = [getattr(batch, each.name).clone() for each in fields(batch)]
        value = loss(batch)
        _check_scalar(value, f"a batch with {states} state(s) an item")
        assert torch.equal(loss(batch), value), "the same batch twice gives two values"
        unchanged = all(torch.equal(getattr(batch, each.name), old) for each, old in zip(fields(batch), before, strict=True))
        assert unchanged, "the loss changed its batch"
    _check_gradient(loss)
    batch = loss_batch()
    shuffled = _reordered(batch, torch.tensor([2, 0, 3, 1]), torch.tensor([6, 3, 0, 5, 1, 4, 2]))
    _hold("the order of queries and candidates makes a difference", loss(shuffled), loss(batch))
    wrong = loss(replace(batch, positives_BC=batch.positives_BC.roll(1, dims=0)))
    right = loss(batch)
    assert right <= wrong + CLOSE * wrong.abs(), f"queries that meet their positives cost {right:.4f}, those that meet others {wrong:.4f}"
    half = loss_batch(dtype=torch.bfloat16)
    _check_scalar(loss(half), "states in bfloat16")


def check_pooling(make: Callable[[], Pooling]) -> None:
    """Hold a pooling to what encoders rely on.

    Args:
        make: the class of the pooling, or a function that makes one without arguments.

    Raises:
        AssertionError: naming the first promise that does not hold.
    """
    pooling = make()
    states_BND = _states(QUERIES, STATES).requires_grad_()
    before = states_BND.detach().clone()
    found = pooling(states_BND)
    wanted = (QUERIES, *pooling.vector_shape(DIM))
    assert found.shape == wanted, f"the embeddings are of shape {tuple(found.shape)}, and vector_shape says {wanted}"
    assert found.dtype == torch.float32, f"embeddings are float32, not {found.dtype}"
    _hold("an embedding has another length than 1", found.norm(dim=-1), torch.ones(found.shape[:-1]))
    assert torch.equal(states_BND, before), "the pooling changed its states"
    alone = torch.cat([pooling(states_BND[i : i + 1]) for i in range(QUERIES)])
    _hold("an item's embedding depends on its batch", alone, found)
    assert (found[0] - found[1]).abs().max() > 1e-3, "items of other states have the same embedding"
    (gradient,) = torch.autograd.grad((found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum(), states_BND)
    assert gradient.isfinite().all() and gradient.any(), "the states get no gradient, or one that is no finite number"
    assert pooling(states_BND.detach().bfloat16()).dtype == torch.float32, "states in bfloat16 give no float32 embeddings"


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


def _check_gradient(loss: Loss) -> None:
    """States get a gradient, and the temperature one that is finite where it is read."""
    plain = loss_batch()
    queries_BND, candidates_CND = plain.queries_BND.requires_grad_(), plain.candidates_CND.requires_grad_()
    temperature = plain.temperature.requires_grad_()
    queries_BD, candidates_CD = MeanPooling()(queries_BND), MeanPooling()(candidates_CND)
    value = loss(LossBatch(queries_BND, candidates_CND, queries_BD, candidates_CD, plain.positives_BC, temperature))
    found = torch.autograd.grad(value, [queries_BND, candidates_CND, temperature], allow_unused=True)
    for name, gradient in zip(("queries", "candidates"), found, strict=False):
        assert gradient is not None and gradient.any(), f"the states of the {name} get no gradient"
    assert all(gradient is None or bool(gradient.isfinite().all()) for gradient in found), "a gradient is no finite number"


def _check_scalar(value: Tensor, what: str) -> None:
    assert value.shape == (), f"{what}: the loss is of shape {tuple(value.shape)}, and must be one number"
    assert value.dtype == torch.float32, f"{what}: the loss is {value.dtype}, and must be float32"
    assert bool(value.isfinite()), f"{what}: the loss is {value.item()}"


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


def _hold(what: str, found: Tensor, wanted: Tensor) -> None:
    difference = ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)).item()
    assert difference <= CLOSE, f"{what} ({difference:.1e}, relative)"
