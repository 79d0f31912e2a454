"""How much of what the machine can do a piece of work uses.

Its floating-point operations are counted by formula from the shapes of the operations that it runs (torch's own counter). What the machine
can do is measured in the same process: plain matrix products of the very shapes and dtype that the work multiplies, one after the other.
Had the work been nothing but these products at that rate, it would have taken so many seconds; divided by what it did take, that is the
fraction of the machine that it reached. Attention, convolutions and other counted operations are taken at the products' mean rate; what
does not multiply (norms, copies, preparing images) counts as lost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from research.bench.measuring import timed

SECONDS = 0.2  # that a shape is multiplied for
LEFT_OUT = 0.02  # of all products' operations, in the smallest shapes, which are not timed
Shape = tuple[int, int, int, torch.dtype]  # rows, what is summed over, columns

_aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of attention on the CPU, which torch's counter does not know: queries by keys, then weights by values."""
    batch, heads, queries, dim = query.shape
    keys, width = value.shape[-2:]
    return 2 * batch * heads * queries * keys * (dim + width)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Five products where forward had two: the weights again, and the gradients of queries, keys, values and weights."""
    batch, heads, queries, dim = query.shape
    keys, width = value.shape[-2:]
    return 2 * batch * heads * queries * keys * (3 * dim + 2 * width)


ON_CPU: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Products(TorchDispatchMode):
    """Counts the operations that run while it is entered, and the shapes of the matrix products among them.

    Torch's own `FlopCounterMode` hooks into autograd to tell modules apart, which is refused where gradients are off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Shape] = Counter()
        self.flops = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode operations made of others arrive whole
            if (made := function.decompose(*args, **(kwargs or {}))) is not NotImplemented:
                return made
        if function in (_aten.mm.default, _aten.addmm.default):
            one, other = args[-2:]
            self.shapes[one.shape[0], one.shape[1], other.shape[1], one.dtype] += 1
        found = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if packet in ON_CPU:
            self.flops += ON_CPU[packet](*args)
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=found)
        return found


@dataclass
class Machine:
    """The rates of matrix products on a device, each shape measured once."""

    device: torch.device
    _seconds: dict[Shape, float] = field(default_factory=dict)

    def used(self, run: Callable[[], object], seconds: float) -> dict[str, float]:
        """What a piece of work reaches.

        Args:
            run: does the work once.
            seconds: that it takes, measured without counting.

        Returns:
            `flops` of the work, `gflops_per_second` that it reaches, `gemm_gflops_per_second` of plain products of its shapes, and
            `of_machine`, the one divided by the other.
        """
        with Products() as products:
            run()
        total, rate = products.flops, self._rate(products.shapes)
        return {
            "flops": float(total),
            "gflops_per_second": round(total / seconds / 1e9, 2),
            "gemm_gflops_per_second": round(rate / 1e9, 2),
            "of_machine": round(total / rate / seconds, 4),
        }

    def _rate(self, shapes: Counter[Shape]) -> float:
        """Operations a second of these products one after the other."""
        of_shape = {shape: 2 * shape[0] * shape[1] * shape[2] * count for shape, count in shapes.items()}
        all_of_them, flops, seconds = sum(of_shape.values()), 0, 0.0
        for shape in sorted(of_shape, key=lambda each: -of_shape[each]):
            if flops >= (1 - LEFT_OUT) * all_of_them:
                break
            flops += of_shape[shape]
            seconds += shapes[shape] * self._seconds_of(shape)
        return flops / seconds

    def _seconds_of(self, shape: Shape) -> float:
        """Seconds of one product, the fastest of several."""
        if shape not in self._seconds:
            rows, inner, columns, dtype = shape
            one = torch.randn(rows, inner, dtype=dtype, device=self.device)
            other = torch.randn(columns, inner, dtype=dtype, device=self.device).t()  # as the weights of a linear layer lie
            least, end = float("inf"), time.monotonic() + SECONDS
            torch.mm(one, other)
            while least == float("inf") or time.monotonic() < end:
                least = min(least, timed(lambda: torch.mm(one, other), self.device))
            self._seconds[shape] = least
        return self._seconds[shape]
