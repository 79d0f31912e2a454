"""Operations are counted as by hand, and the fraction of the machine is what they take at the rate of plain products."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from research.bench.roofline import Machine, Products
from slq.models import FrozenModel

CPU = torch.device("cpu")


def test_operations_by_hand():
    layer, given = torch.nn.Linear(64, 32), torch.randn(2, 5, 64)
    found = Machine(CPU).used(lambda: layer(given), seconds=1e-3)
    assert found["flops"] == 2 * 10 * 64 * 32
    backward = Machine(CPU).used(lambda: layer(given.requires_grad_()).sum().backward(), seconds=1e-3)
    assert backward["flops"] == 3 * found["flops"], "the gradients of what comes in, and of the weights, are a product each"


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_the_processor_counts(masked):
    states = torch.randn(2, 4, 16, 8)
    mask = torch.zeros(16, 16) if masked else None

    def attend() -> None:
        functional.scaled_dot_product_attention(states, states, states, attn_mask=mask)
        torch.mm(torch.ones(2, 2), torch.ones(2, 2))  # without any product there is no rate

    assert Machine(CPU).used(attend, seconds=1e-3)["flops"] == 2 * (2 * 8 * 16 * 16 * 8) + 2 * 2 * 2 * 2


def test_plain_products_use_the_whole_machine():
    one, other = torch.randn(256, 256), torch.randn(256, 256)
    machine = Machine(CPU)
    machine._seconds[256, 256, 256, torch.float32] = 0.5
    found = machine.used(lambda: [torch.mm(one, other) for _ in range(4)], seconds=2.0)
    assert found["of_machine"] == 1 and found["gflops_per_second"] == found["gemm_gflops_per_second"]
    assert machine.used(lambda: torch.mm(one, other), seconds=2.0)["of_machine"] == 0.25


def test_the_products_of_a_model_are_those_of_its_layers(model: FrozenModel, items):
    prepared = model.prepare(items[:1])
    with Products() as products, torch.no_grad():
        model.prefill(prepared)
    tokens = prepared.inputs["input_ids"].shape[1]
    layers = [module for name, module in model.model.get_decoder().named_modules() if isinstance(module, torch.nn.Linear)]
    counted = sum(count for (rows, _, _, _), count in products.shapes.items() if rows == tokens)
    assert 0.8 * len(layers) <= counted <= len(layers) and len(layers) > 20, "the last layer needs keys and values alone"
