"""Random numbers, provenance, hashes of weights, devices and dtypes."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from slq.errors import ModelError
from slq.io.device import DTYPES, choose_device, choose_dtype, free_memory, memory_of
from slq.io.provenance import isolated_rng, parameter_hash, provenance, record, seed_everything


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_seed_repeats_all_three():
    seed_everything(3)
    wanted = draw()
    seed_everything(3)
    assert draw() == wanted


@pytest.mark.parametrize("seed", [None, 5])
def test_isolated_numbers_leave_the_global_ones(seed):
    seed_everything(3)
    wanted = draw()
    seed_everything(3)
    with isolated_rng(seed):
        first = draw()
    assert draw() == wanted and (first == wanted) == (seed is None)
    seed_everything(3)
    with pytest.raises(ValueError, match="stop"), isolated_rng(seed):
        draw()
        raise ValueError("stop")
    assert draw() == wanted


def test_isolated_numbers_repeat():
    drawn = []
    for _ in range(2):
        with isolated_rng(5):
            drawn.append(draw())
    assert drawn[0] == drawn[1]


def test_a_result_says_how_to_make_it_again():
    result = record({"score": 1}, command="slq eval", device="cpu", seed=2)
    assert list(result) == ["score", "command", "provenance"] and result["command"] == "slq eval"
    made_with = result["provenance"]
    assert made_with["seed"] == 2 and made_with["device"] == "cpu" and made_with["torch"] == torch.__version__
    assert json.loads(json.dumps(result)) == result and provenance().keys() < made_with.keys()


class Scaled(torch.nn.Module):
    """A layer with a number without a dimension."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.register_buffer("nothing", torch.zeros(0))


def test_the_hash_of_weights_counts_numbers_without_a_dimension():
    assert parameter_hash(Scaled()) == parameter_hash(Scaled()) != parameter_hash(Scaled(1.0000001))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_hash_of_weights_sees_one_bit(dtype):
    layer = torch.nn.Linear(3, 2).to(getattr(torch, dtype))
    before = parameter_hash(layer)
    with torch.no_grad():
        layer.weight[1, 1] = -layer.weight[1, 1]
    assert parameter_hash(layer) != before


def test_devices_and_dtypes():
    assert choose_device("cpu").type == "cpu" and choose_device("cuda:1").index == 1
    assert choose_dtype(None, torch.device("cpu")) is torch.float32 and choose_dtype(None, torch.device("cuda")) is torch.bfloat16
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16
    with pytest.raises(ModelError, match="Unknown device 'gpu': use cpu, cuda"):
        choose_device("gpu")
    with pytest.raises(ModelError, match="Unknown dtype 'half': choose one of float32, bfloat16, float16"):
        choose_dtype("half", torch.device("cpu"))


def test_memory_is_told():
    assert memory_of(torch.device("cpu")) > free_memory() > 0
