"""Optimising: our Muon takes torch's steps, and every parameter has one optimiser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerance import GRADIENT, assert_close, roundings
from torch import Tensor

from research.pretraining.__main__ import rate_factor
from research.pretraining.architecture import build_model, train_tokenizer
from research.pretraining.objective import Objective
from research.pretraining.optimisers import Muon, build_optimisers

SHAPES = {"wide": (40, 96), "tall": (96, 40), "square": (64, 64)}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def torch_muon(parameters: list[Tensor], lr: float = 0.02, weight_decay: float = 0.05, **options: object) -> torch.optim.Muon:
    return torch.optim.Muon(parameters, lr=lr, weight_decay=weight_decay, **{"adjust_lr_fn": "match_rms_adamw", **options})


def our_muon(parameters: list[Tensor]) -> Muon:
    return Muon(parameters, lr=0.02, weight_decay=0.05)


def moved(make: Callable[[list[Tensor]], torch.optim.Optimizer], shape: tuple[int, int], steps: int = 12) -> Tensor:
    """Where the steps lead from one start, under gradients that grow."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=draw)
    parameter = torch.nn.Parameter(start.clone())
    optimiser = make([parameter])
    for step in range(steps):
        parameter.grad = torch.randn(shape, generator=draw) * 1.5**step
        optimiser.step()
    return parameter.detach() - start


def distance(first: Tensor, second: Tensor) -> float:
    return ((first - second).norm() / second.norm()).item()


@each_shape
def test_our_muon_goes_where_torchs_goes(shape):
    """torch works in bfloat16, hence a little leeway; every single setting that differs leads elsewhere."""
    ours = moved(our_muon, shape)
    assert distance(ours, moved(torch_muon, shape)) < 0.015
    for other in ({"momentum": 0.9}, {"nesterov": False}, {"weight_decay": 0.0}, {"adjust_lr_fn": "original"}, {"ns_steps": 4}):
        assert distance(ours, moved(lambda parameters, other=other: torch_muon(parameters, **other), shape)) > 0.03, other


def test_matrices_of_one_shape_do_not_mix():
    draw = torch.Generator().manual_seed(2)
    starts = [torch.randn(shape, generator=draw) for shape in ((8, 6), (6, 8), (8, 6), (8, 6))]
    gradients = [torch.randn(start.shape, generator=draw) for start in starts]
    together = [torch.nn.Parameter(start.clone()) for start in starts]
    optimiser = our_muon(together)
    for parameter, gradient in zip(together, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimiser.step()
    for parameter, start, gradient in zip(together, starts, gradients, strict=True):
        alone = torch.nn.Parameter(start.clone())
        alone.grad = gradient.clone()
        our_muon([alone]).step()
        assert_close(parameter, alone, steps=GRADIENT)
        assert roundings(parameter, start) > 10 * GRADIENT


def test_every_parameter_has_one_optimiser():
    objective = Objective(build_model(train_tokenizer(["a red cat"])))
    muon, adam = build_optimisers(objective, 1.0)
    assert isinstance(muon, Muon) and isinstance(adam, torch.optim.AdamW)
    inside, others = ([parameter for group in optimiser.param_groups for parameter in group["params"]] for optimiser in (muon, adam))
    assert sorted(map(id, inside + others)) == sorted(id(parameter) for parameter in objective.parameters())
    assert all(parameter.ndim == 2 for parameter in inside)
    of_adam = {id(parameter) for parameter in others}
    assert id(objective.model.get_input_embeddings().weight) in of_adam
    assert {id(parameter) for parameter in objective.cells.parameters()} <= of_adam
    text, vision = objective.model.model.language_model.layers, objective.model.model.vision_tower.encoder.layer
    matrices = {id(parameter) for layers in (text, vision) for parameter in layers.parameters() if parameter.ndim == 2}
    assert matrices == {id(parameter) for parameter in inside}


def test_the_rate_rises_stays_and_falls():
    factors = [rate_factor(step, steps=100, warm_up=10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:60] == [1.0] * 51
    assert factors[80] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(1 / 40)
    assert factors[:10] == sorted(factors[:10]) and factors[60:] == sorted(factors[60:], reverse=True)
