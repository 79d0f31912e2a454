"""Where and when a result was made, and random numbers that repeat without disturbing anyone else's."""

from __future__ import annotations

import hashlib
import os
import platform
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch.

    Args:
        seed: any whole number from 0 to 2**32 - 1.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Leave the global random numbers of Python, numpy and torch, on every device, as they were before the `with` block.

    Args:
        seed: seeds all of them for the block; None goes on from where they are.

    Example:
        >>> import random
        >>> random.seed(0)
        >>> wanted = random.random()
        >>> random.seed(0)
        >>> with isolated_rng(seed=7):
        ...     drawn = random.random()
        >>> random.random() == wanted
        True
    """
    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        try:
            if seed is not None:
                seed_everything(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def provenance(seed: int | None = None) -> dict[str, Any]:
    """Where and when a result was made.

    Args:
        seed: the run's seed, if it has one.

    Returns:
        Versions, hardware, seed and the time in UTC, ready for JSON.
    """
    import torch

    accelerator = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "hardware": accelerator or f"{os.cpu_count()} CPU cores ({platform.machine()})",
        "slq": version("slq"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "sentence_transformers": version("sentence-transformers"),
    }


def record(content: Mapping[str, Any], *, command: str, device: str, seed: int | None = None) -> dict[str, Any]:
    """A results file: what came out, and what it takes to make it again.

    Args:
        content: the results, ready for JSON.
        command: the command line that made them.
        device: the device they were computed on.
        seed: the run's seed, if it has one.

    Returns:
        The content, then `command` and `provenance`.
    """
    made_with = {**provenance(seed), "numpy": version("numpy"), "device": device}
    return {**content, "command": command, "provenance": made_with}


def parameter_hash(module: torch.nn.Module) -> str:
    """Hash all weights of a module: equal hashes mean bit-identical weights.

    Args:
        module: any module; numbers without a dimension, such as a temperature, count too.

    Returns:
        sha256 in hexadecimal, over the name and the bytes of every parameter and buffer.
    """
    return tensors_hash(module.state_dict())


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash named tensors, whatever their order.

    Args:
        tensors: of any types and shapes.

    Returns:
        sha256 in hexadecimal, over the name and the bytes of each.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
