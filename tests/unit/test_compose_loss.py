"""The loss of a run, composed from its options, against the formula written out: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from slq.config import NamedOptions, TrainConfig
from slq.errors import ConfigError, InputError
from slq.losses import LossBatch, compose_loss
from slq.losses.info_nce import info_nce
from slq.losses.late_interaction import late_interaction_nce
from slq.losses.orthogonality import orthogonality_penalty
from slq.pooling import MeanPooling

QUERIES, CANDIDATES, LATENTS, DIM = 4, 6, 3, 16
POSITIVES = torch.eye(QUERIES, CANDIDATES, dtype=torch.bool)
ORTHOGONALITY = (NamedOptions("info_nce"), NamedOptions("orthogonality", {"weight": 0.5}))


def learned() -> list[torch.Tensor]:
    """States of queries and candidates, and the logarithm of the temperature."""
    states = torch.randn(QUERIES + CANDIDATES, LATENTS, DIM, generator=torch.Generator().manual_seed(0))
    return [states.requires_grad_(), torch.tensor(-2.5, requires_grad=True)]


def written_out(states_BND, temperature, dims=(), sizes=(), margin=None, weight=0.0):
    """The loss of a run before it was composed."""
    queries_BD, candidates_CD = MeanPooling()(states_BND).split([QUERIES, CANDIDATES])
    of_widths = [info_nce(queries_BD, candidates_CD, POSITIVES, temperature, false_negative_margin=margin)]
    for dim in dims:
        cut = [functional.normalize(each[:, :dim], dim=-1) for each in (queries_BD, candidates_CD)]
        of_widths.append(info_nce(*cut, POSITIVES, temperature, false_negative_margin=margin))
    loss = torch.stack(of_widths).mean()
    if sizes:
        queries_BND, candidates_CND = functional.normalize(states_BND, dim=-1).split([QUERIES, CANDIDATES])
        pairs = [(queries_BND[:, :size], candidates_CND[:, :size]) for size in sizes]
        loss = loss + torch.stack([late_interaction_nce(*pair, POSITIVES, temperature, margin) for pair in pairs]).mean()
    if weight:
        loss = loss + weight * orthogonality_penalty(states_BND)
    return loss


def with_gradients(loss_of) -> list[torch.Tensor]:
    states_BND, log_temperature = learned()
    loss = loss_of(states_BND, log_temperature.exp())
    return [loss.detach(), *torch.autograd.grad(loss, [states_BND, log_temperature])]


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({}, {}),
        ({"false_negative_margin": 0.1}, {"margin": 0.1}),
        ({"matryoshka_dims": (4, 8)}, {"dims": (4, 8)}),
        ({"multi_vector_sizes": (1, 3)}, {"sizes": (1, 3)}),
        ({"loss": ORTHOGONALITY}, {"weight": 0.5}),
        (
            {"matryoshka_dims": (4,), "multi_vector_sizes": (2,), "loss": ORTHOGONALITY, "false_negative_margin": 0.05},
            {"dims": (4,), "sizes": (2,), "margin": 0.05, "weight": 0.5},
        ),
    ],
    ids=str,
)
def test_composed_loss_is_the_formula_written_out(options, terms):
    loss = compose_loss(TrainConfig(**options))

    def composed(states_BND, temperature):
        states = states_BND.split([QUERIES, CANDIDATES])
        return loss(LossBatch(*states, *MeanPooling()(states_BND).split([QUERIES, CANDIDATES]), POSITIVES, temperature))

    found, wanted = with_gradients(composed), with_gradients(lambda *given: written_out(*given, **terms))
    assert torch.equal(found[0], wanted[0])
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


def test_losses_add_up_and_have_options_of_their_own():
    twice = compose_loss(TrainConfig(loss=(NamedOptions("info_nce"), NamedOptions("info_nce", {"symmetric": False}))))
    states_BND, log_temperature = learned()
    halves = states_BND.split([QUERIES, CANDIDATES])
    embeddings = MeanPooling()(states_BND).split([QUERIES, CANDIDATES])
    found = twice(LossBatch(*halves, *embeddings, POSITIVES, log_temperature.exp()))
    one_way = info_nce(*embeddings, POSITIVES, log_temperature.exp(), symmetric=False)
    assert torch.equal(found, info_nce(*embeddings, POSITIVES, log_temperature.exp()) + one_way)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("info_nce:symetric=false", "loss info_nce: unknown key 'symetric'. Did you mean 'symmetric'"),
        ("info_nce:symmetric=3", "loss info_nce: symmetric must be true or false, not 3"),
        ("orthogonality:weight=much", "loss orthogonality: weight must be a number, not 'much'"),
        ("orthogonality:weight=-1", "weight must be a number, at least 0, not -1"),
    ],
)
def test_wrong_options_of_a_loss_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        compose_loss(TrainConfig(loss=("info_nce", text)))


def test_unknown_losses_and_a_regulariser_alone_are_refused():
    with pytest.raises(InputError, match="Did you mean 'info_nce'"):
        TrainConfig(loss=("info_nc",))
    with pytest.raises(ConfigError, match="name another beside it"):
        TrainConfig(loss=("orthogonality",))
