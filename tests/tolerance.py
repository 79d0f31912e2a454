"""How far apart two ways to the same numbers may end, counted in roundings.

Two ways that compute the same thing add in another order: a batch beside a single item, kept prefixes beside fresh ones, one processor's
vector width beside another's. Each addition rounds by at most half the distance `eps` between neighbouring numbers of its type, relative to
the larger summand, so that their difference grows with the largest value on the way and with the number of roundings that lie between, and
an absolute limit on states that reach 3.5 fails on another processor by chance. A limit is therefore a number of `eps` of the largest
magnitude compared. The limits are four to ten times what two ways differ by here; an error in the computation shows as thousands.
"""

from __future__ import annotations

from typing import Any

import torch

ROUNDED = 8  # one result rounded once or twice: a length that was made 1, a mean, a weighted sum of two
FORWARD = 96  # two ways through the layers of a small model
GRADIENT = 256  # and back through them, over sums that partly cancel
TRAINING = 512  # some steps of an optimiser, which divides a gradient by its own size


def roundings(actual: Any, expected: Any) -> float:
    """The largest difference of two tensors, arrays or numbers, in `eps` of the coarser type and relative to the largest magnitude.

    A Python number counts as float32, in which losses are computed; as the expected value it stands for every element. Raises
    AssertionError where shapes differ.
    """
    found, wanted = (torch.as_tensor(value).detach().cpu() for value in (actual, expected))
    if isinstance(expected, (int, float)):
        wanted = wanted.expand(found.shape)
    assert found.shape == wanted.shape, f"shapes differ: {tuple(found.shape)} and {tuple(wanted.shape)}"
    kinds = [one.dtype for one, given in ((found, actual), (wanted, expected)) if not isinstance(given, (int, float))]
    eps = max((torch.finfo(kind).eps for kind in kinds if kind.is_floating_point), default=torch.finfo(torch.float32).eps)
    found, wanted = found.double(), wanted.double()
    if torch.equal(found, wanted):
        return 0.0
    return ((found - wanted).abs().max() / torch.maximum(found.abs().max(), wanted.abs().max()) / eps).item()


def assert_close(actual: Any, expected: Any, *, steps: float, why: str = "") -> None:
    """Fail where two results lie further apart than `steps` roundings of the largest magnitude compared; NaN is close to nothing."""
    apart = roundings(actual, expected)
    assert apart <= steps, f"{apart:.4g} roundings apart, not <= {steps:g}. {why}"
