"""Poolings against their definitions, and what is found by name."""

from __future__ import annotations

import pytest
import torch
from tolerance import FORWARD, assert_close
from torch import Tensor

from slq.errors import InputError
from slq.pooling import LastPooling, MeanPooling, MultiVectorPooling, poolings

STATES_BND = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().sum(dim=-1, keepdim=True).sqrt()


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        (MeanPooling(), unit(sum(STATES_BND.unbind(dim=1)) / 3)),
        (LastPooling(), unit(STATES_BND[:, 2])),
        (MultiVectorPooling(2), torch.stack([unit(STATES_BND[:, 0]), unit(STATES_BND[:, 1])], dim=1)),
    ],
    ids=str,
)
def test_pooling_is_its_definition(pooling, wanted):
    assert_close(pooling(STATES_BND), wanted, steps=FORWARD)
    assert pooling.vector_shape(5) == wanted.shape[1:]


def test_mean_leaves_out_states_of_zero():
    padded = torch.cat([torch.zeros(2, 4, 5), STATES_BND], dim=1)
    assert_close(MeanPooling()(padded), MeanPooling()(STATES_BND), steps=FORWARD)


def test_names_and_what_is_unknown():
    assert {"mean": MeanPooling, "last": LastPooling, "multi_vector": MultiVectorPooling} == {
        name: poolings.get(name) for name in ("mean", "last", "multi_vector")
    }
    with pytest.raises(InputError, match="Did you mean 'mean'"):
        poolings.get("meen")
